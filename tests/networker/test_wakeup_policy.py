"""Whom to tell, what to open, when to close it: decisions without a clock of their own."""

from __future__ import annotations

import pytest

from covey.networker.head_table import Head
from covey.networker.wakeup_policy import (
    HERE,
    IMPATIENCE,
    LONGEST_REST,
    MOST_SOURCES,
    MOST_TRIES,
    PATIENCE,
    Budget,
    Fate,
    Lacks,
    RootLookups,
    Wake,
    WakeQueue,
    batches,
    ends_at,
    fate_of,
    is_news,
    lookup_cost,
    may_ask,
)

LINGER = 5.0


def keys_of(wakes: list[tuple[Wake, Fate]]) -> list[tuple[bytes, Fate]]:
    return [(wake.key, fate) for wake, fate in wakes]


def opened(queue: WakeQueue, now: float = 0.0) -> list[bytes]:
    """Open as many as may be opened."""
    found = []
    while (wake := queue.next(now)) is not None:
        found.append(wake.key)
    return found


@pytest.mark.parametrize(
    ("head", "length", "news"),
    [
        (None, 1, True),
        (None, 0, False),
        (Head(0, 5), 6, True),
        (Head(0, 5), 5, False),
        (Head(3, 5), 4, False),
    ],
)
def test_only_a_longer_log_is_news(head: Head | None, length: int, news: bool) -> None:
    assert is_news(head, length) is news


def test_a_peer_is_asked_only_where_its_answer_is_of_use() -> None:
    assert may_ask(1, accepts=False)
    assert may_ask(0, accepts=True)
    assert not may_ask(0, accepts=False)


def test_announces_have_so_many_entries_at_most() -> None:
    assert [len(one) for one in batches(range(10), 4)] == [4, 4, 2]
    assert [*batches([])] == []


def test_a_budget_refuses_what_is_too_much_and_fills_up_again() -> None:
    budget = Budget(10.0, 100.0)
    assert budget.spend(8, 100.0, rate=1, burst=10)
    assert not budget.spend(3, 100.0, rate=1, burst=10)
    assert budget.spend(3, 101.0, rate=1, burst=10)
    assert not budget.spend(11, 1000.0, rate=1, burst=10)
    assert budget.spend(10, 1000.0, rate=1, burst=10)


def test_a_lookup_costs_more_the_more_logs_are_looked_at() -> None:
    assert lookup_cost(0) == 1
    assert lookup_cost(2560) == 11


def test_the_initiator_answers_only_a_root_lookup_that_its_own_does_not_cover() -> None:
    roots = RootLookups()
    assert roots.heard(1)
    roots.sent(1)
    assert not roots.heard(1)
    assert roots.heard(1)
    roots.sent(1)
    assert roots.heard(2)


def test_hints_at_one_log_are_merged_and_the_newest_counts() -> None:
    queue = WakeQueue(1)
    queue.hint(b"a", 3, "one", 0)
    queue.hint(b"a", 5, "two", 0)
    queue.hint(b"a", 4, "one", 0)
    wake = queue.next(0)
    assert wake is not None
    assert (wake.goal, wake.sources) == (5, {"one": 4, "two": 5})
    assert queue.waiting == {}
    assert queue.hint(b"a", 5, "three", 1) is None
    assert queue.hint(b"a", 6, "three", 1) is wake
    assert wake.moved_at == 1


def test_so_many_are_open_at_once_and_the_others_wait() -> None:
    queue = WakeQueue(3)
    for number in range(10):
        queue.hint(bytes([number]), 1, "one", 0)
    assert opened(queue) == [b"\0", b"\1", b"\2"]
    assert len(queue.waiting) == 7
    assert queue.crowded
    queue.closed(queue.open[b"\1"], 1, failed=False)
    assert opened(queue, 1) == [b"\3"]


def test_sources_take_turns() -> None:
    queue = WakeQueue(4)
    for number in range(100):
        queue.hint(bytes([number]), 1, "greedy", 0)
    queue.hint(b"x", 1, "modest", 0)
    queue.hint(b"y", 1, "modest", 0)
    assert opened(queue) == [b"\0", b"x", b"\1", b"y"]


def test_a_source_whose_hints_led_nowhere_rests_and_comes_after_others() -> None:
    queue = WakeQueue(1)
    for number in range(4):
        queue.hint(bytes([number]), 1, "liar", 0)
    rests = []
    now = 0.0
    for _ in range(4):
        wake = queue.next(now)
        assert wake is not None
        queue.closed(wake, now, failed=True)
        assert queue.next(now) is None
        rest = queue.rests_until()
        if rest is not None:
            rests.append(rest - now)
            now = rest
    assert rests == [1, 2, 4]
    queue.hint(b"l", 1, "liar", now)
    queue.hint(b"h", 1, "honest", now)
    assert opened(queue, now + LONGEST_REST) == [b"h"]


