"""Tasks with an owner: named, watched, and all ended with it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class OwnedTasks:
    """Runs coroutines in tasks of one owner; `end` leaves none.

    A task that fails is told to `logger`, with its traceback: its owner did not expect that.
    """

    __slots__ = ("_logger", "_tasks")

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(
        self,
        work: Coroutine[Any, Any, T],
        name: str,
        *,
        on_failure: Callable[[Exception], object] | None = None,
    ) -> asyncio.Task[T]:
        """Run `work` in a task of this owner; `on_failure` gets what it raises, after the log."""
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._reap(ended, on_failure))
        return task

    async def end(self, timeout: float | None = None) -> None:
        """Cancel every task and wait for it; one that still runs after `timeout` s is logged.

        The task that calls this, if it is one of them, is left to its own end.
        """
        tasks = self._tasks - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        if tasks:
            _, stuck = await asyncio.wait(tasks, timeout=timeout)
            for task in stuck:
                self._logger.warning("%s does not end when cancelled", task.get_name())

    def _reap(
        self, task: asyncio.Task[Any], on_failure: Callable[[Exception], object] | None
    ) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._logger.error("%s failed", task.get_name(), exc_info=error)
        if on_failure is not None and isinstance(error, Exception):
            on_failure(error)
