"""A host and a port: one way to write them, and to read an IP address that wears IPv6 clothes."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

HostPort: TypeAlias = tuple[str, int]
"""A host name or an IP address as text, without brackets, and a port."""
IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def show(host: str, port: int) -> str:
    """`host:port` as one writes it, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def parse_ip(host: str) -> IpAddress | None:
    """The IP address that `host` spells, IPv4-mapped ones as IPv4; None for a host name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if address.version == 6 and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def unmapped(host: str) -> str:
    """`host` without the IPv6 clothes that a dual-stack socket gives IPv4 addresses."""
    if ":" not in host:
        return host
    address = parse_ip(host)
    return str(address) if address is not None and address.version == 4 else host
