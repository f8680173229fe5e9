"""PixArt through the same engine: cross-attention with masks, epsilon and a variance, the batch doubled."""

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DPMSolverMultistepScheduler, PixArtAlphaPipeline, PixArtTransformer2DModel
from torch.testing import assert_close

from caching.engine import Engine
from caching.recipe.recipe import RECIPES, recipe
from tests.caching.models.images import GRID, STEPS, cached, distance, short, with_weights

NAMES = sorted(set(RECIPES) - {"full", "steps"})
CONFIG = dict(
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=4,
    out_channels=8,
    num_layers=3,
    cross_attention_dim=24,
    caption_channels=16,
    sample_size=16,
    patch_size=2,
    norm_type="ada_norm_single",
)
MASKS = torch.tensor([[1.0] * 3 + [0.0] * 4, [1.0] * 5 + [0.0] * 2])  # of the negative prompt, and of the prompt


def make_transformer(**settings: Any) -> PixArtTransformer2DModel:
    torch.manual_seed(0)
    return with_weights(PixArtTransformer2DModel(**{**CONFIG, **settings}))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pipeline():
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    make: Any = PixArtAlphaPipeline  # its annotations want a text encoder, which encoded prompts do not need
    scheduler = DPMSolverMultistepScheduler(beta_end=0.002)  # noise that a model without training does not blow up
    made = make(None, None, vae, make_transformer(), scheduler)
    made.set_progress_bar_config(disable=True)
    return made


def generate(pipeline):
    """Guided latents of `GRID` tokens."""
    generator = torch.Generator().manual_seed(1)
    negative, prompt = torch.randn(2, 1, 7, 16, generator=generator)
    return pipeline(
        negative_prompt=None,
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        prompt_attention_mask=MASKS[1:],
        negative_prompt_attention_mask=MASKS[:1],
        latents=torch.randn(1, 4, 16, 16, generator=generator),
        height=16,
        width=16,
        guidance_scale=1.5,
        num_inference_steps=STEPS,
        use_resolution_binning=False,
        output_type="latent",
    ).images


def test_full_is_the_pipeline_to_the_bit_whatever_the_lengths_of_prompts(pipeline):
    expected = generate(pipeline)
    latents, engine = cached(pipeline, generate, recipe("full"))
    assert torch.equal(latents, expected)
    assert engine.dense_steps == STEPS
    assert torch.equal(generate(pipeline), expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_full_sampling_with_dense_steps_only_and_else_comes_near_it(pipeline, name):
    full = generate(pipeline)
    assert distance(cached(pipeline, generate, short(name, 1))[0], full) < 1e-5
    latents, engine = cached(pipeline, generate, short(name, 3))
    assert 1e-6 < distance(latents, full) < 0.5
    assert engine.sparse_steps and torch.equal(generate(pipeline), full)


def test_a_dense_step_parts_what_the_model_is_told_of_the_size():
    """Which is a dictionary of tensors, a row for each member of the batch."""
    transformer = make_transformer(use_additional_conditions=True)
    generator = torch.Generator().manual_seed(1)
    latents, texts = torch.randn(2, 4, 16, 16, generator=generator), torch.randn(2, 7, 16, generator=generator)
    sizes = {"resolution": torch.tensor([[16.0, 16.0], [32.0, 8.0]]), "aspect_ratio": torch.tensor([[1.0], [4.0]])}
    given = dict(timestep=torch.tensor([700, 700]), added_cond_kwargs=sizes)
    texts = dict(encoder_hidden_states=texts, encoder_attention_mask=MASKS)
    with torch.no_grad():
        expected = transformer(latents, **texts, **given).sample
        engine = Engine(transformer, short("taylorseer", 3))
        engine.begin(GRID, [1.0, 0.5], batched=2)
        assert_close(engine.forward(latents, **texts, **given).sample, expected)
