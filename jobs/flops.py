"""`resca flops`: what each method costs on a full-size model, counted without weights."""

from dataclasses import dataclass
from typing import Any

import torch

from caching.flops import Cost, count
from caching.recipe import RECIPES, Recipe
from jobs.errors import BadInput
from jobs.options import CommOptions, FlopsOptions
from jobs.progress import make_console, print_rows, write_rows
from jobs.recipes import resolve_method

# TFLOPs in the tables of ResCa (S1 and 1) and DuCa (II), by (model, method, interval, order, clusters).
PUBLISHED = {
    ("hunyuanvideo", "full", 1, None, None): 29_773.0,
    ("hunyuanvideo", "resca", 6, 1, 32): 5_383.2,
    ("flux", "full", 1, None, None): 3_719.50,
    ("flux", "resca", 7, 1, 16): 675.1,
    ("flux", "fora", 3, 0, None): 1_320.07,
    ("flux", "toca", 5, 0, None): 1_126.76,
    ("flux", "duca", 4, 0, None): 1_190.24,
    ("flux", "duca", 5, 0, None): 1_078.34,
    ("flux", "duca", 6, 0, None): 917.32,
    ("flux", "delta-dit", 2, 0, None): 2_480.01,
    ("flux", "delta-dit", 6, 0, None): 1_686.76,
}
# Why a paper's figure and ours differ, where they do, or where the paper calls the same setting otherwise.
NOTES = {
    ("flux", "fora"): "FORA's figure is met by 17 dense steps and 33 that compute the attention's output projection in "
    "the 19 double-stream blocks, 1.68 TFLOPs each; here these outputs are cached after the projection.",
    ("flux", "toca"): "ToCa's figure, given for N = 4, is that of 3 dense steps and then an interval of 5.",
    (
        "flux",
        "duca",
    ): "DuCa's figures are met, within 1.5%, by turns: even (the aggressive step first), as its Table VI "
    "describes it; its text has the conservative step first, as here.",
    ("flux", "delta-dit"): "Delta-DiT's figure given for N = 3 is that of 9 dense steps, an interval of 6.",
}


@dataclass(frozen=True, kw_only=True)
class Size:
    """A full-size model, and the size at which its papers measure."""

    config: dict[str, Any]
    side: int  # pixels of a token
    temporal: int  # frames of a latent frame
    num_text_tokens: int
    height: int
    width: int
    num_frames: int

    def grid(self, height: int, width: int, num_frames: int) -> tuple[int, int, int]:
        """Tokens along (frames, height, width). Raises BadInput for a size that does not divide."""
        if height % self.side or width % self.side or (num_frames - 1) % self.temporal:
            raise BadInput(
                f"height and width must be multiples of {self.side} and num_frames a multiple of {self.temporal} "
                f"plus 1, not {height}, {width}, {num_frames}"
            )
        return (num_frames - 1) // self.temporal + 1, height // self.side, width // self.side


MODELS = {
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
}


def run(options: FlopsOptions) -> int:
    """Print one row a method. Raises BadInput before anything is counted."""
    size, grid, methods = read_request(options)
    console = make_console()
    common: dict[str, Any] = dict(num_text_tokens=size.num_text_tokens, dtype=torch.bfloat16)
    one = count(size.config, RECIPES["full"], grid=grid, num_steps=1, **common).flops
    rows = []
    for method in methods:
        with console.status(f"counting {method.name}"):
            cost = count(size.config, method, grid=grid, num_steps=options.steps, **common)
        at_size = options.steps == 50 and grid == size.grid(size.height, size.width, size.num_frames)
        rows.append(make_row(method, cost, options.steps * one, published(options.model, method) if at_size else None))
    print_rows(console, rows)
    for method in methods:
        if note := NOTES.get((options.model, method.name)):
            console.print(note, style="dim")
    if options.json:
        write_rows(options.json, rows)
    return 0


def read_request(options: FlopsOptions | CommOptions) -> tuple[Size, tuple[int, int, int], list[Recipe]]:
    """The model, the token grid and the methods that were asked for. Raises BadInput."""
    if options.model not in MODELS:
        raise BadInput(f"unknown model {options.model}; known: {', '.join(MODELS)}")
    size = MODELS[options.model]
    grid = size.grid(options.height or size.height, options.width or size.width, options.num_frames or size.num_frames)
    methods = [resolve_method(name, options.cache_for(name)) for name in options.method_names()]
    if options.steps < 1:
        raise BadInput(f"--steps must be at least 1, not {options.steps}")
    return size, grid, methods


def make_row(method: Recipe, cost: Cost, full_flops: float, seed_tflops: float | None) -> dict[str, Any]:
    """One row of the table; `seed_tflops` is the paper's figure for this very setting."""
    return {
        "method": method.name,
        "dense_steps": cost.dense_steps,
        "sparse_steps": cost.sparse_steps,
        "tflops": round(cost.flops / 1e12, 2),
        "flops_ratio": round(full_flops / cost.flops, 3),
        "paper_tflops": seed_tflops,
        "cache_bytes": cost.cache_bytes,
        "recipe": method.describe(),
    }


def published(model: str, method: Recipe) -> float | None:
    """The paper's TFLOPs for a setting, if it has one."""
    full = method.name == "full"
    every = getattr(method.schedule, "every", None)
    clusters = getattr(method.tokens, "clusters", None)
    order = None if full else method.predictor.order
    return PUBLISHED.get((model, method.name, every, order, clusters))
