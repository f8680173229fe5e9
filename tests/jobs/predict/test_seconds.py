"""What a prediction is made of: pieces, exchanges and fixed costs behave as they do on ranks."""

from dataclasses import replace

import pytest

from caching.recipe.recipe import RECIPES
from jobs.errors import BadInput
from jobs.predict.gpus import GPUS, profile
from jobs.predict.profile import NAMES
from jobs.predict.seconds import Setup, block_pass, dense_step, interval_of, seconds_of
from jobs.predict.shape import shape_of, video_of
from parallel.layout import Layout

H100 = profile("h100", "nvlink", "ib400")


def setup(model: str = "hunyuanvideo", method: str = "full", size=(720, 1280, 129), **layout: int) -> Setup:
    shape = shape_of(model)
    height, width, num_frames = size
    video = video_of(shape, RECIPES[method], height=height, width=width, num_frames=num_frames, steps=50)
    return Setup(shape=shape, video=video, layout=Layout(**layout))


def test_one_rank_exchanges_nothing_and_several_do():
    assert seconds_of(setup(), H100).exchange == 0
    assert seconds_of(setup(ulysses=8), H100).exchange > 0


def test_more_ranks_take_arithmetic_off_but_never_more_than_their_number():
    seconds = [seconds_of(setup(ulysses=ranks), H100).total for ranks in (1, 2, 4, 8)]
    assert seconds == sorted(seconds, reverse=True)
    assert all(seconds[0] / each < ranks for each, ranks in zip(seconds[1:], (2, 4, 8), strict=True))


def test_the_longest_piece_decides():
    uneven, even = setup(ring=7), setup(ring=8)
    assert uneven.tokens * 7 > uneven.video.num_tokens == even.tokens * 8
    with_ranges = replace(setup(ring=3), video=setup(method="resca").video)
    assert with_ranges.tokens == 3 * with_ranges.video.num_tokens // 8  # of 8 ranges, 3 at the most


def test_ring_hides_behind_attention_until_the_link_is_slower():
    fast, slow = (replace(H100.rates, link_bytes_per_s=rate, memory_bytes_per_s=1e30) for rate in (1e12, 1e9))
    assert block_pass(setup(ring=4), H100, fast).exchange == pytest.approx(0)
    assert block_pass(setup(ring=4), H100, slow).exchange > 0


def test_ring_crosses_nodes_when_a_video_has_more_ranks_than_one():
    tcp = profile("h100", "nvlink", "tcp100")
    within, across = (dense_step(setup(ulysses=8, ring=ring), tcp, tcp.rates) for ring in (1, 2))
    assert across.exchange > 10 * within.exchange


def test_guidance_in_parallel_halves_a_step_of_two_passes():
    both, halves = (dense_step(setup("wan", size=(720, 1280, 81), cfg=cfg), H100, H100.rates) for cfg in (1, 2))
    assert halves.attention == both.attention / 2 and 0 < halves.exchange < 0.01 * halves.attention


def test_a_block_takes_as_long_as_its_launches():
    small = block_pass(setup(size=(64, 64, 5), ring=4), H100, H100.rates)
    total = small.linear + small.attention + small.exchange + small.fixed
    assert total == pytest.approx(H100.rates.block_launch_s) and small.fixed > 0


def test_proxies_cost_launches_that_no_rank_takes_off():
    resca = [seconds_of(setup(method="resca", ulysses=ranks), H100).fixed for ranks in (1, 8)]
    auto = seconds_of(setup(method="auto"), H100).fixed
    assert resca[1] == pytest.approx(resca[0], rel=0.01) and resca[0] > auto


def test_sparse_steps_make_the_gain_of_more_ranks_smaller():
    gain = {
        method: seconds_of(setup(method=method), H100).total / seconds_of(setup(method=method, ulysses=8), H100).total
        for method in ("full", "auto", "resca")
    }
    assert gain["full"] > gain["auto"] > gain["resca"]


def test_weights_that_are_gathered_cost_only_what_a_block_does_not_hide():
    one = setup(ulysses=8)
    hidden, seen = replace(one, weight_bytes=25 * 10**9), replace(one, weight_bytes=25 * 10**12)
    plain = seconds_of(one, H100).total
    assert seconds_of(hidden, H100).total == pytest.approx(plain)
    assert seconds_of(seen, H100).total > 2 * plain


def test_decoding_that_is_not_shared_takes_as_long_on_any_number_of_ranks():
    shared, own = setup(ulysses=8), replace(setup(ulysses=8), shares_decoding=False)
    alone = seconds_of(setup(), H100).decode
    assert seconds_of(own, H100).decode == alone > 7 * seconds_of(shared, H100).decode


def test_a_second_transformer_makes_one_step_more_dense():
    step = dense_step(setup("wan2.2", size=(720, 1280, 81)), H100, H100.rates).attention
    for method, num_dense in (("full", 50), ("auto", 10)):
        loop = seconds_of(setup("wan2.2", method, size=(720, 1280, 81)), H100)
        assert loop.attention == pytest.approx(num_dense * step)


@pytest.mark.parametrize("method", ["toca", "chipmunk", "sdtm"])
def test_methods_that_are_not_described_are_refused(method):
    with pytest.raises(BadInput, match=f"method {method}: what its sparse steps take is not predicted"):
        setup(method=method).check()


def test_the_interval_holds_the_prediction_and_narrows_with_what_is_known():
    one = setup(ulysses=8)
    low, high = interval_of(one, H100)
    assert low < seconds_of(one, H100).total < high
    known = {name: replace(each, low=each.value, high=each.value) for name, each in H100.quantities.items()}
    assert interval_of(one, replace(H100, quantities=known)) == (seconds_of(one, H100).total,) * 2


@pytest.mark.parametrize("gpu", [*GPUS, "cpu"])
def test_every_quantity_of_every_gpu_has_a_source(gpu):
    quantities = profile(gpu, "pcie", "tcp100").quantities
    assert set(quantities) == set(NAMES) and all(each.source for each in quantities.values())


def test_a_gpu_without_nvlink_says_so():
    with pytest.raises(BadInput, match="--link nvlink: an l20 has none; it has pcie"):
        profile("l20", "nvlink", "ib400")
