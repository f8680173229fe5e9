"""The families of models that can be rendered, by the pipeline class of diffusers that a model_index.json names."""

from typing import TYPE_CHECKING

from jobs.models.family import Family
from jobs.models.hunyuan_video import HunyuanVideo

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

FAMILIES: dict[str, Family] = {family.pipeline: family for family in (HunyuanVideo(),)}


def family_of(pipeline: "DiffusionPipeline") -> Family:
    """The family of a loaded pipeline, by its class or one that it derives from. ValueError if it is of none."""
    names = [kind.__name__ for kind in type(pipeline).__mro__]
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
    raise ValueError(f"no model family renders with {names[0]}; known: {', '.join(FAMILIES)}")
