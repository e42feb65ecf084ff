"""Pages after a change are those that the same change of the bits themselves gives."""

from __future__ import annotations

import random

import pytest

from covey.errors import StoreError, UsageError
from covey.feed.bitfield import PAGE_BITS, BitPages
from covey.feed.log_pages import (
    check_order,
    first_unset,
    put_pages,
    read_pages,
    with_blocks,
    with_range,
    without_range,
)

WIDTH = 6 * PAGE_BITS


def some_bits(chance: random.Random) -> BitPages:
    bits = BitPages()
    for _ in range(chance.randrange(5)):
        start = chance.randrange(WIDTH)
        bits.set_range(start, chance.randrange(start, WIDTH), chance.random() < 0.8)
    return bits


def runs(bits: BitPages) -> list[tuple[int, int]]:
    return list(bits.ranges(0, 2 * WIDTH))


def copy(bits: BitPages) -> BitPages:
    return read_pages({number: bits.page(number) for number in range(6)})


def a_range(chance: random.Random) -> tuple[int, int]:
    start = chance.choice([chance.randrange(WIDTH), PAGE_BITS * chance.randrange(6)])
    end = chance.choice([chance.randrange(start, WIDTH + 1), PAGE_BITS * 6])
    return start, end


@pytest.mark.parametrize("seed", range(40))
def test_setting_a_range(seed: int) -> None:
    chance = random.Random(seed)
    bits = some_bits(chance)
    start, end = a_range(chance)
    wanted = copy(bits)
    wanted.set_range(start, end, True)
    pages = with_range(bits, start, end)
    place = first_unset(bits, pages, 0)
    put_pages(bits, pages)
    assert runs(bits) == runs(wanted)
    assert place == bits.first_unset(0)


@pytest.mark.parametrize("seed", range(40))
def test_setting_blocks(seed: int) -> None:
    chance = random.Random(seed)
    bits = some_bits(chance)
    blocks = [chance.randrange(WIDTH) for _ in range(chance.randrange(20))]
    blocks += range(bits.first_unset(0), bits.first_unset(0) + chance.choice([0, 5, 5000]))
    wanted = copy(bits)
    for block in blocks:
        wanted.set(block, True)
    pages = with_blocks(bits, blocks)
    place = first_unset(bits, pages, 0)
    put_pages(bits, pages)
    assert runs(bits) == runs(wanted)
    assert place == bits.first_unset(0)


@pytest.mark.parametrize("seed", range(40))
def test_clearing_a_range(seed: int) -> None:
    chance = random.Random(seed)
    bits = some_bits(chance)
    start, end = a_range(chance)
    wanted = copy(bits)
    wanted.set_range(start, end, False)
    pages, emptied = without_range(bits, start, end)
    kept = {number: bits.page(number) for number in range(6)}
    for first, last in emptied:
        for number in range(first, last):
            kept.pop(number, None)
    kept.update(pages)
    assert runs(read_pages(kept)) == runs(wanted)
    assert len(pages) <= 2


def test_clearing_an_enormous_range_makes_two_pages_at_most() -> None:
    bits = BitPages()
    bits.set_range(0, 1 << 52, True)
    pages, emptied = without_range(bits, 5, (1 << 52) - 5)
    assert sorted(pages) == [0, (1 << 40) - 1]
    assert emptied == [(1, (1 << 40) - 1)]


def test_an_empty_range_changes_no_page() -> None:
    assert without_range(BitPages(), 5, 5) == ({}, [])


def test_a_page_of_another_size_is_damage() -> None:
    with pytest.raises(StoreError, match="page 3"):
        read_pages({3: bytes(511)})


def test_the_order_of_a_range() -> None:
    check_order(0, 0)
    with pytest.raises(UsageError):
        check_order(2, 1)
