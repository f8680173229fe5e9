"""HunyuanVideo guided by a negative prompt, beside the scale that is embedded: two passes a step."""

import pytest
import torch

from caching.recipe.recipe import RECIPES, recipe
from jobs.rank.renderer import Renderer, Sampling
from tests.jobs.tiny_model import SIZE, build_tiny_pipeline

TEMPLATE = {"template": "{}", "crop_start": 0}
SAMPLING = Sampling(seed=3, **SIZE, steps=8, guidance=6.0, true_cfg_scale=3.0, negative_prompt="grass")


@pytest.fixture
def renderer() -> Renderer:
    pipeline = build_tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    return Renderer(pipeline, None, TEMPLATE)


def test_full_is_the_plain_pipeline_to_the_bit(renderer):
    expected = renderer.pipeline(
        prompt="a cat walks",
        negative_prompt="grass",
        prompt_template=TEMPLATE,
        latents=torch.randn(1, 16, 4, 4, 6, generator=torch.Generator().manual_seed(3)),
        **SIZE,
        num_inference_steps=8,
        guidance_scale=6.0,
        true_cfg_scale=3.0,
        output_type="latent",
        return_dict=False,
    )[0]
    prompt = renderer.encode("a cat walks", renderer.family.negative_prompt(SAMPLING))
    assert prompt.cond.num_tokens > prompt.uncond.num_tokens
    renderer.use(RECIPES["full"])
    latents = renderer.denoise(prompt, SAMPLING)
    assert (latents - expected).norm() / expected.norm() < 1e-5  # padding is masked there, and cut off here
    alone = Sampling(seed=3, **SIZE, steps=8, guidance=6.0)
    unguided = renderer.denoise(renderer.encode("a cat walks"), alone)
    assert (unguided - expected).norm() / expected.norm() > 1e-3


def test_flops_are_those_of_each_text(renderer):
    prompt = renderer.encode("a cat walks", "grass")
    renderer.use(recipe("taylorseer", interval=4))
    renderer.denoise(prompt, SAMPLING)
    texts = [renderer.full_flops(renderer.encode(text), SAMPLING) for text in ("a cat walks", "grass")]
    flops, flops_full = renderer.flops(prompt, SAMPLING)
    assert flops_full == sum(texts) and texts[0] > texts[1]
    assert 2 / 8 < flops / flops_full < 1


def test_what_the_bare_model_says_is_guided_too(renderer):
    def velocity(*texts):
        return renderer.velocity(latents, 0.5, renderer.encode(*texts), SAMPLING)

    latents = torch.randn(1, 16, 4, 4, 6)
    cond, uncond = velocity("a cat walks"), velocity("grass")
    assert torch.equal(velocity("a cat walks", "grass"), uncond + 3.0 * (cond - uncond))
