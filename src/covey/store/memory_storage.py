"""A storage that forgets: for stores without a folder, and for tests."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from threading import Lock
from types import TracebackType
from typing import Self

from covey.errors import ClosedError, UsageError
from covey.store.storage import Item, KeyRange, Kind, Put, check_bounds, check_key, spans
from covey.wire.session import Buffer

_CHUNK = 256  # items looked up at once by a range


class _Table:
    """The records of one kind. Once `shared` with a snapshot it is copied before a change."""

    __slots__ = ("_added", "_ordered", "shared", "values")

    def __init__(self, values: dict[bytes, bytes], ordered: list[bytes]) -> None:
        self.values = values
        self.shared = False
        self._ordered = ordered
        self._added: list[bytes] = []

    def copy(self) -> _Table:
        return _Table(self.values.copy(), self.ordered().copy())

    def ordered(self) -> list[bytes]:
        """All keys in order; those added since the last call are sorted in only now."""
        if self._added:
            self._ordered += self._added
            self._ordered.sort()  # two sorted runs, mostly: quick
            self._added = []
        return self._ordered

    def put(self, key: bytes, value: bytes) -> None:
        if key not in self.values:
            self._added.append(key)
        self.values[key] = value

    def delete(self, key: bytes) -> None:
        if self.values.pop(key, None) is not None:
            keys = self.ordered()
            del keys[bisect_left(keys, key)]

    def delete_span(self, low: bytes, high: bytes | None) -> None:
        first, last = self.span(low, high)
        keys = self.ordered()
        for key in keys[first:last]:
            del self.values[key]
        del keys[first:last]

    def span(self, low: bytes, high: bytes | None) -> tuple[int, int]:
        keys = self.ordered()
        return bisect_left(keys, low), len(keys) if high is None else bisect_left(keys, high)


class _Tables:
    """Reading of tables that others may write to; the base of storage and snapshot."""

    __slots__ = ("_lock", "_tables")

    def __init__(self, tables: list[_Table], lock: Lock) -> None:
        self._tables: list[_Table] | None = tables
        self._lock = lock

    def get(self, key: bytes) -> bytes | None:
        """See `storage.Reader`."""
        check_key(key)
        with self._lock:
            return self._open_tables()[key[0]].values.get(key[1:])

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """See `storage.Reader`."""
        wanted = list(keys)
        for key in wanted:
            check_key(key)
        with self._lock:
            tables = self._open_tables()
            return [tables[key[0]].values.get(key[1:]) for key in wanted]

    def range(
        self, start: bytes, end: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Item]:
        """See `storage.Reader`."""
        check_bounds(start, end, limit)
        with self._lock:
            self._open_tables()  # closed already: told at the call, not at its first item
        return self._walk(start, end, reverse, limit)

    def _walk(self, start: bytes, end: bytes, reverse: bool, limit: int | None) -> Iterator[Item]:
        while limit is None or limit > 0:
            items = self._some(start, end, reverse, _CHUNK if limit is None else min(limit, _CHUNK))
            yield from items
            if not items:
                return
            if limit is not None:
                limit -= len(items)
            if reverse:
                end = items[-1][0]
            else:
                start = items[-1][0] + b"\0"

    def _some(self, start: bytes, end: bytes, reverse: bool, most: int) -> list[Item]:
        """The first items of the range in its direction, `most` at most; none: it is over."""
        pieces = spans(start, end)
        with self._lock:
            tables = self._open_tables()
            for kind, low, high in reversed(pieces) if reverse else pieces:
                first, last = tables[kind].span(low, high)
                if first == last:
                    continue
                if reverse:
                    keys = tables[kind].ordered()[max(first, last - most) : last][::-1]
                else:
                    keys = tables[kind].ordered()[first : min(last, first + most)]
                prefix, values = bytes((kind,)), tables[kind].values
                return [(prefix + key, values[key]) for key in keys]
        return []

    def _open_tables(self) -> list[_Table]:
        if self._tables is None:
            raise ClosedError("this store, or this snapshot of it, is closed")
        return self._tables

    def close(self) -> None:
        """End all use; twice is fine."""
        with self._lock:
            self._tables = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class MemorySnapshot(_Tables):
    """One state of a `MemoryStorage`; see `storage.Snapshot`."""

    __slots__ = ("_store",)

    def __init__(self, store: MemoryStorage, tables: list[_Table], lock: Lock) -> None:
        super().__init__(tables, lock)
        self._store = store

    def _open_tables(self) -> list[_Table]:
        if self._store._tables is None:
            self._tables = None
        return super()._open_tables()


class MemoryStorage(_Tables):
    """A storage in this process' memory; see `storage.Storage`.

    A snapshot is free; the first write to a kind of record after it copies that kind's table.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__([_Table({}, []) for _ in Kind], Lock())

    def write_batch(
        self,
        puts: Iterable[Put],
        deletes: Iterable[bytes] = (),
        range_deletes: Iterable[KeyRange] = (),
    ) -> None:
        """See `storage.Storage`; everything is looked at before anything is done."""
        new = [(key, _checked(key, value)) for key, value in puts]
        gone = list(deletes)
        for key in gone:
            check_key(key)
        ranges = list(range_deletes)
        for start, end in ranges:
            check_bounds(start, end)
        with self._lock:
            self._open_tables()
            for start, end in ranges:
                for kind, low, high in spans(start, end):
                    self._own(kind).delete_span(low, high)
            for key in gone:
                self._own(key[0]).delete(key[1:])
            for key, value in new:
                self._own(key[0]).put(key[1:], value)

    def snapshot(self) -> MemorySnapshot:
        """The present state."""
        with self._lock:
            tables = self._open_tables()
            for table in tables:
                table.shared = True
            return MemorySnapshot(self, tables.copy(), self._lock)

    def _own(self, kind: int) -> _Table:
        """The table of `kind`, no longer shared with any snapshot."""
        tables = self._open_tables()
        if tables[kind].shared:
            tables[kind] = tables[kind].copy()
        return tables[kind]


def _checked(key: bytes, value: Buffer) -> bytes:
    check_key(key)
    if not isinstance(value, bytes | bytearray | memoryview):
        raise UsageError(f"a value is bytes, not {type(value).__name__}")
    return bytes(value)
