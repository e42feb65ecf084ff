"""The one thread in which a store writes what is large, so that the event loop goes on meanwhile.

For small batches the loop writes itself: a thread gets its turn to run Python only now and then,
and takes longer for many small records than the loop would.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

Done = Callable[[BaseException | None], None]


class Writer:
    """Does one thing at a time in a thread, which exists from its first use to `close`."""

    __slots__ = ("_done", "_ending", "_future", "_pool", "_turn", "_waiting")

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._future: Future[None] | None = None
        self._done: Done | None = None
        self._ending = False
        self._turn = False
        self._waiting: dict[Callable[[], object], None] = {}

    @property
    def writing(self) -> bool:
        """Whether something is being written."""
        return self._future is not None

    @property
    def busy(self) -> bool:
        """Whether something is being written, or others come first: wait with `when_free`."""
        if self._future is not None or self._ending:
            return True
        return bool(self._waiting) and not self._turn

    def write(self, work: Callable[[], None], done: Done) -> None:
        """Do `work` in the thread, then call `done` here with what it raised; never both at once.

        Not while something is being written.
        """
        loop = asyncio.get_running_loop()
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, "covey store")
        try:
            future = self._pool.submit(work)
        except RuntimeError:  # the system gives no thread; the pool would keep the work for later
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
            future = _run(work)
        self._future, self._done = future, done
        future.add_done_callback(lambda ended: self._ended(ended, loop))

    def settle(self) -> None:
        """Wait for what is being written, and have its `done` called."""
        if self._future is not None:
            concurrent.futures.wait([self._future])
            self._finish(self._future)

    def look(self) -> None:
        """If what was being written has been, have its `done` called now, and the next one begin.

        The loop would come to both after all that has arrived in its turn, and a thread that could
        write has nothing to do until then.
        """
        if self._future is not None and self._future.done():
            self._finish(self._future)
            self._next()

    def when_free(self, callback: Callable[[], object]) -> None:
        """Call `callback` once when nothing is being written, those that came before first."""
        self._waiting[callback] = None

    def close(self) -> None:
        """Settle, and end the thread; twice is fine."""
        self.settle()
        self._waiting.clear()
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def _ended(self, future: Future[None], loop: asyncio.AbstractEventLoop) -> None:
        """In the thread: the loop hears of it, unless it has ended without waiting."""
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._finish, future)

    def _finish(self, future: Future[None]) -> None:
        if future is not self._future:
            return  # it was waited for
        done, self._future, self._done = self._done, None, None
        self._ending = True
        try:
            if done is not None:
                done(future.exception())
        finally:
            self._ending = False
            self._wake()

    def _wake(self) -> None:
        """Those that wait have their turn soon, not inside of what waited for the end."""
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """The turn of the one that waits longest."""
        if self._future is not None or not self._waiting:
            return
        callback = next(iter(self._waiting))
        del self._waiting[callback]
        self._turn = True
        try:
            callback()
        finally:
            self._turn = False
            self._wake()


def _run(work: Callable[[], None]) -> Future[None]:
    future: Future[None] = Future()
    try:
        work()
    except Exception as error:  # noqa: BLE001  it goes to `done`, as from a thread
        future.set_exception(error)
    else:
        future.set_result(None)
    return future
