"""Whom the flock may talk to: addresses worth dialling, whitelist and bans."""

from __future__ import annotations

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from covey.errors import UsageError
from covey.flock.policy import Reason
from covey.host_port import is_port, parse_ip
from covey.peer_type import peer_type

IpNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


def canonical_host(host: str) -> str:
    """One spelling per host: IP addresses normalised, names in lower case."""
    address = parse_ip(host)
    return host.lower() if address is None else str(address)


def undialable(host: str, port: int) -> str | None:
    """Why no connection to `host`, `port` can make sense, or None.

    Refused are port 0 and what is no port, and the multicast, broadcast, unspecified and
    reserved addresses: a forged answer must not make us send to them.
    """
    if not is_port(port):
        return f"{port} is not a port"
    address = parse_ip(host)
    if address is None:
        return None if host and not host.isspace() else "no host"
    if address.is_multicast:
        return f"{host} is a multicast address"
    if address.is_unspecified:
        return f"{host} names no host"
    if address.version == 4 and int(address) == 0xFFFFFFFF:
        return f"{host} is the broadcast address"
    if address.version == 4 and (address.is_reserved or int(address) >> 24 == 0):
        return f"{host} is a reserved address"
    return None


_HOST_NAME = re.compile(r"(?![\d.]+$)[^\s/:*\[\]]+")
"""Not a check of DNS rules: it only tells a name from a mistyped address, network or pattern."""


def _network(entry: str) -> IpNetwork | None:
    address = parse_ip(entry)
    try:
        return ipaddress.ip_network(entry if address is None else address, strict=False)
    except ValueError:
        return None


class Whitelist:
    """Hosts that are allowed: IP addresses, networks in CIDR form, or host names. Empty: all.

    Raises `UsageError` for an entry that is none of these, `TypeError` for one that is no text.
    """

    def __init__(self, entries: Iterable[str] = ()) -> None:
        self._networks: list[IpNetwork] = []
        self._names: set[str] = set()
        if isinstance(entries, str):
            raise TypeError(f"a whitelist is a list of hosts, not the text {entries!r}")
        for entry in entries:
            if not isinstance(entry, str):
                raise TypeError(f"a whitelist entry is text, not {type(entry).__name__}")
            if (network := _network(entry)) is not None:
                self._networks.append(network)
            elif _HOST_NAME.fullmatch(entry):
                self._names.add(entry.lower())
            else:
                raise UsageError(
                    f"{entry!r} is no whitelist entry: expected is an IP address (10.1.2.3), a "
                    "network in CIDR form (10.0.0.0/8, fd00::/8) or a host name, without port"
                )

    def __bool__(self) -> bool:
        return bool(self._networks or self._names)

    def allows(self, host: str) -> bool:
        """Whether `host` may be dialled or accepted."""
        if not self:
            return True
        address = parse_ip(host)
        if address is None:
            return host.lower() in self._names
        return any(address in network for network in self._networks)


class Bans:
    """Addresses that are not dialled, for one topic or (`name` None) for all, with the reason.

    What the application banned stays until it is lifted; of those that this node found to be
    itself the oldest are forgotten first above `limit`, because strangers can cause them.
    """

    def __init__(self, *, limit: int = 1024) -> None:
        self._limit = limit
        self._found: OrderedDict[tuple[str, int, bytes | None], Reason] = OrderedDict()
        self._asked: dict[tuple[str, int, bytes | None], Reason] = {}

    def __len__(self) -> int:
        return len(self._found) + len(self._asked)

    def add(self, host: str, port: int, name: bytes | None, reason: Reason) -> None:
        """Ban `host`, `port` for the topic `name`."""
        key = (host, port, name)
        if reason is Reason.APPLICATION:
            self._asked[key] = reason
            return
        self._found[key] = reason
        self._found.move_to_end(key)
        if len(self._found) > self._limit:
            self._found.popitem(last=False)

    def lift(self, host: str, port: int, name: bytes | None) -> bool:
        """Take back a ban of the application; True when there was one."""
        return self._asked.pop((host, port, name), None) is not None

    def reason(self, host: str, port: int, name: bytes | None) -> Reason | None:
        """Why `host`, `port` is banned for the topic, or None."""
        for key in ((host, port, name), (host, port, None)):
            reason = self._asked.get(key) or self._found.get(key)
            if reason is not None:
                return reason
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """Which addresses may be dialled at all.

    `is_own(host, port)` knows this node's own listening addresses; from sources in
    `public_sources` no private addresses are taken.
    """

    whitelist: Whitelist
    bans: Bans
    is_own: Callable[[str, int], bool]
    public_sources: frozenset[str] = frozenset()

    def refusal(self, name: bytes, host: str, port: int, source: str) -> tuple[Reason, str] | None:
        """Why `host`, `port`, told by `source`, is not dialled for a topic, or None."""
        if (text := undialable(host, port)) is not None:
            return Reason.UNDIALABLE, text
        if not self.whitelist.allows(host):
            return Reason.WHITELIST, f"{host} is not on the whitelist"
        if (banned := self.bans.reason(host, port, name)) is not None:
            return Reason.BANNED, f"banned: {banned}"
        if self.is_own(host, port):
            return Reason.OWN_ADDRESS, "this flock listens there itself"
        if source in self.public_sources and peer_type(host) == "lan":
            return Reason.PRIVATE_ADDRESS, f"{source} cannot know a private address"
        return None
