"""What the owner of a log waits for: a block, a range of blocks, a byte offset, a longer head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from covey.errors import CoveyError
from covey.feed.intervals import Intervals


class Ticket:
    """Something asked for. `done` is called once, with the result or an error, unless cancelled.

    `done` must not raise. It may be called before the ticket is given out.
    """

    __slots__ = ("_done", "_drop", "open")

    def __init__(self, done: Callable[[Any], None], drop: Callable[[Any], None]) -> None:
        self._done = done
        self._drop = drop
        self.open = True

    def cancel(self) -> None:
        """No longer wanted; `done` is not called any more. Twice is fine."""
        if self.open:
            self.open = False
            self._drop(self)

    def cancel_with(self, error: CoveyError) -> None:
        """It will not come; `done` gets the error. For the replicator."""
        if self.open:
            self.open = False
            self._drop(self)
            self._done(error)

    def finish(self, result: object | CoveyError) -> None:
        """Answer; nothing when that was done before. For the replicator."""
        if self.open:
            self.open = False
            self._done(result)


class BlockTicket(Ticket):
    """One block: `done` gets its stored bytes."""

    __slots__ = ("index", "priority")

    def __init__(
        self,
        index: int,
        priority: int,
        done: Callable[[Any], None],
        drop: Callable[[Any], None],
    ) -> None:
        super().__init__(done, drop)
        self.index = index
        self.priority = priority


class RangeTicket(Ticket):
    """The blocks `start` to before `end`: `done` gets how many those are.

    Without an `end` it follows the log and is never done. `progress` gets the blocks held and the
    blocks in all, as far as the log is known. `low` is the first block that is missing, `had` are
    those beyond that were here and were let go of: they are not fetched twice.
    """

    __slots__ = ("end", "had", "linear", "low", "progress", "start")

    def __init__(
        self,
        start: int,
        end: int | None,
        *,
        linear: bool,
        done: Callable[[Any], None],
        progress: Callable[[int, int], None] | None,
        drop: Callable[[Any], None],
    ) -> None:
        super().__init__(done, drop)
        self.start = self.low = start
        self.end = end
        self.linear = linear
        self.progress = progress
        self.had = Intervals()

    def covers(self, index: int) -> bool:
        """Whether it waits for this block, if that is not here."""
        end = self.end
        return self.low <= index and (end is None or index < end) and index not in self.had


class SeekTicket(Ticket):
    """A byte offset: `done` gets the block that holds it and the offset in that block."""

    __slots__ = ("asked", "by_hash", "offset", "padding")

    def __init__(
        self,
        offset: int,
        padding: int,
        done: Callable[[Any], None],
        drop: Callable[[Any], None],
    ) -> None:
        super().__init__(done, drop)
        self.offset = offset
        self.padding = padding
        self.asked = 0
        """Requests under way for it."""
        self.by_hash = False
        """A peer could not tell where the offset is: hashes alone are asked for."""


class UpdateTicket(Ticket):
    """A longer head: `done` gets whether there is one."""

    __slots__ = ("asked", "wait")

    def __init__(
        self, wait: bool, done: Callable[[Any], None], drop: Callable[[Any], None]
    ) -> None:
        super().__init__(done, drop)
        self.wait = wait
        self.asked: float | None = None
        """Since when peers had the time to answer."""
