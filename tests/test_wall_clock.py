from __future__ import annotations

import time

from covey.wall_clock import wall_clock


def test_the_wall_clock_counts_milliseconds_since_1970() -> None:
    before = time.time_ns() // 1_000_000
    now = wall_clock()
    assert isinstance(now, int)
    assert before <= now <= time.time_ns() // 1_000_000
