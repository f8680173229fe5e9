"""What a batch has used: how long gangs held their ranks, by the lines of the ledger or as they are written."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class Held:
    """A gang: since when it counts, unless it does not; one that batches share, only while it runs something."""

    num_ranks: int
    ready_s: float
    since_s: float | None
    is_shared: bool
    run_s: float = 0.0

    def part(self, now_s: float) -> float:
        """Of its time since it was ready, that which counted; all of it before anything has run."""
        has_run = self.run_s > 0 or self.since_s is not None
        if not self.is_shared or not has_run or now_s <= self.ready_s:
            return 1.0
        running_s = 0.0 if self.since_s is None else now_s - self.since_s
        return min(1.0, (self.run_s + running_s) / (now_s - self.ready_s))


@dataclass(kw_only=True)
class Usage:
    """Rank seconds of all gangs so far, over all drivers; times are seconds since 1970.

    A gang counts from its place on, with the loading of the model, to its loss or its end. One that other batches may
    use, too (`--keep-warm`), counts for the one that started it until it is ready, and then for whose item it runs.
    """

    on_gpus: bool = False
    """Whether a rank of the last driver has a GPU."""
    price: float | None = None
    """Of an hour of one rank, as was last said."""
    ready_s: float | None = None
    """When the first gang of the last driver was ready."""
    _closed_s: float = 0.0
    _gangs: dict[int, Held] = field(default_factory=dict)

    def begin(self, *, on_gpus: bool | None, price: float | None) -> None:
        """A driver begins; what it does not say stays as it was."""
        self.on_gpus = self.on_gpus if on_gpus is None else on_gpus
        self.price = self.price if price is None else price
        self.ready_s = None

    def ready(self, gang: int, num_ranks: int, now_s: float, held_s: float = 0.0, *, is_shared: bool = False) -> None:
        """A gang is ready, and has had its place for `held_s`; other batches may use it, too, if `is_shared`."""
        self.gone(gang, now_s - held_s)  # One that took its place, without a word of its end, was gone by then.
        self._closed_s += held_s * num_ranks
        since_s = None if is_shared else now_s
        self._gangs[gang] = Held(num_ranks=num_ranks, ready_s=now_s, since_s=since_s, is_shared=is_shared)
        self.ready_s = now_s if self.ready_s is None else self.ready_s

    def runs(self, gang: int | None, now_s: float) -> None:
        """A gang begins an item."""
        held = self._gangs.get(-1 if gang is None else gang)
        if held and held.since_s is None:
            held.since_s = now_s

    def rests(self, gang: int | None, now_s: float) -> None:
        """A gang has ended one: what is shared counts no further."""
        held = self._gangs.get(-1 if gang is None else gang)
        if held and held.is_shared:
            self._close(held, now_s)

    def gone(self, gang: int, now_s: float) -> None:
        """A gang was lost or closed, if there was one."""
        if held := self._gangs.pop(gang, None):
            self._close(held, now_s)

    def end(self, now_s: float) -> None:
        """No gang is left."""
        for gang in list(self._gangs):
            self.gone(gang, now_s)

    @property
    def num_ranks(self) -> int:
        """Those of all gangs."""
        return sum(held.num_ranks for held in self._gangs.values())

    def hours(self, now_s: float) -> float:
        """Of all ranks, until now."""
        since = [(held.since_s, held.num_ranks) for held in self._gangs.values() if held.since_s is not None]
        return (self._closed_s + sum(max(0.0, now_s - since_s) * num_ranks for since_s, num_ranks in since)) / 3600

    def expected_hours(self, now_s: float, left_s: float) -> float:
        """In all, if the gangs that are there go on as they do for `left_s` more."""
        going_on = sum(held.num_ranks * held.part(now_s) for held in self._gangs.values())
        return self.hours(now_s) + left_s * going_on / 3600

    def _close(self, held: Held, now_s: float) -> None:
        if held.since_s is not None:
            seconds = max(0.0, now_s - held.since_s)
            held.since_s, held.run_s = None, held.run_s + seconds
            self._closed_s += seconds * held.num_ranks

    @property
    def unit(self) -> str:
        """What is counted."""
        return "GPU-hours" if self.on_gpus else "rank-hours"
