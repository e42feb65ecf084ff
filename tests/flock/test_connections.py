"""One connection per peer: crossing dials, duplicates, self, limits, whitelist, reconnecting."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from covey.flock import policy
from covey.flock.events import (
    ConnectionClosed,
    FlockEvent,
    PeerBanned,
    PeerRejected,
    RedundantConnection,
)
from covey.flock.flock import Flock
from covey.flock.policy import Cause, Reason
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from tests.flock.support import (
    HOST,
    HandClock,
    mute_listener,
    quiet_flock,
    seeking_flock,
    sorted_pairs,
    until,
)


async def test_a_peer_that_joins_later_gets_one_connection() -> None:
    """Section 8, normal: without the reference's second connection by re-discovery."""
    async with quiet_flock() as (there, theirs):
        place = await there.listen_on()
        async with seeking_flock([place]) as (flock, events):
            topic = await flock.join("x")
            await topic.flushed()
            await events.seen("connection")
            await theirs.seen("connection")
            assert events.types == ["listening", "peer", "connecting", "handshaking", "connection"]
            assert events.counts == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 1, 0), (0, 0, 1)]
            assert theirs.types == ["listening", "handshaking", "connection"]
            assert theirs.counts == [(0, 0, 0), (0, 1, 0), (0, 0, 1)]
            ours, other = events.named("connection")[0].info, theirs.named("connection")[0].info
            assert (ours.initiator, ours.channel, ours.host, ours.port) == (True, b"x", *place)
            assert (other.initiator, other.channel, other.host) == (False, None, HOST)
            assert ours.key == ours.id == there.key_pair.public_key  # type: ignore[union-attr]
            assert isinstance(other.port, int)
            assert other.type == "tcp"


@pytest.mark.parametrize("first_to_dial", ["small", "large"])
@pytest.mark.parametrize("handshake", ["noise", "plain"])
async def test_crossing_dials_leave_the_connection_that_the_smaller_side_takes(
    handshake: str, first_to_dial: str
) -> None:
    """Section 8, simultaneous: both sides drop the same one of two, and agree."""
    small, large = sorted_pairs()
    async with AsyncExitStack() as stack:
        a, first = await stack.enter_async_context(
            quiet_flock(key_pair=small, id=b"\x01" * 32, handshake=handshake)
        )
        b, second = await stack.enter_async_context(
            quiet_flock(key_pair=large, id=b"\x02" * 32, handshake=handshake)
        )
        place_a, place_b = await a.listen_on(), await b.listen_on()
        dials = [(a, place_b), (b, place_a)]
        for flock, place in dials if first_to_dial == "small" else reversed(dials):
            flock.add_peer("x", place)
        await first.seen("connection-closed")
        await second.seen("connection-closed")
        await until(lambda: a.total_connections == b.total_connections == 1)
        (kept_a,), (kept_b,) = a.connections, b.connections
        if handshake == "plain":
            assert kept_a.initiator  # as the reference; proven keys let `a` take its first
        assert kept_a.initiator is not kept_b.initiator
        assert kept_a.handshake_hash == kept_b.handshake_hash
        assert [entry.connection for entry in a.entries()] == [kept_a]
        assert [entry.connection for entry in b.entries()] == [kept_b]
        for events in (first, second):
            for event in events.of(RedundantConnection):
                assert event.connection.attempt.id == event.info.attempt
                assert event.connection not in (kept_a, kept_b)
            assert min(count for counts in events.counts for count in counts) >= 0
        if handshake == "noise":
            assert [event.cause for event in first.of(RedundantConnection)] == [Cause.SIMULTANEOUS]
            assert second.of(RedundantConnection) == [], "it only sees the end of one"
            assert len(first.named("connection")) == len(second.named("connection")) == 1
        await kept_a.send(b"still there")
        async for message in kept_b:
            assert message == b"still there"
            break


async def test_users_of_crossing_dials_are_told_once_and_lose_nothing() -> None:
    heard: list[bytes] = []

    async def greet(connection: Connection) -> None:
        await connection.send(b"hello")
        async for message in connection:
            heard.append(message)

    small, large = sorted_pairs()
    for turn in range(24):
        heard.clear()
        async with (
            quiet_flock(handler=greet, key_pair=small) as (a, first),
            quiet_flock(handler=greet, key_pair=large) as (b, second),
        ):
            place_a, place_b = await a.listen_on(), await b.listen_on()
            dials = [(a, place_b), (b, place_a)]
            for flock, place in dials if turn % 2 else reversed(dials):
                flock.add_peer("x", place)
                for _ in range(turn):
                    await asyncio.sleep(0)
            await until(lambda: len(heard) == 2)
            await until(partial(_both_have_one, a, b))
            assert len(first.named("connection")) == len(second.named("connection")) == 1
            assert heard == [b"hello", b"hello"]


