"""Which gangs a batch can take: those that have loaded what it would load, whatever it asks of them."""

from dataclasses import replace

import pytest

from caching.recipe.recipe import RECIPES
from cluster.placement import GangSpec
from jobs.__main__ import main
from jobs.driver.warm import key_of
from jobs.rank.workload import RenderWorkload
from parallel.layout import Layout
from tests.jobs.store.example import settings

LAYOUT = Layout(ulysses=2)
SPEC = GangSpec(world_size=2, together=2)


def key(spec=SPEC, cpus="auto", layout=LAYOUT, of_gang=(), **asked):
    workload = RenderWorkload(settings=settings("out", **asked), prompt_template=None, layout=layout)
    return key_of(replace(workload, **dict(of_gang)), spec, cpus)


@pytest.mark.parametrize(
    "asked",
    [
        {"method": RECIPES["resca"], "methods": {"own": RECIPES["auto"]}},
        {"fps": 24, "guidance": 1.5, "negative_prompt": "blurry", "save_latents": True},
        {"of_gang": {"deadline_s": 5.0, "checkpoint_every": 3}},
        {"spec": replace(SPEC, start_timeout_s=5.0, silence_s=5.0, num_cpus_per_rank=7)},
    ],
)
def test_what_a_batch_asks_for_by_itself_does_not_count(asked):
    assert key(**asked) == key()


@pytest.mark.parametrize(
    "asked",
    [
        *({"revision": "def"}, {"dtype": "bfloat16"}, {"vae_dtype": "float32"}, {"variant": "fp16"}),
        *({"attention": "sage"}, {"weights": "fp8"}, {"model": "other"}),
        *({"of_gang": {name: True}} for name in ("compiled", "shard_weights", "offload", "own_code")),
        *({"of_gang": {"engine": "deepspeed"}}, {"of_gang": {"prompt_template": {"template": "{}"}}}),
        *({"layout": Layout(ring=2)}, {"cpus": 4}, {"spec": replace(SPEC, together=1)}),
        *({"spec": replace(SPEC, env={"A": "b"})}, {"spec": replace(SPEC, num_gpus_per_rank=1)}),
    ],
    ids=str,
)
def test_what_sessions_load_counts(asked):
    assert key(**asked) != key()


def test_a_key_can_be_read():
    assert key(model="owner/Some-Model").startswith("owner-some-model-")


def test_gangs_cannot_outlive_a_ray_that_ends_with_the_batch(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    assert main(["render", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out"), "--keep-warm", "5"]) == 2
    assert "resca: --keep-warm needs a Ray that stays: start one (ray start --head)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
