"""A denoising loop that is stopped anywhere goes on in a new process, on any layout, to the same bits."""

import json
import logging

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler, UniPCMultistepScheduler

from caching.recipe.recipe import recipe
from caching.snapshot import STATE_VERSION
from jobs.errors import BadInput
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.renderer import Renderer, Sampling
from jobs.store.open import open_storage
from tests.jobs.tiny_model import SIZE, build_tiny_pipeline

SAMPLING = Sampling(seed=3, **SIZE, steps=10, guidance=6.0)
METHODS = {
    "full": {},
    "resca": {"interval": 3, "clusters": 16},
    "taylorseer": {"interval": 3},
    "duca": {"interval": 3, "ratio": 0.5},
    "delta-dit": {},
}


class Stopped(Exception):
    pass


def stop_after(steps):
    """Told of the progress, ends the loop after some steps of ten."""

    def on_progress(part):
        if round(10 * part) == steps:
            raise Stopped

    return on_progress


def sample(name, checkpoints=None, *, stop=None, group=None, dtype=torch.float32, scheduler=None):
    """Final latents by a renderer and a model that are new."""
    pipeline = build_tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    if scheduler is not None:
        pipeline.scheduler = scheduler
    for parameter in pipeline.transformer.parameters():  # weights that make every block matter
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    renderer = Renderer(pipeline.to(dtype), group, {"template": "{}", "crop_start": 0})
    renderer.use(recipe(name, **METHODS[name]))
    return renderer.denoise(renderer.encode("a cat walks on grass"), SAMPLING, stop_after(stop), checkpoints)


def checkpoints_in(folder, *, every=1, fingerprint="x"):
    return Checkpoints(open_storage(folder.parent), folder.name, every, fingerprint)


def stopped(name, folder, steps, **others):
    """What is left in the folder of a loop that was stopped after so many steps."""
    with pytest.raises(Stopped):
        sample(name, checkpoints_in(folder), stop=steps, **others)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("name", METHODS)
def test_a_loop_that_was_stopped_goes_on_to_the_same_bits(tmp_path, name):
    expected = sample(name)
    for steps in (2, 5, 9):
        stopped(name, tmp_path / str(steps), steps)
        checkpoints = checkpoints_in(tmp_path / str(steps))
        assert torch.equal(sample(name, checkpoints), expected)
        assert 1 <= checkpoints.resumed_step <= steps


@pytest.mark.parametrize("name", ["full", "resca", "taylorseer"])
def test_so_does_one_in_bfloat16(tmp_path, name):
    stopped(name, tmp_path, 5, dtype=torch.bfloat16)
    checkpoints = checkpoints_in(tmp_path)
    latents = sample(name, checkpoints, dtype=torch.bfloat16)
    assert checkpoints.resumed_step and torch.equal(latents, sample(name, dtype=torch.bfloat16))


def test_one_that_is_stopped_again_and_again_ends_too(tmp_path):
    resumed = []
    for steps in range(1, 10):
        checkpoints = checkpoints_in(tmp_path)
        with pytest.raises(Stopped):
            sample("full", checkpoints, stop=steps)
        resumed.append(checkpoints.resumed_step)
    assert resumed == list(range(9))
    assert torch.equal(sample("full", checkpoints_in(tmp_path)), sample("full"))


def test_nothing_changes_for_a_loop_that_is_not_stopped(tmp_path):
    assert torch.equal(sample("resca", checkpoints_in(tmp_path)), sample("resca"))


def test_they_may_lie_in_an_object_store(bucket, tmp_path):
    def checkpoints():
        return Checkpoints(open_storage(f"{bucket}/{tmp_path.name}"), "checkpoints/0000", 1, "x")

    with pytest.raises(Stopped):
        sample("resca", checkpoints(), stop=5)
    storage, again = open_storage(f"{bucket}/{tmp_path.name}"), checkpoints()
    assert storage.folders("checkpoints") == {"0000"}
    assert torch.equal(sample("resca", again), sample("resca")) and again.resumed_step == 4
    assert len(storage.folder("checkpoints/0000")) == 2
    again.discard()
    assert storage.folders("checkpoints") == set()


def test_one_is_written_every_so_many_dense_steps_and_only_the_last_is_kept(tmp_path):
    seen = []

    class Watched(Checkpoints):
        def step_done(self, *given):
            super().step_done(*given)
            seen.append(names(tmp_path / "video") if (tmp_path / "video").exists() else [])

    watched = Watched(open_storage(tmp_path), "video", 2, "x")
    sample("taylorseer", watched)  # dense are the steps 1, 4, 7 and 10, with which it ends
    written = ["step-000004.json", "step-000004.rank-0.safetensors"]
    assert seen == [[]] * 3 + [written] * 7
    assert 0 < watched.saved_bytes < (tmp_path / "video" / written[1]).stat().st_size
    seen.clear()
    sample("full", Watched(open_storage(tmp_path), "video", 3, "y"))
    assert [content[0] for content in seen] == [f"step-00000{step}.json" for step in (4, 4, 3, 3, 3, 6, 6, 6, 9, 9)]
    assert all(len(content) == 2 for content in seen)


