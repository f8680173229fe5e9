"""How much memory GPUs have: those of this machine by their driver, those of a cluster by the names that Ray has."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SMI_TIMEOUT_S = 30
GIB = 2**30
# What Ray calls them, where one name stands for one size.
MEMORY_BYTES = {
    **{"T4": 16 * GIB, "A10G": 24 * GIB, "L4": 24 * GIB, "L40S": 48 * GIB, "A100-40G": 40 * GIB, "A100-80G": 80 * GIB},
    **{"H100": 80 * GIB, "H20": 96 * GIB, "H200": 141 * GIB, "B200": 180 * GIB},
}
TYPE = "accelerator_type:"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU as nvidia-smi sees it."""

    index: str
    name: str
    driver: str
    total_bytes: float
    used_bytes: float


def seen_by_driver() -> list[Gpu]:
    """The GPUs of this machine; none without nvidia-smi. OSError, ValueError, SubprocessError if it does not answer."""
    if not (program := shutil.which("nvidia-smi")):
        return []
    query = [program, "--query-gpu=index,name,driver_version,memory.total,memory.used", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=SMI_TIMEOUT_S)
    if answer.returncode:
        raise OSError((answer.stdout + answer.stderr).strip())
    return [_gpu(line) for line in answer.stdout.splitlines()]


def _gpu(line: str) -> Gpu:
    """A line of nvidia-smi, in MiB; memory that it cannot tell is taken to be free."""
    index, name, driver, *mebibytes = (cell.strip() for cell in line.split(","))
    total, used = (float(number) * 2**20 if number.isdigit() else 0 for number in mebibytes)
    return Gpu(index=index, name=name, driver=driver, total_bytes=total, used_bytes=used)


def least_memory_here() -> float | None:
    """The memory of this machine's smallest GPU; None if there is none, or nobody can tell."""
    try:
        return min((gpu.total_bytes for gpu in seen_by_driver() if gpu.total_bytes), default=None)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def least_memory(nodes: Sequence[Mapping[str, float]]) -> float | None:
    """The memory of the smallest GPU of a cluster by its nodes' resources; None if one of them does not tell."""
    sizes = [_memory(node) for node in nodes if node.get("GPU")]
    known = [size for size in sizes if size is not None]
    return min(known, default=None) if len(known) == len(sizes) else None


def _memory(node: Mapping[str, float]) -> int | None:
    kinds = [name.removeprefix(TYPE) for name in node if name.startswith(TYPE)]
    return min((MEMORY_BYTES[kind] for kind in kinds if kind in MEMORY_BYTES), default=None)
