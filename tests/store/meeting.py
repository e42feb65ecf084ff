"""Stores that meet over real connections on the loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from covey.address import Address
from covey.events import Subscription
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.store.feed_events import FeedEvent
from tests.waiting import PATIENCE

HOST = "127.0.0.1"


class Place:
    """A store with an endpoint: whoever connects, or is dialled, exchanges its logs."""

    def __init__(self, store: Basestore, limits: Limits | None = None) -> None:
        self.store = store
        self.port = 0
        self.connections: list[Connection] = []
        self.endpoint = Endpoint(
            key_pair=KeyPair.generate(), limits=limits, on_connection=self._connected
        )

    def _connected(self, connection: Connection) -> None:
        self.connections.append(connection)
        self.store.replicate(connection)

    async def dial(self, port: int) -> Connection:
        """Connect to another place or program, and exchange everything with it."""
        connection = await self.endpoint.dial(Address.net(HOST, port), timeout=PATIENCE)
        self._connected(connection)
        return connection


@asynccontextmanager
async def place(store: Basestore, limits: Limits | None = None) -> AsyncIterator[Place]:
    """`store` on a free port; the endpoint closes at the end, the store does not."""
    made = Place(store, limits)
    async with made.endpoint as endpoint:
        _, made.port = await endpoint.listen_on(HOST, 0)
        yield made


@asynccontextmanager
async def met(first: Basestore, second: Basestore) -> AsyncIterator[tuple[Place, Place]]:
    """Two stores, connected; the second one dialled."""
    async with place(first) as one, place(second) as other:
        await other.dial(one.port)
        yield one, other


async def happened(
    events: Subscription[FeedEvent],
    kind: str,
    **fields: object,
) -> FeedEvent:
    """Wait for an event of that type with these fields; what comes before is dropped."""
    async with asyncio.timeout(PATIENCE):
        async for event in events:
            if event.type == kind and all(
                getattr(event, name) == value for name, value in fields.items()
            ):
                return event  # type: ignore[return-value]
    raise AssertionError(f"the events ended without {kind}")


async def blocks_of(feed: Feed, start: int = 0, end: int | None = None) -> list[bytes]:
    """These blocks of a feed, all when no end is given."""
    async with asyncio.timeout(PATIENCE):
        return [block async for block in feed.read(start, end)]


async def same(first: Feed, second: Feed) -> bool:
    """Whether two feeds have the same head and tree."""
    return (first.fork, first.length, await first.tree_hash()) == (
        second.fork,
        second.length,
        await second.tree_hash(),
    )


def numbered(count: int, *, start: int = 0, name: str = "block") -> list[bytes]:
    """Blocks with different contents."""
    return [f"{name} {index}".encode() for index in range(start, start + count)]


async def take(iterator: AsyncIterator[bytes], count: int) -> list[bytes]:
    """The next `count` blocks of a reader."""
    taken: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(taken) < count:
            taken.append(await anext(iterator))
    return taken


def joined(blocks: Iterable[bytes]) -> bytes:
    """All bytes of these blocks."""
    return b"".join(blocks)
