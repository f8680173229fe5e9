"""The network interface that gloo and NCCL take on a host."""

import os
import socket
import struct
import sys

CHOICES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def use_interface_of(host: str) -> None:
    """On hosts with several interfaces gloo and NCCL may choose the loopback; name the one that Ray uses.

    Raises ValueError if the environment names an interface that is not there.
    """
    for variable in CHOICES:
        if wrong := wrong_choice(variable):
            raise ValueError(f"On {host}, {wrong}.")
    if interface := _interface_of(host):
        for variable in CHOICES:
            os.environ.setdefault(variable, interface)


def wrong_choice(variable: str) -> str | None:
    """What is wrong with the interfaces that a variable names; `^` excludes names, `=` asks for exactly this one."""
    choice = os.environ.get(variable, "")
    names = [name.lstrip("=") for name in choice.split(",") if name]
    known = [name for _, name in socket.if_nameindex()]
    if not names or choice.startswith("^") or any(own.startswith(name) for name in names for own in known):
        return None
    return f"{variable}={choice} names no interface; there are {', '.join(known)}"


def _interface_of(host: str) -> str | None:
    if not sys.platform.startswith("linux"):
        return None
    names = [name for _, name in socket.if_nameindex()]
    return next((name for name in names if _address_of(name) == host), None)


def _address_of(interface: str) -> str | None:
    import fcntl

    get_interface_address = 0x8915  # SIOCGIFADDR in linux/sockios.h
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            answer = fcntl.ioctl(probe, get_interface_address, struct.pack("256s", interface.encode()[:15]))
        except OSError:  # An interface without an IPv4 address.
            return None
    return socket.inet_ntoa(answer[20:24])
