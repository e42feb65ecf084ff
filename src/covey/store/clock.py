"""The time of a store: the event loop's, or one that a test turns by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A call that is planned."""

    def cancel(self) -> None:
        """Do not call. May be called again, and after the call."""


class Clock(Protocol):
    """Monotonic seconds, and calls at a given second; an event loop is one."""

    def time(self) -> float:
        """Monotonic seconds."""

    def call_at(self, when: float, callback: Callable[[], object], /) -> Timer:
        """Call `callback` once, at `when` or soon after."""


class Chance(Protocol):
    """Where randomness comes from: `random.Random` is one."""

    def uniform(self, low: float, high: float, /) -> float:
        """A number between the two."""

    def randrange(self, stop: int, /) -> int:
        """A number from 0 to before `stop`."""
