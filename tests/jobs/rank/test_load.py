"""Loading a pipeline: the same models as from_pretrained, whole or split over ranks, here or elsewhere."""

import json
import logging
import shutil

import pytest
import torch
from diffusers import DiffusionPipeline, HunyuanVideoPipeline
from diffusers.utils import dynamic_modules_utils
from safetensors.torch import load_file, save_file

from caching.recipe.recipe import recipe
from jobs.measure.memory import make_row
from jobs.models.facts import read_facts
from jobs.models.prompt_length import cut_tokens
from jobs.rank.load import _use_cudnn, load_pipeline
from jobs.rank.memory import Models
from jobs.rank.offload import on_device
from jobs.rank.renderer import Renderer
from parallel.layout import Layout
from tests.jobs.rank import sharded
from tests.jobs.rank.test_layouts import SAMPLING
from tests.jobs.tiny_model import save_tiny_pipeline
from tests.parallel.gang import Gang
from tests.parallel.small_model import own_bytes

MODELS = ("transformer", "text_encoder", "text_encoder_2", "vae")
TEXT_WEIGHTS = "text_encoder_2/model.safetensors"
TEMPLATE = {"template": "{}", "crop_start": 0}


@pytest.fixture
def directory(tmp_path):
    return save_tiny_pipeline(tmp_path / "model")


def load(directory, dtype="float32", **options):
    return load_pipeline(str(directory), dtype=dtype, device="cpu", **options)


def check_equal(pipeline, expected):
    """Every weight and buffer, also those that are not stored; and inference."""
    for name in MODELS:
        ours, theirs = getattr(pipeline, name), getattr(expected, name)
        assert not ours.training
        for kind in ("named_parameters", "named_buffers"):
            values, wanted = dict(getattr(ours, kind)()), dict(getattr(theirs, kind)())
            assert values.keys() == wanted.keys()
            for key, value in values.items():
                assert value.dtype == wanted[key].dtype and torch.equal(value, wanted[key]), (name, key)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("max_shard_size", ["10GB", "200KB"], ids=["one-file", "index"])
def test_models_are_those_of_from_pretrained(dtype, max_shard_size, directory, tmp_path):
    HunyuanVideoPipeline.from_pretrained(directory).save_pretrained(tmp_path / "again", max_shard_size=max_shard_size)
    if max_shard_size == "200KB":
        assert len(list((tmp_path / "again/transformer").glob("*.safetensors"))) > 2
        assert len(list((tmp_path / "again/text_encoder").glob("*.safetensors"))) > 2
    vae = torch.float16 if dtype == "bfloat16" else torch.float32  # as the model's authors run it
    formats = {"default": getattr(torch, dtype), "vae": vae}
    expected = HunyuanVideoPipeline.from_pretrained(tmp_path / "again", dtype=formats)
    pipeline = load(tmp_path / "again", dtype)
    check_equal(pipeline, expected)
    ours, theirs = (Renderer(each, template=TEMPLATE).encode("a cat walks") for each in (pipeline, expected))
    assert all(map(torch.equal, ours.cond.tensors, theirs.cond.tensors))
    assert torch.isfinite(ours.cond.tokens).all()


def test_a_loaded_pipeline_and_its_tokenizer_alone_agree_on_what_is_cut_off_a_prompt(directory):
    renderer = Renderer(load(directory), template=TEMPLATE)
    whole, long = "cat " * 254, "cat " * 254 + "walks on grass"
    assert (renderer.cut_tokens(whole), renderer.cut_tokens(long)) == (0, 3)
    assert cut_tokens(directory, renderer.family, TEMPLATE, [whole, long]) == {long: 3}
    assert torch.equal(renderer.encode(long).cond.tokens[:, :255], renderer.encode(whole).cond.tokens[:, :255])


@pytest.mark.parametrize("max_shard_size", ["10GB", "200KB"], ids=["one-file", "index"])
def test_a_variant_is_that_of_from_pretrained(max_shard_size, directory, tmp_path):
    """The first text encoder has no variant: it takes its plain weights, as in diffusers."""
    again = tmp_path / "again"
    saved = HunyuanVideoPipeline.from_pretrained(directory)
    saved.save_pretrained(again, max_shard_size=max_shard_size, variant="fp16")
    shutil.rmtree(again / "text_encoder")
    shutil.copytree(directory / "text_encoder", again / "text_encoder")
    expected = HunyuanVideoPipeline.from_pretrained(again, variant="fp16")
    (again / "transformer" / "notes").touch()  # which diffusers itself trips over
    check_equal(load(again, variant="fp16"), expected)
    assert read_facts(str(again), variant="fp16").variant == "fp16"


OWN_CLASS = """
from diffusers import HunyuanVideoTransformer3DModel

class Mine(HunyuanVideoTransformer3DModel):
    pass
"""


