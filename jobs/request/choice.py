"""Which seeds each prompt has, and which prompts are rendered of many."""

import random
import re
from collections.abc import Sequence
from typing import TypeVar

from jobs.errors import BadInput

Line = TypeVar("Line")
SEEDS = re.compile(r"(\d{1,19})(?:\.\.(\d{1,19}))?")
MOST_SEEDS = 10_000
PART = re.compile(r"(\d{1,3}(?:\.\d{1,10})?) ?%")


def seeds_as_given(text: str | None) -> tuple[int, ...]:
    """`0..4` as 0, 1, 2, 3 and 4, and several such parts between commas; none without a text. Raises BadInput."""
    if text is None:
        return ()
    seeds: list[int] = []
    for part in map(str.strip, text.split(",")):
        given = SEEDS.fullmatch(part)
        if given is None:
            raise BadInput(f"--seeds {text!r} should be seeds such as 0..4, from the first to the last, or 0..2,7")
        first, last = int(given[1]), int(given[2] or given[1])
        if last < first:
            raise BadInput(f"--seeds {text}: {part} ends before it begins")
        if last >= 2**63:
            raise BadInput(f"--seeds {text}: a seed must be below 2**63")
        if len(seeds) + last - first >= MOST_SEEDS:
            raise BadInput(f"--seeds {text} are more than {MOST_SEEDS} seeds a prompt")
        seeds += range(first, last + 1)
    if len(set(seeds)) < len(seeds):
        raise BadInput(f"--seeds {text} name a seed twice")
    return tuple(seeds)


def part_as_given(text: str) -> float:
    """`1%` as 0.01. Raises BadInput."""
    given = PART.fullmatch(text.strip())
    part = float(given[1]) / 100 if given else 0.0
    if not 0 < part <= 1:
        raise BadInput(f"--sample {text} should be a part of all prompts, above 0% and up to 100%, such as 1%")
    return part


def chosen(
    lines: Sequence[Line], *, group: int = 1, limit: int | None = None, sample: str | None = None, seed: int = 0
) -> list[Line]:
    """The first `limit` prompts, and of them a random `sample`, the same for the same `seed`; in their order.

    Each prompt has a `group` of lines. Of few prompts at least one is taken. Raises BadInput for what is no part.
    """
    groups = [lines[start : start + group] for start in range(0, len(lines), group)][:limit]
    if sample is not None:
        number = max(1, round(part_as_given(sample) * len(groups)))
        places = sorted(random.Random(seed).sample(range(len(groups)), min(number, len(groups))))
        groups = [groups[place] for place in places]
    return [line for each in groups for line in each]
