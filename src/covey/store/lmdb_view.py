"""Reading of an LMDB store, and of one state of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Final, Self

import lmdb

from covey.errors import ClosedError, CoveyError, StoreError
from covey.store.lmdb_environment import Cursor, Environment, Table, Transaction, told
from covey.store.storage import Item, check_bounds, check_key, spans

_CHUNK = 256  # items and
_CHUNK_BYTES = 1 << 20  # bytes that a range looks up at once

CLOSED: Final = "this store, or this snapshot of it, is closed"
FORKED: Final = "a forked process cannot use a store of its parent; open it in one of them only"
OUTGROWN: Final = "this snapshot has ended: the store had to grow its map; take a new one"

FAILURES: Final = (lmdb.Error, OSError, IndexError, TypeError, ValueError, BufferError)
"""What may come up inside of a call; `told` says what it means. An IndexError: a key of no kind."""


class LmdbView(ABC):
    """Reading through one read transaction; the base of storage and snapshot.

    `_lock` is held while the transaction is in use: no other thread may end it meanwhile, and
    while the map is exchanged there must be none.
    """

    __slots__ = ("__weakref__", "_end", "_folder", "_lock", "_tables", "_transaction")

    def __init__(self, folder: Path, tables: tuple[Table, ...], lock: Lock) -> None:
        self._folder = folder
        self._tables = tables
        self._lock = lock
        self._transaction: Transaction | None = None
        self._end: CoveyError | None = None

    def get(self, key: bytes) -> bytes | None:
        """See `storage.Reader`."""
        try:
            with self._lock:
                transaction = self._transaction
                if transaction is None:
                    transaction = self._begin()
                value: bytes | None = transaction.get(key[1:], None, self._tables[key[0]])
        except FAILURES as error:
            raise told(error, self._folder) from error
        if value is None:
            check_key(key)  # LMDB does not mind one that is too long
        return value

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """See `storage.Reader`."""
        wanted = list(keys)
        tables = self._tables
        try:
            with self._lock:
                get = (self._transaction or self._begin()).get
                values = [get(key[1:], None, tables[key[0]]) for key in wanted]
        except FAILURES as error:
            raise told(error, self._folder) from error
        if None in values:
            for key in wanted:
                check_key(key)
        return values

    def range(
        self, start: bytes, end: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Item]:
        """See `storage.Reader`."""
        check_bounds(start, end, limit)
        if self._end is not None:
            raise self._end  # told at the call, not at its first item
        return self._walk(start, end, reverse, limit)

    def _walk(self, start: bytes, end: bytes, reverse: bool, limit: int | None) -> Iterator[Item]:
        """The range, part by part: no transaction and no lock is held between its items."""
        while limit is None or limit > 0:
            most = _CHUNK if limit is None else min(limit, _CHUNK)
            try:
                with self._lock:
                    items = self._some(start, end, reverse, most)
            except FAILURES as error:
                raise told(error, self._folder) from error
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
        transaction = self._transaction or self._begin()
        pieces = spans(start, end)
        for kind, low, high in reversed(pieces) if reverse else pieces:
            with transaction.cursor(self._tables[kind]) as cursor:
                found = _backward(cursor, low, high) if reverse else _forward(cursor, low, high)
                if items := _take(found, bytes((kind,)), most):
                    return items
        return []

    def _begin(self) -> Transaction:
        """A transaction to read with, when there is none; the lock is held."""
        raise self._end or ClosedError(CLOSED)

    def _finish(self) -> None:
        """End the transaction; the lock is held."""
        transaction, self._transaction = self._transaction, None
        if transaction is not None:
            transaction.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """End all use; twice is fine."""


class LmdbSnapshot(LmdbView):
    """One state of an `LmdbStorage`; see `storage.Snapshot`."""

    __slots__ = ()

    def __init__(
        self, folder: Path, tables: tuple[Table, ...], lock: Lock, transaction: Transaction
    ) -> None:
        super().__init__(folder, tables, lock)
        self._transaction = transaction

    def close(self) -> None:
        """Let go of the state; twice is fine."""
        with self._lock:
            self.end(ClosedError(CLOSED))

    def end(self, error: CoveyError) -> None:
        """Raise `error` from now on; the lock is held."""
        self._end = self._end or error
        self._finish()

    def carry_over(self, environment: Environment | None) -> None:
        """Go on with a new transaction of the same state; None: let go first. The lock is held."""
        if environment is None:
            self._finish()
        else:
            self._transaction = environment.begin()

    def state(self) -> int | None:
        """The number of the state that is read; None after the end."""
        return None if self._transaction is None else int(self._transaction.id())

    def abandon(self, lock: Lock) -> Transaction | None:
        """In a forked child: never touch the transaction again, the parent's is the same."""
        transaction, self._transaction = self._transaction, None
        self._lock = lock
        self._end = self._end or StoreError(FORKED)
        return transaction


def _forward(cursor: Cursor, low: bytes, high: bytes | None) -> Iterator[Item]:
    found = cursor.set_range(low) if low else cursor.first()
    if found:
        for key, value in cursor.iternext():
            if high is not None and key >= high:
                return
            yield key, value


def _backward(cursor: Cursor, low: bytes, high: bytes | None) -> Iterator[Item]:
    found = cursor.last() if high is None or not cursor.set_range(high) else cursor.prev()
    if found:
        for key, value in cursor.iterprev():
            if key < low:
                return
            yield key, value


def _take(found: Iterator[Item], prefix: bytes, most: int) -> list[Item]:
    """Items up to one of both bounds of a part."""
    items: list[Item] = []
    size = 0
    for key, value in found:
        items.append((prefix + key, value))
        size += len(value)
        if len(items) >= most or size >= _CHUNK_BYTES:
            break
    return items
