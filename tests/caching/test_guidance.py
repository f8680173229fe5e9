"""Steps of several passes: what belongs to a pass, what to the step, and pipelines as they guide."""

from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from diffusers import WanPipeline
from torch.testing import assert_close

from caching.engine import Engine
from caching.recipe.recipe import RECIPES, Recipe, Taylor, recipe
from caching.recipe.schedule import Places
from tests.caching.conftest import SMALL_RECIPES
from tests.caching.models.test_wan import GRID, make_pipeline, make_transformer
from tests.caching.test_engine import with_interval
from tests.caching.test_snapshot import stored_and_read

STEPS = 9
NAMES = sorted(set(RECIPES) - {"full"})
LEVELS = [1 - step / STEPS for step in range(STEPS)]


@pytest.fixture
def pipeline() -> WanPipeline:
    return make_pipeline()


def generate(pipeline, grid=GRID, **options):
    """Guided latents of 9 frames of 64 x 96 pixels, or of another grid."""
    generator, (frames, height, width) = torch.Generator().manual_seed(1), grid
    return pipeline(
        prompt_embeds=torch.randn(1, 5, 16, generator=generator),
        negative_prompt_embeds=torch.randn(1, 3, 16, generator=generator),
        latents=torch.randn(1, 4, frames, 2 * height, 2 * width, generator=generator),
        height=16 * height,
        width=16 * width,
        num_frames=4 * frames - 3,
        **{"guidance_scale": 5.0, "num_inference_steps": STEPS, **options},
        output_type="latent",
        return_dict=False,
    )[0]


def cached(pipeline, method: Recipe, grid=GRID, **options):
    engine = Engine([pipeline.transformer, *([pipeline.transformer_2] if pipeline.transformer_2 else [])], method)
    pipeline.scheduler.set_timesteps(STEPS)
    engine.begin(grid, pipeline.scheduler.sigmas[:-1].tolist())
    try:
        return generate(pipeline, grid, **options), engine
    finally:
        engine.detach()


@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_full_is_the_pipeline_to_the_bit(pipeline, scale):
    expected = generate(pipeline, guidance_scale=scale)
    latents, engine = cached(pipeline, RECIPES["full"], guidance_scale=scale)
    assert torch.equal(latents, expected)
    assert engine.step == STEPS and engine.dense_steps == STEPS
    assert torch.equal(generate(pipeline, guidance_scale=scale), expected)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"t-gate"}))
def test_every_recipe_is_guided_by_two_passes_that_do_not_meet(pipeline, name):
    """Each pass gives what it would give alone for the latents that guidance leads to."""
    of_their_own = ("teacache", "tomesd", "steps")
    method = RECIPES[name] if name in of_their_own else with_interval(name, 3)
    steps = method.schedule.num_steps(STEPS)
    generator = torch.Generator().manual_seed(1)
    latents = [torch.randn(1, 4, 3, 8, 12, generator=generator) for _ in range(steps)]
    text = {
        pass_name: torch.randn(1, length, 16, generator=generator) for pass_name, length in (("cond", 5), ("un", 3))
    }

    def velocities(names):
        engine = Engine(pipeline.transformer, method)
        engine.begin(GRID, LEVELS[:steps], decide=lambda clock: known or clock)
        found = {each: [] for each in names}
        for step in range(steps):
            for each in names:
                with engine.of_pass(each), torch.no_grad():
                    given = {"timestep": torch.tensor([1000 * LEVELS[step]]), "encoder_hidden_states": text[each]}
                    found[each].append(engine.forward(latents[step], **given).sample)
        clock = Places(dense=tuple(step for step, dense in enumerate(engine.dense) if dense)).start(steps)
        engine.detach()
        return found, clock

    known = None
    both, known = velocities(["cond", "un"])
    for each in both:  # alone it could decide otherwise
        assert all(map(torch.equal, both[each], velocities([each])[0][each])), each


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"steps"}))
def test_every_recipe_detaches_and_takes_another_size(pipeline, name):
    expected = generate(pipeline)
    for grid in (GRID, (2, 3, 5)):
        latents, _ = cached(pipeline, SMALL_RECIPES[name], grid)
        assert latents.isfinite().all()
    assert torch.equal(generate(pipeline), expected)


