"""TCP: both families, races between addresses, errors of the system."""

from __future__ import annotations

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from covey.address import Address
from covey.errors import ConnectError, ConnectTimeout, DialFailed, UsageError
from covey.net import tcp
from covey.net.stream_shell import StreamShell
from tests.net.endpoints import HOST, collect, dialling, listening, nothing_left, raw_socket, until

Resolve = Any


def has_ipv6() -> bool:
    """Whether this machine can bind the IPv6 loopback."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")


def resolving(monkeypatch: pytest.MonkeyPatch, *targets: tuple[str, int]) -> None:
    """Make every name resolve to `targets`."""

    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        return [
            (
                socket.AF_INET6 if ":" in host else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (host, port),
            )
            for host, port in targets
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)


def closed_port() -> int:
    """A port of 127.0.0.1 where nobody listens."""
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


@needs_ipv6
async def test_the_wildcard_accepts_both_families_and_shows_ipv4_peers_as_such() -> None:
    async with listening(host=None) as side, dialling() as dialler:
        for host in (HOST, "::1"):
            ours = await dialler.dial(Address.net(host, side.port))
            theirs = await side.next()
            assert theirs.remote_address[0] == host
            assert ours.remote_address == (host, side.port)
            assert str(Address.parse(str(theirs.address))) == str(theirs.address)


async def test_the_wildcard_is_ipv4_alone_where_there_is_no_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = tcp._open_listening

    def without_ipv6(family: socket.AddressFamily, name: tuple[Any, ...]) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return real(family, name)

    monkeypatch.setattr(tcp, "_open_listening", without_ipv6)
    async with listening(host=None) as side, dialling() as dialler:
        assert side.endpoint.addresses == (("0.0.0.0", side.port),)
        await dialler.dial(side.address())


async def test_no_delay_is_set_on_both_sides() -> None:
    async with listening() as side, dialling() as dialler:
        ours = await dialler.dial(side.address())
        theirs = await side.next()
        for connection in (ours, theirs):
            transport = connection._shell._transport
            assert transport is not None
            raw = transport.get_extra_info("socket")
            assert raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_a_numeric_host_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        raise AssertionError("looked up")

    async with listening() as side, dialling() as dialler:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        await dialler.dial(side.address())


async def test_a_refused_port_tells_its_code_and_address() -> None:
    port = closed_port()
    async with dialling() as dialler:
        address = Address.net(HOST, port)
        with pytest.raises(ConnectError) as caught:
            await dialler.dial(address)
        assert caught.value.code == "ECONNREFUSED"
        assert not isinstance(caught.value, DialFailed)
        assert isinstance(caught.value.__cause__, ConnectionRefusedError)


async def test_an_unknown_name_is_a_connect_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def getaddrinfo(*_: object, **__: object) -> list[Any]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with dialling() as dialler:
        with pytest.raises(ConnectError, match=r"cannot find nowhere\.invalid") as caught:
            await dialler.dial(Address.net("nowhere.invalid", 1))
        assert caught.value.code == "ENOTFOUND"


async def test_every_address_that_failed_keeps_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    port = closed_port()
    resolving(monkeypatch, ("127.0.0.1", port), ("127.0.0.2", port), ("127.0.0.3", port))
    async with dialling() as dialler:
        with pytest.raises(DialFailed) as caught:
            await dialler.dial(Address.net("peer.invalid", port))
    assert set(caught.value.causes) == {"127.0.0.1", "127.0.0.2", "127.0.0.3"}
    assert all(isinstance(cause, ConnectError) for cause in caught.value.causes.values())
    assert caught.value.code == "ECONNREFUSED"


async def test_a_failing_address_gives_way_to_the_next_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp, "STAGGER", 1000.0)
    async with listening() as side, dialling() as dialler:
        resolving(monkeypatch, ("127.0.0.2", side.port), (HOST, side.port))
        ours = await dialler.dial(Address.net("peer.invalid", side.port))
        assert ours.remote_address == (HOST, side.port)
        assert ours.attempt.host == "peer.invalid"


async def test_a_silent_address_is_overtaken_and_its_socket_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tcp, "STAGGER", 0.01)
    async with listening() as side, dialling() as dialler:
        resolving(monkeypatch, ("10.255.255.1", 9), (HOST, side.port))
        silent = asyncio.Event()
        real = asyncio.get_running_loop().sock_connect

        async def sock_connect(sock: socket.socket, name: Any) -> None:
            if name[0] == HOST:
                await real(sock, name)
                return
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                silent.set()

        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
        with nothing_left():
            ours = await dialler.dial(Address.net("peer.invalid", side.port))
            assert silent.is_set()
            await ours.close()
            await (await side.next()).close()


async def test_families_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, ("::1", 1), ("::2", 1), ("10.0.0.1", 1), ("10.0.0.2", 1), ("::1", 1))
    hosts = [name[0] for _, name in await tcp._resolve("peer.invalid", 1)]
    assert hosts == ["::1", "10.0.0.1", "::2", "10.0.0.2"]


async def test_a_name_with_a_thousand_addresses_is_tried_at_a_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving(monkeypatch, *[(f"10.0.{n // 250}.{n % 250}", 1) for n in range(1000)])
    assert len(await tcp._resolve("peer.invalid", 1)) == tcp.MAX_ADDRESSES


async def test_a_silent_host_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def sock_connect(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    async with dialling() as dialler:
        with nothing_left(), pytest.raises(ConnectTimeout) as caught:
            await dialler.dial(Address.net(HOST, 9), timeout=0.01)
    assert caught.value.code == "ETIMEDOUT"


async def test_cancelling_a_dial_closes_its_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()

    async def sock_connect(*_: object) -> None:
        waiting.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    async with dialling() as dialler:
        with nothing_left():
            task = asyncio.create_task(dialler.dial(Address.net(HOST, 9)))
            await waiting.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


async def test_a_port_in_use_is_a_connect_error() -> None:
    async with listening() as side:
        with pytest.raises(ConnectError) as caught:
            await side.endpoint.listen_on(HOST, side.port)
        assert caught.value.code == "EADDRINUSE"


async def test_running_out_of_descriptors_ends_no_listener(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with listening() as side, dialling() as dialler:
        with no_descriptors_left() as sock:
            with suppress(BlockingIOError):
                sock.connect((HOST, side.port))
            await until(lambda: "out of system resource" in caplog.text)
        await dialler.dial(side.address())
        await side.next()


@contextmanager
def no_descriptors_left() -> Iterator[socket.socket]:
    """A socket that may connect, and no descriptor for what else would need one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    sock = socket.socket()
    sock.setblocking(False)
    free = os.dup(sock.fileno())
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield sock
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        sock.close()


