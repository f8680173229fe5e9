"""Wan through the renderer: two passes, a solver with a memory; in 2.2 a second transformer, or levels by token."""

import json
from dataclasses import replace

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from caching.recipe.recipe import RECIPES, recipe
from jobs.__main__ import main
from jobs.models.facts import read_facts
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.load import load_pipeline
from jobs.rank.memory import MemoryPlanner, Setting, models_at
from jobs.rank.offload import taking_turns
from jobs.rank.renderer import Renderer, Sampling
from jobs.store.open import open_storage
from parallel.layout import Layout
from tests.caching.conftest import SMALL_RECIPES
from tests.jobs.tiny_wan import SIZE, SIZES, build_tiny_wan, save_tiny_wan

PROMPT, NEGATIVE = "a cat walks on grass", "blurry grass"
SAMPLING = Sampling(seed=3, **SIZE, steps=9, guidance=5.0, guidance_2=None, negative_prompt=NEGATIVE)
OF_TWO = replace(SAMPLING, guidance_2=3.0)
METHODS = {"taylorseer": {"interval": 3}, "resca": {"interval": 3, "clusters": 8}, "t-gate": {}}


def sampling_of(kind):
    return replace(OF_TWO if kind == "2.2" else SAMPLING, **SIZES[kind])


def renderer_of(kind="2.1", group=None):
    return Renderer(build_tiny_wan(kind), group)


def plain(kind, output_type="latent"):
    """What diffusers' own pipeline gives of the same noise."""
    pipeline, sampling = build_tiny_wan(kind), sampling_of(kind)
    noise = torch.randn(1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(sampling.seed))
    return pipeline(
        prompt=PROMPT,
        negative_prompt=NEGATIVE,
        latents=noise,
        **SIZES[kind],
        num_inference_steps=sampling.steps,
        guidance_scale=sampling.guidance,
        guidance_scale_2=sampling.guidance_2,
        output_type=output_type,
        return_dict=False,
    )[0]


def latents_of(group, name, kind="2.1", checkpoints=None, on_progress=None):
    """Final latents with a method; `group` is None for a single process."""
    renderer = renderer_of(kind, group)
    renderer.use(recipe(name, **METHODS.get(name, {})))
    return renderer.denoise(renderer.encode(PROMPT, NEGATIVE), sampling_of(kind), on_progress, checkpoints)


@pytest.mark.parametrize("kind", SIZES)
def test_full_is_the_plain_pipeline_to_the_bit(kind):
    renderer, sampling, expected = renderer_of(kind), sampling_of(kind), plain(kind)
    prompt = renderer.encode(PROMPT, renderer.family.negative_prompt(sampling))
    engine = renderer.use(RECIPES["full"])
    latents = renderer.denoise(prompt, sampling)
    assert torch.equal(latents, expected) and engine.dense_steps == sampling.steps
    renderer.release()
    assert torch.equal(renderer.denoise_without_engine(prompt, sampling, sampling.steps), expected)
    frames = torch.from_numpy(renderer.decode(latents)).float() / 255
    assert_close(frames, torch.from_numpy(plain(kind, "np")[0]), rtol=0, atol=0.51 / 255)


@pytest.mark.parametrize("kind", ["2.1", pytest.param("ti2v", marks=pytest.mark.slow)])
def test_every_recipe_runs_at_another_size_too_and_detaches(kind):
    renderer, short = renderer_of(kind), replace(sampling_of(kind), steps=6)
    prompt, full = renderer.encode(PROMPT, NEGATIVE), None
    before = renderer.denoise_without_engine(prompt, short, 6)
    for name in ("full", *sorted(RECIPES)):
        renderer.use(SMALL_RECIPES[name])
        latents = renderer.denoise(prompt, short)
        full = latents if full is None else full
        assert ((latents - full).norm() / full.norm()) < 0.3, name
        if name in METHODS:
            other = replace(short, height=2 * short.height, num_frames=5)
            assert renderer.denoise(prompt, other).isfinite().all(), name
    renderer.release()
    assert torch.equal(renderer.denoise_without_engine(prompt, short, 6), before)