def test_a_success_forgives() -> None:
    queue = WakeQueue(1)
    queue.hint(b"a", 1, "one", 0)
    queue.hint(b"b", 1, "one", 0)
    queue.hint(b"c", 1, "one", 0)
    for failed in (True, False):
        wake = queue.next(100)
        assert wake is not None
        queue.closed(wake, 0, failed=failed)
    assert queue.next(0) is not None


def test_a_rest_never_lasts_longer_than_its_bound() -> None:
    queue = WakeQueue(1)
    now = 0.0
    for _ in range(50):
        queue.hint(b"a", 1, "liar", now)
        now += LONGEST_REST
        wake = queue.next(now)
        assert wake is not None
        queue.closed(wake, now, failed=True)


def test_one_log_remembers_a_bounded_number_of_sources() -> None:
    queue = WakeQueue(1)
    for number in range(1000):
        queue.hint(b"a", 1, number, 0)
    assert len(queue.waiting[b"a"].sources) == MOST_SOURCES


def test_who_said_how_long_a_log_is_need_not_be_told() -> None:
    wake = Wake(b"a")
    wake.heard(5, "one", forked=False)
    assert wake.knows("one", 5)
    assert not wake.knows("one", 6)
    assert not wake.knows("two", 5)
    wake.heard(5, "one", forked=True)
    assert not wake.knows("one", 5)


def test_what_a_source_that_left_hinted_at_goes_to_others_or_is_forgotten() -> None:
    queue = WakeQueue(1)
    queue.hint(b"o", 1, "gone", 0)
    assert opened(queue) == [b"o"]
    queue.hint(b"a", 1, "gone", 0)
    queue.hint(b"b", 1, "gone", 0)
    queue.hint(b"b", 1, "other", 0)
    queue.gone("gone")
    assert [*queue.waiting] == [b"b"]
    assert queue.open[b"o"].sources == {}
    queue.closed(queue.open[b"o"], 0, failed=True)
    assert opened(queue) == [b"b"]


def test_a_caught_up_log_closes_after_its_linger_and_at_once_where_others_wait() -> None:
    wake = Wake(b"a", moved_at=10.0, caught_up=True)
    assert fate_of(wake, 14.9, linger=LINGER, crowded=False) is None
    assert fate_of(wake, 15.0, linger=LINGER, crowded=False) is Fate.IDLE
    assert fate_of(wake, 10.0, linger=LINGER, crowded=True) is Fate.IDLE
    assert ends_at(wake, linger=LINGER, crowded=False) == 15.0


def test_what_does_not_come_is_given_up_after_a_while() -> None:
    wake = Wake(b"a", moved_at=10.0, tries=1)
    assert fate_of(wake, 10 + PATIENCE - 0.1, linger=LINGER, crowded=False) is None
    assert fate_of(wake, 10 + PATIENCE, linger=LINGER, crowded=False) is Fate.GIVEN_UP
    assert fate_of(wake, 10 + IMPATIENCE, linger=LINGER, crowded=True) is Fate.POSTPONED
    wake.tries = MOST_TRIES
    assert fate_of(wake, 10 + IMPATIENCE, linger=LINGER, crowded=True) is Fate.GIVEN_UP


def test_only_as_many_are_closed_early_as_there_are_others() -> None:
    queue = WakeQueue(3)
    for number in range(4):
        queue.hint(bytes([number]), 1, "one", 0)
    opened(queue)
    for moved, wake in zip((2, 1, 3), queue.open.values(), strict=True):
        wake.caught_up = True
        wake.moved_at = moved
    (due,) = queue.due(3, linger=LINGER)
    assert (due[0].key, due[1]) == (b"\1", Fate.IDLE)
    due[0].closing = True
    assert queue.due(3, linger=LINGER) == []
    assert queue.next_due(linger=LINGER) == 2 + LINGER


def test_what_is_postponed_waits_behind_the_others_and_tries_again() -> None:
    queue = WakeQueue(1)
    queue.hint(b"a", 7, "one", 0)
    queue.hint(b"b", 1, "one", 0)
    assert opened(queue) == [b"a"]
    (due,) = queue.due(IMPATIENCE, linger=LINGER)
    assert due[1] is Fate.POSTPONED
    queue.postpone(due[0])
    assert opened(queue, IMPATIENCE) == [b"b"]
    queue.closed(queue.open[b"b"], IMPATIENCE, failed=False)
    wake = queue.next(IMPATIENCE)
    assert wake is not None
    assert (wake.key, wake.goal, wake.tries) == (b"a", 7, 2)


