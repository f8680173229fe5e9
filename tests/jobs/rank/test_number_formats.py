"""Latents, noise levels and timesteps are float32 from the noise to the decoder, whatever the model's number format."""

import pytest
import torch

from caching.recipe.recipe import recipe
from jobs.measure.fidelity import psnr_db
from jobs.models.facts import read_facts
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from tests.jobs.tiny_model import SIZE, build_tiny_pipeline

TEMPLATE = {"template": "{}", "crop_start": 0}
SAMPLING = Sampling(seed=3, **SIZE, steps=50, guidance=6.0)
METHODS = {"full": {}, "auto": {}, "resca": {"clusters": 16}, "taylorseer": {}}


class Watch:
    """What goes through the loop of a tiny pipeline in bfloat16: formats of latents, and the timesteps."""

    def __init__(self):
        self.pipeline = build_tiny_pipeline().to(torch.bfloat16)
        self.pipeline.set_progress_bar_config(disable=True)
        self.renderer = Renderer(self.pipeline, template=TEMPLATE)
        self.prompt = self.renderer.encode("a cat walks on grass")
        self.formats, self.moved, self.timesteps = set(), [], []
        self.step, self.pipeline.scheduler.step = self.pipeline.scheduler.step, self.note_step
        self.pipeline.transformer.register_forward_pre_hook(self.note_call, with_kwargs=True)

    def note_step(self, velocity, timestep, latents, **options):
        after = self.step(velocity, timestep, latents, **options)
        self.formats |= {velocity.dtype, latents.dtype, after[0].dtype}
        self.moved.append(float((after[0] != latents).float().mean()))
        return after

    def note_call(self, _module, _arguments, inputs):
        self.timesteps.append(inputs["timestep"])

    def check(self):
        assert self.formats == {torch.float32} and len(self.moved) == SAMPLING.steps
        assert torch.equal(torch.cat(self.timesteps), self.pipeline.scheduler.timesteps)
        assert min(self.moved) > 0.9  # in bfloat16 a third of the latents do not move in an early step


@pytest.mark.parametrize("name", METHODS)
def test_a_loop_with_an_engine(name):
    watch = Watch()
    watch.renderer.use(recipe(name, **METHODS[name]))
    assert watch.renderer.denoise(watch.prompt, SAMPLING).dtype == torch.float32
    watch.check()


def test_a_loop_without_one():
    watch = Watch()
    assert watch.renderer.denoise_without_engine(watch.prompt, SAMPLING, SAMPLING.steps).dtype == torch.float32
    watch.check()
    assert not watch.pipeline.transformer._forward_hooks


def test_the_trajectory_that_plans_are_fitted_to():
    watch = Watch()
    assert watch.renderer.trajectory(watch.prompt, SAMPLING).dtype == torch.float32
    watch.check()


def test_what_the_bare_model_says_of_a_noise_level():
    watch, levels = Watch(), torch.tensor([0.9971, 0.9961])
    assert (1000 * levels)[0].bfloat16() == (1000 * levels)[1].bfloat16()
    for level in levels.tolist():
        watch.renderer.velocity(torch.zeros(1, 16, 4, 4, 6), level, watch.prompt, SAMPLING)
    assert torch.equal(torch.cat(watch.timesteps), 1000 * levels)


def demo(dtype):
    return Renderer(
        load_pipeline("demo", dtype=dtype, device="cpu"), template=read_facts("demo").defaults.prompt_template
    )


def test_the_demo_model_in_bfloat16_comes_near_to_float32():
    """As both are sampled and decoded; with latents in bfloat16 it comes to less than 50 dB."""
    frames = []
    for dtype in ("float32", "bfloat16"):
        renderer = demo(dtype)
        renderer.use(recipe("full"))
        sampling = Sampling(seed=5, height=64, width=64, num_frames=17, steps=50, guidance=6.0)
        frames.append(renderer.decode(renderer.denoise(renderer.encode("a large red circle moving right"), sampling)))
    assert psnr_db(frames[1], frames[0]) > 50


def test_a_vae_beside_a_model_in_bfloat16_is_in_float16_which_comes_nearer_to_float32():
    exact, half = demo("float32"), demo("bfloat16")
    assert (half.pipeline.transformer.dtype, half.pipeline.vae.dtype) == (torch.bfloat16, torch.float16)
    exact.use(recipe("auto"))
    sampling = Sampling(seed=5, height=64, width=64, num_frames=17, steps=10, guidance=6.0)
    latents = exact.denoise(exact.encode("a large red circle moving right"), sampling)
    expected, in_float16 = exact.decode(latents), half.decode(latents)
    half.pipeline.vae.bfloat16()
    assert psnr_db(in_float16, expected) > psnr_db(half.decode(latents), expected) + 3
