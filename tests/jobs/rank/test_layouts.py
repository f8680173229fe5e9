"""The same latents for a seed on any layout: real gloo ranks, the real xfuser code, the real pipeline loop."""

from functools import cache

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from caching.recipe.recipe import recipe
from jobs.rank.renderer import Prompt, Renderer, Sampling
from parallel.layout import Layout
from tests.jobs.rank import test_hunyuan_video_15, test_images, test_wan
from tests.jobs.tiny_images import IMAGES
from tests.jobs.tiny_model import SIZE, build_tiny_pipeline
from tests.jobs.tiny_wan import save_tiny_wan
from tests.parallel.gang import Gang

METHODS = {
    "full": {},
    "resca": {"interval": 4, "clusters": 16},  # long enough for proxies to be computed
    "taylorseer": {"interval": 3},
    "toca": {"interval": 3, "ratio": 0.5},
    "duca": {"interval": 3, "ratio": 0.5, "score": "similarity:min"},
    "clusca": {"interval": 3},
    "tomesd": {},
}
SAMPLING = Sampling(seed=3, **SIZE, steps=10, guidance=6.0)
ODD = Sampling(seed=3, height=48, width=48, num_frames=9, steps=10, guidance=6.0)  # 27 tokens
FLOAT32_BOUND = 1e-4
BFLOAT16_BOUND = 0.02  # of the latents; bfloat16 keeps 8 bits, and ranks add up in another order


def latents_of(group, name, sampling=SAMPLING, dtype=torch.float32, spoil=False):
    """Final latents with a method; `group` is None for a single process.

    `spoil` overwrites queries, keys and values once they were attended to, as compiled blocks do with their memory.
    """
    pipeline = build_tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    for parameter in pipeline.transformer.parameters():  # weights that make every block matter
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    renderer = Renderer(pipeline.to(dtype), group, {"template": "{}", "crop_start": 0})
    prompt = renderer.encode("a cat walks on grass")
    engine = renderer.use(recipe(name, **METHODS[name]))
    if spoil:
        spoil_states(engine.attachments[0].router)
    return renderer.denoise(Prompt(cond=prompt.cond), sampling)


def spoil_states(router):
    pass_on = router.pass_on

    def pass_on_and_spoil(*states):
        outputs = pass_on(*states)
        for each in states:
            each.fill_(torch.nan)
        return outputs

    router.pass_on = pass_on_and_spoil


@cache
def latents_of_one_process(name, sampling, dtype):
    return latents_of(None, name, sampling, dtype)


def difference(latents, name, sampling, dtype=torch.float32):
    """What ranks and a single process differ by, relative to the latents."""
    expected = latents_of_one_process(name, sampling, dtype)
    return ((latents - expected).norm() / expected.norm()).item()


@pytest.fixture(scope="module")
def gang_of(tmp_path_factory):
    """A gang for a layout; its processes serve all layouts of as many ranks."""
    gangs = {}

    def gang_of(layout, engine="xfuser"):
        key = layout.world_size, engine
        if key not in gangs:
            gangs[key] = Gang(layout, tmp_path_factory.mktemp("gang"), engine=engine)
        gangs[key].layout = layout
        return gangs[key]

    yield gang_of
    for gang in gangs.values():
        gang.__exit__()


LAYOUTS = [(2, 1), (1, 2), (2, 2), (3, 1), (1, 3), (4, 1), (1, 4)]
LARGE_LAYOUTS = [(6, 1), (4, 2), (2, 4), (1, 8)]


def quick(*layouts: tuple[int, int]) -> list:
    """All layouts, those that are not named as slow tests."""
    return [layout if layout in layouts else pytest.param(*layout, marks=pytest.mark.slow) for layout in LAYOUTS]


def check(gang, sampling, methods=METHODS):
    for name in methods:
        for latents in gang.run(latents_of, name, sampling):
            assert difference(latents, name, sampling) < FLOAT32_BOUND, name


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("ulysses", "ring"), quick((2, 1), (1, 2)))
def test_ranks_sample_the_latents_of_one_process(gang_of, ulysses, ring):
    check(gang_of(Layout(ulysses=ulysses, ring=ring)), SAMPLING)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("ulysses", "ring"), quick((2, 2)))
def test_ranks_sample_a_size_that_does_not_divide(gang_of, ulysses, ring):
    check(gang_of(Layout(ulysses=ulysses, ring=ring)), ODD)


@pytest.mark.timeout(400)
def test_two_ranks_sample_and_decode_wan_as_one_process_does(gang_of):
    """Two passes a step, a solver with a memory, and a second transformer."""
    gang = gang_of(Layout(ulysses=2))
    for name, kind in (("full", "2.1"), ("resca", "2.2"), ("resca", "ti2v")):
        expected = test_wan.latents_of(None, name, kind)
        for latents in gang.run(test_wan.latents_of, name, kind):
            assert ((latents - expected).norm() / expected.norm()).item() < FLOAT32_BOUND, name
    for kind in ("2.1", "ti2v"):
        frames, nothing = gang.run(test_wan.decoded, kind)
        assert_close(frames, test_wan.decoded(None, kind), rtol=0, atol=1e-6)
        assert not nothing


