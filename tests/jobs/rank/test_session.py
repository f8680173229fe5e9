"""From a prompt file to videos, with the real command on a real local Ray."""

import json
from collections.abc import Iterator

import pytest
import torch
from safetensors.torch import load_file

from caching.recipe.recipe import recipe
from cluster.runtime import ray_runtime
from jobs.__main__ import main
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from jobs.store.mp4 import probe
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    """One for all, which commands use and leave running."""
    with ray_runtime():
        yield


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


def render(prompts, out, model, *options):
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    return main(["render", str(prompts), "--out", str(out), "--model", str(model), "--steps", "8", *size, *options])


def test_a_pipeline_of_other_sizes_renders_and_a_rerun_renders_only_what_is_missing(tiny_model, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a cat walks on grass", "id": "cat"}\n{"prompt": "grass", "seed": 5}\n')
    out, table = tmp_path / "out", tmp_path / "rows.json"
    options = ["--method", "resca", "--interval", "3", "--clusters", "8", "--fps", "8", "--save-latents"]
    assert render(prompts, out, tiny_model, *options, "--json", str(table)) == 0
    videos = out / "videos"
    assert sorted(path.name for path in videos.glob("*.mp4")) == [
        "0001-grass-s5.mp4",
        "cat-a-cat-walks-on-grass-s0.mp4",
    ]
    assert not [path for path in videos.iterdir() if path.name.startswith(".")]
    facts = probe(videos / "0001-grass-s5.mp4")
    assert (facts.num_frames, facts.width, facts.height, facts.codec) == (13, 48, 32, "h264")
    check_sidecar(json.loads((videos / "cat-a-cat-walks-on-grass-s0.json").read_text()))
    assert [row["dense_steps"] for row in json.loads(table.read_text())] == [3, 3]
    latents = load_file(videos / "0001-grass-s5.safetensors")["latents"]
    assert latents.shape == (1, 16, 4, 4, 6) and torch.isfinite(latents).all()

    before = {path.name: path.stat().st_mtime_ns for path in videos.iterdir()}
    (videos / "0001-grass-s5.mp4").write_bytes(b"torn")
    assert render(prompts, out, tiny_model, *options) == 0
    after = {path.name: path.stat().st_mtime_ns for path in videos.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {
        f"0001-grass-s5.{kind}" for kind in ("mp4", "json", "safetensors")
    }
    assert torch.equal(load_file(videos / "0001-grass-s5.safetensors")["latents"], latents)


def check_sidecar(sidecar):
    assert (sidecar["dense_steps"], sidecar["sparse_steps"]) == (3, 5)
    assert 3 / 8 < sidecar["flops"] / sidecar["flops_full"] < 1
    assert set(sidecar["seconds"]) == {"encode", "denoise", "decode", "write"}
    assert sidecar["method"]["tokens"]["clusters"] == 8
    assert sidecar["cut_tokens"] == 0
    assert set(sidecar["versions"]) == {"torch", "diffusers", "transformers", "xfuser", "ray"}


def test_split_weights_render_the_latents_of_one_process(tiny_model, tmp_path):
    """`resca render --shard-weights --offload`."""
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat walks on grass\n")
    options = ["--method", "taylorseer", "--ulysses", "2", "--save-latents", "--shard-weights", "--offload"]
    assert render(prompts, tmp_path / "out", tiny_model, *options) == 0
    (path,) = (tmp_path / "out" / "videos").glob("*.safetensors")
    latents = load_file(path)["latents"]

    renderer = Renderer(load_pipeline(str(tiny_model), dtype="float32", device="cpu"))
    renderer.use(recipe("taylorseer"))
    expected = renderer.denoise(
        renderer.encode("a cat walks on grass"), Sampling(seed=0, **SIZE, steps=8, guidance=6.0)
    )
    assert (latents - expected).norm() / expected.norm() < 1e-5


def test_guidance_for_a_model_without_guidance_embedding_is_bad_input(tmp_path, capsys):
    from jobs.demo import PROMPTS_FILE

    assert main(["render", str(PROMPTS_FILE), "--out", str(tmp_path / "out"), "--guidance", "3"]) == 2
    assert "guidance" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