async def test_without_descriptors_one_accept_fails_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("asyncio.constants.ACCEPT_RETRY_DELAY", 0.01)
    loop: Any = asyncio.get_running_loop()
    failed: list[str] = []
    timers: list[int] = []

    def note(_: object, context: dict[str, Any]) -> None:
        failed.append(context["message"])
        timers.append(len(loop._scheduled))

    async with listening() as side:
        loop.set_exception_handler(note)
        before = len(loop._scheduled) + 1  # and that of the wait below
        with no_descriptors_left() as sock:
            with suppress(BlockingIOError):
                sock.connect((HOST, side.port))
            await until(lambda: len(failed) >= 5)
            assert len(failed) == 5
        await side.observed.until(lambda seen: len(seen.begun) == 1)
        assert len(failed) <= 6
        assert all("out of system resource" in text for text in failed)
        assert max(timers) <= before + 1


async def test_the_system_keeps_many_connections_until_the_loop_turns() -> None:
    async with listening() as side:
        sockets = [socket.create_connection((HOST, side.port), timeout=5) for _ in range(100)]
        await side.observed.until(lambda seen: len(seen.begun) == 64)  # of one network
        for sock in sockets:
            sock.close()


@pytest.mark.parametrize(
    ("host", "error", "words"),
    [
        ("", UsageError, "None is all interfaces"),
        (5, TypeError, "text or None, not int"),
        (b"\x7f\0\0\1", TypeError, "text or None, not bytes"),
        ("a..b", ConnectError, r"cannot find 'a\.\.b': that is no host name"),
        ("\udc80", ConnectError, "cannot find .* that is no host name"),
    ],
)
async def test_a_host_that_is_none_is_told_in_words(
    host: Any, error: type[Exception], words: str
) -> None:
    async with dialling() as endpoint:
        with pytest.raises(error, match=words):
            await endpoint.listen_on(host)


async def test_a_failing_accept_hook_ends_only_that_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = 0

    def accept(_: tuple[str, int]) -> StreamShell | None:
        nonlocal calls
        calls += 1
        raise RuntimeError("hook failed")

    listener = await tcp.TcpTransport().listen(HOST, 0, accept)
    for _ in range(2):
        sock = await raw_socket(listener.address[1])
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
        sock.close()
    assert calls == 2
    assert "hook failed" in caplog.text
    await listener.close()
    await listener.close()


async def test_a_listener_whose_close_is_cancelled_listens_no_more() -> None:
    listener = await tcp.TcpTransport().listen(HOST, 0, lambda _: None)
    caller = asyncio.create_task(listener.close())
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    with socket.socket() as caller_of_nobody, pytest.raises(ConnectionRefusedError):
        caller_of_nobody.connect(listener.address)


async def test_closing_a_listener_leaves_nothing() -> None:
    with nothing_left():
        async with listening(host=None) as side:
            sock = await raw_socket(side.port)
            await until(lambda: side.endpoint.handshaking == 1)
        sock.close()


async def test_uvloop_runs_the_same_connections() -> None:
    uvloop = pytest.importorskip("uvloop")

    async def talk() -> list[bytes]:
        async with listening() as side, dialling() as dialler:
            ours = await dialler.dial(side.address(pinned=True))
            theirs = await side.next()
            for n in range(200):
                await ours.send(bytes([n]) * 20_000)
            await ours.end()
            got = await collect(theirs)
            await theirs.send(b"answer")
            await theirs.close()
            assert await collect(ours) == [b"answer"]
            return got

    got = await asyncio.to_thread(uvloop.run, talk())
    assert got == [bytes([n]) * 20_000 for n in range(200)]
