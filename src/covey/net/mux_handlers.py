"""The part of a muxer that runs handlers and lets senders wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable
from typing import Any

from covey.errors import ClosedError, CoveyError
from covey.limits import Limits
from covey.net.mux_channel import Channel, owners
from covey.net.mux_intake import Outflow
from covey.net.mux_queue import Backlog
from covey.net.mux_tasks import HandlerTasks
from covey.wire.protomux import Protomux

logger = logging.getLogger("covey.net.mux")


class MuxerHandlers:
    """What channels ask of their muxer for their handlers; `Muxer` fills it."""

    __slots__ = (
        "_channels",
        "_error",
        "_loop",
        "_outflow",
        "_slow",
        "_spared",
        "_tasks",
        "_warned",
        "_writers",
        "backlog",
        "core",
        "limits",
    )
    _channels: dict[Channel, None]
    _error: CoveyError | None
    _loop: asyncio.AbstractEventLoop
    _outflow: Outflow
    _slow: set[Channel]
    _spared: Channel | None
    _tasks: HandlerTasks
    _warned: set[str]
    _writers: dict[Channel, dict[asyncio.Future[None], None]]
    backlog: Backlog
    core: Protomux
    limits: Limits

    def run(self, awaitable: Awaitable[Any], name: str) -> asyncio.Task[Any]:
        """Run `awaitable` in a task of the muxer."""
        return self._tasks.run(awaitable, name)

    def cancel_later(self, channel: Channel) -> asyncio.TimerHandle:
        """Expire `channel` when its handlers have had their time after its close."""
        return self._loop.call_later(self.limits.close_timeout, channel.expire)

    def cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel tasks of the muxer."""
        self._tasks.cancel(tasks)

    def warn(self, text: str, *values: object) -> None:
        """Log what a remote may bring about again and again: a warning once, then for debugging."""
        logger.log(logging.DEBUG if text in self._warned else logging.WARNING, text, *values)
        self._warned.add(text)

    def forget(self, channel: Channel) -> None:
        """`channel` is destroyed."""
        self._channels.pop(channel, None)
        if self._spared is channel:
            self._spared = None

    async def wait_unheld(self, channel: Channel) -> None:
        """Wait for the remote to read, when far too much waits for that."""
        if self._outflow.held:
            with contextlib.suppress(ClosedError):
                await self.wait_writable(channel)

    async def wait_writable(self, channel: Channel) -> None:
        """Wait until the pipe takes more."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        waiting = self._writers.setdefault(channel, {})
        waiting[waiter] = None
        try:
            await waiter
        finally:
            del waiting[waiter]
            if not waiting:
                del self._writers[channel]

    def wake_writers(self, channel: Channel, error: ClosedError) -> None:
        """End the waits of `channel`."""
        for waiter in self._writers.get(channel, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def _shed(self) -> bool:
        """Handlers keep too much: close the channels that keep most. False where it does not help.

        That makes room for an eighth of the limit: a remote must not have all channels looked at
        for every message that it sends. One with backpressure pauses the stream instead.
        """
        if self._spared in self._slow:
            return True
        limit = self.limits.mux_backlog
        for channel in sorted(owners(self.core.channels), key=_kept, reverse=True):
            before = self.backlog.bytes
            if not channel.closed:  # by the callbacks of another
                channel.shed()
                if not channel.closed:
                    self._spared = channel
                    return True
                if self.backlog.too_much or self.backlog.bytes == before:
                    break
            if self.backlog.bytes <= limit - limit // 8:
                break
        return not self.backlog.too_much

    def _cut_handlers(self) -> None:
        """The handlers had their time after the end: what waits for them is dropped."""
        error = self._error or ClosedError("handlers did not end within close_timeout")
        for channel in tuple(self._channels):
            channel.stream_closed(error)


def _kept(channel: Channel) -> int:
    return channel.kept
