"""How many dials may be under way, and how fast they may follow each other."""

from __future__ import annotations

from collections.abc import Callable

from covey.flock.clock import Timer
from covey.flock.context import Context
from covey.wire.rate_limit import TokenBucket


class DialGate:
    """Lets dials through as `Limits` and `max_connections` allow.

    When only the rate is in the way, `reopened` is called as soon as it is not any more. A
    `dials_per_second` of 0 is no limit.
    """

    def __init__(self, context: Context, reopened: Callable[[], object]) -> None:
        self._context = context
        self._reopened = reopened
        self._budget: TokenBucket | None = None
        self._timer: Timer | None = None

    def open(self, busy: int, total: int) -> bool:
        """Whether one more may start: `busy` are under way, `total` with all connections."""
        context = self._context
        if context.closing or busy >= context.limits.max_dials:
            return False
        if 0 < context.max_connections <= total:
            return False
        if (rate := context.limits.dials_per_second) <= 0:
            return True
        now = context.clock.now()
        if self._budget is None:
            self._budget = TokenBucket(rate=rate, burst=max(1.0, rate / 2), now=now)
        wait = self._budget.wait(now)
        if wait > 0 and self._timer is None:
            self._timer = context.clock.call_at(now + wait, self._again)
        return wait == 0

    def passed(self) -> None:
        """A dial has started."""
        if self._budget is not None:
            self._budget.take()

    def close(self) -> None:
        """Plan nothing more."""
        if self._timer is not None:
            self._timer.cancel()

    def _again(self) -> None:
        self._timer = None
        self._reopened()
