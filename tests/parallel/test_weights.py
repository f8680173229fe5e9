"""Weights from safetensors files into a module on the meta device."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from parallel import weights
from parallel.weights import fill, stored_tensors
from tests.parallel.small_model import FILE, save, small

CPU = torch.device("cpu")
WORDS = torch.tensor([[1, 4, 10]])


def empty(dtype=torch.float32):
    """The same module without values; its buffers have theirs."""
    module = small(seed=1).to(dtype)
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.to("meta"))
    module.out.weight = module.embed.weight
    return module


@pytest.mark.parametrize("num_files", [1, 3])
@pytest.mark.parametrize("piece_bytes", [weights.PIECE_BYTES, 50], ids=["whole", "in-pieces"])
def test_a_filled_module_is_the_one_that_was_saved(num_files, piece_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "PIECE_BYTES", piece_bytes)
    saved, module = small(), empty()
    fill(module, stored_tensors(save(saved, tmp_path, num_files=num_files), FILE), CPU)
    assert module.state_dict().keys() == saved.state_dict().keys()
    assert all(torch.equal(module.state_dict()[name], value) for name, value in saved.state_dict().items())
    assert module.out.weight is module.embed.weight
    assert torch.equal(module(WORDS), saved(WORDS))


def test_values_take_the_number_format_of_the_module(tmp_path):
    module = empty(torch.bfloat16)
    fill(module, stored_tensors(save(small(), tmp_path), FILE), CPU)
    assert torch.equal(module.head.weight, small().head.weight.to(torch.bfloat16))


def test_nothing_is_left_of_the_file_in_the_weights(tmp_path):
    module = empty()
    fill(module, stored_tensors(save(small(), tmp_path), FILE), CPU)
    assert all(each.untyped_storage().nbytes() == each.nbytes for each in module.parameters())
    (tmp_path / FILE).write_bytes(bytes((tmp_path / FILE).stat().st_size))
    assert torch.equal(module(WORDS), small()(WORDS))


def test_a_tensor_lies_where_its_library_finds_it(tmp_path):
    """Of every number format, with and without dimensions, empty, and after a header with notes."""
    numbers = torch.arange(6).view(2, 3)
    tensors = {str(dtype): numbers.to(dtype) for dtype in weights.NUMBER_FORMATS.values()}
    tensors |= {"scalar": torch.tensor(7.5), "nothing": torch.zeros(0, 4), "odd": torch.tensor([True] * 3)}
    save_file(tensors, tmp_path / FILE, {"note": "x" * 1001})
    found, data = stored_tensors(tmp_path, FILE), (tmp_path / FILE).read_bytes()
    assert found.keys() == tensors.keys()
    with safe_open(tmp_path / FILE, framework="pt") as file:
        for name, place in found.items():
            wanted = file.get_tensor(name)
            assert (place.dtype, place.shape) == (wanted.dtype, tuple(wanted.shape))
            assert (
                data[place.offset : place.offset + place.num_bytes]
                == wanted.view(-1).view(torch.uint8).numpy().tobytes()
            )


def test_what_an_index_names_and_is_not_there_is_named(tmp_path):
    folder = save(small(), tmp_path, num_files=3)
    index = folder / f"{FILE}.index.json"
    places = json.loads(index.read_text())["weight_map"]
    index.write_text(
        json.dumps({"weight_map": places | {"head.bias": places["head.weight"], "tail": "model-0.safetensors"}})
    )
    with pytest.raises(ValueError, match=r"lacks .*, which model\.safetensors\.index\.json looks for there"):
        stored_tensors(folder, FILE)
    (folder / "model-1.safetensors").unlink()
    with pytest.raises(
        ValueError, match=r"model-1\.safetensors is missing, which model\.safetensors\.index\.json names"
    ):
        stored_tensors(folder, FILE)


def test_a_number_format_that_nothing_is_computed_with_is_named(tmp_path):
    save_file({"head": torch.ones(4).to(torch.float8_e4m3fn)}, tmp_path / FILE)
    with pytest.raises(ValueError, match=r"head is stored as F8_E4M3, not as one of F64, F32"):
        stored_tensors(tmp_path, FILE)


def test_a_file_that_has_become_shorter_is_named(tmp_path):
    stored = stored_tensors(save(small(), tmp_path), FILE)
    size = (tmp_path / FILE).stat().st_size
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[: size // 2])
    with pytest.raises(ValueError, match=r"model\.safetensors ends within .*: copy or download it again"):
        fill(empty(), stored, CPU)


def test_one_buffer_is_used_for_all_that_is_read(tmp_path, monkeypatch):
    """It is pinned where the weights go to a GPU, and to pin memory takes longer than to read most weights."""
    made, make = [], torch.empty

    def count(*size, **options):
        made.append(options.get("pin_memory"))
        return make(*size, **options)

    monkeypatch.setattr(torch, "empty", count)
    fill(empty(), stored_tensors(save(small(), tmp_path, num_files=3), FILE), CPU)
    assert [each for each in made if each is not None] == [False]


def test_weights_that_do_not_fit_are_one_sentence(tmp_path):
    stored = stored_tensors(save(small(), tmp_path, leave_out=("out.weight", "head.bias", "scale")), FILE)
    stored["tail.weight"] = stored["head.weight"]
    with pytest.raises(ValueError, match=r"do not fit Small: missing: .*head\.bias.*; not of this model: tail\.weight"):
        fill(empty(), stored, CPU)


def test_a_weight_of_another_shape_is_named(tmp_path):
    stored = stored_tensors(save(small(), tmp_path), FILE)
    stored["head.weight"] = replace(stored["blocks.0.0.weight"], path=tmp_path / "away")  # found before it is read
    with pytest.raises(ValueError, match=r"blocks\.0\.0\.weight is \[7, 6\], but the model has \[5, 6\]"):
        fill(empty(), stored, CPU)


def test_a_folder_without_weights_is_said_to_be_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        stored_tensors(tmp_path, FILE)
