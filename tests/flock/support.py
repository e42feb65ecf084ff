"""What the tests of the flock share: recorded events, a clock turned by hand, static discovery."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, cast

from covey.discovery.channel import Channel
from covey.discovery.static_peers import StaticPeers
from covey.flock.events import ConnectionInfo, FlockEvent
from covey.flock.flock import Flock
from covey.host_port import HostPort
from covey.keys import KeyPair
from tests.waiting import until as until  # noqa: PLC0414 - the tests of the flock take it from here

HOST = "127.0.0.1"

E = TypeVar("E")


def sorted_pairs() -> tuple[KeyPair, KeyPair]:
    """Two fixed key pairs, the one with the smaller public key first."""
    first, second = (KeyPair.from_seed(bytes([seed]) * 32) for seed in (1, 2))
    if first.public_key < second.public_key:
        return first, second
    return second, first


class Recorder:
    """The events of one flock, with the counts at the moment of each."""

    def __init__(self, flock: Flock) -> None:
        self.events: list[FlockEvent] = []
        self.counts: list[tuple[int, int, int]] = []
        self._flock = flock
        flock.subscribe(self._note)

    def _note(self, event: FlockEvent) -> None:
        self.events.append(event)
        self.counts.append((self._flock.queued, self._flock.connecting, self._flock.connected))

    @property
    def types(self) -> list[str]:
        """The names of all events."""
        return [event.type for event in self.events]

    def named(self, type_: str) -> list[Any]:
        """The events with that name."""
        return [event for event in self.events if event.type == type_]

    def of(self, kind: type[E]) -> list[E]:
        """The events of that class."""
        return [event for event in self.events if isinstance(event, kind)]

    def about_connections(self) -> list[tuple[str, bool]]:
        """(name, initiator) of all events about connections."""
        return [
            (event.type, cast("ConnectionInfo", event.info).initiator)
            for event in cast("list[Any]", self.events)
            if hasattr(event, "info")
        ]

    async def until(self, condition: Callable[[], object]) -> None:
        """Return as soon as `condition` holds."""
        await until(condition)

    async def seen(self, type_: str, count: int = 1) -> Any:
        """The `count`-th event with that name, waited for."""
        await self.until(lambda: len(self.named(type_)) >= count)
        return self.named(type_)[count - 1]


class HandClock:
    """A clock that stands still until a test turns it."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.calls: list[tuple[float, int, _Call]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Callable[[], object]) -> _Call:
        call = _Call(callback)
        heapq.heappush(self.calls, (when, next(self._order), call))
        return call

    @property
    def planned(self) -> list[float]:
        """Seconds from now of every call still planned."""
        return sorted(when - self.time for when, _, call in self.calls if call.callback)

    def turn(self, seconds: float) -> None:
        """Let time pass; what falls due is called in order."""
        end = self.time + seconds
        while self.calls and self.calls[0][0] <= end + 1e-9:
            when, _, call = heapq.heappop(self.calls)
            self.time = max(self.time, when)
            callback, call.callback = call.callback, None
            if callback is not None:
                callback()
        self.time = end


class _Call:
    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


@asynccontextmanager
async def quiet_flock(**options: Any) -> AsyncIterator[tuple[Flock, Recorder]]:
    """A flock on loopback that asks nobody."""
    flock = Flock(**{"discovery": False, "host": HOST, **options})
    async with flock:
        yield flock, Recorder(flock)


@asynccontextmanager
async def seeking_flock(
    peers: list[HostPort], **options: Any
) -> AsyncIterator[tuple[Flock, Recorder]]:
    """A flock on loopback whose discovery finds `peers` for every name."""
    async with Channel([StaticPeers(peers)]) as channel:
        flock = Flock(**{"channel": channel, "host": HOST, **options})
        async with flock:
            yield flock, Recorder(flock)


@asynccontextmanager
async def refused_port() -> AsyncIterator[int]:
    """A port of loopback at which nobody listens, kept from others while it lasts."""
    import socket

    with socket.socket() as holder:
        holder.bind((HOST, 0))
        yield holder.getsockname()[1]


@asynccontextmanager
async def mute_listener() -> AsyncIterator[int]:
    """A port that accepts connections and never says a word."""
    writers: list[asyncio.StreamWriter] = []

    async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)

    server = await asyncio.start_server(accept, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for writer in writers:
            writer.close()
        for writer in writers:
            try:
                await writer.wait_closed()
            except OSError:
                continue
        await server.wait_closed()
