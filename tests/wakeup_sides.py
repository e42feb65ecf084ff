"""Wakeups under test: handlers that record, and pairs that share a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from covey.wakeup import Lookup, Wakeup, WakeupHandlers, WakeupPeer, WakeupSession, WriterHead
from tests.wakeup_streams import StreamDouble, joined_streams

CAPABILITY = bytes(range(32))
OTHER = bytes(reversed(range(32)))
KEY = b"\x07" * 32
HEAD = WriterHead(KEY, 1337)


class Recorder:
    """Handlers that keep what they were told; with `answer` every lookup is announced to."""

    def __init__(self, name: str = "", *, answer: list[WriterHead] | None = None) -> None:
        self.name = name
        self.told: list[tuple[Any, ...]] = []
        self.heads: list[list[WriterHead]] = []
        self.peers: list[WakeupPeer] = []
        self.answer = answer
        self.news = asyncio.Event()

    def tell(self, *event: Any) -> None:
        self.told.append(event)
        self.news.set()

    def handlers(self, **options: Any) -> WakeupHandlers:
        def about(what: str) -> Any:
            def call(peer: WakeupPeer, _session: WakeupSession) -> None:
                self.peers.append(peer)
                self.tell(what)

            return call

        def on_announce(heads: list[WriterHead], _peer: WakeupPeer, _: WakeupSession) -> None:
            self.heads.append(heads)
            self.tell("announce", *heads)

        def on_lookup(lookup: Lookup, peer: WakeupPeer, session: WakeupSession) -> None:
            self.tell("lookup", lookup.hash)
            if self.answer is not None:
                session.announce(peer, self.answer)

        given = {
            "on_peer_add": about("peer-add"),
            "on_peer_remove": about("peer-remove"),
            "on_peer_active": about("peer-active"),
            "on_peer_inactive": about("peer-inactive"),
            "on_announce": on_announce,
            "on_lookup": on_lookup,
            "on_destroy": lambda _session: self.tell("destroy"),
            **options,
        }
        return WakeupHandlers(**given)

    async def until(self, *event: Any, timeout: float = 10) -> None:
        """Wait until this was told."""
        async with asyncio.timeout(timeout):
            while event not in self.told:
                self.news.clear()
                await self.news.wait()


class Sides:
    """Two wakeups that share one stream."""

    def __init__(
        self, left: Wakeup, right: Wakeup, left_stream: StreamDouble, right_stream: StreamDouble
    ) -> None:
        self.left = left
        self.right = right
        self.left_stream = left_stream
        self.right_stream = right_stream

    def join(self) -> None:
        """Add the stream on both sides."""
        self.left.add_stream(self.left_stream.connection)
        self.right.add_stream(self.right_stream.connection)


@asynccontextmanager
async def two_sides(
    left: Wakeup | None = None, right: Wakeup | None = None, **options: Any
) -> AsyncIterator[Sides]:
    """Two wakeups whose stream is not yet added; closed at the end."""
    async with left or Wakeup() as first, right or Wakeup() as second:
        ends = joined_streams(**options)
        yield Sides(first, second, *ends)
