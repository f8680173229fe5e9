"""Attention kernels by name: what each needs, and which of them `auto` takes. Free of torch, for the command line."""

from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Self

AUTO = "auto"
AMPERE, HOPPER = 8, 9  # major compute capabilities: flash kernels from the first on, cuDNN's best from the second
FLASH_ATTENTION = "FlashAttention, see https://github.com/Dao-AILab/flash-attention"


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel, and what it is called elsewhere."""

    xfuser: str
    """In xfuser's registry."""
    sdpa: tuple[str, ...] | None = None
    """In PyTorch, the backends that may do it; None for a kernel of another package."""
    module: str | None = None
    """What that package is imported by."""
    package: str | None = None
    exact: bool = True
    """False where queries, keys or values are rounded to 8 bits or less."""
    merges: bool = True
    """Whether it gives the log-sum-exp by which Ring merges."""
    on_cpu: bool = False
    """Whether it attends on a CPU, too."""


KERNELS = {
    "flash": Kernel(xfuser="SDPA_FLASH", sdpa=("FLASH_ATTENTION",), on_cpu=True),
    "cudnn": Kernel(xfuser="CUDNN", sdpa=("CUDNN_ATTENTION",)),
    "efficient": Kernel(xfuser="SDPA_EFFICIENT", sdpa=("EFFICIENT_ATTENTION",)),
    "math": Kernel(xfuser="SDPA_MATH", sdpa=("MATH",), merges=False, on_cpu=True),
    "sdpa": Kernel(xfuser="SDPA", sdpa=(), merges=False, on_cpu=True),  # whichever of these PyTorch chooses
    "flash2": Kernel(xfuser="FLASH", module="flash_attn", package=FLASH_ATTENTION),
    "flash3": Kernel(xfuser="FLASH_3", module="flash_attn_interface", package=FLASH_ATTENTION),
    "flash4": Kernel(xfuser="FLASH_4", module="flash_attn.cute", package=FLASH_ATTENTION, merges=False),
    "aiter": Kernel(xfuser="AITER", module="aiter", package="AITER, see https://github.com/ROCm/aiter", merges=False),
    "sage": Kernel(xfuser="SAGE", module="sageattention", package="sageattention", exact=False),
    "flash3-fp8": Kernel(xfuser="FLASH_3_FP8", module="flash_attn_interface", package=FLASH_ATTENTION, exact=False),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was asked for: a kernel, or `auto`, and at how many steps of either end an exact one takes its place."""

    name: str = AUTO
    exact_steps: int = 0

    @classmethod
    def read(cls, text: str) -> Self:
        """From NAME or NAME:STEPS. ValueError for a kernel that there is not, or steps that it has no use for."""
        name, colon, steps = text.partition(":")
        if name != AUTO and name not in KERNELS:
            raise ValueError(f"unknown attention kernel {name}; known: {', '.join([AUTO, *KERNELS])}")
        if not colon:
            return cls(name=name)
        if name == AUTO or KERNELS[name].exact:
            raise ValueError(f"{name} attention is exact in every step; leave out :{steps}")
        if not steps.isdecimal() or not 0 < int(steps) < 10_000:
            raise ValueError(f"{text}: the steps of either end are a whole number above 0, as in {name}:5")
        return cls(name=name, exact_steps=int(steps))

    @property
    def on_cpu(self) -> bool:
        """Whether it can attend without a GPU."""
        return self.name == AUTO or KERNELS[self.name].on_cpu

    def check(self, *, ring: bool) -> None:
        """Raises ValueError for a kernel that cannot do Ring, if there is any."""
        if ring and self.name != AUTO and not KERNELS[self.name].merges:
            can = ", ".join(name for name, kernel in KERNELS.items() if kernel.merges)
            raise ValueError(
                f"{self.name} attention does not give the log-sum-exp by which Ring merges; with --ring take {can}"
            )

    @property
    def missing(self) -> str | None:
        """One sentence on the package that it needs and that is not installed; None if there is no such."""
        kernel = KERNELS.get(self.name)
        if kernel is None or is_installed(kernel):
            return None
        return f"{self.name} attention needs {kernel.package}, which is not installed"


def is_installed(kernel: Kernel) -> bool:
    """Whether the package of a kernel is there; PyTorch's own always are."""
    if kernel.module is None:
        return True
    try:
        return find_spec(kernel.module) is not None
    except ImportError:  # of the package that the module is in
        return False


def installed() -> list[str]:
    """The kernels whose packages are there."""
    return [name for name, kernel in KERNELS.items() if is_installed(kernel)]


def best(capability: tuple[int, int] | None, *, half: bool, by_xfuser: bool, ring: bool, has: Collection[str]) -> str:
    """The fastest exact kernel on a GPU of that compute capability, or on a CPU, which has none.

    Args:
        half: whether numbers have 16 bits, as fast kernels want them.
        by_xfuser: whether xfuser calls it: then PyTorch cannot choose, and of those on a CPU there is one.
        ring: whether Ring merges what it gives.
        has: the kernels that are installed.
    """
    if capability is None:
        return "flash" if by_xfuser else "sdpa"
    major = capability[0]
    if not half or major < AMPERE:
        return "efficient" if by_xfuser else "sdpa"
    order = {"flash4": major >= HOPPER, "flash3": major == HOPPER, "cudnn": major >= HOPPER, "flash": True}
    fitting = (name for name, fits in order.items() if fits and name in has)
    return next(name for name in fitting if KERNELS[name].merges or not ring)
