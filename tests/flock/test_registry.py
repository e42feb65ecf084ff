"""One connection per peer: holding, succession, and the bound on what is held."""

from __future__ import annotations

from covey.flock.policy import Contender
from covey.flock.registry import MAX_HELD, Outcome, Registry

MINE, THEIRS = "02", "01"


def _claimed(number: int, *, initiator: bool = False) -> Contender:
    return Contender(id=number, type="tcp", initiator=initiator, mine=MINE, theirs=THEIRS)


def test_a_held_connection_takes_over_when_the_registered_one_ends() -> None:
    registry = Registry()
    first, second = _claimed(1), _claimed(2)
    assert registry.offer(first, now=0.0).outcome is Outcome.REGISTERED
    decision = registry.offer(second, now=0.1)
    assert (decision.outcome, decision.other) == (Outcome.HELD, first)
    assert registry.is_held(second)
    assert registry.remove(first) is second
    assert registry.is_registered(second)
    assert not registry.is_held(second)
    assert registry.remove(second) is None
    assert len(registry) == 0


def test_a_held_connection_that_ends_first_changes_nothing() -> None:
    registry = Registry()
    first, second = _claimed(1), _claimed(2)
    registry.offer(first, now=0.0)
    registry.offer(second, now=0.1)
    assert registry.remove(second) is None
    assert registry.get(THEIRS) is first
    assert registry.remove(first) is None


def test_only_a_few_connections_are_held_for_one_peer() -> None:
    registry = Registry()
    links = [_claimed(number) for number in range(MAX_HELD + 3)]
    outcomes = [registry.offer(link, now=0.0).outcome for link in links]
    assert outcomes == [
        Outcome.REGISTERED,
        *[Outcome.HELD] * MAX_HELD,
        *[Outcome.REDUNDANT] * 2,
    ]


def test_removing_what_was_replaced_does_not_touch_the_successor() -> None:
    registry = Registry()
    old = Contender(id=1, type="utp", initiator=False, mine="01", theirs="02", proven=True)
    new = Contender(id=2, type="tcp", initiator=True, mine="01", theirs="02", proven=True)
    registry.offer(old, now=0.0)
    assert registry.offer(new, now=0.0).outcome is Outcome.REPLACED
    assert registry.remove(old) is None
    assert list(registry) == [new]
