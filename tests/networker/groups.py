"""Networkers with stores that share a group, over the loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from covey.host_port import HostPort
from covey.limits import Limits
from covey.net.connection import Connection
from covey.networker import Networker
from covey.networker.group import WakeupGroup
from covey.networker.networker import NETWORKER_LIMITS
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.wakeup import WakeupHandlers, WakeupPeer, WakeupSession, WriterHead
from tests.networker.support import TOPIC, quiet, until
from tests.store.meeting import met

CAPABILITY = b"c" * 32


def remote_limits(**fields: Any) -> Limits:
    """The limits of a networker, but for these."""
    return replace(NETWORKER_LIMITS, **fields)


class Member:
    """One side: a store, its networker, its group, and everything that the group told."""

    def __init__(self, store: Basestore, networker: Networker, group: WakeupGroup) -> None:
        self.store = store
        self.networker = networker
        self.group = group
        self.events: list[Any] = []
        group.subscribe(self.events.append)

    def told(self, name: str) -> list[Any]:
        return [event for event in self.events if event.type == name]

    @property
    def session(self) -> WakeupSession:
        assert self.group._session is not None
        return self.group._session

    @property
    def hinted(self) -> list[bytes]:
        return [head.key for event in self.told("hint") for head in event.heads]

    def keys(self, name: str) -> list[bytes]:
        return [event.key for event in self.told(name)]

    @property
    def connection(self) -> Connection:
        (stream,) = self.networker.streams
        assert stream.connection is not None
        return stream.connection

    @property
    def channels(self) -> set[bytes]:
        """The logs that have a channel now, by discovery key."""
        return {key for stream in self.store.streams for key in stream.discovery_keys}

    def head(self, key: bytes) -> Any:
        return self.group.feeds.head(key)


async def make_feeds(
    store: Basestore, count: int, *, name: str = "feed", blocks: int = 1
) -> list[bytes]:
    """Keys of logs of one block each, closed again."""
    keys = []
    for number in range(count):
        async with await store.get(f"{name} {number}") as feed:
            await feed.append([f"{name} {number} {block}".encode() for block in range(blocks)])
            keys.append(feed.key)
    return keys


async def copy_feeds(source: Basestore, target: Basestore, keys: Sequence[bytes]) -> None:
    """Have `target` hold the same blocks, as after an exchange long ago."""
    async with met(source, target):
        for key in keys:
            async with await target.get(key) as feed, await source.get(key) as own:
                while feed.length < own.length:
                    await feed.update(wait=True)
                await feed.download(0, own.length).done()
    close_logs(source)
    close_logs(target)


def close_logs(store: Basestore) -> None:
    """Close what is open only because it was until lately."""
    for log in tuple(store._root.logs.values()):
        log.close()


@asynccontextmanager
async def member(
    store: Basestore,
    keys: Sequence[bytes],
    *,
    peers: list[HostPort] | None = None,
    capability: bytes = CAPABILITY,
    networker_options: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Member]:
    """A networker that listens, with a group that is ready; it has joined the topic."""
    async with quiet(store, peers=peers or [], **(networker_options or {})) as (networker, _):
        made = Member(store, networker, networker.group(capability, keys, **options))
        await made.group.ready()
        yield made


async def listening(made: Member) -> HostPort:
    """Where others reach it; it has joined the topic."""
    place = await made.networker.listen_on()
    await made.networker.configure(TOPIC)
    return place


@asynccontextmanager
async def two(
    stores: tuple[Basestore, Basestore], keys: Sequence[bytes], **options: Any
) -> AsyncIterator[tuple[Member, Member]]:
    """Two members that have met; the second one dialled."""
    async with member(stores[0], keys, **options) as first:
        place = await listening(first)
        async with member(stores[1], keys, peers=[place], **options) as second:
            await second.networker.configure(TOPIC)
            await until(lambda: first.group.peers and second.group.peers)
            yield first, second


@asynccontextmanager
async def two_stores(count: int = 0, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Two stores in memory, both with the same `count` logs of one block; and the keys of those."""
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(Basestore(**options)) for _ in range(2)]
        keys = await make_feeds(first, count)
        if count:
            await copy_feeds(first, second, keys)
        yield (first, second), keys


async def append(store: Basestore, key: bytes, *blocks: bytes) -> Feed:
    """Append to a log of this store, by a session that is closed at once."""
    async with await store.get(key, active=False) as feed:
        await feed.append(list(blocks))
        return feed


class Liar:
    """A peer that knows the capability and says what a test has it say; it has no group."""

    def __init__(self, networker: Networker) -> None:
        self.heard: list[list[WriterHead]] = []
        self.lookups: list[bytes | None] = []
        assert networker.wakeup is not None
        handlers = WakeupHandlers(
            on_announce=lambda heads, _peer, _session: self.heard.append(heads),
            on_lookup=lambda lookup, _peer, _session: self.lookups.append(lookup.hash),
        )
        self._session = networker.wakeup.session(CAPABILITY, handlers)

    @property
    def peers(self) -> list[WakeupPeer]:
        return self._session.peers

    def announce(self, peer: WakeupPeer, heads: list[WriterHead]) -> None:
        self._session.announce(peer, heads)

    def lookup(self, peer: WakeupPeer, given: bytes | None) -> None:
        self._session.lookup(peer, given)


@asynccontextmanager
async def liar(
    stores: tuple[Basestore, Basestore], keys: Sequence[bytes], **options: Any
) -> AsyncIterator[tuple[Liar, Member]]:
    """A peer without a group, which has the logs of the first store, and a member."""
    async with quiet(stores[0], peers=[]) as (networker, _):
        made = Liar(networker)
        place = await networker.listen_on()
        await networker.configure(TOPIC)
        async with member(stores[1], keys, peers=[place], **options) as second:
            await second.networker.configure(TOPIC)
            await until(lambda: made.peers and second.group.peers)
            yield made, second
