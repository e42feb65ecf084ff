"""Standard input and output for an event loop, on a daemon thread each.

A regular file cannot be polled, and a read of a terminal cannot be called off: a thread of its own
does both, and being a daemon it never keeps the process alive.
"""

from __future__ import annotations

import asyncio
import os
import queue
import stat
import threading
from pathlib import Path
from typing import Final, Protocol

READ_AHEAD: Final = 4
"""Chunks read before they are asked for."""
PIPE_SIZE: Final = 1 << 20
"""Bytes that a pipe of the system shall hold: with its usual 64 KiB there is a switch for each."""


class Source(Protocol):
    """Where the bytes come from."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises `OSError`."""


class Sink(Protocol):
    """Where the bytes go."""

    async def write(self, data: bytes) -> None:
        """Return when `data` was taken. Raises `OSError`."""


class Nothing:
    """A source that has nothing."""

    async def read(self) -> bytes:
        """Be at the end."""
        return b""


def size_of(descriptor: int) -> int | None:
    """Bytes left in a regular file, 0 for the null device, None for anything without a size."""
    status = os.fstat(descriptor)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == Path(os.devnull).stat().st_rdev:
        return 0
    if not stat.S_ISREG(status.st_mode):
        return None
    return max(0, status.st_size - os.lseek(descriptor, 0, os.SEEK_CUR))


def widen(descriptor: int) -> None:
    """Let a pipe of the system hold more, where that can be had; nothing else is changed."""
    try:
        import fcntl

        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
    except (ImportError, AttributeError, OSError):
        return


class DescriptorReader:
    """Reads a file descriptor in chunks of at most `chunk` bytes; must be made inside the loop."""

    def __init__(self, descriptor: int, *, chunk: int) -> None:
        self._descriptor = descriptor
        self._chunk = chunk
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        self._slots = threading.Semaphore(READ_AHEAD)
        self._thread = threading.Thread(target=self._run, name="covey.stdin", daemon=True)
        self._thread.start()

    async def read(self) -> bytes:
        """The next bytes, empty at the end of input; raises `OSError`."""
        item = await self._ready.get()
        self._slots.release()
        if isinstance(item, OSError):
            raise item
        return item

    def _run(self) -> None:
        more = True
        while more:
            self._slots.acquire()
            item: bytes | OSError
            try:
                item = os.read(self._descriptor, self._chunk)
            except OSError as error:
                item = error
            more = isinstance(item, bytes) and bool(item)
            try:
                self._loop.call_soon_threadsafe(self._ready.put_nowait, item)
            except RuntimeError:  # the loop is closed: nobody reads any more
                return


class DescriptorWriter:
    """Writes to a file descriptor; `write` returns when the bytes were taken."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[tuple[bytes, asyncio.Future[None]]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="covey.stdout", daemon=True)
        self._thread.start()

    async def write(self, data: bytes) -> None:
        """Write all of `data`; raises `OSError` (`BrokenPipeError` when the reader is gone)."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._work.put((data, done))
        await done

    def _run(self) -> None:
        while True:
            data, done = self._work.get()
            failure: OSError | None = None
            try:
                view = memoryview(data)
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                failure = error
            try:
                self._loop.call_soon_threadsafe(_settle, done, failure)
            except RuntimeError:  # the loop is closed
                return


def _settle(done: asyncio.Future[None], failure: OSError | None) -> None:
    if done.done():
        return
    if failure is None:
        done.set_result(None)
    else:
        done.set_exception(failure)
