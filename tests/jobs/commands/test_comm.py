"""`resca comm`, and that what it imagines is what real ranks send."""

import json

import pytest
import torch

from caching.flops import run_on_meta
from caching.models import adapter_for
from caching.recipe.recipe import recipe
from jobs.__main__ import main
from jobs.rank.renderer import Renderer
from parallel.imagined import ImaginedGroup
from parallel.layout import Layout
from tests.jobs.rank.test_layouts import METHODS, SAMPLING, latents_of
from tests.jobs.tiny_model import build_tiny_pipeline
from tests.parallel.gang import Gang

KINDS = ("dense", "sparse")


def sent_by_a_rank(group, name):
    """Rows of the counter of a real sampling; the rank is one of a gang."""
    group.counter.clear()
    latents_of(group, name)
    return group.counter.rows()


def imagined(layout, name):
    renderer = Renderer(build_tiny_pipeline(), template={"template": "{}", "crop_start": 0})
    transformer = renderer.pipeline.transformer
    group, shape = ImaginedGroup(layout), renderer.family.latent_shape(renderer.pipeline, SAMPLING)
    run_on_meta(
        {**transformer.config, "_class_name": type(transformer).__name__},
        recipe(name, **METHODS[name]),
        grid=adapter_for(transformer).grid(torch.empty(shape, device="meta")),
        num_text_tokens=renderer.encode("a cat walks on grass").cond.num_tokens,
        num_steps=SAMPLING.steps,
        group=group,
    )
    return group.counter.rows()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("layout", [Layout(ulysses=2), Layout(ring=2)], ids=["ulysses-2", "ring-2"])
def test_real_ranks_send_what_is_counted_without_them(layout, tmp_path):
    with Gang(layout, tmp_path) as gang:
        for name in ("full", "resca", "taylorseer"):
            expected = [row for row in imagined(layout, name) if row["step"] in KINDS]
            for rows in gang.run(sent_by_a_rank, name):
                assert [row for row in rows if row["step"] in KINDS] == expected
            assert expected[0]["bytes_sent"] > 0


def test_rows_of_a_full_size_model(tmp_path):
    table = tmp_path / "rows.json"
    arguments = "comm --model flux --methods full,fora --interval 3 --steps 3 --ulysses 4"
    assert main([*arguments.split(), "--json", str(table)]) == 0
    full, fora = json.loads(table.read_text())
    image, text = 4096 // 4 * 3072 * 2, 512 * 3072 * 2
    assert full["dense_bytes"] == 57 * 3 * (2 * (image + text) // 4 + 2 * image // 4)
    assert (full["sparse_bytes"], full["total_bytes"]) == (0, 3 * full["dense_bytes"])
    assert (fora["sparse_bytes"], fora["total_bytes"]) == (0, full["dense_bytes"])


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("--ulysses 5", "does not divide the model's 24 attention heads"),
        ("--ring 5000 --ulysses 1", "more than the 4096 tokens"),
        ("--methods chipmunk", "chipmunk works on one rank"),
        ("--steps 0", "--steps must be at least 1"),
    ],
)
def test_bad_input_is_one_sentence(options, complaint, capsys):
    assert main(["comm", "--model", "flux", *options.split()]) == 2
    assert complaint in capsys.readouterr().err
