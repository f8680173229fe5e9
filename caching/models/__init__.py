"""Model adapters: one file a model family, found by the name of the transformer's class or of what it derives from."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from caching.models.adapter import Adapter

ADAPTERS = {
    "HunyuanVideoTransformer3DModel": "caching.models.hunyuan_video:HunyuanVideoAdapter",
    "HunyuanVideo15Transformer3DModel": "caching.models.hunyuan_video_15:HunyuanVideo15Adapter",
    "FluxTransformer2DModel": "caching.models.flux:FluxAdapter",
    "WanTransformer3DModel": "caching.models.wan:WanAdapter",
    "DiTTransformer2DModel": "caching.models.dit:DiTAdapter",
    "PixArtTransformer2DModel": "caching.models.pixart:PixArtAdapter",
    "HiDreamImageTransformer2DModel": "caching.models.hidream:HiDreamAdapter",
    "LatteTransformer3DModel": "caching.models.latte:LatteAdapter",
}


def adapter_for(transformer: object) -> "Adapter":
    """The adapter of a `diffusers` transformer.

    Raises:
        ValueError: if no adapter knows the class.
    """
    module, attribute = ADAPTERS[family(transformer)].split(":")
    return getattr(import_module(module), attribute)(transformer)


def family(transformer: object) -> str:
    """The `diffusers` class that a transformer is of, or derives from. Raises ValueError if no adapter knows one."""
    names = [kind.__name__ for kind in type(transformer).__mro__]
    for name in names:
        if name in ADAPTERS:
            return name
    raise ValueError(f"no caching adapter for {names[0]}; known: {', '.join(ADAPTERS)}")
