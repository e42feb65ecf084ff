"""A pinned key: whoever does not prove it is not the peer that was asked for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from covey.address import Address
from covey.errors import HandshakeError
from covey.flock.candidates import CandidateState
from covey.flock.events import ConnectionClosed, PeerConnecting, PeerRejected
from covey.flock.flock import Flock
from covey.flock.policy import Reason
from covey.host_port import HostPort
from covey.keys import KeyPair
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from tests.flock.support import HOST, HandClock, quiet_flock, refused_port

RIGHT, OTHER = (KeyPair.from_seed(bytes([seed]) * 32) for seed in (31, 32))


@asynccontextmanager
async def server(
    key_pair: KeyPair, port: int = 0, *, leaves_open: bool = False
) -> AsyncIterator[tuple[HostPort, list[Connection]]]:
    """Accepts with `key_pair`; `leaves_open`: its connections outlive it."""
    accepted: list[Connection] = []
    async with Endpoint(
        key_pair=key_pair, on_connection=accepted.append, owns_connections=not leaves_open
    ) as endpoint:
        yield await endpoint.listen_on(HOST, port), accepted


def states(flock: Flock) -> dict[bytes | None, CandidateState]:
    return {entry.peer.channel: entry.state for entry in flock.entries()}


def pinned(place: HostPort, key_pair: KeyPair) -> Address:
    return Address.net(*place, key=key_pair.public_key)


async def test_a_place_that_is_connected_for_another_topic_serves_no_other_key() -> None:
    async with server(RIGHT) as (place, _), quiet_flock() as (flock, events):
        assert flock.add_peer("a", place)
        connection = (await events.seen("connection")).connection
        assert flock.add_peer("b", pinned(place, OTHER))
        closed: ConnectionClosed = await events.seen("connection-closed")
        assert (closed.info.channel, type(closed.error)) == (b"b", HandshakeError)
        assert (flock.connections, connection.closed) == ((connection,), False)
        await events.until(lambda: states(flock)[b"b"] is CandidateState.WAITING)
        assert states(flock)[b"a"] is CandidateState.CONNECTED
        assert events.of(PeerRejected) == []


async def test_a_place_that_proved_the_pinned_key_serves_another_topic_too() -> None:
    async with server(RIGHT) as (place, accepted), quiet_flock() as (flock, events):
        assert flock.add_peer("a", place)
        await events.seen("connection")
        assert not flock.add_peer("b", pinned(place, RIGHT))
        assert [event.reason for event in events.of(PeerRejected)] == [Reason.DUPLICATE]
        assert set(states(flock).values()) == {CandidateState.CONNECTED}
        assert (flock.connected, len(accepted)) == (1, 1)


async def test_a_key_named_later_is_not_served_by_what_proved_another() -> None:
    async with server(RIGHT) as (place, accepted), quiet_flock() as (flock, events):
        assert flock.add_peer("a", place)
        await events.seen("connection")
        assert flock.add_peer("a", pinned(place, OTHER))
        closed: ConnectionClosed = await events.seen("connection-closed")
        assert isinstance(closed.error, HandshakeError)
        assert flock.connected == 1
        await accepted[0].close()
        await events.seen("connection-closed", 2)
        # Nothing dials the place again without the key.
        assert {event.peer.address for event in events.of(PeerConnecting)[1:]} == {
            str(pinned(place, OTHER))
        }
        assert states(flock) == {b"a": CandidateState.WAITING}


async def test_a_peer_that_waits_for_its_retry_is_dialled_with_the_key_named_since() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("a", port)
        await events.seen("connect-failed")
        assert flock.add_peer("a", pinned((HOST, port), RIGHT))
        await events.seen("connect-failed", 2)
        assert events.of(PeerConnecting)[1].peer.address == str(pinned((HOST, port), RIGHT))
        assert len(clock.planned) == 1  # the retry without a key is planned no more
        assert [str(address) for address, _ in flock.staging.entries()] == [
            str(pinned((HOST, port), RIGHT))
        ]


async def test_a_key_that_the_connection_proved_is_pinned_for_the_next_one() -> None:
    clock = HandClock()
    async with server(RIGHT) as (place, accepted), quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("a", place)
        await events.seen("connection")
        assert not flock.add_peer("a", pinned(place, RIGHT))
        accepted[0].abort()
        await events.seen("connection-closed")
        clock.turn(1.0)
        await events.seen("connection", 2)
        assert events.of(PeerConnecting)[1].peer.address == str(pinned(place, RIGHT))


async def test_two_connections_of_one_place_are_lost_one_by_one() -> None:
    clock = HandClock()
    async with quiet_flock(clock=clock) as (flock, events):
        async with server(RIGHT, leaves_open=True) as (place, first):
            flock.add_peer("a", place)
            await events.seen("connection")
        async with server(OTHER, place[1]) as (_, second):
            assert flock.add_peer("b", pinned(place, OTHER))
            await events.seen("connection", 2)
            assert (flock.connected, len(second)) == (2, 1)
            await first[0].close()
            await events.seen("connection-closed")
            assert states(flock) == {b"a": CandidateState.WAITING, b"b": CandidateState.CONNECTED}
            clock.turn(1.0)  # its retry finds that the place is connected, and wants no key
            assert states(flock)[b"a"] is CandidateState.CONNECTED
            assert flock.connected == 1