def test_without_names_the_timestep_tells_steps_apart(pipeline):
    expected, _ = cached(pipeline, with_interval("taylorseer", 3))
    engine = Engine(pipeline.transformer, with_interval("taylorseer", 3))
    pipeline.scheduler.set_timesteps(STEPS)
    engine.begin(GRID, pipeline.scheduler.sigmas[:-1].tolist())
    engine.attachments[0].transformer.cache_context = lambda *_, **__: nullcontext()
    assert torch.equal(generate(pipeline), expected)
    assert list(engine.generation.passes) == ["pass 0", "pass 1"]


def test_a_pass_that_was_not_there_at_the_last_dense_step_is_computed(pipeline):
    """As with a guidance interval: the second pass comes at step 2, leaves, and comes again at step 5."""
    engine = Engine(pipeline.transformer, Recipe(name="x", schedule=Places(dense=(0, 4)), predictor=Taylor(order=0)))
    engine.begin(GRID, LEVELS)
    blocks = []
    pipeline.transformer.blocks[0].register_forward_hook(lambda *_: blocks.append(1))
    given = {"encoder_hidden_states": torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))}
    computed = []
    for step, names in enumerate(["c", "c", "cu", "cu", "c", "cu", "cu"]):
        for name in names:
            blocks.clear()
            with engine.of_pass(name), torch.no_grad():
                engine.forward(torch.randn(1, 4, 3, 8, 12), timestep=torch.tensor([float(step)]), **given)
            computed.extend([(step, name)] * len(blocks))
    assert computed == [(0, "c"), (2, "u"), (4, "c"), (5, "u")]
    assert engine.dense == [True, False, False, False, True, False, False]


def t_gate_by_hand(transformer, latents, texts, gate):
    """The velocities of both passes in each step, by hooks on the bare model."""
    outputs = {name: {} for name in texts}  # of the cross-attention of each block, in the last guided step

    def velocity(step, name, hook):
        attentions = enumerate(block.attn2 for block in transformer.blocks)
        hooks = [each.register_forward_hook(partial(hook, place)) for place, each in attentions]
        with torch.no_grad():
            found = transformer(latents[step], torch.tensor([1000 * LEVELS[step]]), texts[name]).sample
        for each in hooks:
            each.remove()
        return found

    def note(name, place, _module, _inputs, output):
        outputs[name][place] = output

    def mean(place, *_):
        return (outputs["cond"][place] + outputs["uncond"][place]) / 2

    guided = [{name: velocity(step, name, partial(note, name)) for name in texts} for step in range(gate)]
    return [*guided, *(dict.fromkeys(texts, velocity(step, "cond", mean)) for step in range(gate, STEPS))]


def test_t_gate_averages_what_both_passes_see_in_the_text_and_then_makes_one_pass_for_both():
    transformer, generator = make_transformer(), torch.Generator().manual_seed(1)
    latents = torch.randn(STEPS, 1, 4, 3, 8, 12, generator=generator)
    texts = {name: torch.randn(1, length, 16, generator=generator) for name, length in (("cond", 5), ("uncond", 3))}
    expected, blocks = t_gate_by_hand(transformer, latents, texts, gate=4), []
    transformer.blocks[0].register_forward_hook(lambda *_: blocks.append(1))
    engine = Engine(transformer, recipe("t-gate"))
    engine.begin(GRID, LEVELS)
    for step, velocities in enumerate(expected):
        for name, velocity in velocities.items():
            with engine.of_pass(name), torch.no_grad():
                given = {"timestep": torch.tensor([1000 * LEVELS[step]]), "encoder_hidden_states": texts[name]}
                assert_close(engine.forward(latents[step], **given).sample, velocity)
    assert engine.dense_steps == 4 and len(blocks) == 4 + STEPS
    assert engine.cache_bytes == 4 * 72 * 24 * len(transformer.blocks)  # of both passes together


def test_after_the_gate_a_pass_that_comes_late_costs_nothing_either():
    """As with a guidance interval that begins after the gate."""
    engine = Engine(make_transformer(), recipe("t-gate"))
    engine.begin(GRID, LEVELS)
    text = torch.randn(1, 5, 16, generator=torch.Generator().manual_seed(1))
    for step, names in enumerate(["c", "c", "c", "c", "c", "cu", "cu"]):
        given = {"timestep": torch.tensor([1000 * LEVELS[step]]), "encoder_hidden_states": text}
        sample, answers = torch.randn(1, 4, 3, 8, 12), []
        for name in names:
            with engine.of_pass(name), torch.no_grad():
                answers.append(engine.forward(sample, **given).sample)
        assert all(torch.equal(answers[0], each) for each in answers)
    assert engine.dense_steps == 4


