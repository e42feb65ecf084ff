"""Dialling, accepting, refusing, and what an observer hears of it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from covey.address import Address
from covey.errors import (
    AddressError,
    ClosedError,
    ConnectionAborted,
    ConnectTimeout,
    HandshakeError,
    HandshakeTimeout,
    Refused,
    SelfConnection,
)
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.wire.encoding import string
from tests.net.endpoints import (
    HOST,
    Observed,
    RawPeer,
    collect,
    dialling,
    listening,
    nothing_left,
    raw_socket,
    read_to_end,
    receive,
    turns,
    until,
)


async def test_a_dial_becomes_a_connection_on_both_sides() -> None:
    with nothing_left():
        async with listening() as side, dialling() as dialler:
            seen = Observed()
            ours = await dialler.dial(side.address(pinned=True), observer=seen)
            theirs = await side.next()
            assert ours.remote_key == side.key
            assert theirs.remote_key == dialler.key_pair.public_key
            assert seen.begun == [ours.attempt]
            assert side.observed.begun == [theirs.attempt]
            assert seen.failed == side.observed.failed == []
            assert ours.attempt.initiator
            assert (ours.attempt.host, ours.attempt.port) == (HOST, side.port)
            assert theirs.attempt.address is None
            assert theirs.attempt.host == HOST
            assert dialler.connections == [ours]


async def test_a_dial_without_an_observer_is_not_told_to_that_of_accepted_connections() -> None:
    async with listening() as far, listening() as side:
        await side.endpoint.dial(far.address())
        wrong = Address.net(HOST, far.port, "noise", KeyPair.generate().public_key)
        with pytest.raises(HandshakeError):
            await side.endpoint.dial(wrong)
        assert side.observed.begun == []
        assert side.observed.failed == []


@pytest.mark.parametrize(
    "text",
    [
        "net:127.0.0.1:1",
        "net:127.0.0.1:1~unknown",
        "net:127.0.0.1:1~noise~tls",
        "net:127.0.0.1:1~noise:AAAA",
        "net:127.0.0.1:1~plain:what",
        "net:127.0.0.1:0~noise",
        "utp:127.0.0.1:1~noise",
        "ws:127.0.0.1:1~noise",
        "net:127.0.0.1:1~shs:9d4e7929719021f9d5dfb87302a36327833538f9d797aa7c38ef23413061dd99",
    ],
)
async def test_what_cannot_be_dialled_is_an_address_error_before_any_dial(text: str) -> None:
    seen = Observed()
    async with dialling(observer=seen) as dialler:
        with pytest.raises(AddressError):
            await dialler.dial(Address.parse(text))
    assert seen.begun == []


async def test_the_first_alternative_that_is_understood_is_dialled() -> None:
    async with listening() as side, dialling() as dialler:
        address = Address.parse(f"ws:example.org:1~noise;{side.address()}")
        ours = await dialler.dial(address)
        assert ours.address == address


async def test_dialling_our_own_key_is_refused_before_any_dial() -> None:
    key_pair = KeyPair.generate()
    async with listening(key_pair=key_pair) as side:
        with pytest.raises(SelfConnection):
            await side.endpoint.dial(side.address(pinned=True))
        assert side.observed.begun == []


@pytest.mark.parametrize("handshake", ["noise", "plain"])
async def test_a_remote_that_turns_out_to_be_ourselves_is_noticed_on_both_sides(
    handshake: str,
) -> None:
    async with listening(handshake=handshake) as side:
        with pytest.raises(SelfConnection):
            await side.endpoint.dial(side.address(handshake=handshake), observer=side.observed)
        await side.observed.until(lambda seen: len(seen.failed) == 2)
        assert {type(error) for _, error in side.observed.failed} <= {
            SelfConnection,
            HandshakeError,
        }
        assert side.accepted.empty()
        assert side.endpoint.connections == []


async def test_a_wrong_pinned_key_is_a_handshake_error() -> None:
    seen = Observed()
    async with listening() as side, dialling() as dialler:
        wrong = Address.net(HOST, side.port, "noise", KeyPair.generate().public_key)
        with pytest.raises(HandshakeError, match="another key") as caught:
            await dialler.dial(wrong, observer=seen)
        assert caught.value.address == str(wrong)
        assert [error for _, error in seen.failed] == [caught.value]
        assert isinstance(await side.observed.failure(), HandshakeError)
        assert side.accepted.empty()


async def test_different_handshakes_do_not_hang_each_other() -> None:
    async with listening(handshake="plain") as side, dialling() as dialler:
        with pytest.raises(HandshakeError):
            await dialler.dial(side.address(handshake="noise"))


async def test_a_remote_that_hangs_up_is_a_handshake_error() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with dialling() as dialler:
        with nothing_left(), pytest.raises(HandshakeError):
            await dialler.dial(Address.net(HOST, port))
    server.close()
    await server.wait_closed()


async def test_a_mute_listener_is_a_handshake_timeout() -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), HOST, 0)
    port = server.sockets[0].getsockname()[1]
    seen = Observed()
    async with dialling(limits=Limits(handshake_timeout=0.02)) as dialler:
        with pytest.raises(HandshakeTimeout):
            await dialler.dial(Address.net(HOST, port), observer=seen)
    assert isinstance(seen.failed[0][1], HandshakeTimeout)
    for writer in held:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    server.close()
    await server.wait_closed()


@asynccontextmanager
async def mute_listener() -> AsyncIterator[Address]:
    """Where connections are accepted and nothing is ever said."""
    with socket.socket() as mute:
        mute.bind((HOST, 0))
        mute.listen()
        yield Address.net(*mute.getsockname())


async def test_the_timeout_of_a_dial_covers_the_handshake_too() -> None:
    seen = Observed()
    async with mute_listener() as address, dialling() as dialler:
        with nothing_left(), pytest.raises(HandshakeTimeout, match=r"the 0\.02 s of the dial"):
            await dialler.dial(address, timeout=0.02, observer=seen)
        assert dialler.handshaking == 0
    assert len(seen.begun) == 1
    assert isinstance(seen.failed[0][1], HandshakeTimeout)


async def test_a_long_timeout_of_a_dial_leaves_the_budgets_of_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def sock_connect(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    limits = Limits(connect_timeout=0.01, handshake_timeout=0.02)
    async with mute_listener() as address, dialling(limits=limits) as dialler:
        with pytest.raises(HandshakeTimeout, match=r"within 0\.02 s"):
            await dialler.dial(address, timeout=3600)
        monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
        with nothing_left(), pytest.raises(ConnectTimeout, match=r"within 0\.01 s"):
            await dialler.dial(address, timeout=3600)


async def test_a_connection_outlives_the_timeout_of_its_dial() -> None:
    with nothing_left():
        async with listening() as side, dialling() as dialler:
            ours = await dialler.dial(side.address(), timeout=5)
            scheduled: list[asyncio.TimerHandle] = getattr(
                asyncio.get_running_loop(), "_scheduled", []
            )
            left = [timer for timer in scheduled if "_out_of_time" in repr(timer)]
            assert all(timer.cancelled() for timer in left)
            assert not ours.closed


async def test_a_timeout_of_zero_is_a_connect_timeout() -> None:
    async with listening() as side, dialling() as dialler:
        with pytest.raises(ConnectTimeout):
            await dialler.dial(side.address(), timeout=0)


async def test_cancelling_during_the_handshake_closes_everything() -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), HOST, 0)
    port = server.sockets[0].getsockname()[1]
    seen = Observed()
    async with dialling() as dialler:
        task = asyncio.create_task(dialler.dial(Address.net(HOST, port), observer=seen))
        await seen.until(lambda _: bool(seen.begun))
        await until(lambda: bool(held))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(await seen.failure(), ConnectionAborted)
        assert dialler.handshaking == 0
    for writer in held:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_closing_ends_dials_and_handshakes_under_way() -> None:
    held: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: held.append(writer), HOST, 0)
    port = server.sockets[0].getsockname()[1]
    async with listening() as side:
        raw = await raw_socket(side.port)
        await side.observed.until(lambda seen: bool(seen.begun))
        address = Address.net(HOST, port)
        dial = asyncio.create_task(side.endpoint.dial(address, observer=side.observed))
        await side.observed.until(lambda seen: len(seen.begun) == 2)
        await until(lambda: bool(held))
        await side.endpoint.close()
        assert side.endpoint.handshaking == 0
        with pytest.raises(ConnectionAborted):
            await dial
        assert await read_to_end(raw) == b""
        raw.close()
        await side.endpoint.close()
        with pytest.raises(ClosedError):
            await side.endpoint.dial(Address.net(HOST, port))
        with pytest.raises(ClosedError):
            await side.endpoint.listen_on(HOST)
        assert side.endpoint.addresses == ()
    for writer in held:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_closing_ends_a_dial_that_is_still_connecting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = asyncio.Event()

    async def sock_connect(*_: object) -> None:
        waiting.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    with nothing_left():
        async with dialling() as dialler:
            dial = asyncio.create_task(dialler.dial(Address.net(HOST, 9)))
            await waiting.wait()
            await dialler.close()
            with pytest.raises(ConnectionAborted):
                await dial


async def test_closing_in_the_moment_in_which_a_dial_runs_out_of_time_raises_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ending, go_on = asyncio.Event(), asyncio.Event()

    async def sock_connect(*_: object) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            ending.set()
            await go_on.wait()
            raise

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    with nothing_left():
        async with dialling() as dialler:
            dial = asyncio.create_task(dialler.dial(Address.net(HOST, 9), timeout=0.01))
            await ending.wait()
            close = asyncio.create_task(dialler.close())
            await turns(3)
            go_on.set()
            await close
            with pytest.raises(ConnectionAborted):
                await dial


async def test_a_dial_may_be_called_off_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = asyncio.Event()

    async def sock_connect(*_: object) -> None:
        waiting.set()
        await asyncio.get_running_loop().create_future()

    monkeypatch.setattr(asyncio.get_running_loop(), "sock_connect", sock_connect)
    with nothing_left():
        async with dialling() as dialler:
            dial = asyncio.create_task(dialler.dial(Address.net(HOST, 9)))
            await waiting.wait()
            (pending,) = dialler._dials
            for text in ("first", "second", "third"):
                pending.abort(ConnectionAborted(text))
                await asyncio.sleep(0)
            with pytest.raises(ConnectionAborted, match="first"):
                await dial


async def test_a_closed_endpoint_is_not_entered() -> None:
    endpoint = Endpoint()
    await endpoint.close()
    with pytest.raises(ClosedError):
        await endpoint.__aenter__()


@pytest.mark.parametrize("address", [None, 5, b"net:127.0.0.1:1~noise"])
async def test_what_is_no_address_at_all_is_a_type_error(address: Any) -> None:
    async with dialling() as endpoint:
        with pytest.raises(TypeError, match="an address is a str"):
            await endpoint.dial(address)


@pytest.mark.parametrize("port", [True, "5", None, 1.5])
async def test_a_port_to_listen_at_is_a_whole_number(port: Any) -> None:
    async with dialling() as endpoint:
        with pytest.raises(TypeError, match="a port is a number"):
            await endpoint.listen_on(HOST, port)
        assert endpoint.addresses == ()


async def test_connections_outlive_an_endpoint_that_does_not_own_them() -> None:
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    accepting = Endpoint(on_connection=accepted.put_nowait, owns_connections=False)
    dialler = Endpoint(owns_connections=False)
    async with accepting, dialler:
        _, port = await accepting.listen_on(HOST)
        ours = await dialler.dial(Address.net(HOST, port))
        theirs = await accepted.get()
    await ours.send(b"still here")
    assert await receive(theirs) == b"still here"
    await ours.close()
    await theirs.close()


async def test_an_endpoint_that_owns_its_connections_closes_them() -> None:
    async with listening() as side:
        async with dialling() as dialler:
            ours = await dialler.dial(side.address())
            await side.next()
        assert ours.closed
        assert ours.close_reason is CloseReason.SHUTDOWN


async def test_admit_refuses_before_any_handshake() -> None:
    asked: list[tuple[str, int]] = []

    def admit(host: str, port: int) -> str | None:
        asked.append((host, port))
        return "banned" if len(asked) == 1 else None

    async with listening(admit=admit) as side, dialling() as dialler:
        raw = await raw_socket(side.port)
        assert await read_to_end(raw) == b""
        raw.close()
        assert side.observed.begun == []
        assert asked[0] == (HOST, asked[0][1])
        await dialler.dial(side.address())
        await side.next()


async def test_an_accepted_connection_without_a_handler_is_refused() -> None:
    async with listening(on_connection=None) as side, dialling() as dialler:
        ours = await dialler.dial(side.address())
        assert await collect(ours) == []


async def test_a_handler_that_fails_costs_only_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    accepted: list[Connection] = []

    def handler(connection: Connection) -> None:
        accepted.append(connection)
        if len(accepted) == 1:
            raise RuntimeError("handler failed")

    async with listening(on_connection=handler) as side, dialling() as dialler:
        first = await dialler.dial(side.address())
        assert await collect(first) == []
        second = await dialler.dial(side.address())
        await until(lambda: len(accepted) == 2)
        await second.send(b"fine")
        assert await receive(accepted[1]) == b"fine"
    assert "handler failed" in caplog.text


async def test_the_handler_sees_the_connection_before_its_first_message() -> None:
    order: list[object] = []

    def handler(connection: Connection) -> None:
        order.append(connection.messages_read)

    async with listening(on_connection=handler) as side:
        peer = await RawPeer.connect(side.port)
        await peer.flush()
        peer.stream.receive_data(await peer.loop.sock_recv(peer.sock, 4096), 0.0)
        await peer.send(b"in the same segment as the end of the handshake")
        await until(lambda: bool(order))
        connection = side.endpoint.connections[0]
        assert await receive(connection) == b"in the same segment as the end of the handshake"
        assert order == [0]
        peer.close()


async def test_more_handshakes_than_allowed_drop_the_oldest() -> None:
    async with listening(limits=Limits(max_handshakes=3)) as side, dialling() as dialler:
        raws = []
        for count in range(1, 5):
            raws.append(await raw_socket(side.port))
            await side.observed.until(lambda seen, n=count: len(seen.begun) == n)  # type: ignore[misc]
        error = await side.observed.failure()
        assert isinstance(error, Refused)
        assert error.reason == "max_handshakes"
        assert side.observed.failed[0][0] == side.observed.begun[0]
        assert await read_to_end(raws[0]) == b""
        assert side.endpoint.handshaking == 3
        await dialler.dial(side.address())  # an honest one gets through
        for raw in raws:
            raw.close()


async def test_one_host_cannot_fill_the_handshake_slots() -> None:
    limits = Limits(max_per_ip=2, max_handshakes=100)
    async with listening(limits=limits) as side:
        other = await raw_socket(side.port, "127.0.0.2")
        await side.observed.until(lambda seen: len(seen.begun) == 1)
        raws = [await raw_socket(side.port, "127.0.0.3") for _ in range(5)]
        await side.observed.until(lambda seen: len(seen.failed) == 3)
        assert {attempt.host for attempt, _ in side.observed.failed} == {"127.0.0.3"}
        error = side.observed.failed[0][1]
        assert isinstance(error, Refused)
        assert error.reason == "max_per_ip"
        assert side.endpoint.handshaking == 3
        for raw in (other, *raws):
            raw.close()


async def test_an_idle_remote_is_timed_out_and_a_quiet_one_is_kept() -> None:
    quiet = Limits(keep_alive=0.02, idle_timeout=0.1)
    async with listening(limits=quiet) as side, dialling(limits=quiet) as dialler:
        ours = await dialler.dial(side.address())
        theirs = await side.next()
        before = ours.bytes_read
        await until(lambda: ours.bytes_read >= before + 200)  # ten keep-alives, twice the idle time
        assert not ours.closed
        assert ours.messages_read == theirs.messages_read == 0
        peer = await RawPeer.connect(side.port)  # says nothing more after its handshake
        await peer.shake()
        await peer.send(b"")  # it keeps alive, or so it seems
        silent = await side.next()
        with pytest.raises(ClosedError, match="silent"):
            await receive(silent)
        assert silent.close_reason is CloseReason.TIMEOUT
        peer.close()


async def test_a_silent_remote_that_never_kept_alive_stays_past_the_idle_timeout() -> None:
    limits = Limits(idle_timeout=0.05, keep_alive=0.01)
    async with listening(limits=limits) as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        silent = await side.next()
        before = silent.bytes_written
        await until(lambda: silent.bytes_written >= before + 400)  # twenty keep-alives of our own
        assert not silent.closed
        peer.close()


@pytest.mark.parametrize("handshake", ["noise", "plain"])
async def test_a_remote_that_does_not_read_is_cut_when_nothing_of_a_send_leaves(
    handshake: str,
) -> None:
    limits = Limits(idle_timeout=0.2, write_backlog=1 << 16)
    async with listening(limits=limits, handshake=handshake) as side:
        if handshake == "noise":
            peer = await RawPeer.connect(side.port)
            await peer.shake()
        else:
            peer = RawPeer(await raw_socket(side.port), is_initiator=True)
            await peer.loop.sock_sendall(peer.sock, bytes([4]) + b"mine")
        peer.sock.shutdown(socket.SHUT_WR)
        stuck = await side.next()
        async with asyncio.timeout(10):
            with suppress(ClosedError):
                while True:
                    await stuck.send(bytes(60_000))
        assert stuck.close_reason is CloseReason.TIMEOUT
        peer.close()


async def test_a_remote_that_reads_slowly_is_not_cut() -> None:
    limits = Limits(idle_timeout=0.3, keep_alive=0, write_backlog=1 << 16)
    async with listening(limits=limits, handshake="plain") as side:
        raw = await raw_socket(side.port)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(raw, bytes([4]) + b"mine")
        slow = await side.next()
        sending = asyncio.create_task(slow.send(bytes(16 << 20)))
        await sending
        after = asyncio.create_task(slow.send(b"after it"))
        for _ in range(10):
            await loop.sock_recv(raw, 1 << 20)
            await asyncio.wait([after], timeout=0.06)
        assert not slow.closed
        slow.abort()
        await asyncio.wait([after])
        assert isinstance(after.exception(), ClosedError | None)  # all may have left by then
        raw.close()


async def test_the_largest_unfinished_frame_goes_when_all_of_them_are_too_much() -> None:
    limits = Limits(partial_frames=300_000)
    async with listening(limits=limits) as side:
        peers = [await RawPeer.connect(side.port) for _ in range(3)]
        connections = []
        for peer, size in zip(peers, (100_000, 150_000, 90_000), strict=True):
            await peer.shake()
            connection = await side.next()
            connections.append(connection)
            before = connection.bytes_read
            await peer.loop.sock_sendall(peer.sock, b"\xff\xff\xff" + bytes(size))
            await until(lambda c=connection, b=before, s=size: c.bytes_read == b + s + 3)  # type: ignore[misc]
        assert [connection.closed for connection in connections] == [False, True, False]
        await connections[1].wait_closed()
        assert connections[1].close_reason is CloseReason.LIMIT
        assert side.endpoint._frames.held == 190_006
        for connection in connections:
            connection.abort()
        assert side.endpoint._frames.held == 0
        for peer in peers:
            peer.close()


async def test_a_frame_that_trickles_in_costs_its_connection() -> None:
    async with listening(limits=Limits(idle_timeout=0.1)) as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        trickled = await side.next()
        await peer.loop.sock_sendall(peer.sock, b"\xff\xff\xff")
        async with asyncio.timeout(10):
            while not trickled.closed:
                with suppress(ConnectionError):
                    await peer.loop.sock_sendall(peer.sock, b"x")
                await turns(5)
            await trickled.wait_closed()
        assert trickled.close_reason is CloseReason.TIMEOUT
        assert "too slow with a frame" in trickled.close_text
        peer.close()


async def test_a_slow_local_reader_is_not_taken_for_a_dead_remote() -> None:
    limits = Limits(idle_timeout=0.05, keep_alive=0, read_backlog=1024)
    async with listening(limits=limits) as side, dialling(limits=Limits(keep_alive=0)) as dialler:
        ours = await dialler.dial(side.address())
        theirs = await side.next()
        await ours.send(bytes(4096))
        await until(lambda: theirs._reading_paused)
        loop = asyncio.get_running_loop()
        waited = loop.create_future()
        loop.call_later(0.15, waited.set_result, None)
        await waited
        assert not theirs.closed
        assert await receive(theirs) == bytes(4096)


async def test_a_half_open_connection_is_not_timed_out() -> None:
    limits = Limits(idle_timeout=0.05, keep_alive=0)
    async with listening(limits=limits) as side, dialling(limits=Limits(keep_alive=0)) as dialler:
        ours = await dialler.dial(side.address())
        theirs = await side.next()
        await ours.end()
        assert await collect(theirs) == []
        loop = asyncio.get_running_loop()
        waited = loop.create_future()
        loop.call_later(0.15, waited.set_result, None)
        await waited
        await theirs.send(b"late")
        assert await receive(ours) == b"late"


async def test_random_plain_ids_differ() -> None:
    async with dialling() as first, dialling() as second:
        assert first.identity.id != second.identity.id
        assert len(first.identity.id) == 32
        await turns(1)


async def test_an_unknown_default_handshake_is_an_address_error() -> None:
    with pytest.raises(AddressError):
        Endpoint(key_pair=KeyPair.generate(), handshake="tls")


def is_free(port: int) -> bool:
    """Whether the port can be bound, which it can once nobody listens there."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((HOST, port))
        except OSError:
            return False
    return True


@pytest.mark.parametrize("steps", range(8))
async def test_a_close_whose_caller_is_cancelled_still_frees_every_port(steps: int) -> None:
    with nothing_left():
        endpoint = Endpoint()
        ports = [(await endpoint.listen_on(HOST))[1] for _ in range(2)]
        caller = asyncio.create_task(endpoint.close())
        await turns(steps)
        caller.cancel()
        with suppress(asyncio.CancelledError):
            await caller
        async with asyncio.timeout(10):
            await endpoint.close()
            await endpoint.close()
        assert all(is_free(port) for port in ports)
        assert endpoint.addresses == ()


async def test_a_channel_handler_may_close_its_endpoint_and_goes_on() -> None:
    went_on = asyncio.Event()

    def serve(connection: Connection) -> None:
        async def leave(_: str) -> None:
            await side.endpoint.close()
            went_on.set()

        channel = connection.mux.create_channel("leaving")
        channel.add_message(string, leave)
        channel.open()

    async with listening(on_connection=serve) as side, dialling() as dialler:
        channel = (await dialler.dial(side.address())).mux.create_channel("leaving")
        message = channel.add_message(string)
        channel.open()
        message.send("now")
        async with asyncio.timeout(10):
            await went_on.wait()
