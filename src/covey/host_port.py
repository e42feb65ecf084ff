"""A host and a port: one way to write them, and to read an IP address that wears IPv6 clothes."""

from __future__ import annotations

import ipaddress
from typing import TypeAlias

from covey.errors import UsageError

HostPort: TypeAlias = tuple[str, int]
"""A host name or an IP address as text, without brackets, and a port."""
IpAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_port(port: int, *, or_any: bool = False) -> bool:
    """Whether one can connect to `port`; `or_any`: or listen at it, where 0 is any free one."""
    return (0 if or_any else 1) <= port <= 0xFFFF


def check_port(port: int, *, or_any: bool = False) -> None:
    """Raise `UsageError` for what `is_port` says no to, `TypeError` for what is no number."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"a port is a number, not {type(port).__name__}")
    if not is_port(port, or_any=or_any):
        raise UsageError(f"a port is a number from {0 if or_any else 1} to 65535, not {port}")


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
