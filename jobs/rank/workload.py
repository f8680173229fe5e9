"""How each rank of a gang builds its session: what the driver sends, which itself needs neither torch nor a model."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.ranks import RankContext
from jobs.models.facts import model_directory
from jobs.models.family import Json
from jobs.store.items import CHECKPOINTS, BatchSettings, RenderItem
from jobs.store.open import open_storage
from parallel.layout import Layout

if TYPE_CHECKING:
    from jobs.rank.checkpoint import Checkpoints
    from jobs.rank.session import RenderSession

# What each batch is asked for anew, of a workload and of its settings; all the rest decides what sessions load.
OF_A_BATCH = {"settings", "deadline_s", "checkpoint_every"}
ASKED = {
    *("method", "methods", "fps", "guidance", "guidance_2", "true_cfg_scale", "negative_prompt"),
    *("out", "save_latents"),
}


def fetch_model(
    model: str, revision: str | None, variant: str | None, *, with_text: bool, own_code: bool = False
) -> None:
    """Download what this node needs of a hub's model and does not have; a directory is there already."""
    if Path(model_directory(model)).is_dir():
        return
    from jobs.rank.load import fetch

    fetch(model, revision=revision, variant=variant, with_text=with_text, own_code=own_code)


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

    @property
    def loads(self) -> dict[str, object]:
        """All that decides what a session loads: it can serve every workload of which that is the same."""
        own = {name: value for name, value in vars(self).items() if name not in OF_A_BATCH}
        return {**own, "layout": asdict(self.layout), **self.settings.model_dump(mode="json", exclude=ASKED)}

    def encodes(self, context: RankContext) -> bool:
        """Whether this rank runs the text encoders: split ones run on all ranks, or on none."""
        return context.rank == 0 or self.shard_weights

    def prepare(self, context: RankContext) -> None:
        """Download what this node needs of a hub's model and does not have; a directory is there already."""
        settings, with_text = self.settings, self.encodes(context)
        fetch_model(settings.model, settings.revision, settings.variant, with_text=with_text, own_code=self.own_code)

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
