"""The one event mechanism: bounded streams for changes, coalesced snapshots for state.

`EventStream` is the writer's end. `listen()` gives each caller its own bounded async iterator;
`subscribe()` calls a function synchronously, for parts of covey that act on each other's changes.
`LiveView` tells the present state: one snapshot at once, then one after each burst of changes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeVar

logger = logging.getLogger("covey.events")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lagged:
    """`missed` events did not fit this subscriber's queue: read the owner's snapshot again."""

    missed: int
    type: Literal["lagged"] = "lagged"


class _Reader:
    """What both iterators share: a waiter woken by the writer, and an end."""

    __slots__ = ("__weakref__", "_closed", "_forget", "_waiter")

    def __init__(self, forget: Callable[[Any], None]) -> None:
        self._forget = forget
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("one reader at a time: call listen() again for a second one")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _end(self) -> None:
        """The writer is gone: what is queued can still be read, then the iteration ends."""
        self._closed = True
        self._wake()

    def close(self) -> None:
        """Stop listening. May be called again."""
        self._forget(self)
        self._end()

    async def aclose(self) -> None:
        """`close()`, for `contextlib.aclosing`."""
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self


class Subscription(_Reader, Generic[T]):
    """One caller's bounded queue of events: `async for event in subscription`.

    When more than `limit` events wait, newer ones are counted instead of kept, and the reader gets
    `Lagged(missed)` after those that were kept. Ends when the writer closes.
    """

    __slots__ = ("_limit", "_missed", "_queue")

    def __init__(self, limit: int, forget: Callable[[Any], None]) -> None:
        super().__init__(forget)
        self._queue: deque[T] = deque()
        self._limit = limit
        self._missed = 0

    def _offer(self, event: T) -> None:
        if self._missed or len(self._queue) >= self._limit:
            self._missed += 1  # until the reader has seen Lagged, so that the order holds
        else:
            self._queue.append(event)
        self._wake()

    async def __anext__(self) -> T | Lagged:
        while True:
            if self._queue:
                return self._queue.popleft()
            if self._missed:
                missed, self._missed = self._missed, 0
                return Lagged(missed)
            if self._closed:
                raise StopAsyncIteration
            await self._wait()


class EventStream(Generic[T]):
    """One writer, many readers: `publish` never waits, a slow reader harms only itself."""

    def __init__(self, *, backlog: int = 1024) -> None:
        self._backlog = backlog
        self._subscriptions: set[Subscription[T]] = set()
        self._callbacks: list[Callable[[T], object]] = []
        self._closed = False

    def publish(self, event: T) -> None:
        """Give `event` to every subscriber; a callback that fails is logged and changes nothing."""
        for subscription in tuple(self._subscriptions):
            subscription._offer(event)  # first: a callback may publish the next event
        for callback in tuple(self._callbacks):
            try:
                callback(event)
            except Exception:
                logger.exception("a listener failed on %r", event)

    def listen(self, *, backlog: int | None = None) -> Subscription[T]:
        """Events from now on, for one reader; at most `backlog` wait for it."""
        subscription = Subscription[T](backlog or self._backlog, self._subscriptions.discard)
        if self._closed:
            subscription._end()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def subscribe(self, callback: Callable[[T], object]) -> Callable[[], None]:
        """Call `callback` synchronously with each event; returns the function that stops it."""
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe

    def close(self) -> None:
        """End every iterator after what it still has queued. May be called again."""
        self._closed = True
        self._callbacks.clear()
        for subscription in tuple(self._subscriptions):
            subscription._end()
        self._subscriptions.clear()


class LiveSubscription(_Reader, Generic[T]):
    """One caller's view of the present state: a snapshot at once, then one after each burst."""

    __slots__ = ("_dirty", "_first", "_snapshot")

    def __init__(self, snapshot: Callable[[], T], forget: Callable[[Any], None]) -> None:
        super().__init__(forget)
        self._snapshot = snapshot
        self._first: tuple[T] | None = (snapshot(),)
        self._dirty = False

    def _mark(self) -> None:
        if not self._dirty:
            self._dirty = True
            self._wake()

    async def __anext__(self) -> T:
        while True:
            if self._first is not None:
                (first,), self._first = self._first, None
                return first
            if self._dirty:
                self._dirty = False
                return self._snapshot()
            if self._closed:
                raise StopAsyncIteration
            await self._wait()


class LiveView(Generic[T]):
    """Gives out snapshots lazily: a change costs one flag per reader, whatever the state's size."""

    def __init__(self, snapshot: Callable[[], T]) -> None:
        self._snapshot = snapshot
        self._subscriptions: set[LiveSubscription[T]] = set()
        self._closed = False

    def changed(self) -> None:
        """Tell the readers that the state changed; they read it when they come to it."""
        for subscription in self._subscriptions:
            subscription._mark()

    def listen(self) -> LiveSubscription[T]:
        """The state now, then after each burst of changes."""
        subscription = LiveSubscription[T](self._snapshot, self._subscriptions.discard)
        if self._closed:
            subscription._end()
        else:
            self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End every iterator. May be called again."""
        self._closed = True
        for subscription in tuple(self._subscriptions):
            subscription._end()
        self._subscriptions.clear()
