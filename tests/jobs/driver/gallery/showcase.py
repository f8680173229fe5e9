"""Galleries to look at: batches with real videos, and what a test asks of their page."""

from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Page

from jobs.driver.gallery.gallery import Entry, Gallery
from jobs.store.mp4 import write_video
from jobs.store.poster import poster


class Batch:
    """A directory with a gallery, and the names of the files as they were written."""

    def __init__(self, directory: Path):
        self.directory = directory
        self.written: list[str] = []
        self.gallery = Gallery(self.write, "two shapes")

    def write(self, name: str, text: str) -> None:
        self.written.append(name)
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        partial = path.with_suffix(".part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)

    def show(self, *entries: Entry, running: bool = False) -> None:
        for index, shown in enumerate(entries):
            self.gallery.update(index, shown)
        self.gallery.flush(running=running)

    @property
    def url(self) -> str:
        return (self.directory / "index.html").as_uri()


def entry(name: str = "0000", **changes: Any) -> Entry:
    values: dict[str, Any] = dict(
        id=name, prompt=f"a red ball, {name}", seed=7, status="waiting", method="resca", height=48, width=64,
        num_frames=24, steps=50,
    )  # fmt: skip
    return Entry(**(values | changes))


def done(name: str = "0000", **changes: Any) -> Entry:
    seconds = {"encode": 0.25, "denoise": 2.0, "decode": 1.0, "write": 0.25}
    values: dict[str, Any] = dict(
        status="done", video=f"videos/{name}.mp4", seconds=seconds, dense_steps=9, sparse_steps=41, attempts=1, gang=0
    )
    return entry(name, **(values | changes))


def film(batch: Batch, *names: str) -> None:
    """Real videos of 2 seconds."""
    frames = np.zeros((24, 48, 64, 3), np.uint8)
    for number in range(24):
        frames[number, 16:32, 2 * number : 2 * number + 16] = (220, 40, 40)
    for name in names:
        write_video(frames, batch.directory / name, fps=12)


def picture(batch: Batch, *names: str) -> None:
    """Real posters, of one colour."""
    data = poster(np.full((48, 64, 3), (40, 160, 60), np.uint8))
    for name in names:
        (batch.directory / name).write_bytes(data)


def requested(page: Page) -> list[str]:
    """The suffixes of what the page asks for from now on, as it comes."""
    found: list[str] = []
    page.on("request", lambda request: found.append(request.url.partition("?")[0].rpartition(".")[2]))
    return found


def ids(page: Page) -> list[str]:
    return page.locator(".card .id").all_inner_texts()


def plays(page: Page) -> None:
    """Returns once the first video has played for a moment."""
    page.locator(".card video").first.evaluate(
        "video => new Promise((done) => { video.ontimeupdate = () => video.currentTime > 0.3 && done() })"
    )
