"""What waits for a GPU waits in pinned memory. Pinning itself needs a GPU: here a copy takes its place."""

import pytest
import torch
from torch import nn

from jobs.rank import load
from jobs.rank.offload import pin
from tests.jobs.tiny_model import save_tiny_pipeline


@pytest.fixture
def pinned(monkeypatch) -> set[int]:
    """The memory of all that has been pinned."""
    memory: set[int] = set()

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        copy = tensor.clone()
        memory.add(copy.data_ptr())
        return copy

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    return memory


def memory_of(model: nn.Module) -> set[int]:
    return {each.data_ptr() for each in (*model.parameters(), *model.buffers())}


def test_weights_and_buffers_are_pinned_once_and_tied_ones_stay_tied(pinned):
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    before = {name: each.clone() for name, each in model.state_dict().items()}
    pin(model)
    assert memory_of(model) == pinned
    assert model[2].weight is model[0].weight
    assert all(torch.equal(each, before[name]) for name, each in model.state_dict().items())


def test_what_is_kept_off_the_gpu_is_pinned_when_it_is_loaded(pinned, tmp_path, monkeypatch):
    monkeypatch.setattr(load, "load_component", on_meta_for_cuda(load.load_component))
    directory = save_tiny_pipeline(tmp_path / "model")
    pipeline = load.load_pipeline(str(directory), dtype="float32", device="cuda:0", offload=True)
    assert memory_of(pipeline.vae) | memory_of(pipeline.text_encoder) | memory_of(pipeline.text_encoder_2) == pinned
    assert pipeline.transformer.device.type == "meta" and pipeline._execution_device == torch.device("cuda:0")
    pinned.clear()
    load.load_pipeline(str(directory), dtype="float32", device="cuda:0")
    load.load_pipeline(str(directory), dtype="float32", device="cpu", offload=True)
    assert not pinned


def on_meta_for_cuda(load_component):
    def load_on(folder, *, device, **options):
        return load_component(folder, device=torch.device("meta") if device.type == "cuda" else device, **options)

    return load_on
