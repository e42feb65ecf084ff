"""What waits to be written: the same bytes in the same order, in few pieces."""

from __future__ import annotations

import asyncio
import random

from covey.cli.backlog import Backlog


async def test_the_bytes_come_out_as_they_went_in() -> None:
    rng = random.Random(1)
    backlog, wanted, got = Backlog(chunk=100), b"", b""
    for _ in range(1000):
        if rng.random() < 0.6:
            data = rng.randbytes(rng.randrange(1, 101))
            wanted += data
            backlog.put(data)
        elif len(backlog):
            got += await backlog.take()
    while len(backlog):
        got += await backlog.take()
    assert got == wanted


async def test_bytes_that_come_one_by_one_are_not_kept_one_by_one() -> None:
    backlog = Backlog(chunk=100)
    for _ in range(1000):
        backlog.put(b"x")
    assert len(backlog) == 10
    assert await backlog.take() == b"x" * 100


async def test_pieces_of_any_size_fill_half_of_each_chunk() -> None:
    rng = random.Random(2)
    for smallest in (1, 50, 51):
        backlog, total = Backlog(chunk=100), 0
        for _ in range(1000):
            data = bytes(rng.randrange(smallest, 101))
            total += len(data)
            backlog.put(data)
        assert len(backlog) <= 2 * total / 100 + 1


async def test_a_piece_that_fills_a_chunk_is_passed_on_as_it_is() -> None:
    backlog, data = Backlog(chunk=100), bytes(100)
    backlog.put(data)
    backlog.put(b"x")
    assert await backlog.take() is data


async def test_who_waits_is_woken() -> None:
    backlog = Backlog(chunk=100)
    taking = asyncio.create_task(backlog.take())
    await asyncio.sleep(0)
    assert not taking.done()
    backlog.put(b"x")
    assert await taking == b"x"
