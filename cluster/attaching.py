"""Attaching to a Ray that somebody else has started: its address, and whether it answers at all."""

import ipaddress
import os
import re
import socket
import tempfile

from ray._private import services
from ray.exceptions import RayError

from cluster.stderr import stderr_into

PROBE_TIMEOUT_S = 5
LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
HOST_NAME = re.compile(rf"{LABEL}(?:\.{LABEL})*\.?")


class ClusterUnavailable(RuntimeError):
    """There is no usable Ray cluster at the address, or none can be started."""


def locate(address: str) -> str:
    """HOST:PORT of a cluster that answers there. Raises as `ray_runtime`."""
    if address == "auto":
        address = _running_here()
    check_address(address)
    _probe(address)
    if not services.find_node_ids():
        raise ClusterUnavailable(
            f"This machine is not a node of the Ray cluster at {address}: run this on one of its nodes, or use "
            f"resca submit with the URL of its dashboard."
        )
    return address


def check_address(address: str) -> None:
    """Raises ValueError for an address that no cluster can have."""
    named = f"RAY_ADDRESS={address}" if address == os.environ.get("RAY_ADDRESS") else f"The Ray address {address!r}"
    if address.startswith("ray://"):
        raise ValueError(f"{named} is for Ray clients, which cannot place gangs; submit the batch as a job instead.")
    if address.startswith(("http://", "https://")):
        raise ValueError(
            f"{named} is that of a dashboard, which takes jobs: use resca submit --dashboard {address}, or give "
            f"host:port (the port is 6379 unless it was changed) or auto."
        )
    host, _, port = address.rpartition(":")
    if not _is_host(host) or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ValueError(f"{named} is malformed; give host:port or auto.")


def _is_host(text: str) -> bool:
    """A name, an IPv4 address with all its parts, or an IPv6 one in brackets: gRPC knows no others."""
    if re.fullmatch(r"[0-9.]*|\[.*\]", text):
        try:
            return ipaddress.ip_address(text.strip("[]")).version == (6 if text.startswith("[") else 4)
        except ValueError:
            return False
    return bool(HOST_NAME.fullmatch(text)) and len(text) <= 253


def ask(address: str) -> None:
    """Raises ClusterUnavailable if the cluster does not answer to this process's token."""
    from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]

    with tempfile.TemporaryFile() as said:
        try:
            with stderr_into(said):  # Ray's C++ tells there, once a second, that the token is wrong.
                GcsClient(address=address)
        except (RuntimeError, RayError) as error:
            said.seek(0)
            if b"InvalidAuthToken" in said.read():
                raise ClusterUnavailable(
                    f"The Ray cluster at {address} cannot be used: it wants another token; compare the tokens (ray "
                    f"get-auth-token, here and on its head), and set RAY_AUTH_MODE=token."
                ) from error
            raise ClusterUnavailable(why_not(address, error)) from error


def is_loopback(address: str) -> bool:
    """Whether an address HOST:PORT can be reached on this machine only."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # A name.
        return False


def why_not(address: str, error: Exception) -> str:
    """What Ray says of a cluster that cannot be used, in one sentence."""
    texts = [str(error), str(error.__cause__ or "")]
    for text in texts:
        versions = re.findall(r"(Ray|Python): (\S+)", text)
        if text.startswith("Version mismatch") and len(versions) == 4:
            theirs, ours = (" and ".join(" ".join(pair) for pair in versions[half : half + 2]) for half in (0, 2))
            return (
                f"The Ray cluster at {address} cannot be used: version mismatch, it has {theirs}, this machine {ours}; "
                f"install the same on both."
            )
    reason = (texts[0].strip() or type(error).__name__).splitlines()[0].rstrip(".")
    return f"The Ray cluster at {address} cannot be used: {reason}."


def _running_here() -> str:
    """The address of the cluster that runs on this machine, as Ray finds it."""
    try:
        found = services.get_ray_address_from_environment("auto", None)
    except ConnectionError:
        found = None
    if found is None:
        raise ClusterUnavailable("No Ray cluster runs on this machine: start one, or name its address, HOST:6379.")
    return found


def _probe(address: str) -> None:
    """Asks for an answer first: Ray itself tries for many minutes, or ends the process."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S) as connection:
            speaks_grpc = _speaks_grpc(connection)
    except OSError as error:
        raise ClusterUnavailable(f"No Ray cluster answers at {address}: {error.strerror or error}.") from error
    if not speaks_grpc:
        raise ClusterUnavailable(f"What answers at {address} is not Ray; the port is 6379 unless it was changed.")


def _speaks_grpc(connection: socket.socket) -> bool:
    """Opens HTTP/2 (RFC 9113, section 3.4): the server must answer with a SETTINGS frame, which is of type 4."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True  # Only a TLS client could ask.
    empty_settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
    frame = connection.recv(9)
    return len(frame) > 3 and frame[3] == 4
