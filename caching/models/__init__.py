"""Model adapters: one file a model family, found by the transformer's class name."""

from importlib import import_module
from typing import Any

ADAPTERS = {
    "HunyuanVideoTransformer3DModel": "caching.models.hunyuan_video:HunyuanVideoAdapter",
    "FluxTransformer2DModel": "caching.models.flux:FluxAdapter",
    "WanTransformer3DModel": "caching.models.wan:WanAdapter",
}


def adapter_for(transformer: Any) -> Any:
    """The adapter of a `diffusers` transformer.

    Raises:
        ValueError: if no adapter knows the class.
    """
    name = type(transformer).__name__
    if name not in ADAPTERS:
        raise ValueError(f"no caching adapter for {name}; known: {', '.join(ADAPTERS)}")
    module, attribute = ADAPTERS[name].split(":")
    return getattr(import_module(module), attribute)(transformer)
