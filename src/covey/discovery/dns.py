"""DNS-discovery as a source of a channel: peers on the local network by multicast."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable

from covey.discovery.interfaces import Interface
from covey.discovery.multicast import MulticastSocket
from covey.discovery.source import Report, Timing, Wanted
from covey.errors import DiscoveryError
from covey.limits import Limits
from covey.wire.dns_discovery import DEFAULT_DOMAIN, MULTICAST_PORT
from covey.wire.dns_multicast import Arrival, MulticastNode

logger = logging.getLogger("covey.discovery.dns")

TIMING = Timing(early=(1.0, 3.0), interval=60.0, jitter=10.0)
"""The reference's interval. The early rounds are ours: a datagram may be lost, and two peers that
start together should not need a minute to meet."""


class DnsDiscovery:
    """A source that finds peers by ordinary DNS packets: it asks and answers by multicast.

    `port`, `interface`: see `MulticastSocket`. `loopback` also reports what was announced here.
    `timing` sets the rounds.
    """

    name = "dns"

    def __init__(
        self,
        *,
        port: int = MULTICAST_PORT,
        interface: str | None = None,
        domain: str = DEFAULT_DOMAIN,
        loopback: bool = False,
        timing: Timing = TIMING,
        limits: Limits | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.timing = timing
        self._report: Report | None = None
        self._members: dict[bytes, set[int | None]] = {}
        self._socket = MulticastSocket(self._receive, port=port, interface=interface)
        self._node = MulticastNode(
            secret=random_bytes(32), port=port, domain=domain, loopback=loopback, limits=limits
        )

    def __repr__(self) -> str:
        return f"<DnsDiscovery {'closed' if self._report is None else 'open'}>"

    @property
    def node(self) -> MulticastNode:
        """What is known and counted."""
        return self._node

    async def open(self, report: Report) -> None:
        """Join the group. Raises `DiscoveryError`."""
        self._socket.open()
        self._report = report

    async def round(self, wanted: Wanted) -> None:
        """Ask on every interface; raises `DiscoveryError` when none of them takes a datagram."""
        self._members.setdefault(wanted.hash, set()).add(wanted.port)
        self._node.want(wanted.hash)
        if wanted.port is not None:
            self._node.announce(wanted.hash, wanted.port)
        # An interface may have an address and yet be down: then this machine still hears itself.
        failure: OSError | None = None
        for ways in (self._socket.sending, self._socket.joined):
            sent = False
            for interface in ways:
                try:
                    self._ask(wanted.hash, interface)
                    sent = True
                except OSError as error:
                    failure = error
                    logger.debug("cannot multicast on %s: %s", interface.name, error)
            if sent:
                return
        raise DiscoveryError(f"cannot multicast on any interface: {failure}") from failure

    def leave(self, wanted: Wanted) -> None:
        """Answer for this membership no longer; nothing is sent, the wire has no word for it."""
        if self._report is None:
            return
        members = self._members.get(wanted.hash, set())
        members.discard(wanted.port)
        if wanted.port is not None:
            self._node.unannounce(wanted.hash, wanted.port)
        if not members:
            self._members.pop(wanted.hash, None)
            self._node.forget(wanted.hash)

    async def close(self) -> None:
        """Leave the group. May be called again."""
        self._report = None
        self._socket.close()

    def _ask(self, topic: bytes, interface: Interface) -> None:
        now = asyncio.get_running_loop().time()
        for datagram in self._node.ask(topic, local_host=interface.address, now=now):
            self._socket.send(datagram, interface)

    def _receive(self, data: bytes, arrival: Arrival, interface: Interface | None) -> None:
        now = asyncio.get_running_loop().time()
        heard = self._node.receive_datagram(data, arrival, now)
        if answer := self._node.take_answer():
            ways = [interface] if interface is not None else self._socket.sending
            for way in ways:
                try:
                    self._socket.send(answer.data, way, port=answer.port)
                except OSError as error:
                    logger.debug("cannot answer %s on %s: %s", arrival.host, way.name, error)
        for peer in heard:
            if self._report is not None:
                self._report(peer.topic, peer.host, peer.port)
