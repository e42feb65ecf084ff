"""When the blocks that peers sent are written, and what becomes of them when the store fails.

What arrives together is written together. Peers that are faster than the disk are held back; after
a failure blocks are asked for again once the store takes as much as it could not keep.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from covey.errors import StoreError
from covey.store.clock import Timer
from covey.store.record_keys import STORE_TRIAL

if TYPE_CHECKING:
    from covey.store.open_log import OpenLog

FLUSH_AFTER: Final = 0.05
"""Seconds at most until received blocks are written; four times the last write when that is less:
writing then takes a fifth of the time at most."""
FLUSH_BLOCKS, FLUSH_BYTES = 256, 1 << 20
"""Received blocks, and bytes in them, that are written at once."""
ASIDE_BYTES, ASIDE_BLOCK = 512 << 10, 16 << 10
"""Bytes from which on they are written in a thread, where blocks have so many on average."""
HOLD_BYTES: Final = 12 << 20
"""Bytes that wait while others are written from which on nothing more is asked for."""

RETRY_STORE: Final = 5.0
"""Seconds until a store that could not keep blocks is tried again: longer each time it fails."""
MAX_RETRY_STORE: Final = 300.0
"""So long at most."""
TRY_EVERY: Final = 1.0
"""Seconds between two tries at least, however often users ask."""
TRIED: Final = 1 << 20
"""Bytes that are written to try a store."""


class LogWriting:
    """Writes what one open log received: at once, soon, or in the thread of its store."""

    __slots__ = (
        "_began",
        "_failure",
        "_may_try_at",
        "_opened",
        "_pause",
        "_retry",
        "_timer",
        "_timer_at",
        "_took",
        "_worked_at",
        "held_back",
    )

    def __init__(self, opened: OpenLog) -> None:
        self._opened = opened
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self._began = 0.0
        self._took = 0.0
        self.held_back = False
        """Whether nothing is asked for because so much waits to be written."""
        self._failure: StoreError | None = None
        self._worked_at = self._may_try_at = -inf
        self._pause = 0.0
        self._retry: Timer | None = None

    def look(self, *, soon: bool) -> None:
        """Something may have come: write it when it is much, else plan that.

        `soon`: somebody waits for it.
        """
        log = self._opened.log
        blocks = log.staged_blocks
        if not blocks:
            self._look_free()
        elif blocks >= FLUSH_BLOCKS or log.staged_bytes >= FLUSH_BYTES:
            self._write()
        else:
            self._plan(soon=soon)

    def flush(self) -> None:
        """Write what is there; what the store cannot keep is asked for again later."""
        self._cancel_plan()
        if self._opened.closed or self._look_free():
            return
        self._began = self._opened.host.clock.time()
        self._finish(self._opened.log.flush)

    def store_failed(self, failure: StoreError) -> None:
        """Blocks could not be kept: nothing is asked for until the store works again."""
        self._failure = failure
        if self._retry is not None:
            return
        now = self._opened.host.clock.time()
        if now - self._worked_at <= 2 * self._pause:
            # It took what it was tried with and failed all the same: users cannot hurry it either.
            self._lengthen_pause()
            self._may_try_at = now + self._pause
        else:
            self._pause = RETRY_STORE
        self._plan_retry(now)

    def check_store(self) -> None:
        """Raise `StoreError` while the store cannot keep blocks; who asks has it tried."""
        if self._failure is None:
            return
        if self._opened.host.clock.time() >= self._may_try_at:
            self._try_store()
        if self._failure is not None:
            raise StoreError(str(self._failure)) from self._failure

    def close(self) -> None:
        """Plan nothing any more."""
        self._cancel_plan()
        if self._retry is not None:
            self._retry.cancel()

    # Writing

    def _plan(self, *, soon: bool) -> None:
        """Soon is at the end of this turn: what arrived together is written together."""
        clock = self._opened.host.clock
        when = clock.time()
        if not soon:
            when += min(4 * self._took, FLUSH_AFTER)
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = clock.call_at(when, self._write)

    def _cancel_plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self) -> None:
        """It is time to write what was received: in the thread when it is large."""
        log, writer = self._opened.log, self._opened.host.writer
        writer.look()
        self._cancel_plan()
        if self._opened.closed or self._look_free() or not log.staged_blocks:
            return
        blocks, size = log.staged_blocks, log.staged_bytes
        if writer.busy:
            if writer.writing and size >= HOLD_BYTES:
                self._hold_back()
            writer.when_free(self._write)
        elif size < ASIDE_BYTES or size < blocks * ASIDE_BLOCK:
            self.flush()
        else:
            self._write_aside()

    def _write_aside(self) -> None:
        writer = self._opened.host.writer
        self._began = self._opened.host.clock.time()
        try:
            work = self._opened.log.begin_flush(writer.settle)
        except StoreError as error:
            self._ended(error)
            return
        if work is not None:
            writer.write(work, self._written)

    def _written(self, error: BaseException | None) -> None:
        self._finish(lambda: self._opened.log.end_flush(error))

    def _finish(self, end: Callable[[], object]) -> None:
        """Whatever comes of it, what waits for the end of a write hears of that."""
        failure: StoreError | None = None
        try:
            end()
        except StoreError as error:
            failure = error
        finally:
            self._ended(failure)

    def _ended(self, failure: StoreError | None) -> None:
        """What was being written is, or could not be."""
        if failure is not None:
            self._opened.replicator.store_failed(failure)
        self._let_go()
        self._look_free()
        self._took = self._opened.host.clock.time() - self._began
        self._opened.touch()

    # Peers that are faster than the disk are not asked for more than it can take

    def _hold_back(self) -> None:
        replicator = self._opened.replicator_in_use
        if not self.held_back and replicator is not None:
            self.held_back = True
            replicator.downloads.suspended = True

    def _look_free(self) -> bool:
        """Whether nothing waits to be written, whoever wrote it: the log itself does too."""
        log = self._opened.log
        if log.staged_blocks or log.writing_blocks:
            return False
        self._let_go()
        self._opened.all_written()
        return True

    def _let_go(self) -> None:
        if self.held_back:
            self.held_back = False
            self._resume()

    def _resume(self) -> None:
        replicator = self._opened.replicator_in_use
        if replicator is not None and self._failure is None and not self.held_back:
            replicator.resume(self._opened.host.clock.time())

    # A store that failed

    def _plan_retry(self, now: float) -> None:
        self._retry = self._opened.host.clock.call_at(now + self._pause, self._retry_due)

    def _lengthen_pause(self) -> None:
        self._pause = min(2 * self._pause, MAX_RETRY_STORE)

    def _retry_due(self) -> None:
        self._retry = None
        self._try_store()
        if self._failure is not None:
            self._lengthen_pause()
            self._plan_retry(self._opened.host.clock.time())

    def _try_store(self) -> None:
        """Go on if the store takes as much as is written at a time, which nobody had to send."""
        opened = self._opened
        now = opened.host.clock.time()
        try:
            opened.host.storage.write_batch([(STORE_TRIAL, bytes(TRIED))])
            opened.host.storage.write_batch([], [STORE_TRIAL])
        except StoreError as error:
            self._failure = error
            self._may_try_at = now + TRY_EVERY
            return
        self._failure = None
        self._worked_at = now
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._resume()
        opened.touch()
