"""Tasks with an owner: named, watched, and all ended with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from covey.errors import ClosedError

T = TypeVar("T")


class OwnedTasks:
    """Runs coroutines in tasks of one owner; `end` leaves none.

    A task that fails is told to `logger`, with its traceback: its owner did not expect that.
    """

    __slots__ = ("_ended", "_ending", "_logger", "_tasks")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._tasks: set[asyncio.Task[Any]] = set()
        self._ending = self._ended = False

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(
        self,
        work: Coroutine[Any, Any, T],
        name: str,
        *,
        on_failure: Callable[[Exception], object] | None = None,
    ) -> asyncio.Task[T]:
        """Run `work` in a task of this owner; `on_failure` gets what it raises, after the log.

        While `end` waits the new task is cancelled at once, so that nobody waits for it in vain.
        Raises `ClosedError` after `end`.
        """
        if self._ended:
            work.close()
            raise ClosedError(f"{name}: its owner has ended")
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._reap(ended, on_failure))
        if self._ending:
            task.cancel()
        return task

    async def end(self, timeout: float | None = None) -> None:
        """Cancel every task and wait for it, also those that others start as they end.

        Each that still runs after `timeout` s is logged. The task that calls this, if it is one of
        them, is left to its own end.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        caller = asyncio.current_task()
        self._ending = True
        for task in self._tasks - {caller}:
            task.cancel()
        while tasks := self._tasks - {caller}:
            left = None if deadline is None else max(0.0, deadline - loop.time())
            _, stuck = await asyncio.wait(tasks, timeout=left)
            if stuck:
                for task in stuck:
                    self._logger.warning("%s does not end when cancelled", task.get_name())
                break
        self._ended = True

    def _reap(
        self, task: asyncio.Task[Any], on_failure: Callable[[Exception], object] | None
    ) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._logger.error("%s failed", task.get_name(), exc_info=error)
        if on_failure is not None and isinstance(error, Exception):
            on_failure(error)
