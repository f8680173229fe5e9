"""Calibrated on one row of one GPU, predictions are near what others have published for several."""

from dataclasses import replace
from itertools import pairwise

import pytest

from caching.recipe.recipe import RECIPES
from jobs.models.numbers import Numbers
from jobs.predict.calibrate import calibrated_by_total
from jobs.predict.decoding import Decoder
from jobs.predict.gpus import profile
from jobs.predict.profile import Profile
from jobs.predict.seconds import Parts, Setup, dense_step, interval_of, seconds_of
from jobs.predict.shape import ModelShape, shape_of, video_of
from parallel.layout import Layout
from tests.jobs.predict.published import (
    CONSISID,
    CONSISID_LINK,
    HUNYUAN_VIDEO,
    OF_THE_LINK,
    PRECISE_CACHE,
    UNMET_CONSISID,
    UNMET_HUNYUAN_VIDEO,
    HunyuanTable,
)

NEAR = 0.15
FULL = RECIPES["full"]
ROWS = [
    pytest.param(table, num, id=f"{table.gpu} {table.height}x{table.width} {num}")
    for table in HUNYUAN_VIDEO
    for num in table.seconds
]


def hunyuan_video(table: HunyuanTable, num_gpus: int) -> Setup:
    shape = shape_of("hunyuanvideo")
    video = video_of(shape, FULL, height=table.height, width=table.width, num_frames=129, steps=50)
    return Setup(shape=shape, video=video, layout=Layout(ulysses=num_gpus), shares_decoding=False)


def calibrated_on_one(gpu: str) -> Profile:
    """By the first table's row of one GPU, and by no other."""
    table = next(each for each in HUNYUAN_VIDEO if each.gpu == gpu)
    return calibrated_by_total(profile(gpu, table.link, "ib400"), hunyuan_video(table, 1), table.seconds[1], "row")


def error(table: HunyuanTable, num_gpus: int) -> float:
    predicted = seconds_of(hunyuan_video(table, num_gpus), calibrated_on_one(table.gpu)).total
    return predicted / table.seconds[num_gpus] - 1


@pytest.mark.parametrize("table, num_gpus", ROWS)
def test_hunyuan_video_on_several_gpus(table, num_gpus):
    is_near = abs(error(table, num_gpus)) < NEAR
    assert is_near is ((table.gpu, table.height, num_gpus) not in UNMET_HUNYUAN_VIDEO)


def test_rows_are_doubtful_whose_arithmetic_cannot_be():
    by_size = {(table.gpu, table.height): table for table in HUNYUAN_VIDEO}
    sizes = [video_of(shape_of("hunyuanvideo"), FULL, height=h, width=w, num_frames=129, steps=50) for h, w in
             ((720, 1280), (960, 960))]  # fmt: skip
    assert sizes[0].num_tokens == sizes[1].num_tokens == 118_800  # the same work, and 10% apart on one H100
    assert by_size["h100", 720].seconds[1] > 1.09 * by_size["h100", 960].seconds[1]
    assert by_size["h100", 720].seconds[1] / by_size["h100", 720].seconds[2] > 2  # faster than twice, which nothing is
    assert by_size["h20", 720].seconds[2] == by_size["h20", 960].seconds[2]  # to the hundredth: one is a copy


@pytest.mark.parametrize("table", HUNYUAN_VIDEO, ids=lambda table: f"{table.gpu} {table.height}x{table.width}")
def test_rows_of_one_gpu_lie_between_what_uncalibrated_rates_allow(table):
    low, high = interval_of(hunyuan_video(table, 1), profile(table.gpu, table.link, "ib400"))
    assert low < table.seconds[1] < high


def cog_video_x() -> ModelShape:
    """Of CogVideoX 5B; what its VAE takes has not been counted, so it is taken to be as HunyuanVideo's."""
    numbers = Numbers(
        heads=48, width=3072, blocks=42, patch=2, patch_t=1, spatial=8, temporal=4, latent_channels=16,
        pixel_multiple=16,
    )  # fmt: skip
    decoder = replace(Decoder.of("HunyuanVideoPipeline", 1.75e7), slab=None)
    return ModelShape(name="CogVideoX", numbers=numbers, text_tokens=226, num_passes=2, decoder=decoder)


