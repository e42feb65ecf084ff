"""One process per folder: a lock that the system lets go of when its holder dies."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from covey.errors import StoreError

LOCK_NAME = "covey.lock"
"""The file in the folder; it stays there, as taking it away would race with who opens it next."""

_BUSY = {errno.EACCES, errno.EAGAIN, errno.EWOULDBLOCK, errno.EDEADLK}
_PAST_THE_TEXT = 1 << 30  # Windows forbids reading what is locked: the number must stay readable

if sys.platform == "win32":  # pragma: no cover
    import msvcrt

    def _try_lock(descriptor: int) -> None:
        os.lseek(descriptor, _PAST_THE_TEXT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)

    def _unlock(descriptor: int) -> None:
        os.lseek(descriptor, _PAST_THE_TEXT, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(descriptor: int) -> None:
        # Not `lockf`: that one does not hold against this same process.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)


class DirectoryLock:
    """`folder` for this process alone, from now until `release` or the end of the process.

    A folder that is missing is made, for its owner only. The lock's file tells the number of the
    process that holds it. Raises `StoreError` when another holds it, this process too, and when
    the folder cannot be made or its file not be locked.
    """

    __slots__ = ("_descriptor", "folder")

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._descriptor: int | None = None
        _make_folder(folder)
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        try:
            descriptor = os.open(folder / LOCK_NAME, flags, 0o600)
        except OSError as error:
            raise StoreError(f"cannot open {folder / LOCK_NAME}: {error.strerror}") from error
        try:
            _try_lock(descriptor)
            os.ftruncate(descriptor, 0)
            with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
                os.write(descriptor, b"%d\n" % os.getpid())
        except OSError as error:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise _refusal(folder, error, holder) from error
        self._descriptor = descriptor

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._descriptor is not None

    def release(self) -> None:
        """Let others have the folder; twice is fine."""
        if self._descriptor is not None:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, 0)
            with contextlib.suppress(OSError):
                _unlock(self._descriptor)  # a process being started may have a copy for a moment
            self.forget()

    def forget(self) -> None:
        """In a forked child: close the copy of the file, so that the lock is the parent's alone."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError as error:
        raise StoreError(f"a store is a folder, and {folder} is none") from error
    except OSError as error:
        raise StoreError(f"cannot make the folder {folder}: {error.strerror}") from error


def _holder(descriptor: int) -> int | None:
    """The process that says it holds the lock; None when it has not said so yet."""
    try:
        os.lseek(descriptor, 0, os.SEEK_SET)
        text = os.read(descriptor, 32)
        return int(text) if text.strip().isdigit() else None
    except (OSError, ValueError):
        return None


def _refusal(folder: Path, error: OSError, holder: int | None) -> StoreError:
    if error.errno not in _BUSY:
        return StoreError(f"cannot lock {folder / LOCK_NAME}: {error.strerror}")
    if holder is None:
        return StoreError(f"the store {folder} is open in another process")
    if holder == os.getpid():
        return StoreError(f"the store {folder} is open already, in this very process")
    return StoreError(f"the store {folder} is open in another process, number {holder}")
