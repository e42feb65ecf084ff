from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from covey.discovery.interfaces import Interface, ipv4_interfaces, named_interface
from covey.discovery.multicast import GROUP, MAX_DATAGRAM, MulticastSocket
from covey.errors import ClosedError, DiscoveryError
from covey.wire.dns_multicast import Arrival
from tests.discovery.fakes import free_udp_port

OUTSIDE = Interface("outside0", 4096, "192.0.2.1")


def loopback() -> Interface:
    interface = named_interface("127.0.0.1")
    assert interface is not None
    return interface


class Listener:
    """A multicast socket on loopback and the datagrams it heard."""

    def __init__(
        self, port: int, *, interfaces: Callable[[], list[Interface]] | None = None
    ) -> None:
        self.heard: asyncio.Queue[tuple[bytes, Arrival, Interface | None]] = asyncio.Queue()
        self.socket = (
            MulticastSocket(self._hear, port=port, interface="127.0.0.1")
            if interfaces is None
            else MulticastSocket(self._hear, port=port, interfaces=interfaces, refresh=0.01)
        )

    def _hear(self, data: bytes, arrival: Arrival, interface: Interface | None) -> None:
        if data == b"raise":
            raise ZeroDivisionError
        self.heard.put_nowait((data, arrival, interface))

    async def next(self) -> tuple[bytes, Arrival, Interface | None]:
        async with asyncio.timeout(5):
            return await self.heard.get()


@contextmanager
def listening(port: int) -> Iterator[Listener]:
    listener = Listener(port)
    listener.socket.open()
    try:
        yield listener
    finally:
        listener.socket.close()


def send_raw(data: bytes, port: int, *, host: str = GROUP, ttl: int = 255) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sender.sendto(data, (host, port))


def test_loopback_is_among_the_interfaces_and_found_by_name_and_address() -> None:
    interface = loopback()
    assert interface in ipv4_interfaces()
    assert interface.is_loopback
    assert named_interface(interface.name) == interface
    assert named_interface("no-such-interface") is None
    assert not OUTSIDE.is_loopback


async def test_everybody_in_the_group_hears_a_datagram_also_the_sender() -> None:
    port = free_udp_port()
    with listening(port) as one, listening(port) as two:
        one.socket.send(b"hello", loopback())
        for listener in (one, two):
            data, arrival, interface = await listener.next()
            assert data == b"hello"
            assert arrival == Arrival(host="127.0.0.1", port=port, ttl=255, local_host="127.0.0.1")
            assert interface == loopback()


async def test_an_answer_to_another_port_of_the_group_is_not_heard_on_this_one() -> None:
    port, other = free_udp_port(), free_udp_port()
    with listening(port) as one, listening(other) as two:
        one.socket.send(b"there", loopback(), port=other)
        one.socket.send(b"here", loopback())
        assert (await two.next())[0] == b"there"
        assert (await one.next())[0] == b"here"


async def test_the_ttl_of_a_datagram_is_told() -> None:
    port = free_udp_port()
    with listening(port) as listener:
        send_raw(b"low", port, ttl=3)
        assert (await listener.next())[1].ttl == 3


async def test_unicast_datagrams_to_the_shared_port_are_left_to_others() -> None:
    port = free_udp_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("0.0.0.0", port))
        other.settimeout(5)
        with listening(port) as listener:
            send_raw(b"unicast", port, host="127.0.0.1")
            send_raw(b"group", port)
            assert other.recv(100) == b"unicast"
            assert (await listener.next())[0] == b"group"


async def test_a_datagram_longer_than_multicast_dns_allows_is_dropped() -> None:
    port = free_udp_port()
    with listening(port) as listener:
        send_raw(bytes(MAX_DATAGRAM + 1), port)
        send_raw(b"next", port)
        assert (await listener.next())[0] == b"next"


async def test_an_error_of_the_receiver_does_not_end_the_socket(
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_udp_port()
    with listening(port) as listener:
        send_raw(b"raise", port)
        send_raw(b"next", port)
        assert (await listener.next())[0] == b"next"
    assert "could not be handled" in caplog.text


async def test_a_port_that_another_program_keeps_to_itself_is_told_as_such() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 0))
        listener = Listener(taken.getsockname()[1])
        with pytest.raises(DiscoveryError, match="in use"):
            listener.socket.open()
        assert listener.socket.joined == []


