"""Ranges of numbers against a plain set."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.feed.intervals import Intervals

WIDE = 40
bound = st.integers(0, WIDE)
steps = st.lists(st.tuples(st.booleans(), bound, bound), max_size=12)


def built(changes: list[tuple[bool, int, int]]) -> tuple[Intervals, set[int]]:
    ranges, plain = Intervals(), set[int]()
    for put, start, end in changes:
        if put:
            ranges.add(start, end)
            plain |= set(range(start, end))
        else:
            ranges.remove(start, end)
            plain -= set(range(start, end))
    return ranges, plain


@given(steps)
def test_changes_give_the_numbers_of_a_plain_set(changes: list[tuple[bool, int, int]]) -> None:
    ranges, plain = built(changes)
    assert {number for low, high in ranges for number in range(low, high)} == plain
    assert [number in ranges for number in range(WIDE + 1)] == [
        number in plain for number in range(WIDE + 1)
    ]


@given(steps)
def test_ranges_are_sorted_and_never_touch(changes: list[tuple[bool, int, int]]) -> None:
    ranges = list(built(changes)[0])
    assert all(low < high for low, high in ranges)
    assert all(ranges[place][1] < ranges[place + 1][0] for place in range(len(ranges) - 1))


@given(steps, bound, bound)
def test_queries_answer_as_a_plain_set(
    changes: list[tuple[bool, int, int]], start: int, end: int
) -> None:
    ranges, plain = built(changes)
    inside = set(range(start, end))
    assert ranges.count(start, end) == len(plain & inside)
    assert ranges.count() == len(plain)
    assert ranges.covers(start, end) == (inside <= plain)
    assert ranges.first_missing(start) == min(set(range(start, WIDE + 2)) - plain)
    assert ranges.first_present(start) == min(plain & set(range(start, WIDE)), default=None)
    present = list(ranges.present(start, end))
    missing = list(ranges.missing(start, end))
    assert {number for low, high in present for number in range(low, high)} == plain & inside
    assert {number for low, high in missing for number in range(low, high)} == inside - plain
    assert all(low < high for low, high in present + missing)


@given(steps)
def test_a_copy_made_of_the_ranges_is_equal(changes: list[tuple[bool, int, int]]) -> None:
    ranges, _ = built(changes)
    assert Intervals(ranges) == ranges
    assert [ranges[place] for place in range(-len(ranges), 0)] == list(ranges)


def test_touching_ranges_become_one() -> None:
    ranges = Intervals([(0, 5), (10, 15), (5, 10)])
    assert list(ranges) == [(0, 15)]
    assert repr(ranges) == "Intervals([(0, 15)])"


def test_a_range_near_2_to_the_53_is_one_range() -> None:
    ranges = Intervals([(0, (1 << 53) - 1)])
    ranges.remove(1 << 40, (1 << 40) + 1)
    assert len(ranges) == 2
    assert ranges.count() == (1 << 53) - 2
    assert ranges.first_missing(7) == 1 << 40


def test_clear_takes_everything_out() -> None:
    ranges = Intervals([(1, 2), (3, 4)])
    ranges.clear()
    assert not ranges
    assert ranges.first_present(0) is None


@pytest.mark.parametrize("place", [2, -3])
def test_a_range_that_is_not_there_is_an_index_error(place: int) -> None:
    with pytest.raises(IndexError):
        Intervals([(1, 2), (3, 4)])[place]


def test_another_type_is_never_equal() -> None:
    assert Intervals() != []
