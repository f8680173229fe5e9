"""The doctor looks at GPUs, their links and attention kernels, as drivers and the system describe them."""

import os
from pathlib import Path

import pytest
import torch

from jobs.doctor import gpus, rdma
from jobs.doctor.finding import Finding
from jobs.doctor.kernels import check_attention
from jobs.options.batch import DoctorOptions
from parallel.kernels import installed
from tests.jobs.doctor.findings import DOCTOR, only

pytestmark = pytest.mark.timeout(120)


def stand_in(folder: Path, monkeypatch, script: str) -> None:
    """An nvidia-smi that prints what the real one does; there may be no GPU here."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_driver_that_does_not_answer_is_a_problem(tmp_path, monkeypatch):
    stand_in(tmp_path, monkeypatch, "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    finding = only(gpus.check_gpus(DOCTOR))
    assert finding.verdict == "problem" and "Failed to initialize NVML" in finding.found


def test_more_gpus_than_torch_can_use_and_gpus_in_use(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    lines = "0, NVIDIA H200, 570.86.15, 143771, 4\n1, NVIDIA H200, 570.86.15, 143771, 20480\n2, A, 1, [N/A], [N/A]"
    stand_in(tmp_path, monkeypatch, f"cat <<END\n{lines}\nEND")
    unusable, in_use, room, speed = gpus.check_gpus(DOCTOR)
    assert speed.verdict == "ok" and "is predicted to take" in speed.found and "on one h200" in speed.found
    assert room.verdict == "ok" and "GiB" in room.found and room.found.endswith("of 140.4 GiB")
    assert unusable.verdict == "problem"
    assert unusable.found.startswith("driver 570.86.15, 3 x NVIDIA H200, but torch")
    assert in_use.found == "GPU 1 has 20.0 GiB of 140.4 GiB in use"


@pytest.mark.parametrize(("value", "is_refused"), [("1", True), ("True", True), ("0", False), ("", False)])
def test_gpus_that_ray_would_not_deal_out_to_the_ranks_are_a_problem(monkeypatch, value, is_refused):
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", value)
    first = next(gpus.check_gpus(DOCTOR))
    assert ("keeps Ray from giving each rank a GPU of its own" in first.found) == is_refused
    if is_refused:
        assert first.verdict == "problem"
        assert first.remedy.startswith("unset RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES where Ray is started")


def rdma_devices(folder: Path, monkeypatch, *devices: tuple[str, str, str]) -> None:
    """Devices as the kernel shows them, each with its driver, its link layer and the state of its port."""
    for number, (driver, link_layer, state) in enumerate(devices):
        port = folder / "sys" / f"rdma{number}" / "ports" / "1"
        port.mkdir(parents=True)
        (port / "link_layer").write_text(f"{link_layer}\n")
        (port / "state").write_text(f"{state}\n")
        (port.parents[1] / "device").mkdir()
        (port.parents[1] / "device" / "driver").symlink_to(f"/sys/bus/pci/drivers/{driver}")
    (folder / "dev").mkdir()
    (folder / "dev" / "uverbs0").touch()
    monkeypatch.setattr(rdma, "DEVICES", folder / "sys")
    monkeypatch.setattr(rdma, "FILES", folder / "dev")
    monkeypatch.setattr(rdma.resource, "getrlimit", lambda _: (rdma.resource.RLIM_INFINITY,) * 2)
    monkeypatch.setenv("LD_LIBRARY_PATH", "")


def test_infiniband_that_can_be_used_is_named(tmp_path, monkeypatch):
    rdma_devices(
        tmp_path, monkeypatch, ("mlx5_core", "InfiniBand", "4: ACTIVE"), ("mlx5_core", "Ethernet", "4: ACTIVE")
    )
    found = only(rdma.check_rdma(DOCTOR))
    assert (found.verdict, found.found) == ("ok", "rdma0, rdma1: InfiniBand and RoCE")
    assert not list(rdma.between_nodes(2))


def test_a_port_that_is_down_and_a_container_without_the_devices_are_told(tmp_path, monkeypatch):
    rdma_devices(
        tmp_path, monkeypatch, ("mlx5_core", "InfiniBand", "1: DOWN"), ("mlx5_core", "InfiniBand", "4: ACTIVE")
    )
    (tmp_path / "dev" / "uverbs0").unlink()
    files, ports = rdma.check_rdma(DOCTOR)
    assert "docker run --device=/dev/infiniband" in files.remedy
    assert ports.verdict == "warning" and ports.found == "ports are not active, rdma0: 1: DOWN"


@pytest.mark.parametrize(("capabilities", "verdict"), [("0", "problem"), ("4000", "ok"), ("1ffffffffff", "ok")])
def test_memory_that_may_not_be_locked_is_a_problem_but_with_ipc_lock(tmp_path, monkeypatch, capabilities, verdict):
    rdma_devices(tmp_path, monkeypatch, ("mlx5_core", "InfiniBand", "4: ACTIVE"))
    (tmp_path / "status").write_text(f"Name:\tpython\nCapEff:\t{capabilities}\n")
    monkeypatch.setattr(rdma, "STATUS", tmp_path / "status")
    monkeypatch.setattr(rdma.resource, "getrlimit", lambda _: (65536, 65536))
    found = only(rdma.check_rdma(DOCTOR))
    assert found.verdict == verdict
    if verdict == "problem":
        assert found.found.startswith("at most 64 KiB of memory may be locked")
        assert "memlock=-1" in found.remedy and "IPC_LOCK" in found.remedy


def test_efa_needs_its_plugin(tmp_path, monkeypatch):
    rdma_devices(tmp_path, monkeypatch, ("efa", "Unspecified", "4: ACTIVE"))
    found = only(rdma.check_rdma(DOCTOR))
    assert found.verdict == "problem" and "NCCL takes sockets" in found.found and "aws-ofi-nccl" in found.remedy
    (tmp_path / "libnccl-net-ofi.so").touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/none:{tmp_path}")
    found = only(rdma.check_rdma(DOCTOR))
    assert (found.verdict, found.found) == ("ok", "rdma0: EFA")


def test_a_machine_without_rdma_needs_none(tmp_path, monkeypatch):
    monkeypatch.setattr(rdma, "DEVICES", tmp_path / "none")
    assert only(rdma.check_rdma(DOCTOR)).verdict == "ok"
    between = only(rdma.between_nodes(2))
    assert between.verdict == "warning" and "44 GB a node and dense step" in between.found
    assert not list(rdma.between_nodes(1))


def test_the_attention_kernel_that_is_asked_for_is_looked_for():
    def found(name: str, **options: str) -> Finding:
        return only(check_attention(DoctorOptions(attention=name, **options)))

    assert found("auto").verdict == found("math").verdict == "ok"
    assert found("fast").verdict == "problem" and "known: auto, flash" in found("fast").found
    if "sage" not in installed():
        assert found("sage:5").verdict == "problem" and "needs sageattention" in found("sage:5").found
    if not torch.cuda.is_available():
        assert found("cudnn").verdict == "warning" and found("cudnn", address="10.0.0.1:6379").verdict == "ok"
