"""Cutting a stream of bytes into blocks: nothing is lost, whatever the pieces it comes in."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from covey.cli.log_blocks import MAX_LINE, chunks_of, lines_of


class Pieces:
    """A source of given pieces."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    async def read(self) -> bytes:
        return self._pieces.pop(0) if self._pieces else b""


async def all_of(batches: AsyncIterator[list[bytes]]) -> list[bytes]:
    return [block async for batch in batches for block in batch]


async def test_each_line_is_a_block_with_its_newline() -> None:
    source = Pieces(b"one\ntw", b"o\n\nthr", b"ee\r\n")
    assert await all_of(lines_of(source)) == [b"one\n", b"two\n", b"\n", b"three\r\n"]


async def test_a_last_line_without_a_newline_stays_as_it_is() -> None:
    assert await all_of(lines_of(Pieces(b"one\ntwo"))) == [b"one\n", b"two"]


async def test_no_input_is_no_block() -> None:
    assert await all_of(lines_of(Pieces())) == []
    assert await all_of(chunks_of(Pieces(), 10)) == []


async def test_lines_that_were_read_together_come_together() -> None:
    assert [batch async for batch in lines_of(Pieces(b"a\nb\n", b"c\n"))] == [
        [b"a\n", b"b\n"],
        [b"c\n"],
    ]


@pytest.mark.parametrize("end", [b"", b"\n"])
async def test_a_line_without_end_is_cut_and_never_held_whole(end: bytes) -> None:
    piece = b"x" * (MAX_LINE // 2 + 1)
    blocks = await all_of(lines_of(Pieces(piece, piece, piece, end)))
    assert b"".join(blocks) == piece * 3 + end
    assert max(map(len, blocks)) == MAX_LINE


async def test_chunks_have_one_size_and_the_last_one_the_rest() -> None:
    blocks = await all_of(chunks_of(Pieces(b"abc", b"defgh", b"ij", b"k"), 4))
    assert blocks == [b"abcd", b"efgh", b"ijk"]


async def test_any_pieces_come_out_as_they_went_in() -> None:
    chance = random.Random(7)
    for _ in range(200):
        pieces = [
            bytes(chance.choices(b"a\nbc", k=chance.randrange(1, 20)))
            for _ in range(chance.randrange(8))
        ]
        whole = b"".join(pieces)
        assert await all_of(lines_of(Pieces(*pieces))) == whole.splitlines(keepends=True)
        size = chance.randrange(1, 9)
        expected = [whole[start : start + size] for start in range(0, len(whole), size)]
        assert await all_of(chunks_of(Pieces(*pieces), size)) == expected
