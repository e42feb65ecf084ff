"""The upstream scenarios of discovery-swarm (section 11), by multicast on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from covey.discovery.channel import Channel
from covey.discovery.dns import DnsDiscovery
from covey.discovery.source import Timing
from covey.flock.flock import Flock
from covey.flock.policy import Reason
from covey.net.connection import Connection
from tests.discovery.fakes import free_udp_port
from tests.flock.support import (
    HOST,
    HandClock,
    Recorder,
    quiet_flock,
    refused_port,
    until,
)

OFTEN = Timing(early=(0.2, 0.5, 1.0), interval=2.0)
"""Rounds close together: a lost datagram must not fail a test."""


@pytest.fixture
def mdns_port() -> int:
    """A port for this test's own multicast group."""
    return free_udp_port()


@asynccontextmanager
async def multicast_flock(mdns_port: int, **options: Any) -> AsyncIterator[tuple[Flock, Recorder]]:
    """A flock that discovers by multicast on the loopback interface only."""
    source = DnsDiscovery(port=mdns_port, interface="lo", timing=OFTEN)
    async with Channel([source]) as channel:
        flock = Flock(**{"channel": channel, "host": HOST, **options})
        async with flock:
            yield flock, Recorder(flock)


async def echo(connection: Connection) -> None:
    """Send everything back."""
    async for message in connection:
        await connection.send(message)


@pytest.mark.parametrize("handshake", ["noise", "plain"])
async def test_two_flocks_with_one_name_find_each_other(mdns_port: int, handshake: str) -> None:
    async with (
        multicast_flock(mdns_port, handshake=handshake) as (a, first),
        multicast_flock(mdns_port, handshake=handshake) as (b, second),
    ):
        await asyncio.gather(a.join("test"), b.join("test"))
        await first.seen("connection")
        await second.seen("connection")
        await until(lambda: a.total_connections == b.total_connections == 1)
        assert {a.connections[0].initiator, b.connections[0].initiator} == {True, False}


@pytest.mark.parametrize("handshake", ["noise", "plain"])
async def test_what_one_writes_the_other_returns(mdns_port: int, handshake: str) -> None:
    back = asyncio.Event()

    async def say(connection: Connection) -> None:
        await connection.send(b"hello")
        async for message in connection:
            assert message == b"hello"
            back.set()
            await connection.wait_closed()

    async with (
        multicast_flock(mdns_port, handshake=handshake, handler=echo) as (a, first),
        multicast_flock(mdns_port, handshake=handshake, handler=say) as (b, second),
    ):
        await a.join("test")
        await b.join("test")
        async with asyncio.timeout(10):
            await back.wait()
        for events in (first, second):
            info = events.named("connection")[0].info
            assert isinstance(info.host, str)
            assert isinstance(info.port, int)


async def test_two_joins_both_come_to_the_end_of_their_round(mdns_port: int) -> None:
    async with multicast_flock(mdns_port) as (flock, _):
        one = await flock.join("one")
        two = await flock.join("two")
        assert (await one.flushed()).succeeded == ("dns",)
        assert (await two.flushed()).succeeded == ("dns",)


async def test_ten_flocks_each_send_their_number_to_all(mdns_port: int) -> None:
    heard: list[set[int]] = [set() for _ in range(10)]

    def exchange(number: int) -> Any:
        async def handler(connection: Connection) -> None:
            await connection.send(bytes([number]))
            async for message in connection:
                heard[number].add(message[0])

        return handler

    async with AsyncExitStack() as stack:
        flocks = []
        for number in range(10):
            options = multicast_flock(mdns_port, handler=exchange(number))
            flocks.append(await stack.enter_async_context(options))
        await asyncio.gather(*(flock.join("numbers") for flock, _ in flocks))
        everybody = set(range(10))
        await until(lambda: all(heard[n] == everybody - {n} for n in range(10)))
        await until(lambda: all(flock.total_connections == 9 for flock, _ in flocks))
        assert all(flock.connected == 9 for flock, _ in flocks)
        for _, events in flocks:
            assert min(number for counts in events.counts for number in counts) >= 0
            assert "handler-failed" not in events.types


async def test_a_closed_port_added_by_hand_leads_nowhere(mdns_port: int) -> None:
    async with (
        refused_port() as port,
        multicast_flock(mdns_port, clock=HandClock()) as (
            flock,
            events,
        ),
    ):
        flock.add_peer("test", port)
        assert flock.total_connections == 1
        await events.seen("connect-failed")
        assert flock.total_connections == 0
        assert flock.connections == ()


async def test_a_lone_flock_stays_alone(mdns_port: int) -> None:
    async with multicast_flock(mdns_port) as (flock, events):
        topic = await flock.join("test")
        await topic.flushed()
        await flock.join("other")
        assert flock.total_connections == 0
        assert "connecting" not in events.types, "its own announce is not dialled"


async def test_a_whitelist_of_others_makes_no_peer_event(mdns_port: int) -> None:
    async with multicast_flock(mdns_port, whitelist=["9.9.9.9"]) as (flock, events):
        assert not flock.add_peer("test", 10000)
        assert events.types == ["peer-rejected"]


async def test_a_peer_that_left_and_joins_again_is_not_rejected(mdns_port: int) -> None:
    async with multicast_flock(mdns_port) as (a, first):
        await a.join("test")
        async with multicast_flock(mdns_port) as (b, _):
            await b.join("test")
            await first.seen("connection")
        await first.seen("connection-closed")
        async with multicast_flock(mdns_port) as (b, _):
            await b.join("test")
            await first.until(lambda: any(c.remote_key == b.hub.public_key for c in a.connections))
            reasons = {event.reason for event in first.named("peer-rejected")}
            assert reasons <= {Reason.DUPLICATE}


async def test_destroy_before_anything_was_started(mdns_port: int) -> None:
    async with multicast_flock(mdns_port) as (flock, events):
        await flock.close()
        assert events.types == ["close"]


async def test_join_leave_and_destroy_at_once(mdns_port: int) -> None:
    async with multicast_flock(mdns_port) as (flock, _):
        topic = await flock.join("test")
        topic.leave()
        await flock.close()


async def test_lookup_only_finds_and_is_not_found(mdns_port: int) -> None:
    """Section 8, lookup only: A sees an incoming connection and discovers nobody."""
    async with (
        multicast_flock(mdns_port) as (a, first),
        multicast_flock(mdns_port) as (b, second),
    ):
        await a.join("test")
        await b.join("test", announce=False)
        await second.seen("connection")
        await first.seen("connection")
        assert first.types == ["listening", "handshaking", "connection"]
        assert second.types[:4] == ["listening", "peer", "connecting", "handshaking"]


async def test_three_flocks_end_with_one_connection_per_pair(mdns_port: int) -> None:
    async with AsyncExitStack() as stack:
        flocks = [await stack.enter_async_context(multicast_flock(mdns_port)) for _ in range(3)]
        await asyncio.gather(*(flock.join("test") for flock, _ in flocks))
        await until(lambda: all(f.connected == f.total_connections == 2 for f, _ in flocks))
        keys = {flock.hub.public_key for flock, _ in flocks}
        for flock, _ in flocks:
            assert {c.remote_key for c in flock.connections} == keys - {flock.hub.public_key}


async def test_a_flock_with_own_discovery_closes_it() -> None:
    async with quiet_flock() as (flock, _):
        topic = await flock.join("test")
        assert (await topic.flushed()).succeeded == ()
