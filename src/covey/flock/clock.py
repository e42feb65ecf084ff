"""The flock's time: the event loop's clock, or one that a test turns by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is planned."""

    def cancel(self) -> None:
        """Do not call. May be called again, and after the call."""


class Clock(Protocol):
    """Monotonic seconds, and calls at a given second."""

    def now(self) -> float:
        """Monotonic seconds."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` once, at `when` or soon after."""


class LoopClock:
    """The running event loop's clock."""

    def now(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], object]) -> Timer:
        """The loop's `call_at`."""
        return asyncio.get_running_loop().call_at(when, callback)
