"""`resca export vbench OUT --to DIR`: finished videos under the names that VBench expects, with its prompt lists.

VBench finds videos by name, `{prompt}-{index}.mp4` with index 0 to 4 (prompts/README.md of github.com/Vchitect/VBench),
in a folder that holds nothing else, as it takes the suffix from any file there (vbench/__init__.py, 0.1.5). A line's
`export_as` stands for its prompt there: videos of a rewritten prompt go by VBench's own. On VBench's own prompts, or on
other ones, grouped by prompt or each video for itself:

    vbench evaluate --dimension color --videos_path DIR/videos
    vbench evaluate --dimension temporal_style --videos_path DIR/videos --full_json_dir DIR/full_info.json
    vbench evaluate --dimension imaging_quality --videos_path DIR/videos --mode custom_input \\
        --prompt_file DIR/prompts.json
"""

import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from jobs.console import count, make_console
from jobs.driver.export import THREADS, finished, place
from jobs.driver.remembered import export_names
from jobs.errors import DONE, PARTIAL, BadInput
from jobs.options.batch import VBenchOptions
from jobs.store.documents import read_as
from jobs.store.files import check_writable, write_text
from jobs.store.items import Sidecar
from jobs.store.ledger import read_state
from jobs.store.medium import VIDEO
from jobs.store.open import open_storage
from jobs.store.storage import Storage

VIDEOS = "videos"
BATCH, PROMPTS, FULL_INFO = "batch.json", "prompts.json", "full_info.json"
VIDEOS_PER_PROMPT = 5
# What VBench measures on any prompt; the other seven need to know its objects, colours, scene or action.
DIMENSIONS = [
    *("subject_consistency", "background_consistency", "temporal_flickering", "motion_smoothness", "dynamic_degree"),
    *("aesthetic_quality", "imaging_quality", "temporal_style", "overall_consistency"),
]
NAME_BYTES = 255
# VBench-2.0 cuts prompts there (vbench2/__init__.py); VBench's own lists have none that is too long for a name.
CUT_CHARACTERS = 180
NOT_IN_NAMES = re.compile(r"[/\x00-\x1f\x7f]")
MOST_NAMES = 3


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One video: where it lies in the batch, what it is, and the name that VBench looks for."""

    source: str
    sidecar: Sidecar
    title: str
    """What VBench knows it by: its prompt, or what stands for that."""
    name: str
    is_numbered: bool
    """Whether another title would have had the same name."""

    @property
    def named_by_title(self) -> bool:
        """Whether VBench finds it by that alone."""
        return self.name.rpartition("-")[0] == self.title


@dataclass(frozen=True, kw_only=True)
class RecordedVideo:
    """The part of a record's row by which an older export is known."""

    video: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """What an export writes of itself, as far as the next one reads it."""

    batch: str
    videos: list[RecordedVideo]


def run(options: VBenchOptions) -> int:
    """Lay the videos out. Returns 3 if the batch is not done, videos are missing or damaged, or names clash; else 0.

    Videos of one prompt are numbered by seed. Prompts that would have the same name are numbered, too, so that VBench
    takes none for the other. A rerun gives the same, with what the batch has finished since.

    Raises:
        BadInput: nothing is finished, what is are images, or the directory holds something else.
    """
    batch = open_storage(options.out)
    state = read_state(batch)
    found, broken = finished(batch, state, VIDEO, judge="VBench")
    if not found:
        raise BadInput(f"{batch} has no finished videos; nothing to export")
    videos = _named(found, export_names(batch))
    _prepare(options.to, batch, videos)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda each: place(batch, each.source, each.sidecar, options.to / VIDEOS / each.name), videos))
    _write_prompts(options.to, videos)
    unfinished = state.counts()
    del unfinished["done"]
    _report(videos, broken, unfinished, options.to)
    return PARTIAL if broken or unfinished or any(video.is_numbered for video in videos) else DONE


def _named(found: Sequence[tuple[str, Sidecar]], export_names: Mapping[tuple[str, str], str | None]) -> list[Exported]:
    """Every video with its name. What the newest prompt file says of an item comes before what its sidecar says."""
    by_title: defaultdict[str, list[tuple[str, Sidecar]]] = defaultdict(list)
    for source, sidecar in sorted(found, key=lambda video: (video[1].seed, video[1].prompt, video[1].id)):
        export_as = export_names.get((sidecar.id, sidecar.prompt), sidecar.export_as)
        by_title[export_as or sidecar.prompt].append((source, sidecar))
    endings = {title: f"-{len(videos) - 1}.mp4" for title, videos in sorted(by_title.items())}
    plain = {title: _stem(title, ending) for title, ending in endings.items()}
    stems = _distinct(plain, endings)
    return [
        Exported(
            source=source, sidecar=sidecar, title=title, name=f"{stem}-{index}.mp4", is_numbered=stem != plain[title]
        )
        for title, stem in stems.items()
        for index, (source, sidecar) in enumerate(by_title[title])
    ]


