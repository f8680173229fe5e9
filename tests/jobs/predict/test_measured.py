"""A profile by probes: links are fitted, and what was measured of one layout predicts others."""

from dataclasses import replace

import pytest

from caching.recipe.recipe import RECIPES
from jobs.predict.calibrate import Seen
from jobs.predict.gpus import profile
from jobs.predict.measured import FAST, Probe, ProbeRequest, Turn, combined, fit, measured, probed, slowdown
from jobs.predict.profile import Profile
from jobs.predict.seconds import Setup, seconds_of
from jobs.predict.shape import shape_of, video_of
from parallel.collectives import CallTime
from parallel.layout import Layout

DEMO = shape_of("demo")
CPU = profile("cpu", "pcie", "tcp100")


def setup(num_frames: int = 41, **layout: int) -> Setup:
    shape = replace(DEMO, num_passes=2)
    video = video_of(shape, RECIPES["full"], height=128, width=128, num_frames=num_frames, steps=10)
    return Setup(shape=shape, video=video, layout=Layout(**layout))


def calls(bytes_per_s: float, call_s: float, collective="all_to_all") -> tuple[CallTime, ...]:
    sizes = (10_000, 100_000, 1_000_000)
    return tuple(
        CallTime(collective=collective, bytes_sent=size, seconds=call_s + size / bytes_per_s) for size in sizes
    )


def machine() -> Profile:
    """Slower at attention than at linear layers, and with fixed costs of its own."""
    factors = {"linear_flops_per_s": 0.6, "attention_flops_per_s": 0.3, "decode_flops_per_s": 1e-5, "step_s": 0.4}
    changed = {name: CPU.quantities[name].scaled(factor) for name, factor in factors.items()}
    return CPU.with_quantities("a machine", **changed)


def probe(**changed) -> Probe:
    rates = machine().rates
    known = {name: getattr(rates, name) for name in ("linear_flops_per_s", "attention_flops_per_s")}
    return Probe(**{"memory_bytes_per_s": 4e9, "together": 1.0, **known, **changed})


def seen(at: Setup, on: Profile) -> Seen:
    parts = seconds_of(at, on)
    return Seen(setup=at, encode_s=parts.encode, denoise_s=parts.loop, decode_s=parts.decode, write_s=parts.host)


@pytest.mark.parametrize("bytes_per_s, call_s", [(1.25e8, 1e-4), (1.25e9, 4e-3), (1e10, 0.0)])
def test_links_are_found_by_calls_of_some_sizes(bytes_per_s, call_s):
    found = fit(calls(bytes_per_s, call_s))
    assert found == pytest.approx((bytes_per_s, call_s), rel=1e-3, abs=1e-9)


def test_a_link_on_which_bytes_make_no_difference_has_calls_alone():
    same = [replace(call, seconds=0.004) for call in calls(1e9, 0.0)]
    assert fit(same) == (FAST, pytest.approx(0.004))
    assert fit([replace(call, seconds=0.004 / (1 + number)) for number, call in enumerate(same)])[0] == FAST


@pytest.mark.parametrize("layout", [{"ulysses": 2}, {"ring": 2}, {"cfg": 2}, {"ulysses": 2, "ring": 2}])
@pytest.mark.parametrize("together", [1.0, 1.2])
def test_others_are_predicted_by_videos_of_one_rank_and_by_probes_of_their_own(layout, together):
    """As on a machine that is so, at two sizes, with a link and memory that nobody has told of before."""
    own = probe(calls=calls(1.25e8, 1e-3) + calls(2.5e8, 2e-3, "all_gather"), together=together)
    first = [seen(setup(num_frames=frames), machine()) for frames in (41, 41, 21, 21)]
    known = measured(CPU, first, probe(), "a test")
    asked = setup(**layout)
    truth = probed(machine(), own, asked.layout, together)
    found = seconds_of(asked, probed(known, own, asked.layout, together))
    assert found.total == pytest.approx(seconds_of(asked, truth).total, rel=0.03)
    assert found.exchange == pytest.approx(seconds_of(asked, truth).exchange, rel=0.03)


def test_ranks_that_compute_together_are_slower():
    alone, together = (seconds_of(setup(), probed(machine(), probe(), Layout(), times)) for times in (1.0, 1.5))
    assert together.loop == pytest.approx(1.5 * alone.loop) and together.decode == pytest.approx(1.5 * alone.decode)
    assert together.encode == alone.encode and together.host == alone.host


def test_probes_of_several_turns_are_one():
    found = combined([probe(together=times, calls=calls(1e9, 0.0)) for times in (1.0, 1.1, 9.0)])
    assert found.together == 1.1 and len(found.calls) == 9


def turn(*together: float, alone: float = 0.010) -> Turn:
    """Of four repetitions; on several ranks, what a block takes on each."""
    return Turn(alone=[alone] * 4, together=[[seconds] * 4 for seconds in together])


def test_a_block_on_all_ranks_takes_as_long_as_on_the_slowest():
    assert slowdown([turn(0.010, 0.012)] * 3) == pytest.approx(1.2)
    late = Turn(alone=[0.010] * 4, together=[[0.010, 0.013] * 2, [0.013, 0.010] * 2])
    assert slowdown([late]) == pytest.approx(1.3)
    assert slowdown([turn(0.009, 0.008)]) == 1.0


def test_what_disturbs_some_turns_of_a_probe_is_left_out():
    calm = [turn(0.011, 0.010)] * 5
    assert slowdown([*calm, *[turn(0.030, 0.010)] * 3]) == pytest.approx(1.1)
    assert slowdown([*calm, turn(0.030, 0.030, alone=0.028)]) == pytest.approx(1.1)
    assert slowdown([turn(0.030, 0.010)] * 5) == pytest.approx(3.0)  # this is how it is there


def test_one_of_two_probes_may_be_disturbed():
    link, slow = calls(1.25e8, 1e-3), [replace(call, seconds=3 * call.seconds) for call in calls(1.25e8, 1e-3)]
    calm = probe(together=1.1, calls=link)
    disturbed = probe(together=1.6, calls=tuple(slow), linear_flops_per_s=calm.linear_flops_per_s / 2)
    found = combined([calm, disturbed])
    assert (found.together, found.linear_flops_per_s) == (1.1, calm.linear_flops_per_s)
    assert fit(found.calls) == pytest.approx((1.25e8, 1e-3), rel=1e-3)


def test_sizes_in_question_are_those_of_a_rank():
    request = ProbeRequest.of(setup(ulysses=2), "float32")
    assert request.tokens == 352 and 352 * 192 * 4 in request.sizes(1) and 2 * 352 * 192 * 4 in request.sizes(2)
