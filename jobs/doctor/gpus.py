"""The GPUs of this machine: whether torch can use what the driver sees, and whether they are free."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from caching.recipe.recipe import RECIPES
from cluster.devices import LEFT_VISIBLE, shared_gpus
from cluster.gpus import Gpu, seen_by_driver
from jobs.console import duration
from jobs.doctor.cluster import address_of
from jobs.doctor.finding import Finding, ok, problem, size, warning
from jobs.errors import BadInput
from jobs.models.demos import DEMOS
from jobs.models.facts import local_directory, read_facts
from jobs.options.batch import DoctorOptions, RenderOptions
from jobs.predict.gpus import GPUS, profile
from jobs.predict.seconds import Setup, interval_of
from jobs.predict.shape import shape_of_facts, video_of
from jobs.request.guidance import num_passes, sampling_by_default
from jobs.store.items import FP8
from parallel.layout import Layout

DEVICE_FILES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
# What a driver keeps for itself is less.
IN_USE_BYTES = 2**30
GET_TORCH = "install a torch for this driver, see https://pytorch.org/get-started/locally"


def check_gpus(options: DoctorOptions) -> Iterator[Finding]:
    """Torch is asked only where there is a driver: to import it takes seconds."""
    if shared := shared_gpus():
        yield problem(shared, f"unset {LEFT_VISIBLE} where Ray is started, on each node")
    try:
        gpus = seen_by_driver()
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        yield problem(f"nvidia-smi does not answer: {error}", "reinstall the driver, or restart the machine")
        return
    if not gpus and not has_driver():
        yield _without(options)
        return
    yield from _compare(gpus)
    yield from (_in_use(gpu) for gpu in gpus if gpu.used_bytes > IN_USE_BYTES)
    if sizes := [gpu.total_bytes for gpu in gpus if gpu.total_bytes]:
        yield from check_room(options, min(sizes), len(gpus))
        yield from predict_speed(options, gpus[0].name)


def has_driver() -> bool:
    """Whether there may be a GPU: as good as any driver leaves one of these files."""
    return any(Path(file).exists() for file in DEVICE_FILES)


def check_room(options: DoctorOptions, gpu_bytes: float, num_gpus: int) -> Iterator[Finding]:
    """Whether one of the GPUs has room for a video of a local model, with the defaults of everything."""
    if local_directory(options.model) is None:
        return
    import torch

    from jobs.rank.memory import MemoryPlanner, Setting, models_at

    try:
        facts = read_facts(options.model, variant=options.variant)
    except (BadInput, OSError):
        return  # the check of the model's files tells
    dtype, defaults = getattr(torch, facts.dtype), facts.defaults
    if (models := models_at(facts.directory, dtype)) is None:
        return
    planner = MemoryPlanner(models, facts, dtype)
    setting = Setting(
        method=RECIPES[RenderOptions.method],
        height=defaults.height,
        width=defaults.width,
        num_frames=defaults.num_frames,
        num_steps=defaults.steps,
        layout=Layout(),
        fp8=options.weights == FP8,
        num_passes=num_passes(facts.family, sampling_by_default(facts)),
    )
    if refusal := planner.refusal(setting, gpu_bytes, num_gpus):
        yield warning(refusal, "resca memory --methods all lists what fits")
    else:
        yield ok(f"{facts.name} at {setting.size} needs {planner.need(setting)} of {size(gpu_bytes)}")


def predict_speed(options: DoctorOptions, gpu_name: str) -> Iterator[Finding]:
    """What a video of a local model is expected to take on one GPU, with the defaults of everything."""
    gpu = next((known for known in GPUS if known in gpu_name.lower().split()), None)
    if gpu is None or local_directory(options.model) is None:
        return
    try:
        facts = read_facts(options.model, variant=options.variant)
    except (BadInput, OSError):
        return
    shape, defaults = shape_of_facts(facts, num_passes(facts.family, sampling_by_default(facts))), facts.defaults
    size = {name: getattr(defaults, name) for name in ("height", "width", "num_frames", "steps")}
    setup = Setup(shape=shape, video=video_of(shape, RECIPES[RenderOptions.method], **size), layout=Layout())
    low, high = interval_of(setup, profile(gpu, "pcie", "ib400"))
    yield ok(
        f"a video by {RenderOptions.method} is predicted to take {duration(low)} to {duration(high)} on one {gpu}, "
        f"without decoding; it was not measured: {defaults.height}x{defaults.width}x{defaults.num_frames}"
    )


def _without(options: DoctorOptions) -> Finding:
    if options.model in DEMOS or address_of(options):
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
