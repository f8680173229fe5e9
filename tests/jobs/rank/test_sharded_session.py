"""`resca render --shard-weights --offload`, the real command on a real local Ray."""

import pytest
from safetensors.torch import load_file

from caching.recipe.recipe import recipe
from jobs.__main__ import main
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline


@pytest.mark.timeout(300)
def test_split_weights_render_the_latents_of_one_process(tmp_path):
    model = save_tiny_pipeline(tmp_path / "model")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a cat walks on grass\n")
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    arguments = ["render", str(prompts), "--out", str(tmp_path / "out"), "--model", str(model), "--steps", "6", *size]
    arguments += ["--method", "taylorseer", "--ulysses", "2", "--save-latents"]
    assert main([*arguments, "--shard-weights", "--offload"]) == 0
    (path,) = (tmp_path / "out" / "videos").glob("*.safetensors")
    latents = load_file(path)["latents"]

    renderer = Renderer(load_pipeline(str(model), dtype="float32", device="cpu"))
    renderer.use(recipe("taylorseer"))
    sampling = Sampling(seed=0, **SIZE, steps=6, guidance=6.0)
    expected = renderer.denoise(renderer.encode("a cat walks on grass"), sampling)
    assert (latents - expected).norm() / expected.norm() < 1e-5
