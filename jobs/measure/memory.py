"""The weights that each rank holds of a full-size model, counted on the meta device."""

from collections.abc import Sequence
from dataclasses import dataclass

import diffusers
import torch
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from jobs.errors import BadInput
from jobs.measure.full_size import DTYPE, FULL_SIZE
from jobs.rank.components import default_dtype
from jobs.rank.load import called_alone
from parallel.sharding import gathered_bytes, held_bytes

NUM_RANKS = (1, 2, 4, 8)


@dataclass(frozen=True, kw_only=True)
class Models:
    """What of a pipeline has weights; it may be on the meta device."""

    transformer: nn.Module
    text_encoders: Sequence[nn.Module]
    vae: nn.Module


def count_ranks(model: str) -> list[dict[str, int]]:
    """One row a number of ranks. Raises BadInput for a model whose pipeline cannot be rendered."""
    if model != "hunyuanvideo":
        raise BadInput(f"model {model} has no pipeline here; known: hunyuanvideo")
    models = full_size_models()
    return [make_row(models, num_ranks) for num_ranks in NUM_RANKS]


def make_row(models: Models, num_ranks: int) -> dict[str, int]:
    """Bytes of weights by rank: whole on each of them, and split over them.

    Without `--shard-weights` rank 0 holds `rank_0_bytes`, and the others, which have no text encoders, `others_bytes`;
    with it each rank holds `sharded_bytes`, the sum of the three columns before. `gathered_bytes` come on top while a
    block runs.
    """
    transformer, text, whole = models.transformer, models.text_encoders, called_alone(models.transformer)
    split = {
        "transformer_bytes": held_bytes(transformer, num_ranks, whole=whole),
        "text_bytes": sum(held_bytes(each, num_ranks) for each in text),
        "vae_bytes": held_bytes(models.vae),
    }
    others = held_bytes(transformer) + split["vae_bytes"]
    return {
        "ranks": num_ranks,
        "rank_0_bytes": others + sum(held_bytes(each) for each in text),
        "others_bytes": others,
        **split,
        "sharded_bytes": sum(split.values()),
        "gathered_bytes": max(
            gathered_bytes(transformer, num_ranks, whole=whole),
            *(gathered_bytes(each, num_ranks) for each in text),
        ),
    }


def full_size_models() -> Models:
    """HunyuanVideo's models on the meta device, in the number format in which they are loaded."""
    config = FULL_SIZE["hunyuanvideo"].config
    with torch.device("meta"), default_dtype(DTYPE):
        transformer = getattr(diffusers, config["_class_name"]).from_config(config)
        text_encoders = [LlamaModel(_llama()), CLIPTextModel(_clip())]
        vae = diffusers.AutoencoderKLHunyuanVideo()
    return Models(transformer=transformer, text_encoders=text_encoders, vae=vae)


def _llama() -> LlamaConfig:
    """The language model of LLaVA-Llama-3-8B."""
    return LlamaConfig(
        vocab_size=128_320,
        hidden_size=4096,
        intermediate_size=14_336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
    )


def _clip() -> CLIPTextConfig:
    """The text model of CLIP ViT-L/14."""
    return CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
