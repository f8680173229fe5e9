"""How many ranks share one video, and in which way: Ulysses (over heads) times Ring (over tokens)."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Degrees of xfuser's unified sequence parallelism (USP).

    Neighbouring ranks form a Ulysses group, so put the fast links there; Ring runs across those groups.
    """

    ulysses: int = 1
    ring: int = 1

    def __post_init__(self) -> None:
        for name in ("ulysses", "ring"):
            degree = getattr(self, name)
            if isinstance(degree, bool) or not isinstance(degree, int) or degree < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {degree!r}.")

    @property
    def world_size(self) -> int:
        """The number of ranks that share one video."""
        return self.ulysses * self.ring

    def check(self, *, heads: int, tokens: int) -> None:
        """Raises ValueError if a model of `heads` attention heads and `tokens` image tokens cannot be split so."""
        if heads % self.ulysses:
            raise ValueError(
                f"ulysses={self.ulysses} does not divide the model's {heads} attention heads; "
                f"valid degrees are {_listed(divisors(heads))}."
            )
        if tokens < self.world_size:
            raise ValueError(
                f"ulysses={self.ulysses} x ring={self.ring} makes {self.world_size} ranks, more than the {tokens} "
                "tokens of this size."
            )


def divisors(number: int) -> list[int]:
    """All divisors of a positive number, ascending."""
    small = [candidate for candidate in range(1, int(number**0.5) + 1) if number % candidate == 0]
    return sorted({*small, *(number // divisor for divisor in small)})


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
