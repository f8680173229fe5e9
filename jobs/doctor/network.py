"""Interfaces and ports of this machine, and who may reach Ray's dashboard on it."""

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import psutil

from cluster.interfaces import CHOICES, wrong_choice
from jobs.doctor.finding import Finding, ok, problem, warning
from jobs.options.batch import DoctorOptions

# Bridges of containers and virtual machines: no other machine is reached by them.
INTERNAL = ("docker", "veth", "br-", "virbr", "cni", "flannel", "cali", "vmnet", "lxc", "podman")
EVERYWHERE = ("0.0.0.0", "::")
DASHBOARD_PORT = 8265
DASHBOARD = "ray/dashboard/dashboard.py"
RAY_PROGRAMS = (DASHBOARD, "gcs_server", "ray.util.client.server", "ray::")


@dataclass(frozen=True, kw_only=True)
class Port:
    """A port that `ray start --head` takes, and the option that names another."""

    number: int
    what: str
    option: str


PORTS = (
    Port(number=6379, what="Ray's head", option="--port"),
    Port(number=DASHBOARD_PORT, what="Ray's dashboard and jobs", option="--dashboard-port"),
    Port(number=10001, what="Ray's client", option="--ray-client-server-port"),
)


@dataclass(frozen=True, kw_only=True)
class Listener:
    """A process that waits for connections. `command` is empty for another user's."""

    host: str
    port: int
    command: str

    @property
    def is_ray(self) -> bool:
        """Whether it is a part of Ray."""
        return any(program in self.command for program in RAY_PROGRAMS)

    @property
    def is_dashboard(self) -> bool:
        """Whether jobs are taken there; the same process shows metrics on another port."""
        return self.port == DASHBOARD_PORT or (DASHBOARD in self.command and f"--port={self.port} " in self.command)


def check_interfaces(options: DoctorOptions) -> Iterator[Finding]:
    """The address that Ray, gloo and NCCL would take on this machine, and what else there is."""
    import ray.util

    addresses = _addresses()
    taken = ray.util.get_node_ip_address()
    yield from _named()
    if not addresses:
        yield warning("only the loopback interface is up", "enough for this machine; a cluster needs a network")
    elif taken not in addresses.values():
        others = ", ".join(f"{name} {address}" for name, address in addresses.items())
        yield warning(f"Ray would take {taken}, not {others}", "name the address: ray start --node-ip-address=ADDRESS")
    elif len(addresses) > 1:
        others = ", ".join(f"{name} {address}" for name, address in addresses.items() if address != taken)
        remedy = (
            "if another is faster: ray start --node-ip-address, GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME on each node"
        )
        yield warning(f"{_owner(addresses, taken)} {taken} is taken; there is also {others}", remedy)
    else:
        yield ok(f"{_owner(addresses, taken)} {taken}")


def _addresses() -> dict[str, str]:
    """The IPv4 address of each interface that is up and may lead to other machines."""
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup and not name.startswith(INTERNAL)}
    return {
        name: entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family == socket.AF_INET and not entry.address.startswith("127.")
    }


def _owner(addresses: dict[str, str], address: str) -> str:
    return next(name for name, own in addresses.items() if own == address)


def _named() -> Iterator[Finding]:
    """Names given by the environment that fit no interface."""
    for variable in CHOICES:
        if wrong := wrong_choice(variable):
            yield problem(wrong, f"unset {variable}")


def check_ports(options: DoctorOptions) -> Iterator[Finding]:
    """The ports that a head node needs."""
    listeners = listening()
    return (look_at(port, listeners) for port in PORTS)


def look_at(port: Port, listeners: list[Listener]) -> Finding:
    """Whether one port is free, Ray's, or somebody else's."""
    owners = [listener for listener in listeners if listener.port == port.number]
    if not owners:
        return ok(f"{port.number} ({port.what}) is free")
    if any(owner.is_ray for owner in owners):
        return ok(f"{port.number} is {port.what}")
    who = owners[0].command[:80] or "a process of another user"
    return warning(
        f"{port.number} ({port.what}) is taken by {who}", f"to start a head here: ray start --head {port.option}=NUMBER"
    )


def check_dashboard(options: DoctorOptions) -> Iterator[Finding]:
    """Whoever reaches the dashboard's port can start jobs, unless a token is asked for (CVE-2023-48022)."""
    here = [listener for listener in listening() if listener.is_dashboard]
    open_to_all = [listener for listener in here if listener.host in EVERYWHERE]
    for listener in open_to_all:
        yield warning(
            f"port {listener.port} is open on all interfaces",
            "ray start --head --dashboard-host=127.0.0.1 and a tunnel (ssh -L), or RAY_AUTH_MODE=token and a firewall",
        )
    if not open_to_all:
        yield ok(f"only on {here[0].host}:{here[0].port}" if here else "none on this machine")


def listening() -> list[Listener]:
    """Every TCP port that is taken on this machine."""
    return [
        Listener(host=entry.laddr.ip, port=entry.laddr.port, command=_command(entry.pid))
        for entry in psutil.net_connections("tcp")
        if entry.status == psutil.CONN_LISTEN and entry.laddr
    ]


def _command(pid: int | None) -> str:
    with suppress(psutil.Error):
        return " ".join(psutil.Process(pid).cmdline()).strip() if pid else ""
    return ""
