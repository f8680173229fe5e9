"""One step of a generation, as a pass of the model sees it.

Legend: B batch, N local tokens, P values of a patch.
"""

from functools import cached_property

from torch import Tensor

from caching.models.adapter import Adapter, Inputs
from caching.models.state import State
from caching.site import Site


class Step:
    """What goes into a pass in one step.

    Args:
        number: counted from 1.
        time: the coordinate that derivatives are taken by, sigma or the step index.
        span: by which the noise level moves.
        patches: of the local tokens `[B, N, P]`.
        inputs: what else the transformer's forward takes, the text without padding, levels of tokens of the local ones.
    """

    def __init__(
        self, adapter: Adapter, site: Site, *, number: int, time: float, span: float, patches: Tensor, inputs: Inputs
    ) -> None:
        self.adapter, self.site = adapter, site
        self.number, self.time, self.span, self.patches, self.inputs = number, time, span, patches, inputs

    @cached_property
    def before(self) -> State:
        """The state before the first block, made when it is first asked for; blocks then attend to all tokens."""
        state = self.adapter.embed(self.patches, self.site.rotary, self.inputs, grid=self.site.grid)
        self.site.attend_to_all(state.text.shape[1])
        return state

    def velocity(self, after: State) -> Tensor:
        """What the state after the last block says, as patches `[B, N, P]` in float32, as latents are moved by it."""
        return self.adapter.head(after).float()
