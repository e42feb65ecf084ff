"""Whether an LMDB file hangs together, looked at before LMDB gets it.

LMDB believes what it reads: a page that was lost or overwritten may end the process, or hide
records, or spoil what is written next. So at each open the tree of pages is walked here, by page
headers and counts: every page is the one it should be and lies in the file, and every table has as
many records as it says. What is in the records is for `covey.store.records` and for the hashes of
the log. Layout: mdb.c of LMDB 0.9 (`MDB_page`, `MDB_node`, `MDB_db`, `MDB_meta`), 64 bits.
"""

from __future__ import annotations

import mmap
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from covey.errors import StoreError

MAX_PAGES = 1 << 16
"""Leaves and large values looked at, the smaller tables first: 256 MiB in 0.2 s. All branches are.

What is beyond this in a large store is read unseen.
"""

_MAGIC, _FORMAT = 0xBEEFC0DE, 1
_HEADER_SIZE = 16
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_KINDS = 0x7F  # flags that say what a page is
_BIG_DATA, _SUB_TABLE = 1, 2
_NOTHING = (1 << 64) - 1
_MOST_LEVELS = 32
_MOST_UNWRITTEN = 1 << 17  # pages a transaction may take and give back without writing them
_INTEGER_KEYS = 8
_PERSISTENT = 0x7FFF
_OUTSIDE = "goes on outside of the file, which may have been cut"

_page = struct.Struct("=QHHHH")  # number, unused, flags, end of the pointers, start of the nodes
_overflow = struct.Struct("=QHHI")  # number, unused, flags, number of pages
_node = struct.Struct("=HHHH")  # two halves of a size, flags, size of the key
_table = struct.Struct("=IHHQQQQQ")
_meta = struct.Struct("=IIQQ")
_ends = struct.Struct("=QQ")
_number = struct.Struct("=Q")


class _Table(NamedTuple):
    """`MDB_db`: the counts and the root of a tree of pages."""

    unused: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class _Damage(Exception):
    """What does not fit, in a few words."""


def check_file(data: Path) -> None:
    """Raise `StoreError` when the LMDB file `data` is damaged.

    A file that is not of the layout known here is passed: LMDB itself knows more of them. Raises
    `OSError` when it cannot be read.
    """
    with data.open("rb") as file:
        size = file.seek(0, 2)
        if size == 0 or sys.maxsize < 1 << 32:
            return
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            try:
                _Walk(view, size).run()
            except (_Damage, struct.error) as error:
                raise StoreError(f"the store {data.parent} is damaged: {error}") from error


