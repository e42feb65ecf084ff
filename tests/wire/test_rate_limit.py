from __future__ import annotations

import math

import pytest

from covey.wire.rate_limit import TOGETHER, RateLimiter, TokenBucket


def test_a_bucket_holds_uses_to_a_rate_after_a_burst() -> None:
    bucket = TokenBucket(rate=2.0, burst=3.0, now=10.0)
    for _ in range(3):
        assert bucket.wait(10.0) == 0.0
        bucket.take()
    assert bucket.wait(10.0) == pytest.approx(0.5)
    assert bucket.wait(10.5) == 0.0
    bucket.take()
    assert bucket.wait(10.5) == pytest.approx(0.5)
    assert bucket.wait(1000.0) == 0.0


def test_a_bucket_that_is_never_refilled_is_waited_for_without_end() -> None:
    bucket = TokenBucket(rate=0.0, burst=1.0, now=0.0)
    assert bucket.wait(0.0) == 0.0
    bucket.take()
    assert bucket.wait(1e9) == math.inf


def test_a_timer_that_fires_on_time_finds_the_bucket_filled() -> None:
    bucket = TokenBucket(rate=3.0, burst=1.0, now=0.1)
    bucket.take()
    assert bucket.wait(0.1 + bucket.wait(0.1)) == 0.0


def test_a_source_may_use_what_it_saved_and_then_waits() -> None:
    limiter = RateLimiter(rate=2.0, burst=3.0, sources=10)
    assert [limiter.take("a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [limiter.take("a", 0.5) for _ in range(2)] == [True, False]
    assert [limiter.take("a", 100.0) for _ in range(4)] == [True, True, True, False]


def test_one_source_does_not_use_up_what_another_has() -> None:
    limiter = RateLimiter(rate=1.0, burst=2.0, sources=10)
    for _ in range(20):
        limiter.take("greedy", 0.0)
    assert limiter.take("modest", 0.0)


def test_many_sources_together_are_limited_too() -> None:
    limiter = RateLimiter(rate=1.0, burst=2.0, sources=10_000)
    assert sum(limiter.take(str(number), 0.0) for number in range(1000)) == 2 * TOGETHER


def test_the_table_of_sources_is_bounded() -> None:
    limiter = RateLimiter(rate=1.0, burst=2.0, sources=8)
    for number in range(100):
        limiter.take(str(number), float(number))
    assert len(limiter) == 8


def test_a_refused_use_costs_neither_the_source_nor_the_others() -> None:
    limiter = RateLimiter(rate=1.0, burst=1.0, sources=10_000)
    assert sum(limiter.take("greedy", 0.0) for _ in range(1000)) == 1
    assert sum(limiter.take(str(number), 0.0) for number in range(1000)) == TOGETHER - 1
    assert limiter.take("late", 1.0)