def test_flops_are_those_of_both_passes_and_of_the_step_in_which_the_second_model_begins():
    one, two = renderer_of(), renderer_of("2.2")
    prompt = one.encode(PROMPT, NEGATIVE)
    alone = one.encode(PROMPT)
    assert one.full_flops(prompt, SAMPLING) == 2 * one.full_flops(alone, SAMPLING) == two.full_flops(prompt, OF_TWO)
    costs = {}
    for name, renderer, sampling in (("one", one, SAMPLING), ("two", two, OF_TWO)):
        engine = renderer.use(recipe("taylorseer", interval=4))
        renderer.denoise(prompt, sampling)
        costs[name] = engine.dense_steps, renderer.flops(prompt, sampling)[0]
    assert [dense for dense, _ in costs.values()] == [3, 4]
    step = one.full_flops(prompt, SAMPLING) / SAMPLING.steps
    assert 0.8 * step < costs["two"][1] - costs["one"][1] <= step


@pytest.mark.parametrize("kind", ["2.1", "2.2"])
def test_flops_of_t_gate_are_those_of_one_pass_after_the_gate(kind):
    """As they are counted while it runs."""
    renderer, sampling = renderer_of(kind), sampling_of(kind)
    prompt, engine = renderer.encode(PROMPT, NEGATIVE), renderer.use(RECIPES["t-gate"])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):  # the CPU's own is not counted
        renderer.denoise(prompt, sampling)
    assert engine.dense_steps == (4 if kind == "2.1" else 5)
    assert renderer.flops(prompt, sampling)[0] == counter.get_total_flops()


def test_without_guidance_a_step_is_one_pass():
    renderer, unguided = renderer_of(), Sampling(seed=3, **SIZE, steps=9, guidance=1.0, negative_prompt=NEGATIVE)
    assert renderer.family.negative_prompt(unguided) is None
    renderer.use(RECIPES["full"])
    prompt, calls = renderer.encode(PROMPT), []
    renderer.pipeline.transformer.register_forward_pre_hook(lambda *_: calls.append(1))
    renderer.denoise(prompt, unguided)
    assert len(calls) == 9


class Stopped(Exception):
    pass


def stop_after(steps):
    def on_progress(part):
        if round(9 * part) == steps:
            raise Stopped

    return on_progress


@pytest.mark.parametrize(
    ("name", "kind"), [("full", "2.1"), ("taylorseer", "2.2"), ("resca", "2.2"), ("resca", "ti2v")]
)
def test_a_loop_that_was_stopped_goes_on_to_the_same_bits(tmp_path, name, kind):
    expected = latents_of(None, name, kind)
    for steps in (2, 5, 8):
        checkpoints = Checkpoints(open_storage(tmp_path), str(steps), 1, "x")
        with pytest.raises(Stopped):
            latents_of(None, name, kind, checkpoints, stop_after(steps))
        assert torch.equal(latents_of(None, name, kind, checkpoints), expected)
        assert 1 <= checkpoints.resumed_step <= steps


@pytest.mark.parametrize(("dtype", "kind"), [("float32", "2.1"), ("bfloat16", "2.2"), ("bfloat16", "ti2v")])
def test_models_are_those_of_from_pretrained(tmp_path, dtype, kind):
    directory = save_tiny_wan(tmp_path / "model", kind)
    formats = {"default": getattr(torch, dtype), "vae": torch.float32}
    expected = type(build_tiny_wan()).from_pretrained(directory, dtype=formats)
    loaded = load_pipeline(str(directory), dtype=dtype, device="cpu")
    for name in ("transformer", "transformer_2", "text_encoder", "vae"):
        ours, theirs = getattr(loaded, name), getattr(expected, name)
        assert (ours is None) is (theirs is None) is (name == "transformer_2" and kind != "2.2")
        if ours is not None:
            values = ours.state_dict()
            assert values.keys() == theirs.state_dict().keys()
            for key, value in theirs.state_dict().items():
                assert values[key].dtype == value.dtype and torch.equal(values[key], value), key
    expected.save_pretrained(tmp_path / "again")  # with what stays in float32
    assert read_facts(str(tmp_path / "again")).dtype == dtype


