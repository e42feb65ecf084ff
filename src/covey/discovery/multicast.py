"""The socket of multicast DNS-discovery: joined on every interface, shared with other programs.

Source: `dns-discovery.md` section 6; multicast-dns 7.2.5.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from covey.discovery.interfaces import Interface, ipv4_interfaces
from covey.errors import ClosedError, DiscoveryError
from covey.wire.dns_discovery import MULTICAST_PORT
from covey.wire.dns_multicast import LINK_TTL, Arrival

logger = logging.getLogger("covey.discovery.multicast")

GROUP = "224.0.0.251"
REFRESH = 5.0
"""Seconds between two looks at the list of interfaces, as the reference has it."""
MAX_DATAGRAM = 9000
"""Bytes; multicast DNS allows no more (RFC 6762, 17)."""
DATAGRAMS_AT_ONCE = 64
"""Read before others get a turn of the loop."""
READ_SECONDS = 0.002
"""Read for so long at most before others get a turn: one datagram can take milliseconds."""

_LINUX = sys.platform.startswith("linux")
_MULTICAST_ALL = 49
_PKTINFO = 8
_RECVTTL = 12
_TTL = 2
_ANCILLARY = 128


@dataclass(frozen=True, slots=True)
class _Context:
    """What the system tells along with a datagram."""

    ttl: int | None = None
    index: int | None = None


class MulticastSocket:
    """One UDP socket in the group on `port`; give `receive(data, arrival, interface)` to hear it.

    Without `interface` it joins on every interface with an IPv4 address and sends on all but
    loopback, or on loopback when there is no other; the list is looked at again every `refresh`
    seconds. `interface` (a name such as `lo`, or an IPv4 address) keeps to that one alone.
    Other programs may share the port: it is never taken for ourselves, and because the socket is
    bound to the group, unicast datagrams meant for them are not taken away.
    """

    def __init__(
        self,
        receive: Callable[[bytes, Arrival, Interface | None], None],
        *,
        port: int = MULTICAST_PORT,
        interface: str | None = None,
        refresh: float = REFRESH,
        interfaces: Callable[[], Iterable[Interface]] = ipv4_interfaces,
    ) -> None:
        self.port = port
        self._receive = receive
        self._wanted = interface
        self._refresh_seconds = refresh
        self._list = interfaces
        self._joined: dict[int, Interface] = {}
        self._socket: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def joined(self) -> list[Interface]:
        """Interfaces on which the group is heard."""
        return list(self._joined.values())

    @property
    def sending(self) -> list[Interface]:
        """Interfaces on which rounds are sent: one of our hosts hears us by any of them."""
        if self._wanted is not None:
            return self.joined
        outside = [one for one in self._joined.values() if not one.is_loopback]
        return outside or self.joined

    def open(self) -> None:
        """Bind and join. Raises `DiscoveryError` and then holds nothing."""
        loop = asyncio.get_running_loop()
        if not (_tells_arrivals() and _watches_sockets(loop)):
            raise DiscoveryError(
                "multicast needs a system with recvmsg and a loop that can watch sockets, "
                f"which {type(loop).__name__} on {sys.platform} is not"
            )
        try:
            opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        except OSError as error:
            raise self._unheard(error) from error
        try:
            _prepare(opened)
            opened.bind((GROUP if sys.platform != "win32" else "", self.port))
            self._join_all(opened)
            loop.add_reader(opened, self._readable)
        except OSError as error:
            opened.close()
            self._joined.clear()
            raise self._unheard(error) from error
        except BaseException:
            opened.close()
            self._joined.clear()
            raise
        self._loop = loop
        self._socket = opened
        if not self._joined:
            self.close()
            raise DiscoveryError(_nowhere(self._wanted))
        self._timer = loop.call_later(self._refresh_seconds, self._refresh)

    def close(self) -> None:
        """Leave the group. May be called again."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._socket is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        self._joined.clear()

    def send(self, data: bytes, interface: Interface, *, port: int | None = None) -> None:
        """Send to the group by `interface`, at once. Raises `OSError` when the system refuses."""
        if self._socket is None:
            raise ClosedError("the multicast socket is closed")
        route = struct.pack(
            "=4s4si", bytes(4), socket.inet_aton(interface.address), interface.index
        )
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, route)
        try:
            self._socket.sendto(data, (GROUP, self.port if port is None else port))
        except BlockingIOError:
            logger.debug("a datagram was dropped: the socket is full")

    def _unheard(self, error: OSError) -> DiscoveryError:
        reason = error.strerror or error
        return DiscoveryError(f"cannot listen to {GROUP} port {self.port}: {reason}")

    # Joining

    def _refresh(self) -> None:
        if self._socket is None or self._loop is None:
            return
        self._timer = self._loop.call_later(self._refresh_seconds, self._refresh)
        try:
            self._join_all(self._socket)
        except OSError as error:
            logger.warning("cannot look at the network interfaces: %s", error)

    def _join_all(self, joining: socket.socket) -> None:
        """Join where we are not yet; forget interfaces that are gone or have a new address."""
        present = {
            one.index: one
            for one in self._list()
            if self._wanted is None or self._wanted in (one.name, one.address)
        }
        for index in [at for at, one in self._joined.items() if present.get(at) != one]:
            gone = self._joined.pop(index)
            logger.debug("interface %s %s is gone", gone.name, gone.address)
        for index, interface in present.items():
            if index not in self._joined and _join(joining, interface):
                self._joined[index] = interface

    # Receiving

    def _readable(self) -> None:
        clock = asyncio.get_running_loop().time
        until = clock() + READ_SECONDS
        for _ in range(DATAGRAMS_AT_ONCE):
            if self._socket is None or clock() > until:
                return
            try:
                data, ancillary, flags, sender = self._socket.recvmsg(MAX_DATAGRAM, _ANCILLARY)
            except BlockingIOError:
                return
            except OSError as error:  # a report about an earlier datagram of ours
                logger.debug("the multicast socket: %s", error)
                return
            if not flags & socket.MSG_TRUNC:
                self._deliver(data, sender, _context_of(ancillary))

    def _deliver(self, data: bytes, sender: tuple[str, int], context: _Context) -> None:
        interface = None if context.index is None else self._joined.get(context.index)
        arrival = Arrival(
            host=sender[0],
            port=sender[1],
            ttl=context.ttl,
            local_host=None if interface is None else interface.address,
        )
        try:
            self._receive(data, arrival, interface)
        except Exception:  # the edge: a datagram must not end the reader
            logger.exception("a datagram from %s:%d could not be handled", *sender)


