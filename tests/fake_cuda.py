"""A CUDA device that is not there: tensors on it have a shape, a number format and a place, but no values.

What runs on it is real code, that of diffusers, xfuser and FSDP2 as well, up to the kernels. It shows on which device
and in which number format things are computed, what the host waits for, and how much memory is held at a time.
"""

import ctypes
import os
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ANSWER_TIMEOUT_S = 250
CUDA = torch.device("cuda:0")
MODE = FakeTensorMode()  # one in a process: tensors of two modes do not mix, and the product keeps some in caches
OURS = ("caching.", "parallel.", "jobs.")
ATEN = torch.ops.aten
PRODUCTS = (ATEN.mm, ATEN.addmm, ATEN.bmm, ATEN.baddbmm)


def build_guard(compiler: str, folder: Path) -> Path:
    """The library that makes torch take CUDA for a device it can address."""
    library = folder / "fake_cuda.so"
    root = Path(torch.__file__).parent
    source = Path(__file__).with_suffix(".cpp")
    options = ["-O0", "-std=c++20", "-shared", "-fPIC", f"-I{root / 'include'}", f"-L{root / 'lib'}", "-lc10"]
    subprocess.run([compiler, str(source), *options, "-o", str(library)], check=True, timeout=ANSWER_TIMEOUT_S)
    return library


