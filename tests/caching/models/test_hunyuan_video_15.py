"""HunyuanVideo 1.5 through the same engine: latents with a first frame beside them, three texts, a guider."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from caching.engine import Engine
from caching.flops import count_flops
from caching.recipe.recipe import RECIPES, ProxyTaylor, Recipe
from caching.recipe.schedule import Places
from caching.recipe.tokens import TrajectoryMedoids
from tests.caching.conftest import JOINT_RECIPES, SMALL_RECIPES
from tests.caching.test_engine import with_interval
from tests.caching.test_snapshot import stored_and_read

GRID = (3, 4, 6)
STEPS = 8
LEVELS = [1 - step / STEPS for step in range(STEPS)]
NAMES = sorted(set(JOINT_RECIPES) - {"full"})
CONFIG = dict(
    in_channels=9,
    out_channels=4,
    num_attention_heads=2,
    attention_head_dim=12,
    num_layers=3,
    num_refiner_layers=1,
    text_embed_dim=16,
    text_embed_2_dim=10,
    image_embed_dim=6,
    rope_axes_dim=(4, 4, 4),
    task_type="t2v",
)


def make_transformer(**settings: Any) -> HunyuanVideo15Transformer3DModel:
    torch.manual_seed(0)
    transformer = HunyuanVideo15Transformer3DModel(**{**CONFIG, **settings})
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return transformer.eval()


@pytest.fixture
def transformer():
    return make_transformer()


def make_pipeline(transformer, **guidance: Any) -> HunyuanVideo15Pipeline:
    make: Any = HunyuanVideo15Pipeline  # its annotations want text encoders, which an encoded prompt does not need
    vae = AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(4, 4, 4, 4, 4),
        layers_per_block=1,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    made = make(
        text_encoder=None,
        tokenizer=None,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        text_encoder_2=None,
        tokenizer_2=None,
        guider=ClassifierFreeGuidance(**{"guidance_scale": 6.0, **guidance}),
    )
    made.vision_num_semantic_tokens = 0
    made.set_progress_bar_config(disable=True)
    return made


def mask_of(kept: int, length: int) -> torch.Tensor:
    return (torch.arange(length) < kept)[None].float()


def texts(prompt: int = 5, padded: int = 9, glyphs: int = 0) -> dict[str, torch.Tensor]:
    """Embedded texts with so many tokens, the prompt among as many as it is padded to, glyphs among 4."""
    generator = torch.Generator().manual_seed(prompt)
    return {
        "prompt_embeds": torch.randn(1, padded, 16, generator=generator),
        "prompt_embeds_mask": mask_of(prompt, padded),
        "prompt_embeds_2": torch.randn(1, 4, 10, generator=generator),
        "prompt_embeds_mask_2": mask_of(glyphs, 4),
    }


def generate(pipeline, grid=GRID, **options):
    """Latents of a prompt and of a negative one, both of as many tokens as there is room for.

    Nothing is masked: where the engine leaves tokens out, a CPU may round the sums over the others in another way.
    """
    generator, (frames, height, width) = torch.Generator().manual_seed(1), grid
    negative = {f"negative_{name}": value for name, value in texts(8, 8, glyphs=4).items()}
    return pipeline(
        **texts(9, 9, glyphs=4),
        **negative,
        latents=torch.randn(1, 4, frames, height, width, generator=generator),
        height=16 * height,
        width=16 * width,
        num_frames=4 * frames - 3,
        num_inference_steps=STEPS,
        output_type="latent",
        **options,
    ).frames


def cached(pipeline, method: Recipe, grid=GRID, **options):
    engine = Engine(pipeline.transformer, method)
    engine.begin(grid, LEVELS)
    try:
        return generate(pipeline, grid=grid, **options), engine
    finally:
        engine.detach()


def inputs_of(level: float, *, image: bool = False, **lengths: int) -> dict[str, torch.Tensor]:
    """What the pipeline hands the transformer beside the latents."""
    names = "encoder_hidden_states", "encoder_attention_mask", "encoder_hidden_states_2", "encoder_attention_mask_2"
    named = dict(zip(names, texts(**lengths).values(), strict=True))
    generator = torch.Generator().manual_seed(3)
    embedded = torch.randn(1, 5, 6, generator=generator)
    return {**named, "timestep": torch.tensor([1000 * level]), "image_embeds": embedded if image else 0 * embedded}


def latents_and_condition() -> torch.Tensor:
    return torch.randn(1, 9, *GRID, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "guidance",
    [{}, {"stop": 0.5}, {"start": 0.25}, {"enabled": False}, {"guidance_scale": 1.0}],
    ids=["guided", "half-way", "later", "distilled", "scale-1"],
)
def test_full_is_the_pipeline_to_the_bit(transformer, guidance):
    pipeline = make_pipeline(transformer, **guidance)
    calls = []
    transformer.transformer_blocks[0].register_forward_hook(lambda *_: calls.append(1))
    expected = generate(pipeline)
    num_calls = len(calls)
    latents, engine = cached(pipeline, RECIPES["full"])
    assert torch.equal(latents, expected)
    assert engine.step == STEPS and len(calls) == 2 * num_calls
    assert torch.equal(generate(pipeline), expected)


@pytest.mark.parametrize("image", [False, True], ids=["text", "image"])
@pytest.mark.parametrize(("prompt", "glyphs"), [(5, 0), (5, 3), (9, 4)])
def test_texts_without_their_padding_give_what_masks_give(transformer, image, prompt, glyphs):
    given, sample = inputs_of(0.7, prompt=prompt, glyphs=glyphs, image=image), latents_and_condition()
    engine = Engine(transformer, RECIPES["full"])
    engine.begin(GRID, LEVELS)
    lengths = []
    transformer.transformer_blocks[0].register_forward_hook(lambda _, states, __: lengths.append(states[1].shape[1]))
    with torch.no_grad():
        velocity = engine.forward(sample, **given).sample
        engine.detach()
        assert_close(velocity, transformer(sample, **given).sample, rtol=1e-5, atol=1e-5)
    assert lengths[0] == prompt + glyphs + 5 * image


def test_what_is_kept_of_a_text_need_not_come_first(transformer):
    given, sample = inputs_of(0.7), latents_and_condition()
    given["encoder_attention_mask"] = torch.tensor([[0.0, 1, 1, 0, 1, 0, 0, 0, 1]])
    engine = Engine(transformer, RECIPES["full"])
    engine.begin(GRID, LEVELS)
    with torch.no_grad():
        velocity = engine.forward(sample, **given).sample
        engine.detach()
        assert_close(velocity, transformer(sample, **given).sample, rtol=1e-5, atol=1e-5)


def test_a_model_that_jumps_is_told_until_when():
    transformer = make_transformer(use_meanflow=True)
    nothing_masked = inputs_of(0.7, prompt=9, glyphs=4, image=True)
    given, sample = nothing_masked | {"timestep_r": torch.tensor([300.0])}, latents_and_condition()
    engine = Engine(transformer, RECIPES["full"])
    engine.begin(GRID, LEVELS)
    with torch.no_grad():
        velocity = engine.forward(sample, **given).sample
        other = engine.forward(sample, **(given | {"timestep_r": torch.tensor([200.0])})).sample
        engine.detach()
        assert torch.equal(velocity, transformer(sample, **given).sample)
    assert not torch.equal(velocity, other)


def test_in_bfloat16_neighbouring_times_differ(transformer):
    engine = Engine(transformer.bfloat16(), RECIPES["full"])
    engine.begin(GRID, LEVELS)
    given = {name: value.bfloat16() for name, value in inputs_of(0.7).items()}
    times = [torch.tensor([time]) for time in (700.0, 701.0)]
    with torch.no_grad():
        one, other = (engine.forward(latents_and_condition(), **(given | {"timestep": time})).sample for time in times)
    assert one.dtype == torch.float32 and not torch.equal(one, other)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"steps"}))
def test_every_recipe_detaches_and_takes_another_size(transformer, name):
    pipeline = make_pipeline(transformer, stop=0.75)
    expected = generate(pipeline)
    for grid in (GRID, (2, 3, 5)):
        latents, _ = cached(pipeline, SMALL_RECIPES[name], grid)
        assert latents.isfinite().all()
    assert torch.equal(generate(pipeline), expected)


@pytest.mark.parametrize("name", ["auto", "delta-dit", "duca", "resca", "taylorseer"])
def test_a_recipe_with_dense_steps_only_is_full_sampling(transformer, name):
    pipeline = make_pipeline(transformer)
    expected, _ = cached(pipeline, RECIPES["full"])
    latents, _ = cached(pipeline, with_interval(name, 1))
    assert torch.equal(latents, expected)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"steps"}))
def test_every_recipe_goes_on_from_its_snapshot(transformer, name):
    method = with_interval(name, 3)

    def go_on(engine, latents, until):
        while engine.step < until:
            level, following = [*LEVELS, 0.0][engine.step : engine.step + 2]
            beside = torch.cat([latents, torch.zeros(1, 5, *GRID)], dim=1)
            velocities = []
            for pass_name, lengths in (("pred_cond", {"prompt": 5, "glyphs": 2}), ("pred_uncond", {"prompt": 3})):
                with engine.of_pass(pass_name), torch.no_grad():
                    velocities.append(engine.forward(beside, **inputs_of(level, **lengths)).sample)
            cond, uncond = velocities
            latents = latents + (following - level) * (uncond + 6 * (cond - uncond))
        return latents

    def begun():
        engine = Engine(transformer, method)
        engine.begin(GRID, LEVELS)
        return engine

    engine, start = begun(), latents_and_condition()[:, :4]
    expected = go_on(engine, start, STEPS)
    engine.detach()
    first = begun()
    snapshot = stored_and_read(first.snapshot(go_on(first, start, 5)))
    first.detach()
    second = begun()
    assert torch.equal(go_on(second, second.restore(snapshot)[0], STEPS), expected)
    second.detach()


def test_a_sparse_step_with_all_tokens_as_proxies_is_a_dense_step(transformer):
    everyone = TrajectoryMedoids(clusters=72, shards=1, context=72, every=1)
    method = Recipe(
        name="resca",
        schedule=Places(dense=(0, 1)),
        tokens=everyone,
        predictor=replace(ProxyTaylor(), order=0, gain=1.0),
    )
    engine = Engine(transformer, method)
    engine.begin(GRID, [0.8, 0.7, 0.7])
    with torch.no_grad():
        given = inputs_of(0.7, glyphs=2)
        _, dense, sparse = (engine.forward(latents_and_condition(), **given).sample for _ in range(3))
    assert_close(sparse, dense, rtol=1e-4, atol=1e-5)


def test_a_step_is_counted_as_the_model_counts(transformer):
    """Of a prompt without padding, glyphs and image; the model's attention is counted as products of matrices."""
    sample, given = latents_and_condition(), inputs_of(0.7, prompt=9)
    given["encoder_hidden_states_2"] = given["encoder_hidden_states_2"][:, :0]
    given["encoder_attention_mask_2"] = given["encoder_attention_mask_2"][:, :0]
    given["image_embeds"] = given["image_embeds"][:, :0]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        transformer(sample, **given)
    config = {**CONFIG, "_class_name": "HunyuanVideo15Transformer3DModel"}
    counted = count_flops(config, RECIPES["full"], grid=GRID, num_text_tokens=9, num_steps=1)
    assert counted == counter.get_total_flops()
