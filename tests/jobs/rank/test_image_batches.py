"""From a prompt file to PNG files, with the real command on a real local Ray, on one rank and on two."""

import json
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from cluster.runtime import ray_runtime
from jobs.__main__ import main
from jobs.models.facts import read_facts as facts_of
from jobs.store.mp4 import probe
from jobs.store.png import read_facts
from tests.jobs.rank.test_images import GUIDED, NEGATIVE, PLAIN, PROMPTS, STEPS, sampling_of
from tests.jobs.tiny_images import FRAMES, IMAGES, TINY, save_tiny_image_model, size_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """One for all, which commands use and leave running; two ranks may have to share a core."""
    with ray_runtime(num_cpus=2):
        yield


def command(folder, name, *options):
    """`resca render` of two prompts, the second by another method, guided as in `GUIDED`."""
    prompts, model = folder / "prompts.jsonl", folder / "model"
    if not model.exists():
        save_tiny_image_model(model, name)
    lines = [{"prompt": PROMPTS[name], "id": "one", "seed": 3}, {"prompt": PROMPTS[name], "method": "auto"}]
    prompts.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    negative = {"negative_prompt": NEGATIVE} if "negative_prompt" in facts_of(str(model)).guides else {}
    asked = {"steps": STEPS, **size_of(name), **GUIDED[name], **negative}
    words = [str(word) for key, value in asked.items() for word in (f"--{key.replace('_', '-')}", value)]
    out = ["--out", str(folder / "out"), "--method", "full", "--save-latents", "--checkpoint-every", "2"]
    return ["render", str(prompts), "--model", str(model), *out, *words, *options]


@pytest.mark.parametrize("name", IMAGES)
def test_images_of_one_rank_are_the_plain_pipelines_to_the_bit(tmp_path, name, capsys):
    assert main(command(tmp_path, name)) == 0
    [first, second] = sorted((tmp_path / "out" / "videos").glob("*.png"))
    expected = np.asarray(PLAIN[name](TINY[name](), sampling_of(name), "pil")[0])
    with Image.open(second) as image:  # that with an id
        assert np.array_equal(np.asarray(image), expected)
    said = read_facts(second)
    assert (said["prompt"], said["seed"], said["method"]) == (PROMPTS[name], "3", "full")
    assert read_facts(first)["method"] == "auto" and said["model"] == str(tmp_path / "model")
    sidecar = json.loads(second.with_suffix(".json").read_text())
    assert (sidecar["medium"], sidecar["num_frames"], sidecar["fps"]) == ("image", 1, None)
    assert sidecar["fingerprint"] == said["fingerprint"] and sidecar["dense_steps"] == STEPS
    assert load_file(second.with_suffix(".safetensors"))["latents"].ndim == 4
    check_batch(tmp_path, name, first, capsys)


def check_batch(folder, name, first, capsys):
    """The gallery, the ledger and verification know images, and a rerun renders what is damaged alone."""
    out = folder / "out"
    assert f'"videos/{first.name}"' in (out / "gallery" / "0000.js").read_text()
    capsys.readouterr()
    assert main(["status", str(out), "--verify"]) == 0
    assert "2 images with" in capsys.readouterr().out
    first.write_bytes(first.read_bytes()[:-20])
    assert main(["status", str(out), "--verify"]) == 3
    assert f"damaged or missing: videos/{first.name}" in " ".join(capsys.readouterr().out.split())
    before = {path.name: path.stat().st_mtime_ns for path in first.parent.iterdir()}
    assert main(command(folder, name)) == 0
    after = {path.name: path.stat().st_mtime_ns for path in first.parent.iterdir()}
    assert {path.rpartition(".")[0] for path in before if before[path] != after[path]} == {first.stem}
    assert main(["export", "vbench", str(out), "--to", str(folder / "vbench")]) == 2
    assert "VBench judges videos" in capsys.readouterr().err


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("degree", ["--ulysses=2", "--cfg=2"])
def test_two_ranks_render_the_same_images(tmp_path, name, degree):
    assert main(command(tmp_path, name, degree)) == 0
    expected = np.asarray(PLAIN[name](TINY[name](), sampling_of(name), "pil")[0]).astype(int)
    with Image.open(tmp_path / "out" / "videos" / f"one-{slugged(name)}-s3.png") as image:
        assert np.abs(np.asarray(image).astype(int) - expected).max() <= 1
    sidecar = json.loads((tmp_path / "out" / "videos" / f"one-{slugged(name)}-s3.json").read_text())
    assert sidecar["layout"]["world_size"] == 2


def test_latte_renders_the_plain_pipelines_video_on_one_rank_or_one_a_pass(tmp_path):
    expected = PLAIN["latte"](TINY["latte"](), sampling_of("latte"), "latent")
    for degree in ("--ulysses=1", "--cfg=2"):
        folder = tmp_path / degree
        folder.mkdir()
        assert main(command(folder, "latte", degree)) == 0
        stem = folder / "out" / "videos" / f"one-{slugged('latte')}-s3"
        facts = probe(stem.with_suffix(".mp4"))
        assert (facts.num_frames, facts.height, facts.width, facts.fps) == (FRAMES["latte"], 64, 96, 8)
        latents = load_file(stem.with_suffix(".safetensors"))["latents"][0]
        assert torch.equal(latents, expected) if degree == "--ulysses=1" else True
        torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4)


def slugged(name):
    return PROMPTS[name].replace(" ", "-")
