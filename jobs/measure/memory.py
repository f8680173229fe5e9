"""What each rank holds of a full-size model, counted on the meta device: its weights, and what methods add to them."""

from itertools import product
from typing import TypedDict

from rich.console import Console

from jobs.console import under_way
from jobs.errors import BadInput
from jobs.measure.full_pipeline import check_pipeline, full_size_models, full_size_planner
from jobs.models.family import MOST
from jobs.models.full_size import FULL_SIZE
from jobs.options.measure import MemoryOptions
from jobs.options.shared import Weights
from jobs.rank.load import called_alone
from jobs.rank.memory import MemoryPlanner, Models, Setting
from jobs.request.checks import check_count
from jobs.request.recipes import resolve_method
from jobs.store.items import FP8
from parallel.layout import Layout
from parallel.sharding import gathered_bytes, held_bytes

NUM_RANKS = (1, 2, 4, 8)


def count_ranks(model: str, weights: Weights) -> list[dict[str, int]]:
    """One row a number of ranks. Raises BadInput for a model whose pipeline cannot be rendered."""
    check_pipeline(model)
    models = full_size_models(model)
    return [make_row(models.in_fp8 if weights == FP8 else models, num_ranks) for num_ranks in NUM_RANKS]


def make_row(models: Models, num_ranks: int) -> dict[str, int]:
    """Bytes of weights by rank: whole on each of them, and split over them.

    Without `--shard-weights` rank 0 holds `rank_0_bytes`, and the others, which have no text encoders, `others_bytes`;
    with it each rank holds `sharded_bytes`, the sum of the three columns before. `gathered_bytes` come on top while a
    block runs.
    """
    text, wholes = models.text_encoders, [(each, called_alone(each)) for each in models.transformers]
    split = {
        "transformer_bytes": sum(held_bytes(each, num_ranks, whole=whole) for each, whole in wholes),
        "text_bytes": sum(held_bytes(each, num_ranks) for each in text),
        "vae_bytes": held_bytes(models.vae),
    }
    others = sum(held_bytes(each) for each, _ in wholes) + split["vae_bytes"]
    return {
        "ranks": num_ranks,
        "rank_0_bytes": others + sum(held_bytes(each) for each in text),
        "others_bytes": others,
        **split,
        "sharded_bytes": sum(split.values()),
        "gathered_bytes": max(
            *(gathered_bytes(each, num_ranks, whole=whole) for each, whole in wholes),
            *(gathered_bytes(each, num_ranks) for each in text),
        ),
    }


class PeakRow(TypedDict):
    """One method on one rank of some: bytes at its fullest moment, and what would make it fit; None if it does."""

    method: str
    ranks: int
    offload: bool
    shard_weights: bool
    weight_bytes: int
    loop_bytes: int
    peak_bytes: int
    fits: bool
    most_frames: int


def count_peaks(options: MemoryOptions, console: Console) -> list[PeakRow]:
    """A method's rows on 1 rank and on 8, as they are and with what saves memory. Raises BadInput."""
    check_pipeline(options.model)
    for name in ("height", "width", "num_frames", "steps"):
        check_count(name, getattr(options, name), MOST[name])
    size = FULL_SIZE[options.model]
    size.grid(options.height, options.width, options.num_frames)
    if not options.gpu_memory > 0:
        raise BadInput(f"--gpu-memory must be above 0 GiB, not {options.gpu_memory}")
    gpu_bytes, planner = options.gpu_memory * 2**30, full_size_planner(options.model)
    rows: list[PeakRow] = []
    names = options.method_names(cross_attention=size.cross_attention)
    for number, name in enumerate(names, start=1):
        method = resolve_method(name, options.cache_for(name), cross_attention=size.cross_attention)
        with under_way(console, f"counting {method.name} ({number} of {len(names)})"):
            for layout, shard_weights, offload in product((Layout(), Layout(ulysses=8)), (False, True), (False, True)):
                setting = Setting(
                    method=method,
                    height=options.height,
                    width=options.width,
                    num_frames=options.num_frames,
                    num_steps=options.steps,
                    layout=layout,
                    shard_weights=shard_weights,
                    offload=offload,
                    fp8=options.weights == FP8,
                    num_passes=len(size.text_tokens),
                )
                if layout.world_size > 1 or not setting.shard_weights:
                    rows += _peak_rows(planner, setting, gpu_bytes)
    return rows


def _peak_rows(planner: MemoryPlanner, setting: Setting, gpu_bytes: float) -> list[PeakRow]:
    """One row, or none for a method that does not work on so many ranks."""
    try:
        need = planner.need(setting)
    except ValueError:
        return []
    return [
        {
            "method": setting.method.name,
            "ranks": setting.layout.world_size,
            "offload": setting.offload,
            "shard_weights": setting.shard_weights,
            "weight_bytes": need.weights,
            "loop_bytes": need.loop,
            "peak_bytes": need.total,
            "fits": need.total <= gpu_bytes,
            "most_frames": planner.most_frames(setting, gpu_bytes),
        }
    ]
