"""Numbers of requests, and when they are free again."""

from __future__ import annotations

from typing import Any

from covey.feed.messages import Request
from covey.feed.replication_requests import Outstanding, RequestTable

PEER: Any = object()


def ask(table: RequestTable) -> int:
    """Send one."""
    number = table.next_number()
    table.open[number] = Outstanding(PEER, Request(number, 0), 0.0, table.tick, None)
    return number


def test_numbers_start_at_1_and_are_used_again() -> None:
    table = RequestTable()
    assert [ask(table) for _ in range(3)] == [1, 2, 3]
    assert table.answered(2) is not None
    assert table.answered(2) is None
    assert ask(table) == 2
    assert table.answered(0) is None


def test_a_cancelled_number_waits_for_a_later_round_trip() -> None:
    table = RequestTable()
    first, second = ask(table), ask(table)
    assert table.cancel(first) is not None
    assert table.cancel(first) is None
    assert ask(table) == 3
    table.answered(second)
    assert table.unanswered == 1, "that one was sent before"
    assert ask(table) == 2
    table.answered(3)
    assert table.unanswered == 0
    assert {ask(table), ask(table)} == {1, 3}


def test_a_late_answer_frees_its_number() -> None:
    table = RequestTable()
    number = ask(table)
    table.cancel(number)
    assert table.late(number)
    assert not table.late(number)
    assert not table.late(99)
    assert ask(table) == number


def test_a_late_answer_shows_that_what_was_cancelled_before_it_was_asked_is_over() -> None:
    table = RequestTable()
    lost = ask(table)
    table.cancel(lost)
    late = ask(table)
    outstanding = table.cancel(late)
    assert table.unanswered == 2
    assert table.late(late) is outstanding
    assert table.unanswered == 0
    assert {ask(table), ask(table)} == {lost, late}


def test_the_oldest_is_the_one_sent_first() -> None:
    table = RequestTable()
    assert table.oldest() is None
    ask(table)
    ask(table)
    table.answered(1)
    ask(table)
    oldest = table.oldest()
    assert oldest is not None
    assert oldest.request.id == 2
