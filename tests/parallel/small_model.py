"""A module with everything that weights can be: blocks, an embedding, a shared parameter, buffers, a scalar."""

import json

import torch
from safetensors.torch import save_file
from torch import nn
from torch.distributed.tensor import DTensor

FILE = "model.safetensors"


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(6, 7), nn.Linear(7, 6)) for _ in range(2)])
        self.head = nn.Linear(6, 5)
        self.out = nn.Linear(6, 11, bias=False)
        self.out.weight = self.embed.weight
        self.gain = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("scale", torch.arange(3.0))
        self.register_buffer("frequencies", torch.arange(4.0) / 4, persistent=False)

    def forward(self, words):
        states = self.embed(words)
        for block in self.blocks:
            states = states + block(states)
        return self.head(states) * self.gain + self.scale.sum() + self.frequencies.sum()


def small(seed=0):
    torch.manual_seed(seed)
    return Small().eval()


def save(module, folder, *, num_files=1, leave_out=("out.weight",), dtype=torch.float32):
    """Save a module as one file, or as several with an index; a shared parameter once."""
    folder.mkdir(exist_ok=True)
    tensors = {name: each.to(dtype) for name, each in module.state_dict().items() if name not in leave_out}
    if num_files == 1:
        save_file(tensors, folder / FILE)
        return folder
    names = [f"model-{number}.safetensors" for number in range(num_files)]
    weight_map = {name: names[number % num_files] for number, name in enumerate(tensors)}
    for file in names:
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    (folder / f"{FILE}.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def own_bytes(model: nn.Module) -> int:
    """The bytes of memory in which this rank keeps a model's weights and buffers."""
    tensors = [each.to_local() if isinstance(each, DTensor) else each.detach() for each in model.parameters()]
    storages = [each.untyped_storage() for each in [*tensors, *model.buffers()]]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())
