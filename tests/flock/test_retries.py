"""Lost and unreachable peers: the retry table, drops, bans and rejections."""

from __future__ import annotations

import asyncio

import pytest

from covey.errors import ConnectError, HandshakeTimeout
from covey.flock import policy
from covey.flock.candidates import CandidateState
from covey.flock.events import PeerConnectFailed, PeerConnecting, PeerRejected
from covey.flock.policy import Reason
from covey.limits import Limits
from tests.flock.support import (
    HOST,
    HandClock,
    mute_listener,
    quiet_flock,
    refused_port,
    seeking_flock,
    until,
)


async def test_a_refused_port_is_tried_five_times_and_dropped() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        assert flock.add_peer("x", port)
        times = []
        for attempt in range(len(policy.RETRY_WAITS) + 1):
            await events.seen("connect-failed", attempt + 1)
            times.append(clock.now() - 1000.0)
            if attempt < len(policy.RETRY_WAITS):
                assert clock.planned == [pytest.approx(policy.RETRY_WAITS[attempt])]
                clock.turn(policy.RETRY_WAITS[attempt])
        assert times == pytest.approx([0.0, 1.0, 2.0, 7.0, 22.0])
        assert [event.peer.retries for event in events.of(PeerConnecting)] == [0, 1, 2, 3, 4]
        assert events.types == ["peer"] + ["connecting", "connect-failed"] * 5 + ["drop"]
        assert not any(event.timedout for event in events.of(PeerConnectFailed))
        assert all(isinstance(event.error, ConnectError) for event in events.of(PeerConnectFailed))
        assert flock.entries() == ()
        assert flock.staging.entries() == ()
        assert clock.planned == []
        assert flock.add_peer("x", port), "dropped is forgotten, so it may be named again"


async def test_a_closed_port_is_counted_while_it_is_tried() -> None:
    async with refused_port() as port, quiet_flock(clock=HandClock()) as (flock, events):
        flock.add_peer("x", port)
        assert (flock.queued, flock.connecting, flock.total_connections) == (0, 1, 1)
        await events.seen("connect-failed")
        assert flock.total_connections == 0
        assert flock.connections == ()
        assert events.counts == [(1, 0, 0), (0, 1, 0), (0, 0, 0)]


async def test_a_mute_listener_is_a_failed_attempt() -> None:
    clock = HandClock()
    async with (
        mute_listener() as port,
        quiet_flock(clock=clock, limits=Limits(handshake_timeout=0.05)) as (
            flock,
            events,
        ),
    ):
        flock.add_peer("x", port)
        await until(lambda: clock.planned)
        assert events.types == [
            "peer",
            "connecting",
            "handshaking",
            "handshake-timeout",
            "connection-closed",
        ]
        assert events.counts[2:] == [(0, 1, 0), (0, 0, 0), (0, 0, 0)]
        assert isinstance(events.named("connection-closed")[0].error, HandshakeTimeout)
        assert clock.planned == [pytest.approx(1.0)]
        clock.turn(1.0)
        assert (await events.seen("connecting", 2)).peer.retries == 1


async def test_a_failed_peer_stays_staged_until_it_is_dropped() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("x", port)
        for attempt in range(4):
            await events.seen("connect-failed", attempt + 1)
            ((address, data),) = flock.staging.entries()
            assert address == f"net:{HOST}:{port}~noise"
            assert (data["type"], data["source"], data["topic"]) == ("lan", "application", b"x")
            clock.turn(policy.RETRY_WAITS[attempt])
        await events.seen("drop")
        assert flock.staging.entries() == ()


async def test_explain_tells_the_failures_and_the_next_attempt() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("x", port)
        await events.seen("connect-failed")
        clock.turn(0.25)
        story = flock.explain((HOST, port))
        told = [line.step for line in story.lines]
        assert told[:2] == ["found", "staged"]
        assert "dial-failed" in told
        assert told[-1] == "retry"
        assert (story.state, story.next_step) == ("waiting", "attempt 2 in 0.8 s")
        (entry,) = flock.entries()
        assert (entry.state, entry.connection) == (CandidateState.WAITING, None)


async def test_leave_cancels_queue_and_retries_of_its_channel_only() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        await flock.join("a")
        await flock.join("b")
        flock.add_peer("a", port)
        await events.seen("connect-failed")
        flock.add_peer("b", port)
        await events.seen("connect-failed", 2)
        assert len(clock.planned) == 2
        assert flock.leave("a")
        assert len(clock.planned) == 1
        assert [entry.peer.channel for entry in flock.entries()] == [b"b"]
        assert flock.leave("b")
        assert clock.planned == []
        assert flock.staging.entries() == ()