class _Walk:
    """One way through all tables."""

    __slots__ = ("_left", "_page_size", "_pages", "_view")

    def __init__(self, view: mmap.mmap, size: int) -> None:
        self._view = view
        self._left = MAX_PAGES
        self._page_size = 0
        self._pages = size  # in bytes until the page size is known

    def run(self) -> None:
        roots = self._roots()
        if roots is None:
            return
        free, main = roots
        self._check(free, "list of free pages")
        tables = [("main table", main), *self._tables(main)]
        for name, table in sorted(tables, key=lambda each: each[1].leaves):
            if table.flags & _PERSISTENT:
                raise _Damage(f"the {name} is of another make")
            self._check(table, name)

    def _roots(self) -> tuple[_Table, _Table] | None:
        """The two tables of the last transaction; None for a layout not known here."""
        first = self._read_meta(0)
        if first is None:
            return None
        page_size = first[2].unused
        if page_size not in (1 << power for power in range(9, 16)):
            raise _Damage("its first page names no size of pages")
        self._page_size = page_size
        self._pages //= page_size
        second = self._read_meta(page_size)
        if second is None or second[2].unused != page_size:
            raise _Damage("its second page does not fit the first")
        if abs(first[0] - second[0]) > 1:  # they take turns
            raise _Damage("its first pages are not of transactions one after the other")
        _, last_page, free, main = max(first, second, key=lambda meta: meta[0])
        if last_page >= self._pages + _MOST_UNWRITTEN:
            raise _Damage("it has far more pages than its file, which may have been cut")
        self._pages = min(self._pages, last_page + 1)  # after those there is what never counted
        if free.flags & _PERSISTENT != _INTEGER_KEYS:
            raise _Damage("its list of free pages is of another make")
        return free, main

    def _read_meta(self, offset: int) -> tuple[int, int, _Table, _Table] | None:
        """Number of the transaction, last page, and both tables."""
        start = offset + _HEADER_SIZE
        magic, version, _, _ = _meta.unpack_from(self._view, start)
        if (magic, version) != (_MAGIC, _FORMAT):
            return None
        start += _meta.size
        free = _Table(*_table.unpack_from(self._view, start))
        main = _Table(*_table.unpack_from(self._view, start + _table.size))
        last_page, transaction = _ends.unpack_from(self._view, start + 2 * _table.size)
        return transaction, last_page, free, main

    def _tables(self, main: _Table) -> Iterator[tuple[str, _Table]]:
        self._check(main, "main table")
        for number in self._leaves(main, "main table"):
            for offset, flags, key_size, _ in self._nodes(number):
                if flags & _SUB_TABLE:
                    start = offset + _node.size
                    name = self._view[start : start + key_size].decode("ascii", "replace")
                    table = _Table(*_table.unpack_from(self._view, start + key_size))
                    yield f"table of {name!r}", table

    def _check(self, table: _Table, name: str) -> None:
        leaves = self._leaves(table, name)
        if len(leaves) > self._left:
            return
        self._left -= len(leaves)
        entries = sum(self._check_page(number, _LEAF, name) for number in leaves)
        if entries != table.entries:
            raise _Damage(f"the {name} has {entries} records, not {table.entries}")
        if table.overflows and table.entries <= self._left:
            for number in leaves:
                self._check_large(number, name)

    def _leaves(self, table: _Table, name: str) -> list[int]:
        """The numbers of a table's leaves, by way of all its branches."""
        if table.root == _NOTHING:
            if table.entries or table.leaves or table.depth:
                raise _Damage(f"the {name} has lost its root")
            return []
        if not 1 <= table.depth <= _MOST_LEVELS:
            raise _Damage(f"the {name} has {table.depth} levels")
        level, branches = [table.root], 0
        for _ in range(table.depth - 1):
            branches += len(level)
            if branches > table.branches:
                break
            level = [child for number in level for child in self._children(number, name)]
        if (branches, len(level)) != (table.branches, table.leaves):
            raise _Damage(f"the {name} does not have the pages it counts")
        if not 2 <= min(level) <= max(level) < self._pages:
            raise _Damage(f"the {name} {_OUTSIDE}")
        return level

    def _children(self, number: int, name: str) -> list[int]:
        self._check_page(number, _BRANCH, name)
        return [low | high << 16 | flags << 32 for _, flags, _, (low, high) in self._nodes(number)]

    def _check_page(self, number: int, flags: int, name: str) -> int:
        """The number of nodes on a page, which is to be of this kind."""
        if not 2 <= number < self._pages:
            raise _Damage(f"the {name} {_OUTSIDE}")
        page_size = self._page_size
        start = number * page_size
        lower: int
        found, _, kind, lower, upper = _page.unpack_from(self._view, start)
        if found != number or kind & _KINDS != flags:
            raise _Damage(f"page {number}, of the {name}, is lost or overwritten")
        count = (lower - _HEADER_SIZE) >> 1
        if not _HEADER_SIZE < lower <= upper <= page_size or lower & 1:
            raise _Damage(f"page {number}, of the {name}, does not hang together")
        pointers = struct.unpack_from(f"={count}H", self._view, start + _HEADER_SIZE)
        if min(pointers) < upper or max(pointers) > page_size - _node.size:
            raise _Damage(f"page {number}, of the {name}, does not hang together")
        return count

    def _nodes(self, number: int) -> Iterator[tuple[int, int, int, tuple[int, int]]]:
        """Offset, flags, size of the key, and both size halves of each node of a checked page."""
        start = number * self._page_size
        lower = _page.unpack_from(self._view, start)[3]
        count = (lower - _HEADER_SIZE) >> 1
        halves = slice(None) if sys.byteorder == "little" else slice(None, None, -1)
        for pointer in struct.unpack_from(f"={count}H", self._view, start + _HEADER_SIZE):
            offset = start + pointer
            first, second, flags, key_size = _node.unpack_from(self._view, offset)
            low, high = (first, second)[halves]
            if pointer + _node.size + key_size > self._page_size:
                raise _Damage(f"a record on page {number} does not hang together")
            yield offset, flags, key_size, (low, high)

    def _check_large(self, number: int, name: str) -> None:
        """The pages of values that are too large for a leaf."""
        for offset, flags, key_size, (low, high) in self._nodes(number):
            if not flags & _BIG_DATA:
                continue
            self._left -= 1
            (first,) = _number.unpack_from(self._view, offset + _node.size + key_size)
            need = -(-(_HEADER_SIZE + (low | high << 16)) // self._page_size)
            if not 2 <= first <= self._pages - need:
                raise _Damage(f"the {name} {_OUTSIDE}")
            head = _overflow.unpack_from(self._view, first * self._page_size)
            # A value that was replaced by a smaller one leaves pages over.
            fits = need <= head[3] <= self._pages - first
            if (head[0], head[2] & _KINDS) != (first, _OVERFLOW) or not fits:
                raise _Damage(f"page {first}, of the {name}, is lost or overwritten")
