"""Full-size models and the sizes at which their papers measure: what is counted and predicted without weights."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from jobs.errors import BadInput

if TYPE_CHECKING:
    from diffusers import UniPCMultistepScheduler

Config = dict[str, Any]  # as diffusers writes the configuration of a model


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """A noise level below which a second model takes over, and the flow shift by which steps are laid out."""

    level: float
    flow_shift: float

    def scheduler(self) -> "UniPCMultistepScheduler":
        """That of the model's pipeline."""
        from diffusers import UniPCMultistepScheduler

        shift = self.flow_shift
        return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)

    def changes(self, num_steps: int) -> tuple[int, ...]:
        """The step, from 0, at which it does; none in a loop so short that it does not."""
        scheduler = self.scheduler()
        scheduler.set_timesteps(num_steps)
        above = int((scheduler.timesteps >= 1000 * self.level).sum())
        return (above,) if 0 < above < num_steps else ()


@dataclass(frozen=True, kw_only=True)
class Size:
    """A full-size model, and the size at which its papers measure."""

    config: Config
    side: int  # pixels of a token
    temporal: int  # frames of a latent frame
    num_text_tokens: int
    height: int
    width: int
    num_frames: int
    num_steps: int = 50
    cross_attention: bool = False
    negative_text_tokens: int | None = None  # in a second pass of each step; None without guidance
    boundary: Boundary | None = None  # of models of which there are two

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """Of each pass of a step."""
        return self.num_text_tokens, *([] if self.negative_text_tokens is None else [self.negative_text_tokens])

    def grid(self, height: int, width: int, num_frames: int) -> tuple[int, int, int]:
        """Tokens along (frames, height, width). Raises BadInput for a size that does not divide."""
        if height % self.side or width % self.side or (num_frames - 1) % self.temporal:
            raise BadInput(
                f"height and width must be multiples of {self.side} and num_frames a multiple of {self.temporal} "
                f"plus 1, not {height}, {width}, {num_frames}"
            )
        return (num_frames - 1) // self.temporal + 1, height // self.side, width // self.side


WAN = Size(
    config={"_class_name": "WanTransformer3DModel", "num_attention_heads": 40},  # 14B; of 2.2 both models
    side=16,
    temporal=4,
    num_text_tokens=512,  # its pipeline fills all prompts up, without a mask
    negative_text_tokens=512,
    height=720,
    width=1280,
    num_frames=81,
    cross_attention=True,
)
FULL_SIZE = {
    "hunyuanvideo": Size(
        config={"_class_name": "HunyuanVideoTransformer3DModel"},  # the defaults of its class are the full size
        side=16,
        temporal=4,
        num_text_tokens=256,
        height=480,
        width=640,
        num_frames=65,
    ),
    "flux": Size(
        config={"_class_name": "FluxTransformer2DModel", "guidance_embeds": True},
        side=16,
        temporal=1,
        num_text_tokens=512,
        height=1024,
        width=1024,
        num_frames=1,
    ),
    "hunyuanvideo-1.5": Size(
        # The defaults of its class are the full size.
        config={"_class_name": "HunyuanVideo15Transformer3DModel", "num_attention_heads": 16},
        side=16,
        temporal=4,
        num_text_tokens=256,
        negative_text_tokens=6,  # the end of the template, around an empty prompt
        height=720,
        width=1280,
        num_frames=121,
    ),
    "dit": Size(
        config={"_class_name": "DiTTransformer2DModel", "num_attention_heads": 16, "out_channels": 8},  # DiT-XL/2
        side=16,
        temporal=1,
        num_text_tokens=0,  # a class in their place
        negative_text_tokens=0,
        height=256,
        width=256,
        num_frames=1,
    ),
    "pixart": Size(
        config={  # PixArt-XL-2-256x256
            "_class_name": "PixArtTransformer2DModel",
            "num_attention_heads": 16,
            "sample_size": 32,
            "caption_channels": 4096,
        },
        side=16,
        temporal=1,
        num_text_tokens=120,  # its pipeline fills all prompts up, and keeps the padding
        negative_text_tokens=120,
        height=256,
        width=256,
        num_frames=1,
        num_steps=20,
        cross_attention=True,
    ),
    "hidream": Size(
        config={  # HiDream-I1-Full
            "_class_name": "HiDreamImageTransformer2DModel",
            "num_attention_heads": 20,
            "patch_size": 2,
            "in_channels": 16,
            "axes_dims_rope": (64, 32, 32),
            "caption_channels": (4096, 4096),
            "llama_layers": (*range(32), *[31] * 16),
        },
        side=16,
        temporal=1,
        num_text_tokens=128,  # in each of its parts
        negative_text_tokens=128,
        height=1024,
        width=1024,
        num_frames=1,
    ),
    "latte": Size(
        config={  # Latte-1
            "_class_name": "LatteTransformer3DModel",
            "num_attention_heads": 16,
            "attention_head_dim": 72,
            "in_channels": 4,
            "out_channels": 8,
            "num_layers": 28,
            "cross_attention_dim": 1152,
            "attention_bias": True,
            "patch_size": 2,
            "activation_fn": "gelu-approximate",
            "num_embeds_ada_norm": 1000,
            "norm_type": "ada_norm_single",
            "norm_elementwise_affine": False,
            "caption_channels": 4096,
        },
        side=16,
        temporal=1,
        num_text_tokens=120,
        negative_text_tokens=120,
        height=512,
        width=512,
        num_frames=16,
        cross_attention=True,
    ),
    "wan": WAN,
    "wan2.2": replace(WAN, boundary=Boundary(level=0.875, flow_shift=3.0)),
    "wan2.2-ti2v": replace(
        WAN,
        config={
            "_class_name": "WanTransformer3DModel",
            "num_attention_heads": 24,
            "in_channels": 48,
            "out_channels": 48,
            "ffn_dim": 14336,
            "num_layers": 30,
            "expand_timesteps": True,
        },
        side=32,
        height=704,
        num_frames=121,
    ),
}

# Options that a benchmark sets. MLPerf's guidance scales, 4.0 and 3.0, and its boundary are those of the model.
PRESETS = {"mlperf": {"model": "wan2.2", "height": 720, "width": 1280, "num_frames": 81, "steps": 20}}
