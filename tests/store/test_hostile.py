"""Remotes that break the rules of channels: nothing of ours is harmed, and they are named."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from covey.address import Address
from covey.errors import ProtocolError, StoreError
from covey.feed.capability import capability
from covey.feed.messages import MESSAGE_CODECS, Handshake, Sync, handshake_codec
from covey.feed.replication_conflict import history
from covey.feed.replication_peer import DATA, SYNC
from covey.limits import Limits
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.net.mux import Channel
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.store.feed_events import FeedMissed
from covey.store.lmdb_storage import LmdbStorage
from covey.store.memory_storage import MemoryStorage
from covey.store.record_keys import head_key
from covey.store.store_root import UNOPENABLE
from covey.wire.encoding import encode, raw
from tests.store.meeting import HOST, Place, numbered, place
from tests.store.turned_clock import Middle, TurnedClock
from tests.waiting import PATIENCE, turns, until

ALPHA = "hypercore/alpha"


class Stranger:
    """A bare connection to a store, that opens channels as it likes."""

    def __init__(self, connection: Connection, home: Place) -> None:
        self.connection = connection
        self.home = home
        assert connection.handshake_hash is not None
        self.handshake_hash: bytes = connection.handshake_hash

    def capability(self, key: bytes, *, is_initiator: bool = True) -> bytes:
        """What one who knows the key shows."""
        return capability(self.handshake_hash, key, is_initiator=is_initiator)

    def open(self, feed: Feed, shown: bytes | None = None, **options: object) -> Channel:
        """Open a log's channel, by default with the right capability; messages are raw bytes."""
        channel = self.connection.mux.create_channel(
            ALPHA,
            id=feed.discovery_key,
            handshake=handshake_codec,
            messages=[raw] * len(MESSAGE_CODECS),
            **options,  # type: ignore[arg-type]
        )
        channel.open(Handshake(True, shown or self.capability(feed.key)))
        return channel


@asynccontextmanager
async def visited(store: Basestore, limits: Limits | None = None) -> AsyncIterator[Stranger]:
    """A store, and a stranger that dialled it."""
    async with place(store, limits) as home, Endpoint(limits=limits) as endpoint:
        connection = await endpoint.dial(Address.net(HOST, home.port), timeout=PATIENCE)
        await until(lambda: store.streams)
        yield Stranger(connection, home)


async def written(store: Basestore, *, active: bool = False) -> Feed:
    """A log with a few blocks."""
    feed = await store.get("log", active=active)
    await feed.append(numbered(5))
    return feed


async def closed(channel: Channel) -> None:
    """Wait until a channel is closed."""
    async with asyncio.timeout(PATIENCE):
        await channel.fully_closed()


async def test_who_does_not_know_the_key_loses_the_channel_and_then_the_connection() -> None:
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store)
        for _ in range(2):
            await closed(stranger.open(feed, bytes(32)))
            assert not stranger.connection.closed
        assert feed.peers == []
        stranger.open(feed, bytes(32))
        async with asyncio.timeout(PATIENCE):
            await stranger.connection.wait_closed()
        (ours,) = stranger.home.connections
        await until(lambda: ours.closed)
        assert isinstance(ours.close_error, ProtocolError)
        assert "does not know the key" in str(ours.close_error)


async def test_a_mirrored_capability_does_not_fit() -> None:
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store)
        await closed(stranger.open(feed, stranger.capability(feed.key, is_initiator=False)))
        assert feed.peers == []


async def test_nothing_but_the_open_leaves_before_the_capability_was_checked() -> None:
    heard: list[bytes] = []
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store, active=True)
        channel = stranger.connection.mux.create_channel(
            ALPHA,
            id=feed.discovery_key,
            handshake=handshake_codec,
            messages=[(raw, heard.append)] * len(MESSAGE_CODECS),
        )
        channel.open(Handshake(True, bytes(32)))
        await closed(channel)
        assert heard == []


async def test_who_opens_a_log_under_the_other_name_of_the_protocol_is_served() -> None:
    heard: list[bytes] = []
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store)
        channel = stranger.connection.mux.create_channel(
            "hypercore",
            id=feed.discovery_key,
            aliases=(ALPHA,),
            handshake=handshake_codec,
            messages=[(raw, heard.append)] * len(MESSAGE_CODECS),
        )
        channel.open(Handshake(True, stranger.capability(feed.key)))
        await until(lambda: len(heard) >= 2)
        assert len(feed.peers) == 1