def _both_have_one(a: Flock, b: Flock) -> bool:
    return a.total_connections == b.total_connections == 1


@pytest.mark.parametrize("late", ["small", "large"])
async def test_a_peer_that_learns_of_us_later_replaces_nothing(late: str) -> None:
    small, large = sorted_pairs()
    async with (
        quiet_flock(key_pair=small) as (a, first),
        quiet_flock(key_pair=large) as (b, second),
    ):
        dials = [(a, await b.listen_on()), (b, await a.listen_on())]
        early, other = dials[:: -1 if late == "small" else 1]
        early[0].add_peer("x", early[1])
        (await first.seen("connection"), await second.seen("connection"))
        kept = a.connections + b.connections
        other[0].add_peer("x", other[1])
        await first.seen("connection-closed")
        await second.seen("connection-closed")
        await until(lambda: a.total_connections == b.total_connections == 1)
        assert a.connections + b.connections == kept
        assert len(first.named("connection")) == len(second.named("connection")) == 1


async def test_an_accepted_connection_waits_no_longer_than_the_own_dial() -> None:
    """Nobody answers our own dial to the same host: then the wait has an end of its own."""
    small, large = sorted_pairs()
    clock = HandClock()
    async with (
        mute_listener() as mute,
        quiet_flock(key_pair=large, clock=clock, limits=Limits(handshake_timeout=60)) as (
            flock,
            events,
        ),
        quiet_flock(key_pair=small) as (there, theirs),
    ):
        flock.add_peer("x", mute)
        await events.seen("handshaking")
        there.add_peer("x", await flock.listen_on())
        await theirs.seen("connection")
        await until(lambda: flock.connecting == 2)
        assert (flock.connected, flock.connections) == (0, ())
        clock.turn(policy.SETTLE)
        assert (await events.seen("connection")).info.initiator is False
        assert flock.connected == 1


async def test_what_a_waiting_connection_brought_is_not_lost_when_the_remote_ends() -> None:
    small, large = sorted_pairs()

    async def speak(connection: Connection) -> None:
        await connection.send(b"goodbye")

    async with (
        mute_listener() as mute,
        quiet_flock(key_pair=large, clock=HandClock(), limits=Limits(handshake_timeout=60)) as (
            flock,
            events,
        ),
        quiet_flock(key_pair=small, handler=speak, clock=HandClock()) as (there, _),
    ):
        flock.add_peer("x", mute)
        await events.seen("handshaking")
        there.add_peer("x", await flock.listen_on())
        connection = (await events.seen("connection")).connection
        assert [message async for message in connection] == [b"goodbye"]


@pytest.mark.parametrize("handshake", ["noise", "plain"])
async def test_many_crossing_pairs_all_end_with_one_connection(handshake: str) -> None:
    async with AsyncExitStack() as stack:
        flocks = []
        for number in range(5):
            flock, events = await stack.enter_async_context(
                quiet_flock(handshake=handshake, id=bytes([number]) * 32)
            )
            flocks.append((flock, events, await flock.listen_on()))
        for flock, _, own in flocks:
            for _, _, place in flocks:
                if place != own:
                    flock.add_peer("x", place)
        await until(lambda: all(flock.connected == 4 for flock, _, _ in flocks))
        await until(lambda: all(flock.total_connections == 4 for flock, _, _ in flocks))
        for flock, events, _ in flocks:
            assert flock.connected == 4
            assert "connect-failed" not in events.types


async def test_a_claimed_smaller_id_does_not_displace_a_connection() -> None:
    """Section 5: the attacker has our peer's id, and one smaller than ours."""
    clock = HandClock()
    async with AsyncExitStack() as stack:
        flock, events = await stack.enter_async_context(
            quiet_flock(handshake="plain", id=b"\x02" * 32, clock=clock)
        )
        friend, _ = await stack.enter_async_context(quiet_flock(handshake="plain", id=b"\x01" * 32))
        attacker, _ = await stack.enter_async_context(
            quiet_flock(handshake="plain", id=b"\x01" * 32)
        )
        flock.add_peer("x", await friend.listen_on())
        genuine = (await events.seen("connection")).connection
        attacker.add_peer("x", await flock.listen_on())
        await until(lambda: flock.connecting == 1 and clock.planned)
        assert flock.connections == (genuine,)
        clock.turn(policy.HOLD)
        redundant = await events.seen("redundant-connection")
        assert redundant.connection is not genuine
        assert redundant.cause is Cause.UNPROVEN
        assert not redundant.info.initiator
        await events.seen("connection-closed")
        assert flock.connections == (genuine,)
        assert not genuine.closed
        assert flock.total_connections == 1


