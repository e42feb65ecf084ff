"""Joining, leaving, listening, handlers, hooks, limits and the end of a flock."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from covey.conn.hub import Hub
from covey.conn.staging import Staging
from covey.discovery.channel import Channel
from covey.discovery.static_peers import StaticPeers
from covey.errors import ClosedError, ConnectError, UsageError
from covey.flock.candidates import CandidateState
from covey.flock.events import ConnectionInfo, FlockClosed, HandlerFailed, PeerRejected
from covey.flock.flock import Flock
from covey.flock.hooks import StreamIdentity
from covey.flock.policy import Reason
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.connection import Connection
from tests.flock.support import (
    HOST,
    HandClock,
    Recorder,
    mute_listener,
    quiet_flock,
    refused_port,
    seeking_flock,
    until,
)

# Joining and leaving


@pytest.mark.parametrize("name", [5, None, bytearray(b"x")])
async def test_what_is_no_name_is_a_type_error(name: Any) -> None:
    async with quiet_flock() as (flock, _):
        calls: list[Any] = [
            flock.leave,
            lambda name: flock.add_peer(name, 1),
            lambda name: flock.remove_peer(name, 1),
        ]
        for call in calls:
            with pytest.raises(TypeError, match="str or bytes"):
                call(name)
        with pytest.raises(TypeError, match="str or bytes"):
            await flock.join(name)
        assert flock.topics == ()


async def test_an_empty_name_is_refused() -> None:
    async with quiet_flock() as (flock, _):
        with pytest.raises(UsageError, match="empty"):
            await flock.join("")


async def test_a_short_text_shows_where_a_flock_is() -> None:
    async with quiet_flock() as (flock, _):
        assert repr(flock) == "<Flock not listening, 0 topics, 0 connected>"
        topic = await flock.join("x")
        host, port = flock.addresses[0]
        assert repr(flock) == f"<Flock at {host}:{port}, 1 topics, 0 connected>"
        assert repr(topic) == "<Topic b'x' joined>"
        assert repr(flock.channel) == "<discovery.Channel 1 joined, no source>"
        assert repr(flock.staging).startswith("<Staging 0 of ")
        assert repr(flock.hub) == "<Hub 0 sessions, 0 dials under way>"
    assert repr(flock.channel) == "<discovery.Channel closed, no source>"
    assert (repr(flock.staging), repr(flock.hub)) == ("<Staging closed>", "<Hub closed>")


async def test_joining_twice_waits_for_the_same_round() -> None:
    async with quiet_flock() as (flock, events):
        first, second = await asyncio.gather(flock.join("x"), flock.join(b"x"))
        assert first is second
        assert (await first.flushed()) == (await second.flushed())
        assert events.types == ["listening"]
        assert [topic.name for topic in flock.topics] == [b"x"]
        assert flock.channel.list() == [(b"x", flock.addresses[0][1])]


async def test_a_lookup_only_join_can_be_left() -> None:
    async with quiet_flock() as (flock, _):
        topic = await flock.join("x", announce=False)
        assert flock.channel.list() == [(b"x", 0)]
        assert flock.leave("x")
        assert flock.channel.list() == []
        assert topic.left
        assert not flock.leave("x")


async def test_joining_differently_changes_how_a_channel_is_joined() -> None:
    async with quiet_flock() as (flock, _):
        topic = await flock.join("x", announce=False)
        assert await flock.join("x") is topic
        assert [port > 0 for _, port in flock.channel.list()] == [True]
        await topic.flushed()
        assert await flock.join("x", announce=False) is topic
        assert flock.channel.list() == [(b"x", 0)]
        with pytest.raises(UsageError, match="announces, looks up"):
            await flock.join("y", announce=False, lookup=False)


async def test_an_announce_only_join_dials_nobody() -> None:
    async with refused_port() as port, seeking_flock([(HOST, port)]) as (flock, events):
        topic = await flock.join("x", lookup=False)
        await topic.flushed()
        assert events.types == ["listening"]


async def test_leave_before_listening_ends_the_waiting_join() -> None:
    async with quiet_flock() as (flock, _):
        joining = asyncio.create_task(flock.join("x"))
        await asyncio.sleep(0)
        assert flock.leave("x")
        with pytest.raises(ClosedError, match="left"):
            await joining
        await flock.listen_on()
        assert flock.channel.list() == []


async def test_leave_ends_a_waiting_first_round() -> None:
    class Slow(StaticPeers):
        async def round(self, wanted: Any) -> None:
            await asyncio.Event().wait()

    async with Channel([Slow()]) as channel, quiet_flock(channel=channel) as (flock, _):
        topic = await flock.join("x")
        flushing = asyncio.create_task(topic.flushed())
        await asyncio.sleep(0)
        topic.leave()
        topic.leave()
        with pytest.raises(ClosedError, match="left"):
            await flushing


async def test_a_topic_leaves_at_the_end_of_its_block() -> None:
    async with quiet_flock() as (flock, _):
        async with await flock.join("x"):
            assert flock.topics
        assert flock.topics == ()


async def test_names_hash_as_asked() -> None:
    async with quiet_flock(hash=False) as (flock, _):
        assert (await flock.join(b"k" * 32)).hash == b"k" * 20
    async with quiet_flock() as (flock, _):
        assert (await flock.join("test")).hash.hex() == "a94a8fe5ccb19ba61c4c0873d391e987982fbbd3"


async def test_listening_first_fixes_the_port() -> None:
    async with quiet_flock() as (flock, events):
        assert flock.addresses == ()
        place = await flock.listen_on()
        assert list(flock.addresses) == [place]
        await flock.join("x")
        assert await flock.listen_on() == place
        assert events.types == ["listening"]
        with pytest.raises(UsageError, match="already"):
            await flock.listen_on(port=1 if place[1] != 1 else 2)


async def test_a_port_in_use_is_an_error_event_and_another_may_be_tried() -> None:
    async with quiet_flock() as (other, _), quiet_flock() as (flock, events):
        _, port = await other.listen_on()
        with pytest.raises(ConnectError):
            await flock.listen_on(port=port)
        assert events.types == ["error"]
        await flock.listen_on()
        assert events.types == ["error", "listening"]


async def test_a_join_that_cannot_listen_is_forgotten() -> None:
    async with quiet_flock(host="203.0.113.1") as (flock, events):
        with pytest.raises(ConnectError):
            await flock.join("x")
        assert flock.topics == ()
        assert events.types == ["error"]


# Handlers


async def test_a_handler_runs_once_per_peer_and_its_end_closes_the_connection() -> None:
    ran: list[Connection] = []

    async def greet(connection: Connection) -> None:
        ran.append(connection)
        await connection.send(b"hello")

    clock = HandClock()
    async with (
        quiet_flock(handler=greet) as (there, theirs),
        quiet_flock(clock=clock) as (
            flock,
            events,
        ),
    ):
        flock.add_peer("x", await there.listen_on())
        connection = (await events.seen("connection")).connection
        assert [message async for message in connection] == [b"hello"]
        await events.seen("connection-closed")
        await theirs.seen("connection-closed")
        assert len(ran) == 1
        assert clock.planned == [1.0], "the remote was done, but we may want it again"


async def test_a_handler_that_is_done_is_not_retried() -> None:
    async def done(_: Connection) -> None:
        return

    clock = HandClock()
    async with (
        quiet_flock() as (there, _),
        quiet_flock(handler=done, clock=clock) as (
            flock,
            events,
        ),
    ):
        flock.add_peer("x", await there.listen_on())
        await events.seen("connection-closed")
        assert clock.planned == []
        assert [entry.state for entry in flock.entries()] == [CandidateState.IDLE]


async def test_a_handler_that_fails_ends_only_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fussy(connection: Connection) -> None:
        async for message in connection:
            if message == b"boom":
                raise RuntimeError("no such thing")
            await connection.send(message)

    async with (
        quiet_flock(handler=fussy) as (server, events),
        quiet_flock() as (one, first),
        quiet_flock(clock=HandClock()) as (two, second),
    ):
        place = await server.listen_on()
        one.add_peer("x", place)
        two.add_peer("x", place)
        good = (await first.seen("connection")).connection
        bad = (await second.seen("connection")).connection
        with caplog.at_level(logging.CRITICAL, logger="covey.flock"):
            await bad.send(b"boom")
            failed = await events.seen("handler-failed")
        assert isinstance(failed, HandlerFailed)
        assert str(failed.error) == "no such thing"
        assert failed.connection.remote_key == two.hub.public_key
        await second.seen("connection-closed")
        await good.send(b"fine")
        async for message in good:
            assert message == b"fine"
            break
        assert server.connected == 1


async def test_a_handler_outlives_its_connection_only_for_a_while() -> None:
    clock = HandClock()
    cancelled = asyncio.Event()

    async def stuck(_: Connection) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async with (
        quiet_flock() as (there, _),
        quiet_flock(handler=stuck, clock=clock) as (
            flock,
            events,
        ),
    ):
        flock.add_peer("x", await there.listen_on())
        connection = (await events.seen("connection")).connection
        connection.abort()
        await events.seen("connection-closed")
        assert not cancelled.is_set()
        clock.turn(Limits().close_timeout)
        await asyncio.wait_for(cancelled.wait(), 5)


async def test_a_plain_function_takes_the_connection_over() -> None:
    taken: list[Connection] = []
    async with (
        quiet_flock(handler=taken.append) as (there, theirs),
        quiet_flock(handler=lambda connection: connection.send(b"one")) as (flock, events),
    ):
        flock.add_peer("x", await there.listen_on())
        await theirs.seen("connection")
        await until(lambda: taken)
        assert [message async for message in taken[0]] == [b"one"], "its result was awaited"
        await events.seen("connection-closed")
        await theirs.seen("connection-closed")
        assert "handler-failed" not in events.types + theirs.types


async def test_what_a_plain_function_took_over_stays_open_and_is_retried() -> None:
    clock = HandClock()
    async with quiet_flock(handler=lambda _: None, clock=clock) as (flock, events):
        async with quiet_flock() as (there, theirs):
            flock.add_peer("x", await there.listen_on())
            ours = (await events.seen("connection")).connection
            remote = (await theirs.seen("connection")).connection
            await remote.send(b"ping")
            assert await _next(ours) == b"ping"
            assert flock.connected == 1
        await events.seen("connection-closed")
        assert clock.planned == [1.0]


async def test_a_plain_function_that_fails_ends_only_its_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with quiet_flock(handler=lambda _: 1 / 0) as (flock, events), quiet_flock() as (there, _):
        with caplog.at_level(logging.CRITICAL, logger="covey.flock"):
            there.add_peer("x", await flock.listen_on())
            failed = await events.seen("handler-failed")
        assert isinstance(failed.error, ZeroDivisionError)
        await events.seen("connection-closed")


async def test_without_a_handler_the_connection_is_its_users_to_take_and_to_close() -> None:
    limits = Limits(read_backlog=4096)
    async with (
        quiet_flock(limits=limits) as (flock, events),
        quiet_flock(clock=HandClock()) as (there, theirs),
    ):
        there.add_peer("x", await flock.listen_on())
        connection = (await events.seen("connection")).connection
        remote = (await theirs.seen("connection")).connection
        sending = asyncio.create_task(_flood(remote, 20_000_000))
        await until(lambda: connection.messages_read)
        await until(lambda: not remote.drained)
        assert not sending.done(), "who sends without end has to wait"
        assert flock.connections == (connection,)
        assert len(await _next(connection)) == 1000
        await connection.close()
        await theirs.seen("connection-closed")
        with pytest.raises(ClosedError):
            await sending


async def _flood(connection: Connection, size: int) -> None:
    for _ in range(size // 1000):
        await connection.send(bytes(1000))


@pytest.mark.parametrize("made", [b"\x05" * 32, StreamIdentity(remote_id=b"\x05" * 32)])
async def test_hooks_may_be_plain_functions(made: Any) -> None:
    options: dict[str, Any] = {"stream": lambda connection, info: made}
    options["connect"] = lambda connection, info: ("made of", info.initiator)
    async with (
        quiet_flock(id=b"\x01" * 32, **options) as (there, _),
        quiet_flock(id=b"\x02" * 32, **options) as (flock, events),
    ):
        flock.add_peer("x", await there.listen_on())
        info = (await events.seen("connection")).info
        assert (info.id, info.stream) == (b"\x05" * 32, ("made of", True))


async def test_a_listener_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with quiet_flock() as (there, _), quiet_flock() as (flock, events):
        flock.subscribe(lambda event: 1 / 0)
        with caplog.at_level(logging.CRITICAL, logger="covey.events"):
            flock.add_peer("x", await there.listen_on())
            await events.seen("connection")


# Hooks


async def _next(connection: Connection) -> bytes:
    """The next message."""
    return await anext(aiter(connection))


async def _exchange(connection: Connection, own: bytes) -> bytes:
    """An id of 32 raw bytes each way, as the original's test streams do."""
    await connection.send(own)
    got = b""
    while len(got) < 32:
        got += await _next(connection)
    return got


