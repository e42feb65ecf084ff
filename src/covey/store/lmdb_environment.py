"""The LMDB file of a store: made, looked over, opened, grown, and what its errors mean.

An LMDB file is read through a map of it in memory, of a size that is fixed while transactions are
open. On 64-bit systems the map is so large that no store fills it; it takes address space only.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final, TypeAlias

import lmdb

from covey.errors import CoveyError, StoreError, UsageError
from covey.store.lmdb_check import check_file
from covey.store.storage import Kind

Environment: TypeAlias = lmdb.Environment
Transaction: TypeAlias = Any
Cursor: TypeAlias = Any
Table: TypeAlias = Any

DATA_NAME: Final = "data.mdb"
LOCK_NAME: Final = "lock.mdb"
FORMAT_NAME: Final = "FORMAT"
"""Written once a store has been made: without it a lost data file would look like a new store."""

_FORMAT_KEY = b"covey store"
_FORMAT = b"1"
_MAX_SNAPSHOTS = 4096  # each takes 64 bytes of the lock file
_LOCK_SIZE = 64 * _MAX_SNAPSHOTS + 128
_SPARE = 8  # read transactions kept for use again: opening one anew looks for a free place
_LEAST_MAP = 1 << 20
_HUGE_MAP = 1 << 40 if sys.maxsize > 1 << 32 else 1 << 28
# Windows gives the file the size of the map.
DEFAULT_MAP: Final = 1 << 26 if sys.platform == "win32" else _HUGE_MAP
"""Bytes of a store's map when nobody says otherwise."""

_NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}
_SHORT_WRITE = errno.EIO  # what LMDB makes of a write that the disk took a part of
_LITTLE = 1 << 20
_NO_MEMORY = {errno.ENOMEM}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def open_environment(folder: Path, *, map_size: int | None, sync: bool) -> Environment:
    """The LMDB file in `folder`, a new one when there is none. Its lock must be held.

    Raises `StoreError` when it is damaged, not LMDB's, or cannot be read and written.
    """
    _check(folder)
    _reserve(folder)
    size = max(_LEAST_MAP, DEFAULT_MAP if map_size is None else map_size)
    while True:
        try:
            environment = lmdb.open(
                str(folder),
                map_size=size,
                max_dbs=len(Kind),
                mode=0o600,
                sync=sync,
                metasync=False,  # one flush a batch: a power cut may cost the last one, no more
                max_readers=_MAX_SNAPSHOTS,
                max_spare_txns=_SPARE,
            )
        except (lmdb.Error, OSError) as error:
            # Address space may be bounded (ulimit -v): then a smaller map has to do.
            smaller = size >> 2
            if map_size is None and _code(error) in _NO_MEMORY and smaller >= _LEAST_MAP:
                size = smaller
                continue
            raise told(error, folder) from error
        return environment


def open_tables(environment: Environment, folder: Path) -> tuple[Table, ...]:
    """One table for each `Kind`, made where they are missing.

    Raises `StoreError` when the file is another program's or a later covey's.
    """
    try:
        with environment.begin(write=True) as transaction:
            version = transaction.get(_FORMAT_KEY)
            if version is None:
                if transaction.stat()["entries"]:
                    raise StoreError(f"{folder / DATA_NAME} belongs to another program")
                transaction.put(_FORMAT_KEY, _FORMAT)
            elif version != _FORMAT:
                raise StoreError(f"{folder} has a format of a later covey: {version!r}")
            tables = tuple(
                environment.open_db(kind.name.lower().encode(), txn=transaction) for kind in Kind
            )
        _mark(folder)
    except (lmdb.Error, OSError) as error:
        raise told(error, folder) from error
    return tables


def _check(folder: Path) -> None:
    data = folder / DATA_NAME
    try:
        made = (folder / FORMAT_NAME).exists()
        size = data.stat().st_size if data.exists() else None
    except OSError as error:
        raise told(error, folder) from error
    if made and not size:
        state = "is missing" if size is None else "is empty"
        raise StoreError(
            f"the store {folder} is damaged: {data} {state}; "
            f"without {FORMAT_NAME} too, a new store would be made there"
        )
    if size:
        try:
            check_file(data)
        except OSError as error:
            raise told(error, folder) from error


def _reserve(folder: Path) -> None:
    """Take the space of LMDB's lock file: its map is written to, and a full disk then kills."""
    if not hasattr(os, "posix_fallocate"):
        return
    try:
        # Before LMDB opens it: closing it afterwards would let go of LMDB's own lock.
        descriptor = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, _LOCK_SIZE)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise told(error, folder) from error


def _mark(folder: Path) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with contextlib.suppress(FileExistsError):
        descriptor = os.open(folder / FORMAT_NAME, flags, 0o600)
        try:
            os.write(descriptor, b"covey store " + _FORMAT + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _code(error: Exception) -> int | None:
    """The system's number of an error, under whichever name it is kept."""
    code = error.errno if isinstance(error, OSError) else getattr(error, "code", None)
    return code if isinstance(code, int) else None


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _LITTLE
    except OSError:
        return False


_MEANINGS: Final[tuple[tuple[type[Exception], str], ...]] = (
    (lmdb.InvalidError, "is damaged, or was never one: its file is not of LMDB"),
    (lmdb.VersionMismatchError, "was written by a version of LMDB that this one cannot read"),
    (lmdb.CorruptedError, "is damaged"),
    (lmdb.PageNotFoundError, "is damaged: a page is missing"),
    (lmdb.IncompatibleError, "is damaged: a table is of another make"),
    (lmdb.PanicError, "failed while it was written; it has to be opened again"),
    (lmdb.ReadersFullError, f"has {_MAX_SNAPSHOTS} open snapshots and can have no more"),
    (lmdb.TxnFullError, "cannot take so large a batch"),
    (lmdb.MemoryError, "finds no room in memory for its map"),
    (lmdb.DiskError, "has no space left on its disk"),
)


def told(error: Exception, folder: Path) -> CoveyError:
    """What an error of LMDB or the system means for a store; one of ours is given back as it is."""
    if isinstance(error, CoveyError):
        return error
    if isinstance(error, IndexError | TypeError | ValueError | BufferError | lmdb.BadValsizeError):
        return UsageError(f"not a key, or not a value: {error}")
    for kind, meaning in _MEANINGS:
        if isinstance(error, kind):
            return StoreError(f"the store {folder} {meaning}")
    code = _code(error)
    if code in _NO_SPACE or (code == _SHORT_WRITE and _is_full(folder)):
        return StoreError(f"the store {folder} has no space left on its disk ({error})")
    if code in _DENIED:
        return StoreError(f"the store {folder} may not be read and written ({error})")
    if code in _NO_MEMORY:
        return StoreError(f"the store {folder} finds no room in memory for its map ({error})")
    return StoreError(f"the store {folder} failed: {error}")
