"""Weights in 8 bits: what they hold, which they are, and that everything works with them as with the same values."""

import weakref
from math import prod

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from caching.engine import Engine
from caching.recipe.recipe import RECIPES, recipe
from jobs.measure.full_pipeline import full_size_models
from jobs.measure.memory import make_row
from jobs.rank.load import load_pipeline
from jobs.rank.memory import Models
from jobs.rank.quantise import RowScales, compile_obstacle, quantise
from jobs.rank.renderer import Renderer
from parallel.sharding import held_bytes
from tests.caching.conftest import GRID, JOINT_RECIPES, make_transformer
from tests.jobs.rank.test_layouts import SAMPLING
from tests.jobs.tiny_model import save_tiny_pipeline
from tests.parallel.small_model import own_bytes

QUANTISED, WHOLE = ("transformer", "text_encoder", "text_encoder_2"), ("vae",)
TEMPLATE = {"template": "{}", "crop_start": 0}
LEVELS = [1 - step / 8 for step in range(8)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


def load(directory, dtype="float32", **options):
    return load_pipeline(str(directory), dtype=dtype, device="cpu", **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_weight_is_rounded_to_four_binary_digits_row_by_row(dtype):
    """With one of more than two hundred times the others in a row of its own; and a row without any values."""
    weight = torch.randn(6, 512, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1e-3], [1], [200]] * 2)
    weight[4] = 0
    weight = weight.to(dtype)
    kept = RowScales(dtype)
    numbers, scales = kept.right_inverse(weight)
    assert (numbers.dtype, scales.dtype, scales.shape) == (torch.float8_e4m3fn, dtype, (6, 1))
    again = kept(numbers, scales)
    assert again.dtype == dtype and again[4].count_nonzero() == 0
    near_zero = weight.abs().amax(1, keepdim=True) * 2**-14  # where float8 has fewer digits
    error = (again - weight).abs().float()
    assert (error <= (weight.abs() * 0.07 + near_zero).float()).all()
    assert 0.01 < error.norm() / weight.float().norm() < 0.04


def test_blocks_are_quantised_but_for_embedders_norms_and_modulation(directory):
    pipeline = load(directory, fp8=True)
    names = {name for name, part in pipeline.transformer.named_modules() if parametrize.is_parametrized(part)}
    single, double = "single_transformer_blocks.1.", "transformer_blocks.0."
    assert {f"{single}attn.to_q", f"{single}proj_mlp", f"{single}proj_out", f"{double}ff.net.2"} <= names
    assert all(name.startswith(("single_transformer_blocks.", "transformer_blocks.")) for name in names)
    assert not [name for name in names if "norm" in name]
    encoders = pipeline.text_encoder, pipeline.text_encoder_2
    assert all(parametrize.is_parametrized(part) for each in encoders for part in linears(each))
    assert not any(parametrize.is_parametrized(part) for part in pipeline.vae.modules())
    assert pipeline.transformer.dtype == pipeline.text_encoder.dtype == torch.float32


def linears(model):
    return [part for part in model.modules() if isinstance(part, nn.Linear)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loaded_weights_are_those_of_the_whole_model_quantised(directory, dtype):
    pipeline, expected = load(directory, dtype, fp8=True), load(directory, dtype)
    for name in QUANTISED:
        quantise(getattr(expected, name))
    for name in (*QUANTISED, *WHOLE):
        ours, theirs = (getattr(each, name).state_dict() for each in (pipeline, expected))
        assert ours.keys() == theirs.keys()
        for key, value in ours.items():
            assert value.dtype == theirs[key].dtype and torch.equal(value.float(), theirs[key].float()), key


def test_one_weight_at_a_time_is_there_as_it_was_stored(directory, monkeypatch):
    right_inverse, seen = RowScales.right_inverse, []

    def watched(self, weight):
        assert not [each for each in seen if each() is not None]
        seen.append(weakref.ref(weight))
        return right_inverse(self, weight)

    monkeypatch.setattr(RowScales, "right_inverse", watched)
    pipeline = load(directory, fp8=True)
    num_layers = sum(map(parametrize.is_parametrized, pipeline.transformer.modules()))
    assert len([each for each in seen if each() is None]) > 2 * num_layers


@pytest.mark.parametrize("name", JOINT_RECIPES)
def test_every_method_samples_what_it_samples_with_the_same_values_in_full(name):
    quantised, whole = both()
    assert torch.equal(*(velocities(model, name) for model in (quantised, whole)))


@pytest.mark.slow
def test_blocks_are_compiled_with_what_makes_their_weights():
    """Without a break: they are compiled as whole graphs."""
    quantised, whole = both()
    expected = velocities(whole, "full")
    assert (velocities(quantised, "full", "inductor") - expected).norm() / expected.norm() < 1e-5


def both():
    """A transformer with weights in 8 bits, and one with the same values in full."""
    quantised, whole = make_transformer(), make_transformer()
    for model in (quantised, whole):
        quantise(model)
    for layer in [part for part in whole.modules() if parametrize.is_parametrized(part)]:
        parametrize.remove_parametrizations(layer, "weight")
    return quantised, whole


def velocities(model, name, compiler=None):
    """Of every step, for noise that does not change."""
    engine = Engine(model, RECIPES[name], compiler=compiler)
    engine.begin(GRID, LEVELS)
    with torch.inference_mode():
        inputs = engine.adapter.example_inputs(9, torch.device("cpu"))
        noise = torch.randn(1, prod(GRID), engine.adapter.patch_values, generator=torch.Generator().manual_seed(1))
        return torch.cat([engine.forward(noise, **inputs).sample for _ in LEVELS])


def test_an_offloaded_pipeline_samples_the_same(directory):
    latents = []
    for offload in (False, True):
        renderer = Renderer(load(directory, offload=offload, fp8=True), template=TEMPLATE)
        renderer.use(recipe("auto"))
        latents.append(renderer.denoise(renderer.encode("a cat walks"), SAMPLING))
    assert torch.equal(*latents)


def test_the_planner_counts_the_bytes_that_loaded_models_have(directory):
    pipeline, models = load(directory, "bfloat16", fp8=True), models_of(load(directory, "bfloat16"))
    row = make_row(models.in_fp8, 1)
    assert row["transformer_bytes"] == own_bytes(pipeline.transformer) < own_bytes(models.transformers[0])
    assert row["text_bytes"] == own_bytes(pipeline.text_encoder) + own_bytes(pipeline.text_encoder_2)
    assert row["vae_bytes"] == own_bytes(pipeline.vae)


def models_of(pipeline):
    encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
    return Models(transformers=[pipeline.transformer], text_encoders=encoders, vae=pipeline.vae, text_tokens=256)


def test_a_byte_a_weight_and_a_scale_a_row_at_full_size():
    models = full_size_models("hunyuanvideo")
    [whole], [quantised] = models.transformers, models.in_fp8.transformers
    kept = [part.parametrizations.weight for part in quantised.modules() if parametrize.is_parametrized(part)]
    saved = sum(scheme.original0.numel() - 2 * len(scheme.original0) for scheme in kept)
    assert held_bytes(whole) - held_bytes(quantised) == saved
    assert 0.55 < held_bytes(quantised) / held_bytes(whole) < 0.65


def test_older_gpus_do_not_compile_what_makes_weights(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert compile_obstacle(torch.device("cuda:0")) == ("compiled blocks need a GPU of Ada, Hopper or later, not A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert compile_obstacle(torch.device("cuda:0")) is compile_obstacle(torch.device("cpu")) is None
