"""Where the append of a file was interrupted: kept beside the log, checked against the file."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from covey.store.feed import Feed

NAME: Final = "covey/append"
"""Under which name the store keeps it with the log; no peer gets it."""
STEP: Final = 64
"""Blocks that are compared before others get their turn."""


class Mark:
    """That `file` is being appended to `feed` in blocks of `chunk` bytes, from some block on.

    How far it came is not written down: the blocks in the log tell, so a crash cannot part the two.
    """

    def __init__(self, feed: Feed, file: Path, chunk: int) -> None:
        self._feed = feed
        self._chunk = chunk
        self._what: dict[str, object] = {"file": str(file.resolve()), "chunk": chunk}

    async def resume(self, descriptor: int) -> int:
        """Bytes of the file that the log has already: the file is placed behind them.

        0 when the last append was not of this file, or was completed, or when file or log changed
        since: then this is noted as a new beginning.
        """
        start = await self._started()
        if start is not None and stat.S_ISREG(os.fstat(descriptor).st_mode):
            done = await self._equal_bytes(descriptor, start)
            if done:
                return done
        begun = {**self._what, "start": self._feed.length}
        await self._feed.set_user_data(NAME, json.dumps(begun).encode())
        return 0

    async def clear(self) -> None:
        """The file is complete."""
        await self._feed.set_user_data(NAME, None)

    async def _started(self) -> int | None:
        """At which block an interrupted append of this file began."""
        kept = await self._feed.get_user_data(NAME)
        try:
            known = json.loads(kept or b"null")
        except ValueError:
            return None
        if not isinstance(known, dict):
            return None
        start = known.pop("start", None)
        return start if known == self._what and isinstance(start, int) else None

    async def _equal_bytes(self, descriptor: int, start: int) -> int:
        """Bytes in the blocks from `start` on when they are the beginning of the file, else 0.

        The file is placed behind them.
        """
        feed, chunk, done = self._feed, self._chunk, 0
        for index in range(start, feed.length):
            if (index - start) % STEP == 0:
                await asyncio.sleep(0)
            block = await feed.get(index, wait=False)
            os.lseek(descriptor, done, os.SEEK_SET)
            if not block or block != os.read(descriptor, chunk):
                os.lseek(descriptor, 0, os.SEEK_SET)
                return 0
            done += len(block)
        return done
