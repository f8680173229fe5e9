"""DiT for the caching engine, composed of the modules of `DiTTransformer2DModel`.

It is told a class where others have a text, and predicts epsilon and a variance. Its pipeline doubles the batch for
guidance, the class first.

Legend: B batch, N tokens, P values of a patch, D hidden width.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from caching.models.adapter import Inputs
from caching.models.basic import BasicBlocks
from caching.models.patches import ImagePatches
from caching.models.state import Grid, Rotary, State


class DiTAdapter(ImagePatches, BasicBlocks):
    """Runs the model's own modules on patches.

    Each block embeds timestep and class by itself, so that a state's modulation holds both as they are: `[B, 1, 2]`.
    """

    def example_inputs(self, num_text_tokens: int, device: torch.device) -> dict[str, Tensor]:
        """Inputs of the right shapes, to count with; there is no text."""
        return dict(timestep=torch.ones(1, device=device), class_labels=torch.ones(1, device=device))

    def embed(
        self,
        patches: Tensor,
        rotary: Rotary,
        inputs: Inputs,
        *,
        text: Tensor | None = None,
        grid: Grid | None = None,
    ) -> State:
        """The state before the first block; its text has no tokens."""
        tokens = self.embed_tokens(patches, rotary, grid)
        given = (inputs["timestep"], inputs["class_labels"])
        modulation = torch.stack([each.float().expand(len(tokens)) for each in given], dim=-1)
        return State(tokens, tokens[:, :0], modulation[:, None], (rotary[1], rotary[1]))

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        timestep, label = _told(state)
        return self.run_block(index, state, timestep=timestep, class_labels=label)

    def modulated(self, state: State) -> Tensor:
        """The first block's input `[B, N, D]` as its attention sees it, what TeaCache watches."""
        return self.block_list[0].norm1(state.tokens, *_told(state), hidden_dtype=state.tokens.dtype)[0]

    def head(self, state: State) -> Tensor:
        """Epsilon and the variance as patches `[B, N, P]`."""
        model = self.transformer
        time = self.block_list[0].norm1.emb(*_told(state), hidden_dtype=state.tokens.dtype)
        shift, scale = model.proj_out_1(F.silu(time)).chunk(2, dim=1)
        return self.patches_of(model.proj_out_2(model.norm_out(state.tokens) * (1 + scale[:, None]) + shift[:, None]))


def _told(state: State) -> tuple[Tensor, Tensor]:
    """The timestep and the class of each image, `[B]` each."""
    timestep, label = state.modulation[:, 0].unbind(-1)
    return timestep, label.long()
