"""The event loop's clock, which a test can put forward."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Planned:
    """A call that is planned; moved when the clock is."""

    def __init__(self, clock: TurnedClock, when: float, callback: Callable[[], object]) -> None:
        self._clock = clock
        self.when = when
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self.plan()

    def plan(self) -> None:
        """Plan it by the present offset of the clock."""
        if self._handle is not None:
            self._handle.cancel()
        loop = asyncio.get_running_loop()
        self._handle = loop.call_at(self.when - self._clock.offset, self._run)

    def _run(self) -> None:
        self._clock.planned.discard(self)
        self._callback()

    def cancel(self) -> None:
        """Do not call."""
        self._clock.planned.discard(self)
        if self._handle is not None:
            self._handle.cancel()


class TurnedClock:
    """Goes with the loop, and jumps when `advance` says so."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.planned: set[Planned] = set()

    def time(self) -> float:
        """Monotonic seconds."""
        return asyncio.get_running_loop().time() + self.offset

    def call_at(self, when: float, callback: Callable[[], object], /) -> Planned:
        """Call `callback` once, at `when` or soon after."""
        planned = Planned(self, when, callback)
        self.planned.add(planned)
        return planned

    async def advance(self, seconds: float) -> None:
        """Put the clock forward; what became due happens before this returns."""
        self.offset += seconds
        for planned in tuple(self.planned):
            planned.plan()
        for _ in range(3):
            await asyncio.sleep(0)


class Middle:
    """Chance that always takes the middle."""

    def uniform(self, low: float, high: float, /) -> float:
        """Half way."""
        return (low + high) / 2

    def randrange(self, stop: int, /) -> int:
        """Half way."""
        return stop // 2
