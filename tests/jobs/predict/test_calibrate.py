"""A profile that is calibrated by finished videos predicts those that are not finished."""

from dataclasses import replace

import pytest

from caching.recipe.recipe import RECIPES
from jobs.errors import BadInput
from jobs.predict.calibrate import calibrated, calibrated_by_total
from jobs.predict.gpus import profile
from jobs.predict.profile import Profile
from jobs.predict.seconds import Setup, interval_of, seconds_of
from jobs.predict.shape import shape_of, video_of
from jobs.store.items import Seconds, World
from jobs.store.open import open_storage
from parallel.layout import Layout
from tests.jobs.store import example

DEMO = shape_of("demo")
CORES = profile("cpu", "pcie", "tcp100")
# A machine whose arithmetic is half as fast as taken to be, whose steps wait three times as long, and so on.
FACTORS = {
    "linear_flops_per_s": 0.5,
    "attention_flops_per_s": 0.5,
    "decode_flops_per_s": 1e-5,
    "block_launch_s": 3.0,
    "step_s": 3.0,
    "encode_s": 2.0,
    "publish_s": 4.0,
}
SIZE = {"height": 64, "width": 96, "num_frames": 17}


def machine() -> Profile:
    changed = {name: CORES.quantities[name].scaled(factor) for name, factor in FACTORS.items()}
    return CORES.with_quantities("a machine", **changed)


def demo(method: str, steps: int = 50, **changed: int) -> Setup:
    size = {name: changed.pop(name, value) for name, value in SIZE.items()}
    return Setup(shape=DEMO, video=video_of(DEMO, RECIPES[method], steps=steps, **size), layout=Layout(**changed))


def finish(directory, number: int, setup: Setup, pace: float = 1.0) -> None:
    """A sidecar of a video that took what it takes on the machine, `pace` times."""
    parts, video = seconds_of(setup, machine()).times(pace), setup.video
    batch = example.settings(directory, method=video.method)
    item = example.item(id=f"{number:04d}", steps=video.steps, **{name: getattr(video, name) for name in SIZE})
    sidecar = example.sidecar_of(batch, item).model_copy(
        update={
            "flops_full": setup.shape.numbers.step_flops(video.num_tokens) * video.steps,
            "seconds": Seconds(encode=parts.encode, denoise=parts.loop, decode=parts.decode, write=parts.host),
            "layout": World(ulysses=setup.layout.ulysses, ring=1, world_size=setup.layout.world_size),
        }
    )
    open_storage(directory).write(item.sidecar, sidecar.text.encode())


def test_rates_and_fixed_costs_are_found_apart(tmp_path):
    for number, method in enumerate(["full", "auto"] * 8):
        finish(tmp_path, number, demo(method))
    found = calibrated(CORES, DEMO, str(tmp_path))
    for other in (demo("full", num_frames=33), demo("auto", steps=30), demo("auto", ulysses=2), demo("steps")):
        assert seconds_of(other, found).total == pytest.approx(seconds_of(other, machine()).total, rel=0.05)


def test_the_spread_of_what_was_seen_is_the_interval(tmp_path):
    for number in range(20):
        finish(tmp_path, number, demo("full"), pace=0.8 + 0.02 * number)
    low, high = interval_of(demo("full"), calibrated(CORES, DEMO, str(tmp_path)))
    middle = seconds_of(demo("full"), machine()).total
    assert 0.75 * middle < low < 0.95 * middle and 1.05 * middle < high < 1.3 * middle


def test_videos_of_other_models_and_methods_count_for_nothing(tmp_path):
    finish(tmp_path, 0, demo("full"))
    name = next(name for name in open_storage(tmp_path).folder("videos") if name.endswith(".json"))
    with pytest.raises(BadInput, match="of its 1 finished videos none is of hunyuanvideo"):
        calibrated(CORES, shape_of("hunyuanvideo"), str(tmp_path))
    open_storage(tmp_path).remove(f"videos/{name}")
    finish(tmp_path, 1, replace(demo("full"), video=replace(demo("full").video, method=RECIPES["toca"])))
    with pytest.raises(BadInput, match="of its 1 finished videos none is of demo"):
        calibrated(CORES, DEMO, str(tmp_path))


def test_a_directory_without_videos_is_refused(tmp_path):
    with pytest.raises(BadInput, match="of its 0 finished videos none is of demo"):
        calibrated(CORES, DEMO, str(tmp_path))


def test_one_known_time_is_met_and_others_move_with_it():
    setup = demo("full")
    found = calibrated_by_total(CORES, setup, 100.0, "a stopwatch")
    assert seconds_of(setup, found).total == pytest.approx(100.0)
    assert seconds_of(replace(setup, layout=Layout(ulysses=2)), found).total < 100.0


def test_a_time_that_no_arithmetic_fits_into_is_refused():
    with pytest.raises(ValueError, match="less than what the video takes beside its arithmetic"):
        calibrated_by_total(CORES, demo("full"), 1e-6, "a stopwatch")
