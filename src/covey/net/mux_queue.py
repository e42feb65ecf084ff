"""The queue of a channel whose handlers take their time, and the hold that joins replies."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from covey.limits import Limits
from covey.net.mux_message import Message

QUEUED_OVERHEAD = 64
"""What a queued message counts besides its payload: about what Python needs to hold it."""
RUNNING_OVERHEAD = 1024
"""What an overlapping handler counts besides its payload: about what its task takes."""


class Backlog:
    """What all handlers of one muxer keep, in bytes; `exceeded` is called above the limit."""

    __slots__ = ("_exceeded", "_limit", "bytes")

    def __init__(self, limit: int, exceeded: Callable[[], None]) -> None:
        self.bytes = 0
        self._limit = limit
        self._exceeded = exceeded

    @property
    def too_much(self) -> bool:
        """Whether more is kept than is allowed."""
        return self.bytes > self._limit

    def add(self, cost: int) -> None:
        """Count `cost` bytes more."""
        self.bytes += cost
        if self.bytes > self._limit:
            self._exceeded()

    def take(self, cost: int) -> None:
        """Count `cost` bytes less."""
        self.bytes -= cost


class Hold:
    """Replies held back until the handlers of one received batch are done."""

    __slots__ = ("_release", "_released", "_waits")

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._released = False
        self._waits = 1  # the frame itself, until all of it is handled

    def wait(self) -> None:
        """One handler more is under way."""
        self._waits += 1

    def done(self) -> None:
        """One of them has ended."""
        self._waits -= 1
        if self._waits <= 0 and not self._released:
            self._released = True
            self._release()


class Job:
    """Consecutive messages of one type that wait for their handler."""

    __slots__ = ("cost", "hold", "message", "payloads")

    def __init__(self, message: Message[Any], payloads: list[bytes], hold: Hold | None) -> None:
        self.message = message
        self.payloads = payloads
        self.hold = hold
        self.cost = QUEUED_OVERHEAD * len(payloads) + sum(map(len, payloads))
        if hold is not None:
            hold.wait()

    async def run(self, stopped: Callable[[], bool]) -> Exception | None:
        """Hand the messages over, one after the other, until `stopped`; what was raised, if so."""
        message = self.message
        try:
            for payload in self.payloads:
                if stopped():
                    break
                handler = message.on_message
                if handler is None:
                    continue
                value = payload if message.decode is None else message.decode(payload)
                result = handler(value)
                if result is not None and hasattr(result, "__await__"):
                    await result
        except Exception as error:  # noqa: BLE001  the edge of a user callback
            return error
        return None


async def outcome(result: Awaitable[Any], hold: Hold | None) -> Exception | None:
    """Wait for a callback; the exception that it raised, if any."""
    try:
        await result
    except Exception as error:  # noqa: BLE001  the edge of a user callback
        return error
    finally:
        if hold is not None:
            hold.done()
    return None


class HandlerQueue:
    """What came for a channel while one of its handlers runs; `active` during that time.

    Holds `Limits.channel_backlog` bytes. With `pause`, that is called with True when more than
    `Limits.read_backlog` wait, and with False when half of that is left; then nothing is refused.
    """

    __slots__ = (
        "_backlog",
        "_bytes",
        "_held",
        "_high",
        "_jobs",
        "_limit",
        "_pause",
        "_paused",
        "active",
    )

    def __init__(
        self, limits: Limits, backlog: Backlog, *, pause: Callable[[bool], None] | None
    ) -> None:
        self._jobs: deque[Job] = deque()
        self._backlog = backlog
        self._bytes = 0
        self._held = 0
        self._limit = limits.channel_backlog
        self._high = min(limits.read_backlog, limits.channel_backlog)
        self._pause = pause
        self._paused = False
        self.active = False

    @property
    def first(self) -> Job | None:
        """What comes next."""
        return self._jobs[0] if self._jobs else None

    @property
    def kept(self) -> int:
        """Bytes that wait or are being handled."""
        return self._bytes + self._held

    def hold(self, cost: int) -> None:
        """Count `cost` bytes of a handler that runs, for the muxer's backlog alone."""
        self._held += cost
        self._backlog.add(cost)

    def release(self, cost: int) -> None:
        """Take back what `hold` counted."""
        self._held -= cost
        self._backlog.take(cost)

    def pause(self) -> bool:
        """Pause the stream until something is handled; False where that is not wanted."""
        if self._pause is None:
            return False
        if not self._paused:
            self._paused = True
            self._pause(True)
        return True

    def start(self) -> None:
        """A handler takes its time."""
        self.active = True

    def push(self, job: Job) -> bool:
        """Append `job`; False when too much waits now."""
        self._jobs.append(job)
        return self.charge(job.cost)

    def charge(self, cost: int) -> bool:
        """Count `cost` bytes that handlers keep; False when too much waits now."""
        self._bytes += cost
        self._backlog.add(cost)
        if self._pause is None:
            return self._bytes <= self._limit
        if self._bytes > self._high:
            self.pause()
        return True

    def done(self, job: Job) -> None:
        """Take `job` out, if it is still there."""
        if self._jobs and self._jobs[0] is job:
            self._jobs.popleft()
            self._account(job)

    def drop(self) -> None:
        """Drop what waits."""
        while self._jobs:
            self._account(self._jobs.popleft())

    def stop(self) -> None:
        """No handler takes its time any more."""
        self.active = False
        self.drop()

    def _account(self, job: Job) -> None:
        self.discharge(job.cost)
        if job.hold is not None:
            job.hold.done()

    def discharge(self, cost: int) -> None:
        """Take back what `charge` counted."""
        self._bytes -= cost
        self._backlog.take(cost)
        if self._pause is not None and self._paused and self._bytes <= self._high // 2:
            self._paused = False
            self._pause(False)
