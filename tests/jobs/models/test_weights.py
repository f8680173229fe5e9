"""Model files that are not whole, or not what is computed with, are named before anything is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from jobs.errors import BadInput
from jobs.models.demos import DEMOS
from jobs.models.facts import read_facts
from tests.jobs.models.test_facts import COMPONENTS, INDEX, WEIGHTS, make_model, safetensors

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 25000000\n"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
EVERY_WEIGHTS = [f"{name}/{WEIGHTS[COMPONENTS[name][0]]}" for name in ("transformer", "vae", "text_encoder")]


@pytest.fixture
def model(tmp_path) -> Path:
    return make_model(tmp_path / "m")


def refusal(model: Path, **options) -> str:
    with pytest.raises(BadInput) as refused:
        read_facts(str(model), **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def divide(model: Path, component: str = "transformer", variant: str = "") -> list[Path]:
    """The weights of a component in two files of one tensor, as its library divides them."""
    name = WEIGHTS[COMPONENTS[component][0]]
    (model / component / name).unlink()
    stem = name.removesuffix(".safetensors") + (variant and f".{variant}")
    files = [model / component / f"{stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for tensor, file in zip("ab", files, strict=True):
        file.write_bytes(safetensors(**{tensor: "F16" if variant else "F32"}))
    index = model / component / f"{name}.index{variant and f'.{variant}'}.json"
    index.write_text(json.dumps({"weight_map": {"a": files[0].name, "b": files[1].name}}))
    return files


@pytest.mark.parametrize("name", EVERY_WEIGHTS)
@pytest.mark.parametrize("length", [0, 5, -1])
def test_weights_that_are_cut_short_are_named(model, name, length):
    (model / name).write_bytes((model / name).read_bytes()[:length])
    assert f"{model / name} (" in refusal(model) and "is not a whole .safetensors file" in refusal(model)


def test_weights_that_are_longer_than_their_header_says_are_named(model):
    (model / TRANSFORMER).write_bytes(safetensors(w="F32") + b"more")
    assert "is not a whole .safetensors file" in refusal(model)


@pytest.mark.parametrize("name", [*EVERY_WEIGHTS, "tokenizer/tokenizer.json", "text_encoder/config.json"])
def test_a_pointer_of_git_lfs_is_named(model, name):
    (model / name).write_bytes(POINTER)
    assert f"model file {model / name} is a Git LFS pointer" in refusal(model) and "git lfs pull" in refusal(model)


def test_divided_weights_are_whole_or_the_missing_file_is_named(model):
    first, second = divide(model)
    assert read_facts(str(model)).dtype == "float32"
    second.write_bytes(first.read_bytes())
    assert f"{second} lacks b, which {WEIGHTS['diffusers']}.index.json looks for there" in refusal(model)
    second.unlink()
    assert f"{second} is missing (1 of the 2 that" in refusal(model)


@pytest.mark.parametrize("variant", ["", "fp16"])
def test_a_missing_index_is_named(model, variant):
    first, _ = divide(model, variant=variant)
    next((model / "transformer").glob("*.index*")).unlink()
    if variant:
        assert "only weights of the variant fp16 in transformer/" in refusal(model)
    else:
        assert f"no {WEIGHTS['diffusers']}.index.json in transformer/, which says what {first.name}" in refusal(model)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": 1}}', "[" * 100_000])
def test_an_index_that_cannot_be_read_is_named(model, text):
    divide(model)
    index = model / f"{TRANSFORMER}.index.json"
    index.write_text(text)
    assert str(index) in refusal(model)


@pytest.mark.parametrize("formats", [{"a": "F8_E4M3"}, {"a": "F8_E4M3", "b": "F32"}, {"a": "F32", "b": "I8"}])
def test_weights_that_are_not_computed_with_are_refused(model, formats):
    (model / TRANSFORMER).write_bytes(safetensors(**formats))
    assert f"holds weights as {'I8' if 'I8' in formats.values() else 'F8_E4M3'}, which are not" in refusal(model)
    assert "float32, bfloat16, float16" in refusal(model)


def test_buffers_of_whole_numbers_are_no_weights(model):
    (model / TRANSFORMER).write_bytes(safetensors(position_ids="I64", w="BF16"))
    assert read_facts(str(model)).dtype == "bfloat16"
    (model / TRANSFORMER).write_bytes(safetensors(position_ids="I64"))
    assert "holds no weights in float32, bfloat16, float16" in refusal(model)


@pytest.mark.parametrize("component", ["transformer", "text_encoder"])
def test_quantised_models_are_refused(model, component):
    config = model / component / "config.json"
    config.write_text('{"quantization_config": {"quant_method": "bitsandbytes"}}')
    assert f"{config} has a quantization_config" in refusal(model)


def to_variant(model: Path, *components: str) -> None:
    for component in components:
        path = model / component / WEIGHTS[COMPONENTS[component][0]]
        path.with_suffix(".fp16.safetensors").write_bytes(safetensors(w="F16"))
        path.unlink()


def test_a_variant_is_taken_when_it_is_asked_for(model):
    plain = read_facts(str(model))
    to_variant(model, "transformer", "vae", "text_encoder", "text_encoder_2")
    assert "only weights of the variant fp16 in transformer/: --variant fp16" in refusal(model)
    facts = read_facts(str(model), variant="fp16")
    assert (facts.variant, facts.dtype) == ("fp16", "float16") and facts.revision != plain.revision
    assert "has no weights of the variant bf16" in refusal(model, variant="bf16")


def test_components_without_the_variant_have_their_plain_weights(model):
    to_variant(model, "transformer")
    assert read_facts(str(model), variant="fp16").dtype == "float16"


def test_a_divided_variant_has_names_of_its_own(model):
    _, second = divide(model, variant="fp16")
    assert "only weights of the variant fp16 in transformer/" in refusal(model)
    assert read_facts(str(model), variant="fp16").dtype == "float16"
    second.unlink()
    assert f"{second} is missing" in refusal(model, variant="fp16")


def test_weights_under_another_name_are_named(model):
    (model / TRANSFORMER).rename(model / "transformer" / "hunyuan_video_720_bf16.safetensors")
    expected = "no diffusion_pytorch_model.safetensors in transformer/, only hunyuan_video_720_bf16.safetensors"
    assert expected in refusal(model)


@pytest.mark.parametrize(
    "gone, what",
    [
        ("tokenizer", "no vocabulary in tokenizer/, such as tokenizer.json"),
        ("scheduler", "cannot read model file .*scheduler_config.json"),
        ("text_encoder", "no weights in text_encoder/: model.safetensors is missing"),
    ],
)
def test_a_component_that_is_missing_is_named(model, gone, what):
    shutil.rmtree(model / gone)
    with pytest.raises(BadInput, match=what):
        read_facts(str(model))


def test_a_configuration_that_is_missing_is_named(model):
    (model / "text_encoder" / "config.json").unlink()
    assert "text_encoder/config.json: No such file" in refusal(model)


@pytest.mark.parametrize("entry", [None, [None, None]])
def test_a_component_that_the_index_leaves_out_is_no_code_of_its_own(model, entry):
    (model / "model_index.json").write_text(json.dumps(INDEX | {"text_encoder_2": entry}))
    assert "has no text_encoder_2: a HunyuanVideoPipeline needs one" in refusal(model)


def test_a_component_of_another_model_is_named(model):
    (model / "model_index.json").write_text(
        json.dumps(INDEX | {"transformer": ["diffusers", "HunyuanVideo15Transformer3DModel"]})
    )
    assert "HunyuanVideo15Transformer3DModel as its transformer" in refusal(model)
    assert "needs a HunyuanVideoTransformer3DModel" in refusal(model)


def test_what_newer_libraries_write_besides_is_passed_over(model):
    (model / "model_index.json").write_text(
        json.dumps(INDEX | {"image_encoder": [None, None], "guider": ["diffusers", "ClassifierFreeGuidance"]})
    )
    (model / "transformer" / "config.json").write_text('{"_diffusers_version": "9.0", "use_meanflow": false}')
    assert read_facts(str(model))


def test_a_lora_is_no_model(tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(safetensors(w="F32"))
    assert "is a LoRA, which is not read: merge it" in refusal(tmp_path)


def test_an_original_checkpoint_is_no_model(tmp_path):
    (tmp_path / "hunyuan-video-t2v-720p" / "transformers").mkdir(parents=True)
    (tmp_path / "hunyuan-video-t2v-720p" / "transformers" / "mp_rank_00_model_states.pt").write_bytes(b"x")
    assert "as an original checkpoint: needed is one that diffusers has saved" in refusal(tmp_path)


def test_a_single_file_and_a_component_are_no_model(model):
    assert "is a single file, not a directory with a whole pipeline" in refusal(model / TRANSFORMER)
    assert "is one component of a pipeline: give the directory above it" in refusal(model / "transformer")


def test_an_empty_directory_is_no_model(tmp_path):
    assert "has no model_index.json" in refusal(tmp_path)


def test_the_demo_model_cut_as_a_broken_copy_is_refused(tmp_path):
    """A real file, as a library writes it."""
    shutil.copytree(DEMOS["demo"], tmp_path / "m")
    path = tmp_path / "m" / TRANSFORMER
    save_file({k: v.to(torch.float8_e4m3fn) if v.ndim > 1 else v for k, v in load_file(path).items()}, path)
    assert f"{path} holds weights as F8_E4M3" in refusal(tmp_path / "m")
    shutil.copyfile(DEMOS["demo"] / TRANSFORMER, path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size * 2 // 3)
    assert f"{path} (9," in refusal(tmp_path / "m")
