"""A Wan pipeline of random weights, small enough for tests.

Of one transformer as 2.1, of two as 2.2 A14B, or told the noise level of each token as 2.2 TI2V.
"""

from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

TEXT_WIDTH = 16
WORDS = ["a", "cat", "walks", "on", "grass", "blurry"]
SIZE = {"height": 32, "width": 48, "num_frames": 9}  # 3 x 2 x 3 = 18 tokens
SIZES = {"2.1": SIZE, "2.2": SIZE, "ti2v": {"height": 64, "width": 96, "num_frames": 9}}  # of the same latents
BOUNDARY = 0.6  # after 6 of 9 steps
# A VAE whose decoder gives patches of pixels.
PATCHES = {"is_residual": True, "patch_size": 2, "in_channels": 12, "out_channels": 12, "scale_factor_spatial": 16}
Kind = Literal["2.1", "2.2", "ti2v"]


def build_tiny_wan(kind: Kind = "2.1") -> WanPipeline:
    """8 x 8 x 4 compression, of TI2V 16 x 16 x 4, 4 latent channels, 4 heads."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.5, 2.0, 2.5, 3.0],
        **(PATCHES if kind == "ti2v" else {}),
    )
    make: Any = WanPipeline  # its annotations admit one scheduler only
    pipeline = make(
        tokenizer=_tokenizer(),
        text_encoder=_text_encoder(),
        vae=vae.eval(),
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=_transformer(),
        transformer_2=_transformer() if kind == "2.2" else None,
        boundary_ratio=BOUNDARY if kind == "2.2" else None,
        expand_timesteps=kind == "ti2v",
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_tiny_wan(directory: Path, kind: Kind = "2.1") -> Path:
    build_tiny_wan(kind).save_pretrained(directory)
    return directory


def _transformer() -> WanTransformer3DModel:
    """Weights of a size that makes every block matter."""
    transformer = WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=TEXT_WIDTH,
        freq_dim=16,
        ffn_dim=32,
        num_layers=3,
    )
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    return transformer.eval()


def _text_encoder() -> UMT5EncoderModel:
    config = UMT5Config(
        vocab_size=3 + len(WORDS),
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        initializer_factor=1.0,
    )
    return UMT5EncoderModel(config).eval()


def _tokenizer() -> PreTrainedTokenizerFast:
    """Words, and the end of the text after them, as T5 has it."""
    vocabulary = {token: number for number, token in enumerate(["<pad>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")