def test_without_guidance_t_gate_reuses_the_cross_attention_of_its_pass(pipeline):
    expected, _ = cached(pipeline, replace(RECIPES["t-gate"], feature="cross_attention"), guidance_scale=1.0)
    assert torch.equal(cached(pipeline, RECIPES["t-gate"], guidance_scale=1.0)[0], expected)


@pytest.mark.parametrize("name", ["full", "taylorseer", "resca"])
def test_a_second_model_begins_with_a_dense_step_and_without_what_the_first_one_kept(name):
    pipeline = make_pipeline(boundary_ratio=0.6)
    plain = generate(pipeline)
    latents, engine = cached(pipeline, with_interval(name, 3) if name != "full" else RECIPES[name])
    switch = sum(level >= 0.6 for level in engine.times)
    assert switch % 3 and engine.dense[switch]
    assert torch.equal(latents, plain) is (name == "full")
    assert_close(latents, plain, rtol=1, atol=1)


@pytest.mark.parametrize("name", ["taylorseer", "resca", "duca", "chipmunk", "auto", "t-gate"])
def test_a_guided_generation_goes_on_from_its_snapshot(name):
    transformer, method = make_transformer(), with_interval(name, 3)
    texts = torch.randn(2, 1, 5, 16, generator=torch.Generator().manual_seed(1))

    def go_on(engine, latents, until):
        while engine.step < until:
            level, following = [*LEVELS, 0.0][engine.step : engine.step + 2]
            velocities = []
            for pass_name, text in zip(("cond", "uncond"), texts, strict=True):
                with engine.of_pass(pass_name), torch.no_grad():
                    given = {"timestep": torch.tensor([1000 * level]), "encoder_hidden_states": text}
                    velocities.append(engine.forward(latents, **given).sample)
            cond, uncond = velocities
            latents = latents + (following - level) * (uncond + 5 * (cond - uncond))
        return latents

    def begun():
        engine = Engine(transformer, method)
        engine.begin(GRID, LEVELS)
        return engine

    engine, start = begun(), torch.randn(1, 4, 3, 8, 12, generator=torch.Generator().manual_seed(2))
    expected = go_on(engine, start, STEPS)
    engine.detach()
    for step in range(1, STEPS):
        first = begun()
        snapshot = stored_and_read(first.snapshot(go_on(first, start, step)))
        first.detach()
        second = begun()
        assert torch.equal(go_on(second, second.restore(snapshot)[0], STEPS), expected)
        second.detach()


@pytest.mark.parametrize("name", ["full", "taylorseer", "resca", "t-gate"])
def test_a_doubled_batch_is_two_passes(name):
    transformer = make_transformer()
    method = RECIPES["full"] if name == "full" else with_interval(name, 3)
    generator = torch.Generator().manual_seed(1)
    latents, texts = torch.randn(STEPS, 1, 4, 3, 8, 12, generator=generator), torch.randn(2, 5, 16, generator=generator)

    def velocities(batched):
        engine = Engine(transformer, method)
        engine.begin(GRID, LEVELS, batched=2 if batched else 1)
        found = []
        for step in range(STEPS):
            sample, timestep = latents[step].repeat(2, 1, 1, 1, 1), torch.tensor([1000 * LEVELS[step]] * 2)
            rows = [slice(0, 2)] if batched else [slice(0, 1), slice(1, 2)]
            with torch.no_grad():
                given = [{"timestep": timestep[row], "encoder_hidden_states": texts[row]} for row in rows]
                answers = [transformer(sample[row], **each).sample for row, each in zip(rows, given, strict=True)]
            found.append(torch.cat(answers))
        engine.detach()
        return found

    batched, apart = velocities(True), velocities(False)
    if name != "full":
        assert all(map(torch.equal, batched, apart))
    else:  # Nothing is kept, so the batch stays together, as it is without the engine.
        assert_close(batched, apart)
        with torch.no_grad():
            plain = transformer(latents[0].repeat(2, 1, 1, 1, 1), torch.tensor([1000.0] * 2), texts).sample
        assert torch.equal(batched[0], plain)