def test_discarding_leaves_nothing_of_theirs(tmp_path):
    folder = tmp_path / "video"
    stopped("full", folder, 3)
    (folder / ".step-000009.rank-1").mkdir()
    (folder / ".step-000009.rank-1" / "part").write_bytes(b"torn")
    checkpoints_in(folder).discard()
    assert not folder.exists()
    stopped("full", folder, 3)
    (folder / "other.txt").write_text("mine")
    checkpoints_in(folder).discard()
    checkpoints_in(folder).discard()
    assert names(folder) == ["other.txt"]


def starts_anew(folder, caplog, said, **changes):
    """Whether a loop says that the checkpoint is of no use, and still ends as it should."""
    checkpoints = checkpoints_in(folder, **changes)
    with caplog.at_level(logging.WARNING):
        latents = sample("resca", checkpoints)
    return checkpoints.resumed_step == 0 and said in caplog.text and torch.equal(latents, sample("resca"))


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def tear(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(("suffix", "harm"), [("safetensors", flip), ("safetensors", tear), ("json", tear)])
def test_a_damaged_checkpoint_is_not_used(tmp_path, caplog, suffix, harm):
    stopped("resca", tmp_path, 5)
    (path,) = tmp_path.glob(f"*.{suffix}")
    harm(path)
    assert starts_anew(tmp_path, caplog, "is not used")


def test_one_without_its_file_is_not_used(tmp_path, caplog):
    stopped("resca", tmp_path, 5)
    next(tmp_path.glob("*.safetensors")).unlink()
    assert starts_anew(tmp_path, caplog, "No such file")


def test_one_without_its_marker_does_not_count(tmp_path, caplog):
    stopped("resca", tmp_path, 5)
    next(tmp_path.glob("*.json")).unlink()
    assert starts_anew(tmp_path, caplog, "")


def test_one_of_another_fingerprint_is_not_used_and_removed_in_time(tmp_path, caplog):
    stopped("resca", tmp_path, 9)
    assert starts_anew(tmp_path, caplog, "another fingerprint", fingerprint="y")
    assert names(tmp_path) == ["step-000007.json", "step-000007.rank-0.safetensors"]
    assert json.loads((tmp_path / "step-000007.json").read_text())["conditions"]["fingerprint"] == "y"


def versions(**changes):
    return {"torch": torch.__version__, "diffusers": diffusers.__version__, "caching": str(STATE_VERSION)} | changes


def test_it_is_tied_to_the_version_of_the_state_and_not_to_the_source_of_caching(tmp_path):
    stopped("resca", tmp_path, 5)
    (path,) = tmp_path.glob("*.json")
    assert json.loads(path.read_text())["conditions"]["versions"] == versions()


@pytest.mark.parametrize(
    ("condition", "value"),
    [
        ("layout", "2x1"),
        ("device", "abacus"),
        ("versions", versions(torch="1.0")),
        ("versions", versions(caching=str(STATE_VERSION + 1))),
    ],
)
def test_one_of_other_conditions_is_not_used(tmp_path, caplog, condition, value):
    stopped("resca", tmp_path, 5)
    (path,) = tmp_path.glob("*.json")
    marker = json.loads(path.read_text())
    marker["conditions"][condition] = value
    path.write_text(json.dumps(marker))
    assert starts_anew(tmp_path, caplog, f"another {condition}")


def test_where_they_cannot_be_written_the_video_is_made_all_the_same(tmp_path, caplog):
    (tmp_path / "file").write_text("not a directory")
    assert starts_anew(tmp_path / "file" / "folder", caplog, "could not be written")


def test_they_are_written_every_one_or_more_dense_steps(tmp_path):
    with pytest.raises(ValueError, match="1 or more dense steps"):
        checkpoints_in(tmp_path, every=0)


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(stochastic_sampling=True),
        FlowMatchHeunDiscreteScheduler(),
    ],
    ids=["stochastic", "unknown"],
)
def test_a_scheduler_that_cannot_go_on_is_refused(tmp_path, scheduler):
    with pytest.raises(BadInput, match="checkpoints need the scheduler"):
        sample("full", checkpoints_in(tmp_path), scheduler=scheduler)


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, solver_order=3),
    ],
    ids=["karras", "multistep"],
)
def test_a_loop_goes_on_with_what_its_scheduler_keeps_and_with_levels_of_the_whole(tmp_path, scheduler):
    expected = sample("full", scheduler=scheduler)
    for steps in (1, 2, 6, 9):
        stopped("full", tmp_path / str(steps), steps, scheduler=scheduler)
        checkpoints = checkpoints_in(tmp_path / str(steps))
        assert torch.equal(sample("full", checkpoints, scheduler=scheduler), expected)
        assert checkpoints.resumed_step == steps
    assert torch.equal(sample("full", scheduler=scheduler), expected)
