"""A video whose numbers overflow is a failure that says where it began, not a black MP4."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from caching.recipe.recipe import recipe
from cluster.failure import Budgets, Decision, classify, decide
from jobs.models.demos import DEMOS
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.finite import NotFinite
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from jobs.store.open import open_storage
from parallel.layout import Layout
from tests.parallel.gang import Gang

TEMPLATE = {"template": "{}", "crop_start": 0}
SAMPLING = Sampling(seed=0, height=64, width=64, num_frames=5, steps=4, guidance=6.0)
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def overflowing(tmp_path_factory):
    """The demo model with a last layer whose outputs are too large for float16."""
    directory = tmp_path_factory.mktemp("overflow") / "model"
    shutil.copytree(DEMOS["demo"], directory)
    tensors = load_file(directory / WEIGHTS)
    tensors["proj_out.weight"] = tensors["proj_out.weight"].float() * 1e6
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    return directory


def renderer_of(directory, dtype, group=None, method="full"):
    renderer = Renderer(load_pipeline(str(directory), dtype=dtype, device="cpu"), group, TEMPLATE)
    renderer.use(recipe(method))
    return renderer


def refused(renderer, checkpoints=None):
    with pytest.raises(NotFinite) as refused:
        renderer.denoise(renderer.encode("a red ball"), SAMPLING, checkpoints=checkpoints)
    return refused.value


def refusal(renderer, checkpoints=None):
    return str(refused(renderer, checkpoints))


def test_an_overflow_in_float16_names_its_first_step_and_what_helps(overflowing):
    renderer = renderer_of(overflowing, "float16")
    expected = "the latents are, from step 1 of 4 on, not finite in float16: try bfloat16 (--dtype bfloat16)"
    assert refusal(renderer) == expected
    renderer = renderer_of(overflowing, "bfloat16")
    assert torch.isfinite(renderer.denoise(renderer.encode("a red ball"), SAMPLING)).all()


def spoil_step(renderer, number):
    """The transformer gives NaN from its call `number` on."""
    calls = []

    def hook(_module, _arguments, output):
        calls.append(None)
        return (output[0] * float("nan"),) if len(calls) >= number else output

    return renderer.pipeline.transformer.register_forward_hook(hook)


def test_a_later_step_is_named_also_after_a_checkpoint_and_the_next_try_begins_anew(tmp_path):
    renderer = renderer_of(DEMOS["demo"], "float32")
    checkpoints = Checkpoints(open_storage(tmp_path), "checkpoints/one", 1, "x")
    spoil_step(renderer, 3)
    assert "from step 3 of 4 on, not finite in float32" in refusal(renderer, checkpoints)
    assert not (tmp_path / "checkpoints").exists() or not list((tmp_path / "checkpoints").rglob("step-*"))


def test_it_is_final_unless_it_went_on_from_a_checkpoint_that_may_be_the_cause(tmp_path):
    renderer = renderer_of(DEMOS["demo"], "float32")
    checkpoints = Checkpoints(open_storage(tmp_path), "checkpoints/one", 1, "x")
    with pytest.raises(KeyboardInterrupt):
        renderer.denoise(renderer.encode("a red ball"), SAMPLING, stop_after_two_steps, checkpoints)
    spoil_step(renderer, 1)
    first, again = refused(renderer, checkpoints), refused(renderer, checkpoints)
    assert checkpoints.resumed_step == 0 and "from step 3 of 4 on" in str(first)
    assert decide(classify(first), 1, Budgets()) is not Decision.FAIL
    assert "from step 1 of 4 on" in str(again) and decide(classify(again), 1, Budgets()) is Decision.FAIL


def stop_after_two_steps(part):
    if part >= 0.5:
        raise KeyboardInterrupt


def test_an_overflow_of_the_text_encoder_is_told_apart():
    renderer = renderer_of(DEMOS["demo"], "float32")
    with torch.no_grad():
        renderer.pipeline.text_encoder.get_input_embeddings().weight.fill_(float("inf"))
    assert refusal(renderer).startswith("the encoded prompt is not finite in float32")


def test_frames_that_are_not_finite_are_refused_after_the_last():
    renderer = renderer_of(DEMOS["demo"], "float32")
    latents = renderer.denoise(renderer.encode("a red ball"), SAMPLING).clone()
    latents[0, 0, 0, 0, 0] = float("nan")
    pieces, num_frames = renderer.frames(latents), 0
    with pytest.raises(NotFinite, match="the decoded frames are not finite in float32"):
        for piece in pieces:
            num_frames += len(piece)
    assert num_frames == SAMPLING.num_frames


def test_a_vae_in_another_format_than_the_model_is_named_with_what_helps():
    renderer = renderer_of(DEMOS["demo"], "bfloat16")
    latents = torch.full(renderer.family.latent_shape(renderer.pipeline, SAMPLING), float("nan"))
    with pytest.raises(NotFinite, match=r"the decoded frames are not finite in float16: try float32 .--dtype float32"):
        renderer.decode(latents)


def overflow(group, directory):
    renderer = renderer_of(directory, "float32", group)
    if group.rank == 1:
        spoil_step(renderer, 3)
    return refusal(renderer)


@pytest.mark.slow
def test_all_ranks_say_the_same_of_what_one_has_seen(tmp_path):
    with Gang(Layout(ring=2), tmp_path) as gang:
        first, second = gang.run(overflow, DEMOS["demo"])
    assert first == second and "from step 3 of 4 on" in first
