"""One transformer that an engine has taken over: its forward, its attention, the names of its calls.

Legend: B batch, C latent channels, F frames, H height, W width, N local tokens, P values of a patch.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from caching.attention import Router
from caching.models import adapter_for
from caching.models.adapter import Inputs

MAX_VARIANTS = 64  # of a compiled block: dense and sparse steps differ in shape, and so do a benchmark's recipes
Answer = Callable[["Attachment", Tensor, Inputs], Tensor]


class Attachment:
    """Puts `answer` in the place of a transformer's forward, until it is detached.

    Args:
        answer: gets latents `[B, C, F, H, W]`, or patches `[B, N, P]`, and what else the forward takes; gives as much.
        compiler: the backend by which `torch.compile` compiles the blocks; None leaves them as they are.
        whole: compile without graph breaks, which modules that are cached inside blocks would make.
    """

    def __init__(self, transformer: nn.Module, answer: Answer, *, compiler: str | None, whole: bool) -> None:
        self.transformer, self.answer = transformer, answer
        self.adapter = adapter_for(transformer)
        self.router = Router(opaque=compiler is not None)
        self.pass_name: str | None = None
        """What the pipeline calls the pass that it is in (cond, uncond); None where it says nothing."""
        self._processors = [attention.processor for attention in self.adapter.attentions]
        for attention in self.adapter.attentions:
            attention.set_processor(self.adapter.processor(self.router))
        blocks = self.adapter.block_list if compiler is not None else ()
        self._before = [(module, name, vars(module).get(name)) for module, name in self._replaced(blocks)]
        if compiler is not None:
            self._compile(compiler, whole)
        for name, own in (("forward", self.forward), ("cache_context", self.cache_context)):
            setattr(transformer, name, own)

    def detach(self) -> bool:
        """Give the transformer back exactly as it was; False if it is no longer this one's."""
        if vars(self.transformer).get("forward") != self.forward:
            return False
        for module, name, before in self._before:
            vars(module).pop(name, None)
            if before is not None:
                setattr(module, name, before)
        for attention, processor in zip(self.adapter.attentions, self._processors, strict=True):
            attention.set_processor(processor)
        return True

    def forward(
        self, hidden_states: Tensor, return_dict: bool = True, attention_kwargs: Any = None, **inputs: Any
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """In place of the transformer's; `inputs` are what else that takes."""
        output = self.answer(self, hidden_states, inputs)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    @contextmanager
    def cache_context(self, name: str, **_: object) -> Iterator[None]:
        """In place of the transformer's (the `CacheMixin` of diffusers): the calls in the block are of this pass."""
        before, self.pass_name = self.pass_name, name
        try:
            yield
        finally:
            self.pass_name = before

    def _replaced(self, blocks: list[nn.Module] | tuple[()]) -> list[tuple[nn.Module, str]]:
        """What an instance may have of its own, and gets back."""
        own = [(self.transformer, "forward"), (self.transformer, "cache_context")]
        return [*own, *((block, "forward") for block in blocks)]

    def _compile(self, backend: str, whole: bool) -> None:
        """Compile the blocks: their forward alone, not their call; hooks that gather split weights run as they are."""
        torch._dynamo.config.recompile_limit = max(MAX_VARIANTS, torch._dynamo.config.recompile_limit)
        for block in self.adapter.block_list:
            block.forward = torch.compile(block.forward, backend=backend, fullgraph=whole)
