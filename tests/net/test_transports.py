"""A transport of one's own, what an endpoint says of itself, and what it refuses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from covey.address import Address, Step, encode_key
from covey.errors import AddressError, ClosedError, ConnectError, HandshakeError, UsageError
from covey.limits import Limits
from covey.net import sockets, tcp
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.net.sockets import liveness_options
from covey.net.stream_shell import StreamShell
from tests.net.endpoints import HOST, RawPeer, dialling, joined, listening, receive, until

Accept = Callable[[tuple[str, int]], StreamShell | None]


class UnixListener:
    def __init__(self, path: str, server: asyncio.Server) -> None:
        self.address = (path, 0)
        self._server = server

    async def close(self) -> None:
        self._server.close()


class UnixTransport:
    """`unix:PATH`: no host and no port."""

    name = "unix"
    type = "unix"

    def place(self, step: Step) -> tuple[str, int]:
        if len(step.data) != 1:
            raise AddressError(f"one path, not {step}")
        return step.data[0], 0

    async def dial(
        self, step: Step, make_shell: Callable[[tuple[str, int]], StreamShell]
    ) -> StreamShell:
        where = self.place(step)
        loop = asyncio.get_running_loop()
        _, shell = await loop.create_unix_connection(lambda: make_shell(where), where[0])
        return shell

    async def listen(self, host: str | None, port: int, accept: Accept) -> UnixListener:
        assert host is not None
        assert port == 0

        def welcome() -> StreamShell:
            shell = accept((host, 0))
            assert shell is not None
            return shell

        loop = asyncio.get_running_loop()
        return UnixListener(host, await loop.create_unix_server(welcome, host))


async def test_a_transport_without_hosts_and_ports_is_one_entry_of_the_registry(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "door")
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    unix = {"unix": UnixTransport()}
    async with (
        Endpoint(transports=unix, on_connection=accepted.put_nowait) as server,
        Endpoint(transports=unix) as client,
    ):
        assert await server.listen_on(path, transport="unix") == (path, 0)
        ours = await client.dial(f"unix:{path}~noise")
        theirs = await accepted.get()
        await ours.send(b"by file name")
        assert await receive(theirs) == b"by file name"
        assert (ours.type, ours.attempt.transport, ours.attempt.host) == ("unix", "unix", path)
        key = encode_key(client.key_pair.public_key)
        assert str(theirs.address) == f"unix:{path}~noise:{key}"
        with pytest.raises(AddressError, match="one path"):
            await client.dial("unix:a:b~noise")
        with pytest.raises(AddressError):
            await client.dial(Address.net(HOST, 1))


async def test_text_is_dialled_as_an_address() -> None:
    async with listening() as side, dialling() as dialler:
        ours = await dialler.dial(str(side.address(pinned=True)))
        assert ours.remote_key == side.key
        with pytest.raises(AddressError):
            await dialler.dial("not an address")


async def test_an_endpoint_makes_a_key_pair_and_tells_about_itself() -> None:
    async with Endpoint() as one, Endpoint() as other:
        assert one.key_pair.public_key != other.key_pair.public_key
        assert repr(one) == (
            f"<Endpoint {one.key_pair.public_key.hex()[:8]} not listening, 0 connections>"
        )
        _, port = await one.listen_on(HOST)
        assert f"{HOST}:{port}, 0 connections" in repr(one)
    assert repr(one).endswith("closed>")


async def test_an_endpoint_closes_what_it_made_unless_told_otherwise() -> None:
    accepted: list[Connection] = []
    async with Endpoint(on_connection=accepted.append) as server:
        host, port = await server.listen_on(HOST)
        async with Endpoint() as owner, Endpoint(owns_connections=False) as dialler:
            owned = await owner.dial(Address.net(host, port))
            kept = await dialler.dial(Address.net(host, port))
        assert owned.closed
        assert not kept.closed
        await kept.close()


@pytest.mark.parametrize("port", [-1, 65536, 70000])
async def test_a_port_that_there_is_not_is_a_mistake_of_the_caller(port: int) -> None:
    async with dialling() as endpoint:
        for host in (None, HOST, "localhost"):
            with pytest.raises(UsageError, match="0 to 65535"):
                await endpoint.listen_on(host, port)
        _, bound = await endpoint.listen_on(HOST)
        assert bound


async def test_an_unknown_transport_is_a_mistake_of_the_caller() -> None:
    async with dialling() as endpoint:
        with pytest.raises(UsageError, match="no transport 'carrier-pigeon' here, there is net"):
            await endpoint.listen_on(HOST, transport="carrier-pigeon")


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancelled_listen_leaves_no_descriptor_in_the_loop(turns: int) -> None:
    async with listening() as side, dialling() as endpoint:
        task = asyncio.create_task(endpoint.listen_on(HOST))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for _ in range(3):  # each may get the number of the dead descriptor
            ours = await endpoint.dial(side.address())
            await (await side.next()).close()
            await ours.close()


async def test_a_link_local_address_is_dialled_with_its_scope(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names: list[tuple[object, ...]] = []

    async def refuse(_: object, __: object, name: tuple[object, ...]) -> None:
        names.append(name)
        raise ConnectionRefusedError(111, "refused")

    loop = asyncio.get_running_loop()
    monkeypatch.setattr(type(loop), "sock_connect", refuse)

    async def found(host: str, port: int) -> list[tcp.Target]:
        return [(socket.AF_INET6, ("fe80::1%lo", port, 0, 1))]

    monkeypatch.setattr(tcp, "_resolve", found)
    async with dialling() as endpoint:
        with pytest.raises(ConnectError):
            await endpoint.dial("net:fe80::1%lo:9~noise")
    assert names == [("fe80::1%lo", 9, 0, 1)]


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="no such options here")
@pytest.mark.parametrize("handshake", ["noise", "plain"])
async def test_the_system_looks_for_dead_hosts_on_both_ends(handshake: str) -> None:
    async with joined(handshake=handshake, limits=Limits(idle_timeout=40)) as pair:
        for connection in pair:
            transport = connection._shell._transport
            assert transport is not None
            raw = transport.get_extra_info("socket")
            assert raw.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            for name, value in (("KEEPIDLE", 20), ("KEEPINTVL", 5), ("KEEPCNT", 4)):
                assert raw.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}")) == value
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 40_000


class _Told:
    """A transport and its socket, with `waiting` bytes to write; keeps what it is told."""

    def __init__(self, waiting: int = 0) -> None:
        self.waiting = waiting
        self.options: dict[int, int] = {}

    def get_extra_info(self, _: str) -> _Told:
        return self

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def setsockopt(self, _: int, name: int, value: int) -> None:
        self.options[name] = value


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="no such options here")
@pytest.mark.parametrize(
    ("busy", "waiting", "milliseconds", "idle"),
    [(0, 0, 0, 1), (9, 0, 5_000, None), (9, 9, 60_000, 30)],
)
def test_who_is_probed_is_asked_at_once_unless_it_may_only_be_slow(
    monkeypatch: pytest.MonkeyPatch, busy: int, waiting: int, milliseconds: int, idle: int | None
) -> None:
    monkeypatch.setattr(sockets, "unacknowledged", lambda _: busy)
    told: Any = _Told(waiting)
    sockets.probe(told, Limits(), urgent=True)
    assert told.options[socket.TCP_USER_TIMEOUT] == milliseconds
    assert told.options.get(socket.TCP_KEEPIDLE) == idle
    sockets.probe(told, Limits(), urgent=False)
    assert told.options[socket.TCP_USER_TIMEOUT] == 60_000
    assert told.options[socket.TCP_KEEPIDLE] == 30


def test_without_an_idle_timeout_nobody_is_probed() -> None:
    told: Any = _Told()
    sockets.probe(told, Limits(idle_timeout=0), urgent=True)
    assert told.options == {}


def test_without_an_idle_timeout_the_system_is_told_nothing() -> None:
    assert liveness_options(Limits(idle_timeout=0)) == ()


async def test_a_network_of_ipv6_shares_what_one_host_may_have() -> None:
    limits = Limits(max_per_ip=2, max_handshakes=4)
    async with listening(limits=limits) as side:
        endpoint = side.endpoint
        transport = tcp.TcpTransport()

        def come(host: str) -> None:
            assert endpoint._accept(transport, (host, 1)) is not None

        for host in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"):
            come(host)
        hosts = [one.attempt.host for one in endpoint._accepted]
        assert hosts == ["2001:db8::2", "2001:db8::3", "192.0.2.1", "192.0.2.2"]
        come("192.0.2.3")  # the slots are taken: the network that holds the most gives one
        hosts = [one.attempt.host for one in endpoint._accepted]
        assert hosts == ["2001:db8::3", "192.0.2.1", "192.0.2.2", "192.0.2.3"]
        for pending in (*endpoint._accepted, *endpoint._leaving):
            pending.shell_closed(*pending._shell.outcome)  # type: ignore[union-attr]


async def test_a_refused_dial_says_so_in_the_words_of_the_system() -> None:
    with socket.socket() as closed:
        closed.bind((HOST, 0))
        port = closed.getsockname()[1]
    async with dialling() as endpoint:
        with pytest.raises(ConnectError) as refused:
            await endpoint.dial(Address.net(HOST, port))
    assert str(refused.value) == f"cannot connect to {HOST}:{port}: Connection refused"
    assert refused.value.code == "ECONNREFUSED"


async def test_another_key_is_shown_as_addresses_write_it() -> None:
    wrong = bytes(31) + b"\1"
    async with listening() as side, dialling() as endpoint:
        with pytest.raises(HandshakeError) as refused:
            await endpoint.dial(Address.net(HOST, side.port, key=wrong))
    for key in (wrong, side.key):
        assert f"{key.hex()} ({encode_key(key)})" in str(refused.value)


async def test_text_is_not_sent_and_a_closed_connection_is_not_read() -> None:
    async with joined() as (ours, _):
        with pytest.raises(TypeError, match="bytes, bytearray or memoryview, not str"):
            await ours.send("text")  # type: ignore[arg-type]
        assert ours.mux.is_idle
        await ours.close()
        with pytest.raises(ClosedError):
            aiter(ours)
        with pytest.raises(ClosedError):
            await anext(ours)


async def test_a_connection_whose_host_died_while_nobody_reads_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = Limits(idle_timeout=0.05, read_backlog=1000)
    async with listening(handshake="plain", limits=limits) as side:
        peer = await RawPeer.connect(side.port)
        await peer.loop.sock_sendall(peer.sock, bytes([4]) + b"mine" + bytes(5000))
        unread = await side.next()
        await until(lambda: unread._reading_paused)
        failure = TimeoutError(110, "timed out")
        monkeypatch.setattr("covey.net.stream_shell.failure_of", lambda _: failure)
        async with asyncio.timeout(10):
            await unread.wait_closed()
        assert unread.close_reason == "timeout"
        peer.close()
