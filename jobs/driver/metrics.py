"""A batch as Prometheus metrics, through Ray: on the driver's node they appear as `ray_resca_...`."""

from typing import TypedDict

from ray.util.metrics import Counter, Gauge, Histogram

from cluster.events import Event

# From a demo video's fractions of a second to the hours of a long one at full size.
SECONDS_BOUNDS = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000]


class Spent(TypedDict):
    """What is counted of a finished video: these fields of its sidecar."""

    seconds: dict[str, float]
    dense_steps: int
    sparse_steps: int


class BatchMetrics:
    """Counts a batch of `total` videos by its events. Needs a running Ray; an event costs some microseconds.

    `batch` is the label by which batches of one cluster are told apart.
    """

    def __init__(self, total: int, *, batch: str):
        self.videos_done = Counter("resca_videos_done", "Videos rendered", ("batch",))
        self.videos_failed = Counter("resca_videos_failed", "Videos given up", ("batch",))
        self.videos_retried = Counter(
            "resca_videos_retried", "Renderings begun again, by whose fault", ("batch", "kind")
        )
        self.stage_seconds = Histogram(
            "resca_stage_seconds", "Seconds of a video by stage", SECONDS_BOUNDS, ("batch", "stage")
        )
        # Ray exports the histogram with a sum that it guesses from the buckets: a quarter too much, say.
        self.seconds_spent = Counter(
            "resca_seconds_spent", "Seconds of all rendered videos by stage", ("batch", "stage")
        )
        self.steps = Counter("resca_steps", "Denoising steps of rendered videos", ("batch", "kind"))
        self.queue_length = Gauge("resca_queue_length", "Videos neither rendered nor given up yet", ("batch",))
        self.gang_rebuilds = Counter("resca_gang_rebuilds", "Gangs started anew after they were lost", ("batch",))
        self.gangs_running = Gauge("resca_gangs_running", "Gangs that are ready to render or do so", ("batch",))
        for metric in vars(self).values():
            metric.set_default_tags({"batch": batch})
        self._num_left = total
        self._ready: set[int | None] = set()
        self._lost: set[int | None] = set()
        self.tick()

    def tick(self) -> None:
        """Set the gauges, several times a second. Ray shows only those that were set since it last looked."""
        self.queue_length.set(self._num_left)
        self.gangs_running.set(len(self._ready))

    def grow(self, number: int) -> None:
        """So many videos have come to the batch, or, below zero, were withdrawn."""
        self._num_left += number

    def note(self, event: Event) -> None:
        """Takes one event in; an `item_done` brings the video's sidecar as its result, as a dict."""
        match event.kind:
            case "item_done":
                self.videos_done.inc()
                self._note_sidecar(event.result)
                self._num_left -= 1
            case "item_failed":
                self.videos_failed.inc()
                self._num_left -= 1
            case "item_retried":
                own = event.failure.policy.is_of_item
                self.videos_retried.inc(tags={"kind": "item" if own else "infrastructure"})
            case "gang_ready":
                self._note_ready(event.gang)
            case "gang_lost":
                self._lost.add(event.gang)
                self._ready.discard(event.gang)
            case "gang_closed":
                self._ready.discard(event.gang)

    def _note_sidecar(self, sidecar: Spent) -> None:
        for stage, seconds in sidecar["seconds"].items():
            self.stage_seconds.observe(seconds, tags={"stage": stage})
            _add(self.seconds_spent, seconds, stage=stage)
        _add(self.steps, sidecar["dense_steps"], kind="dense")
        _add(self.steps, sidecar["sparse_steps"], kind="sparse")

    def _note_ready(self, gang: int | None) -> None:
        if gang in self._lost:
            self.gang_rebuilds.inc()
            self._lost.remove(gang)
        self._ready.add(gang)


def _add(counter: Counter, amount: float, **tags: str) -> None:
    """Counts; Ray itself refuses to count by nothing."""
    if amount:
        counter.inc(amount, tags=tags)
