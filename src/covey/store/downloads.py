"""Fetching blocks ahead of their use, and how far that is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from covey.errors import ClosedError, CoveyError
from covey.events import LiveSubscription, LiveView
from covey.feed.replication_tickets import Ticket

if TYPE_CHECKING:
    from covey.store.open_log import OpenLog

DOWNLOAD_PRIORITY = 0
"""Of blocks that are fetched ahead; one that a user waits for has 1."""


@dataclass(frozen=True, slots=True)
class DownloadProgress:
    """A download at this moment: `have` of `total` blocks are here; rates in bytes per second.

    The total of a download without end is that of the log as far as it is known.
    """

    have: int
    total: int
    download_rate: float
    peers: int


class Download:
    """A wish for blocks, until all are here or it is cancelled; made by `Feed.download`.

    `await download.done()` waits for the last block; `async for progress in download` gives the
    state at once and after each change, and ends with the download.
    """

    def __init__(
        self,
        opened: OpenLog,
        parts: Sequence[tuple[int, int | None]],
        *,
        linear: bool,
        on_end: Callable[[Download], object],
    ) -> None:
        self._opened = opened
        self._parts = list(parts)
        self._on_end = on_end
        self._error: CoveyError | None = None
        self._waiters: set[asyncio.Future[CoveyError | None]] = set()
        self._view = LiveView(self._snapshot)
        self._over = False
        self._left = len(self._parts)
        self._tickets: list[Ticket] = []
        if not self._parts:
            self._end(None)
        for start, end in self._parts:
            if opened.log.frozen:
                whole = end is not None and opened.log.bitfield.count(start, end) == end - start
                self._part_done(None if whole else opened.frozen_error())
                continue
            self._tickets.append(
                opened.ask(
                    lambda replicator, start=start, end=end: replicator.want_range(  # type: ignore[misc]
                        start, end, linear=linear, done=self._part_done, progress=self._moved
                    )
                )
            )
        if self.finished:
            self._drop()

    @property
    def finished(self) -> bool:
        """Whether it is over: complete, cancelled, or the feed is closed."""
        return self._over

    @property
    def progress(self) -> DownloadProgress:
        """How far it is at this moment."""
        return self._snapshot()

    async def done(self) -> None:
        """Wait until every block is here.

        Raises `ClosedError` when it was cancelled before, `FrozenError` for a frozen log, and
        `StoreError` when the store fails: the download goes on once the store works again, and may
        be waited for again. A download without end is never done.
        """
        if not self.finished:
            self._opened.check_store()
            waiter: asyncio.Future[CoveyError | None] = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                trouble = await waiter
            finally:
                self._waiters.discard(waiter)
            if trouble is not None:
                raise trouble
        if self._error is not None:
            raise self._error

    def cancel(self) -> None:
        """No longer fetch anything for it. Twice is fine."""
        self.end(ClosedError("the download was cancelled"))

    def end(self, error: CoveyError) -> None:
        """End it with `error`. For the feed."""
        if not self.finished:
            self._end(error)
            self._drop()

    def store_failed(self, error: CoveyError) -> None:
        """Tell who waits; blocks are asked for again by themselves. For the feed."""
        self._wake(error)

    def __aiter__(self) -> LiveSubscription[DownloadProgress]:
        return self._view.listen()

    def _moved(self, have: int, total: int) -> None:  # noqa: ARG002  counted when it is read
        self._view.changed()

    def _part_done(self, result: Any) -> None:
        if self.finished:
            return
        self._left -= 1
        if isinstance(result, CoveyError):
            self._end(result)
            self._drop()
        elif self._left == 0:
            self._end(None)

    def _drop(self) -> None:
        for ticket in self._tickets:
            ticket.cancel()
        self._tickets.clear()
        self._opened.touch()

    def _end(self, error: CoveyError | None) -> None:
        self._over = True
        self._error = error
        self._wake(None)
        self._view.changed()
        self._view.close()
        self._on_end(self)

    def _wake(self, trouble: CoveyError | None) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(trouble)

    def _snapshot(self) -> DownloadProgress:
        log = self._opened.log
        have = total = 0
        for start, end in self._parts:
            stop = max(log.length, start) if end is None else end
            total += stop - start
            have += log.bitfield.count(start, stop)
        whole = self._opened.progress
        return DownloadProgress(have, total, whole.download_rate, whole.peers)


def runs_of(blocks: Iterable[int]) -> list[tuple[int, int | None]]:
    """Block numbers in any order as ranges, each from the first to before the second number."""
    runs: list[tuple[int, int | None]] = []
    start = end = -1
    for index in sorted(set(blocks)):
        if index != end:
            if end >= 0:
                runs.append((start, end))
            start = index
        end = index + 1
    if end >= 0:
        runs.append((start, end))
    return runs
