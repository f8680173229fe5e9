"""`resca doctor [--address HOST:PORT] [--out DIR]`: what of this machine and its cluster would be in the way."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from jobs.console import count, make_console, print_rows, write_rows
from jobs.doctor import cluster, files, gpus, kernels, machine, network, packages, rdma
from jobs.doctor.finding import PROBLEM, WARNING, Finding, warning
from jobs.errors import BAD_INPUT, DONE
from jobs.options.batch import DoctorOptions

CHECKS: dict[str, Callable[[DoctorOptions], Iterable[Finding]]] = {
    "python": packages.check_python,
    "packages": packages.check_packages,
    "gpus": gpus.check_gpus,
    "attention": kernels.check_attention,
    "memory": machine.check_memory,
    "shared memory": machine.check_shared_memory,
    "open files": machine.check_open_files,
    "disk": machine.check_disk,
    "network": network.check_interfaces,
    "rdma": rdma.check_rdma,
    "ports": network.check_ports,
    "dashboard": network.check_dashboard,
    "token": cluster.check_token,
    "ray": cluster.check_cluster,
    "ffmpeg": files.check_video,
    "model": files.check_model,
    "output": files.check_output,
}


def run(options: DoctorOptions) -> int:
    """Print a table of findings. Returns 0, or 2 if one is a problem."""
    # Most of them wait: for a process, a server or a disk.
    with ThreadPoolExecutor(len(CHECKS)) as pool:
        rows = [row for rows in pool.map(lambda name: _rows(name, options), CHECKS) for row in rows]
    console = make_console()
    print_rows(console, rows)
    verdicts = [row["verdict"] for row in rows]
    console.print(f"{count(verdicts.count(PROBLEM), 'problem')}, {count(verdicts.count(WARNING), 'warning')}")
    if options.json:
        write_rows(options.json, rows)
    return BAD_INPUT if PROBLEM in verdicts else DONE


def _rows(name: str, options: DoctorOptions) -> list[dict[str, str]]:
    try:
        findings = list(CHECKS[name](options))
    except Exception as error:  # What is wrong with a machine cannot be foreseen, and the other checks still tell.
        found = f"the check itself failed: {type(error).__name__}: {error}"
        findings = [warning(found, "look at this by hand, and report it")]
    return [{"check": name, **vars(finding)} for finding in findings]
