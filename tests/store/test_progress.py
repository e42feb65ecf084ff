"""Counting what moves, and how fast."""

from __future__ import annotations

import pytest

from covey.store.progress import WINDOW, Meter


def test_a_meter_counts_blocks_and_bytes() -> None:
    meter = Meter(100.0)
    for size in (1, 0, 99):
        meter.add(size, 100.5)
    assert (meter.blocks, meter.bytes) == (3, 100)
    assert meter.rate(100.0) == 0, "nothing can be said of no time"
    assert meter.rate(101.0) == 100


def test_a_rate_is_taken_over_the_last_seconds_only() -> None:
    meter = Meter(0.0)
    for second in range(60):
        meter.add(1000, second + 0.5)
    assert meter.rate(60.0) == pytest.approx(1000)
    meter.add(50_000, 60.5)
    assert meter.rate(61.0) == pytest.approx((50_000 + (WINDOW - 1) * 1000) / WINDOW)
    assert meter.rate(61.0 + WINDOW) == 0
    assert meter.rate(1e9) == 0
    assert meter.bytes == 110_000


def test_a_rate_falls_bit_by_bit_when_nothing_comes() -> None:
    meter = Meter(0.0)
    for second in range(10):
        meter.add(1000, float(second))
    rates = [meter.rate(10.0 + second) for second in range(WINDOW + 1)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] == 0
