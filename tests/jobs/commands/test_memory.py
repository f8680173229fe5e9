"""`resca memory`, and the host memory that loading takes."""

import ctypes
import gc
import json
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.measure.full_pipeline import full_size_models
from jobs.measure.memory import make_row
from jobs.rank.load import load_pipeline
from parallel.layout import Layout
from tests.jobs.tiny_model import build_tiny_pipeline, save_tiny_pipeline
from tests.parallel.gang import Gang
from tests.parallel.small_model import own_bytes

MODELS = ("transformer", "text_encoder", "text_encoder_2", "vae")
CLEAR_REFS = Path("/proc/self/clear_refs")


def test_the_table_of_the_full_model(tmp_path):
    table = tmp_path / "rows.json"
    assert main(["memory", "--model", "hunyuanvideo", "--json", str(table)]) == 0
    rows = json.loads(table.read_text())
    assert [row["ranks"] for row in rows] == [1, 2, 4, 8]
    one = rows[0]
    assert one["transformer_bytes"] == 2 * 12_821_012_544
    assert one["sharded_bytes"] == one["rank_0_bytes"] and one["gathered_bytes"] == 0
    for row in rows:
        assert row["sharded_bytes"] == row["transformer_bytes"] + row["text_bytes"] + row["vae_bytes"]
        assert row["vae_bytes"] == one["vae_bytes"]
        assert one["sharded_bytes"] / row["ranks"] <= row["sharded_bytes"] < 1.2 * one["sharded_bytes"] / row["ranks"]
        assert (row["rank_0_bytes"], row["others_bytes"]) == (
            one["rank_0_bytes"],
            one["transformer_bytes"] + one["vae_bytes"],
        )


def test_weights_in_8_bits_take_little_more_than_half_split_or_whole(tmp_path):
    table = tmp_path / "rows.json"
    assert main(["memory", "--weights", "fp8", "--json", str(table)]) == 0
    for row in json.loads(table.read_text()):
        whole = 2 * 12_821_012_544 / row["ranks"]
        assert whole / 2 < row["transformer_bytes"] < 0.8 * whole


def test_a_model_without_a_pipeline_is_bad_input(capsys):
    assert main(["memory", "--model", "flux"]) == 2
    assert "model flux has no pipeline here; known: hunyuanvideo" in capsys.readouterr().err


# Parameters of transformers and text encoders, as their authors give them.
@pytest.mark.parametrize(
    ("model", "transformer", "text"),
    [
        ("hunyuanvideo", 12.8e9, 7.6e9),
        ("hunyuanvideo-1.5", 8.3e9, 7.3e9),
        ("wan", 14.3e9, 5.7e9),
        ("wan2.2", 2 * 14.3e9, 5.7e9),
        ("wan2.2-ti2v", 5.0e9, 5.7e9),
    ],
)
def test_full_size_models_are_as_large_as_published(model, transformer, text):
    row = make_row(full_size_models(model), 1)
    assert row["transformer_bytes"] == pytest.approx(2 * transformer, rel=0.02)
    assert row["text_bytes"] == pytest.approx(2 * text, rel=0.05)
    assert 0 < row["vae_bytes"] < 6e9


@pytest.mark.timeout(200)
@pytest.mark.skipif(not CLEAR_REFS.exists(), reason="counts resident pages as Linux does")
def test_loading_takes_hardly_more_host_memory_than_the_weights_that_stay(tmp_path):
    save_tiny_pipeline(tmp_path / "tiny")
    large = save_large_pipeline(tmp_path / "large")
    assert len(list((large / "transformer").glob("*.safetensors"))) > 3
    with Gang(Layout(ring=2), tmp_path) as gang:
        for split in (False, True):
            for dtype in ("float32", "bfloat16"):
                for growth, held in gang.run(growth_while_loading, tmp_path / "tiny", large, dtype, split):
                    assert 0.7 < growth / held < 1.3, f"{dtype}, split {split}: {growth} for {held}"


def save_large_pipeline(directory):
    """A few hundred megabytes in several files."""
    sizes = dict(num_attention_heads=8, attention_head_dim=64, rope_axes_dim=(16, 24, 24))
    pipeline = build_tiny_pipeline(**sizes, num_layers=4, num_single_layers=12)
    pipeline.save_pretrained(directory, max_shard_size="60MB")
    return directory


def growth_while_loading(group, tiny, large, dtype, split):
    """How much the resident memory of this process grew at its peak while it loaded, and the bytes that stay."""
    options = dict(dtype=dtype, device="cpu", ranks=group if split else None)
    load_pipeline(str(tiny), **options)  # whatever is imported on the way
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    CLEAR_REFS.write_text("5")  # the peak counts from here
    before = resident("VmRSS")
    pipeline = load_pipeline(str(large), **options)
    return resident("VmHWM") - before, sum(own_bytes(getattr(pipeline, name)) for name in MODELS)


def resident(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))