class FakeCuda:
    """A process that takes itself to have one H100, and answers to functions; nothing of it is seen in this one."""

    def __init__(self, library: Path) -> None:
        self._pool = get_context("spawn").Pool(1, pretend, (str(library),))

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)` there; what it raises is raised here."""
        return self._pool.apply_async(function, args).get(ANSWER_TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.terminate()


def pretend(library: str) -> None:
    """From now on, this process has a GPU."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # no real one
    torch.set_num_threads(1)
    ctypes.CDLL(library)
    torch.version.cuda = "13.0"
    torch.Generator = HostGenerator
    torch.backends.cudnn.is_available = lambda: True
    functional.scaled_dot_product_attention = _fused(functional.scaled_dot_product_attention)
    for name, value in _of_torch_cuda().items():
        setattr(torch.cuda, name, value)


class HostGenerator(torch.Generator):
    """A generator of the host wherever it is asked for: without values nobody sees where it draws."""

    def __new__(cls, device: object = None) -> "HostGenerator":
        return super().__new__(cls)


def _fused(plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Attention by a kernel of CUDA, as torch takes one there; a build for the CPU would make N x N logits."""

    def attend(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        if options.get("is_causal") or options.get("enable_gqa"):
            return plain(query, key, value, attn_mask=attn_mask, **options)
        if attn_mask is None and query.dtype != torch.float32:
            return ATEN._scaled_dot_product_cudnn_attention(query, key, value, None, False)[0]
        if attn_mask is not None and attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
        bias = None if attn_mask is None else attn_mask.expand(*query.shape[:3], key.shape[2])
        return ATEN._scaled_dot_product_efficient_attention(query, key, value, bias, False)[0]

    return attend


def _of_torch_cuda() -> dict[str, Any]:
    gpu = types.SimpleNamespace(gcnArchName="", name="NVIDIA H100", major=9, minor=0, total_memory=80 << 30)
    return {
        "is_available": lambda: True,
        "is_initialized": lambda: False,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "set_device": lambda *_: None,
        "device": lambda *_: nullcontext(),
        "get_device_name": lambda *_: gpu.name,
        "get_device_capability": lambda *_: (gpu.major, gpu.minor),
        "get_device_properties": lambda *_: gpu,
        "mem_get_info": lambda *_: (gpu.total_memory, gpu.total_memory),
        "Event": Event,
        "Stream": Stream,
        "current_stream": lambda *_: Stream(),
        "default_stream": lambda *_: Stream(),
        "stream": lambda *_: nullcontext(),
        "synchronize": lambda *_: None,
    }


class Event:
    """Everything has happened already."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def record(self, *_: object) -> None: ...

    def query(self) -> bool:
        return True

    def wait(self, *_: object) -> None: ...

    def synchronize(self) -> None: ...


class Stream:
    """Everything happens in order."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def wait_stream(self, *_: object) -> None: ...

    def wait_event(self, *_: object) -> None: ...

    def record_event(self, *_: object) -> Event:
        return Event()

    def synchronize(self) -> None: ...


def on_fake_cuda(
    make: Callable[..., nn.Module], dtype: torch.dtype, device: torch.device | str = CUDA, **settings: Any
) -> nn.Module:
    """A module for inference whose parameters are on the device that is not there."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)  # as where weights are loaded
    try:
        with MODE, torch.device(device):
            return make(**settings).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(before)


class Seen(TorchDispatchMode):
    """Sees what is done on the device in the block, by the function of ours that has it done.

    Args:
        answers: what the host reads of tensors, one after another, as they have no values.
    """

    def __init__(self, answers: Iterable[float] = ()) -> None:
        super().__init__()
        self.answers: Iterator[float] = iter(answers)
        self.reads: Counter[str] = Counter()  # the host waits for the device
        self.copies: Counter[str] = Counter()  # from the host to the device
        self.float32: Counter[str] = Counter()  # products of matrices in float32
        self.on_host: Counter[str] = Counter()  # products of matrices that are not on the device

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is ATEN._local_scalar_dense.default and args[0].device.type == "cuda":
            self.reads[place()] += 1
            return next(self.answers)
        output = func(*args, **(kwargs or {}))
        if func is ATEN._to_copy.default:
            self._note_copy(args[0], output)
        elif func is ATEN.copy_.default:
            self._note_copy(args[1], args[0])
        elif func.overloadpacket in PRODUCTS:
            tensor = args[-1] if func.overloadpacket is ATEN.addmm else args[0]
            if tensor.dtype == torch.float32:
                self.float32[place()] += 1
            if tensor.device.type != "cuda":
                self.on_host[place()] += 1
        return output

    def forget(self) -> None:
        """Begin to count anew."""
        for counter in (self.reads, self.copies, self.float32, self.on_host):
            counter.clear()

    def _note_copy(self, source: Tensor, target: Tensor) -> None:
        match source.device.type, target.device.type:
            case "cpu", "cuda":
                self.copies[place()] += 1
            case "cuda", "cpu":
                self.reads[place()] += 1


def place() -> str:
    """The innermost function of ours that is running: `caching.medoids.k_medoids`."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith(OURS):
            return f"{module}.{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def devices_and_formats(output: object) -> set[tuple[str, str]]:
    """Of all tensors in some output."""
    tensors = [each for each in tree_leaves(output) if isinstance(each, Tensor)]
    return {(each.device.type, str(each.dtype).removeprefix("torch.")) for each in tensors}


@contextmanager
def fake_world(rank: int, world_size: int) -> Iterator[list[tuple[tuple[int, ...], str | None, bool]]]:
    """This process is one rank of a world whose others are not there: what is sent is dropped, nothing is waited for.

    What comes out grows with each group that is made: its ranks, its backend, and whether the world was then bound to
    a device, as that of NCCL is.
    """
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from parallel import watch

    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=world_size)
    world = dist.distributed_c10d._get_default_group()
    world.bound_device_id = CUDA
    made: list[tuple[tuple[int, ...], str | None, bool]] = []
    new_group, exchange = dist.new_group, watch._exchange

    def recorded(ranks: Any = None, timeout: Any = None, backend: str | None = None, **options: Any) -> Any:
        made.append((tuple(ranks), backend, world.bound_device_id is not None))
        return new_group(ranks, timeout=timeout, backend="fake", **options)

    dist.new_group = recorded
    watch._exchange = lambda address, device: [tuple(address)] * world_size
    try:
        yield made
    finally:
        dist.new_group, watch._exchange = new_group, exchange
        dist.destroy_process_group()
