"""How often strangers may make us work: one allowance per source and one for all together."""

from __future__ import annotations

from collections import OrderedDict

TOGETHER = 16
"""All sources together get so many times what one gets: forged sources do not add up."""


class RateLimiter:
    """Token buckets: `rate` uses per second and source, up to `burst` saved up.

    At most `sources` buckets are kept, the least recently used is dropped for a new one. `now` is
    monotonic seconds.
    """

    __slots__ = ("_all", "_buckets", "_burst", "_rate", "_sources")

    def __init__(self, *, rate: float, burst: float, sources: int) -> None:
        self._rate = rate
        self._burst = burst
        self._sources = sources
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all: tuple[float, float] | None = None

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, source: str, now: float) -> bool:
        """Whether `source` may once more; a use that is refused costs nothing."""
        own = self._filled(self._buckets.get(source), now, 1)
        everybody = self._filled(self._all, now, TOGETHER)
        allowed = own >= 1 and everybody >= 1
        self._buckets[source] = (own - allowed, now)
        self._buckets.move_to_end(source)
        self._all = (everybody - allowed, now)
        if len(self._buckets) > self._sources:
            self._buckets.popitem(last=False)
        return allowed

    def _filled(self, bucket: tuple[float, float] | None, now: float, times: int) -> float:
        if bucket is None:
            return self._burst * times
        saved, since = bucket
        return min(self._burst * times, saved + (now - since) * self._rate * times)