def _tells_arrivals() -> bool:
    """Whether the system can tell where a datagram came by: Windows cannot."""
    return hasattr(socket.socket, "recvmsg")


def _watches_sockets(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the loop has readers: the one that Windows has by default does not."""
    return type(loop).add_reader is not asyncio.AbstractEventLoop.add_reader


def _prepare(opened: socket.socket) -> None:
    opened.setblocking(False)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if not _LINUX and hasattr(socket, "SO_REUSEPORT"):
        # Elsewhere several listeners need it; on Linux it would demand it of the others too.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, LINK_TTL)
    opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    if _LINUX:
        # Hear only where this very socket joined, not where any program of the machine did.
        opened.setsockopt(socket.IPPROTO_IP, _MULTICAST_ALL, 0)
        opened.setsockopt(socket.IPPROTO_IP, _PKTINFO, 1)
        opened.setsockopt(socket.IPPROTO_IP, _RECVTTL, 1)


def _join(joining: socket.socket, interface: Interface) -> bool:
    group, address = socket.inet_aton(GROUP), socket.inet_aton(interface.address)
    membership = struct.pack("=4s4si", group, address, interface.index)
    try:
        joining.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:  # joined before its address changed
            logger.info("cannot join %s on %s: %s", GROUP, interface.name, error)
            return False
    return True


def _context_of(ancillary: list[tuple[int, int, bytes]]) -> _Context:
    ttl = index = None
    for level, kind, value in ancillary:
        if level != socket.IPPROTO_IP or len(value) < 4:
            continue
        if kind == _TTL:
            ttl = struct.unpack_from("=i", value)[0]
        elif kind == _PKTINFO:
            index = struct.unpack_from("=i", value)[0]
    return _Context(ttl, index)


def _nowhere(wanted: str | None) -> str:
    if wanted is None:
        return "no network interface with an IPv4 address to multicast on"
    return f"no network interface {wanted} to multicast on"
