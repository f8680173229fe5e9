"""Pipelines of images, and of Latte, whose frames are images to its VAE, of random weights: small enough for tests."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiffusionPipeline,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    HiDreamImagePipeline,
    HiDreamImageTransformer2DModel,
    LattePipeline,
    LatteTransformer3DModel,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5EncoderModel,
)

from jobs.demo.tokenizer import SPECIAL_TOKENS, build_tokenizer

TEXT_WIDTH = 16
WORDS = ["a", "cat", "walks", "on", "grass", "blurry"]
SIZE = {"height": 64, "width": 96}  # 4 x 6 = 24 tokens
LENGTH = 8  # tokens that prompts are filled up to
CHANNELS = 4  # of latents
FRAMES = {"latte": 3}  # of those that make more than one
LITTLE = 0.002  # noise, which models without training do not blow up


def build_tiny_flux(*, shift: bool = True, embedded: bool = True) -> FluxPipeline:
    """8 x 8 compression, 4 heads; noise levels are shifted by the number of tokens, as of FLUX.1-dev."""
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=4 * CHANNELS,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=12,
        num_attention_heads=4,
        joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        guidance_embeds=embedded,
        axes_dims_rope=(4, 4, 4),
    )
    make: Any = FluxPipeline  # its annotations want the tokenizers of CLIP and T5
    return _quiet(
        make(
            scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=shift, base_image_seq_len=16),
            vae=_vae(scaling_factor=0.36, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
            text_encoder=_clip(),
            tokenizer=build_tokenizer(WORDS, LENGTH),
            text_encoder_2=_t5(),
            tokenizer_2=_t5_tokenizer(),
            transformer=_with_weights(transformer),
        )
    )


def build_tiny_pixart(kind: type[PixArtAlphaPipeline | PixArtSigmaPipeline]) -> DiffusionPipeline:
    """8 x 8 compression, 4 heads; alpha is told the size of the image."""
    torch.manual_seed(0)
    alpha = kind is PixArtAlphaPipeline
    size = {"sample_size": 128} if alpha else {"sample_size": 8}
    transformer = PixArtTransformer2DModel(
        **_of_basic_blocks(),
        **size,
        cross_attention_dim=48,
        caption_channels=TEXT_WIDTH,
        norm_type="ada_norm_single",
        use_additional_conditions=alpha,
    )
    scheduler: Any = DPMSolverMultistepScheduler(beta_end=LITTLE)
    make: Any = kind
    return _quiet(make(_t5_tokenizer(), _t5(), _vae(), _with_weights(transformer), scheduler))


def build_tiny_dit() -> DiTPipeline:
    """8 x 8 compression, 4 heads, images of 64 x 64, and two classes with names."""
    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(**_of_basic_blocks(), sample_size=8, num_embeds_ada_norm=1000)
    make: Any = DiTPipeline
    return _quiet(
        make(_with_weights(transformer), _vae(), DDIMScheduler(clip_sample=False, beta_end=LITTLE), id2label=LABELS)
    )


def build_tiny_hidream() -> HiDreamImagePipeline:
    """8 x 8 compression, 2 heads, 4 experts, images of 64 x 64 alone, as its pipeline takes them."""
    torch.manual_seed(0)
    transformer = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=CHANNELS,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        caption_channels=[TEXT_WIDTH, TEXT_WIDTH],
        text_emb_dim=2 * TEXT_WIDTH,
        axes_dims_rope=(8, 4, 4),  # type: ignore[arg-type]
        max_resolution=(8, 8),
        llama_layers=[0, 1, 1],
    )
    make: Any = HiDreamImagePipeline  # its annotations want the tokenizers of CLIP, T5 and Llama
    pipeline = make(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(scaling_factor=0.36, shift_factor=0.1, use_quant_conv=False, use_post_quant_conv=False),
        text_encoder=_clip(CLIPTextModelWithProjection),
        tokenizer=build_tokenizer(WORDS, LENGTH),
        text_encoder_2=_clip(CLIPTextModelWithProjection),
        tokenizer_2=build_tokenizer(WORDS, LENGTH),
        text_encoder_3=_t5(),
        tokenizer_3=_t5_tokenizer(),
        text_encoder_4=_llama(),
        tokenizer_4=build_tokenizer(WORDS, 512, form="[BOS] $A"),
        transformer=_with_weights(transformer),
    )
    pipeline.default_sample_size = 8
    return _quiet(pipeline)


def build_tiny_latte() -> LattePipeline:
    """8 x 8 compression, 4 heads, videos of 3 frames."""
    torch.manual_seed(0)
    transformer = LatteTransformer3DModel(
        **{**_of_basic_blocks(), "num_layers": 2},
        sample_size=8,
        cross_attention_dim=48,
        attention_bias=True,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        caption_channels=TEXT_WIDTH,
        video_length=FRAMES["latte"],
    )
    scheduler: Any = DDIMScheduler(clip_sample=False, beta_end=LITTLE)
    make: Any = LattePipeline
    return _quiet(make(_t5_tokenizer(), _t5(), _vae(), _with_weights(transformer), scheduler))


def _of_basic_blocks() -> dict[str, Any]:
    return dict(
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=CHANNELS,
        out_channels=2 * CHANNELS,
        num_layers=3,
        patch_size=2,
    )


LABELS: Any = {"0": "tench, Tinca tinca", "7": "cock"}
TINY: dict[str, Callable[[], DiffusionPipeline]] = {
    "flux": build_tiny_flux,
    "pixart-alpha": partial(build_tiny_pixart, PixArtAlphaPipeline),
    "pixart-sigma": partial(build_tiny_pixart, PixArtSigmaPipeline),
    "dit": build_tiny_dit,
    "latte": build_tiny_latte,
    "hidream": build_tiny_hidream,
}
IMAGES = ["flux", "pixart-sigma", "dit", "hidream"]  # one of each pipeline that is much like another


def size_of(name: str) -> dict[str, int]:
    """Height and width that a model has."""
    return {"height": 64, "width": 64} if name in ("dit", "hidream") else SIZE


def save_tiny_image_model(directory: Path, name: str = "flux") -> Path:
    """With prompts of few tokens."""
    TINY[name]().save_pretrained(directory)
    if name == "dit":  # the pipeline reads labels, and does not save them
        index = directory / "model_index.json"
        index.write_text(json.dumps({**json.loads(index.read_text()), "id2label": LABELS}))
    (directory / "resca.json").write_text(f'{{"prompt_template": {{"max_sequence_length": {LENGTH}}}}}')
    return directory


def _quiet(pipeline: Any) -> Any:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def _with_weights(transformer: nn.Module) -> Any:
    """Of a size that makes every block matter."""
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.1)
    return transformer.eval()


def _vae(**settings: Any) -> AutoencoderKL:
    sides = 4
    made = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * sides,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * sides,  # type: ignore[arg-type]
        block_out_channels=(8,) * sides,  # type: ignore[arg-type]
        norm_num_groups=4,
        latent_channels=CHANNELS,
        sample_size=32,
        **settings,
    )
    return made.eval()


def _t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(SPECIAL_TOKENS) + len(WORDS),
        d_model=TEXT_WIDTH,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_heads=2,
        initializer_factor=1.0,
    )
    return T5EncoderModel(config).eval()


def _t5_tokenizer() -> Any:
    return build_tokenizer(WORDS, 512, form="$A [EOS]")


def _llama() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(SPECIAL_TOKENS) + len(WORDS),
        hidden_size=TEXT_WIDTH,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.15,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return LlamaForCausalLM(config).eval()


def _clip(kind: Any = CLIPTextModel) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(SPECIAL_TOKENS) + len(WORDS),
        hidden_size=TEXT_WIDTH,
        intermediate_size=2 * TEXT_WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=LENGTH,
        initializer_factor=4.0,
        projection_dim=TEXT_WIDTH,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return kind(config).eval()