@pytest.mark.skipif(not hasattr(socket, "TCP_KEEPIDLE"), reason="no such options here")
async def test_a_claimed_id_has_the_connection_probed_that_is_kept() -> None:
    """Section 5: whoever claims it may be the peer, whose machine vanished without a word."""

    def told(connection: Connection) -> tuple[int, ...]:
        transport = connection._shell._transport
        assert transport is not None
        raw = transport.get_extra_info("socket")
        names = ("KEEPIDLE", "KEEPINTVL", "KEEPCNT", "USER_TIMEOUT")
        return tuple(
            raw.getsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_{name}"))
            for name in names
            if hasattr(socket, f"TCP_{name}")
        )

    clock = HandClock()
    async with AsyncExitStack() as stack:
        plain: dict[str, Any] = {"handshake": "plain", "id": b"\x01" * 32}
        flock, events = await stack.enter_async_context(
            quiet_flock(handshake="plain", id=b"\x02" * 32, clock=clock)
        )
        friend, _ = await stack.enter_async_context(quiet_flock(**plain))
        again, _ = await stack.enter_async_context(quiet_flock(**plain))
        flock.add_peer("x", await friend.listen_on())
        genuine = (await events.seen("connection")).connection
        before = told(genuine)
        assert before[0] > 1
        again.add_peer("x", await flock.listen_on())
        await until(lambda: flock.connecting == 1 and clock.planned)
        assert told(genuine)[:2] == (1, 1)
        clock.turn(policy.HOLD)
        await events.seen("redundant-connection")
        assert told(genuine)[:2] == (1, 1)
        clock.turn(policy.PROBED)
        assert (told(genuine), genuine.closed) == (before, False)


async def test_a_held_connection_takes_over_when_the_remote_ends_the_other() -> None:
    """What a reference peer with the smaller id does: it replaces the connection it has."""
    clock = HandClock()
    async with AsyncExitStack() as stack:
        flock, events = await stack.enter_async_context(
            quiet_flock(handshake="plain", id=b"\x02" * 32, clock=clock)
        )
        friend, _ = await stack.enter_async_context(quiet_flock(handshake="plain", id=b"\x01" * 32))
        again, _ = await stack.enter_async_context(quiet_flock(handshake="plain", id=b"\x01" * 32))
        flock.add_peer("x", await friend.listen_on())
        first = (await events.seen("connection")).connection
        again.add_peer("x", await flock.listen_on())
        await until(lambda: flock.connecting == 1)
        await friend.close()
        second = (await events.seen("connection", 2)).connection
        assert flock.connections == (second,)
        assert first.closed
        assert (flock.connecting, flock.connected) == (0, 1)
        assert events.about_connections()[-2:] == [
            ("connection-closed", True),
            ("connection", False),
        ]
        assert clock.planned == [], "neither a retry nor the hold is left"


async def test_a_proven_peer_replaces_only_a_silent_connection() -> None:
    """The peer's host crashed: no end came, and it dials us with the same key."""
    clock = HandClock()
    pair = KeyPair.from_seed(b"\x07" * 32)
    async with AsyncExitStack() as stack:
        flock, events = await stack.enter_async_context(quiet_flock(clock=clock))
        before, _ = await stack.enter_async_context(quiet_flock(key_pair=pair))
        after, theirs = await stack.enter_async_context(
            quiet_flock(key_pair=pair, clock=(their_clock := HandClock()))
        )
        place = await flock.listen_on()
        before.add_peer("x", place)
        first = (await events.seen("connection")).connection
        clock.turn(policy.SIMULTANEOUS)
        after.add_peer("x", place)
        await until(lambda: clock.planned)  # it is held
        clock.turn(policy.HOLD)
        dropped = await events.seen("redundant-connection")
        assert dropped.cause is Cause.ESTABLISHED
        assert flock.connections == (first,)
        await theirs.seen("connection-closed")
        clock.turn(policy.SILENCE)
        await until(lambda: their_clock.planned)
        their_clock.turn(1.0)
        replaced = await events.seen("redundant-connection", 2)
        assert replaced.cause is Cause.SILENT
        assert replaced.connection is first
        second = (await events.seen("connection", 2)).connection
        assert flock.connections == (second,)