async def test_a_socket_that_the_system_does_not_give_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("covey.discovery.multicast.socket.socket", refuse)
    monkeypatch.setattr("covey.discovery.multicast._tells_arrivals", lambda: True)
    with pytest.raises(DiscoveryError, match=r"cannot listen to .* Too many open files"):
        MulticastSocket(lambda *_: None, port=5353, interface="127.0.0.1").open()


@pytest.mark.parametrize("missing", ["recvmsg", "add_reader"])
async def test_where_sockets_cannot_be_watched_that_is_told_and_nothing_is_opened(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other_system:
        if missing == "recvmsg":
            other_system.setattr(socket, "socket", type("WithoutRecvmsg", (), {}))
        else:
            other_system.setattr(asyncio, "get_running_loop", asyncio.AbstractEventLoop)
            other_system.setattr(socket, "socket", type("NotToBeOpened", (), {"recvmsg": None}))
        with pytest.raises(DiscoveryError, match="a loop that can watch sockets"):
            MulticastSocket(lambda *_: None, port=1).open()


@pytest.mark.parametrize("failure", [NotImplementedError("no readers"), asyncio.CancelledError()])
async def test_whatever_stops_an_opening_leaves_no_socket(
    failure: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[socket.socket] = []

    class Refusing(asyncio.AbstractEventLoop):
        def add_reader(self, fd: Any, callback: Any, *_: Any) -> None:  # type: ignore[override]
            opened.append(fd)
            raise failure

    listener = Listener(free_udp_port())
    with monkeypatch.context() as other_system:
        other_system.setattr(asyncio, "get_running_loop", Refusing)
        with pytest.raises(type(failure)):
            listener.socket.open()
    assert [one.fileno() for one in opened] == [-1]
    assert listener.socket.joined == []


async def test_without_an_interface_to_join_there_is_no_socket() -> None:
    listener = Listener(free_udp_port(), interfaces=list)
    with pytest.raises(DiscoveryError, match="no network interface"):
        listener.socket.open()
    missing = MulticastSocket(listener._hear, port=free_udp_port(), interface="no-such0")
    with pytest.raises(DiscoveryError, match="no-such0"):
        missing.open()
    with pytest.raises(ClosedError):
        missing.send(b"", loopback())


async def test_rounds_go_out_on_all_but_loopback_and_on_loopback_when_there_is_no_other() -> None:
    port = free_udp_port()
    present = [loopback()]
    looked = asyncio.Event()

    def interfaces() -> list[Interface]:
        looked.set()
        return list(present)

    async def look_again() -> None:
        for _ in range(2):
            looked.clear()
            async with asyncio.timeout(5):
                await looked.wait()

    listener = Listener(port, interfaces=interfaces)
    listener.socket.open()
    try:
        assert listener.socket.sending == [loopback()]
        moved = Interface("lo", loopback().index, "127.0.0.2")  # the same one, another address
        present[:] = [moved, OUTSIDE]  # the second cannot be joined: there is none
        await look_again()
        assert listener.socket.joined == [moved]
        listener.socket._joined[OUTSIDE.index] = OUTSIDE
        assert listener.socket.sending == [OUTSIDE]
        present[:] = [loopback()]
        await look_again()
        assert listener.socket.sending == [loopback()]
    finally:
        listener.socket.close()


async def test_closing_twice_is_fine_and_sending_after_it_is_told() -> None:
    listener = Listener(free_udp_port())
    listener.socket.open()
    listener.socket.close()
    listener.socket.close()
    assert listener.socket.joined == []
    with pytest.raises(ClosedError):
        listener.socket.send(b"late", loopback())
    listener.socket.open()  # and it may be opened again
    listener.socket.close()


async def test_a_flood_leaves_others_their_turn() -> None:
    port = free_udp_port()
    with listening(port) as listener:
        for number in range(150):
            send_raw(struct.pack("!I", number), port)
        numbers = [struct.unpack("!I", (await listener.next())[0])[0] for _ in range(150)]
        assert numbers == list(range(150))
