"""The same latents for a seed on any layout: real gloo ranks, the real xfuser code, the real pipeline loop."""

import pytest
import torch

from caching.recipe import recipe
from jobs.pipeline import Prompt, Renderer, Sampling
from parallel.layout import Layout
from tests.jobs.tiny_model import SIZE, build_tiny_pipeline
from tests.parallel.gang import Gang

METHODS = {
    "full": {},
    "resca": {"interval": 3, "clusters": 16},
    "taylorseer": {"interval": 3},
    "toca": {"interval": 3, "ratio": 0.5},
    "duca": {"interval": 3, "ratio": 0.5, "score": "similarity:min"},
    "clusca": {"interval": 3},
    "tomesd": {},
}
SAMPLING = Sampling(seed=3, **SIZE, steps=10, guidance=6.0)
ODD = Sampling(seed=3, height=48, width=48, num_frames=9, steps=10, guidance=6.0)  # 27 tokens


def latents_of(group, name, sampling=SAMPLING):
    """Final latents with a method; `group` is None for a single process."""
    pipeline = build_tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    for parameter in pipeline.transformer.parameters():  # weights that make every block matter
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(parameter.numel()))
    renderer = Renderer(pipeline, group, {"template": "{}", "crop_start": 0})
    prompt = renderer.encode("a cat walks on grass")
    renderer.use(recipe(name, **METHODS[name]))
    return renderer.denoise(Prompt(tokens=prompt.tokens, pooled=prompt.pooled), sampling)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("layout", "sampling"),
    [
        (Layout(ulysses=2), SAMPLING),
        (Layout(ring=2), SAMPLING),
        (Layout(ring=3), SAMPLING),
        (Layout(ulysses=2, ring=2), ODD),
    ],
    ids=["2x1", "1x2", "1x3", "2x2-odd"],
)
def test_ranks_sample_the_latents_of_one_process(layout, sampling, tmp_path):
    with Gang(layout, tmp_path) as gang:
        for name in METHODS:
            expected = latents_of(None, name, sampling)
            for latents in gang.run(latents_of, name, sampling):
                difference = (latents - expected).norm() / expected.norm()
                assert difference < 1e-4, f"{name}: {difference:.1e}"
    full, cached = latents_of(None, "full"), latents_of(None, "resca")
    assert (full - cached).norm() / full.norm() > 1e-3  # the methods do differ, so their agreement means something