def test_a_class_that_the_model_brings_along_is_used_where_that_is_allowed(directory, tmp_path, monkeypatch):
    monkeypatch.setattr(dynamic_modules_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    expected = load(directory)
    (directory / "transformer" / "mine.py").write_text(OWN_CLASS)
    index = json.loads((directory / "model_index.json").read_text())
    (directory / "model_index.json").write_text(json.dumps(index | {"transformer": ["mine", "Mine"]}))
    pipeline = load(directory, own_code=True)
    assert type(pipeline.transformer).__name__ == "Mine"
    check_equal(pipeline, expected)
    renderer = Renderer(pipeline, template=TEMPLATE)
    renderer.use(recipe("resca"))  # by the class that it derives from
    assert renderer.full_flops(renderer.encode("a cat walks"), SAMPLING) > 0
    with pytest.raises(ValueError, match="trust_remote_code"):
        load(directory)


def test_names_of_older_releases_and_of_other_heads_are_understood(directory, caplog):
    expected = HunyuanVideoPipeline.from_pretrained(directory)
    tensors = load_file(directory / TEXT_WEIGHTS)
    older = {f"text_model.{name}": value for name, value in tensors.items()}
    save_file({**older, "text_projection.weight": torch.ones(2, 2)}, directory / TEXT_WEIGHTS, {"format": "pt"})
    with caplog.at_level(logging.WARNING, "jobs.rank.components"):
        check_equal(load(directory), expected)
    assert not [each for each in caplog.records if each.name == "jobs.rank.components"]


def test_weights_that_cannot_be_streamed_are_loaded_with_a_reason(directory, caplog, monkeypatch):
    expected = HunyuanVideoPipeline.from_pretrained(directory)
    monkeypatch.setattr(type(expected.text_encoder), "_get_dtype_plan", lambda *_: {"norm": torch.float32})
    with caplog.at_level(logging.WARNING, "jobs.rank.components"):
        check_equal(load(directory), expected)
    (record,) = (each for each in caplog.records if each.name == "jobs.rank.components")
    assert "the text_encoder is read whole by from_pretrained: norm stay in float32" in record.message


def test_pickled_weights_are_never_read(directory):
    weights = directory / "transformer/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(OSError, match="safetensors"):
        load(directory)


def test_missing_weights_are_one_sentence(directory):
    tensors = load_file(directory / TEXT_WEIGHTS)
    del tensors["final_layer_norm.weight"]
    save_file(tensors, directory / TEXT_WEIGHTS, {"format": "pt"})
    with pytest.raises(ValueError, match=r"do not fit CLIPTextModel: missing: final_layer_norm\.weight"):
        load(directory)


def test_without_text_there_is_neither_encoder_nor_tokenizer(directory):
    pipeline = load(directory, with_text=False)
    assert pipeline.text_encoder is pipeline.text_encoder_2 is pipeline.tokenizer is pipeline.tokenizer_2 is None


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "layout",
    [pytest.param(Layout(ulysses=2), id="2x1"), pytest.param(Layout(ring=2), id="1x2", marks=pytest.mark.slow)],
)
def test_split_weights_sample_the_same_latents_and_all_that_is_sent_is_booked(layout, directory, tmp_path):
    names = ("full", "resca", "auto", "taylorseer", "teacache")
    with Gang(layout, tmp_path) as gang:
        whole, split = (gang.run(sharded.latents, directory, names, on) for on in (False, True))
        small_whole, small_split = (gang.run(sharded.latents, directory, ("resca",), on, True) for on in (False, True))
    for (expected, *_), (latents, _, _, details, seen) in zip(
        (each["resca"] for each in small_whole), (each["resca"] for each in small_split), strict=True
    ):
        assert (latents - expected).norm() / expected.norm() < 1e-5
        assert not torch.equal(expected, whole[0]["resca"][0])
        check_booked(details, seen)
    for name in names:
        for (expected, *_), (latents, prompt, rows, details, seen) in zip(
            (each[name] for each in whole), (each[name] for each in split), strict=True
        ):
            assert (latents - expected).norm() / expected.norm() < 1e-5
            assert torch.equal(prompt.cond.tokens, split[0][name][1].cond.tokens)
            check_booked(details, seen)
            by_kind = {row["step"]: row for row in rows}
            assert by_kind["setup"]["bytes_sent"] > 0  # the text encoders
            if name in ("resca", "auto"):
                assert by_kind["sparse"]["steps"] > 0
                assert (by_kind["sparse"]["bytes_sent"] > 0) == (name == "resca")  # its proxies run the blocks


def check_booked(details, seen):
    booked = {}
    for row in details:
        calls, sent = booked.get(row["collective"], (0, 0))
        booked[row["collective"]] = calls + row["calls"], sent + row["bytes_sent"]
    factor = {"all_gather": lambda ranks: ranks - 1, "all_to_all": lambda ranks: (ranks - 1) / ranks}
    for collective in ("all_gather", "all_to_all"):
        calls = [(sent, ranks) for name, sent, ranks in seen if name == collective]
        expected = len(calls), sum(sent * factor[collective](ranks) for sent, ranks in calls)
        assert booked.get(collective, (0, 0)) == expected