def test_a_model_in_bfloat16_comes_near_to_float32(tmp_path):
    directory, latents = save_tiny_wan(tmp_path / "model", "2.2"), {}
    assert read_facts(str(directory)).guides == {"guidance", "guidance_2", "negative_prompt"}
    for dtype in ("float32", "bfloat16"):
        renderer = Renderer(load_pipeline(str(directory), dtype=dtype, device="cpu"))
        renderer.use(recipe("taylorseer", interval=3))
        latents[dtype] = renderer.denoise(renderer.encode(PROMPT, NEGATIVE), OF_TWO)
    difference = latents["bfloat16"] - latents["float32"]
    assert latents["bfloat16"].dtype == torch.float32
    assert difference.norm() / latents["float32"].norm() < 0.05


def test_of_several_transformers_one_at_a_time_is_on_the_device():
    pipeline, seen = build_tiny_wan("2.2"), []
    models, host = [pipeline.transformer, pipeline.transformer_2], torch.device("cpu")
    for model in models:
        model.register_forward_hook(lambda *_: seen.append([each.device.type for each in models]))
    text, latents = torch.zeros(1, 2, 16, device="meta"), torch.zeros(1, 4, 3, 4, 6, device="meta")
    before = [each.data_ptr() for model in models for each in model.parameters()]
    with taking_turns(models, torch.device("meta")):
        for model in (models[0], models[0], models[1]):
            model(latents, torch.zeros(1, device="meta"), text)
    assert seen == [["meta", "cpu"], ["meta", "cpu"], ["cpu", "meta"]]
    assert all(model.device == host for model in models)
    assert [each.data_ptr() for model in models for each in model.parameters()] == before


def test_both_transformers_count_unless_they_take_turns(tmp_path):
    needs = {}
    for kind in ("2.1", "2.2"):
        directory = save_tiny_wan(tmp_path / kind, kind)
        models = models_at(directory, torch.float32)
        planner = MemoryPlanner(models, read_facts(str(directory)), torch.float32)
        setting = {"method": RECIPES["taylorseer"], **SIZE, "num_steps": 9, "layout": Layout()}
        for offload, passes in ((False, 1), (False, 2), (True, 2)):
            needs[kind, offload, passes] = planner.need(Setting(**setting, offload=offload, num_passes=passes))
    weights = {key: need.weights for key, need in needs.items()}
    transformer = sum(each.nbytes for each in build_tiny_wan().transformer.parameters())
    assert weights["2.2", False, 2] - weights["2.1", False, 2] >= transformer
    assert weights["2.2", True, 2] == weights["2.1", True, 2]
    assert needs["2.1", False, 2].loop > needs["2.1", False, 1].loop


def test_methods_are_compared_on_such_a_model(tmp_path):
    model, prompts, table = save_tiny_wan(tmp_path / "model", "2.2"), tmp_path / "p.txt", tmp_path / "rows.json"
    prompts.write_text(f"{PROMPT}\n")
    size = [str(each) for name, value in SIZE.items() for each in (f"--{name.replace('_', '-')}", value)]
    options = ["--model", str(model), "--prompts", str(prompts), "--num", "1", "--steps", "9", *size]
    compared = ["benchmark", *options, "--methods", "full,taylorseer,t-gate"]
    assert main([*compared, "--json", str(table)]) == 0
    rows = {row["method"]: row for row in json.loads(table.read_text())}
    assert rows["full"]["dense_steps"] == 9 > rows["taylorseer"]["dense_steps"] > 0


def decoded(group, kind="2.1"):
    """The pieces of a rank, of latents that are cut into tiles."""
    renderer = renderer_of(kind, group)
    scale = renderer.pipeline.vae_scale_factor_spatial
    renderer.pipeline.vae.enable_tiling(2 * scale, 2 * scale, scale, scale)
    latents = torch.randn(1, 4, 3, 4, 6, generator=torch.Generator().manual_seed(1))
    return list(renderer.family.decode(renderer.pipeline, latents, renderer.group))


def split(group, directory):
    """Latents in bfloat16, with weights split over the ranks, if there are any; both transformers wait for turns."""
    renderer = Renderer(load_pipeline(str(directory), dtype="bfloat16", device="cpu", ranks=group, offload=True), group)
    renderer.use(recipe("taylorseer", interval=3))
    return renderer.denoise(renderer.encode(PROMPT, NEGATIVE), OF_TWO)