@pytest.mark.timeout(400)
def test_two_ranks_sample_and_decode_hunyuan_video_15_as_one_process_does(gang_of):
    """A guider, and channels beside the latents of which each rank has its own."""
    gang = gang_of(Layout(ulysses=2))
    for name in ("full", "resca"):
        expected = test_hunyuan_video_15.latents_of(None, name)
        for latents in gang.run(test_hunyuan_video_15.latents_of, name):
            assert ((latents - expected).norm() / expected.norm()).item() < FLOAT32_BOUND, name
    frames, nothing = gang.run(test_hunyuan_video_15.decoded)
    assert_close(frames, test_hunyuan_video_15.decoded(None), rtol=0, atol=1e-6)
    assert not nothing


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", [*IMAGES, "latte"])
def test_two_ranks_sample_and_decode_images_as_one_process_does(gang_of, name):
    """Tokens are shared out, or the passes of guidance, where these are halves of a batch, too."""
    for layout in (Layout(cfg=2), *([] if name == "latte" else [Layout(ulysses=2)])):
        gang = gang_of(layout)
        for method in ("full", "taylorseer" if name == "latte" else "resca"):
            expected = test_images.latents_of(None, name, method)
            for latents in gang.run(test_images.latents_of, name, method):
                assert ((latents - expected).norm() / expected.norm()).item() < FLOAT32_BOUND, (layout, method)
    images, nothing = gang_of(Layout(cfg=2)).run(test_images.decoded, name)
    [expected] = test_images.decoded(None, name)
    assert np.array_equal(images[0], expected) and not nothing


@pytest.mark.timeout(400)
def test_weights_of_wan_may_be_split_though_some_are_tied_and_some_stay_in_float32(gang_of, tmp_path):
    directory = save_tiny_wan(tmp_path / "model", "2.2")
    expected = test_wan.split(None, directory)
    for latents in gang_of(Layout(ulysses=2)).run(test_wan.split, directory):
        assert ((latents - expected).norm() / expected.norm()).item() < BFLOAT16_BOUND


@pytest.mark.timeout(400)
def test_nothing_that_a_block_attended_with_is_used_later(gang_of):
    for name in METHODS:
        alone = latents_of(None, name, spoil=True)
        for latents in (alone, *gang_of(Layout(ulysses=2)).run(latents_of, name, SAMPLING, torch.float32, True)):
            assert difference(latents, name, SAMPLING) < FLOAT32_BOUND, name


@pytest.mark.timeout(400)
@pytest.mark.parametrize("sampling", [SAMPLING, ODD], ids=["even", "odd"])
def test_deepspeed_samples_the_latents_of_one_process(gang_of, sampling):
    check(gang_of(Layout(ulysses=3), "deepspeed"), sampling, ("full", "resca", "taylorseer", "toca"))


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("ulysses", "ring"), [(2, 1), (1, 2)])
def test_bfloat16_stays_within_its_bound(gang_of, ulysses, ring):
    gang = gang_of(Layout(ulysses=ulysses, ring=ring))
    for name in ("full", "resca", "taylorseer"):
        for latents in gang.run(latents_of, name, SAMPLING, torch.bfloat16):
            assert difference(latents, name, SAMPLING, torch.bfloat16) < BFLOAT16_BOUND, name


def test_nothing_stays_cached_once_the_latents_are_there():
    renderer = Renderer(build_tiny_pipeline(), None, {"template": "{}", "crop_start": 0})
    renderer.pipeline.set_progress_bar_config(disable=True)
    engine = renderer.use(recipe("resca", **METHODS["resca"]))
    prompt = renderer.encode("a cat walks on grass")
    first, second = (renderer.denoise(prompt, SAMPLING) for _ in range(2))
    assert engine.generation is None and engine.cache_bytes == 0 < engine.peak_cache_bytes
    assert engine.dense_steps + engine.sparse_steps == SAMPLING.steps and renderer.flops(prompt, SAMPLING)[0] > 0
    assert torch.equal(first, second)


def test_the_methods_differ_so_that_their_agreement_means_something():
    cached = latents_of_one_process("resca", SAMPLING, torch.float32)
    assert difference(cached, "full", SAMPLING) > 1e-3


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("ulysses", "ring"), LARGE_LAYOUTS)
def test_many_ranks_sample_the_latents_of_one_process(gang_of, ulysses, ring):
    check(gang_of(Layout(ulysses=ulysses, ring=ring)), ODD, ("full", "resca", "toca"))
