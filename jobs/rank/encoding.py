"""Texts that are encoded on one rank, or on some, and known on all."""

from jobs.models.family import Prompt, Text
from jobs.rank.renderer import Renderer


def encode_together(renderer: Renderer, prompt: str, negative: str | None, *, here: bool) -> Prompt:
    """Encode on the ranks that can, of which this is one if `here`; all take the result of rank 0."""
    renderer.group.mark("encode")
    mine = renderer.encode(prompt, negative) if here else None
    encoded = renderer.group.broadcast([vars(text) for text in mine.texts] if mine else None)
    return Prompt(**{name: Text(**each) for name, each in zip(("cond", "uncond"), encoded, strict=False)})