@pytest.mark.parametrize("name", [None, b"", bytes(31), bytes(33)])
async def test_what_is_no_discovery_key_is_rejected(name: bytes | None) -> None:
    async with Basestore() as store, visited(store) as stranger:
        channel = stranger.connection.mux.create_channel(ALPHA, id=name, handshake=handshake_codec)
        channel.open(Handshake(True, bytes(32)))
        await closed(channel)
        assert not stranger.connection.closed
        assert store.streams[0].misses == 0


async def test_unknown_logs_are_rejected_and_told_up_to_a_limit() -> None:
    clock = TurnedClock()
    limits = replace(Limits(), missed_opens_per_minute=10)
    told: list[FeedMissed] = []
    async with (
        Basestore(limits=limits, clock=clock, chance=Middle()) as store,
        visited(store) as stranger,
    ):
        store._root.events.subscribe(
            lambda event: told.append(event) if isinstance(event, FeedMissed) else None
        )
        feed = await written(store)

        async def ask(count: int, first: int) -> None:
            for index in range(first, first + count):
                channel = stranger.connection.mux.create_channel(
                    ALPHA, id=index.to_bytes(32, "big"), handshake=handshake_codec
                )
                channel.open(Handshake(True, bytes(32)))
                await closed(channel)

        await ask(30, 0)
        assert store.streams[0].misses == 30
        assert len(told) == 10
        assert told[0].discovery_key == bytes(32)
        await clock.advance(61)
        await ask(5, 100)
        assert len(told) == 15
        stranger.open(feed)
        await until(lambda: feed.peers)
        assert not stranger.connection.closed


async def test_a_store_has_so_many_channels_on_a_connection() -> None:
    limits = replace(Limits(), max_channels=3)
    async with Basestore(limits=limits) as first, Basestore() as second:
        feeds = [await first.get(f"log {index}") for index in range(6)]
        for feed in feeds:
            await second.get(feed.key)
        async with place(first) as one, place(second) as two:
            await two.dial(one.port)
            await until(lambda: first.streams)
            await until(lambda: sum(len(feed.peers) for feed in feeds) == 3)
            await turns(5)
            assert len(first.streams[0].discovery_keys) == 3
            assert not two.connections[0].closed


async def test_a_message_that_does_not_decode_ends_the_connection() -> None:
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store)
        channel = stranger.open(feed)
        await until(lambda: feed.peers)
        message = channel.messages[0]
        assert message is not None
        message.send(b"\xff")
        async with asyncio.timeout(PATIENCE):
            await stranger.connection.wait_closed()
        await until(lambda: not feed.peers)
        assert await feed.get(0) == b"block 0"


@pytest.mark.parametrize("kind", range(10))
async def test_an_empty_message_of_any_kind_harms_only_its_sender(kind: int) -> None:
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store)
        channel = stranger.open(feed)
        await until(lambda: feed.peers)
        message = channel.messages[kind]
        assert message is not None
        message.send(b"")
        async with asyncio.timeout(PATIENCE):
            await stranger.connection.wait_closed()
        assert await feed.append(b"x") == (6, 36)


async def test_a_head_beyond_all_numbers_is_not_believed() -> None:
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store, active=True)
        await until(lambda: store.streams)
        channel = stranger.open(feed)
        await until(lambda: feed.peers)
        message = channel.messages[0]
        assert message is not None
        out = bytearray()
        MESSAGE_CODECS[0].encode_into(out, Sync(0, (1 << 52) + 5, 5, True, True, True, True, False))
        message.send(bytes(out))
        await until(lambda: not feed.peers or feed.peers[0].length > 5)
        assert feed.length == 5


async def test_a_channel_that_is_opened_and_closed_again_and_again_costs_nothing() -> None:
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store)
        for _ in range(50):
            channel = stranger.open(feed)
            async with asyncio.timeout(PATIENCE):
                assert await channel.fully_opened()
            channel.close()
            await closed(channel)
        await until(lambda: not feed.peers)
        assert store.streams[0].discovery_keys == []


