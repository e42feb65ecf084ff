"""Reading a log from one block to the next: a range of it, its bytes, or as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from covey.errors import BlockNotAvailable, ClosedError, UsageError

if TYPE_CHECKING:
    from covey.store.feed import Feed


def check_range(start: object, end: object, what: str = "blocks") -> None:
    """`UsageError` unless these are the ends of a range."""
    numbers = isinstance(start, int) and isinstance(end, int)
    if not (numbers and 0 <= start <= end):  # type: ignore[operator]
        raise UsageError(f"not a range of {what}: {start!r} to {end!r}")


async def read_blocks(feed: Feed, start: int, end: int, *, fork: int) -> AsyncIterator[bytes]:
    """The blocks `start` to before `end`, fetched ahead in order; all of one history.

    `fork` is the one they were asked for in. Raises `BlockNotAvailable` when the log is cut to
    less than `end` blocks before the last of them was given out.
    """
    if start == end:
        return
    if feed.fork != fork:
        raise BlockNotAvailable("the log was cut before it was read")
    ahead = None if await feed.has(start, end) else feed.download(start, end, linear=True)
    reader = RangeReader(start, end)
    feed.follow(reader)
    try:
        while reader.position < end:
            cut = reader.cut_to is not None
            block = None if cut else await feed.get_next(reader)
            if block is None or reader.cut_to is not None:
                raise BlockNotAvailable(
                    f"the log was cut to {reader.cut_to} blocks while those from {start} to "
                    f"before {end} were read"
                )
            reader.position += 1
            yield block
    finally:
        feed.unfollow(reader)
        if ahead is not None:
            ahead.cancel()


async def read_bytes(feed: Feed, start: int, end: int, *, fork: int) -> AsyncIterator[bytes]:
    """The bytes `start` to before `end`, in pieces no larger than blocks; empty ones are left out.

    Whatever the log says of its sizes, exactly these bytes come, all of one history as in
    `read_blocks`.
    """
    if start == end:
        return
    first, skip = await feed.seek(start)
    last, rest = await feed.seek(end)
    left = end - start
    async for block in read_blocks(feed, first, last + (1 if rest else 0), fork=fork):
        piece = block[skip : skip + left]
        skip = 0
        left -= len(piece)
        if piece:
            yield piece


async def read_live(feed: Feed, start: int) -> AsyncIterator[bytes]:
    """The blocks from `start` on as they come; see `Feed.live`."""
    ahead = feed.download(start, -1, linear=True)
    follower = Follower(start)
    feed.follow(follower)
    try:
        while True:
            cuts = follower.cuts
            try:
                block = await feed.get_next(follower)
            except ClosedError as error:
                if error.__cause__ is not None:
                    raise
                return
            if block is not None and cuts == follower.cuts:
                follower.position += 1
                yield block
    finally:
        feed.unfollow(follower)
        ahead.cancel()


class Reading:
    """Where somebody reads a log, and how to tell him of a cut."""

    __slots__ = ("position", "wake")

    endless = False
    """Whether blocks that are yet to be written are waited for, however long that takes."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.wake: Callable[[Any], None] | None = None

    def _wake(self) -> None:
        if self.wake is not None:
            self.wake(None)


class Follower(Reading):
    """A live reader: a cut of the log below takes it back to there, but not before its start."""

    __slots__ = ("cuts", "start")

    endless = True

    def __init__(self, start: int) -> None:
        super().__init__(start)
        self.start = start
        self.cuts = 0

    def cut(self, length: int) -> None:
        """What is waited for is another block."""
        if length <= self.position:
            self.position = max(length, self.start)
            self.cuts += 1
            self._wake()


class RangeReader(Reading):
    """A reader of a range that is to be of one history: a cut inside of it is its end."""

    __slots__ = ("cut_to", "end")

    def __init__(self, start: int, end: int) -> None:
        super().__init__(start)
        self.end = end
        self.cut_to: int | None = None

    def cut(self, length: int) -> None:
        """Blocks of the range are gone."""
        if length < self.end:
            self.cut_to = length if self.cut_to is None else min(self.cut_to, length)
            self._wake()
