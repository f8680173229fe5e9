"""What predictions take as counted is counted again, by what counts full-size models without weights."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from caching.flops import count_full_flops
from caching.recipe.recipe import RECIPES, Recipe
from jobs.measure.full_pipeline import PARTS, full_size_planner
from jobs.models.full_size import FULL_SIZE
from jobs.predict.counted import DECODE_FLOPS, LOOPS, WEIGHTS
from jobs.predict.decoding import Decoder
from jobs.predict.gpus import profile
from jobs.predict.memory import Keeping, keepings, need_bytes, weight_bytes
from jobs.predict.seconds import Setup, block_pass
from jobs.predict.shape import Video, shape_of, video_of
from jobs.rank.components import default_dtype
from jobs.rank.memory import Setting
from parallel.attention import book_attention
from parallel.collectives import CollectiveCounter
from parallel.layout import Layout
from parallel.tiling import tiling_of
from parallel.vae import _slabs, _with_memory

MODELS = list(DECODE_FLOPS)
FULL = RECIPES["full"]
# The side of a tile in latents, and its latent frames.
TILES = {"hunyuanvideo": (32, 5), "hunyuanvideo-1.5": (16, 21), "wan": (32, 21), "wan2.2-ti2v": (16, 21)}


def video(model: str, method: Recipe = FULL, size: tuple[int, int, int] | None = None) -> Video:
    shape = shape_of(model)
    height, width, num_frames = size or shape.size
    return video_of(shape, method, height=height, width=width, num_frames=num_frames, steps=50)


def setting(model: str, of: Video, layout: Layout, keeping: Keeping) -> Setting:
    return Setting(
        method=of.method, height=of.height, width=of.width, num_frames=of.num_frames, num_steps=of.steps,
        layout=layout, num_passes=shape_of(model).num_passes, **vars(keeping),
    )  # fmt: skip


def test_models_are_those_of_resca_memory():
    assert set(MODELS) == set(WEIGHTS) == set(LOOPS) == set(PARTS)


@pytest.mark.parametrize("model", MODELS)
def test_tokens_are_those_of_the_full_size_model(model):
    size, shape = FULL_SIZE[model], shape_of(model)
    assert shape.numbers.grid(*shape.size) == size.grid(*shape.size)
    assert shape.num_passes == len(size.text_tokens)


@pytest.mark.slow
def test_operations_of_a_step_are_those_that_are_counted():
    size, shape = FULL_SIZE["hunyuanvideo"], shape_of("hunyuanvideo")
    counted = count_full_flops(size.config, grid=(9, 30, 40), num_text_tokens=size.num_text_tokens, num_steps=1)
    assert shape.numbers.step_flops(9 * 30 * 40 + shape.text_tokens) == pytest.approx(counted, rel=0.02)


def test_ulysses_sends_what_is_booked_of_attention():
    shape = shape_of("hunyuanvideo")
    one, counter = Setup(shape=shape, video=video("hunyuanvideo"), layout=Layout(ulysses=8)), CollectiveCounter()
    query = torch.empty(1, shape.numbers.heads, one.tokens, 128, dtype=torch.bfloat16, device="meta")
    book_attention(counter, one.layout, query, query[:, :, : shape.text_tokens], one.tokens)
    [row] = counter.rows()
    h100 = profile("h100", "nvlink", "ib400")
    a_byte_a_second = replace(h100.rates, link_bytes_per_s=1.0, link_call_s=0.0, memory_bytes_per_s=1e30)
    assert block_pass(one, h100, a_byte_a_second).exchange == pytest.approx(int(row["bytes_sent"]), rel=1e-6)


@pytest.mark.parametrize("size", [(720, 1280, 129), (480, 640, 65), (256, 256, 5)])
def test_tiles_are_those_that_ranks_decode(size):
    height, width, num_frames = size
    with torch.device("meta"):
        vae = PARTS["hunyuanvideo"].vae()
        latents = torch.empty(1, 16, (num_frames - 1) // 4 + 1, height // 8, width // 8)
    vae.enable_tiling()
    tiles = [tile for slab in _slabs(vae, latents) for tile in tiling_of(vae).tiles(slab)]
    pixels = [(tile.shape[2] * 4 - 3) * tile.shape[3] * tile.shape[4] * 64 for tile in tiles]
    assert pixels == list(Decoder.of("HunyuanVideoPipeline", 1.0).tiles(height, width, num_frames))


def test_tiles_are_dealt_out_in_turns():
    decoder = Decoder(pixel_flops=2.0)
    tiles = list(decoder.tiles(720, 1280, 81))
    for ranks in (1, 3, 8, 100):
        turns = [tiles[first::ranks] for first in range(ranks)]
        assert decoder.flops(720, 1280, 81, ranks) == 2 * max(map(sum, turns))


@pytest.mark.parametrize(
    "model", [pytest.param(name, marks=[pytest.mark.slow] if name != "hunyuanvideo" else []) for name in WEIGHTS]
)
def test_weights_are_those_of_resca_memory(model):
    planner, of = full_size_planner(model), video(model)
    for layout in (Layout(), Layout(ulysses=4)):
        for keeping in keepings(layout):
            counted = planner._weights(setting(model, of, layout, keeping))
            assert weight_bytes(model, layout.world_size, keeping) == pytest.approx(counted, rel=0.04)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "model, method", [(model, method) for model in ("hunyuanvideo", "wan") for method in LOOPS[model]]
)
def test_memory_between_what_was_counted_is_that_of_resca_memory(model, method):
    size = {"hunyuanvideo": (544, 960, 97), "wan": (480, 832, 81)}[model]
    planner, of = full_size_planner(model), video(model, RECIPES[method], size)
    for ranks in (1, 4):
        counted = planner.need(setting(model, of, Layout(ulysses=ranks), Keeping())).total
        assert need_bytes(model, of, Layout(ulysses=ranks), Keeping()) == pytest.approx(counted, rel=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("model", TILES)
def test_a_pixel_of_a_tile_costs_what_its_decoder_counts(model):
    side, frames = TILES[model]
    with torch.device("meta"), default_dtype(torch.float16):
        vae: nn.Module = PARTS[model].vae()
    channels = vae.config.get("latent_channels") or vae.config["z_dim"]
    tile = torch.empty(1, channels, frames, side, side, device="meta", dtype=torch.float16)
    run: dict[str, Callable[[], object]] = {
        "HunyuanVideoPipeline": lambda: vae.decoder(vae.post_quant_conv(tile)),
        "HunyuanVideo15Pipeline": lambda: vae.decoder(tile),
        "WanPipeline": partial(_with_memory, vae, tile),
    }
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run[PARTS[model].pipeline]()
    assert counter.get_total_flops() / ((4 * frames - 3) * 256**2) == pytest.approx(DECODE_FLOPS[model], rel=1e-3)