def test_a_hint_for_a_log_that_is_just_being_closed_opens_it_again() -> None:
    queue = WakeQueue(1)
    queue.hint(b"a", 1, "one", 0)
    wake = queue.next(0)
    assert wake is not None
    wake.caught_up = wake.closing = True
    queue.hint(b"a", 2, "one", 0)
    queue.closed(wake, 0, failed=False)
    again = queue.next(0)
    assert again is wake
    assert not again.closing
    assert not again.caught_up


def test_a_log_that_left_the_group_is_forgotten_or_given_back_to_be_closed() -> None:
    queue = WakeQueue(1)
    queue.hint(b"a", 1, "one", 0)
    queue.hint(b"b", 1, "one", 0)
    opened(queue)
    assert queue.withdraw(b"b") is None
    assert queue.withdraw(b"a") is queue.open[b"a"]
    assert queue.withdraw(b"c") is None
    assert queue.waiting == {}
    assert opened(queue) == []


def test_the_next_moment_is_that_of_the_first_thing_to_do() -> None:
    queue = WakeQueue(2)
    assert queue.next_due(linger=LINGER) is None
    queue.hint(b"a", 1, "one", 0)
    queue.hint(b"b", 1, "one", 0)
    opened(queue)
    assert queue.next_due(linger=LINGER) == PATIENCE
    queue.open[b"b"].caught_up = True
    assert queue.next_due(linger=LINGER) == LINGER
    queue.hint(b"c", 1, "one", 0)
    assert queue.next_due(linger=LINGER) == 0
    queue.closed(queue.open[b"b"], 0, failed=True)
    assert queue.next(0) is None
    assert queue.next_due(linger=LINGER) == 1


def test_a_source_that_left_takes_its_goal_along() -> None:
    queue = WakeQueue(1)
    queue.hint(b"a", 1 << 40, "liar", 0)
    queue.hint(b"a", 5, "honest", 0)
    (wake,) = queue.waiting.values()
    assert wake.goal == 1 << 40
    assert not queue.gone("liar")
    assert wake.goal == 5


def test_a_higher_hint_takes_the_place_of_the_lowest_and_what_was_left_out_is_said() -> None:
    queue = WakeQueue(1)
    for number in range(MOST_SOURCES):
        queue.hint(b"a", 5 + number, f"peer {number}", 0)
    queue.hint(b"a", 99, "late", 0)
    queue.hint(b"a", 1, "low", 0)
    (wake,) = queue.waiting.values()
    assert wake.goal == wake.sources["late"] == 99
    assert "peer 1" not in wake.sources  # the first one's turn is the one that it takes
    assert "low" not in wake.sources
    for source in [*wake.sources][1:]:
        assert not queue.gone(source)
    assert queue.gone(*wake.sources)
    assert queue.waiting == {}


def test_who_said_nothing_to_its_hint_has_another_turn_and_rests() -> None:
    queue = WakeQueue(1)
    queue.hint(b"a", 9, "silent", 0)
    queue.hint(b"a", 5, "honest", 0)
    wake = queue.next(0)
    assert wake is not None
    queue.closed(wake, 0, failed=False, unmet=["silent"])
    assert wake.sources == {"silent": 9}
    assert opened(queue) == []
    assert queue.rests_until() == 1
    assert opened(queue, 1) == [b"a"]
    queue.closed(wake, 1, failed=True, unmet=["silent"])
    assert b"a" not in queue


def test_any_hint_while_a_log_is_being_closed_opens_it_again() -> None:
    queue = WakeQueue(1)
    queue.hint(b"a", 1 << 40, "liar", 0)
    wake = queue.next(0)
    assert wake is not None
    wake.closing = True
    queue.hint(b"a", 7, "honest", 0)
    queue.closed(wake, 0, failed=None)
    assert b"a" in queue.waiting


def test_what_is_lacking_is_looked_for_in_rounds_with_longer_and_longer_pauses() -> None:
    lacks = Lacks()
    assert lacks.due() is None
    lacks.note(b"a", lacking=True)
    pauses, now = [], 0.0
    for _ in range(9):
        assert lacks.round(now, ()) == [b"a"]
        assert lacks.round(now, ()) == []
        now += 30
        assert lacks.round(now, (b"a",)) == []
        lacks.closed(b"a", now, gained=False)
        due = lacks.due()
        assert due is not None
        pauses.append(due - now)
        now = due
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    lacks.closed(b"a", now, gained=True)
    lacks.met(now)
    assert lacks.round(now, ()) == [b"a"]
    lacks.closed(b"a", now, gained=False)
    assert lacks.due() == now + 1
    lacks.note(b"a", lacking=False)
    assert lacks.due() is None


def test_failing_to_find_what_is_lacking_makes_no_line_rest() -> None:
    queue = WakeQueue(1)
    for key in (b"a", b"b"):
        queue.hint(key, 0, HERE, 0)
    wake = queue.next(0)
    assert wake is not None
    queue.closed(wake, 0, failed=True)
    assert opened(queue) == [b"b"]
