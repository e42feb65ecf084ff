"""The time of day, for stamps that people and other programs read."""

from __future__ import annotations

import time


def wall_clock() -> int:
    """Milliseconds since 1970. It may jump: what waits or measures uses the loop's clock."""
    return time.time_ns() // 1_000_000
