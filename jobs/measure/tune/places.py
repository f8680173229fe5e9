"""Where dense steps should stand: a good guess from the noise levels, and a local search that measures.

A schedule is a tuple of step numbers; the first is always 0.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator
from itertools import accumulate, pairwise

Steps = tuple[int, ...]


def spread(times: list[float], budget: int, bend: float) -> Steps:
    """`budget` dense steps at even distances in the running sum of `(step in noise level) ** bend`.

    Bend 0 spaces them evenly in steps, bend 1 in noise level; a shifted schedule is best served in between.
    """
    if not 1 <= budget <= len(times):
        raise ValueError(f"between 1 and {len(times)} of {len(times)} steps can be dense, not {budget}")
    reached = [0.0, *accumulate(abs(after - before) ** bend for before, after in pairwise([*times, 0.0]))]
    places: list[int] = []
    for number in range(budget):
        wanted = bisect_left(reached, reached[-1] * number / budget - 1e-12)
        earliest = places[-1] + 1 if places else 0
        places.append(min(max(wanted, earliest), len(times) - budget + number))
    return tuple(places)


def improve(
    start: Steps, num_steps: int, is_better: Callable[[Steps, Steps], bool], may_ask: Callable[[], bool]
) -> Steps:
    """Move one dense step at a time as long as that is better, by ever smaller strides.

    Args:
        is_better: whether the first schedule is to be preferred to the second.
        may_ask: whether one more may be compared.
    """
    best = start
    for stride in (3, 2, 1):
        moved = True
        while moved:
            moved = False
            for candidate in moves(best, num_steps, stride):
                if not may_ask():
                    return best
                if is_better(candidate, best):
                    best, moved = candidate, True
                    break
    return best


def moves(places: Steps, num_steps: int, stride: int) -> Iterator[Steps]:
    """Every schedule that has one step but the first moved by `stride`; the last steps, which matter most, first."""
    for index in reversed(range(1, len(places))):
        for place in (places[index] + stride, places[index] - stride):
            lowest = places[index - 1]
            highest = places[index + 1] if index + 1 < len(places) else num_steps
            if lowest < place < highest:
                yield (*places[:index], place, *places[index + 1 :])
