"""The demo model: a complete HunyuanVideo pipeline, small enough for a repository, and how it is trained.

Legend: B batch, C latent channels, F H W latent frames, height and width, L text tokens, D text width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel

from jobs.demo.losses import flow_matching
from jobs.demo.tokenizer import SPECIAL_TOKENS, build_tokenizer
from jobs.demo.trainee import LATENT_CHANNELS, Design, Stage
from jobs.models.demos import DEMOS
from jobs.models.family import GenerationDefaults

TEXT_WIDTH = 64
TEMPLATE = {"template": "{}", "crop_start": 0}
SHIPPED = Design(heads=4, head_width=48, blocks=(2, 6), shift=7.0, side=128, num_frames=41)


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


def build_transformer(design: Design = SHIPPED) -> HunyuanVideoTransformer3DModel:
    """The denoiser; shipped, 2 double-stream and 6 single-stream blocks of width 192 (4 heads x 48)."""
    double, single = design.blocks
    return HunyuanVideoTransformer3DModel(
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_attention_heads=design.heads,
        attention_head_dim=design.head_width,
        num_layers=double,
        num_single_layers=single,
        num_refiner_layers=1,
        guidance_embeds=False,
        text_embed_dim=TEXT_WIDTH,
        pooled_projection_dim=TEXT_WIDTH,
        patch_size=4,
        rope_axes_dim=design.rope,
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


def build_pipeline(
    words: list[str],
    vae: AutoencoderKLHunyuanVideo,
    transformer: HunyuanVideoTransformer3DModel,
    *,
    shift: float = SHIPPED.shift,
) -> HunyuanVideoPipeline:
    """Join a VAE and a transformer with text encoders, tokenizers and HunyuanVideo's scheduler."""
    llama, clip = build_text_encoders(len(words) + len(SPECIAL_TOKENS))
    return HunyuanVideoPipeline(
        text_encoder=llama,
        tokenizer=build_tokenizer(words, 256),
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        text_encoder_2=clip,
        tokenizer_2=build_tokenizer(words, 77),
    )


@dataclass(frozen=True)
class HunyuanVideoDemo:
    """The `Trainee` of `--model demo`."""

    design: Design = SHIPPED
    directory = DEMOS["demo"]
    takes_classes = False
    caption_drop = 0.0
    # Whole scenes, because group norms see the statistics of the view: first small and short ones, then as long as a
    # tile of the VAE, last of the size that is rendered.
    stages = (
        Stage(steps=1500, batch=2, frames=9, side=64),
        Stage(steps=600, batch=2, frames=17, side=64, learning_rate=5e-4),
        Stage(steps=70, batch=2, frames=17, side=128, learning_rate=3e-4),
    )

    @property
    def defaults(self) -> GenerationDefaults:
        return self.design.defaults(guidance=6.0, prompt_template=TEMPLATE)

    def build_vae(self) -> AutoencoderKLHunyuanVideo:
        return build_vae()

    def load_vae(self, directory: Path) -> AutoencoderKLHunyuanVideo:
        return AutoencoderKLHunyuanVideo.from_pretrained(directory)

    def build_transformer(self) -> HunyuanVideoTransformer3DModel:
        return build_transformer(self.design)

    def load_transformer(self, directory: Path) -> HunyuanVideoTransformer3DModel:
        return HunyuanVideoTransformer3DModel.from_pretrained(directory)

    def build_pipeline(
        self, words: list[str], vae: AutoencoderKLHunyuanVideo, transformer: HunyuanVideoTransformer3DModel
    ) -> HunyuanVideoPipeline:
        return build_pipeline(words, vae, transformer, shift=self.design.shift)

    def scale(self, vae: AutoencoderKLHunyuanVideo, latents: Tensor) -> Tensor:
        vae.register_to_config(scaling_factor=float(1 / latents.float().std()), _name_or_path="")
        return latents * vae.config["scaling_factor"]

    def encode_captions(self, pipeline: HunyuanVideoPipeline, captions: list[str]) -> tuple[Tensor, ...]:
        """Tokens `[captions, L, D]` and pooled text `[captions, D]`; of equally many words, so that none is padding."""
        tokens, pooled = [], []
        for caption in captions:
            embeds, pooled_embeds, mask = pipeline.encode_prompt(caption, prompt_template=TEMPLATE)
            assert mask is not None
            tokens.append(embeds[:, : int(mask.sum())])
            pooled.append(pooled_embeds)
        return torch.cat(tokens), torch.cat(pooled)

    def loss(
        self, transformer: HunyuanVideoTransformer3DModel, clean: Tensor, noise: Tensor, level: Tensor, *text: Tensor
    ) -> Tensor:
        tokens, pooled = text

        def velocity(latents: Tensor) -> Tensor:
            return transformer(
                hidden_states=latents,
                timestep=level * 1000,
                encoder_hidden_states=tokens,
                encoder_attention_mask=torch.ones(tokens.shape[:2], device=tokens.device),
                pooled_projections=pooled,
                return_dict=False,
            )[0]

        return flow_matching(velocity, clean, noise, level)
