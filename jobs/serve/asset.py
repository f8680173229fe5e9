"""What can be downloaded of a finished video."""

from dataclasses import dataclass

from jobs.serve.refusal import invalid, not_found
from jobs.store.items import POSTER
from jobs.store.known import Done
from jobs.store.ledger_lines import DoneLine

VARIANTS = ("video", "thumbnail")  # OpenAI's third is made by nobody here


@dataclass(frozen=True, slots=True)
class Asset:
    """A file of the batch, what it is, and a tag that changes with its bytes."""

    name: str
    media_type: str
    tag: str


def asset_of(done: DoneLine, variant: str) -> Asset:
    """The MP4, or the picture that the gallery shows first. Raises Refusal."""
    if variant not in VARIANTS:
        raise invalid(f"variant {variant!r} must be {' or '.join(VARIANTS)}", param="variant")
    if variant == "video":
        return Asset(Done.of_ledger(done).file, "video/mp4", done["sha"])
    if not done.get("poster"):
        raise not_found(f"video {done['id']} has no thumbnail", code="thumbnail_not_found")
    return Asset(f"{done['name']}.{POSTER}", "image/webp", f"{done['sha']}-{variant}")
