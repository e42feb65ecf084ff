"""The IPv4 network interfaces of this machine, without a package for it."""

from __future__ import annotations

import ipaddress
import socket
import struct
import sys
from dataclasses import dataclass

_LINUX = sys.platform.startswith("linux")
_GET_ADDRESS = 0x8915 if _LINUX else 0xC0206921  # SIOCGIFADDR
_REQUEST = 40  # sizeof(struct ifreq); the address is 4 bytes at 20


@dataclass(frozen=True, slots=True)
class Interface:
    """One interface with its first IPv4 address as text; `index` as the system counts them."""

    name: str
    index: int
    address: str

    @property
    def is_loopback(self) -> bool:
        """Whether nothing sent there leaves the machine."""
        return ipaddress.IPv4Address(self.address).is_loopback


def ipv4_interfaces() -> list[Interface]:
    """Interfaces that have an IPv4 address now. Empty where the system does not tell."""
    try:
        import fcntl
    except ImportError:  # Windows
        return []
    found = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for index, name in socket.if_nameindex():
            request = struct.pack(f"{_REQUEST}s", name.encode()[:15])
            try:
                reply = fcntl.ioctl(asking, _GET_ADDRESS, request)
            except OSError:
                continue  # no IPv4 address, or gone meanwhile
            found.append(Interface(name, index, socket.inet_ntoa(reply[20:24])))
    return found


def named_interface(text: str) -> Interface | None:
    """The interface called `text`, or the one with that address; None when there is none."""
    for interface in ipv4_interfaces():
        if text in (interface.name, interface.address):
            return interface
    return None
