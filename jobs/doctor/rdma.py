"""What Ring needs between nodes: RDMA devices, what a container must be given of them, and EFA's plugin for NCCL."""

import os
import resource
from collections.abc import Iterator
from ctypes.util import find_library
from pathlib import Path

from jobs.doctor.finding import Finding, ok, problem, warning
from jobs.options.batch import DoctorOptions

DEVICES = Path("/sys/class/infiniband")
FILES = Path("/dev/infiniband")
STATUS = Path("/proc/self/status")
PLUGINS = ("nccl-net", "nccl-net-ofi")  # as aws-ofi-nccl has called its library, then and now
CAP_IPC_LOCK = 14
# Keys and values of a dense step of HunyuanVideo at 720x1280x129 on 2 nodes of 8 GPUs, --ulysses 8 --ring 2.
NEED = "a --ring over nodes sends 44 GB a node and dense step at 720p on 2 x 8 GPUs"
KEEP_OFF = "keep --ring 1 and more gangs, or use nodes with EFA, InfiniBand or RoCE, see ray_configs/README.md"


def check_rdma(options: DoctorOptions) -> Iterator[Finding]:
    """Whether ranks on other nodes are reached by more than sockets; only a Ring over several nodes needs that."""
    if not (devices := _devices()):
        yield ok("no device; only a --ring over several nodes needs one")
        return
    wrong = [*_files(), *_locked_memory(), *_plugin(devices), *_ports(devices)]
    yield from wrong or [ok(f"{', '.join(device.name for device in devices)}: {_kind(devices)}")]


def between_nodes(num_nodes: int) -> Iterator[Finding]:
    """What a cluster of several nodes lacks, as far as it can be told from this one."""
    if num_nodes > 1 and not _devices():
        yield warning(f"{num_nodes} nodes, and no RDMA device on this one: {NEED}", KEEP_OFF)


def _devices() -> list[Path]:
    return sorted(DEVICES.iterdir()) if DEVICES.is_dir() else []


def _files() -> Iterator[Finding]:
    if not list(FILES.glob("uverbs*")):
        yield warning(
            f"there are RDMA devices, but no {FILES}/uverbs* here",
            "docker run --device=/dev/infiniband; on Kubernetes ask for the resource of the RDMA device plugin",
        )


def _locked_memory() -> Iterator[Finding]:
    """What is sent from memory is locked there; root itself may do that only with IPC_LOCK."""
    most = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    if most != resource.RLIM_INFINITY and not _may_lock():
        yield problem(
            f"at most {most >> 10} KiB of memory may be locked, so NCCL cannot register its buffers",
            "ulimit -l unlimited where Ray is started; docker run --ulimit memlock=-1; IPC_LOCK on Kubernetes",
        )


def _may_lock() -> bool:
    lines = STATUS.read_text(encoding="utf-8").splitlines()
    effective = next((line.split()[1] for line in lines if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> CAP_IPC_LOCK & 1)


def _plugin(devices: list[Path]) -> Iterator[Finding]:
    """NCCL itself does not know EFA, and takes sockets without a word."""
    if "EFA" in _kind(devices) and not _has_plugin():
        yield problem(
            "there are EFA devices, but no libnccl-net.so for them, so NCCL takes sockets",
            "install aws-ofi-nccl, and name its folder in LD_LIBRARY_PATH where Ray is started",
        )


def _has_plugin() -> bool:
    folders = filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":"))
    named = any(path for folder in folders for path in Path(folder).glob("libnccl-net*.so*"))
    return named or any(map(find_library, PLUGINS))


def _ports(devices: list[Path]) -> Iterator[Finding]:
    states = {f"{device.name}: {_said(port / 'state')}" for device in devices for port in device.glob("ports/*")}
    down = sorted(state for state in states if "ACTIVE" not in state)
    if down:
        yield warning(f"ports are not active, {', '.join(down)}", "plug them in, or leave them out by NCCL_IB_HCA")


def _kind(devices: list[Path]) -> str:
    """EFA, InfiniBand or RoCE, each once."""
    layers = {"Ethernet": "RoCE", "InfiniBand": "InfiniBand"}
    kinds = {
        "EFA" if (device / "device/driver").resolve().name == "efa" else layers.get(_said(port / "link_layer"), "RDMA")
        for device in devices
        for port in device.glob("ports/*")
    }
    return " and ".join(sorted(kinds))


def _said(file: Path) -> str:
    return file.read_text(encoding="utf-8").strip() if file.is_file() else "unknown"