async def test_leave_calls_off_a_dial_under_way() -> None:
    async with mute_listener() as port, quiet_flock() as (flock, events):
        await flock.join("a")
        flock.add_peer("a", port)
        await events.seen("handshaking")
        flock.leave("a")
        await events.seen("connection-closed")
        assert flock.total_connections == 0
        assert "handshake-timeout" not in events.types


async def test_a_removed_peer_is_not_dialled_until_it_is_added_again() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("x", port)
        await events.seen("connect-failed")
        flock.remove_peer("x", port)
        assert clock.planned == []
        banned = events.named("peer-banned")[0]
        assert (banned.peer.port, banned.reason, banned.details) == (
            port,
            Reason.APPLICATION,
            {"reason": "application"},
        )
        assert not flock._pursuit.found(b"x", HOST, port, "static")
        assert events.of(PeerRejected)[-1].reason is Reason.BANNED
        assert flock._pursuit.found(b"y", HOST, port, "static"), "the ban is of one channel"
        flock.leave("y")
        assert flock.add_peer("x", (HOST, port))


async def test_a_removed_peer_keeps_its_connection_and_is_not_retried() -> None:
    clock = HandClock()
    async with quiet_flock(clock=clock) as (flock, events):
        async with quiet_flock() as (there, _):
            place = await there.listen_on()
            flock.add_peer("x", place)
            await events.seen("connection")
            flock.remove_peer("x", place)
            assert flock.connected == 1
        await events.seen("connection-closed")
        assert clock.planned == []


async def test_a_listener_may_add_peers_while_others_are_dialled() -> None:
    async with refused_port() as port, quiet_flock(clock=HandClock()) as (flock, events):
        flock.subscribe(
            lambda event: event.type == "connecting" and flock.add_peer("x", ("127.0.0.2", port))
        )
        flock.add_peer("x", port)
        assert (flock.queued, flock.connecting) == (0, 2)
        await events.seen("connect-failed", 2)


async def test_a_ban_may_come_before_the_peer_is_known() -> None:
    async with quiet_flock() as (there, _):
        place = await there.listen_on()
        async with seeking_flock([place]) as (flock, events):
            flock.remove_peer("x", place)
            topic = await flock.join("x")
            await topic.flushed()
            assert [event.type for event in events.events if "peer" in event.type] == [
                "peer-banned",
                "peer-rejected",
            ]
            assert flock.total_connections == 0
            # A ban is of an address to dial; the peer may still come to us.
            there.add_peer("x", flock.addresses[0])
            await events.seen("connection")
            assert not events.named("connection")[0].info.initiator


@pytest.mark.parametrize(
    "place", [(HOST, 0), ("224.0.0.251", 80), ("255.255.255.255", 80), ("0.0.0.0", 80), ("::", 80)]
)
async def test_places_that_cannot_be_a_peer_are_refused(place: tuple[str, int]) -> None:
    async with quiet_flock() as (flock, events):
        assert not flock.add_peer("x", place)
        assert events.types == ["peer-rejected"]
        assert events.of(PeerRejected)[0].reason is Reason.UNDIALABLE
        assert flock.entries() == ()


async def test_private_addresses_from_public_sources_are_refused() -> None:
    async with quiet_flock(public_sources=["dht"]) as (flock, events):
        assert not flock._pursuit.found(b"x", "192.168.7.7", 80, "dht")
        assert events.of(PeerRejected)[0].reason is Reason.PRIVATE_ADDRESS


async def test_one_attempt_per_place_and_channel() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        assert flock.add_peer("x", port)
        assert not flock.add_peer("x", port)
        await events.seen("connect-failed")
        assert not flock.add_peer("x", port)
        assert [event.reason for event in events.of(PeerRejected)] == [Reason.DUPLICATE] * 2
        assert len(events.named("connecting")) == 1


async def test_the_same_place_in_two_channels_is_dialled_once() -> None:
    async with quiet_flock() as (there, _):
        place = await there.listen_on()
        async with quiet_flock() as (flock, events):
            assert flock.add_peer("x", place)
            assert flock.add_peer("y", place)
            await events.seen("connection")
            assert flock.queued == 0
            assert len(events.named("connecting")) == 1
            assert not flock.add_peer("z", place)
            assert events.of(PeerRejected)[-1].reason is Reason.DUPLICATE
            assert {entry.state for entry in flock.entries()} == {CandidateState.CONNECTED}
            await asyncio.sleep(0)
            assert len(there.connections) == 1
