"""The demo model with guidance: a complete Wan pipeline, small enough for a repository, and how it is trained.

Legend: B batch, C latent channels, F H W latent frames, height and width, L text tokens, D text width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, UniPCMultistepScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor
from transformers import UMT5Config, UMT5EncoderModel

from jobs.demo.losses import flow_matching
from jobs.demo.tokenizer import SPECIAL_TOKENS, build_tokenizer
from jobs.demo.trainee import LATENT_CHANNELS, Design, Stage
from jobs.models.demos import DEMOS
from jobs.models.family import GenerationDefaults

TEXT_WIDTH = 64
TEXT_TOKENS = 32  # captions have 11, and the padding is attended to
SHIPPED = Design(heads=4, head_width=48, blocks=(6,), shift=5.0, side=96, num_frames=25)


def build_vae() -> AutoencoderKLWan:
    """The causal 3-D VAE: 4x4 pixels and 4 frames to one latent of 8 channels."""
    return AutoencoderKLWan(
        base_dim=16,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[True, True],
        latents_mean=[0.0] * LATENT_CHANNELS,
        latents_std=[1.0] * LATENT_CHANNELS,
        scale_factor_temporal=4,
        scale_factor_spatial=4,
    )


def build_transformer(design: Design = SHIPPED) -> WanTransformer3DModel:
    """The denoiser; shipped, 6 blocks of width 192 (4 heads x 48), each with cross-attention."""
    (num_layers,) = design.blocks
    return WanTransformer3DModel(
        patch_size=(1, 4, 4),
        num_attention_heads=design.heads,
        attention_head_dim=design.head_width,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        text_dim=TEXT_WIDTH,
        freq_dim=256,
        ffn_dim=4 * design.heads * design.head_width,
        num_layers=num_layers,
    )


def build_text_encoder(num_words: int, seed: int = 0) -> UMT5EncoderModel:
    """A frozen text encoder with random weights."""
    torch.manual_seed(seed)
    config = UMT5Config(
        vocab_size=num_words, d_model=TEXT_WIDTH, d_kv=16, d_ff=2 * TEXT_WIDTH, num_layers=2, num_heads=4
    )
    return UMT5EncoderModel(config).eval()


@dataclass(frozen=True)
class WanDemo:
    """The `Trainee` of `--model demo-wan`."""

    design: Design = SHIPPED
    directory = DEMOS["demo-wan"]
    takes_classes = False
    caption_drop = 0.15
    # Norms look at one place at a time, so small scenes do at first; but a frame sees all before it, so that the last
    # ones must be as long as what is rendered.
    stages = (
        Stage(steps=1000, batch=4, frames=9, side=48),
        Stage(steps=100, batch=2, frames=17, side=96, learning_rate=4e-4),
        Stage(steps=300, batch=2, frames=25, side=48, learning_rate=4e-4),
        Stage(steps=60, batch=1, frames=25, side=96, learning_rate=3e-4),
    )

    @property
    def defaults(self) -> GenerationDefaults:
        template = {"max_sequence_length": TEXT_TOKENS}
        return self.design.defaults(guidance=2.0, negative_prompt="", prompt_template=template)

    def build_vae(self) -> AutoencoderKLWan:
        return build_vae()

    def load_vae(self, directory: Path) -> AutoencoderKLWan:
        return AutoencoderKLWan.from_pretrained(directory)

    def build_transformer(self) -> WanTransformer3DModel:
        return build_transformer(self.design)

    def load_transformer(self, directory: Path) -> WanTransformer3DModel:
        return WanTransformer3DModel.from_pretrained(directory)

    def build_pipeline(
        self, words: list[str], vae: AutoencoderKLWan, transformer: WanTransformer3DModel
    ) -> WanPipeline:
        make: Any = WanPipeline  # its annotations admit one scheduler only
        return make(
            tokenizer=build_tokenizer(words, TEXT_TOKENS, form="$A [EOS]"),
            text_encoder=build_text_encoder(len(words) + len(SPECIAL_TOKENS)),
            vae=vae,
            scheduler=UniPCMultistepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=self.design.shift
            ),
            transformer=transformer,
        )

    def scale(self, vae: AutoencoderKLWan, latents: Tensor) -> Tensor:
        dimensions = (0, 2, 3, 4)
        mean, deviation = latents.float().mean(dimensions), latents.float().std(dimensions)
        vae.register_to_config(latents_mean=mean.tolist(), latents_std=deviation.tolist(), _name_or_path="")
        return (latents.float() - mean.view(1, -1, 1, 1, 1)) / deviation.view(1, -1, 1, 1, 1)

    def encode_captions(self, pipeline: WanPipeline, captions: list[str]) -> tuple[Tensor, ...]:
        """Tokens `[captions, L, D]`, with zeros behind each caption, as the pipeline pads."""
        texts = [
            pipeline.encode_prompt(caption, do_classifier_free_guidance=False, max_sequence_length=TEXT_TOKENS)[0]
            for caption in captions
        ]
        return (torch.cat(texts),)

    def loss(
        self, transformer: WanTransformer3DModel, clean: Tensor, noise: Tensor, level: Tensor, *text: Tensor
    ) -> Tensor:
        def velocity(latents: Tensor) -> Tensor:
            return transformer(latents, level * 1000, text[0], return_dict=False)[0]

        return flow_matching(velocity, clean, noise, level)
