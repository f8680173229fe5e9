"""Full-size models without their weights: what can be asked of them on the meta device."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import UniPCMultistepScheduler

from caching.engine import Engine
from caching.flops import BY_TOKEN, Cost, count, run_on_meta
from caching.recipe.recipe import Recipe
from jobs.errors import BadInput
from jobs.models.family import MOST
from jobs.options.measure import FullSizeOptions
from jobs.request.checks import check_count
from jobs.request.recipes import resolve_method
from parallel.imagined import ImaginedGroup
from parallel.layout import Layout

DTYPE = torch.bfloat16
Config = dict[str, Any]  # as diffusers writes the configuration of a model


@dataclass(frozen=True, kw_only=True)
class Boundary:
    """A noise level below which a second model takes over, and the flow shift by which steps are laid out."""

    level: float
    flow_shift: float

    def scheduler(self) -> UniPCMultistepScheduler:
        """That of the model's pipeline."""
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
            BY_TOKEN: True,
        },
        side=32,
        height=704,
        num_frames=121,
    ),
}

# Options that a benchmark sets. MLPerf's guidance scales, 4.0 and 3.0, and its boundary are those of the model.
PRESETS = {"mlperf": {"model": "wan2.2", "height": 720, "width": 1280, "num_frames": 81, "steps": 20}}


@dataclass(frozen=True, kw_only=True)
class Request:
    """What was asked: a model, a token grid, methods, steps, and the ranks that share a video."""

    model: str
    size: Size
    grid: tuple[int, int, int]
    methods: list[Recipe]
    num_steps: int
    layout: Layout

    @property
    def at_papers_size(self) -> bool:
        """Whether this is what the model's papers measure."""
        size = self.size
        return self.num_steps == size.num_steps and self.grid == size.grid(size.height, size.width, size.num_frames)

    def count(self, method: Recipe, num_steps: int | None = None) -> Cost:
        """What a method's denoising loop costs, of so many steps if not of those that were asked for."""
        num_steps = num_steps or self.num_steps
        return count(
            self.size.config,
            method,
            grid=self.grid,
            num_text_tokens=self.size.text_tokens,
            num_steps=num_steps,
            dtype=DTYPE,
            changes=self._changes(method, num_steps),
        )

    def send(self, method: Recipe) -> tuple[Engine, ImaginedGroup]:
        """A method's denoising loop on one rank; the group's counter holds what it sent.

        Raises ValueError for a method that works on one rank only.
        """
        group = ImaginedGroup(self.layout)
        engine = run_on_meta(
            self.size.config,
            method,
            grid=self.grid,
            num_text_tokens=self.size.text_tokens,
            num_steps=self.num_steps,
            dtype=DTYPE,
            group=group,
            changes=self._changes(method, self.num_steps),
        )
        return engine, group

    def _changes(self, method: Recipe, num_steps: int) -> tuple[int, ...]:
        """When a second model takes over in a method's loop, which may have fewer steps than full sampling."""
        boundary = self.size.boundary
        return boundary.changes(method.schedule.num_steps(num_steps)) if boundary else ()


def read_request(options: FullSizeOptions) -> Request:
    """Raises BadInput for a model, size, method, number of steps or layout that does not work."""
    options = _with_preset(options)
    if options.model not in FULL_SIZE:
        raise BadInput(f"unknown model {options.model}; known: {', '.join(FULL_SIZE)}")
    size = FULL_SIZE[options.model]
    grid = size.grid(options.height or size.height, options.width or size.width, options.num_frames or size.num_frames)
    cross = size.cross_attention
    names = options.method_names(cross_attention=cross)
    methods = [resolve_method(name, options.cache_for(name), cross_attention=cross) for name in names]
    check_count("steps", options.steps, MOST["steps"])
    try:
        layout = Layout(cfg=options.cfg, ulysses=options.ulysses, ring=options.ring)
        layout.check(heads=size.config.get("num_attention_heads", 24), tokens=grid[0] * grid[1] * grid[2])
    except ValueError as error:
        raise BadInput(str(error)) from error
    if layout.cfg > 1 and size.negative_text_tokens is None:
        raise BadInput(
            f"--cfg {layout.cfg} gives each pass of guidance its own ranks, and {options.model} has one pass"
        )
    return Request(model=options.model, size=size, grid=grid, methods=methods, num_steps=options.steps, layout=layout)


def _with_preset(options: FullSizeOptions) -> FullSizeOptions:
    """The options with those that their preset sets. Raises BadInput for one unknown, or where others were given."""
    if options.preset is None:
        return options
    if options.preset not in PRESETS:
        raise BadInput(f"unknown preset {options.preset}; known: {', '.join(PRESETS)}")
    for name, value in PRESETS[options.preset].items():
        if (given := getattr(options, name)) not in (getattr(FullSizeOptions, name), value):
            option = f"--{name.replace('_', '-')}"
            raise BadInput(f"--preset {options.preset} has {option} {value}, not {given}; leave it out")
    return replace(options, **PRESETS[options.preset])
