"""The families of models that can be rendered, by the pipeline class of diffusers that a model_index.json names."""

from typing import TYPE_CHECKING

from jobs.models.dit import DiT
from jobs.models.family import Family
from jobs.models.flux import Flux
from jobs.models.hidream import HiDream
from jobs.models.hunyuan_video import HunyuanVideo
from jobs.models.hunyuan_video_15 import HunyuanVideo15
from jobs.models.latte import Latte
from jobs.models.pixart import PixArt
from jobs.models.wan import Wan

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, ModelMixin

OF_VIDEOS: tuple[Family, ...] = (HunyuanVideo(), HunyuanVideo15(), Wan(), Latte())
OF_IMAGES: tuple[Family, ...] = (
    Flux(),
    PixArt("PixArtAlphaPipeline", text_tokens=120),
    PixArt("PixArtSigmaPipeline", text_tokens=300),
    DiT(),
    HiDream(),
)
FAMILIES = {family.pipeline: family for family in (*OF_VIDEOS, *OF_IMAGES)}


def family_of(pipeline: "DiffusionPipeline") -> Family:
    """The family of a loaded pipeline, by its class or one that it derives from. ValueError if it is of none."""
    names = [kind.__name__ for kind in type(pipeline).__mro__]
    for name in names:
        if name in FAMILIES:
            return FAMILIES[name]
    raise ValueError(f"no model family renders with {names[0]}; known: {', '.join(FAMILIES)}")


def transformers_in(pipeline: "DiffusionPipeline") -> "list[ModelMixin]":
    """Those of a loaded pipeline, in the order in which they take over from each other."""
    found = [getattr(pipeline, name, None) for name in family_of(pipeline).transformers]
    return [each for each in found if each is not None]