async def test_a_stream_hook_replaces_the_handshake() -> None:
    infos: list[ConnectionInfo] = []

    def hook(own: bytes) -> Any:
        async def stream(connection: Connection, info: ConnectionInfo) -> bytes:
            infos.append(info)
            assert connection.handshake == "raw"
            assert connection.remote_key is None
            return await _exchange(connection, own)

        return stream

    a_id, b_id = b"\x0a" * 32, b"\x0b" * 32
    async with (
        quiet_flock(id=a_id, stream=hook(a_id)) as (a, first),
        quiet_flock(id=b_id, stream=hook(b_id)) as (b, second),
    ):
        b.add_peer("x", await a.listen_on())
        ours = await second.seen("connection")
        theirs = await first.seen("connection")
        assert (ours.info.id, theirs.info.id) == (a_id, b_id)
        assert ours.info.key is None
        assert [info.id for info in infos] == [None, None]
        await ours.connection.send(b"after")
        assert await _next(theirs.connection) == b"after"


async def test_streams_that_name_a_channel_share_a_pair_of_peers() -> None:
    """Section 6: without a channel the second connection is always redundant."""

    def hook(channels: dict[bytes, bytes]) -> Any:
        async def stream(connection: Connection, info: ConnectionInfo) -> StreamIdentity:
            if info.initiator:
                assert info.channel is not None
                await connection.send(channels[info.channel])
                return StreamIdentity(topic=channels[info.channel])
            return StreamIdentity(topic=await _next(connection))

        return stream

    keys = {b"x": b"X" * 32, b"y": b"Y" * 32}
    async with (
        quiet_flock(stream=hook(keys), handshake="noise") as (a, first),
        quiet_flock(stream=hook(keys), handshake="noise") as (b, second),
    ):
        place = await a.listen_on()
        b.add_peer("x", place)
        b.add_peer("y", place)
        await first.seen("connection", 2)
        await second.seen("connection", 2)
        assert (a.connected, b.connected) == (2, 2)
        assert {event.info.channel for event in second.named("connection")} == {b"x", b"y"}
        assert "redundant-connection" not in first.types + second.types


