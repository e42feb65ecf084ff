"""The one event mechanism: bounded streams for changes, coalesced snapshots for state.

`EventStream` is the writer's end. `listen()` gives each caller its own bounded async iterator;
`subscribe()` calls a function synchronously, for parts of covey that act on each other's changes.
`LiveView` tells the present state: one snapshot at once, then one after each burst of changes.
"""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, Self, TypeVar

from covey.errors import UsageError

logger = logging.getLogger("covey.events")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Lagged:
    """`missed` events did not fit this subscriber's queue: read the owner's snapshot again."""

    missed: int
    type: Literal["lagged"] = "lagged"


class _Readers(Generic[R]):
    """The readers of one writer, held weakly: one that is dropped without `close` disappears.

    A reader that waits is held until it is woken, or its task could be collected with it.
    """

    __slots__ = ("_references", "waiting")

    def __init__(self) -> None:
        self._references: set[weakref.ref[R]] = set()
        self.waiting: set[R] = set()

    def __len__(self) -> int:
        return len(self._references)

    def add(self, reader: R) -> None:
        self._references.add(weakref.ref(reader, self._references.discard))

    def discard(self, reader: R) -> None:
        self._references.discard(weakref.ref(reader))

    def present(self) -> list[R]:
        """All of them now; a collection in between may take some away from the set itself."""
        references = tuple(self._references)
        return [reader for reference in references if (reader := reference()) is not None]


class _Reader:
    """What both iterators share: a waiter woken by the writer, and an end."""

    __slots__ = ("__weakref__", "_closed", "_readers", "_waiter")

    def __init__(self, readers: _Readers[Any]) -> None:
        self._readers = readers
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise UsageError("one reader at a time: call listen() again for a second one")
        self._waiter = asyncio.get_running_loop().create_future()
        self._readers.waiting.add(self)
        try:
            await self._waiter
        finally:
            self._waiter = None
            self._readers.waiting.discard(self)

    def _end(self) -> None:
        """The writer is gone: what is queued can still be read, then the iteration ends."""
        self._closed = True
        self._wake()

    def close(self) -> None:
        """Stop listening; what is queued can still be read. May be called again."""
        self._readers.discard(self)
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

    def __init__(self, limit: int, readers: _Readers[Any]) -> None:
        super().__init__(readers)
        self._queue: deque[T] = deque()
        self._limit = limit
        self._missed = 0

    def __repr__(self) -> str:
        state = "ended" if self._closed else "listening"
        return f"<Subscription {state}, {len(self._queue)} waiting, {self._missed} missed>"

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

    __slots__ = ("_backlog", "_callbacks", "_closed", "_readers")

    def __init__(self, *, backlog: int = 1024) -> None:
        self._backlog = _checked_backlog(backlog)
        self._readers: _Readers[Subscription[T]] = _Readers()
        self._callbacks: dict[object, Callable[[T], object]] = {}
        self._closed = False

    def publish(self, event: T) -> None:
        """Give `event` to every subscriber; a callback that fails is logged and changes nothing."""
        for reader in self._readers.present():
            reader._offer(event)  # first: a callback may publish the next event
        for token, callback in tuple(self._callbacks.items()):
            if token not in self._callbacks:
                continue  # a callback before this one took it off
            try:
                callback(event)
            except Exception:
                logger.exception("a listener failed on %r", event)

    def listen(self, *, backlog: int | None = None) -> Subscription[T]:
        """Events from now on, for one reader; at most `backlog` wait for it.

        The reader need not be closed: once nobody holds it, it is forgotten.
        """
        limit = self._backlog if backlog is None else _checked_backlog(backlog)
        subscription = Subscription[T](limit, self._readers)
        if self._closed:
            subscription._end()
        else:
            self._readers.add(subscription)
        return subscription

    def subscribe(self, callback: Callable[[T], object]) -> Callable[[], None]:
        """Call `callback` synchronously with each event; returns the function that stops it.

        After `close` nothing is called any more.
        """
        check_callback(callback)
        token = object()
        if not self._closed:
            self._callbacks[token] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(token, None)

        return unsubscribe

    def close(self) -> None:
        """End every iterator after what it still has queued. May be called again."""
        self._closed = True
        self._callbacks.clear()
        for reader in self._readers.present():
            reader.close()


def check_callback(callback: object) -> None:
    """`UsageError` unless this can be called."""
    if not callable(callback):
        raise UsageError(f"a callback is a function, not {callback!r}")


def _checked_backlog(backlog: int) -> int:
    if not isinstance(backlog, int) or backlog < 1:
        raise UsageError(f"a backlog holds one event at least, not {backlog!r}")
    return backlog


class LiveSubscription(_Reader, Generic[T]):
    """One caller's view of the present state: a snapshot at once, then one after each burst."""

    __slots__ = ("_dirty", "_first", "_snapshot")

    def __init__(self, snapshot: Callable[[], T], readers: _Readers[Any]) -> None:
        super().__init__(readers)
        self._snapshot = snapshot
        self._first: tuple[T] | None = (snapshot(),)
        self._dirty = False

    def __repr__(self) -> str:
        state = "ended" if self._closed else "listening"
        news = "a change" if self._dirty or self._first is not None else "nothing"
        return f"<LiveSubscription {state}, {news} to read>"

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

    __slots__ = ("_closed", "_readers", "_snapshot")

    def __init__(self, snapshot: Callable[[], T]) -> None:
        self._snapshot = snapshot
        self._readers: _Readers[LiveSubscription[T]] = _Readers()
        self._closed = False

    def changed(self) -> None:
        """Tell the readers that the state changed; they read it when they come to it."""
        if self._readers:
            for reader in self._readers.present():
                reader._mark()

    def listen(self) -> LiveSubscription[T]:
        """The state now, then after each burst of changes; need not be closed."""
        subscription = LiveSubscription[T](self._snapshot, self._readers)
        if self._closed:
            subscription._end()
        else:
            self._readers.add(subscription)
        return subscription

    def close(self) -> None:
        """End every iterator after a change it has not read yet. May be called again."""
        self._closed = True
        for reader in self._readers.present():
            reader.close()
