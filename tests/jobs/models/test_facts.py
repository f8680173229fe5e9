"""What is known of a model before it is loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.errors import BadInput
from jobs.models.facts import model_directory, read_facts

COMPONENTS = {
    "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
    "text_encoder": ["transformers", "LlamaModel"],
    "text_encoder_2": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "LlamaTokenizerFast"],
    "tokenizer_2": ["transformers", "CLIPTokenizer"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
}
INDEX = {"_class_name": "HunyuanVideoPipeline", **COMPONENTS}
WEIGHTS = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}


def safetensors(**formats: str) -> bytes:
    """A file of tensors of one value each, in these number formats."""
    sizes, header, place = {"F32": 4, "BF16": 2, "F16": 2, "I64": 8}, {}, 0
    for name, number_format in formats.items():
        end = place + sizes.get(number_format, 1)
        header[name] = {"dtype": number_format, "shape": [1], "data_offsets": [place, end]}
        place = end
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + bytes(place)


def make_model(directory: Path, transformer: dict | None = None, vae: dict | None = None, **defaults) -> Path:
    """The files of a pipeline that are read before it is loaded; the weights are one tensor each."""
    (directory / "transformer").mkdir(parents=True)
    (directory / "model_index.json").write_text(json.dumps(INDEX))
    for component, config in (("transformer", transformer), ("vae", vae), ("text_encoder", {}), ("text_encoder_2", {})):
        (directory / component).mkdir(exist_ok=True)
        (directory / component / "config.json").write_text(json.dumps(config or {}))
        (directory / component / WEIGHTS[COMPONENTS[component][0]]).write_bytes(safetensors(w="F32"))
    for name in ("tokenizer/tokenizer.json", "tokenizer_2/tokenizer.json", "scheduler/scheduler_config.json"):
        (directory / name).parent.mkdir()
        (directory / name).write_text("{}")
    if defaults:
        (directory / "resca.json").write_text(json.dumps(defaults))
    return directory


def test_configs_give_the_numbers_and_hunyuan_video_the_rest(tmp_path):
    path = make_model(tmp_path / "m", {"num_attention_heads": 4, "guidance_embeds": False}, {"latent_channels": 8})
    facts = read_facts(str(path))
    assert (facts.heads, facts.latent_channels, facts.guides) == (4, 8, {"true_cfg_scale", "negative_prompt"})
    assert (facts.spatial, facts.temporal, facts.patch, facts.patch_t) == (8, 4, 2, 1)
    assert (facts.defaults.height, facts.defaults.width, facts.defaults.num_frames) == (720, 1280, 129)
    assert facts.dtype == "float32"


def test_resca_json_gives_the_models_own_defaults(tmp_path):
    path = make_model(tmp_path / "m", height=128, width=128, num_frames=17, fps=8, prompt_template={"template": "{}"})
    defaults = read_facts(str(path)).defaults
    assert (defaults.height, defaults.num_frames, defaults.fps, defaults.steps) == (128, 17, 8, 50)
    assert defaults.prompt_template == {"template": "{}"}


def test_720p_of_hunyuan_video_is_118800_tokens(tmp_path):
    facts = read_facts(str(make_model(tmp_path / "m")))
    assert facts.grid(720, 1280, 129) == (33, 45, 80)
    assert facts.num_tokens(720, 1280, 129) == 118_800


@pytest.mark.parametrize(
    "size, nearest",
    [
        ((100, 128, 17), "height 96, width 128, num_frames 17"),
        ((128, 121, 17), "height 128, width 128, num_frames 17"),
        ((128, 128, 16), "height 128, width 128, num_frames 17"),
        ((1, 1, 2), "height 16, width 16, num_frames 1"),
    ],
)
def test_size_that_does_not_fit_names_the_nearest(tmp_path, size, nearest):
    facts = read_facts(str(make_model(tmp_path / "m")))
    with pytest.raises(BadInput, match=f"nearest: {nearest}"):
        facts.check_size(*size)


def test_nearest_size_is_itself_valid_for_other_patches_and_compression(tmp_path):
    config = {"patch_size": 4, "patch_size_t": 2}
    vae = {"spatial_compression_ratio": 16, "temporal_compression_ratio": 8}
    facts = read_facts(str(make_model(tmp_path / "m", config, vae)))
    facts.check_size(64, 128, 9 + 16)
    assert facts.grid(64, 128, 25) == (2, 1, 2)
    with pytest.raises(BadInput, match="nearest: height 64, width 128, num_frames 25"):
        facts.check_size(64, 128, 24)


def test_revision_follows_the_content_and_not_the_place(tmp_path):
    path = make_model(tmp_path / "m")
    shutil.copytree(path, tmp_path / "copy")
    revision = read_facts(str(path)).revision
    assert read_facts(str(tmp_path / "copy")).revision == revision
    weights = path / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert read_facts(str(path)).revision != revision


def test_local_model_is_found_again_from_another_directory(tmp_path, monkeypatch):
    make_model(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    assert model_directory(read_facts("m").source) == str(tmp_path / "m")


def break_file(path: Path, text: str | None) -> None:
    path.unlink() if text is None else path.write_text(text)


@pytest.mark.parametrize(
    "file, text, what",
    [
        ("model_index.json", None, "has weights, but no model_index.json, as an original checkpoint"),
        ("model_index.json", "{", "not valid JSON"),
        ("model_index.json", "[]", "must hold a JSON object"),
        (
            "model_index.json",
            '{"_class_name": "SanaPipeline"}',
            "is a SanaPipeline, not a HunyuanVideoPipeline or HunyuanVideo15Pipeline or WanPipeline",
        ),
        ("transformer/config.json", None, "cannot read model file"),
        ("transformer/config.json", '{"patch_size": "two"}', "patch_size: .* valid integer"),
        ("vae/config.json", "x", "not valid JSON"),
        ("vae/config.json", "[" * 100_000, "not valid JSON: recursion limit"),
        ("resca.json", '{"heigth": 1}', "resca.json: heigth"),
        ("resca.json", '{"dtype": "int8"}', "resca.json: dtype"),
        ("vae/diffusion_pytorch_model.safetensors", None, "no weights in vae/"),
        ("transformer/diffusion_pytorch_model.safetensors", "short", "not a whole .safetensors file"),
    ],
)
def test_unreadable_model_directory_is_one_sentence(tmp_path, file, text, what):
    path = make_model(tmp_path / "m")
    break_file(path / file, text)
    with pytest.raises(BadInput, match=what) as caught:
        read_facts(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("folder", [".", "transformer", "vae"])
def test_a_model_of_somebody_else_is_one_sentence(tmp_path, monkeypatch, folder):
    """Root becomes somebody else for the test."""
    model, user = make_model(tmp_path / "model"), os.geteuid()
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    (model / folder).chmod(0)
    os.seteuid(user or 65534)
    try:
        with pytest.raises(BadInput, match=r"cannot read model file .*: Permission denied"):
            read_facts("model")
    finally:
        os.seteuid(user)
        (model / folder).chmod(0o700)


def test_pickled_weights_are_refused(tmp_path):
    path = make_model(tmp_path / "m")
    weights = path / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(BadInput, match=r"no weights in vae/: pickles such as .bin are never read"):
        read_facts(str(path))


@pytest.mark.parametrize(
    "file, text",
    [
        ("model_index.json", json.dumps(INDEX | {"transformer": ["my_code", "MyTransformer"]})),
        ("text_encoder/config.json", '{"auto_map": {"AutoModel": "modeling_mine.Mine"}}'),
    ],
)
def test_a_model_that_needs_code_of_its_own_is_refused_unless_that_is_allowed(tmp_path, file, text):
    path = make_model(tmp_path / "m")
    (path / file).write_text(text)
    with pytest.raises(BadInput, match=r"needs code of its own for its (transformer|text_encoder): --trust-remote"):
        read_facts(str(path))
    assert read_facts(str(path), own_code=True).heads == read_facts(str(make_model(tmp_path / "plain"))).heads


@pytest.mark.parametrize("model", ["no-such-directory", "/no/such/directory", "a/b/c", ""])
def test_model_that_is_nowhere_is_named(model):
    with pytest.raises(BadInput, match="neither demo nor demo-wan nor demo-dit, nor a directory, nor a hub id"):
        read_facts(model)


def test_facts_are_read_without_torch_ray_or_diffusers(tmp_path):
    path = make_model(tmp_path / "m")
    code = (
        "import sys; from jobs.models.facts import read_facts; read_facts(sys.argv[1]); "
        "assert not {'torch', 'ray', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, cwd=root, env=dict(os.environ), timeout=60)


def test_a_model_that_should_predict_epsilon_and_predicts_something_else_is_refused(tmp_path):
    path = Path(shutil.copytree(model_directory("demo-dit"), tmp_path / "m"))
    config = path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"prediction_type": "v_prediction"}))
    with pytest.raises(BadInput, match="prediction_type is v_prediction; of models of DiTPipeline only those that"):
        read_facts(str(path))
