"""Row 12: who is waited for is who was opening at the moment of the flush, each counted once."""

from __future__ import annotations

import random

import pytest

from covey.networker.opening import Opening


class Passed:
    """Counts how often a barrier was passed."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


def test_nothing_opening_is_passed_at_once() -> None:
    passed = Passed()
    Opening().barrier(passed)
    assert passed.times == 1


def test_one_stuck_handshake_delays_and_its_close_releases() -> None:
    opening, passed = Opening(), Passed()
    opening.add(1)
    opening.add(2)
    opening.barrier(passed)
    assert opening.settle(1)
    assert passed.times == 0
    assert opening.settle(2)
    assert passed.times == 1


def test_what_opens_later_is_not_waited_for() -> None:
    opening, passed = Opening(), Passed()
    opening.add(1)
    opening.barrier(passed)
    opening.add(2)
    opening.settle(1)
    assert passed.times == 1
    assert len(opening) == 1


def test_each_connection_counts_once() -> None:
    """The seed's counters would take the second settling of one for the first of another."""
    opening, passed = Opening(), Passed()
    opening.add(1)
    opening.add(2)
    opening.barrier(passed)
    assert opening.settle(1)
    assert not opening.settle(1)
    assert not opening.settle(3)
    assert passed.times == 0


def test_who_waits_no_more_is_not_told() -> None:
    opening, passed = Opening(), Passed()
    opening.add(1)
    barrier = opening.barrier(passed)
    barrier.cancel()
    barrier.cancel()
    opening.settle(1)
    assert passed.times == 0


def test_settling_one_may_let_another_wait_begin() -> None:
    opening, second = Opening(), Passed()
    opening.add(1)
    opening.barrier(lambda: opening.barrier(second))
    opening.settle(1)
    assert second.times == 1


@pytest.mark.parametrize("seed", range(50))
def test_a_barrier_passes_exactly_when_its_last_has_settled(seed: int) -> None:
    chance = random.Random(seed)
    opening = Opening()
    live: set[int] = set()
    barriers: list[tuple[set[int], Passed]] = []
    for step in range(60):
        match chance.randrange(4):
            case 0:
                opening.add(step)
                live.add(step)
            case 1:
                passed = Passed()
                barriers.append((set(live), passed))
                opening.barrier(passed)
            case _ if live:
                one = chance.choice(sorted(live))
                live.discard(one)
                opening.settle(one)
        assert len(opening) == len(live)
        for waiting, passed in barriers:
            assert passed.times == (0 if waiting & live else 1)
