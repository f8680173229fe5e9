"""Weights from safetensors files into a module on the meta device."""

import pytest
import torch
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


def test_weights_that_do_not_fit_are_one_sentence(tmp_path):
    stored = stored_tensors(save(small(), tmp_path, leave_out=("out.weight", "head.bias", "scale")), FILE)
    stored["tail.weight"] = stored["head.weight"]
    with pytest.raises(ValueError, match=r"do not fit Small: missing: .*head\.bias.*; not of this model: tail\.weight"):
        fill(empty(), stored, CPU)


def test_a_weight_of_another_shape_is_named(tmp_path):
    stored = stored_tensors(save(small(), tmp_path), FILE)
    stored["head.weight"] = stored["blocks.0.0.weight"]
    with pytest.raises(ValueError, match=r"blocks\.0\.0\.weight is \[7, 6\], but the model has \[5, 6\]"):
        fill(empty(), stored, CPU)


def test_a_folder_without_weights_is_said_to_be_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"neither model\.safetensors nor model\.safetensors\.index\.json"):
        stored_tensors(tmp_path, FILE)
