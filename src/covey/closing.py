"""The close of something: done once, whoever asks for it and whoever stops waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any


class Closing:
    """Runs the close of one owner in a task of its own.

    Every caller of `run` waits for the same end. A caller that is cancelled waits no more, and the
    close goes on without it.
    """

    __slots__ = ("_task",)

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether `run` was called."""
        return self._task is not None

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Run `work()` in a task called `name` unless that was done, and wait for its end.

        Raises what `work` raised, for every caller.
        """
        await asyncio.shield(self.start(work, name))

    def start(self, work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
        """Begin as `run` does, and wait for nothing; gives the task that it runs in."""
        if self._task is None:
            self._task = asyncio.create_task(work(), name=name)
        return self._task
