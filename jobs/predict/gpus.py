"""Profiles of GPUs and links by name. Peaks are the makers'; what part of them is reached, papers' or assumed."""

from dataclasses import dataclass

from jobs.errors import BadInput
from jobs.predict.profile import Profile, Quantity
from jobs.request.passes import BLOCK_LAUNCH_S

GIB = 2**30
ASSUMED = "assumed, not measured"


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A kind of GPU: dense bfloat16 FLOP/s, bytes of its memory and of NVLink, and what part is reached of them."""

    peak_flops_per_s: float
    memory_bytes_per_s: float
    memory_gib: float
    """As a process sees it."""
    nvlink_bytes_per_s: float | None
    """In one direction; None where there is none."""
    pcie_bytes_per_s: float
    """The same of its 16 lanes."""
    attention: Quantity
    """The part of the peak that attention kernels reach."""
    decode_flops_per_s: Quantity
    source: str


@dataclass(frozen=True, kw_only=True)
class Link:
    """Bytes a second in one direction that a rank sends, and seconds of a call beside them."""

    bytes_per_s: Quantity
    call_s: Quantity
    is_shared: bool = False


def _tflops(value: float, low: float, high: float, source: str) -> Quantity:
    return Quantity(value=value * 1e12, low=low * 1e12, high=high * 1e12, source=source)


FLASH_3 = (
    "FlashAttention-3 (arXiv 2407.08608): its own kernel reaches 75% of an H100's peak, FlashAttention-2 35%; xDiT's "
    "HunyuanVideo comes to about 30%"
)
HOPPER = Quantity(value=0.6, low=0.3, high=0.75, source=FLASH_3)
LINEAR = Quantity(
    value=0.65, low=0.45, high=0.85, source=f"part of the peak, with norms beside the products: {ASSUMED}"
)
DECODED = "taehv's documentation: the HunyuanVideo VAE decodes 61 frames of 512x320 on a GH200 in 2 to 3 s"
HOPPER_DECODE = _tflops(70, 50, 120, DECODED)
SHEET = "the maker's data sheet"
GPUS = {
    "h100": Gpu(
        peak_flops_per_s=989e12,
        memory_bytes_per_s=3.35e12,
        memory_gib=79,
        nvlink_bytes_per_s=450e9,
        pcie_bytes_per_s=63e9,
        attention=HOPPER,
        decode_flops_per_s=HOPPER_DECODE,
        source=f"{SHEET} (SXM)",
    ),
    "h200": Gpu(
        peak_flops_per_s=989e12,
        memory_bytes_per_s=4.8e12,
        memory_gib=139,
        nvlink_bytes_per_s=450e9,
        pcie_bytes_per_s=63e9,
        attention=HOPPER,
        decode_flops_per_s=HOPPER_DECODE,
        source=SHEET,
    ),
    "b200": Gpu(
        peak_flops_per_s=2250e12,
        memory_bytes_per_s=7.7e12,
        memory_gib=178,
        nvlink_bytes_per_s=900e9,
        pcie_bytes_per_s=63e9,
        attention=Quantity(value=0.55, low=0.3, high=0.71, source=f"up to 71% by FlashAttention-4; else {ASSUMED}"),
        decode_flops_per_s=_tflops(100, 60, 200, f"somewhat more than Hopper: {ASSUMED}"),
        source=SHEET,
    ),
    "a100": Gpu(
        peak_flops_per_s=312e12,
        memory_bytes_per_s=2.04e12,
        memory_gib=79,
        nvlink_bytes_per_s=300e9,
        pcie_bytes_per_s=31.5e9,
        attention=Quantity(
            value=0.65, low=0.5, high=0.73, source="FlashAttention-2 (arXiv 2307.08691): up to 73% of an A100's peak"
        ),
        decode_flops_per_s=_tflops(50, 30, 80, f"somewhat less than Hopper: {ASSUMED}"),
        source=f"{SHEET} (80 GB, SXM)",
    ),
    "l20": Gpu(
        peak_flops_per_s=119.5e12,
        memory_bytes_per_s=0.864e12,
        memory_gib=44,
        nvlink_bytes_per_s=None,
        pcie_bytes_per_s=31.5e9,
        attention=Quantity(value=0.7, low=0.5, high=0.9, source=f"as of an A100: {ASSUMED}"),
        decode_flops_per_s=_tflops(40, 20, 60, f"a third of the peak: {ASSUMED}"),
        source=SHEET,
    ),
    "h20": Gpu(
        peak_flops_per_s=148e12,
        memory_bytes_per_s=4.0e12,
        memory_gib=95,
        nvlink_bytes_per_s=450e9,
        pcie_bytes_per_s=63e9,
        attention=Quantity(value=0.7, low=0.5, high=0.85, source=f"as of an A100: {ASSUMED}"),
        decode_flops_per_s=_tflops(50, 30, 70, f"a third of the peak: {ASSUMED}"),
        source=SHEET,
    ),
}
PCIE_CALL = Quantity(value=4e-5, low=2e-5, high=1e-4, source=ASSUMED)
NETWORKS = {
    "ib400": Link(
        bytes_per_s=Quantity(value=40e9, low=25e9, high=47e9, source=f"400 Gbit/s a GPU, 80% of it: {ASSUMED}"),
        call_s=Quantity(value=4e-5, low=1e-5, high=1e-4, source=ASSUMED),
    ),
    "tcp100": Link(
        bytes_per_s=Quantity(value=10e9, low=5e9, high=12e9, source=f"100 Gbit/s a node, 80% of it: {ASSUMED}"),
        call_s=Quantity(value=1.5e-4, low=5e-5, high=1e-3, source=ASSUMED),
        is_shared=True,
    ),
}
NVLINK_CALL = Quantity(value=2.5e-5, low=1e-5, high=6e-5, source=ASSUMED)
HOST = {
    "block_launch_s": Quantity(
        value=BLOCK_LAUNCH_S,
        low=2e-4,
        high=1e-3,
        source="4,300 launches of HunyuanVideo's 60 blocks in 40 ms, estimated",
    ),
    "step_s": Quantity(value=0.005, low=0.001, high=0.02, source=ASSUMED),
    "encode_s": Quantity(value=0.5, low=0.1, high=2.0, source=ASSUMED),
    # 5 of 17 seconds to encode, and 0.7 to decode again, for 129 frames of 720x1280.
    "tail_pixel_s": Quantity(value=4.8e-8, low=3e-8, high=8e-8, source="measured on 2 CPU cores, see jobs/README.md"),
    "publish_s": Quantity(value=0.5, low=0.1, high=3.0, source=ASSUMED),
    "load_s": Quantity(value=60.0, low=20.0, high=300.0, source=ASSUMED),
}
# One core, and what this project measured of it: 0.4151 TFLOPs in 3.41 s of 2 cores (results/demo/rows.json).
CORE = Quantity(value=6.1e10, low=3e10, high=1e11, source="the demo model by `full` on 2 CPU cores, jobs/results/demo")
CPU_HOST = {
    **HOST,
    "block_launch_s": Quantity(value=1e-3, low=3e-4, high=3e-3, source=ASSUMED),
    "encode_s": Quantity(value=0.05, low=0.01, high=0.5, source=ASSUMED),
    "publish_s": Quantity(value=0.05, low=0.01, high=0.5, source=ASSUMED),
    "load_s": Quantity(value=10.0, low=3.0, high=30.0, source=ASSUMED),
}
CPU_MEMORY = Quantity(value=1e10, low=5e9, high=2e10, source=ASSUMED)
LOOPBACK = Link(
    bytes_per_s=Quantity(value=2e9, low=5e8, high=5e9, source=f"gloo on one machine: {ASSUMED}"),
    call_s=Quantity(value=2e-4, low=5e-5, high=1e-3, source=ASSUMED),
)
CORES_PER_GPU = 12


def profile(gpu: str, link: str, network: str, ranks_per_node: int = 8) -> Profile:
    """A kind of GPU, or `cpu`, in nodes. Raises BadInput for names that are not known, and for NVLink where none is."""
    if gpu != "cpu" and gpu not in GPUS:
        raise BadInput(f"unknown --gpu {gpu}; known: {', '.join([*GPUS, 'cpu'])}")
    within, between = (LOOPBACK if gpu == "cpu" else _link(gpu, link)), _link(gpu, network)
    links = {
        "link_bytes_per_s": within.bytes_per_s,
        "link_call_s": within.call_s,
        "network_bytes_per_s": between.bytes_per_s,
        "network_call_s": between.call_s,
    }
    words = f"{gpu} ({'loopback' if gpu == 'cpu' else link} within nodes of {ranks_per_node}, {network} between them)"
    return Profile(
        words=words,
        quantities={**(_of_core() if gpu == "cpu" else _of_gpu(GPUS[gpu])), **links},
        memory_bytes=float("inf") if gpu == "cpu" else GPUS[gpu].memory_gib * GIB,
        cores=1 if gpu == "cpu" else CORES_PER_GPU,
        ranks_per_node=ranks_per_node,
        network_is_shared=between.is_shared,
        launches_overlap=gpu != "cpu",
    )


def _link(gpu: str, name: str) -> Link:
    if name in NETWORKS:
        return NETWORKS[name]
    within, call_s = (
        (GPUS[gpu].nvlink_bytes_per_s, NVLINK_CALL) if name == "nvlink" else (GPUS[gpu].pcie_bytes_per_s, PCIE_CALL)
    )
    if within is None:
        raise BadInput(f"--link nvlink: an {gpu} has none; it has pcie")
    parts = (0.45, 0.7, 0.85) if name == "nvlink" else (0.25, 0.5, 0.8)  # PCIe goes through the host
    low, value, high = (part * within for part in parts)
    return Link(
        bytes_per_s=Quantity(
            value=value, low=low, high=high, source=f"{GPUS[gpu].source}, {parts[1]:.0%} of it: {ASSUMED}"
        ),
        call_s=call_s,
    )


def _of_gpu(gpu: Gpu) -> dict[str, Quantity]:
    memory = gpu.memory_bytes_per_s
    return {
        **HOST,
        "linear_flops_per_s": LINEAR.scaled(gpu.peak_flops_per_s),
        "attention_flops_per_s": gpu.attention.scaled(gpu.peak_flops_per_s),
        "decode_flops_per_s": gpu.decode_flops_per_s,
        "memory_bytes_per_s": Quantity(value=0.8 * memory, low=0.6 * memory, high=0.9 * memory, source=gpu.source),
    }


def _of_core() -> dict[str, Quantity]:
    of_work = dict.fromkeys(("linear_flops_per_s", "attention_flops_per_s", "decode_flops_per_s"), CORE)
    return {**CPU_HOST, **of_work, "memory_bytes_per_s": CPU_MEMORY}
