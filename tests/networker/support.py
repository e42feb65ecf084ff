"""What the tests of the networker share: a fake flock and store, recorded events, real pairs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal, cast

from covey.discovery.channel import Channel
from covey.discovery.static_peers import StaticPeers
from covey.errors import CoveyError
from covey.events import EventStream, LiveSubscription, LiveView
from covey.flock.candidates import CandidateState
from covey.flock.events import (
    ConnectionClosed,
    ConnectionInfo,
    FlockEvent,
    Handshaking,
    Peer,
    PeerConnected,
)
from covey.flock.flock import Flock
from covey.flock.view import FlockEntry
from covey.host_port import HostPort
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.net.mux import Muxer
from covey.networker import Networker, NetworkerEvent, PeerStream
from tests.net.mux_pipes import joined_pipes
from tests.waiting import until as until  # noqa: PLC0414 - the tests take it from here

HOST = "127.0.0.1"
TOPIC = b"t" * 32
OTHER_TOPIC = b"o" * 32
SMALL, LARGE = sorted(
    (KeyPair.from_seed(bytes([seed]) * 32) for seed in (1, 2)), key=lambda pair: pair.public_key
)
THIRD = KeyPair.from_seed(b"\x03" * 32)

_attempts = itertools.count(10_000)


class FakeStore:
    """Keeps the connections over which it was to replicate."""

    def __init__(self, error: Exception | None = None) -> None:
        self.connections: list[Connection] = []
        self.error = error
        self.closed = False

    def replicate(self, connection: Connection) -> object:
        if self.error is not None:
            raise self.error
        self.connections.append(connection)
        return f"replication of {connection.id}"

    async def close(self) -> None:
        self.closed = True


@dataclass
class FakeAttempt:
    """What a networker reads of `Connection.attempt`."""

    id: int
    type: str
    initiator: bool


class FakeConnection:
    """A connection that a fake flock tells of; its muxer is one end of a pipe in memory."""

    def __init__(
        self,
        flock: FakeFlock,
        *,
        key: bytes | None,
        initiator: bool,
        host: str = "10.0.0.2",
        type: Literal["tcp", "utp"] = "tcp",  # noqa: A002 - as in the connection
        limits: Limits | None = None,
    ) -> None:
        self.id = next(_attempts)
        self.attempt = FakeAttempt(self.id, type, initiator)
        self.remote_key = key
        self.remote_address = (host, 4000)
        self.type = type
        self.initiator = initiator
        self.closed = False
        self.handshake_hash = b"h" * 64
        self._on_close: list[Callable[[Connection], object]] = []
        self.close_reason: CloseReason | str | None = None
        self.close_error: CoveyError | None = None
        self.pipe, self.far_pipe = joined_pipes()
        self.mux = Muxer(self.pipe, limits)
        self.far = Muxer(self.far_pipe)
        self._flock = flock
        self._gone = asyncio.Event()

    @property
    def info(self) -> ConnectionInfo:
        return ConnectionInfo(
            attempt=self.attempt.id,
            type=self.type,
            initiator=self.initiator,
            host=self.remote_address[0],
            port=self.remote_address[1],
        )

    def start_close(self, reason: CloseReason | str | None = None) -> None:
        self.cut(None, reason)

    def abort(self, error: CoveyError | None = None, reason: CloseReason | None = None) -> None:
        self.cut(error, reason or CloseReason.ABORTED)

    def on_close(self, callback: Callable[[Connection], object]) -> None:
        self._on_close.append(callback)

    def cut(self, error: CoveyError | None, reason: CloseReason | str | None) -> None:
        """End it; the flock tells in the next turn."""
        if not self.closed:
            self.closed = True
            self.close_error, self.close_reason = error, reason
            asyncio.get_running_loop().call_soon(self._end)

    def _end(self) -> None:
        self.pipe.close(self.close_error)
        self.far_pipe.close(None)
        for callback in self._on_close:
            callback(self.real)
        self._flock.ended(self)
        self._gone.set()

    async def wait_closed(self) -> None:
        await self._gone.wait()

    @property
    def real(self) -> Connection:
        return cast("Connection", self)


class FakeTopic:
    """A topic whose first round of discovery is over when a test says so."""

    def __init__(self, round_over: asyncio.Future[None]) -> None:
        self._over = round_over

    async def flushed(self) -> object:
        return await asyncio.shield(self._over)


class FakeFlock:
    """Everything that a networker uses of a flock, told by hand. `quick`: rounds are over at once.

    `calls` holds what was asked of it.
    """

    def __init__(self, key_pair: KeyPair = SMALL, *, quick: bool = True) -> None:
        self.key_pair: KeyPair | None = key_pair
        self.quick = quick
        self.calls: list[tuple[Any, ...]] = []
        self.rounds: list[asyncio.Future[None]] = []
        self.listen_error: Exception | None = None
        self.join_error: Exception | None = None
        self.live: list[FakeConnection] = []
        self.close_forever = False
        self._events: EventStream[FlockEvent] = EventStream()
        self._entries: tuple[FlockEntry, ...] = ()
        self._view = LiveView(lambda: self._entries)

    @property
    def real(self) -> Flock:
        return cast("Flock", self)

    # What a networker asks

    @property
    def connections(self) -> tuple[Connection, ...]:
        return tuple(connection.real for connection in self.live)

    def subscribe(self, callback: Callable[[FlockEvent], object]) -> Callable[[], None]:
        self.calls.append(("subscribe",))
        return self._events.subscribe(callback)

    async def listen_on(self, host: str | None = None, port: int = 0) -> HostPort:
        self.calls.append(("listen_on", host, port))
        if self.listen_error is not None:
            raise self.listen_error
        return host or HOST, port or 4000

    async def join(self, name: bytes, *, announce: bool, lookup: bool) -> FakeTopic:
        self.calls.append(("join", name, announce, lookup))
        await asyncio.sleep(0)
        if self.join_error is not None:
            raise self.join_error
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.quick:
            over.set_result(None)
        self.rounds.append(over)
        return FakeTopic(over)

    def leave(self, name: bytes) -> bool:
        self.calls.append(("leave", name))
        return True

    def live_entries(self) -> LiveSubscription[tuple[FlockEntry, ...]]:
        return self._view.listen()

    async def close(self) -> None:
        self.calls.append(("close",))
        if self.close_forever:
            await asyncio.Event().wait()

    # What a test does

    def joins(self) -> int:
        return sum(call[0] == "join" for call in self.calls)

    def told(self, event: FlockEvent) -> None:
        self._events.publish(event)

    def shows(self, *states: tuple[int, CandidateState], name: bytes = TOPIC) -> None:
        """Its candidates of a topic: ports and states."""
        self._entries = tuple(FlockEntry(Peer(HOST, port, name), state) for port, state in states)
        self._view.changed()

    def opens(
        self, key: bytes | None = LARGE.public_key, *, initiator: bool = True, **options: Any
    ) -> FakeConnection:
        """A raw connection is up."""
        connection = FakeConnection(self, key=key, initiator=initiator, **options)
        self.told(Handshaking(connection.info))
        return connection

    def completes(self, connection: FakeConnection) -> None:
        """Its handshake is done, and the flock takes it."""
        self.live.append(connection)
        self.told(PeerConnected(connection.real, connection.info))

    def connects(
        self, key: bytes | None = LARGE.public_key, *, initiator: bool = True, **options: Any
    ) -> FakeConnection:
        connection = self.opens(key, initiator=initiator, **options)
        self.completes(connection)
        return connection

    def ended(self, connection: FakeConnection) -> None:
        known = connection in self.live
        if known:
            self.live.remove(connection)
        shown = connection.real if known else None
        self.told(ConnectionClosed(connection.info, shown, connection.close_error))


class Recorder:
    """The events of one networker."""

    def __init__(self, networker: Networker) -> None:
        self.events: list[NetworkerEvent] = []
        networker.subscribe(self.events.append)

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def take(self) -> list[str]:
        """The names of the events since the last call."""
        names = self.types
        self.events.clear()
        return names

    def named(self, name: str) -> list[Any]:
        return [event for event in self.events if event.type == name]

    async def seen(self, name: str, count: int = 1) -> Any:
        """The `count`-th event with that name, waited for."""
        await until(lambda: len(self.named(name)) >= count)
        return self.named(name)[count - 1]


@asynccontextmanager
async def faked(
    *, store: FakeStore | None = None, flock: FakeFlock | None = None, **options: Any
) -> AsyncIterator[tuple[Networker, FakeFlock, Recorder]]:
    """A networker on a fake flock that it was given; it has begun to hear of connections."""
    flock = flock or FakeFlock()
    networker = Networker(store or FakeStore(), flock=flock.real, **options)
    async with networker:
        yield networker, flock, Recorder(networker)


@asynccontextmanager
async def quiet(
    store: Any = None, *, peers: list[HostPort] | None = None, **options: Any
) -> AsyncIterator[tuple[Networker, Recorder]]:
    """A networker with a flock of its own on the loopback, whose discovery finds `peers`."""
    async with AsyncExitStack() as stack:
        if peers is None:
            options.setdefault("discovery", False)
        else:
            options["channel"] = await stack.enter_async_context(Channel([StaticPeers(peers)]))
        networker = Networker(store or FakeStore(), **{"host": HOST, **options})
        await stack.enter_async_context(networker)
        yield networker, Recorder(networker)


@asynccontextmanager
async def pair(
    stores: tuple[Any, Any] = (None, None), **options: Any
) -> AsyncIterator[tuple[tuple[Networker, Recorder], tuple[Networker, Recorder]]]:
    """Two networkers; the second one has found the first one, and both know each other."""
    async with quiet(stores[0], **options) as (first, heard):
        place = await first.listen_on()
        await first.configure(TOPIC)
        async with quiet(stores[1], peers=[place], **options) as (second, told):
            await second.configure(TOPIC)
            await heard.seen("peer-add")
            yield (first, heard), (second, told)


def stream_of(networker: Networker) -> PeerStream:
    """The only stream of a networker."""
    (stream,) = networker.streams
    return stream