async def test_the_connect_hook_makes_what_the_handler_gets() -> None:
    got: asyncio.Queue[Any] = asyncio.Queue()

    async def stream(connection: Connection, info: ConnectionInfo) -> None:
        await connection.send(b"hook")
        assert await _next(connection) == b"hook"

    async def connect(connection: Connection, info: ConnectionInfo) -> tuple[str, Connection]:
        return "wrapped", connection

    async def handler(stream: Any) -> None:
        await got.put(stream)
        await stream[1].wait_closed()

    async with (
        quiet_flock(handler=handler, stream=stream, connect=connect, handshake="noise") as (
            a,
            events,
        ),
        quiet_flock(stream=stream, handshake="noise") as (b, _),
    ):
        b.add_peer("x", await a.listen_on())
        async with asyncio.timeout(5):
            name, connection = await got.get()
        assert (name, connection) == ("wrapped", a.connections[0])
        assert events.named("connection")[0].info.stream == ("wrapped", connection)


def test_connect_without_stream_is_refused() -> None:
    async def connect(connection: Connection, info: ConnectionInfo) -> None:
        return None

    with pytest.raises(UsageError, match="stream"):
        Flock(connect=connect)


async def test_a_stream_hook_that_hangs_is_a_handshake_timeout() -> None:
    async def hang(connection: Connection, info: ConnectionInfo) -> None:
        await asyncio.Event().wait()

    clock = HandClock()
    async with (
        quiet_flock() as (there, _),
        quiet_flock(
            stream=hang, handshake="noise", limits=Limits(handshake_timeout=0.05), clock=clock
        ) as (
            flock,
            events,
        ),
    ):
        flock.add_peer("x", await there.listen_on())
        await until(lambda: clock.planned)
        assert events.types[-2:] == ["handshake-timeout", "connection-closed"]
        assert events.counts[-1] == (0, 0, 0)
        assert clock.planned == [1.0]


