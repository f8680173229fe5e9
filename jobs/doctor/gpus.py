"""The GPUs of this machine: whether torch can use what the driver sees, and whether they are free."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cluster.devices import LEFT_VISIBLE, shared_gpus
from jobs.doctor.cluster import address_of
from jobs.doctor.finding import Finding, ok, problem, size, warning
from jobs.options.batch import DoctorOptions

SMI_TIMEOUT_S = 30
DEVICE_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
# What a driver keeps for itself is less.
IN_USE_BYTES = 2**30
GET_TORCH = "install a torch for this driver, see https://pytorch.org/get-started/locally"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU as nvidia-smi sees it."""

    index: str
    name: str
    driver: str
    total_bytes: float
    used_bytes: float


def check_gpus(options: DoctorOptions) -> Iterator[Finding]:
    """Torch is asked only where there is a driver: to import it takes seconds."""
    if shared := shared_gpus():
        yield problem(shared, f"unset {LEFT_VISIBLE} where Ray is started, on each node")
    try:
        gpus = _seen_by_driver()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        yield problem(f"nvidia-smi does not answer: {error}", "reinstall the driver, or restart the machine")
        return
    if not gpus and not has_driver():
        yield _without(options)
        return
    yield from _compare(gpus)
    yield from (_in_use(gpu) for gpu in gpus if gpu.used_bytes > IN_USE_BYTES)


def has_driver() -> bool:
    """Whether there may be a GPU: as good as any driver leaves one of these files."""
    return any(Path(file).exists() for file in DEVICE_FILES)


def _seen_by_driver() -> list[Gpu]:
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


def _without(options: DoctorOptions) -> Finding:
    if options.model == "demo" or address_of(options):
        return ok("none on this machine")
    return warning("none on this machine", "without one a full-size video takes days; name a cluster with --address")


def _compare(gpus: list[Gpu]) -> Iterator[Finding]:
    import torch

    usable = torch.cuda.device_count() if torch.cuda.is_available() else 0
    driver = f"driver {gpus[0].driver}, {len(gpus)} x {gpus[0].name}" if gpus else "a driver"
    if not usable:
        yield problem(f"{driver}, but torch {torch.__version__} can use no GPU", _why_none())
    elif usable < len(gpus):
        hidden = f"CUDA_VISIBLE_DEVICES={os.environ.get('CUDA_VISIBLE_DEVICES', '')}"
        yield warning(f"{driver}, but torch sees {usable} ({hidden})", "unset CUDA_VISIBLE_DEVICES to use them all")
    else:
        yield ok(f"{driver}, torch {torch.__version__} sees {usable} x {torch.cuda.get_device_name()}")


def _why_none() -> str:
    import torch

    if torch.version.cuda is None and torch.version.hip is None:
        return f"this torch is for the CPU only: {GET_TORCH}"
    if os.environ.get("CUDA_VISIBLE_DEVICES") is not None:
        return f"CUDA_VISIBLE_DEVICES={os.environ['CUDA_VISIBLE_DEVICES']!r} hides them: unset it"
    return f"the driver may be too old for CUDA {torch.version.cuda}: update it, or {GET_TORCH}"


def _in_use(gpu: Gpu) -> Finding:
    used = f"GPU {gpu.index} has {size(gpu.used_bytes)} of {size(gpu.total_bytes)} in use"
    return warning(used, "nvidia-smi shows by whom; choose others by CUDA_VISIBLE_DEVICES")
