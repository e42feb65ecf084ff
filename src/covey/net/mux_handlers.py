"""The part of a muxer that runs handlers and lets senders wait."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Iterable
from typing import Any

from covey.errors import ClosedError, CoveyError
from covey.limits import Limits
from covey.net.mux_channel import Channel
from covey.net.mux_intake import Outflow
from covey.net.mux_tasks import HandlerTasks

logger = logging.getLogger("covey.net.mux")


class MuxerHandlers:
    """What channels ask of their muxer for their handlers; `Muxer` fills it."""

    __slots__ = (
        "_channels",
        "_error",
        "_loop",
        "_outflow",
        "_tasks",
        "_warned",
        "_writers",
        "limits",
    )
    _channels: dict[Channel, None]
    _error: CoveyError | None
    _loop: asyncio.AbstractEventLoop
    _outflow: Outflow
    _tasks: HandlerTasks
    _warned: set[str]
    _writers: dict[asyncio.Future[None], Channel]
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

    async def wait_unheld(self, channel: Channel) -> None:
        """Wait for the remote to read, when far too much waits for that."""
        if self._outflow.held:
            with contextlib.suppress(ClosedError):
                await self.wait_writable(channel)

    async def wait_writable(self, channel: Channel) -> None:
        """Wait until the pipe takes more."""
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._writers[waiter] = channel
        try:
            await waiter
        finally:
            del self._writers[waiter]

    def wake_writers(self, channel: Channel, error: ClosedError) -> None:
        """End the waits of `channel`."""
        for waiter, owner in self._writers.items():
            if owner is channel and not waiter.done():
                waiter.set_exception(error)

    def _cut_handlers(self) -> None:
        """The handlers had their time after the end: what waits for them is dropped."""
        error = self._error or ClosedError("handlers did not end within close_timeout")
        for channel in tuple(self._channels):
            channel.stream_closed(error)
