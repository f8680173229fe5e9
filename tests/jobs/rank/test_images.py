"""Images through the renderer: the plain pipeline's to the bit, by every recipe, from a checkpoint, in 16 bits."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from caching.recipe.recipe import RECIPES, recipe
from jobs.__main__ import main
from jobs.models.facts import read_facts
from jobs.models.family import Sampling
from jobs.models.registry import family_of
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.load import load_pipeline
from jobs.rank.memory import MemoryPlanner, Setting, models_at
from jobs.rank.renderer import Renderer
from jobs.store.open import open_storage
from parallel.layout import Layout
from tests.caching.conftest import SMALL_RECIPES
from tests.jobs.tiny_images import FRAMES, LENGTH, TINY, save_tiny_image_model, size_of

STEPS = 9
SETTINGS = {"taylorseer": {"interval": 3}, "resca": {"interval": 3, "clusters": 8}}
TEMPLATE: Any = {"max_sequence_length": LENGTH}
NEGATIVE = "blurry grass"
PROMPTS = {**dict.fromkeys(TINY, "a cat walks on grass"), "dit": "cock"}
OF_PIXART = ("pixart-alpha", "pixart-sigma")
GUIDED = {name: {"guidance": 1.5} for name in TINY} | {"flux": {"guidance": 3.5, "true_cfg_scale": 4.0}}
UNGUIDED = {name: {"guidance": 1.0} for name in TINY} | {"flux": {"guidance": 3.5}}
# Alpha is Sigma with a few inputs more.
ONE_OF_A_KIND = [pytest.param(name, marks=pytest.mark.slow if name == "pixart-alpha" else ()) for name in TINY]


def sampling_of(name, guides=GUIDED):
    return Sampling(
        seed=3, **size_of(name), num_frames=FRAMES.get(name, 1), steps=STEPS, negative_prompt=NEGATIVE, **guides[name]
    )


def renderer_of(name, group=None):
    return Renderer(TINY[name](), group, TEMPLATE)


def encoded(renderer, name, sampling):
    return renderer.encode(PROMPTS[name], renderer.family.negative_prompt(sampling))


def latents_of(group, name, method, checkpoints=None, on_progress=None):
    """Final latents with a method; `group` is None for a single process."""
    renderer, sampling = renderer_of(name, group), sampling_of(name)
    renderer.use(recipe(method, **SETTINGS.get(method, {})))
    return renderer.denoise(encoded(renderer, name, sampling), sampling, on_progress, checkpoints)


def decoded(group, name):
    """The pieces of a rank, as bytes."""
    renderer = renderer_of(name, group)
    return list(renderer.frames(renderer.noise(sampling_of(name))))


def asked(sampling, output_type, *sized):
    """What all pipelines are asked for, and what those that make several sizes are."""
    of_a_size = {name: getattr(sampling, name) for name in sized}
    return of_a_size | {
        "guidance_scale": sampling.guidance,
        "num_inference_steps": sampling.steps,
        "generator": torch.Generator().manual_seed(sampling.seed),
        "output_type": output_type,
    }


SIZED = ("negative_prompt", "height", "width")


def of_flux(pipeline, sampling, output_type):
    return pipeline(
        PROMPTS["flux"],
        true_cfg_scale=sampling.true_cfg_scale or 1.0,
        max_sequence_length=LENGTH,
        **asked(sampling, output_type, *SIZED),
    ).images


def of_pixart(pipeline, sampling, output_type):
    return pipeline(
        PROMPTS["pixart-alpha"],
        max_sequence_length=LENGTH,
        use_resolution_binning=False,
        clean_caption=False,
        **asked(sampling, output_type, *SIZED),
    ).images


def of_dit(pipeline, sampling, output_type):
    return pipeline(
        pipeline.get_label_ids([PROMPTS["dit"]]),
        **asked(sampling, output_type),
    ).images


def of_latte(pipeline, sampling, output_type):
    [frames] = pipeline(
        PROMPTS["latte"],
        video_length=sampling.num_frames,
        clean_caption=False,
        **asked(sampling, output_type, *SIZED),
    ).frames
    return frames


def of_hidream(pipeline, sampling, output_type):
    return pipeline(
        PROMPTS["hidream"],
        max_sequence_length=LENGTH,
        **asked(sampling, output_type, *SIZED),
    ).images


PLAIN: dict[str, Callable[..., Any]] = {"flux": of_flux, "dit": of_dit, "latte": of_latte, "hidream": of_hidream}
PLAIN |= dict.fromkeys(OF_PIXART, of_pixart)


@pytest.mark.parametrize("guides", [GUIDED, UNGUIDED], ids=["guided", "unguided"])
@pytest.mark.parametrize("name", TINY)
def test_full_is_the_plain_pipelines_image_to_the_bit(name, guides):
    renderer, sampling = renderer_of(name), sampling_of(name, guides)
    expected = np.stack([np.asarray(image) for image in PLAIN[name](TINY[name](), sampling, "pil")])
    prompt, engine = encoded(renderer, name, sampling), renderer.use(RECIPES["full"])
    latents = renderer.denoise(prompt, sampling)
    images = renderer.decode(latents)
    assert np.array_equal(images, expected) and images.std() > 5
    assert engine.dense_steps == STEPS and len(prompt.texts) == (2 if guides is GUIDED else 1)
    renderer.release()
    assert torch.equal(renderer.denoise_without_engine(prompt, sampling, STEPS), latents)


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_every_recipe_that_applies_runs_and_detaches(name):
    renderer, sampling = renderer_of(name), sampling_of(name)
    prompt = encoded(renderer, name, sampling)
    full = renderer.denoise_without_engine(prompt, sampling, STEPS)
    applies = [each for each, method in SMALL_RECIPES.items() if applicable(name, method)]
    assert len(applies) > 10
    for each in applies:
        engine = renderer.use(SMALL_RECIPES[each])
        latents = renderer.denoise(prompt, sampling)
        assert ((latents - full).norm() / full.norm()) < 0.6, each
        assert engine.dense_steps
    renderer.release()
    assert torch.equal(renderer.denoise_without_engine(prompt, sampling, STEPS), full)


def applicable(name, method):
    anew = method.tokens is not None and method.tokens.attends_anew
    if anew and name == "latte":
        return False
    return family_of(TINY[name]()).cross_attention or not method.needs_cross_attention


class Stopped(Exception):
    pass


def stop_after(steps):
    def on_progress(part):
        if round(STEPS * part) == steps:
            raise Stopped

    return on_progress


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
@pytest.mark.parametrize("method", ["full", "taylorseer"])
def test_a_loop_that_was_stopped_goes_on_to_the_same_bits(tmp_path, name, method):
    expected = latents_of(None, name, method)
    checkpoints = Checkpoints(open_storage(tmp_path), "one", 1, "x")
    with pytest.raises(Stopped):
        latents_of(None, name, method, checkpoints, stop_after(5))
    assert torch.equal(latents_of(None, name, method, checkpoints), expected)
    assert 1 <= checkpoints.resumed_step <= 5


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_a_model_in_bfloat16_comes_near_to_float32(tmp_path, name):
    directory, latents, sampling = save_tiny_image_model(tmp_path / "model", name), {}, sampling_of(name)
    for dtype in ("float32", "bfloat16"):
        renderer = Renderer(load_pipeline(str(directory), dtype=dtype, device="cpu"), None, TEMPLATE)
        renderer.use(recipe("taylorseer", interval=3))
        latents[dtype] = renderer.denoise(encoded(renderer, name, sampling), sampling)
    assert latents["bfloat16"].dtype == torch.float32
    difference = latents["bfloat16"] - latents["float32"]
    assert 0 < difference.norm() / latents["float32"].norm() < 0.05


def test_noise_levels_of_flux_are_shifted_by_the_size_of_the_whole_image():
    renderer, sampling = renderer_of("flux"), sampling_of("flux")
    small, large = (renderer.noise_levels(replace(sampling, height=side), STEPS) for side in (64, 640))
    assert len(small) == len(large) == STEPS and small[0] == large[0] == 1.0
    assert all(below < above for below, above in zip(small[1:], large[1:], strict=True))


def test_a_velocity_of_flux_is_what_the_loop_goes_by():
    renderer, sampling = renderer_of("flux"), replace(sampling_of("flux"), steps=1)
    prompt, noise = encoded(renderer, "flux", sampling), renderer.noise(sampling)
    moved = renderer.denoise_without_engine(prompt, sampling, 1)
    assert_close(noise - renderer.velocity(noise, 1.0, prompt, sampling), moved)


@pytest.mark.parametrize("name", ONE_OF_A_KIND)
def test_what_a_rank_needs_and_a_loop_costs_is_counted(tmp_path, name):
    """Without weights or values, as of videos."""
    directory, sampling = save_tiny_image_model(tmp_path / "model", name), sampling_of(name)
    models, facts = models_at(directory, torch.float32), read_facts(str(directory))
    assert models is not None
    size = {"height": sampling.height, "width": sampling.width, "num_frames": sampling.num_frames}
    setting = Setting(method=RECIPES["taylorseer"], **size, num_steps=STEPS, layout=Layout(), num_passes=2)
    planner = MemoryPlanner(models, facts, torch.float32)
    assert planner.need(setting).loop > 0
    refusal = planner.refusal(setting, 2**20, slots=1)
    assert refusal is not None and "frames fit" not in refusal
    renderer = renderer_of(name)
    prompt = encoded(renderer, name, sampling)
    one_pass = renderer.encode(PROMPTS[name])
    assert renderer.full_flops(prompt, sampling) == 2 * renderer.full_flops(one_pass, sampling) > 0


def test_a_prompt_of_dit_is_a_class_by_name_or_number_and_nothing_else(tmp_path, capsys):
    model, prompts = save_tiny_image_model(tmp_path / "model", "dit"), tmp_path / "prompts.txt"
    family, index = family_of(TINY["dit"]()), json.loads((model / "model_index.json").read_text())
    assert [family.prompt_obstacle(index, each) for each in ("cock", "Tinca tinca", "0", "7")] == [None] * 4
    renderer = renderer_of("dit")
    assert family.prompt_obstacle({}, "999") is None
    assert family.prompt_obstacle(index, "999") is not None, "a number without a name was not trained"
    numbers = [int(renderer.encode(each).cond.pooled) for each in ("cock", "Tinca tinca", "7", "")]
    assert numbers == [7, 0, 7, 1000]
    prompts.write_text("cock\na hen\n")
    assert main(["plan", str(prompts), "--out", str(tmp_path / "out"), "--model", str(model)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "line 2: 'a hen' is no class of this model: give the name or the number of one" in said
    assert "such as Tinca tinca (0), cock (7)" in said


def test_a_model_that_was_saved_under_an_earlier_class_is_read(tmp_path):
    model = save_tiny_image_model(tmp_path / "model", "dit")
    for file in (model / "model_index.json", model / "transformer" / "config.json"):
        file.write_text(file.read_text().replace('"DiTTransformer2DModel"', '"Transformer2DModel"'))
    assert read_facts(str(model)).side == 64
    loaded = load_pipeline(str(model), dtype="float32", device="cpu")
    assert type(loaded.transformer).__name__ == "DiTTransformer2DModel"
    expected = TINY["dit"]().transformer.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.transformer.state_dict().items())
