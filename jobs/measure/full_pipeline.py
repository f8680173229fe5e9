"""Full-size pipelines on the meta device, where models have a size and no weights."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)

from caching.flops import BY_TOKEN
from jobs.errors import BadInput
from jobs.measure.full_size import DTYPE
from jobs.models.family import Configs, Family
from jobs.models.full_size import FULL_SIZE
from jobs.models.numbers import Numbers
from jobs.models.registry import FAMILIES
from jobs.rank.components import default_dtype
from jobs.rank.memory import MemoryPlanner, Models


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What stands beside the transformer in a pipeline, as its authors publish it."""

    pipeline: str
    vae: Callable[[], nn.Module]
    text_encoders: tuple[Callable[[], nn.Module], ...]

    @property
    def family(self) -> Family:
        return FAMILIES[self.pipeline]


def _llama() -> LlamaModel:
    """The language model of LLaVA-Llama-3-8B."""
    return LlamaModel(
        LlamaConfig(
            vocab_size=128_320,
            hidden_size=4096,
            intermediate_size=14_336,
            num_hidden_layers=32,
            num_attention_heads=32,
            num_key_value_heads=8,
        )
    )


def _clip() -> CLIPTextModel:
    """The text model of CLIP ViT-L/14."""
    return CLIPTextModel(
        CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
    )


def _qwen() -> Qwen2_5_VLTextModel:
    """The language model of Qwen2.5-VL-7B."""
    return Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            vocab_size=152_064,
            hidden_size=3584,
            intermediate_size=18_944,
            num_hidden_layers=28,
            num_attention_heads=28,
            num_key_value_heads=4,
        )
    )


def _byt5() -> T5EncoderModel:
    """The encoder of ByT5-small, with the tokens that Glyph-ByT5 adds for colours and fonts."""
    return T5EncoderModel(
        T5Config(
            vocab_size=1510,
            d_model=1472,
            d_kv=64,
            d_ff=3584,
            num_layers=12,
            num_heads=6,
            feed_forward_proj="gated-gelu",
        )
    )


def _umt5() -> UMT5EncoderModel:
    """The encoder of UMT5-xxl."""
    return UMT5EncoderModel(
        UMT5Config(vocab_size=256_384, d_model=4096, d_kv=64, d_ff=10_240, num_layers=24, num_heads=64)
    )


def _wan_vae_16() -> nn.Module:
    """The VAE of Wan 2.2 TI2V, which compresses 16 x 16 pixels."""
    return diffusers.AutoencoderKLWan(
        base_dim=160,
        decoder_base_dim=256,
        z_dim=48,
        latents_mean=[0.0] * 48,
        latents_std=[1.0] * 48,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
    )


WAN = Parts(pipeline="WanPipeline", vae=diffusers.AutoencoderKLWan, text_encoders=(_umt5,))
PARTS = {
    "hunyuanvideo": Parts(
        pipeline="HunyuanVideoPipeline",
        vae=lambda: diffusers.AutoencoderKLHunyuanVideo(),
        text_encoders=(_llama, _clip),
    ),
    "hunyuanvideo-1.5": Parts(
        pipeline="HunyuanVideo15Pipeline",
        vae=lambda: diffusers.AutoencoderKLHunyuanVideo15(),
        text_encoders=(_qwen, _byt5),
    ),
    "wan": WAN,
    "wan2.2": WAN,
    "wan2.2-ti2v": Parts(pipeline="WanPipeline", vae=_wan_vae_16, text_encoders=(_umt5,)),
}


def check_pipeline(model: str) -> None:
    """Raises BadInput for a full-size model whose pipeline cannot be rendered."""
    if model not in PARTS:
        raise BadInput(f"model {model} has no pipeline here; known: {', '.join(PARTS)}")


def full_size_planner(model: str) -> MemoryPlanner:
    """What settings of a full-size model need."""
    models = full_size_models(model)
    return MemoryPlanner(models, _numbers(model, models), DTYPE)


def _numbers(model: str, models: Models) -> Numbers:
    configs: list[Any] = [models.transformers[0].config, models.vae.config]
    transformer, vae = (dict(config) for config in configs)
    return PARTS[model].family.numbers(Configs(transformer=transformer, vae=vae))


def full_size_models(model: str) -> Models:
    """The models of its pipeline on the meta device, in the number format in which they are loaded."""
    size, parts = FULL_SIZE[model], PARTS[model]
    config = {name: value for name, value in size.config.items() if name != BY_TOKEN}
    kind = getattr(diffusers, config["_class_name"])
    name_of_dtype = str(DTYPE).removeprefix("torch.")
    vae_dtype = getattr(torch, parts.family.vae_dtypes.get(name_of_dtype, name_of_dtype))
    with torch.device("meta"):
        with default_dtype(DTYPE):
            transformers = [kind.from_config(config) for _ in range(2 if size.boundary else 1)]
            text_encoders = [make() for make in parts.text_encoders]
        with default_dtype(vae_dtype):
            vae = parts.vae()
    return Models(
        transformers=transformers,
        text_encoders=text_encoders,
        vae=vae,
        text_tokens=parts.family.text_tokens,
        levels_by_token=bool(size.config.get(BY_TOKEN)),
    )
