"""Where dense steps should stand: a good guess from the noise levels, and a local search that measures.

A schedule is a tuple of step numbers; the first is always 0.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate, pairwise

from caching.recipe.schedule import even_places

Steps = tuple[int, ...]


def spread(times: list[float], budget: int, bend: float) -> Steps:
    """`budget` dense steps at even distances in the running sum of `(step in noise level) ** bend`.

    The last one is the last step but one.
    Bend 1 spaces them evenly in noise level, bend 0 in steps (`caching.recipe.schedule.even_places`); a shifted
    schedule is best served in between.
    """
    even = even_places(len(times), budget)
    reached = [0.0, *accumulate(abs(after - before) ** bend for before, after in pairwise([*times, 0.0]))]
    places: list[int] = []
    for number in range(budget):
        wanted = _nearest(reached, reached[even[-1]] * number / max(1, budget - 1))
        earliest = places[-1] + 1 if places else 0
        places.append(min(max(wanted, earliest), even[-1] - budget + 1 + number))
    return tuple(places)


def _nearest(reached: list[float], wanted: float) -> int:
    """The place of the value that is nearest, of two the later one; values rise."""
    after = bisect_left(reached, wanted - 1e-12)
    is_later = after == 0 or reached[after] - wanted <= wanted - reached[after - 1] + 1e-12
    return after if is_later else after - 1


def through(places: Steps, fixed: Collection[int]) -> Steps:
    """The schedule with the nearest of its steps, but not the first, moved to each of the `fixed` ones."""
    for step in sorted(set(fixed) - set(places)):
        movable = [place for place in places[1:] if place not in fixed]
        nearest = min(movable, key=lambda place: abs(place - step), default=None)
        places = tuple(sorted({*places, step} - {nearest}))
    return places


def improve(
    start: Steps,
    num_steps: int,
    is_better: Callable[[Steps, Steps], bool],
    may_ask: Callable[[], bool],
    fixed: Collection[int] = (),
) -> Steps:
    """Move one dense step at a time as long as that is better, by ever smaller strides.

    Args:
        is_better: whether the first schedule is to be preferred to the second.
        may_ask: whether one more may be compared.
        fixed: steps that stay.
    """
    best = start
    for stride in (3, 2, 1):
        moved = True
        while moved:
            moved = False
            for candidate in moves(best, num_steps, stride, fixed):
                if not may_ask():
                    return best
                if is_better(candidate, best):
                    best, moved = candidate, True
                    break
    return best


def moves(places: Steps, num_steps: int, stride: int, fixed: Collection[int] = ()) -> Iterator[Steps]:
    """Every schedule that has one step moved by `stride`, but the first and `fixed` ones.

    The last steps, which matter most, come first.
    """
    for index in reversed([index for index in range(1, len(places)) if places[index] not in fixed]):
        for place in (places[index] + stride, places[index] - stride):
            lowest = places[index - 1]
            highest = places[index + 1] if index + 1 < len(places) else num_steps
            if lowest < place < highest:
                yield (*places[:index], place, *places[index + 1 :])
