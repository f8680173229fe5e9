"""A video as OpenAI's API describes it, out of what was asked for and what the ledger says of it."""

from dataclasses import dataclass
from typing import Literal

from typing_extensions import TypedDict  # pydantic reads that of Python 3.11 not

from jobs.store.items import RenderItem
from jobs.store.ledger import ItemState, Status

VideoStatus = Literal["queued", "in_progress", "completed", "failed"]
STATUSES: dict[Status, VideoStatus] = {
    "waiting": "queued",
    "running": "in_progress",
    "retrying": "in_progress",
    "done": "completed",
    "failed": "failed",
}


class VideoError(TypedDict):
    """Whose fault it was, and why."""

    code: str
    message: str


class Video(TypedDict):
    """OpenAI's video object; times are whole seconds since 1970, `progress` is a percentage."""

    id: str
    object: Literal["video"]
    model: str
    status: VideoStatus
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    seconds: str
    size: str
    prompt: str
    seed: int
    error: VideoError | None


class Page(TypedDict):
    """Some videos by age."""

    object: Literal["list"]
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(TypedDict):
    """The answer to DELETE."""

    id: str
    object: Literal["video.deleted"]
    deleted: bool


@dataclass(frozen=True, slots=True)
class Asked:
    """A video that was asked for, and when: seconds since 1970."""

    item: RenderItem
    created_s: float


def describe(asked: Asked, state: ItemState | None, *, model: str, fps: int, progress: float = 0.0) -> Video:
    """`state` is None before the ledger has a line on it; `progress` is the part of a running one that is done.

    `fps` are those of a video that names none.
    """
    item, status = asked.item, STATUSES[state.status] if state else "queued"
    is_completed = status == "completed"
    return {
        "id": item.id,
        "object": "video",
        "model": model,
        "status": status,
        "progress": 100 if is_completed else int(100 * progress) if status == "in_progress" else 0,
        "created_at": int(asked.created_s),
        "completed_at": int(state.line["t"]) if state and is_completed else None,
        "expires_at": None,
        "seconds": f"{(item.num_frames - 1) / (item.fps or fps):g}",
        "size": f"{item.width}x{item.height}",
        "prompt": item.prompt,
        "seed": item.seed,
        "error": _error(state) if state and status == "failed" else None,
    }


def _error(state: ItemState) -> VideoError:
    why = "" if state.line["e"] == "done" else state.line.get("why", "")
    return {"code": why or "failed", "message": state.error or "the video was given up"}
