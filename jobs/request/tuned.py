"""What a plan of `resca tune` says of itself: what it was made for, and how near to full sampling it comes there."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from jobs.errors import BadInput
from jobs.models.directory import read_json, transformers_of
from jobs.models.facts import ModelFacts
from jobs.models.family import GUIDES
from jobs.request.prompts import Item

BLOCK = "tuned"  # of the recipe file, beside the recipe
SCHEDULER = "scheduler/scheduler_config.json"


class Promise(BaseModel):
    """PSNR of videos against full sampling, of prompts that neither weights nor places were fitted to.

    `mean_db` is known to about `give_or_take_db` (two standard errors). One prompt in ten or fewer is below `tenth_db`,
    with a confidence of 80%.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int
    mean_db: float
    give_or_take_db: float
    tenth_db: float
    worst_db: float

    def __str__(self) -> str:
        return (
            f"{self.mean_db:.1f} dB on average (give or take {self.give_or_take_db:.1f}), at most one in ten below "
            f"{self.tenth_db:.1f}, worst {self.worst_db:.1f}, on {self.prompts} held-out prompts"
        )


class Circumstances(BaseModel):
    """What a plan is for. Other steps, schedulers and transformers contradict it; the rest was not tried."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str
    scheduler: str
    shift: float | None
    steps: int
    sizes: list[str]
    """Of the videos that it was tried on, HEIGHTxWIDTHxFRAMES."""
    guides: dict[str, float | str | None]
    dtype: str
    transformers: int = 1
    """That take over from each other, at a step that goes by the shift."""


class Tuned(Circumstances):
    """The same with what came out, and what the method `auto` gives there with as many dense steps."""

    calibrated_on: int
    promise: Promise
    auto: Promise


def circumstances(facts: ModelFacts, items: Iterable[Item], guides: Mapping[str, Any], dtype: str) -> Circumstances:
    """Those of items to render."""
    items = list(items)
    config = read_json(facts.directory / SCHEDULER)
    shift = config.get("flow_shift", config.get("shift"))
    return Circumstances(
        model=facts.name,
        revision=facts.revision,
        scheduler=str(config.get("_class_name")),
        shift=float(shift) if isinstance(shift, int | float) else None,
        steps=items[0].steps,
        sizes=sorted({f"{item.height}x{item.width}x{item.num_frames}" for item in items}),
        guides={name: guides[name] for name in GUIDES},
        dtype=facts.dtype if dtype == "auto" else dtype,
        transformers=len(transformers_of(facts.directory, facts.family)),
    )


def compare(tuned: Tuned, name: str, now: Circumstances) -> str | None:
    """What was not tried of what is asked for now, in a sentence; None if all was. BadInput if it contradicts."""
    for what in ("steps", "scheduler", "transformers", *(["shift"] if tuned.transformers > 1 else [])):
        made_for, asked = getattr(tuned, what), getattr(now, what)
        if made_for != asked:
            raise BadInput(f"the plan {name} was made for {what} {made_for}, not {asked}; run resca tune anew")
    others = []
    if tuned.revision != now.revision:
        others.append(f"model {tuned.model} as it was" if tuned.model == now.model else f"model {tuned.model}")
    if untried := [size for size in now.sizes if size not in tuned.sizes]:
        others.append(f"size {', '.join(tuned.sizes)} and not {', '.join(untried)}")
    others += [
        f"{what} {getattr(tuned, what)} and not {getattr(now, what)}"
        for what in ("shift", "dtype")
        if getattr(tuned, what) != getattr(now, what)
    ]
    others += [
        f"{guide} {tuned.guides[guide]} and not {scale}"
        for guide, scale in now.guides.items()
        if tuned.guides.get(guide, scale) != scale
    ]
    return (
        f"the plan {name} was tuned with {'; '.join(others)}: what it promises was not tried there" if others else None
    )
