"""The revision of a local model: what decides its pixels, and nothing else."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from caching.recipe.schedule import Interval
from jobs.driver.batch_plan import make_plan
from jobs.errors import BadInput
from jobs.models.facts import read_facts
from jobs.options.batch import RenderOptions
from jobs.options.shared import VideoOptions
from jobs.store.items import BatchSettings
from jobs.store.known import survey
from tests.jobs.models.test_facts import make_model, safetensors
from tests.jobs.store.example import finish


@pytest.fixture
def model(tmp_path) -> Path:
    return make_model(tmp_path / "m", {"num_attention_heads": 4}, height=64, width=64, num_frames=5)


def revision(model: Path, **options) -> str:
    return read_facts(str(model), **options).revision


def test_files_that_decide_no_pixel_do_not_count(model):
    before = revision(model)
    for name in ("notes.txt", "videos/batch.json", ".cache/huggingface/x.json", "transformer/notes.txt", "vae/old.bin"):
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("{}")
    (model / "transformer/diffusion_pytorch_model.fp16.safetensors").write_bytes(safetensors(w="F16"))
    assert revision(model) == before
    assert revision(model, variant="fp16") != before


@pytest.mark.parametrize(
    "name",
    [
        "model_index.json",
        "resca.json",
        "vae/config.json",
        "tokenizer/tokenizer.json",
        "scheduler/scheduler_config.json",
    ],
)
def test_files_that_decide_pixels_count(model, name):
    before = revision(model)
    text = json.loads((model / name).read_text())
    (model / name).write_text(json.dumps(text, indent=7) + " ")
    assert revision(model) != before


def test_the_demo_model_has_the_revision_that_it_always_had():
    assert read_facts("demo").revision == read_facts("demo").earlier_revision


def test_a_batch_that_an_earlier_version_has_finished_stays_finished(model, tmp_path):
    """Earlier versions counted all files in the model's directory, such as notes."""
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    (model / "notes.txt").write_text("mine")
    options = RenderOptions(prompts=tmp_path / "prompts.txt", out=str(tmp_path / "out"), model=str(model))
    plan = make_plan(options)
    assert plan.facts.revision != plan.facts.earlier_revision
    then = BatchSettings(**{**dict(plan.settings), "revision": plan.facts.earlier_revision})
    finish(then, plan.items[0])
    assert not make_plan(options).todo
    other = RenderOptions(**{**vars(options), "video": VideoOptions(seed=7)})
    with pytest.raises(BadInput, match=r"other settings .seed 0 -> 7, revision"):
        make_plan(other)


@pytest.mark.parametrize("of_old_revision", [False, True])
def test_a_batch_in_bfloat16_whose_vae_was_in_bfloat16_too_stays_finished(model, tmp_path, of_old_revision):
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    (model / "notes.txt").write_text("mine")
    options = RenderOptions(prompts=tmp_path / "prompts.txt", out=str(tmp_path / "out"), model=str(model))
    options = RenderOptions(**{**vars(options), "video": VideoOptions(dtype="bfloat16")})
    plan = make_plan(options)
    assert plan.settings.deciding(plan.items[0])["vae_dtype"] == "float16"
    revision = plan.facts.earlier_revision if of_old_revision else plan.facts.revision
    finish(BatchSettings(**{**dict(plan.settings), "vae_dtype": None, "revision": revision}), plan.items[0])
    assert not make_plan(options).todo


@pytest.mark.parametrize(("steps", "stays"), [(50, True), (30, False)])
def test_a_batch_of_auto_in_intervals_stays_finished_where_these_reach_the_last_step_but_one(
    model, tmp_path, steps, stays
):
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    options = RenderOptions(prompts=tmp_path / "prompts.txt", out=str(tmp_path / "out"), model=str(model))
    options = RenderOptions(**{**vars(options), "video": VideoOptions(steps=steps)})
    plan = make_plan(options)
    in_intervals = replace(plan.settings.method, schedule=Interval(every=6))
    finish(BatchSettings(**{**dict(plan.settings), "method": in_intervals}), plan.items[0])
    if stays:
        assert not make_plan(options).todo
    else:
        with pytest.raises(BadInput, match="other settings"):
            make_plan(options)


def test_a_batch_of_pab_in_plain_intervals_stays_finished_where_attention_is_of_one_kind(model, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    options = RenderOptions(prompts=tmp_path / "prompts.txt", out=str(tmp_path / "out"), model=str(model), method="pab")
    plan = make_plan(options)
    in_intervals = replace(plan.settings.method, schedule=Interval(every=2, first=8, last=7))
    finish(BatchSettings(**{**dict(plan.settings), "method": in_intervals}), plan.items[0])
    assert not make_plan(options).todo


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_where_the_vae_has_the_models_format_fingerprints_are_as_they_were(model, tmp_path, dtype):
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    video = VideoOptions(dtype=dtype)
    out = str(tmp_path / "out")
    plan = make_plan(RenderOptions(prompts=tmp_path / "prompts.txt", out=out, model=str(model), video=video))
    assert "vae_dtype" not in plan.settings.deciding(plan.items[0])


def test_a_variant_decides_and_no_variant_leaves_fingerprints_as_they_were(model, tmp_path):
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    plan = make_plan(RenderOptions(prompts=tmp_path / "prompts.txt", out=str(tmp_path / "out"), model=str(model)))
    item = plan.items[0]
    assert "variant" not in plan.settings.deciding(item)
    finish(plan.settings, item)
    of_variant = BatchSettings(**{**dict(plan.settings), "variant": "fp16"})
    assert list(survey(plan.storage, of_variant, plan.items).changed) == [item.id]
