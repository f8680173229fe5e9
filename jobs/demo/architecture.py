"""The sizes of the demo model: a complete HunyuanVideo pipeline, small enough for a repository."""

from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

LATENT_CHANNELS = 8
TEXT_WIDTH = 64
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[BOS]", "[EOS]")


def build_vae() -> AutoencoderKLHunyuanVideo:
    """The causal 3-D VAE: 4x4 pixels and 4 frames to one latent of 8 channels."""
    model: Any = AutoencoderKLHunyuanVideo  # its annotations admit one width only
    return model(
        latent_channels=LATENT_CHANNELS,
        down_block_types=("HunyuanVideoDownBlock3D",) * 3,
        up_block_types=("HunyuanVideoUpBlock3D",) * 3,
        block_out_channels=(16, 32, 64),
        spatial_compression_ratio=4,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def build_transformer() -> HunyuanVideoTransformer3DModel:
    """The denoiser: 2 double-stream and 6 single-stream blocks of width 192 (4 heads x 48)."""
    return HunyuanVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=4,
        attention_head_dim=48,
        num_layers=2,
        num_single_layers=6,
        num_refiner_layers=1,
        guidance_embeds=False,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        patch_size=4,
        rope_axes_dim=(16, 16, 16),
    )


def build_text_encoders(num_words: int, seed: int = 0) -> tuple[LlamaModel, CLIPTextModel]:
    """Frozen text encoders with random weights, wide enough in scale that every word leaves a trace."""
    torch.manual_seed(seed)
    common: dict[str, Any] = dict(  # integers and floats, each of which is checked against every option
        vocab_size=num_words,
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_attention_heads=4,
        initializer_range=0.15,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    llama = LlamaModel(LlamaConfig(num_hidden_layers=4, **common))
    clip = CLIPTextModel(CLIPTextConfig(num_hidden_layers=2, initializer_factor=4.0, **common))
    return llama.eval(), clip.eval()


def build_tokenizer(words: list[str], max_length: int) -> Any:  # diffusers names other classes, and calls any
    """A word-level tokenizer: beginning of sequence, words, end of sequence, padding."""
    vocabulary = {token: index for index, token in enumerate([*SPECIAL_TOKENS, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[BOS] $A [EOS]", special_tokens=[("[BOS]", vocabulary["[BOS]"]), ("[EOS]", vocabulary["[EOS]"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        bos_token="[BOS]",
        eos_token="[EOS]",
        model_max_length=max_length,
    )


def build_pipeline(
    words: list[str], vae: AutoencoderKLHunyuanVideo, transformer: HunyuanVideoTransformer3DModel
) -> HunyuanVideoPipeline:
    """Join a VAE and a transformer with text encoders, tokenizers and HunyuanVideo's scheduler."""
    llama, clip = build_text_encoders(len(words) + len(SPECIAL_TOKENS))
    return HunyuanVideoPipeline(
        text_encoder=llama,
        tokenizer=build_tokenizer(words, 256),
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip,
        tokenizer_2=build_tokenizer(words, 77),
    )
