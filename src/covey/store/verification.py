"""Rehashing a whole log against its signature, a piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any

from covey.errors import ClosedError, CoveyError
from covey.events import LiveSubscription, LiveView
from covey.feed.log import Log
from covey.feed.log_audit import Progress
from covey.owned_tasks import OwnedTasks

STEPS, STEP_BYTES = 64, 1 << 20
"""Blocks, and bytes in them, that are hashed before others get their turn: a few ms."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What a verification looked at and found right.

    It has come to block `checked` of `length`; `held` of them are here, and of those up to
    `checked` all `bytes` were hashed. The signature of the head was looked at first.
    """

    length: int
    fork: int
    held: int
    checked: int = 0
    bytes: int = 0


class Verification:
    """A look through all of a log that goes on in a task of its own; made by `Feed.verify`.

    `await verification` gives the `VerifyReport`, or raises: `VerifyError` when the head is not
    signed, `StoreError` for a damaged or missing record, `UsageError` when the log was cut
    meanwhile, `ClosedError` when the feed was closed. `async for report in verification` gives the
    state now and then, and ends with it.
    """

    def __init__(
        self,
        log: Log,
        tasks: OwnedTasks,
        *,
        length: int,
        fork: int,
        on_end: Callable[[Verification], object],
    ) -> None:
        self._log = log
        self._on_end = on_end
        self._error: CoveyError | None = None
        self._report = VerifyReport(length, fork, log.bitfield.count(0, length))
        self._view = LiveView(lambda: self._report)
        self._task = tasks.spawn(self._run(), f"covey verify {log.key.hex()[:16]}")
        self._task.add_done_callback(self._over)

    @property
    def progress(self) -> VerifyReport:
        """How far it is."""
        return self._report

    def __await__(self) -> Generator[Any, None, VerifyReport]:
        return self._wait().__await__()

    def __aiter__(self) -> LiveSubscription[VerifyReport]:
        return self._view.listen()

    def end(self, error: CoveyError) -> None:
        """Stop with `error`. For the feed."""
        self._error = error
        self._task.cancel()

    async def aclose(self) -> None:
        """Stop, and wait until it has."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _wait(self) -> VerifyReport:
        await asyncio.wait([self._task])
        if self._error is not None:
            raise self._error
        if self._task.cancelled():
            raise ClosedError("the feed is closed")
        if (unexpected := self._task.exception()) is not None:
            raise unexpected
        return self._report

    async def _run(self) -> None:
        try:
            await self._look()
        except CoveyError as error:
            self._error = error

    async def _look(self) -> None:
        hashed = steps = 0
        shown: Progress | None = None
        for step in self._log.verify_all():
            # A snapshot tells of its own blocks; the rest leads to the roots that are signed.
            if step.blocks <= self._report.length:
                shown = step
            elif shown is None or shown.blocks < self._report.length:
                length = self._report.length
                shown = Progress(length, length, 0 if shown is None else shown.bytes)
            steps += 1
            if steps == STEPS or step.bytes - hashed >= STEP_BYTES:
                steps, hashed = 0, step.bytes
                self._show(shown)
                await asyncio.sleep(0)  # others go on: a log may take minutes
        if shown is not None:
            self._show(shown)

    def _show(self, step: Progress) -> None:
        self._report = replace(self._report, checked=step.blocks, bytes=step.bytes)
        self._view.changed()

    def _over(self, _task: asyncio.Task[None]) -> None:
        self._view.close()
        self._on_end(self)
