"""Streams for wakeups under test: a muxer on a pipe double, and what a connection tells of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from covey.errors import CoveyError
from covey.limits import Limits
from covey.net.mux import Muxer
from covey.net.pipe import MessageConsumer, MessagePipe
from tests.net.mux_pipes import MemoryPipe, RecordingPipe, joined_pipes

if TYPE_CHECKING:
    from covey.net.connection import Connection

_names = itertools.count(1)


class StreamDouble:
    """What a wakeup needs of a connection. `mux` is made on first use, as a connection's is."""

    def __init__(
        self,
        pipe: MessagePipe,
        *,
        initiator: bool,
        handshake_hash: bytes,
        name: str = "",
        limits: Limits | None = None,
        auto_batch: bool = True,
    ) -> None:
        self.pipe = pipe
        self.initiator = initiator
        self.handshake_hash = handshake_hash
        self.name = name or f"stream-{next(_names)}"
        self.closed = False
        self.close_error: CoveyError | None = None
        self.muxes_made = 0
        self._limits = limits
        self._auto_batch = auto_batch
        self._mux: Muxer | None = None
        self._callbacks: list[Callable[[Any], object]] = []

    def __repr__(self) -> str:
        return f"<StreamDouble {self.name}>"

    @property
    def mux(self) -> Muxer:
        if self._mux is None:
            self.muxes_made += 1
            self._mux = Muxer(_Watched(self), self._limits, auto_batch=self._auto_batch)
        return self._mux

    def on_close(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)

    def gone(self, error: CoveyError | None) -> None:
        self.closed = True
        self.close_error = error
        for callback in self._callbacks:
            callback(self)

    @property
    def connection(self) -> Connection:
        """The same, for the type checker."""
        return cast("Connection", self)


class _Watched:
    """The pipe of a double; tells it of the end after the muxer."""

    def __init__(self, stream: StreamDouble) -> None:
        self._stream = stream
        self._consumer: MessageConsumer | None = None

    def attach(self, consumer: MessageConsumer) -> None:
        self._consumer = consumer
        self._stream.pipe.attach(cast("MessageConsumer", self))

    def __getattr__(self, name: str) -> Any:
        own = {"messages_received", "writable", "pipe_ended"}
        return getattr(self._consumer if name in own else self._stream.pipe, name)

    def pipe_closed(self, error: CoveyError | None) -> None:
        assert self._consumer is not None
        self._stream.closed = True
        self._consumer.pipe_closed(error)
        self._stream.gone(error)


def recorded_stream(**options: Any) -> tuple[StreamDouble, RecordingPipe]:
    """A stream whose other end is the test."""
    pipe = RecordingPipe()
    options.setdefault("initiator", True)
    options.setdefault("handshake_hash", bytes(64))
    return StreamDouble(cast("MessagePipe", pipe), **options), pipe


def joined_streams(
    handshake_hash: bytes = bytes(64), *, limits: Limits | None = None
) -> tuple[StreamDouble, StreamDouble]:
    """The two ends of one stream, the initiator first."""
    left, right = joined_pipes()
    ends = []
    for pipe, initiator in ((left, True), (right, False)):
        stream = StreamDouble(
            cast("MessagePipe", pipe),
            initiator=initiator,
            handshake_hash=handshake_hash,
            limits=limits,
        )
        ends.append(stream)
    return ends[0], ends[1]


def cut(stream: StreamDouble) -> None:
    """End a joined stream, at both ends."""
    pipe = stream.pipe
    assert isinstance(pipe, MemoryPipe)
    pipe.close(None)
    pipe.other.close(None)


async def settle(turns: int = 30) -> None:
    """Let the loop run until what is ready has run."""
    for _ in range(turns):
        await asyncio.sleep(0)
