"""Runs the callbacks that answer opens of the remote, plain functions and coroutines alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Protocol

from covey.errors import ClosedError, CoveyError, UsageError
from covey.net.mux_queue import Hold, outcome
from covey.wire.protomux_channel import PairRequested, RemoteOpen

logger = logging.getLogger("covey.net.mux")

PairCallback = Callable[[bytes | None], Awaitable[Any] | Any]
"""Gets the id of the channel that the remote opens. What it returns is awaited if possible."""


class AlreadyOpen(UsageError):
    """A channel of that name is open, and it was to be the only one."""


class PairHost(Protocol):
    """What the callbacks need of their muxer."""

    def run(self, awaitable: Awaitable[Any], name: str) -> asyncio.Task[Any]:
        """Run `awaitable` in a task of the muxer."""

    def reply_hold(self) -> Hold | None:
        """The hold of the batch that is being received, if there is one."""

    def pair_done(self, request: RemoteOpen) -> None:
        """The callback for `request` has ended."""

    def warn(self, text: str, *values: object) -> None:
        """Log what a remote may bring about again and again: a warning once."""

    def destroy(self, error: CoveyError | None = None) -> None:
        """Cut the stream."""


class PairCallbacks:
    """The pair callbacks of one muxer that are under way."""

    __slots__ = ("_host", "_tasks")

    def __init__(self, host: PairHost) -> None:
        self._host = host
        self._tasks: dict[RemoteOpen, asyncio.Task[Any]] = {}

    @property
    def tasks(self) -> Collection[asyncio.Task[Any]]:
        """The tasks of those that are coroutines."""
        return self._tasks.values()

    def call(self, event: PairRequested) -> None:
        """Ask the callback of `event`; the muxer is told when it is done."""
        request = event.request
        try:
            result = event.callback(event.id)
        except Exception as error:  # noqa: BLE001  the edge of a user callback
            if not self._rejected(event, error):
                self._failed(event, error)
                return
            result = None
        if result is None or not hasattr(result, "__await__"):
            # In the next turn, as in the reference: what the frame still brings finds it waiting.
            asyncio.get_running_loop().call_soon(self._host.pair_done, request)
            return
        hold = self._host.reply_hold()
        if hold is not None:
            hold.wait()
        name = f"covey pair {event.protocol}"
        self._tasks[request] = self._host.run(self._finish(event, result, hold), name)

    def give_up(self, request: RemoteOpen) -> None:
        """The callback for `request` took too long: its open was rejected."""
        task = self._tasks.get(request)
        if task is not None:
            self._host.warn("a pair callback took too long: the open was rejected")
            task.cancel()

    async def _finish(
        self, event: PairRequested, result: Awaitable[Any], hold: Hold | None
    ) -> None:
        try:
            error = await outcome(result, None)
        finally:
            del self._tasks[event.request]
            self._host.pair_done(event.request)
            if hold is not None:
                hold.done()
        if error is not None and not self._rejected(event, error):
            self._failed(event, error)

    @staticmethod
    def _rejected(event: PairRequested, error: Exception) -> bool:
        """Whether `error` says only that there is no channel to make: the remote's own doing."""
        if isinstance(error, ClosedError | AlreadyOpen):
            logger.debug("an open of %r is rejected: %s", event.protocol, error)
            return True
        return False

    def _failed(self, event: PairRequested, error: Exception) -> None:
        logger.error("the pair callback of %r failed", event.protocol, exc_info=error)
        wrapped = CoveyError(f"the pair callback of {event.protocol!r} failed: {error}")
        wrapped.__cause__ = error
        self._host.destroy(wrapped)
