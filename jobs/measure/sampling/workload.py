"""How each rank of a gang builds what runs tasks; needs neither torch nor a model itself."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.ranks import RankContext
from jobs.models.family import Json
from jobs.rank.workload import fetch_model
from jobs.request.guidance import Guides
from parallel.layout import Layout

if TYPE_CHECKING:
    from jobs.measure.sampling.session import TaskSession


@dataclass(frozen=True, kw_only=True)
class TaskWorkload:
    """How each rank of a gang builds its session."""

    model: str
    revision: str
    variant: str | None
    dtype: str
    prompt_template: Json | None
    guides: Guides
    layout: Layout
    compiled: bool = False
    shard_weights: bool = False
    offload: bool = False

    def encodes(self, context: RankContext) -> bool:
        """Whether this rank runs the text encoders: split ones run on all ranks."""
        return context.rank == 0 or self.shard_weights

    def prepare(self, context: RankContext) -> None:
        """Download what this node needs of a hub's model and does not have."""
        fetch_model(self.model, self.revision, self.variant, with_text=self.encodes(context))

    def __call__(self, context: RankContext) -> "TaskSession":
        from jobs.measure.sampling.session import TaskSession

        return TaskSession(self, context)
