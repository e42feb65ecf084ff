"""Blocks on their way out: counted, written together, and never of two histories."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import cast

import pytest

from covey.cli.log_printer import Printer
from covey.cli.runtime import CommandError
from covey.store.feed import Feed
from covey.store.feed_events import Appended, Truncated
from tests.cli.support import Kept

OLD = [b"a", b"b", b"c", b"d"]


class FakeFeed:
    """A feed of which every block is here."""

    async def has(self, start: int) -> bool:
        return True


def printer_to(sink: Kept, *, start: int = 0, follow: bool = False) -> Printer:
    feed = cast("Feed", FakeFeed())
    return Printer(feed, sink, start=start, lines=False, follow=follow)


async def giving(blocks: list[bytes], then: Callable[[], None]) -> AsyncIterator[bytes]:
    """The blocks; `then` is done before the last one comes."""
    for index, block in enumerate(blocks):
        if index == len(blocks) - 1:
            then()
        yield block


@pytest.mark.parametrize("length", [0, 2, 3])
async def test_a_block_that_comes_after_a_cut_is_not_printed(length: int) -> None:
    sink = Kept()
    printer = printer_to(sink)
    blocks = giving(OLD, lambda: printer.hear(Truncated(length, 1, 4)))
    with pytest.raises(CommandError, match="cut the log from 4 blocks to"):
        await printer.print(blocks, end=4)
    assert bytes(sink.data) == b"abc"
    assert (printer.blocks, printer.position) == (3, 3)


async def test_a_cut_of_what_was_printed_is_told_when_there_is_nothing_to_read() -> None:
    printer = printer_to(Kept())
    await printer.print(giving(OLD, lambda: None), end=4)
    waiting = asyncio.ensure_future(printer.until_cut())
    printer.hear(Truncated(4, 1, 9))
    printer.check()
    printer.hear(Truncated(3, 2, 4))
    with pytest.raises(CommandError):
        printer.check()
    async with asyncio.timeout(5):
        with pytest.raises(CommandError, match="4 blocks, is of the log as it was"):
            await waiting


async def test_what_lies_beyond_what_is_printed_may_be_cut() -> None:
    sink = Kept()
    printer = printer_to(sink)

    def grow_and_cut() -> None:
        printer.hear(Appended(9, 0, 4))
        printer.hear(Truncated(4, 1, 9))

    await printer.print(giving(OLD, grow_and_cut), end=4)
    printer.check()
    assert bytes(sink.data) == b"abcd"


async def test_a_follower_goes_back_to_the_cut_but_not_before_its_start() -> None:
    sink = Kept()
    printer = printer_to(sink, start=2, follow=True)
    await printer.print(giving(OLD, lambda: None))
    assert printer.position == 6
    printer.hear(Truncated(5, 1, 6))
    assert printer.position == 5
    printer.hear(Truncated(0, 2, 5))
    assert printer.position == 2
    printer.check()
    await printer.print(giving([b"e"], lambda: None))
    assert bytes(sink.data) == b"abcde"
