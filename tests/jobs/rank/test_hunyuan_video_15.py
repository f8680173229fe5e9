"""HunyuanVideo 1.5 through the renderer: a guider, texts of two encoders, and latents with others beside them."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from caching.recipe.recipe import RECIPES, recipe
from jobs.models.facts import read_facts
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from jobs.store.open import open_storage
from tests.jobs.tiny_hunyuan_video_15 import SIZE, build_tiny_hunyuan_video_15, save_tiny_hunyuan_video_15

PROMPT, NEGATIVE = 'a cat walks on a "sign"', 'blurry "grass"'
SAMPLING = Sampling(seed=3, **SIZE, steps=8, guidance=6.0, negative_prompt=NEGATIVE)
METHODS = {"taylorseer": {"interval": 3}, "resca": {"interval": 3, "clusters": 8}}
GUIDERS = {
    "guided": {},
    "interval": {"start": 0.25, "stop": 0.75},
    "rescaled": {"guidance_rescale": 0.5},
    "distilled": {"enabled": False},
    "scale-1": {"guidance_scale": 1.0},
}


def slow_but(names, quick):
    """Of these names those that are not quick as slow tests."""
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


def renderer_of(group=None, **guidance):
    return Renderer(build_tiny_hunyuan_video_15(**guidance), group)


def encoded(renderer, sampling=SAMPLING):
    return renderer.encode(PROMPT, renderer.family.negative_prompt(sampling))


def latents_of(group, name, checkpoints=None, on_progress=None, **guidance):
    """Final latents with a method; `group` is None for a single process."""
    renderer = renderer_of(group, **guidance)
    renderer.use(recipe(name, **METHODS.get(name, {})))
    return renderer.denoise(encoded(renderer), SAMPLING, on_progress, checkpoints)


def noise():
    return torch.randn(1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(SAMPLING.seed))


def given(prefix, text):
    """An encoded text without padding, as the pipeline takes it."""
    embeds = {"prompt_embeds": text.tokens, "prompt_embeds_2": text.glyphs}
    masks = {name.replace("embeds", "embeds_mask"): each.new_ones(each.shape[:2]) for name, each in embeds.items()}
    return {f"{prefix}{name}": value for name, value in (embeds | masks).items()}


def plain(guidance, **prompt):
    """What diffusers' own pipeline gives of the same noise; no tokens stand for no image."""
    pipeline = build_tiny_hunyuan_video_15(**guidance)
    pipeline.vision_num_semantic_tokens = 0
    steps = SAMPLING.steps
    return pipeline(**prompt, latents=noise(), **SIZE, num_inference_steps=steps, output_type="latent").frames


@pytest.mark.parametrize("name", slow_but(GUIDERS, ["interval", "distilled"]))
def test_full_is_the_plain_pipeline_to_the_bit(name):
    guidance = GUIDERS[name]
    scale = 1.0 if guidance.get("enabled") is False else guidance.get("guidance_scale", 6.0)
    renderer, sampling = renderer_of(**guidance), replace(SAMPLING, guidance=scale)
    prompt = encoded(renderer, sampling)
    assert len(prompt.texts) == (2 if scale > 1 else 1)
    texts = zip(("", "negative_"), prompt.texts, strict=False)
    expected = plain(guidance, **{name: each for prefix, text in texts for name, each in given(prefix, text).items()})
    renderer.use(RECIPES["full"])
    assert torch.equal(renderer.denoise(prompt, sampling), expected)
    renderer.release()
    assert torch.equal(renderer.denoise_without_engine(prompt, sampling, 8), expected)


def test_padding_is_cut_off_and_pixels_are_those_of_the_plain_pipeline():
    renderer = renderer_of()
    prompt = encoded(renderer)
    expected = plain({}, prompt=PROMPT, negative_prompt=NEGATIVE)
    renderer.use(RECIPES["full"])
    latents = renderer.denoise(prompt, SAMPLING)
    assert (latents - expected).norm() / expected.norm() < 1e-5
    pipeline = renderer.pipeline
    with torch.no_grad():
        pixels = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    frames = torch.from_numpy(renderer.decode(latents)).float() / 255
    wanted = pipeline.video_processor.postprocess_video(pixels, output_type="pt")[0].permute(0, 2, 3, 1)
    assert_close(frames, wanted, rtol=0, atol=0.51 / 255)