def _has_read_more(connection: Connection, before: int) -> bool:
    return connection.bytes_read > before


async def test_a_connection_that_still_speaks_is_not_silent() -> None:
    clock = HandClock()
    pair = KeyPair.from_seed(b"\x07" * 32)
    async with AsyncExitStack() as stack:
        flock, events = await stack.enter_async_context(quiet_flock(clock=clock))
        before, theirs = await stack.enter_async_context(quiet_flock(key_pair=pair))
        place = await flock.listen_on()
        before.add_peer("x", place)
        first = (await events.seen("connection")).connection
        speaking = (await theirs.seen("connection")).connection
        for dropped in (1, 2):
            clock.turn(policy.SILENCE)
            more = partial(_has_read_more, first, first.bytes_read)
            await speaking.send(b"alive")
            await until(more)
            after, _ = await stack.enter_async_context(
                quiet_flock(key_pair=pair, clock=HandClock())
            )
            after.add_peer("x", place)
            await until(lambda: clock.planned)  # it is held
            clock.turn(policy.HOLD)
            redundant = await events.seen("redundant-connection", dropped)
            assert redundant.cause is Cause.ESTABLISHED
            assert flock.connections == (first,)


async def test_an_announce_that_comes_back_is_not_dialled() -> None:
    async with quiet_flock() as (flock, events):
        place = await flock.listen_on()
        assert not flock.add_peer("x", place)
        assert not flock.add_peer("x", ("localhost", place[1]))
        assert [event.reason for event in events.of(PeerRejected)] == [Reason.OWN_ADDRESS] * 2
        assert "connecting" not in events.types


async def test_an_own_address_on_any_interface_is_recognised() -> None:
    async with quiet_flock(host=None) as (flock, events):
        _, port = await flock.listen_on()
        for host in ("127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"):
            assert not flock.add_peer("x", (host, port))
        assert {event.reason for event in events.of(PeerRejected)} == {Reason.OWN_ADDRESS}


ENDS = ("peer-banned", "connection-closed")


@pytest.mark.parametrize("handshake", ["noise", "plain"])
async def test_a_detour_to_ourselves_is_banned(handshake: str) -> None:
    """Behind a port forwarding nobody can know the address is our own: the id tells."""
    async with quiet_flock(handshake=handshake) as (flock, events):
        place = await flock.listen_on()
        async with _forward(place) as detour:
            flock.add_peer("x", detour)
            await events.until(lambda: len(events.named("connection-closed")) == 2)
            (banned,) = events.of(
                PeerBanned
            )  # nobody can dial the port that the other end came from
            assert (banned.peer.host, banned.peer.port) == (HOST, detour)
            assert banned.details == {"reason": "detected-self"}
            order = [event for event in events.events if event.type in ENDS]
            assert [event.type for event in order] == [
                "peer-banned",
                "connection-closed",
                "connection-closed",
            ]
            closed = events.of(ConnectionClosed)
            assert [event.info.initiator for event in closed] == [False, True]
            assert "connection" not in events.types
            assert not flock.add_peer("x", detour)
            assert events.of(PeerRejected)[-1].reason is Reason.BANNED
            assert flock.total_connections == 0
            assert flock.entries() == ()


