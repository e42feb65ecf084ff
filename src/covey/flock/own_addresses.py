"""Which addresses lead back to this flock's own listener."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from covey.discovery.interfaces import Interface, ipv4_interfaces
from covey.flock.admission import canonical_host
from covey.host_port import parse_ip

REFRESH = 5.0
"""Seconds for which the list of interfaces is believed."""


class OwnAddresses:
    """The (address, port) pairs of the listening sockets, on all interfaces if so bound."""

    def __init__(
        self,
        *,
        interfaces: Callable[[], Iterable[Interface]] = ipv4_interfaces,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._interfaces = interfaces
        self._clock = clock
        self._bound: set[tuple[str, int]] = set()
        self._ports: set[int] = set()
        self._local: set[str] = set()
        self._looked_at: float | None = None

    def add(self, host: str, port: int) -> None:
        """This flock listens at `host`, `port`."""
        self._bound.add((canonical_host(host), port))
        self._ports.add(port)

    def has(self, host: str, port: int) -> bool:
        """Whether `host`, `port` is one of them."""
        if port not in self._ports:
            return False
        host = canonical_host(host)
        host = "127.0.0.1" if host == "localhost" else host
        return any(
            at == port and (bound == host or (_is_wildcard(bound) and self._is_local(host)))
            for bound, at in self._bound
        )

    def _is_local(self, host: str) -> bool:
        address = parse_ip(host)
        if address is not None and address.is_loopback:
            return True
        now = self._clock()
        if self._looked_at is None or now - self._looked_at >= REFRESH:
            self._local = {interface.address for interface in self._interfaces()}
            self._looked_at = now
        return host in self._local


def _is_wildcard(host: str) -> bool:
    address = parse_ip(host)
    return address is None or address.is_unspecified
