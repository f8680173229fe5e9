"""What a batch has used: how long gangs held their ranks, by the lines of the ledger or as they are written."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Usage:
    """Rank seconds of all gangs so far, over all drivers; times are seconds since 1970.

    A gang counts from its place on, with the loading of the model, to its loss or its end.
    """

    on_gpus: bool = False
    """Whether a rank of the last driver has a GPU."""
    price: float | None = None
    """Of an hour of one rank, as was last said."""
    ready_s: float | None = None
    """When the first gang of the last driver was ready."""
    _closed_s: float = 0.0
    _held: dict[int, tuple[float, int]] = field(default_factory=dict)  # gang: since when, and how many ranks

    def begin(self, *, on_gpus: bool | None, price: float | None) -> None:
        """A driver begins; what it does not say stays as it was."""
        self.on_gpus = self.on_gpus if on_gpus is None else on_gpus
        self.price = self.price if price is None else price
        self.ready_s = None

    def ready(self, gang: int, num_ranks: int, now_s: float, held_s: float = 0.0) -> None:
        """A gang is ready, and has had its place for `held_s`."""
        self.gone(gang, now_s)
        self._held[gang] = now_s - held_s, num_ranks
        self.ready_s = now_s if self.ready_s is None else self.ready_s

    def gone(self, gang: int, now_s: float) -> None:
        """A gang was lost or closed, if there was one."""
        since_s, num_ranks = self._held.pop(gang, (now_s, 0))
        self._closed_s += max(0.0, now_s - since_s) * num_ranks

    def end(self, now_s: float) -> None:
        """No gang is left."""
        for gang in list(self._held):
            self.gone(gang, now_s)

    @property
    def num_ranks(self) -> int:
        """Those that gangs hold."""
        return sum(num_ranks for _, num_ranks in self._held.values())

    def hours(self, now_s: float) -> float:
        """Of all ranks, until now."""
        held = sum(max(0.0, now_s - since_s) * num_ranks for since_s, num_ranks in self._held.values())
        return (self._closed_s + held) / 3600

    def expected_hours(self, now_s: float, left_s: float) -> float:
        """In all, if the gangs that are there hold their ranks for `left_s` more."""
        return self.hours(now_s) + left_s * self.num_ranks / 3600

    @property
    def unit(self) -> str:
        """What is counted."""
        return "GPU-hours" if self.on_gpus else "rank-hours"