async def test_a_stream_hook_that_fails_is_told_and_a_failed_attempt(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(connection: Connection, info: ConnectionInfo) -> None:
        raise ValueError("not one of us")

    clock = HandClock()
    async with (
        quiet_flock() as (there, _),
        quiet_flock(stream=fail, handshake="noise", clock=clock) as (flock, events),
    ):
        flock.add_peer("x", await there.listen_on())
        closed = await events.seen("connection-closed")
        assert "not one of us" in str(closed.error)
        assert [str(event.error) for event in events.of(HandlerFailed)] == ["not one of us"]
        assert "ValueError: not one of us" in caplog.text
        assert clock.planned == [1.0]
        assert "connection" not in events.types


# Limits


async def test_dials_under_way_are_limited() -> None:
    limits = Limits(max_dials=3)
    async with mute_listener() as port, quiet_flock(limits=limits) as (flock, _):
        for number in range(8):
            flock.add_peer(f"x{number}", (f"127.0.0.{number + 1}", port))
        assert (flock.connecting, flock.queued) == (3, 5)


async def test_dials_are_limited_to_a_rate() -> None:
    clock = HandClock()
    limits = Limits(dials_per_second=4.0)
    async with refused_port() as port, quiet_flock(limits=limits, clock=clock) as (flock, events):
        for number in range(6):
            flock.add_peer("x", (f"127.0.0.{number + 1}", port))
        await events.seen("connect-failed", 2)
        assert (len(events.named("connecting")), flock.queued) == (2, 4)
        clock.turn(0.25)
        assert (len(events.named("connecting")), flock.queued) == (3, 3)
        clock.turn(0.5)
        assert (len(events.named("connecting")), flock.queued) == (5, 1)


async def test_a_flood_of_candidates_stays_bounded() -> None:
    limits = Limits(max_candidates=50, max_ports_per_host=4, dials_per_second=0.001)
    async with quiet_flock(limits=limits, clock=HandClock()) as (flock, events):
        for number in range(1000):
            flock._pursuit.found(b"x", f"10.0.{number // 250}.{number % 250 + 1}", 80, "dns")
        assert flock.queued <= 50
        assert len(flock.entries()) == 50
        assert len(flock.staging.entries()) == 50
        for port in range(1, 100):
            flock._pursuit.found(b"x", "10.9.9.9", port, "dns")
        assert sum(entry.peer.host == "10.9.9.9" for entry in flock.entries()) == 4
        assert events.of(PeerRejected)[-1].reason is Reason.TOO_MANY_PORTS
        assert len(flock.entries()) == 50


# What is shown


async def test_staging_shows_candidates_and_the_hub_shows_connections() -> None:
    async with quiet_flock() as (there, _):
        place = await there.listen_on()
        async with seeking_flock([place]) as (flock, events):
            staged: list[str] = []
            with flock.staging.listen() as changes:
                await flock.join("x")
                await events.seen("connection")
                for _ in range(2):
                    staged.append((await anext(changes)).type)
            address = f"net:{HOST}:{place[1]}~noise"
            assert staged == ["staged", "unstaged"]
            assert flock.hub.get_state(address) == "connected"
            ((_, data),) = flock.hub.entries()
            assert (data["source"], data["topic"]) == ("static", b"x")
            (entry,) = flock.entries()
            assert (entry.state, entry.peer.address) == (CandidateState.CONNECTED, address)
            assert entry.connection is flock.connections[0]
            (incoming,) = there.entries()
            assert there.explain(incoming.peer).state == "connected"
            assert (incoming.peer.channel, incoming.state) == (None, CandidateState.CONNECTED)
            story = flock.explain(place)
            assert [line.step for line in story.lines][:3] == ["found", "staged", "dialling"]
            assert story.state == "connected"
            assert flock.explain(there.hub.public_key or b"").lines


async def test_what_the_hub_refuses_is_told_as_closed() -> None:
    limits = Limits(max_per_key=1)
    pair = KeyPair.from_seed(b"\x21" * 32)
    async with (
        quiet_flock(limits=limits) as (flock, events),
        quiet_flock(key_pair=pair) as (one, _),
        quiet_flock(key_pair=pair, clock=HandClock()) as (two, _),
    ):
        place = await flock.listen_on()
        one.add_peer("x", place)
        await events.seen("connection")
        two.add_peer("x", place)
        closed = await events.seen("connection-closed")
        assert "max_per_key" in str(closed.error)
        assert flock.total_connections == 1
        assert "redundant-connection" not in events.types


async def test_the_live_view_follows() -> None:
    async with quiet_flock() as (there, _), quiet_flock() as (flock, _):
        with flock.live_entries() as live:
            assert await anext(live) == ()
            flock.add_peer("x", await there.listen_on())
            async with asyncio.timeout(5):
                while not (entries := await anext(live)) or not entries[0].connection:
                    pass


async def test_a_key_in_the_address_is_pinned() -> None:
    from covey.address import Address

    clock = HandClock()
    async with quiet_flock() as (there, _), quiet_flock(clock=clock) as (flock, events):
        host, port = await there.listen_on()
        wrong = KeyPair.from_seed(b"\x09" * 32).public_key
        flock.add_peer("x", Address.net(host, port, "noise", wrong))
        await until(lambda: clock.planned)
        assert "connection" not in events.types
        flock.leave("x")
        flock.add_peer("x", str(Address.net(host, port, "noise", there.hub.public_key)))
        await events.seen("connection")


async def test_events_are_also_an_iterator() -> None:
    async with quiet_flock() as (flock, _):
        with flock.listen() as events:
            await flock.listen_on()
            assert (await anext(events)).type == "listening"


# Given parts, and the end


async def test_given_parts_are_used_and_left_open() -> None:
    pair = KeyPair.from_seed(b"\x11" * 32)
    async with (
        Hub(key_pair=pair) as hub,
        Staging() as staging,
        Channel([StaticPeers()]) as channel,
        quiet_flock() as (there, theirs),
    ):
        flock = Flock(hub=hub, staging=staging, channel=channel, host=HOST)
        events = Recorder(flock)
        assert (flock.hub, flock.staging, flock.channel) == (hub, staging, channel)
        await flock.join("x")
        there.add_peer("x", flock.addresses[0])
        await theirs.seen("connection")
        accepted = await events.seen("connection")
        assert not accepted.info.initiator
        assert accepted.connection.remote_key == there.hub.public_key
        await flock.close()
        assert events.types[-1] == "close"
        assert not hub.closed
        assert hub.sessions == ()
        assert channel.list() == []
        assert staging.entries() == ()


async def test_a_given_hub_is_dialled_through() -> None:
    async with Hub(key_pair=KeyPair.generate()) as hub, quiet_flock() as (there, _):
        place = await there.listen_on()
        async with quiet_flock(hub=hub, max_connections=1) as (flock, events):
            flock.add_peer("x", place)
            connected = await events.seen("connection")
            assert [s.connection for s in hub.sessions] == [connected.connection]
            assert events.types == ["peer", "connecting", "handshaking", "connection"]
            async with quiet_flock(clock=HandClock()) as (other, _):
                await flock.listen_on()
                other.add_peer("x", flock.addresses[0])
                rejected = await events.seen("peer-rejected")
                assert rejected.reason is Reason.MAX_CONNECTIONS
                assert flock.connections == (connected.connection,)


async def test_destroying_a_flock_that_never_started() -> None:
    flock = Flock()
    await flock.close()
    await flock.close()
    assert flock.closed


async def test_join_leave_and_destroy_in_one_turn() -> None:
    flock = Flock(discovery=False, host=HOST)
    joining = asyncio.create_task(flock.join("x"))
    await asyncio.sleep(0)
    flock.leave("x")
    closing = asyncio.create_task(flock.close())
    with pytest.raises(ClosedError):
        await joining
    await closing


async def test_close_ends_a_waiting_join() -> None:
    flock = Flock(discovery=False, host=HOST)
    joining = asyncio.create_task(flock.join("x"))
    await asyncio.sleep(0)
    await flock.close()
    with pytest.raises(ClosedError):
        await joining


async def test_after_the_end_every_method_raises() -> None:
    flock = Flock(discovery=False)
    await flock.close()
    for call in (
        lambda: flock.add_peer("x", 1),
        lambda: flock.remove_peer("x", 1),
        lambda: flock.leave("x"),
        lambda: flock.explain((HOST, 1)),
        flock.live_entries,
        flock.entries,
        flock.listen,
        lambda: flock.subscribe(print),
    ):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(ClosedError):
        await flock.join("x")
    with pytest.raises(ClosedError):
        await flock.listen_on()
    with pytest.raises(ClosedError):
        await flock.__aenter__()
    assert (flock.queued, flock.connecting, flock.connected) == (0, 0, 0)
    assert (flock.topics, flock.connections, flock.addresses) == ((), (), ())
    assert repr(flock) == "<Flock closed>"


async def test_closing_leaves_no_task_and_no_timer() -> None:
    clock = HandClock()

    async def forever(connection: Connection) -> None:
        async for _ in connection:
            pass
        await asyncio.Event().wait()

    async with mute_listener() as mute, refused_port() as refused, quiet_flock() as (there, _):
        flock = Flock(forever, discovery=False, host=HOST, clock=clock)
        events = Recorder(flock)
        await flock.join("x")
        flock.add_peer("x", await there.listen_on())
        flock.add_peer("x", mute)
        flock.add_peer("x", refused)
        await events.seen("connection")
        await events.seen("connect-failed")
        await events.seen("handshaking", 2)
        place = await flock.listen_on()
        _, writer = await asyncio.open_connection(*place)
        await events.seen("handshaking", 3)
        assert (flock.connecting, flock.connected) == (2, 1)
        await flock.close()
        assert clock.planned == []
        assert isinstance(events.events[-1], FlockClosed)
        assert events.counts[-1] == (0, 0, 0)
        assert len(events.named("connection-closed")) == 3
        with pytest.raises(OSError, match="Connect"):
            await asyncio.open_connection(*place)
        writer.close()