async def test_a_history_with_moved_bytes_freezes_nobody() -> None:
    async with Basestore() as store, visited(store) as stranger:
        feed = await written(store)
        proof = history(feed._log, 3)
        assert proof is not None
        assert proof.upgrade is not None
        nodes, above = list(proof.upgrade.nodes), list(proof.upgrade.additional_nodes)
        nodes[-1] = nodes[-1]._replace(size=nodes[-1].size + 1)
        above[0] = above[0]._replace(size=above[0].size - 1)
        moved = proof.upgrade._replace(nodes=nodes, additional_nodes=above)
        channel = stranger.open(feed)
        await until(lambda: feed.peers)
        message, last = channel.messages[DATA], channel.messages[SYNC]
        assert message is not None
        assert last is not None
        message.send(encode(MESSAGE_CODECS[DATA], proof._replace(upgrade=moved)))
        last.send(encode(MESSAGE_CODECS[SYNC], Sync(0, 4, 0, True, True, True, True, False)))
        await until(lambda: not feed.peers or feed.peers[0].length == 4)
        assert not feed.frozen
        assert (await feed.append(b"more")).length == 6


async def test_who_is_kept_away_and_opens_again_and_again_loses_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = replace(Limits(), missed_opens_per_minute=5)
    async with (
        Basestore(limits=limits, clock=TurnedClock(), chance=Middle()) as store,
        visited(store) as stranger,
    ):
        feed = await written(store)
        (ours,) = stranger.home.connections
        assert ours.remote_key is not None
        feed._opened.replicator._failures[ours.remote_key] = (99, 1e12)
        for _ in range(5):
            await closed(stranger.open(feed))
            assert not ours.closed
        stranger.open(feed)
        async with asyncio.timeout(PATIENCE):
            await stranger.connection.wait_closed()
        await until(lambda: ours.closed)
        assert isinstance(ours.close_error, ProtocolError)
        assert "again and again" in str(ours.close_error)
        told = [record for record in caplog.records if "is closed" in record.getMessage()]
        assert len(told) == 5
        assert feed.peers == []


async def test_a_damaged_log_that_is_opened_again_and_again_is_tried_once_and_costs_the_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with Basestore(tmp_path) as store:
        feed = await written(store)
    with LmdbStorage(tmp_path) as storage:
        storage.write_batch([], [head_key(0)])
    limits = replace(Limits(), missed_opens_per_minute=5)
    clock = TurnedClock()
    async with (
        Basestore(tmp_path, limits=limits, clock=clock, chance=Middle()) as store,
        visited(store) as stranger,
    ):
        (ours,) = stranger.home.connections
        for _ in range(4):
            await closed(stranger.open(feed))
        assert caplog.text.count("cannot be opened") == 1
        await clock.advance(UNOPENABLE)
        for _ in range(10):
            if ours.closed:
                break
            await closed(stranger.open(feed))
        async with asyncio.timeout(PATIENCE):
            await stranger.connection.wait_closed()
        await until(lambda: ours.closed)
        assert isinstance(ours.close_error, ProtocolError)
        assert "again and again" in str(ours.close_error)
        assert "its head is missing" in str(ours.close_error)
        assert caplog.text.count("cannot be opened") == 2
        with pytest.raises(StoreError, match="its head is missing"):
            await store.get(feed.key)


async def test_a_log_that_could_not_be_opened_is_served_once_a_user_opened_it() -> None:
    class Unread(MemoryStorage):
        failing = False

        def get(self, key: bytes) -> bytes | None:
            if self.failing:
                raise StoreError("the disk does not answer")
            return super().get(key)

    storage, clock = Unread(), TurnedClock()
    async with Basestore(storage=storage, clock=clock, chance=Middle()) as store:
        feed = await written(store)
        root, key, name = store._root, feed.key, feed.discovery_key
        root.logs[name].close()
        storage.failing = True
        with pytest.raises(StoreError, match="does not answer"):
            root.find_asked(name)
        storage.failing = False
        with pytest.raises(StoreError, match="does not answer"):
            root.find_asked(name)
        await store.get(key=key)
        opened = root.logs[name]
        assert root.find_asked(name) is opened
        opened.close()
        assert root.find_asked(name) is not opened, "that it failed once is forgotten"
