"""The attention kernel: whether the one that was asked for works here, and which `auto` takes."""

from collections.abc import Iterator

from jobs.doctor.cluster import address_of
from jobs.doctor.finding import Finding, ok, problem, warning
from jobs.doctor.gpus import has_driver
from jobs.options.batch import DoctorOptions
from parallel.kernels import AUTO, Choice


def check_attention(options: DoctorOptions) -> Iterator[Finding]:
    """A kernel is tried on the first GPU; torch is asked only where there is a driver: to import it takes seconds."""
    try:
        choice = Choice.read(options.attention)
    except ValueError as error:
        yield problem(str(error), "name one of these")
        return
    if missing := choice.missing:
        yield problem(missing, "install it on all nodes, or leave --attention auto")
    else:
        yield _try(choice) if has_driver() else _without_gpu(options, choice)


def _try(choice: Choice) -> Finding:
    import torch

    from parallel.local_attention import Attention, obstacle

    if not torch.cuda.is_available():
        return ok(f"{choice.name} was not tried: torch can use no GPU")
    device = torch.device("cuda", 0)
    if without := obstacle(choice, device, torch.bfloat16):
        return problem(without, "leave --attention auto, or name another kernel")
    states = torch.empty(0, device=device, dtype=torch.bfloat16)
    if choice.name != AUTO:
        return ok(f"{choice.name} works here")
    own, ring = (Attention(by_xfuser=ring, ring=ring).kernel(states) for ring in (False, True))
    return ok(f"{AUTO} takes {own}" + (f", and {ring} with --ring" if ring != own else ""))


def _without_gpu(options: DoctorOptions, choice: Choice) -> Finding:
    if choice.on_cpu:
        return ok("PyTorch's own, as there is no GPU here" if choice.name == AUTO else f"{choice.name} works on a CPU")
    found = f"{choice.name} attention is for GPUs, and there is none on this machine"
    return ok(found) if address_of(options) else warning(found, "name a cluster with --address")
