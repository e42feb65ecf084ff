"""discovery-swarm 6.1.0 as the other end: plain handshake, TCP, given peers and multicast."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from covey.discovery.channel import Channel
from covey.discovery.dns import DnsDiscovery
from covey.discovery.source import Timing
from covey.flock.events import ConnectionInfo
from covey.flock.flock import Flock
from covey.net.connection import Connection
from tests.discovery.fakes import free_udp_port
from tests.flock.support import HOST, HandClock, Recorder, quiet_flock, until
from tests.interop.harness import NodePeer

pytestmark = pytest.mark.interop

PROGRAM = "discovery-swarm-peer.cjs"
OURS = bytes([2]) * 32
IDS = (1, 3)
"""Ids of the Node side, 32 bytes of each: one smaller and one larger than ours."""
OFTEN = Timing(early=(0.3, 1.0, 2.0), interval=3.0)
PATIENCE = 20.0


def node(*arguments: object, seed_id: int) -> NodePeer:
    """A Node swarm over TCP without servers, DHT and uTP."""
    common = ("--utp", "off", "--dht", "off", "--listen", 0, "--seed-id", seed_id)
    return NodePeer(PROGRAM, *common, *arguments)


class Inbox:
    """A handler that keeps the connections and what came over them."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.received = bytearray()
        self.changed = asyncio.Event()

    async def __call__(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.changed.set()
        async for message in connection:
            self.received += message
            self.changed.set()

    async def until(self, condition: Any) -> None:
        """Wait for connections or bytes."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def met(
    role: str, seed_id: int, *arguments: object
) -> AsyncIterator[tuple[NodePeer, Flock, Recorder, Inbox]]:
    """A Node swarm and a flock, connected by whoever `role` says dials."""
    async with AsyncExitStack() as stack:
        inbox = Inbox()
        flock, events = await stack.enter_async_context(
            quiet_flock(handler=inbox, handshake="plain", id=OURS)
        )
        if role == "covey-dials":
            peer = await stack.enter_async_context(
                node("--join", "test", "--dns", "off", *arguments, seed_id=seed_id)
            )
            await peer.event("listening")
            flock.add_peer("test", peer.port)
        else:
            _, port = await flock.listen_on()
            given = ("--join", "test", "--dns", "off", "--add-peer", f"{HOST}:{port}")
            peer = await stack.enter_async_context(node(*given, *arguments, seed_id=seed_id))
        await inbox.until(lambda: inbox.connections)
        yield peer, flock, events, inbox


@pytest.mark.parametrize("role", ["covey-dials", "node-dials"])
@pytest.mark.parametrize("seed_id", IDS)
async def test_ids_are_exchanged(role: str, seed_id: int) -> None:
    async with met(role, seed_id) as (peer, flock, events, _):
        told = await peer.event("connection")
        assert told["info"]["id"] == OURS.hex()
        assert told["info"]["initiator"] == (role == "node-dials")
        info = events.named("connection")[0].info
        assert info.id == bytes([seed_id]) * 32
        assert info.key is None
        assert info.initiator == (role == "covey-dials")
        assert (flock.connecting, flock.connected) == (0, 1)


@pytest.mark.parametrize("role", ["covey-dials", "node-dials"])
@pytest.mark.parametrize("seed_id", IDS)
async def test_echo_and_bulk(role: str, seed_id: int) -> None:
    async with met(role, seed_id, "--mode", "echo") as (peer, _, _, inbox):
        (connection,) = inbox.connections
        await connection.send(b"hello node")
        await inbox.until(lambda: bytes(inbox.received) == b"hello node")
        inbox.received.clear()
        bulk = os.urandom(1 << 20) * 8
        for start in range(0, len(bulk), 65536):
            await connection.send(bulk[start : start + 65536])
        await inbox.until(lambda: len(inbox.received) >= len(bulk))
        assert hashlib.sha256(inbox.received).digest() == hashlib.sha256(bulk).digest()
        assert peer.named("fatal") == []


@pytest.mark.parametrize("role", ["covey-dials", "node-dials"])
async def test_what_follows_the_id_at_once_is_not_lost(role: str) -> None:
    async with met(role, 1, "--mode", "talk", "--say", "first words") as (_, _, _, inbox):
        await inbox.until(lambda: bytes(inbox.received) == b"first words")


@asynccontextmanager
async def by_multicast(**options: Any) -> AsyncIterator[tuple[int, Flock, Recorder]]:
    """A flock that discovers by multicast on loopback, and the port of that."""
    port = free_udp_port()
    source = DnsDiscovery(port=port, interface="lo", timing=OFTEN)
    async with Channel([source]) as channel:
        flock = Flock(channel=channel, host=HOST, handshake="plain", id=OURS, **options)
        async with flock:
            yield port, flock, Recorder(flock)


@pytest.mark.parametrize("order", ["node-first", "covey-first"])
@pytest.mark.parametrize("seed_id", IDS)
async def test_multicast_leads_to_one_lasting_connection(order: str, seed_id: int) -> None:
    inbox = Inbox()
    async with by_multicast(handler=inbox) as (port, flock, events), AsyncExitStack() as stack:
        common = ("--join", "test", "--multicast", "lo", "--mdns-port", port, "--mode", "echo")
        peer = node(*common, "--dns-interval", 1000, seed_id=seed_id)
        if order == "node-first":
            await stack.enter_async_context(peer)
            await peer.event("joined")
            await flock.join("test")
        else:
            await flock.join("test")
            await stack.enter_async_context(peer)
        await peer.event("connection")
        await events.seen("connection")
        # The reference dials again at each of its rounds: a pair must survive a few of them.
        await until_rounds(peer, 5)
        await until(lambda: flock.connecting == 0 and flock.connected == 1)
        (connection,) = flock.connections
        inbox.received.clear()
        await connection.send(b"still the one")
        await inbox.until(lambda: bytes(inbox.received) == b"still the one")
        assert peer.named("fatal") == []
        assert min(count for counts in events.counts for count in counts) >= 0


async def until_rounds(peer: NodePeer, rounds: int) -> None:
    """Wait until Node has tried our address `rounds` times more."""
    for _ in range(rounds):
        await peer.event("connecting", timeout=PATIENCE)


async def test_a_node_that_is_destroyed_and_returns() -> None:
    clock = HandClock()
    async with quiet_flock(handshake="plain", id=OURS, clock=clock) as (flock, events):
        async with node("--join", "test", "--dns", "off", seed_id=1) as peer:
            await peer.event("listening")
            port = peer.port
            flock.add_peer("test", port)
            await events.seen("connection")
        await events.seen("connection-closed")
        assert clock.planned == [1.0]
        clock.turn(1.0)
        await events.seen("connect-failed")
        again = ("--utp", "off", "--dht", "off", "--dns", "off", "--seed-id", 1)
        async with NodePeer(PROGRAM, *again, "--join", "test", "--listen", port) as peer:
            await peer.event("listening")
            clock.turn(1.0)
            await events.seen("connection", 2)
            assert [event.peer.retries for event in events.named("connecting")] == [0, 1, 2]


async def test_a_full_flock_refuses_node_and_dials_it_when_there_is_room() -> None:
    async with (
        quiet_flock(handshake="plain", id=OURS, max_connections=1) as (flock, events),
        quiet_flock(handshake="plain", id=b"\x05" * 32) as (other, _),
    ):
        _, port = await flock.listen_on()
        other.add_peer("test", port)
        await events.seen("connection")
        arguments = ("--join", "test", "--dns", "off", "--add-peer", f"{HOST}:{port}")
        async with node(*arguments, seed_id=1) as peer:
            await events.seen("peer-rejected")
            await peer.event("connection-closed")
            assert peer.named("connection") == []
            flock.add_peer("test", peer.port)
            assert (flock.queued, flock.connected) == (1, 1)
            await other.close()
            told = await peer.event("connection")
            assert told["info"]["id"] == OURS.hex()
            await until(lambda: (flock.queued, flock.total_connections) == (0, 1))


@pytest.mark.parametrize("role", ["covey-dials", "node-dials"])
async def test_a_custom_stream_with_a_raw_id(role: str) -> None:
    """Section 6: `opts.stream` with 32 raw bytes of id and no length."""

    async def id32(connection: Connection, info: ConnectionInfo) -> bytes:
        await connection.send(OURS)
        got = b""
        async for chunk in connection:
            got += chunk
            if len(got) >= 32:
                break
        assert len(got) == 32, "the test peer writes nothing after its id"
        return got

    async with AsyncExitStack() as stack:
        flock, events = await stack.enter_async_context(quiet_flock(id=OURS, stream=id32))
        arguments: tuple[object, ...] = ("--join", "test", "--dns", "off", "--stream", "id32")
        if role == "node-dials":
            _, port = await flock.listen_on()
            arguments = (*arguments, "--add-peer", f"{HOST}:{port}")
        peer = await stack.enter_async_context(node(*arguments, seed_id=1))
        if role == "covey-dials":
            await peer.event("listening")
            flock.add_peer("test", peer.port)
        ours = await events.seen("connection")
        told = await peer.event("connection")
        assert ours.info.id == b"\x01" * 32
        assert told["info"]["id"] == OURS.hex()
        await ours.connection.send(b"through the stream")
        data = await peer.event("stream-data")
        assert bytes.fromhex(data["hex"]) == b"through the stream"
