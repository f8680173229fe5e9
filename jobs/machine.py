"""On what a measurement was made: the command, the machine and the versions."""

import os
import platform
import shlex
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = ("torch", "diffusers", "transformers", "xfuser", "cache-dit")


def describe_run(arguments: list[str]) -> dict[str, str]:
    """Command, date, machine and versions, as they stand in a report; `arguments` are those of `resca`."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "command": f"python -m jobs {shlex.join(arguments)}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": _machine(),
        "versions": ", ".join(f"{name} {number}" for name, number in found.items()),
    }


def device_name() -> str:
    """What a rank computes on: the GPU's name, or the processor's."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else _processor()


def _machine() -> str:
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    host = f"{_processor()}, {cores} {'core' if cores == 1 else 'cores'}, {gigabytes:.0f} GiB"
    return f"{torch.cuda.get_device_name()}; {host}" if torch.cuda.is_available() else host


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
