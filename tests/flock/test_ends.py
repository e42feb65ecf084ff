"""Why a connection ended, and why a peer was given up, as the events tell it."""

from __future__ import annotations

import asyncio

import pytest

from covey.errors import (
    ConnectError,
    ConnectionAborted,
    HandshakeError,
    HandshakeTimeout,
    Refused,
    SelfConnection,
)
from covey.flock.context import Context
from covey.flock.events import ConnectionClosed, PeerDropped
from covey.flock.flock import Flock
from covey.flock.watch import IncomingWatch
from covey.net.attempt import Attempt
from covey.net.close_reason import CloseReason
from tests.flock.support import HandClock, Recorder, quiet_flock, refused_port


async def closed(events: Recorder) -> ConnectionClosed:
    event: ConnectionClosed = await events.seen("connection-closed")
    return event


async def join_two(one: Flock, one_events: Recorder, other: Flock, events: Recorder) -> None:
    one.add_peer("x", await other.listen_on())
    await one_events.seen("connection")
    await events.seen("connection")


async def test_both_ends_tell_who_ended_a_connection() -> None:
    async with quiet_flock() as (one, one_events), quiet_flock() as (other, other_events):
        await join_two(one, one_events, other, other_events)
        await one.connections[0].close("I am bored")
        here, there = await closed(one_events), await closed(other_events)
        assert (here.reason, here.text, here.error) == (CloseReason.LOCAL, "I am bored", None)
        assert (there.reason, there.error) == (CloseReason.REMOTE_END, None)
        assert there.text == "remote-end"


async def test_the_error_that_cut_a_connection_is_its_text() -> None:
    async with quiet_flock() as (one, one_events), quiet_flock() as (other, other_events):
        await join_two(one, one_events, other, other_events)
        one.connections[0].abort(ConnectionAborted("no longer wanted"))
        here = await closed(one_events)
        assert (here.reason, here.text) == (CloseReason.ABORTED, "no longer wanted")
        assert isinstance(here.error, ConnectionAborted)


async def test_a_flock_that_closes_tells_that_it_did() -> None:
    async with quiet_flock() as (one, one_events), quiet_flock() as (other, other_events):
        await join_two(one, one_events, other, other_events)
        await one.close()
        assert (await closed(one_events)).reason is CloseReason.SHUTDOWN


async def test_a_handshake_with_a_stranger_ends_with_its_reason() -> None:
    async with quiet_flock() as (flock, events):
        host, port = await flock.listen_on()
        _, writer = await asyncio.open_connection(host, port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        try:
            event = await closed(events)
            assert (event.connection, event.reason) == (None, CloseReason.HANDSHAKE)
            assert event.text == str(event.error) != ""
        finally:
            writer.close()
            await asyncio.gather(writer.wait_closed(), return_exceptions=True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (HandshakeError("bad"), CloseReason.HANDSHAKE),
        (HandshakeTimeout("late"), CloseReason.HANDSHAKE),
        (ConnectError("cut"), CloseReason.HANDSHAKE),
        (Refused("too many", reason="max_handshakes"), CloseReason.REFUSED),
        (ConnectionAborted("called off"), CloseReason.ABORTED),
        (SelfConnection("this very node"), CloseReason.SELF),
    ],
)
async def test_every_end_of_a_handshake_has_a_reason(
    error: ConnectError, reason: CloseReason
) -> None:
    async with quiet_flock() as (flock, events):
        context: Context = flock._context
        attempt = Attempt(1, "tcp", False, "10.0.0.9", 9, None, "noise")
        IncomingWatch(context).handshake_failed(attempt, error)
        context.selves.flush()
        event = await closed(events)
        assert (event.reason, event.text, event.error) == (reason, str(error), error)


async def test_a_peer_that_is_given_up_comes_with_its_last_error() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("x", port)
        for count, wait in enumerate((1.0, 1.0, 5.0, 15.0, 0.0), 1):
            await events.seen("connect-failed", count)
            clock.turn(wait)
        dropped: PeerDropped = await events.seen("drop")
        assert dropped.error is events.named("connect-failed")[-1].error
