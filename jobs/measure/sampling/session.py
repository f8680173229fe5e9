"""What a gang's ranks run where tasks are asked of them."""

from cluster.ranks import RankContext
from jobs.measure.sampling.task import Model, Task
from jobs.measure.sampling.workload import TaskWorkload
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer
from jobs.rank.session import OfAGang
from parallel.group import make_group


class TaskSession(OfAGang):
    """One rank's part of each task."""

    def __init__(self, workload: TaskWorkload, context: RankContext) -> None:
        self.rank = context.rank
        self.group = make_group(workload.layout)
        encodes = workload.encodes(context)
        pipeline = load_pipeline(
            workload.model,
            dtype=workload.dtype,
            device=context.device,
            revision=workload.revision,
            variant=workload.variant,
            with_text=encodes,
            ranks=self.group if workload.shard_weights else None,
            offload=workload.offload,
        )
        renderer = Renderer(pipeline, self.group, workload.prompt_template, compiled=workload.compiled)
        self.model = Model(renderer, workload.guides, encodes)

    @property
    def progress(self) -> float:
        """How much of the task is done."""
        return self.model.progress

    @property
    def beats(self) -> int:
        """Changes with each step that is done."""
        return self.model.beats

    def run(self, item: Task[object], attempt: int) -> object:
        """The answer, which rank 0 alone returns."""
        with self.group.guard():
            answer = item.run(self.model)
            self.model.beat(0.0)
        return answer if self.rank == 0 else None

    def close(self) -> None:
        """Leave the sequence group."""
        self.model.renderer.release()
        self.group.close()
