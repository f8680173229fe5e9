"""How each rank of a gang builds its session: what the driver sends, which itself needs neither torch nor a model."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.ranks import RankContext
from jobs.models.family import Json
from jobs.store.items import CHECKPOINTS, BatchSettings, RenderItem
from jobs.store.open import open_storage
from parallel.layout import Layout

if TYPE_CHECKING:
    from jobs.rank.checkpoint import Checkpoints
    from jobs.rank.session import RenderSession


@dataclass(frozen=True, kw_only=True)
class RenderWorkload:
    """How each rank builds its session; sent to the workers."""

    settings: BatchSettings
    prompt_template: Json | None
    layout: Layout
    compiled: bool = False
    engine: str = "xfuser"
    deadline_s: float = 600
    shard_weights: bool = False
    offload: bool = False
    own_code: bool = False
    checkpoint_every: int | None = None

    def checkpoints(self, item: RenderItem) -> "Checkpoints | None":
        """Those of one video, if any are kept; they lie in the output directory."""
        from jobs.rank.checkpoint import Checkpoints

        if self.checkpoint_every is None:
            return None
        deciding = f"{self.settings.fingerprint(item)} {self.engine} {self.compiled}"
        return Checkpoints(open_storage(self.settings.out), f"{CHECKPOINTS}/{item.id}", self.checkpoint_every, deciding)

    def __call__(self, context: RankContext) -> "RenderSession":
        from jobs.rank.session import RenderSession

        return RenderSession(self, context)