@pytest.fixture(scope="module")
def consisid() -> dict[tuple[int, int, int], float]:
    """Predicted seconds by (cfg, Ulysses, Ring)."""
    shape = cog_video_x()
    video = video_of(shape, FULL, height=480, width=720, num_frames=49, steps=50)
    alone = Setup(shape=shape, video=video, shares_decoding=False)
    by_one = calibrated_by_total(profile("h100", CONSISID_LINK, "ib400"), alone, CONSISID[1, 1, 1], "row")
    layouts = {key: Layout(cfg=key[0], ulysses=key[1], ring=key[2]) for key in CONSISID}
    return {key: seconds_of(replace(alone, layout=layout), by_one).total for key, layout in layouts.items()}


@pytest.mark.parametrize("ranks", [2, 4, 6])
def test_guidance_before_ring_before_ulysses_as_in_consisids_table(consisid, ranks):
    of_as_many = [key for key in CONSISID if key[0] * key[1] * key[2] == ranks]
    assert len(of_as_many) >= 2
    assert sorted(of_as_many, key=CONSISID.__getitem__) == sorted(of_as_many, key=consisid.__getitem__)


def test_consisid_is_met_but_for_what_is_listed(consisid):
    far = {key for key, seconds in consisid.items() if abs(seconds / CONSISID[key] - 1) > NEAR}
    assert far == set(UNMET_CONSISID) and OF_THE_LINK not in far
    # On 3 GPUs the table has Ulysses 4% before Ring; here it is 9% behind.
    assert CONSISID[1, 3, 1] < CONSISID[1, 1, 3] and consisid[1, 3, 1] > consisid[1, 1, 3]


def test_nvlink_cannot_be_what_consisid_was_measured_on():
    shape = cog_video_x()
    video = video_of(shape, FULL, height=480, width=720, num_frames=49, steps=50)
    setup = Setup(shape=shape, video=video, layout=Layout(ulysses=2), shares_decoding=False)
    nvlink = seconds_of(setup, profile("h100", "nvlink", "ib400")).exchange
    assert nvlink < 0.25 * (CONSISID[1, 2, 1] - CONSISID[1, 1, 1] / 2)


def test_a_cache_gains_less_on_more_gpus_as_precisecache_has_it():
    shape = shape_of("wan")
    video = video_of(shape, FULL, height=720, width=1280, num_frames=81, steps=50)
    alone = Setup(shape=shape, video=video, shares_decoding=False)
    by_one = calibrated_by_total(profile("a100", "nvlink", "ib400"), alone, PRECISE_CACHE[1][0], "row")

    def seconds(num_gpus: int, num_dense: float) -> float:
        setup = replace(alone, layout=Layout(ulysses=num_gpus))
        parts = seconds_of(setup, by_one)
        sparse = Parts(fixed=by_one.rates.step_s).times(50 - num_dense)
        return parts.total - parts.loop + (dense_step(setup, by_one, by_one.rates).times(num_dense) + sparse).loop

    # As many dense steps as its row of one GPU has by its seconds; how they are chosen does not matter here.
    of_none, of_all = seconds(1, 0), seconds(1, 50)
    num_dense = 50 * (PRECISE_CACHE[1][1] - of_none) / (of_all - of_none)
    gains = {}
    for num_gpus, (full, cached) in PRECISE_CACHE.items():
        predicted = seconds(num_gpus, 50), seconds(num_gpus, num_dense)
        assert predicted == pytest.approx((full, cached), rel=NEAR)
        gains[num_gpus] = predicted[0] / predicted[1]
        assert gains[num_gpus] == pytest.approx(full / cached, rel=NEAR)
    assert gains[1] == pytest.approx(2.5, rel=0.01)
    assert all(more > fewer for more, fewer in pairwise(gains.values()))