def _distinct(plain: Mapping[str, str], endings: Mapping[str, str]) -> dict[str, str]:
    """The stems by title; those that several titles have are numbered, but for a title that is the stem itself."""
    common, numbers = Counter(plain.values()), defaultdict[str, Iterator[int]](partial(itertools.count, 1))
    stems = {title: stem for title, stem in plain.items() if common[stem] == 1 or stem == title}
    taken = set(stems.values())
    for title in sorted(plain.keys() - stems.keys()):
        numbered = (f" ({number})" for number in numbers[plain[title]])
        stems[title] = next(
            stem for mark in numbered if (stem := _stem(title, mark + endings[title]) + mark) not in taken
        )
        taken.add(stems[title])
    return stems


def _stem(title: str, ending: str) -> str:
    """The title as it can stand in a file name: without '/' and control characters, cut if it is too long."""
    stem = NOT_IN_NAMES.sub("_", title)
    room = NAME_BYTES - len(ending)
    if len(stem.encode()) > room:
        stem = stem[:CUT_CHARACTERS].encode()[:room].decode(errors="ignore")
    return stem


def _prepare(to: Path, batch: Storage, videos: Sequence[Exported]) -> None:
    """Make the directory, or empty an older export of what is not part of it any more. Raises BadInput for others."""
    check_writable(to, "export directory")
    old = _exported_before(to, batch)
    keep = {video.name for video in videos}
    for name in old - keep:
        (to / VIDEOS / name).unlink(missing_ok=True)
    (to / VIDEOS).mkdir(parents=True, exist_ok=True)
    rows = [_row(video) for video in videos]
    write_text(to / BATCH, json.dumps({"batch": str(batch), "videos": rows}, indent=2) + "\n")


def _exported_before(to: Path, batch: Storage) -> set[str]:
    """The videos that an older export of this batch has left in the directory. Raises BadInput for other content."""
    present = {path.relative_to(to).as_posix() for path in to.rglob("*")} if to.exists() else set()
    if not present:
        return set()
    if to.is_symlink() or (to / VIDEOS).is_symlink() or BATCH not in present:
        raise BadInput(f"{to} is not empty and holds no export of {batch}; name a new directory")
    try:
        record = read_as(Record, (to / BATCH).read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{to / BATCH} is not the record of an export; name a new directory") from error
    if record.batch != str(batch):
        raise BadInput(f"{to} holds an export of {record.batch}, not of {batch}; name a new directory")
    names = {row.video for row in record.videos}
    own = {BATCH, PROMPTS, FULL_INFO, VIDEOS} | {f"{VIDEOS}/{name}" for name in names}
    if strange := sorted(present - own):
        raise BadInput(
            f"{to} holds {strange[0]!r}, which is no part of an export; move it away or name a new directory"
        )
    return names


def _row(video: Exported) -> dict[str, object]:
    """VBench asks to record the seed of every video."""
    known = video.sidecar.model_dump(include={"id", "prompt", "seed", "sha256"})
    return {"video": video.name, **known, "source": video.source}


def _write_prompts(to: Path, videos: Sequence[Exported]) -> None:
    """The prompt of each file, and the prompts whose videos VBench finds by name with the dimensions that fit any."""
    prompts = {video.name: video.sidecar.prompt for video in videos}
    suite = dict.fromkeys(video.title for video in videos if video.named_by_title)
    full_info = [{"prompt_en": title, "dimension": DIMENSIONS} for title in suite]
    write_text(to / PROMPTS, json.dumps(prompts, indent=2) + "\n")
    write_text(to / FULL_INFO, json.dumps(full_info, indent=2) + "\n")


def _report(videos: Sequence[Exported], broken: Sequence[str], unfinished: Counter[str], to: Path) -> None:
    console = make_console()
    per_prompt = Counter(video.title for video in videos)
    renamed = {video.title for video in videos if not video.named_by_title}
    numbered = {video.title for video in videos if video.is_numbered}
    console.print(f"{count(len(videos), 'video')} of {count(len(per_prompt), 'prompt')} in {to}", soft_wrap=True)
    if few := sum(number < VIDEOS_PER_PROMPT for number in per_prompt.values()):
        console.print(f"{count(few, 'prompt')} with fewer than the {VIDEOS_PER_PROMPT} videos that VBench takes")
    if renamed:
        console.print(f"{count(len(renamed), 'prompt')} that no file name can hold: use --prompt_file {to / PROMPTS}")
    if numbered:
        console.print(
            f"{count(len(numbered), 'prompt')} numbered, as others would have the same name: VBench finds them with "
            "--prompt_file alone, or render again with an export_as in their lines, which renders nothing anew",
            soft_wrap=True,
        )
    if broken:
        more = ", ..." if len(broken) > MOST_NAMES else ""
        console.print(
            f"{count(len(broken), 'video')} missing or damaged, left out: render the batch again, with --verify "
            f"({', '.join(broken[:MOST_NAMES])}{more})",
            soft_wrap=True,
        )
    if unfinished:
        parts = ", ".join(f"{count(number, 'video')} {status}" for status, number in sorted(unfinished.items()))
        console.print(f"the batch is not done: {parts}")
