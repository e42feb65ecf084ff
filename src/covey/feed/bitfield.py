"""One bit per block, in pages of 4096: which blocks are held (`storage.md` section 2).

Pages without a hole and pages without a bit are kept as ranges, so a log of any length that is
held whole, or a claim of one, takes no memory; only a mixed page is stored, as an int of 4096 bits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from covey.errors import UsageError
from covey.feed.intervals import Intervals
from covey.wire.session import Buffer

PAGE_BITS = 4096
PAGE_BYTES = PAGE_BITS // 8
WORD_BITS = 32
"""Bits of one word on the wire; word ranges start at a multiple of it."""

_PAGE_SHIFT = 12
_LOW = PAGE_BITS - 1
_FULL = (1 << PAGE_BITS) - 1


class BitPages:
    """An endless row of bits from 0 on, all clear at first; positions are ints of any size.

    A query takes time by the mixed pages and by the runs of equal pages it passes, never by the
    width of a run.
    """

    __slots__ = ("_full", "_mixed", "_some", "_total")

    def __init__(self) -> None:
        self._mixed: dict[int, int] = {}
        self._full = Intervals()
        self._some = Intervals()
        """Pages with any bit set: the full and the mixed ones."""
        self._total = 0

    @property
    def pieces(self) -> int:
        """What this takes in memory: mixed pages (some 700 bytes each) and runs of full pages."""
        return len(self._mixed) + len(self._full)

    @property
    def end(self) -> int:
        """A position from which on every bit is clear: the end of the last page with a set one."""
        return self._some[-1][1] << _PAGE_SHIFT if self._some else 0

    def get(self, position: int) -> bool:
        """Whether the bit at `position` is set."""
        page = position >> _PAGE_SHIFT
        bits = self._mixed.get(page)
        if bits is None:
            return page in self._full
        return bits >> (position & _LOW) & 1 == 1

    def set(self, position: int, value: bool) -> bool:
        """Set or clear one bit; whether that changed it."""
        page = position >> _PAGE_SHIFT
        mask = 1 << (position & _LOW)
        bits = self._mixed.get(page)
        if bits is None:
            bits = _FULL if page in self._full else 0
        if (bits & mask != 0) == value:
            return False
        self._total += 1 if value else -1
        self._put(page, bits, bits ^ mask)
        return True

    def set_range(self, start: int, end: int, value: bool) -> None:
        """Set or clear every bit from `start` to before `end`; nothing when that is empty."""
        if start >= end:
            return
        self._total += (end - start if value else 0) - self.count(start, end)
        first, last = start >> _PAGE_SHIFT, end >> _PAGE_SHIFT
        low, high = start & _LOW, end & _LOW
        if first == last:
            self._change(first, (1 << high) - (1 << low), value)
            return
        if low:
            self._change(first, _FULL - ((1 << low) - 1), value)
            first += 1
        if high:
            self._change(last, (1 << high) - 1, value)
        self._fill(first, last, value)

    def set_words(self, start: int, words: Buffer) -> None:
        """Replace `8 * len(words)` bits from `start` on, the lowest bit of a byte first.

        `UsageError` when `start` is not a multiple of 32, or `words` of 4 bytes.
        """
        if start % WORD_BITS or len(words) * 8 % WORD_BITS:
            raise UsageError(f"{len(words)} bytes at bit {start} are not words of {WORD_BITS} bits")
        end = start + 8 * len(words)
        place = start
        while place < end:
            page, low = place >> _PAGE_SHIFT, place & _LOW
            size = min(PAGE_BITS - low, end - place)
            at = (place - start) >> 3
            bits = int.from_bytes(words[at : at + (size >> 3)], "little") << low
            before = self._bits(page)
            after = before & ~(((1 << size) - 1) << low) | bits
            self._total += after.bit_count() - before.bit_count()
            self._put(page, before, after)
            place += size

    def count(self, start: int = 0, end: int | None = None) -> int:
        """How many bits from `start` to before `end` are set; at once without bounds."""
        if end is None:
            return self._total - self.count(0, start) if start else self._total
        if start >= end:
            return 0
        first, last = start >> _PAGE_SHIFT, end >> _PAGE_SHIFT
        edges = (self._bits(last) & ((1 << (end & _LOW)) - 1)).bit_count()
        edges -= (self._bits(first) & ((1 << (start & _LOW)) - 1)).bit_count()
        whole = self._full.count(first, last) << _PAGE_SHIFT
        mixed = self._mixed
        return edges + whole + sum(mixed[page].bit_count() for page in self._mixed_in(first, last))

    def first_set(self, start: int) -> int | None:
        """The first set bit from `start` on; None when there is none."""
        page = start >> _PAGE_SHIFT
        bits = self._bits(page) >> (start & _LOW)
        if bits:
            return start + _lowest(bits)
        following = self._some.first_present(page + 1)
        if following is None:
            return None
        return (following << _PAGE_SHIFT) + _lowest(self._bits(following))

    def first_unset(self, start: int) -> int:
        """The first clear bit from `start` on."""
        page = start >> _PAGE_SHIFT
        bits = self._bits(page) >> (start & _LOW)
        found = start + _lowest(~bits)
        if found >> _PAGE_SHIFT == page:
            return found
        page = self._full.first_missing(page + 1)
        return (page << _PAGE_SHIFT) + _lowest(~self._bits(page))

    def first_without(self, start: int, end: int, other: BitPages) -> int | None:
        """The first bit from `start` to before `end` that is set here and clear in `other`."""
        if start >= end:
            return None
        page = start >> _PAGE_SHIFT
        skipped = start & _LOW
        while True:
            bits = (self._bits(page) & ~other._bits(page)) >> skipped << skipped
            if bits:
                found = (page << _PAGE_SHIFT) + _lowest(bits)
                return found if found < end else None
            skipped = 0
            present = self._some.first_present(other._full.first_missing(page + 1))
            if present is None or present << _PAGE_SHIFT >= end:
                return None
            page = present

    def ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The runs of set bits between `start` and `end`, cut to them, from low to high."""
        while (first := self.first_set(start)) is not None and first < end:
            start = min(self.first_unset(first), end)
            yield first, start

    def words(self, start: int, count: int) -> bytes:
        """`count` words of 32 bits from bit `start` on, as on the wire (section 7).

        `UsageError` when `start` is not a multiple of 32.
        """
        if start % WORD_BITS:
            raise UsageError(f"words start at a multiple of {WORD_BITS} bits, not at {start}")
        first = start >> _PAGE_SHIFT
        last = (start + count * WORD_BITS + _LOW) >> _PAGE_SHIFT
        skipped = (start & _LOW) >> 3
        joined = b"".join(self.page(page) for page in range(first, last))
        return joined[skipped : skipped + count * 4]

    def page(self, number: int) -> bytes:
        """The 512 bytes of a page, the lowest bit of a byte first."""
        return self._bits(number).to_bytes(PAGE_BYTES, "little")

    def _bits(self, page: int) -> int:
        bits = self._mixed.get(page)
        if bits is None:
            return _FULL if page in self._full else 0
        return bits

    def _put(self, page: int, before: int, after: int) -> None:
        """Keep `after` as the bits of `page`, which were `before`, where its kind is kept."""
        if after == before:
            return
        if after and after != _FULL:
            self._mixed[page] = after
        else:
            self._mixed.pop(page, None)
        if before == _FULL:
            self._full.remove(page, page + 1)
        elif after == _FULL:
            self._full.add(page, page + 1)
        if not before:
            self._some.add(page, page + 1)
        elif not after:
            self._some.remove(page, page + 1)

    def _change(self, page: int, mask: int, value: bool) -> None:
        before = self._bits(page)
        self._put(page, before, before | mask if value else before & ~mask)

    def _fill(self, first: int, last: int, value: bool) -> None:
        """Make every page from `first` to before `last` full or empty."""
        for page in self._mixed_in(first, last):
            del self._mixed[page]
        if value:
            self._full.add(first, last)
            self._some.add(first, last)
        else:
            self._full.remove(first, last)
            self._some.remove(first, last)

    def _mixed_in(self, first: int, last: int) -> list[int]:
        """The mixed pages from `first` to before `last`; passes over no others."""
        pages: list[int] = []
        for low, high in self._some.present(first, last):
            for start, end in self._full.missing(low, high):
                pages.extend(range(start, end))
        return pages


