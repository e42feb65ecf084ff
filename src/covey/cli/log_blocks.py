"""A stream of bytes as the blocks of a log: lines, or chunks of one size."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from covey.cli.stdio import Source

MAX_LINE: Final = 1 << 20
"""Bytes of a block that is a line; a longer line becomes several blocks."""


async def lines_of(source: Source) -> AsyncIterator[list[bytes]]:
    """The lines, each with its newline, as many together as were read together.

    Put together they are what was read: the last one has a newline only if the input ends in one.
    """
    rest = bytearray()
    while data := await source.read():
        rest += data
        end = rest.rfind(b"\n") + 1
        if end:
            yield [piece for line in bytes(rest[:end]).split(b"\n")[:-1] for piece in _cut(line)]
            del rest[:end]
        while len(rest) >= MAX_LINE:
            yield [bytes(rest[:MAX_LINE])]
            del rest[:MAX_LINE]
    if rest:
        yield [bytes(rest)]


def _cut(line: bytes) -> list[bytes]:
    """A line, given without its newline, as blocks."""
    whole = line + b"\n"
    return [whole[start : start + MAX_LINE] for start in range(0, len(whole), MAX_LINE)]


async def chunks_of(source: Source, size: int) -> AsyncIterator[list[bytes]]:
    """Chunks of `size` bytes, the last one of what is left, as many together as were read."""
    rest = bytearray()
    while data := await source.read():
        rest += data
        whole = len(rest) - len(rest) % size
        if whole:
            yield [bytes(rest[start : start + size]) for start in range(0, whole, size)]
            del rest[:whole]
    if rest:
        yield [bytes(rest)]
