"""A storage on disk: one folder, one LMDB file in it, one table for each kind of record."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Final

import lmdb

from covey.errors import ClosedError, CoveyError, StoreError, UsageError
from covey.store.directory_lock import DirectoryLock
from covey.store.lmdb_environment import (
    Cursor,
    Environment,
    Table,
    Transaction,
    open_environment,
    open_tables,
    told,
)
from covey.store.lmdb_view import CLOSED, FAILURES, FORKED, OUTGROWN, LmdbSnapshot, LmdbView
from covey.store.storage import KeyRange, Kind, Put, check_bounds, check_key, spans

_GROWTH = 2  # a full map grows so many times, and
_PER_BYTE = 4  # at least by so many bytes for each byte of the batch: pages are half empty


class LmdbStorage(LmdbView):
    """A storage in the folder `path`, for this process alone; see `storage.Storage`.

    A folder that is missing is made, for its owner only, as are the files in it. `map_size`: bytes
    of the map to begin with; a full one grows. `sync=False` leaves writing to the system: a killed
    process loses nothing, but a power cut may then damage all of it.

    With `sync` a batch is on disk when `write_batch` returns, but for the last one before a power
    cut, which may be missing as a whole; `close` makes that one sure as well.

    Raises `StoreError` when the folder is in use, holds something else, or is damaged.
    """

    __slots__ = ("_environment", "_guard", "_map_size", "_snapshots", "_sync", "_writing")

    def __init__(
        self, path: str | os.PathLike[str], *, map_size: int | None = None, sync: bool = True
    ) -> None:
        folder = Path(path)
        super().__init__(folder, (), Lock())
        self._writing = Lock()  # always taken before `_lock`
        self._snapshots: weakref.WeakSet[LmdbSnapshot] = weakref.WeakSet()
        self._sync = sync
        self._environment: Environment | None = None
        self._map_size = 0
        self._guard = DirectoryLock(folder)
        with ExitStack() as undo:
            undo.callback(self._guard.release)
            self._open(map_size)
            undo.pop_all()
        _opened.add(self)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._folder

    @property
    def map_size(self) -> int:
        """Bytes of the map; what is stored fits in it."""
        return self._map_size

    def write_batch(
        self,
        puts: Iterable[Put],
        deletes: Iterable[bytes] = (),
        range_deletes: Iterable[KeyRange] = (),
    ) -> None:
        """See `storage.Storage`."""
        batch = _Batch(puts, deletes, range_deletes)
        try:
            with self._writing:
                self._write(batch)
        except FAILURES as error:
            raise told(error, self._folder) from error

    def snapshot(self) -> LmdbSnapshot:
        """The present state, in no time and at no cost until the store is written to."""
        try:
            with self._lock:
                transaction = self._live_environment().begin()
                snapshot = LmdbSnapshot(self._folder, self._tables, self._lock, transaction)
                self._snapshots.add(snapshot)
                return snapshot
        except FAILURES as error:
            raise told(error, self._folder) from error

    def close(self) -> None:
        """End all use, of snapshots too, and let others have the folder; twice is fine.

        Raises `StoreError` when the last batch could not be made sure; the store is closed then
        all the same.
        """
        with self._writing, self._lock:
            environment, self._environment = self._environment, None
            if self._end is None:
                self._end = ClosedError(CLOSED)
            if environment is None:
                return
            self._finish_all(self._end)
            try:
                if self._sync:
                    environment.sync(True)
            except FAILURES as error:
                raise told(error, self._folder) from error
            finally:
                environment.close()
                self._guard.release()
                _opened.discard(self)

    def _open(self, map_size: int | None) -> None:
        environment = open_environment(self._folder, map_size=map_size, sync=self._sync)
        with ExitStack() as undo:
            undo.callback(environment.close)
            self._tables = open_tables(environment, self._folder)
            undo.pop_all()
        self._environment = environment
        self._map_size = environment.info()["map_size"]

    def _live_environment(self) -> Environment:
        if self._environment is None:
            raise self._end or ClosedError(CLOSED)
        return self._environment

    def _begin(self) -> Transaction:
        self._transaction = self._live_environment().begin()
        return self._transaction

    def _write(self, batch: _Batch) -> None:
        reopened = False
        while True:
            with self._lock:
                environment = self._live_environment()
                self._finish()  # the state it holds on to could not be overwritten
            try:
                with environment.begin(write=True) as transaction:
                    batch.apply(transaction, self._tables)
                break
            except lmdb.MapFullError:
                self._grow(environment, batch.size)
            except lmdb.PanicError:
                # An earlier batch failed at its very end: LMDB wants to be opened again.
                if reopened:
                    raise
                reopened = True
                self._reopen(environment)
        with self._lock:
            self._finish()  # what other threads read meanwhile is the past now

    def _grow(self, environment: Environment, batch_size: int) -> None:
        """Make the map larger. Snapshots of the present state survive, earlier ones cannot."""
        size = max(_GROWTH * self._map_size, self._map_size + _PER_BYTE * batch_size)
        with self._lock:
            present = environment.info()["last_txnid"]
            kept = [snapshot for snapshot in self._snapshots if snapshot.state() == present]
            for snapshot in kept:
                snapshot.carry_over(None)
            self._finish_all(StoreError(OUTGROWN), kept)
            try:
                environment.set_mapsize(size)
                self._map_size = environment.info()["map_size"]
                for snapshot in kept:
                    snapshot.carry_over(environment)
            except FAILURES:
                self._open_again(environment)  # as large as it was
                raise

    def _reopen(self, environment: Environment) -> None:
        with self._lock:
            self._open_again(environment)

    def _open_again(self, environment: Environment) -> None:
        """Exchange an environment that failed; the storage ends where that fails too."""
        self._finish_all(StoreError(OUTGROWN))
        self._environment = None
        environment.close()
        try:
            self._open(self._map_size)
        except CoveyError as error:
            self._end = error
            self._guard.release()
            raise

    def _finish_all(self, error: CoveyError, but: Sequence[LmdbSnapshot] = ()) -> None:
        self._finish()
        for snapshot in list(self._snapshots):
            if snapshot not in but:
                snapshot.end(error)
                self._snapshots.discard(snapshot)

    def _abandon(self) -> list[object]:
        """In a forked child: touch nothing of the parent's again.

        Returns what must not even be collected: that could let go of the parent's transactions.
        """
        left: list[object] = [self._environment, self._transaction]
        self._environment = self._transaction = None
        self._lock, self._writing = Lock(), Lock()  # another thread may have held them
        self._end = self._end or StoreError(FORKED)
        left += [snapshot.abandon(self._lock) for snapshot in list(self._snapshots)]
        self._guard.forget()
        return left


class _Batch:
    """What one transaction has to do, sorted by table; it can be done again after a failure."""

    __slots__ = ("_deletes", "_puts", "_ranges", "size")

    def __init__(
        self, puts: Iterable[Put], deletes: Iterable[bytes], range_deletes: Iterable[KeyRange]
    ) -> None:
        self._puts: list[list[Put]] = [[] for _ in Kind]
        self.size = 0
        for key, value in puts:
            try:
                self._puts[key[0]].append((key[1:], value))
                self.size += len(value)
            except (IndexError, TypeError) as error:
                check_key(key)
                raise UsageError(f"a value is bytes, not {type(value).__name__}") from error
        self._deletes = list(deletes)
        for key in self._deletes:
            check_key(key)
        self._ranges = list(range_deletes)
        for start, end in self._ranges:
            check_bounds(start, end)

    def apply(self, transaction: Transaction, tables: Sequence[Table]) -> None:
        for start, end in self._ranges:
            for kind, low, high in spans(start, end):
                with transaction.cursor(tables[kind]) as cursor:
                    _delete(cursor, low, high)
        for key in self._deletes:
            transaction.delete(key[1:], b"", tables[key[0]])
        for kind, items in enumerate(self._puts):
            if items:
                with transaction.cursor(tables[kind]) as cursor:
                    cursor.putmulti(items)


def _delete(cursor: Cursor, low: bytes, high: bytes | None) -> None:
    found = cursor.set_range(low) if low else cursor.first()
    while found and (high is None or cursor.key() < high):
        cursor.delete()
        found = bool(cursor.key())  # it stands on the next one; past the last one it has no key


_opened: Final[weakref.WeakSet[LmdbStorage]] = weakref.WeakSet()
_abandoned: Final[list[object]] = []


def _after_fork() -> None:
    for storage in list(_opened):
        _abandoned.extend(storage._abandon())
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
