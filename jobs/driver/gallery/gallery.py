"""The gallery of a batch: a page that shows its videos, and the data of that page, written while the batch runs."""

import hashlib
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Literal

CHUNK_SIZE = 500
Status = Literal["waiting", "running", "retrying", "done", "failed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """What the page shows of one video.

    `video` is relative to the batch's directory (`videos/0000-a-red-ball-s0.mp4`, of an image a `.png`; the page shows
    nothing that lies elsewhere); with `poster` a small `.webp` of its name stands for it. `error` is the reason of a
    failure or retry. `seconds` go by stage, in their order.
    """

    id: str
    prompt: str
    seed: int
    status: Status
    method: str
    height: int
    width: int
    num_frames: int
    steps: int
    video: str | None = None
    poster: bool = False
    error: str | None = None
    seconds: dict[str, float] | None = None
    dense_steps: int | None = None
    sparse_steps: int | None = None
    attempts: int = 0
    gang: int | None = None


FIELDS = tuple(field.name for field in fields(Entry))


class Gallery:
    """Keeps `index.html`, `gallery/manifest.js` and `gallery/NNNN.js` (500 videos each) up to date.

    `write` takes a name relative to the batch's directory and a text, and writes that file whole or not at all.
    The data are scripts because a page that was opened from a file can read nothing else. Not for several threads.
    """

    def __init__(self, write: Callable[[str, str], None], title: str):
        self._write = write
        self._title = title
        self._rows: list[str] = []
        self._statuses: list[Status | None] = []
        self._counts: Counter[Status] = Counter()
        self._versions: dict[int, str] = {}
        self._changed: set[int] = set()
        self._has_page = False

    def update(self, index: int, entry: Entry) -> None:
        """Set what is shown of video number `index`; written by the next `flush`."""
        self._grow(index + 1)
        row = _row(entry)
        if row == self._rows[index]:
            return
        if (before := self._statuses[index]) is not None:
            self._counts[before] -= 1
        self._counts[entry.status] += 1
        self._rows[index], self._statuses[index] = row, entry.status
        self._changed.add(index // CHUNK_SIZE)

    def remove(self, index: int) -> None:
        """Show nothing of video number `index` any more."""
        self._grow(index + 1)
        if (before := self._statuses[index]) is not None:
            self._counts[before] -= 1
        self._rows[index], self._statuses[index] = "null", None
        self._changed.add(index // CHUNK_SIZE)

    def flush(self, *, running: bool, words: Sequence[str] = ()) -> None:
        """Write what changed, and the time. While a batch runs, call it at least every half minute, changes or not:
        the page takes a minute of silence for a dead driver. `words` are said of the batch as a whole.

        What `write` raises passes through; the next flush writes again what this one could not.
        """
        if not self._has_page:
            self._write("index.html", page())
            self._has_page = True
        for number in sorted(self._changed):
            self._write_chunk(number)
            self._changed.discard(number)
        # Last: what it names is there.
        self._write("gallery/manifest.js", f"gallery.manifest({_javascript(self._manifest(running, words))});\n")

    def _grow(self, length: int) -> None:
        missing = length - len(self._rows)
        if missing > 0:
            self._rows += ["null"] * missing
            self._statuses += [None] * missing
            self._changed.update(range((length - missing) // CHUNK_SIZE, (length - 1) // CHUNK_SIZE + 1))

    def _write_chunk(self, number: int) -> None:
        rows = ",\n".join(self._rows[number * CHUNK_SIZE : (number + 1) * CHUNK_SIZE])
        # Of the content, so that a page which is open while a batch is started again knows what is new.
        version = hashlib.sha256(rows.encode()).hexdigest()[:12]
        head = _javascript({"number": number, "version": version, "fields": FIELDS})
        self._write(f"gallery/{number:04d}.js", f"gallery.chunk({head}, [\n{rows}\n]);\n")
        self._versions[number] = version

    def _manifest(self, running: bool, words: Sequence[str]) -> dict[str, object]:
        return {
            "title": self._title,
            "running": running,
            "words": list(words),
            "written": round(time.time(), 3),
            "counts": {status: number for status, number in self._counts.items() if number},
            "chunks": [self._versions[number] for number in range(len(self._versions))],
        }


def page() -> str:
    """index.html: one file, which loads nothing but the batch's own data."""
    parts = files("jobs.driver.gallery") / "page"
    text = (parts / "index.html").read_text(encoding="utf-8")
    return re.sub(r"/\* (\w+\.(?:css|js)) \*/", lambda name: (parts / name[1]).read_text(encoding="utf-8"), text)


def _row(entry: Entry) -> str:
    values = {name: getattr(entry, name) for name in FIELDS}
    if entry.seconds:
        values["seconds"] = {stage: round(seconds, 3) for stage, seconds in entry.seconds.items()}
    return _javascript(list(values.values()))


def _javascript(value: object) -> str:
    """A value as ASCII that ends no script, opens no comment and breaks no line, whatever a prompt holds."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
