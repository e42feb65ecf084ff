from __future__ import annotations

from covey.wire.rate_limit import TOGETHER, RateLimiter


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
