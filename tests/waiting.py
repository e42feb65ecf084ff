"""How tests wait, without sleeping and without polling, and what must not be left after them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 20.0
"""Seconds after which a test gives up; nothing waits so long when all is well."""
SETTLING = 10
"""Turns of the loop that what was closed may take to be gone."""

Watch = tuple[Callable[[], object], "asyncio.Future[None]"]


async def until(condition: Callable[[], object], patience: float = PATIENCE) -> None:
    """Return as soon as `condition` holds; `TimeoutError` after `patience` seconds.

    It is looked at after each turn of the loop: what is not awaited anywhere, a counter or a
    list, changes in no other way, and a loop in which nothing happens does not turn.
    """
    watches = _watches(asyncio.get_running_loop())
    async with asyncio.timeout(patience):
        while not condition():
            held: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            watch = (condition, held)
            watches.append(watch)
            try:
                await held
            finally:
                watches.remove(watch)


def _watches(loop: Any) -> list[Watch]:
    """The conditions of a loop, looked at after each of its turns."""
    if hasattr(loop, "covey_watches"):
        found: list[Watch] = loop.covey_watches
        return found
    watches: list[Watch] = []
    turn = loop._run_once  # of every loop of asyncio's own

    def turn_and_look() -> None:
        turn()
        for condition, held in tuple(watches):
            if not held.done():
                _look(condition, held)

    loop.covey_watches = watches
    loop._run_once = turn_and_look
    return watches


def _look(condition: Callable[[], object], held: asyncio.Future[None]) -> None:
    try:
        if condition():
            held.set_result(None)
    except Exception as error:  # noqa: BLE001 - the test gets it
        held.set_exception(error)


async def turns(count: int) -> None:
    """Let the loop go round `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


class Belongings:
    """The tasks, timers and sockets that are there now, to find those that were left later."""

    def __init__(self) -> None:
        self._tasks = asyncio.all_tasks()
        self._timers = _timers()
        self._sockets = _sockets()

    async def left(self) -> list[str]:
        """What came since and is still there once the loop has turned a few times."""
        for _ in range(SETTLING):
            if not self._new():
                return []
            await asyncio.sleep(0)
        return self._new()

    def _new(self) -> list[str]:
        tasks = asyncio.all_tasks() - self._tasks - {asyncio.current_task()}
        sockets = _sockets()
        return [
            *(f"task {task.get_name()}: {task.get_coro()}" for task in tasks),
            *(f"timer {timer}" for timer in _timers() - self._timers),
            *(f"{name} (descriptor {sockets[name]})" for name in sockets.keys() - self._sockets),
        ]


def _timers() -> set[asyncio.TimerHandle]:
    loop: Any = asyncio.get_running_loop()
    return {timer for timer in loop._scheduled if not timer.cancelled()}


def _sockets() -> dict[str, str]:
    """The sockets of this process by the system's name; none where it does not tell."""
    found = {}
    try:
        with os.scandir("/proc/self/fd") as entries:
            for entry in entries:
                try:
                    name = str(Path(entry.path).readlink())
                except OSError:
                    continue  # the one that lists them
                if name.startswith("socket:"):
                    found[name] = entry.name
    except OSError:
        return {}
    return found
