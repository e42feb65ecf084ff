"""Reading a log from one block to the next: a range of it, its bytes, or as it grows."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from covey.errors import ClosedError, UsageError

if TYPE_CHECKING:
    from covey.store.feed import Feed


async def read_blocks(feed: Feed, start: int, end: int) -> AsyncIterator[bytes]:
    """The blocks `start` to before `end`, fetched ahead in order."""
    if not 0 <= start <= end:
        raise UsageError(f"not a range of blocks: {start!r} to {end!r}")
    if start == end:
        return
    ahead = None if await feed.has(start, end) else feed.download(start, end, linear=True)
    try:
        for index in range(start, end):
            yield await feed.get(index)
    finally:
        if ahead is not None:
            ahead.cancel()


async def read_bytes(feed: Feed, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes `start` to before `end`, in pieces no larger than blocks; empty ones are left out.

    Whatever the log says of its sizes, exactly these bytes come.
    """
    if not 0 <= start <= end:
        raise UsageError(f"not a range of bytes: {start!r} to {end!r}")
    if start == end:
        return
    first, skip = await feed.seek(start)
    last, rest = await feed.seek(end)
    left = end - start
    async for block in read_blocks(feed, first, last + (1 if rest else 0)):
        piece = block[skip : skip + left]
        skip = 0
        left -= len(piece)
        if piece:
            yield piece


async def read_live(feed: Feed, start: int) -> AsyncIterator[bytes]:
    """The blocks from `start` on as they come; see `Feed.live`."""
    if start < 0:
        raise UsageError(f"blocks are numbered from 0, not {start!r}")
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


class Follower:
    """Where a live reader is; a cut of the log below takes it back to there."""

    __slots__ = ("cuts", "position", "wake")

    def __init__(self, position: int) -> None:
        self.position = position
        self.cuts = 0
        self.wake: Callable[[Any], None] | None = None

    def cut(self, length: int) -> None:
        """The log has only `length` blocks of those it had; what is waited for is another block."""
        if length <= self.position:
            self.position = length
            self.cuts += 1
            if self.wake is not None:
                self.wake(None)