def test_glyphs_are_what_stands_in_quotes():
    renderer = renderer_of()
    with_glyphs, without = renderer.encode(PROMPT).cond, renderer.encode(PROMPT.replace('"', "")).cond
    assert with_glyphs.glyphs.shape[1] == len('Text "sign". ') + 1 and without.glyphs.shape[1] == 0
    assert with_glyphs.num_tokens == with_glyphs.tokens.shape[1] + with_glyphs.glyphs.shape[1]


def test_the_scale_of_a_video_is_its_own():
    """Also after one that was stopped: the pipeline's guider is not touched."""
    renderer = renderer_of()
    renderer.use(RECIPES["full"])
    prompt, expected = encoded(renderer), latents_of(None, "full")
    with pytest.raises(Stopped):
        renderer.denoise(prompt, replace(SAMPLING, guidance=3.0), stop_after(4))
    assert torch.equal(renderer.denoise(prompt, SAMPLING), expected)
    assert not torch.equal(renderer.denoise(prompt, replace(SAMPLING, guidance=3.0)), expected)
    assert renderer.pipeline.guider.guidance_scale == 6.0 and renderer.pipeline.guider._step is None


@pytest.mark.parametrize("name", slow_but(sorted(set(RECIPES) - {"full", "t-gate"}), METHODS))
def test_every_recipe_runs_at_another_size_too_and_detaches(name):
    renderer, short = renderer_of(), replace(SAMPLING, steps=6)
    prompt = encoded(renderer)
    full = renderer.denoise_without_engine(prompt, short, 6)
    renderer.use(RECIPES[name])
    assert ((renderer.denoise(prompt, short) - full).norm() / full.norm()) < 0.3
    assert renderer.denoise(prompt, replace(short, height=2 * short.height, num_frames=5)).isfinite().all()
    renderer.release()
    assert torch.equal(renderer.denoise_without_engine(prompt, short, 6), full)


class Stopped(Exception):
    pass


def stop_after(steps):
    def on_progress(part):
        if round(8 * part) == steps:
            raise Stopped

    return on_progress


@pytest.mark.parametrize("name", slow_but(["full", *METHODS], ["full", "resca"]))
def test_a_loop_that_was_stopped_goes_on_to_the_same_bits(tmp_path, name):
    guidance = {"stop": 0.5} if name == "full" else {}
    expected = latents_of(None, name, **guidance)
    for steps in (2, 5):
        checkpoints = Checkpoints(open_storage(tmp_path), str(steps), 1, "x")
        with pytest.raises(Stopped):
            latents_of(None, name, checkpoints, stop_after(steps), **guidance)
        assert torch.equal(latents_of(None, name, checkpoints, **guidance), expected)
        assert 1 <= checkpoints.resumed_step <= steps


def test_a_saved_model_is_known_by_its_files_and_loads_in_bfloat16(tmp_path):
    guided = read_facts(str(save_tiny_hunyuan_video_15(tmp_path / "guided")))
    assert (guided.defaults.guidance, guided.guides) == (6.0, {"guidance", "negative_prompt"})
    assert (guided.grid(**SIZE), guided.pixels, guided.defaults.num_frames) == ((3, 4, 6), 16, 121)
    distilled = read_facts(str(save_tiny_hunyuan_video_15(tmp_path / "distilled", enabled=False)))
    assert (distilled.defaults.guidance, distilled.guides) == (1.0, frozenset())
    assert distilled.revision != guided.revision  # by the guider alone
    latents = {}
    for dtype in ("float32", "bfloat16"):
        renderer = Renderer(load_pipeline(guided.source, dtype=dtype, device="cpu"))
        renderer.use(recipe("taylorseer", interval=3))
        prompt = encoded(renderer)
        latents[dtype] = renderer.denoise(prompt, SAMPLING)
        renderer.release()
        assert renderer.denoise_without_engine(prompt, SAMPLING, 8).dtype == torch.float32
        assert renderer.velocity(noise(), 0.5, prompt, SAMPLING).dtype == torch.float32
    assert renderer.pipeline.vae.dtype == torch.float16
    difference = latents["bfloat16"] - latents["float32"]
    assert latents["bfloat16"].dtype == torch.float32 and difference.norm() / latents["float32"].norm() < 0.05


def decoded(group):
    """The pieces of a rank, of latents that are cut into tiles."""
    renderer = renderer_of(group)
    renderer.pipeline.vae.enable_tiling(32, 32, 2, 2, 0.5)
    return list(renderer.family.decode(renderer.pipeline, noise(), renderer.group))
