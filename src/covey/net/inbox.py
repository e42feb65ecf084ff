"""The extension messages of one peer, handled in order, bounded while they wait."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from covey.owned_tasks import OwnedTasks

logger = logging.getLogger("covey.net.inbox")

M = TypeVar("M")

OVERHEAD: Final = 256
"""What a waiting message counts beside its payload, so that empty ones fill the backlog too."""


class Inbox(Generic[M]):
    """Gives each message to `deliver`, and waits for what that returns before the next one.

    Plain handlers are called at once; a task runs only while there is something to wait for.
    """

    __slots__ = (
        "_backlog",
        "_deliver",
        "_held",
        "_name",
        "_running",
        "_tasks",
        "_waiting",
        "_worker",
    )

    def __init__(
        self,
        tasks: OwnedTasks,
        deliver: Callable[[M], Sequence[Awaitable[object]]],
        *,
        backlog: int,
        name: str,
    ) -> None:
        self._tasks = tasks
        self._deliver = deliver
        self._backlog = backlog
        self._name = name
        self._waiting: deque[tuple[M, int]] = deque()
        self._running: deque[Awaitable[object]] = deque()
        self._held = 0
        self._worker: asyncio.Task[None] | None = None

    def take(self, message: M, size: int) -> bool:
        """Handle `message`, or keep it for later; False: more would wait than is allowed.

        `size`: the bytes of its payload. One message may wait whatever its size, since a single one
        can be larger than the backlog.
        """
        if self._worker is None:
            self._running.extend(self._deliver(message))
            if self._running:
                self._worker = self._tasks.spawn(self._work(), self._name)
                self._worker.add_done_callback(self._worker_ended)
            return True
        cost = size + OVERHEAD
        if self._waiting and self._held + cost > self._backlog:
            return False
        self._waiting.append((message, cost))
        self._held += cost
        return True

    def drop(self) -> None:
        """Drop what waits; the handler that runs may finish."""
        self._waiting.clear()
        self._held = 0

    def close(self) -> None:
        """Drop what waits and cancel what runs: its peer is gone."""
        self.drop()
        if self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        while True:
            while self._running:
                result = self._running.popleft()
                try:
                    await result
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is None or task.cancelling():
                        raise
                    # Not this task was cancelled but one that the handler waited for.
                    logger.exception("what the handler of an extension waited for was cancelled")
                except Exception:
                    logger.exception("the handler of an extension failed")
            if not self._waiting:
                self._worker = None
                return
            message, cost = self._waiting.popleft()
            self._held -= cost
            self._running.extend(self._deliver(message))

    def _worker_ended(self, ended: asyncio.Task[None]) -> None:
        if self._worker is not ended:
            return  # there was nothing more to do
        self._worker = None
        self.drop()
        while self._running:  # nobody will ever await these
            result = self._running.popleft()
            if inspect.iscoroutine(result):
                result.close()
