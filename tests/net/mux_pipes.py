"""Pipes for muxers under test: a double that records, and a pair that is joined in memory."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from covey.errors import CoveyError
from covey.limits import Limits
from covey.net.mux import Channel, Muxer
from covey.net.pipe import MessageConsumer
from covey.wire.session import Buffer


class RecordingPipe:
    """Keeps what is written and tells what was asked of it."""

    def __init__(self, tell: Callable[..., None] = lambda *event: None) -> None:
        self.tell = tell
        self.wire: list[bytes] = []
        self.full = False
        self.error: CoveyError | None = None
        self.closed = False
        self.consumer: MessageConsumer | None = None
        self.written = asyncio.Event()

    def attach(self, consumer: MessageConsumer) -> None:
        self.consumer = consumer

    def write_messages(self, messages: list[Buffer]) -> bool:
        self.wire.extend(bytes(message) for message in messages)
        self.written.set()
        return not self.full

    @property
    def drained(self) -> bool:
        return not self.full

    @property
    def unsent(self) -> int:
        return sum(map(len, self.wire)) if self.full else 0

    def pause_reading(self) -> None:
        self.tell("stream_pause")

    def resume_reading(self) -> None:
        self.tell("stream_resume")

    def abort(self, error: CoveyError) -> None:
        if self.error is None and not self.closed:
            self.error = error
            self.tell("stream_destroy", str(error))
            asyncio.get_running_loop().call_soon(self.close, error)

    def end(self) -> None:
        self.tell("stream_end_called")

    def receive(self, *frames: bytes) -> None:
        assert self.consumer is not None
        self.consumer.messages_received(list(frames))

    def close(self, error: CoveyError | None = None) -> None:
        if not self.closed:
            self.closed = True
            assert self.consumer is not None
            self.consumer.pipe_closed(error)

    def take(self) -> list[bytes]:
        """What was written since the last call."""
        wire, self.wire = self.wire, []
        return wire


class MemoryPipe:
    """One end of two joined pipes; what is written arrives when `step` or the loop moves it.

    `group` says how many messages arrive together; `high` how many may wait before writes are
    answered with False.
    """

    def __init__(self, *, high: int = 1 << 30, automatic: bool = True) -> None:
        self.other: MemoryPipe
        self.high = high
        self.automatic = automatic
        self.consumer: MessageConsumer | None = None
        self.incoming: deque[bytes] = deque()
        self.frames_written = 0
        self.paused = False
        self.full = False
        self.closed = False
        self.error: CoveyError | None = None
        self.group: Callable[[], int] = lambda: 1 << 30
        self._scheduled = False

    def attach(self, consumer: MessageConsumer) -> None:
        self.consumer = consumer
        self._schedule()

    def write_messages(self, messages: list[Buffer]) -> bool:
        if self.closed:
            return False
        self.frames_written += len(messages)
        self.other.incoming.extend(bytes(message) for message in messages)
        self.other._schedule()
        self.full = len(self.other.incoming) > self.high
        return not self.full

    @property
    def drained(self) -> bool:
        return not self.full

    @property
    def unsent(self) -> int:
        return sum(map(len, self.other.incoming))

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False
        self._schedule()

    def abort(self, error: CoveyError) -> None:
        if self.error is None:
            self.error = error
            asyncio.get_running_loop().call_soon(self.close, error)
            asyncio.get_running_loop().call_soon(self.other.close, None)

    def end(self) -> None:
        self.close(None)
        self.other.close(None)

    def close(self, error: CoveyError | None) -> None:
        if not self.closed:
            self.closed = True
            assert self.consumer is not None
            self.consumer.pipe_closed(error)

    def _schedule(self) -> None:
        if self.automatic and not self._scheduled and self.consumer is not None:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._run)

    def _run(self) -> None:
        self._scheduled = False
        if self.step():
            self._schedule()

    def step(self) -> bool:
        """Deliver one group of messages; False when there was nothing to do."""
        if self.paused or self.closed or not self.incoming or self.consumer is None:
            return False
        count = min(max(1, self.group()), len(self.incoming))
        self.consumer.messages_received([self.incoming.popleft() for _ in range(count)])
        writer = self.other
        if writer.full and len(self.incoming) <= writer.high // 2 and not writer.closed:
            writer.full = False
            assert writer.consumer is not None
            writer.consumer.writable()
        return True


def joined_pipes(**options: Any) -> tuple[MemoryPipe, MemoryPipe]:
    """Two pipes, each the other end of the other."""
    left, right = MemoryPipe(**options), MemoryPipe(**options)
    left.other, right.other = right, left
    return left, right


async def settle(turns: int = 12) -> None:
    """Let the loop run until what is ready has run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def handled(*muxes: Muxer) -> None:
    """Wait until everything that was received is handled: large frames take many turns."""
    async with asyncio.timeout(60):
        while any(mux._intake.waiting for mux in muxes):  # noqa: ASYNC110
            await asyncio.sleep(0)


FOO = bytes.fromhex("00010103666f6f00")


def muxers(limits: Limits | None = None, **options: Any) -> tuple[Muxer, Muxer]:
    left, right = joined_pipes(**options)
    return Muxer(left, limits), Muxer(right, limits)


def pipe_of(mux: Muxer) -> MemoryPipe:
    pipe = mux._pipe
    assert isinstance(pipe, MemoryPipe)
    return pipe


def create(mux: Muxer, protocol: str = "foo", **options: Any) -> Channel:
    return mux.create_channel(protocol, **options)


async def opened_pair(
    left: Muxer, right: Muxer, protocol: str = "foo", **options: Any
) -> tuple[Channel, Channel]:
    first, second = create(left, protocol, **options), create(right, protocol, **options)
    first.open()
    second.open()
    async with asyncio.timeout(5):
        assert await first.fully_opened()
        assert await second.fully_opened()
    return first, second


def recorded(limits: Limits | None = None) -> tuple[Muxer, RecordingPipe]:
    pipe = RecordingPipe()
    return Muxer(pipe, limits), pipe
