"""What the text of a host tells: near or far (`multiserver-address.md` section 3.3), and where."""

from __future__ import annotations

import ipaddress
from functools import lru_cache
from typing import Literal, TypeAlias

from covey.host_port import parse_ip, unmapped

PeerType: TypeAlias = Literal["lan", "internet", "bt", "dht", "tunnel"]

NETWORK_BITS = 64
"""Bits of an IPv6 address that name its network: one customer has at least that many hosts."""

# The reference's table, not `is_private`: carrier NAT (100.64/10), broadcast, multicast and 0.0.0.0
# count as internet there, and both ends of a pool should agree.
_LOCAL_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "169.254.0.0/16",
    )
)
_LOCAL_V6 = tuple(
    ipaddress.IPv6Network(network) for network in ("fc00::/7", "fe80::/10", "::1/128", "::/128")
)


@lru_cache(maxsize=1024)
def peer_type(host: str) -> Literal["lan", "internet"]:
    """`lan` for hosts of this machine or its networks, else `internet`; nothing is looked up.

    Takes numeric addresses (strictly: no octal, no hex), with brackets or a zone, and names.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    bare = bare.partition("%")[0]
    address = parse_ip(bare)
    if address is None:
        name = bare.lower()
        near = name == "localhost" or name.endswith((".localhost", ".local"))
        return "lan" if near else "internet"
    local = _LOCAL_V4 if address.version == 4 else _LOCAL_V6
    return "lan" if any(address in network for network in local) else "internet"


@lru_cache(maxsize=1024)
def network_of(host: str) -> str:
    """What limits per remote host count by: IPv6 hosts by their /64, everything else by itself.

    A single machine has the 2^64 addresses of its network to choose from. IPv4 addresses in IPv6
    clothes count as the IPv4 address; a link-local one keeps its zone.
    """
    address = parse_ip(host)
    if address is None or address.is_loopback:
        return unmapped(host)
    if address.version == 4:
        return str(address)
    network = int(address) >> (128 - NETWORK_BITS) << (128 - NETWORK_BITS)
    zone = f"%{address.scope_id}" if address.scope_id else ""
    return f"{ipaddress.IPv6Address(network)}/{NETWORK_BITS}{zone}"
