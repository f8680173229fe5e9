"""Every recipe on every family, on a GPU that is not there: where it computes, in what, and what the host waits for."""

from collections.abc import Collection

import pytest
import torch

from caching.recipe.recipe import RECIPES
from tests.caching.conftest import JOINT_RECIPES
from tests.caching.steps import Sight, see_family

# Where the host may wait for the device in a step, and why.
WAITS = {
    "caching.text.count_text": "once a prompt: how long it is decides shapes",
    "caching.text.has_values": "once a prompt: whether there is an image decides shapes",
    "caching.passes._input_change": "TeaCache decides by it whether the step is dense",
    "caching.predict.rate.expected": "EasyCache decides by it whether the step is dense",
}
# What may come from the host in a step, and why.
COPIES = {
    "caching.proxies.trajectory._random": "once a video: the same random matrix on every device",
}
# What is computed in float32 where the model is in bfloat16, and why.
FLOAT32 = {
    "caching.features.merging.keep_best": "likeness of tokens, by which they are matched",
    "caching.features.merging.merge_most_alike": "likeness of tokens, by which they are matched",
    "caching.features.selection._similarity": "likeness of tokens, by which they are chosen",
    "caching.features.selection.own_attention": "scores, which add up over layers",
    "caching.features.selection.prompt_attention": "scores, which add up over layers",
    "caching.features.columns._logits": "attention that is split and put together again",
    "caching.medoids._assign": "likeness of tokens, by which they are clustered",
    "caching.medoids._begin": "likeness of tokens, by which they are clustered",
    "caching.medoids._exchange": "likeness of tokens, by which they are clustered",
    "caching.medoids._update": "likeness of tokens, by which they are clustered",
    "caching.proxies.context.bias": "counts of tokens, beyond what bfloat16 can count",
    "caching.proxies.trajectory._sketched": "directions of tokens, of which likeness is made",
}
QUICK = {
    "hunyuanvideo": ["auto", "chipmunk", "delta-dit", "full", "resca", "teacache", "toca"],
    "hunyuanvideo-1.5": ["resca"],
    "flux": ["resca"],
    "wan": ["t-gate"],
}


def cases():
    for family in QUICK:
        for name in sorted(RECIPES) if family == "wan" else JOINT_RECIPES:
            for dtype in (torch.bfloat16, torch.float32):
                quick = name in QUICK[family] and (dtype == torch.bfloat16 or name == "resca")
                marks = () if quick else pytest.mark.slow
                format_name = str(dtype).removeprefix("torch.")
                yield pytest.param(family, name, dtype, id=f"{family}-{name}-{format_name}", marks=marks)


@pytest.mark.parametrize(("family", "name", "dtype"), cases())
def test_a_recipe_stays_on_the_device_and_keeps_the_number_format(fake_cuda, family, name, dtype):
    sight = fake_cuda.run(see_family, family, name, dtype)
    has_sparse = RECIPES[name].schedule.has_sparse_steps
    assert {step.dense for step in sight.steps} == ({True, False} if has_sparse else {True})
    check(sight, dtype)


def check(sight: Sight, dtype: torch.dtype, copies: Collection[str] = ()) -> None:
    """Steps that stay on the device, and wait and copy only where there is a reason to."""
    for step in sight.steps:
        assert step.output == {("cuda", "float32")}, "velocities have the number format of the latents"
        assert not step.on_host
        assert step.reads.keys() <= WAITS.keys()
        assert step.copies.keys() <= {*COPIES, *copies}
        assert dtype == torch.float32 or step.float32.keys() <= FLOAT32.keys()
    assert {device for device, _ in sight.kept} <= {"cuda"}
