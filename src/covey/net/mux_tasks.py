"""The tasks of one muxer: handlers and callbacks that take their time, and their end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any

logger = logging.getLogger("covey.net.mux")

GRACE = 1.0
"""Seconds that a cancelled handler has to clean up before nobody waits for it any more."""


class HandlerTasks:
    """Runs awaitables until the stream is gone, and then for `seconds` more.

    After that every one is cancelled, also those that begin later: each runs up to where it first
    waits, so that no callback is left out.

    Apart from `OwnedTasks`, which cancels at once and awaits the end: nobody may await these, since
    a handler may be who closes the connection, and each callback has to run at least that far.
    """

    __slots__ = ("_deadline", "_loop", "_over_at", "_seconds", "_tasks")

    def __init__(self, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._over_at: float | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, task: object) -> bool:
        return task in self._tasks

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(tuple(self._tasks))

    def run(self, awaitable: Awaitable[Any], name: str) -> asyncio.Task[Any]:
        """Run `awaitable` in a task of its own."""
        task = self._loop.create_task(_as_coroutine(awaitable), name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        if self._over_at is not None:
            self.cancel((task,))
        return task

    def cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel tasks after they have begun: one that has not would leave its callback unrun."""
        for task in tuple(tasks):
            self._loop.call_soon(task.cancel)

    def end_soon(self, stop: Callable[[], None]) -> None:
        """The stream is gone: after the seconds allowed call `stop` and cancel what still runs."""
        if self._tasks and self._deadline is None:
            self._deadline = self._loop.call_later(self._seconds, self.end_now, stop)

    def end_now(self, stop: Callable[[], None]) -> None:
        """Call `stop` and cancel everything, now."""
        if self._over_at is not None:
            return
        self._over_at = self._loop.time()
        self._forget_deadline()
        self.cancel(self._tasks)
        stop()

    async def wait(self) -> None:
        """Wait until none runs any more; one that will not be cancelled is given up and logged."""
        while self._tasks:
            await asyncio.wait(tuple(self._tasks), timeout=GRACE)
            over = self._over_at
            if over is not None and self._tasks and self._loop.time() >= over + GRACE:
                for task in self._tasks:
                    logger.error("%s does not end when cancelled", task.get_name())
                return

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not self._tasks:
            self._forget_deadline()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


async def _as_coroutine(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
