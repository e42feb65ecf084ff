"""Decisions of replication as functions of plain data."""

from __future__ import annotations

import pytest

from covey.feed.availability import Availability
from covey.feed.bitfield import BitPages
from covey.feed.replication_announce import runs
from covey.feed.replication_choices import (
    IN_FLIGHT,
    MAX_IN_FLIGHT,
    MIN_IN_FLIGHT,
    RemoteHead,
    announced,
    askable_end,
    can_upgrade,
    in_flight_limit,
    invalid_delay,
    offers_upgrade,
    push_levels,
    swap_limit,
    wanted_batches,
)
from covey.feed.replication_wants import WANT_BATCH

HEAD = RemoteHead(fork=2, length=10, can_upgrade=True, uploading=True, acked=5)


def test_an_upgrade_is_asked_for_only_when_the_peer_answered_for_our_head() -> None:
    assert offers_upgrade(HEAD, fork=2, length=5)
    assert not offers_upgrade(HEAD, fork=1, length=5)
    assert not offers_upgrade(HEAD, fork=2, length=6), "it has not heard of our head"
    assert not offers_upgrade(HEAD._replace(acked=10), fork=2, length=10)
    assert not offers_upgrade(HEAD._replace(can_upgrade=False), fork=2, length=5)
    assert not offers_upgrade(HEAD._replace(uploading=False), fork=2, length=5)


def test_who_can_prove_its_head() -> None:
    all_nodes, no_nodes = (lambda _: True), (lambda _: False)
    assert can_upgrade(HEAD, fork=2, length=11, has_node=all_nodes)
    assert not can_upgrade(HEAD, fork=2, length=11, has_node=no_nodes)
    assert not can_upgrade(HEAD, fork=2, length=11, has_node={7}.__contains__), "10 has two roots"
    assert can_upgrade(HEAD, fork=2, length=11, has_node={7, 17}.__contains__)
    assert not can_upgrade(HEAD, fork=2, length=10, has_node=all_nodes)
    assert not can_upgrade(HEAD, fork=3, length=11, has_node=all_nodes)
    assert can_upgrade(HEAD._replace(length=0), fork=2, length=0, has_node=no_nodes)


def test_what_a_peer_may_be_asked_for() -> None:
    def end(head: RemoteHead, *, length: int, fork: int = 2, nodes: bool = True) -> int:
        return askable_end(head, fork=fork, length=length, agreed=4, has_node=lambda _: nodes)

    assert end(HEAD, length=8, nodes=False) == 8
    assert end(HEAD, length=10, nodes=False) == 10
    assert end(HEAD, length=12) == 10, "its roots are nodes of ours"
    assert end(HEAD, length=12, nodes=False) == 4, "what was so the last time"
    assert end(HEAD._replace(length=3), length=12, nodes=False) == 3
    assert end(HEAD, length=8, fork=1) == 0
    assert end(HEAD._replace(uploading=False), length=8) == 0


def test_how_many_requests_are_under_way() -> None:
    assert in_flight_limit(None, 1) == IN_FLIGHT == 48
    assert in_flight_limit(0.0, 1) == in_flight_limit(0.05, 9) == MIN_IN_FLIGHT
    assert in_flight_limit(0.1, 1) == in_flight_limit(0.1, 2) == 32
    assert in_flight_limit(0.1, 4) == 16
    assert in_flight_limit(60.0, 1) == MAX_IN_FLIGHT
    assert swap_limit(48) == 24
    assert swap_limit(16) == 16


@pytest.mark.parametrize(
    ("count", "seconds"), [(1, 0.2), (2, 0.5), (4, 0.5), (5, 1.0), (39, 1.0), (40, 5.0), (63, 5.0)]
)
def test_when_senseless_requests_are_answered(count: int, seconds: float) -> None:
    assert invalid_delay(count) == seconds


def test_what_is_announced() -> None:
    def told(start: int, end: int, **changed: object) -> tuple[int, int] | None:
        values = {"complete": False, "told": 0, "known": False, "wanted": False, **changed}
        return announced(start, end, length=1000, **values)  # type: ignore[arg-type]

    assert told(743, 744) is None
    assert told(744, 745) == (744, 745)
    assert told(743, 744, wanted=True) == (743, 744)
    assert told(999, 1000, known=True) is None
    assert told(3, 4, complete=True) == (0, 1000)
    assert told(3, 4, complete=True, known=True) == (0, 1000)
    assert told(3, 4, complete=True, told=1000, known=True) is None
    assert told(3, 4, complete=True, told=1000) == (3, 4)


def test_levels_of_a_push() -> None:
    assert [push_levels(block, 7) for block in range(9)] == [2, 2, 2, 2, 1, 1, 0, 0, 0]


def test_batches_are_wanted_where_something_is_neither_here_nor_claimed() -> None:
    end = 5 * WANT_BATCH
    claims, held = Availability(), BitPages()

    def wanted(asked: set[int], most: int = 9) -> list[int]:
        return wanted_batches(claims, held, 10, end, asked=asked, most=most)

    assert wanted(set()) == [0, 1, 2, 3, 4]
    assert wanted(set(), most=2) == [0, 1]
    assert wanted({0, 3}) == [1, 2, 4]
    claims.range(0, WANT_BATCH, False, end)
    held.set_range(WANT_BATCH, 3 * WANT_BATCH - 1, True)
    assert wanted(set()) == [2, 3, 4]
    claims.range(3 * WANT_BATCH - 1, end, False, end)
    assert wanted(set()) == []


def test_a_huge_log_is_not_looked_through() -> None:
    batches = wanted_batches(Availability(), BitPages(), 0, 1 << 52, asked=(), most=3)
    assert batches == [0, 1, 2]


def test_runs_of_numbers() -> None:
    assert list(runs([])) == []
    assert list(runs([4])) == [(4, 5)]
    assert list(runs([1, 2, 3, 7, 9, 10])) == [(1, 4), (7, 8), (9, 11)]
