"""The blocks of a log on their way out: written together, counted, and of one history."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from covey.cli.log_progress import blocks_text
from covey.cli.runtime import CommandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from covey.cli.stdio import Sink
    from covey.store.feed import Feed
    from covey.store.feed_events import FeedEvent, Truncated

WRITE: Final = 1 << 18
"""Bytes that are written at once, when so many are at hand."""
CUT_HINT: Final = "the same command prints the log as it is now"


class Printer:
    """Writes blocks, as many at once as are at hand, and counts them.

    `follow`: what comes in place of blocks that were cut off is printed after them; otherwise a
    cut of what is printed ends it.
    """

    def __init__(
        self, feed: Feed, sink: Sink, *, start: int, lines: bool, follow: bool = False
    ) -> None:
        self.position = start
        self.blocks = 0
        self.bytes = 0
        self._feed = feed
        self._sink = sink
        self._start = start
        self._end = start
        self._lines = lines
        self._follow = follow
        self._waiting: list[bytes] = []
        self._size = 0
        self._cut: Truncated | None = None
        self._was_cut = asyncio.Event()

    async def print(self, blocks: AsyncIterator[bytes], *, end: int = 0) -> None:
        """Print the blocks that follow those printed before; `end`: to before that one.

        Raises `CommandError` as soon as the log was cut below it.
        """
        self._end = max(self._end, end)
        try:
            async for block in blocks:
                self.check()  # before it counts: it may be of the other history already
                self._add(block)
                if self._size >= WRITE or not await self._feed.has(self.position):
                    await self._write()
        finally:
            await self._write()

    def hear(self, event: FeedEvent) -> None:
        """What the log tells; it does so before a block of what came instead can be read."""
        if event.type != "truncate":
            return
        if self._follow:
            self.position = max(min(self.position, event.length), self._start)
        elif event.length < max(self.position, self._end) and self._cut is None:
            self._cut = event
            self._was_cut.set()

    def check(self) -> None:
        """Raise `CommandError` when the log was cut below what is being printed."""
        if (cut := self._cut) is not None:
            raise CommandError(
                f"its writer cut the log from {blocks_text(cut.old_length)} to "
                f"{cut.length:,} while it was printed: what came out, "
                f"{blocks_text(self.blocks)}, is of the log as it was",
                hint=CUT_HINT,
            )

    async def until_cut(self) -> None:
        """Raise as `check` when it happens; else wait for ever."""
        await self._was_cut.wait()
        self.check()

    def _add(self, block: bytes) -> None:
        self.position += 1
        self.blocks += 1
        self.bytes += len(block)
        self._waiting.append(block)
        if self._lines and not block.endswith(b"\n"):
            self._waiting.append(b"\n")
        self._size += len(block)

    async def _write(self) -> None:
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            await self._sink.write(data)
