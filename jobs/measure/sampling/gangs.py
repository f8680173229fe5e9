"""Who runs tasks: this process, or gangs, to which they are handed out here."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar, cast

from rich.console import Console

from cluster.batch import Event
from cluster.events import ItemDone
from cluster.pool import Pool, open_pool
from jobs.driver.ray import running_ray
from jobs.errors import InfrastructureError
from jobs.measure.sampling.executor import Executor, Heard, LocalExecutor, load_model, unheard
from jobs.measure.sampling.task import Task
from jobs.measure.sampling.workload import TaskWorkload
from jobs.models.facts import ModelFacts
from jobs.options.measure import GangOptions
from jobs.options.shared import VideoOptions
from jobs.request.gangs import spec_of
from jobs.request.guidance import guides_for
from parallel.layout import Layout

Answer = TypeVar("Answer")


class GangExecutor:
    """Runs tasks on a pool of gangs; what a lost gang was at is run again."""

    def __init__(self) -> None:
        self.pool: Pool[Task[object], object] | None = None
        self.first = 0
        self.heard: Heard[object] = unheard

    def map(self, tasks: Sequence[Task[Answer]], heard: Heard[Answer] = unheard) -> list[Answer]:
        """See `Executor`. Raises InfrastructureError for a task that fails."""
        assert self.pool is not None
        # What comes back of a task is its answer: the cluster does not know which kind that is.
        self.heard = cast("Heard[object]", heard)
        outcomes = self.pool.run(tasks)
        self.first += len(tasks)
        for outcome in outcomes:
            if outcome.error is not None:
                raise InfrastructureError(outcome.error)
        return cast("list[Answer]", [outcome.result for outcome in outcomes])

    def note(self, event: Event[Task[object], object]) -> None:
        """What the pool reports."""
        if isinstance(event, ItemDone):
            self.heard(event.index - self.first, event.result)


@contextmanager
def on_gangs(
    facts: ModelFacts, video: VideoOptions, options: GangOptions, told: Callable[[str], None]
) -> Iterator[GangExecutor]:
    """Gangs that have loaded a model, on Ray; `told` hears of those that are lost. BadInput if there is no room."""
    layout = Layout(cfg=options.cfg, ulysses=options.ulysses, ring=options.ring)
    workload = TaskWorkload(
        model=facts.source,
        revision=facts.revision,
        variant=facts.variant,
        dtype=facts.dtype if video.dtype == "auto" else video.dtype,
        prompt_template=facts.defaults.prompt_template,
        guides=guides_for(facts, video),
        layout=layout,
        compiled=video.compile,
        shard_weights=options.shard_weights,
        offload=options.offload,
    )
    executor = GangExecutor()

    def note(event: Event[Task[object], object]) -> None:
        if event.kind == "gang_lost":
            told(f"a gang was lost: {event.error}")
        executor.note(event)

    with running_ray(options.address):
        gangs = options.gangs or 1
        with open_pool(spec=spec_of(layout, gangs), gangs=gangs, workload=workload, on_event=note) as executor.pool:
            yield executor


@contextmanager
def executor_for(facts: ModelFacts, video: VideoOptions, options: GangOptions, console: Console) -> Iterator[Executor]:
    """A model in this process, or gangs that have one, whichever was asked for."""
    if options.is_asked:
        with on_gangs(facts, video, options, console.print) as gangs:
            yield gangs
    else:
        with console.status("loading the model"):
            local = LocalExecutor(load_model(facts, video))
        yield local
