"""The table of a group's heads, and the ranges in it."""

from __future__ import annotations

import random
import sys

import pytest

from covey.errors import UsageError
from covey.networker.head_table import (
    EMPTY,
    ROOT,
    Head,
    HeadTable,
    KeyRange,
    digest_of,
)


def key(number: int) -> bytes:
    """The key that starts with these 4 bytes."""
    return number.to_bytes(4, "big") + bytes(28)


def filled(heads: dict[bytes, Head]) -> HeadTable:
    table = HeadTable()
    table.add(heads)
    for one, head in heads.items():
        table.set(one, head)
    return table


def test_a_log_is_unknown_until_its_head_is_set() -> None:
    table = HeadTable()
    assert table.add([key(2), key(1), key(2)]) == [key(1), key(2)]
    assert table.add([key(2)]) == []
    assert [*table] == [key(1), key(2)]
    assert table.get(key(1)) is None
    assert table.set(key(1), Head(0, 3))
    assert table.get(key(1)) == Head(0, 3)
    assert not table.set(key(9), Head(0, 3))
    assert key(9) not in table
    assert len(table) == 2


def test_what_is_no_key_is_refused_and_nothing_is_taken_in() -> None:
    table = HeadTable()
    with pytest.raises(UsageError):
        table.add([key(1), b"short"])
    assert len(table) == 0


def test_many_keys_at_once_keep_the_heads_there_are() -> None:
    table = filled({key(5): Head(2, 7)})
    table.add([key(number) for number in range(1000)])
    assert len(table) == 1000
    assert [*table] == sorted(table)
    assert table.get(key(5)) == Head(2, 7)
    assert table.get(key(6)) is None


def test_the_revision_and_the_digest_follow_each_visible_change() -> None:
    table = HeadTable()
    table.add([key(1), key(2)])
    before = table.revision, table.summary()
    assert not table.set(key(1), EMPTY)
    assert (table.revision, table.summary()) == before
    assert table.set(key(1), Head(0, 1))
    first = table.summary()
    assert (first.count, table.revision) == (1, before[0] + 1)
    assert not table.set(key(1), Head(0, 1))
    assert table.set(key(1), Head(1, 1))
    assert table.summary() != first
    assert table.set(key(1), Head(0, 1))
    assert table.summary() == first
    assert table.discard(key(1))
    assert table.summary() == before[1]
    assert not table.discard(key(1))
    revision = table.revision
    assert table.discard(key(2))
    assert table.revision == revision


def test_a_log_cut_to_nothing_counts_as_one_that_is_not_here() -> None:
    assert filled({key(1): Head(1, 0)}).summary() == filled({key(1): EMPTY}).summary()
    assert filled({key(1): Head(1, 0)}).items() == []


def test_the_ranges_below_a_range_share_its_keys_out() -> None:
    chance = random.Random(7)
    keys = [chance.randbytes(32) for _ in range(500)] + [bytes(32), b"\xff" * 32]
    table = filled({one: Head(0, 1) for one in keys})
    ranges = [ROOT]
    for _ in range(3):
        below = [child for one in ranges for child in one.children()]
        found = [one for where in below for one, _ in table.items(where)]
        assert found == sorted(keys)
        assert sum(table.count(where) for where in below) == len(keys)
        ranges = below
    for where in ranges:
        inside = [one for one in keys if one in where]
        assert sorted(inside) == [one for one, _ in table.items(where)]


def test_a_range_has_the_keys_that_begin_with_its_nibbles() -> None:
    where = KeyRange(3, 0xABC)
    assert bytes.fromhex("abc0" + "00" * 30) in where
    assert bytes.fromhex("abcf" + "ff" * 30) in where
    assert bytes.fromhex("abd0" + "00" * 30) not in where
    assert "abc" not in where
    assert KeyRange(2, 0xFF).after is None
    assert ROOT.after is None


def test_the_digest_is_that_of_key_fork_and_length_in_order() -> None:
    table = filled({key(2): Head(1, 5), key(1): Head(0, 4), key(3): EMPTY})
    assert table.summary() == digest_of([(key(1), Head(0, 4)), (key(2), Head(1, 5))])
    assert table.summary().count == 2
    assert len(table.summary().digest) == 18
    assert table.summary(KeyRange(8, 2)) == digest_of([(key(2), Head(1, 5))])


def test_a_log_costs_its_key_and_little_more() -> None:
    table = HeadTable()
    keys = [key(number) for number in range(10_000)]
    table.add(keys)
    for one in keys:
        table.set(one, Head(0, 9))
    beside = sys.getsizeof(table._keys) + sys.getsizeof(table._lengths)
    assert beside / len(keys) < 20
