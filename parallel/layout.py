"""How many ranks share one video, and in which way: over passes of guidance, heads (Ulysses) and tokens (Ring)."""

from collections.abc import Sequence
from dataclasses import dataclass

MOST_PASSES = 2


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Degrees of guidance in parallel, and in each of its parts of xfuser's unified sequence parallelism (USP).

    Neighbouring ranks form a Ulysses group, so put the fast links there; Ring runs across those groups. With `cfg` 2
    the first half of the ranks computes the first pass of each step, and the second half the other.
    """

    cfg: int = 1
    ulysses: int = 1
    ring: int = 1

    def __post_init__(self) -> None:
        for name in ("cfg", "ulysses", "ring"):
            degree = getattr(self, name)
            if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {degree!r}.")
        if self.cfg > MOST_PASSES:
            raise ValueError(f"cfg must be 1 or {MOST_PASSES}, as many passes as guidance has, not {self.cfg}.")

    @property
    def world_size(self) -> int:
        """The number of ranks that share one video."""
        return self.cfg * self.sequence_size

    @property
    def sequence_size(self) -> int:
        """The number of ranks that share the tokens of a pass."""
        return self.ulysses * self.ring

    @property
    def words(self) -> str:
        """As in `ulysses 2 x ring 1`, for messages."""
        of_a_pass = f"ulysses {self.ulysses} x ring {self.ring}"
        return f"cfg {self.cfg} x {of_a_pass}" if self.cfg > 1 else of_a_pass

    def check(self, *, heads: int, tokens: int) -> None:
        """Raises ValueError if a model of `heads` attention heads and `tokens` image tokens cannot be split so."""
        if heads % self.ulysses:
            raise ValueError(
                f"ulysses={self.ulysses} does not divide the model's {heads} attention heads; "
                f"valid degrees are {_listed(divisors(heads))}."
            )
        if tokens < self.sequence_size:
            raise ValueError(
                f"ulysses={self.ulysses} x ring={self.ring} makes {self.sequence_size} ranks, more than the {tokens} "
                "tokens of this size."
            )


def choose(
    *,
    heads: int,
    slots: Sequence[int],
    most: int,
    gangs: int = 1,
    ulysses: int | None = None,
    ring: int | None = None,
) -> Layout:
    """The layout that puts the most ranks to work on a video, and of those with as many, the one with the least Ring.

    A Ulysses group stays on one node, whose links are fast; Ring runs across groups and nodes. A degree that is given
    is kept.

    Args:
        heads: attention heads, which Ulysses splits.
        slots: ranks that each node has room for.
        most: ranks that a video can use; a degree that is given may exceed it.
        gangs: as many have to fit at the same time.

    Raises:
        ValueError: if no layout fits.
    """
    layouts = []
    for degree in [ulysses] if ulysses else divisors(heads):
        room = sum(slot // degree for slot in slots) // gangs
        turns = ring or max(1, min(room, most // degree))
        if turns <= room and (ulysses or degree * turns <= max(most, ring or 1)):
            layouts.append(Layout(ulysses=degree, ring=turns))
    if not layouts:
        raise ValueError(
            f"no layout of {ulysses or 'auto'} x {ring or 'auto'} (Ulysses x Ring) fits {gangs} times on nodes with "
            f"room for {_listed(list(slots))} ranks; Ulysses stays inside a node"
        )
    return max(layouts, key=lambda layout: (layout.world_size, layout.ulysses))


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    small = [candidate for candidate in range(1, int(number**0.5) + 1) if number % candidate == 0]
    return sorted({*small, *(number // divisor for divisor in small)})


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
