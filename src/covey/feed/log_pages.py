"""Pages of availability bits as they will be after a commit; the present ones stay as they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from covey.errors import StoreError, UsageError
from covey.feed.bitfield import PAGE_BITS, PAGE_BYTES, BitPages

_SHIFT: Final = PAGE_BITS.bit_length() - 1
_LOW: Final = PAGE_BITS - 1


def read_pages(pages: Mapping[int, bytes]) -> BitPages:
    """The bits of stored pages; `StoreError` for one of another size."""
    bits = BitPages()
    for number, page in pages.items():
        if len(page) != PAGE_BYTES:
            raise StoreError(f"page {number} of bits has {len(page)} bytes, not {PAGE_BYTES}")
        bits.set_words(number << _SHIFT, page)
    return bits


def put_pages(bits: BitPages, pages: Mapping[int, bytes]) -> None:
    """Make `pages` the present ones."""
    for number, page in pages.items():
        bits.set_words(number << _SHIFT, page)


def with_range(bits: BitPages, start: int, end: int) -> dict[int, bytes]:
    """The pages with `start` to before `end` set."""
    pages = {}
    for number in range(start >> _SHIFT, (end + _LOW) >> _SHIFT):
        pages[number] = _page(_value(bits, number) | _mask(number, start, end))
    return pages


def with_blocks(bits: BitPages, blocks: Iterable[int]) -> dict[int, bytes]:
    """The pages with the bits of `blocks` set."""
    masks: dict[int, int] = {}
    for block in blocks:
        number = block >> _SHIFT
        masks[number] = masks.get(number, 0) | 1 << (block & _LOW)
    return {number: _page(_value(bits, number) | mask) for number, mask in masks.items()}


def without_range(
    bits: BitPages, start: int, end: int
) -> tuple[dict[int, bytes], list[tuple[int, int]]]:
    """The pages at the ends with `start` to before `end` clear, and the range of those between.

    Those between have no bit left: they need not be kept.
    """
    if start >= end:
        return {}, []
    first, last = (start + _LOW) >> _SHIFT, end >> _SHIFT
    edges = {start >> _SHIFT} if start & _LOW else set()
    if end & _LOW:
        edges.add(last)
    pages = {
        number: _page(_value(bits, number) & ~_mask(number, start, end)) for number in sorted(edges)
    }
    return pages, [(first, last)] if first < last else []


def first_unset(bits: BitPages, pages: Mapping[int, bytes], start: int) -> int:
    """The first clear bit from `start` on once `pages`, which only add bits, are in place."""
    while True:
        start = bits.first_unset(start)
        page = pages.get(start >> _SHIFT)
        if page is None:
            return start
        free = ~int.from_bytes(page, "little") >> (start & _LOW)
        found = start + (free & -free).bit_length() - 1
        if found >> _SHIFT == start >> _SHIFT:
            return found
        start = found


def check_order(start: int, end: int) -> None:
    """`UsageError` unless these are the ends of a range of blocks."""
    if not 0 <= start <= end:
        raise UsageError(f"blocks {start} to {end} are no range")


def _value(bits: BitPages, number: int) -> int:
    return int.from_bytes(bits.page(number), "little")


def _mask(number: int, start: int, end: int) -> int:
    low = max(start - (number << _SHIFT), 0)
    high = min(end - (number << _SHIFT), PAGE_BITS)
    return (1 << high) - (1 << low)


def _page(value: int) -> bytes:
    return value.to_bytes(PAGE_BYTES, "little")