def _forward(place: tuple[str, int]) -> Any:
    """A port that leads to `place`."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def running() -> Any:
        pipes: set[asyncio.Task[None]] = set()

        async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while data := await reader.read(65536):
                    writer.write(data)
            except OSError:
                pass
            finally:
                writer.close()

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            far_reader, far_writer = await asyncio.open_connection(*place)
            for pair in ((reader, far_writer), (far_reader, writer)):
                task = asyncio.create_task(pump(*pair))
                pipes.add(task)

        server = await asyncio.start_server(accept, HOST, 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in pipes:
                task.cancel()
            await asyncio.gather(*pipes, return_exceptions=True)

    return running()


async def test_max_connections_counts_both_directions() -> None:
    """Section 8, maxConnections 1 on A: the reference accepts C, we do not."""
    async with AsyncExitStack() as stack:
        b, _ = await stack.enter_async_context(quiet_flock())
        c, _ = await stack.enter_async_context(quiet_flock(clock=HandClock()))
        place_b, place_c = await b.listen_on(), await c.listen_on()
        a, events = await stack.enter_async_context(
            quiet_flock(max_connections=1, clock=HandClock())
        )
        a.add_peer("x", place_b)
        await events.seen("connection")
        a.add_peer("x", place_c)
        assert (a.queued, a.connecting, a.connected) == (1, 0, 1)
        c.add_peer("x", await a.listen_on())
        rejected = await events.seen("peer-rejected")
        assert rejected.reason is Reason.MAX_CONNECTIONS
        assert rejected.peer.host == HOST
        assert len(events.named("handshaking")) == 1, "refused before its handshake"
        await until(lambda: c.entries()[0].peer.retries == 1)
        assert a.total_connections == 1
        await b.close()
        await events.until(lambda: any(x.remote_key == c.hub.public_key for x in a.connections))
        assert (a.queued, a.connecting, a.connected) == (0, 0, 1)


async def test_a_full_flock_refuses_what_completes_too_late() -> None:
    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(quiet_flock()) for _ in range(4)]
        a, events = await stack.enter_async_context(quiet_flock(max_connections=2))
        place = await a.listen_on()
        for flock, _ in others:
            flock.add_peer("x", place)
        await events.seen("peer-rejected", 2)
        await until(lambda: a.total_connections == 2)
        assert a.connected == 2
        assert max(connected for _, _, connected in events.counts) == 2


async def test_crossing_dials_with_room_for_one_still_meet() -> None:
    async with AsyncExitStack() as stack:
        a, first = await stack.enter_async_context(quiet_flock(max_connections=1))
        b, second = await stack.enter_async_context(quiet_flock(max_connections=1))
        place_a, place_b = await a.listen_on(), await b.listen_on()
        a.add_peer("x", place_b)
        b.add_peer("x", place_a)
        await until(lambda: a.connected == b.connected == 1 and not a.connecting + b.connecting)
        assert "connect-failed" not in first.types + second.types


async def test_the_whitelist_keeps_both_directions_out() -> None:
    async with (
        quiet_flock() as (there, _),
        quiet_flock(whitelist=["10.0.0.0/8", "192.168.1.7"]) as (flock, events),
    ):
        place = await there.listen_on()
        assert not flock.add_peer("x", place)
        assert "peer" not in events.types
        assert events.of(PeerRejected)[0].reason is Reason.WHITELIST
        there.add_peer("x", await flock.listen_on())
        await events.seen("peer-rejected", 2)
        rejected = events.of(PeerRejected)[1]
        assert (rejected.reason, rejected.peer.channel) == (Reason.WHITELIST, None)
        assert "handshaking" not in events.types
        await until(lambda: there.entries()[0].peer.retries == 1)
        assert flock.total_connections == 0


async def test_a_whitelisted_peer_connects_both_ways() -> None:
    async with (
        quiet_flock() as (there, _),
        quiet_flock(whitelist=["127.0.0.0/8"]) as (
            flock,
            events,
        ),
    ):
        flock.add_peer("x", await there.listen_on())
        await events.seen("connection")


async def test_a_peer_that_leaves_and_returns_is_connected_again() -> None:
    """Section 8, peer is destroyed: the initiator tries again, the acceptor does not."""
    clock = HandClock()
    pair = KeyPair.from_seed(b"\x05" * 32)
    async with quiet_flock(clock=clock) as (flock, events):
        async with quiet_flock(key_pair=pair) as (there, theirs):
            place = await there.listen_on()
            flock.add_peer("x", place)
            await events.seen("connection")
        await events.seen("connection-closed")
        assert flock.total_connections == 0
        assert clock.planned == [pytest.approx(1.0)]
        clock.turn(1.0)
        await events.seen("connect-failed")
        clock.turn(1.0)
        await events.seen("connect-failed", 2)
        async with quiet_flock(key_pair=pair) as (there, theirs):
            await there.listen_on(port=place[1])
            clock.turn(5.0)
            await events.seen("connection", 2)
            assert [event.peer.retries for event in events.named("connecting")] == [0, 1, 2, 3]
            assert [entry.peer.retries for entry in flock.entries()] == [0]
            await flock.close()
            await theirs.seen("connection-closed")
            assert (there.queued, there.connecting, there.connected) == (0, 0, 0)
            assert there.entries() == ()


async def test_leave_keeps_connections_and_rejoin_does_not_replace_them() -> None:
    async with quiet_flock() as (there, _):
        place = await there.listen_on()
        async with seeking_flock([place]) as (flock, events):
            topic = await flock.join("x")
            await events.seen("connection")
            topic.leave()
            assert flock.connected == 1
            again = await flock.join("x")
            assert again is not topic
            rejected = await events.seen("peer-rejected")
            assert rejected.reason is Reason.DUPLICATE
            assert len(events.named("connecting")) == 1
            assert flock.connected == 1


async def test_a_connection_lost_after_leave_is_not_retried() -> None:
    clock = HandClock()
    async with quiet_flock(clock=clock) as (flock, events):
        async with quiet_flock() as (there, _):
            await flock.join("x")
            flock.add_peer("x", await there.listen_on())
            await events.seen("connection")
            flock.leave("x")
        await events.seen("connection-closed")
        assert clock.planned == []
        assert flock.entries() == ()


async def test_another_channel_takes_over_the_retry_of_one_that_was_left() -> None:
    clock = HandClock()
    async with quiet_flock(clock=clock) as (flock, events):
        async with quiet_flock() as (there, _):
            place = await there.listen_on()
            flock.add_peer("x", place)
            await events.seen("connection")
            flock.add_peer("y", place)
            flock.leave("x")
        await events.seen("connection-closed")
        assert clock.planned == [pytest.approx(1.0)]
        assert [(e.peer.channel, e.peer.retries) for e in flock.entries()] == [(b"y", 1)]


async def test_every_raw_connection_has_one_closing_event() -> None:
    small, large = sorted_pairs()
    async with (
        quiet_flock(key_pair=small) as (a, first),
        quiet_flock(key_pair=large) as (b, second),
    ):
        place_a, place_b = await a.listen_on(), await b.listen_on()
        a.add_peer("x", place_b)
        b.add_peer("x", place_a)
        await until(lambda: a.connected and b.connected and not a.connecting + b.connecting)
        await a.close()
        await b.close()
        for events in (first, second):
            begun = sorted(event.info.attempt for event in events.named("handshaking"))
            ended = sorted(event.info.attempt for event in events.of(ConnectionClosed))
            assert begun == ended
            assert events.types[-1] == "close"
            assert events.counts[-1] == (0, 0, 0)


async def test_a_dropped_connection_says_why() -> None:
    small, large = sorted_pairs()
    async with quiet_flock(key_pair=small) as (a, first), quiet_flock(key_pair=large) as (b, _):
        place_a, place_b = await a.listen_on(), await b.listen_on()
        a.add_peer("x", place_b)
        b.add_peer("x", place_a)
        dropped = await first.seen("redundant-connection")
        assert dropped.connection.close_reason in (CloseReason.REDUNDANT, CloseReason.REMOTE_END)


async def test_the_connections_that_wait_are_counted_and_not_searched() -> None:
    """Asked before every dial: with many connections and a long queue a search takes seconds."""
    async with quiet_flock() as (flock, events), quiet_flock() as (there, _):
        flock.add_peer("x", await there.listen_on())
        await events.seen("connection")
        roster = flock._roster
        roster._records = None  # type: ignore[assignment]
        try:
            assert (roster.pending, roster.pending_outgoing, roster.connected) == (0, 0, 1)
        finally:
            roster._records = {record.connection.id: record for record in roster.registered()}


@pytest.mark.parametrize("handshake", ["noise", "plain", "raw"])
async def test_the_counts_of_waiting_connections_agree_with_the_connections(handshake: str) -> None:
    def counted(flock: Flock) -> bool:
        roster = flock._roster
        stages = [(record.stage, record.info.initiator) for record in roster.all()]
        waiting = [dialled for stage, dialled in stages if stage in ("identifying", "held")]
        settling = sum(stage == "settling" for stage, _ in stages)
        expected = (len(waiting) + settling, sum(waiting))
        return (roster.pending, roster.pending_outgoing) == expected

    async def learn(*_: object) -> bytes:
        await asyncio.sleep(0)
        return b"somebody"

    options: dict[str, Any] = {"stream": learn} if handshake == "raw" else {"handshake": handshake}
    async with quiet_flock(**options) as (one, events), quiet_flock(**options) as (other, more):
        wrong: list[str] = []

        def check(event: FlockEvent) -> None:
            wrong.extend(event.type for flock in (one, other) if not counted(flock))

        one.subscribe(check)
        other.subscribe(check)
        places = [await flock.listen_on() for flock in (one, other)]
        one.add_peer("x", places[1])
        other.add_peer("x", places[0])
        await events.seen("connection")
        await more.seen("connection")
        assert wrong == []
        await other.close()
        await until(lambda: one.connected == 0)
        assert counted(one)
