"""Bytes that wait to be written, in memory that their number bounds and their pieces do not."""

from __future__ import annotations

import asyncio
from collections import deque


class Backlog:
    """A queue of bytes: small pieces are put together, for each object costs dozens of bytes.

    A remote that may be so many bytes ahead could send each of them alone.
    """

    def __init__(self, *, chunk: int) -> None:
        self._chunk = chunk
        self._chunks: deque[bytes | bytearray] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        """How many chunks wait."""
        return len(self._chunks)

    def put(self, data: bytes) -> None:
        """Add to the end: to the last chunk while that stays within `chunk` bytes."""
        last = self._chunks[-1] if self._chunks else b""
        if not last or len(last) + len(data) > self._chunk:
            self._chunks.append(data)
        elif isinstance(last, bytearray):
            last += data
        else:
            self._chunks[-1] = bytearray(last) + data
        self._filled.set()

    async def take(self) -> bytes:
        """The first chunk, as soon as there is one."""
        while not self._chunks:
            self._filled.clear()
            await self._filled.wait()
        return bytes(self._chunks.popleft())