@pytest.mark.timeout(400)
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_ranks_hold_the_bytes_of_the_memory_table(num_ranks, directory, tmp_path):
    pipeline = load(directory)
    encoders = [pipeline.text_encoder, pipeline.text_encoder_2]
    models = Models(transformers=[pipeline.transformer], text_encoders=encoders, vae=pipeline.vae, text_tokens=256)
    row = make_row(models, num_ranks)
    assert row["rank_0_bytes"] == sum(own_bytes(getattr(pipeline, name)) for name in MODELS)
    assert row["others_bytes"] == sum(own_bytes(getattr(pipeline, name)) for name in ("transformer", "vae"))
    small = make_row(models.in_fp8, num_ranks)
    with Gang(Layout(ring=num_ranks), tmp_path) as gang:
        for bytes_of in (each for measured in gang.run(sharded.allocated, directory, True) for each in measured):
            assert sum(bytes_of.values()) == small["sharded_bytes"] < row["sharded_bytes"]
        for bytes_of in (each for measured in gang.run(sharded.allocated, directory) for each in measured):
            assert bytes_of["transformer"] == row["transformer_bytes"]
            assert bytes_of["text_encoder"] + bytes_of["text_encoder_2"] == row["text_bytes"]
            assert sum(bytes_of.values()) == row["sharded_bytes"] < row["rank_0_bytes"]


def test_an_offloaded_pipeline_renders_the_same(directory):
    frames = []
    for offload in (False, True):
        renderer = Renderer(load(directory, offload=offload), template=TEMPLATE)
        renderer.use(recipe("full"))
        latents = renderer.denoise(renderer.encode("a cat walks"), SAMPLING)
        frames.append(torch.from_numpy(renderer.decode(latents)))
    assert torch.equal(*frames)


def test_an_offloaded_model_is_elsewhere_only_while_it_is_used(directory):
    pipeline = load(directory, offload=True)
    encoder, elsewhere = pipeline.text_encoder, torch.device("meta")
    before = {name: each.data_ptr() for name, each in [*encoder.named_parameters(), *encoder.named_buffers()]}
    with pytest.raises(KeyError), on_device(encoder, elsewhere):
        assert {each.device for each in [*encoder.parameters(), *encoder.buffers()]} == {elsewhere}
        raise KeyError
    after = {name: each.data_ptr() for name, each in [*encoder.named_parameters(), *encoder.named_buffers()]}
    assert after == before


def test_what_waits_is_decided_weight_by_weight(directory):
    """The first weight is there already, as the rows of a split embedding can be."""
    encoder, elsewhere = load(directory, offload=True).text_encoder, torch.device("meta")
    encoder.embed_tokens.to(elsewhere)
    with on_device(encoder, elsewhere):
        assert {each.device for each in [*encoder.parameters(), *encoder.buffers()]} == {elsewhere}
    assert {each.device.type for each in encoder.layers.parameters()} == {"cpu"}
    assert encoder.embed_tokens.weight.is_meta


@pytest.mark.timeout(300)
def test_an_offloaded_model_that_is_split_is_elsewhere_only_while_it_is_used(directory, tmp_path):
    with Gang(Layout(ulysses=2), tmp_path) as gang:
        for before, after, there, same_memory in gang.run(sharded.offloaded, directory):
            assert there == {"meta"} and same_memory
            assert all(map(torch.equal, before.cond.tensors, after.cond.tensors))


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["resca", "taylorseer"])
def test_blocks_whose_weights_are_split_can_be_compiled(name, directory, tmp_path):
    with Gang(Layout(ulysses=2), tmp_path) as gang:
        for plain, compiled, breaks, graphs in gang.run(sharded.compiled, directory, name):
            assert (compiled - plain).norm() / plain.norm() < 1e-5
            assert graphs > 0 and breaks == 0


def test_cudnn_tries_its_kernels_for_the_convolutions_of_the_vae_alone(directory, monkeypatch):
    """Here it is the CPU that convolves, under the same settings."""
    vae, latents = load(directory, "bfloat16").vae, torch.randn(1, 16, 1, 4, 6, dtype=torch.float16)
    expected, convolve, seen = vae.decode(latents).sample, torch.nn.Conv3d._conv_forward, []

    def note(layer, *args):
        seen.append((torch.backends.cudnn.benchmark, layer.weight.is_contiguous(memory_format=torch.channels_last_3d)))
        return convolve(layer, *args)

    monkeypatch.setattr(torch.nn.Conv3d, "_conv_forward", note)
    _use_cudnn(vae)
    frames = vae.decode(latents).sample
    assert seen and set(seen) == {(True, True)}
    assert not torch.backends.cudnn.benchmark
    assert (frames - expected).norm() / expected.norm() < 0.02


def test_files_of_a_hub_id_are_downloaded_once_for_what_is_loaded(directory, monkeypatch):
    asked = []

    def download(cls, source, **options):
        asked.append((source, options))
        return str(directory)

    monkeypatch.setattr(DiffusionPipeline, "download", classmethod(download))
    assert load("owner/name", revision="abc", with_text=False).text_encoder is None
    ((source, options),) = asked
    assert source == "owner/name" and options["revision"] == "abc"
    left_out = set(options) - {"revision", "variant", "trust_remote_code"}
    assert {"text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"} <= left_out
    assert all(name.startswith(("text_encoder", "tokenizer")) for name in left_out)
