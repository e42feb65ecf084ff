"""Calls of an application's handlers, plain functions and coroutines alike, in order per key."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Iterable
from typing import Any, NamedTuple, TypeAlias

from covey.errors import ClosedError, CoveyError
from covey.net.mux_tasks import GRACE
from covey.owned_tasks import OwnedTasks


class Call(NamedTuple):
    """One call to be made: of `function` with `arguments`, on behalf of `owner`, told as `name`."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    owner: Any
    name: str


def is_cancelled() -> bool:
    """Whether a `CancelledError` is for the task that runs now, and not for what it waits for."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def as_failure(error: asyncio.CancelledError) -> Exception:
    """The failure of a handler that let `error` out although nobody has cancelled it."""
    failure = CoveyError("what it waited for was cancelled")
    failure.__cause__ = error
    return failure


_Waiting: TypeAlias = tuple[Call, Awaitable[Any]]
"""A call, and what it returned to be awaited."""


class _Chain:
    """The calls of one key that wait, and the coroutine that they wait for."""

    __slots__ = ("awaited", "calls", "done", "scope", "task", "until")

    def __init__(self, calls: Iterable[Call]) -> None:
        self.calls = deque(calls)
        self.awaited: Awaitable[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.done: asyncio.Future[None] | None = None
        self.scope: asyncio.Timeout | None = None
        self.until: float | None = None


class OrderedCalls:
    """Makes the calls of one key one after the other; those of different keys do not wait.

    Plain functions run at once, within `run`; a task runs only while there is something to await.
    What is raised goes to `failed(key, call, error)`, and the next call is made; also what lets out
    that something it waited for was cancelled. A call that had no time left after `over` is
    cancelled and goes to `cancelled(key, call)`, where it ends by that. A call for which
    `wanted(call)` is no longer true when its turn comes is left out. Nothing bounds what waits for
    a coroutine: whoever makes calls is to make no more while `waiting` gives something.
    """

    __slots__ = ("_cancelled", "_chains", "_failed", "_grace", "_name", "_tasks", "_wanted")

    def __init__(
        self,
        tasks: OwnedTasks,
        *,
        failed: Callable[[Any, Call, Exception], None],
        cancelled: Callable[[Any, Call], None],
        wanted: Callable[[Call], bool],
        grace: float,
        name: str,
    ) -> None:
        self._tasks = tasks
        self._failed = failed
        self._cancelled = cancelled
        self._wanted = wanted
        self._grace = grace
        self._name = name
        self._chains: dict[Hashable, _Chain] = {}

    def __len__(self) -> int:
        return len(self._chains)

    def run(self, key: Hashable, calls: Iterable[Call]) -> None:
        """Make `calls`, after those of the same key that wait or are being made."""
        chain = self._chains.get(key)
        if chain is not None:
            chain.calls.extend(calls)
            return
        chain = self._chains[key] = _Chain(calls)
        first = None
        try:
            first = self._advance(key, chain)
        finally:
            if first is None:
                del self._chains[key]
        if first is not None:
            chain.done = asyncio.get_running_loop().create_future()
            try:
                chain.task = self._tasks.spawn(self._work(key, chain, first), self._name)
            except ClosedError:  # the owner is over: there is nobody to wait for it
                self._end(key, chain)
                return
            chain.task.add_done_callback(lambda _: self._end(key, chain))

    def waiting(self, key: Hashable) -> Awaitable[None] | None:
        """What ends when all calls of `key` are made; None when none waits."""
        chain = self._chains.get(key)
        if chain is None or chain.done is None:
            return None
        return asyncio.shield(chain.done)

    def over(self, key: Hashable) -> None:
        """No calls come for `key` any more: those that wait have `grace` seconds, all together."""
        chain = self._chains.get(key)
        if chain is None or chain.until is not None:
            return
        chain.until = asyncio.get_running_loop().time() + self._grace
        if chain.scope is not None:
            chain.scope.reschedule(chain.until)

    def all_over(self) -> None:
        """No calls come any more: those that wait have `grace` seconds."""
        for key in tuple(self._chains):
            self.over(key)

    def inside(self) -> bool:
        """Whether the task that runs now is one of these calls."""
        current = asyncio.current_task()
        return any(chain.task is current for chain in self._chains.values())

    async def finish(self) -> None:
        """Wait until nothing is under way, or the calls have had their time and a second more.

        One that does not end when it is cancelled is left to the owner of the tasks.
        """
        self.all_over()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._grace + GRACE
        while tasks := {chain.task for chain in self._chains.values() if chain.task is not None}:
            _, stuck = await asyncio.wait(tasks, timeout=max(0.0, deadline - loop.time()))
            if stuck:
                return
            await asyncio.sleep(0)  # so that their callbacks have run

    # Inside

    def _advance(self, key: Hashable, chain: _Chain) -> _Waiting | None:
        """Make calls up to the first one that is to be awaited. None: all are made."""
        while chain.calls:
            call = chain.calls.popleft()
            if not self._wanted(call):
                continue
            try:
                result = call.function(*call.arguments)
            except asyncio.CancelledError as error:  # no task is cancelled within a plain call
                self._failed(key, call, as_failure(error))
                continue
            except Exception as error:  # noqa: BLE001  the edge of a user callback
                self._failed(key, call, error)
                continue
            if result is not None and inspect.isawaitable(result):
                chain.awaited = result
                return call, result
        return None

    async def _work(self, key: Hashable, chain: _Chain, first: _Waiting) -> None:
        waiting: _Waiting | None = first
        try:
            while waiting is not None:
                await self._finish(key, chain, waiting)
                waiting = self._advance(key, chain)
        finally:
            self._end(key, chain)  # in this turn: what comes in the next one is a new chain

    async def _finish(self, key: Hashable, chain: _Chain, waiting: _Waiting) -> None:
        call, result = waiting
        try:
            async with asyncio.timeout_at(chain.until) as scope:
                chain.scope = scope
                await result
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            self._failed(key, call, as_failure(error))
        except Exception as error:  # noqa: BLE001  the edge of a user callback
            if scope.expired():
                self._cancelled(key, call)
            else:
                self._failed(key, call, error)
        finally:
            chain.scope = None

    def _end(self, key: Hashable, chain: _Chain) -> None:
        if self._chains.get(key) is chain:
            del self._chains[key]
        if chain.done is not None and not chain.done.done():
            chain.done.set_result(None)
        if inspect.iscoroutine(chain.awaited):
            chain.awaited.close()  # where it never began; else it has ended