class Bitfield(BitPages):
    """The blocks held of one log, and which pages of that have changed since they were taken.

    `pages` is what was stored: page number to its 512 bytes; `UsageError` for another size. It
    starts with no page dirty.
    """

    __slots__ = ("_dirty",)

    def __init__(self, pages: Mapping[int, Buffer] | None = None) -> None:
        super().__init__()
        self._dirty: set[int] = set()
        for number, page in (pages or {}).items():
            if len(page) != PAGE_BYTES:
                raise UsageError(f"a page has {PAGE_BYTES} bytes, page {number} has {len(page)}")
            super().set_words(number * PAGE_BITS, page)

    def set(self, position: int, value: bool) -> bool:
        """Set or clear one bit; whether that changed it."""
        if not super().set(position, value):
            return False
        self._dirty.add(position >> _PAGE_SHIFT)
        return True

    def set_range(self, start: int, end: int, value: bool) -> None:
        """Set or clear every bit from `start` to before `end`; pages that stay equal stay clean."""
        if start < end:
            first, last = start >> _PAGE_SHIFT, (end + _LOW) >> _PAGE_SHIFT
            changed = self._full.missing(first, last) if value else self._some.present(first, last)
            for low, high in changed:
                self._dirty.update(range(low, high))
        super().set_range(start, end, value)

    def set_words(self, start: int, words: Buffer) -> None:
        """Replace `8 * len(words)` bits from `start` on; see `BitPages.set_words`."""
        super().set_words(start, words)
        self.mark_dirty(range(start >> _PAGE_SHIFT, (start + 8 * len(words) + _LOW) >> _PAGE_SHIFT))

    def take_dirty_pages(self) -> dict[int, bytes]:
        """The pages changed since the last call, 512 bytes each; those emptied are all zero."""
        pages = {number: self.page(number) for number in sorted(self._dirty)}
        self._dirty.clear()
        return pages

    def mark_dirty(self, pages: Iterable[int]) -> None:
        """Give these pages out again: for taken pages that could not be written."""
        self._dirty.update(pages)


def _lowest(bits: int) -> int:
    """The position of the lowest set bit; `bits` is not 0, and may be the complement of bits."""
    return (bits & -bits).bit_length() - 1
