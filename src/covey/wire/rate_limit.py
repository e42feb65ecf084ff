"""How often something may happen: for one thing, or per source and for all sources together."""

from __future__ import annotations

import math
from collections import OrderedDict

TOGETHER = 16
"""All sources together get so many times what one gets: forged sources do not add up."""

_ALMOST = 1 - 1e-6
"""Saved up enough: a timer that fires exactly on time must not find 0.9999 of a use."""


class TokenBucket:
    """`rate` uses per second, up to `burst` saved up; full at the start. Rate 0: never refilled.

    `now` is monotonic seconds.
    """

    __slots__ = ("_at", "_burst", "_rate", "_saved")

    def __init__(self, *, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._burst = burst
        self._saved = burst
        self._at = now

    def wait(self, now: float) -> float:
        """Seconds until the next use is due: 0 when it is now, infinite when it never will be."""
        self._saved = min(self._burst, self._saved + (now - self._at) * self._rate)
        self._at = now
        if self._saved >= _ALMOST:
            return 0.0
        return (1 - self._saved) / self._rate if self._rate > 0 else math.inf

    def take(self) -> None:
        """Count one use."""
        self._saved = max(0.0, self._saved - 1)


class RateLimiter:
    """A `TokenBucket` for each source, and one of `TOGETHER` times its size for all together.

    At most `sources` buckets are kept, the least recently used is dropped for a new one. `now` is
    monotonic seconds.
    """

    __slots__ = ("_all", "_buckets", "_burst", "_rate", "_sources")

    def __init__(self, *, rate: float, burst: float, sources: int) -> None:
        self._rate = rate
        self._burst = burst
        self._sources = sources
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()
        self._all: TokenBucket | None = None

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: str, now: float) -> bool:
        """Whether `source` may once more; a use that is refused costs nothing."""
        everybody = self._all = self._all or self._bucket(now, TOGETHER)
        own = self._buckets.get(source) or self._bucket(now, 1)
        self._buckets[source] = own
        self._buckets.move_to_end(source)
        if len(self._buckets) > self._sources:
            self._buckets.popitem(last=False)
        if own.wait(now) > 0 or everybody.wait(now) > 0:
            return False
        own.take()
        everybody.take()
        return True

    def _bucket(self, now: float, times: int) -> TokenBucket:
        return TokenBucket(rate=self._rate * times, burst=self._burst * times, now=now)
