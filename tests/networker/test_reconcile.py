"""Two tables that ask each other until both know what differs."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field

import pytest

from covey.networker.head_table import EMPTY, ROOT, Head, HeadTable, KeyRange, Summary
from covey.networker.reconcile import (
    ANSWER,
    FEW,
    FINAL,
    MAX_DEPTH,
    TAG,
    Probe,
    judge,
    leaf_of,
    read_probe,
    reply_to,
)
from tests.networker.test_head_table import filled, key


def random_keys(count: int, seed: int = 1) -> list[bytes]:
    chance = random.Random(seed)
    return [chance.randbytes(32) for _ in range(count)]


@dataclass
class Side:
    """One side, as a shell would run it: it wakes what is longer, and what is suspicious."""

    table: HeadTable
    told: dict[bytes, int] = field(default_factory=dict)
    woken: set[bytes] = field(default_factory=set)
    announced: int = 0
    lookups: int = 0

    def hear(self, heads: list[tuple[bytes, int]]) -> None:
        for one, length in heads:
            self.told[one] = length
            if length > (self.table.get(one) or EMPTY).length and one in self.table:
                self.woken.add(one)

    def answer(self, probe: Probe, other: Side) -> list[Probe]:
        given = read_probe(probe.encode())
        assert given == probe
        more: list[Probe] = []
        if probe.flags:
            found = judge(probe, self.told, self.table)
            self.woken.update(found.wake)
            more.extend(found.probes)
        reply = reply_to(probe, self.table)
        if reply.announce is not None:
            heads = [(one, head.length) for one, head in self.table.items(reply.announce)]
            self.announced += len(heads)
            other.hear(heads)
        self.lookups += len(reply.probes) + len(more)
        return [*reply.probes, *more]


def meet(first: Side, second: Side) -> int:
    """Everything that follows from the lookup of `first`; how many lookups there were."""
    waiting = deque([(first, second, Probe(ROOT, first.table.summary()))])
    count = 0
    while waiting:
        asker, asked, probe = waiting.popleft()
        count += 1
        assert count < 100_000
        waiting.extend((asked, asker, one) for one in asked.answer(probe, asker))
    return count


def sides(mine: dict[bytes, Head], theirs: dict[bytes, Head]) -> tuple[Side, Side]:
    return Side(filled(mine)), Side(filled(theirs))


def test_a_lookup_is_32_bytes_with_the_fields_of_the_layout() -> None:
    probe = Probe(KeyRange(3, 0xABC), Summary(258, b"d" * 18), ANSWER)
    raw = probe.encode()
    assert raw == b"cvy\x01" + b"\x01\x03" + b"\xab\xc0\x00\x00" + b"\x00\x00\x01\x02" + b"d" * 18
    assert read_probe(raw) == probe


@pytest.mark.parametrize(
    "raw",
    [
        None,
        b"",
        bytes(32),
        TAG + bytes(27),
        TAG + bytes(29),
        b"cvy\x02" + bytes(28),
        TAG + b"\x04" + bytes(27),
        TAG + b"\x03" + bytes(27),
        TAG + b"\x00\x09" + bytes(26),
        TAG + b"\x00\x00\x80" + bytes(25),
        TAG + b"\x00\x03\xab\xc1" + bytes(24),
    ],
)
def test_what_is_not_of_this_kind_is_no_lookup_of_ours(raw: bytes | None) -> None:
    assert read_probe(raw) is None


def test_every_range_there_can_be_survives_the_wire() -> None:
    for depth in range(MAX_DEPTH + 1):
        for prefix in {0, (1 << 4 * depth) - 1}:
            probe = Probe(KeyRange(depth, prefix), Summary(0, bytes(18)))
            assert read_probe(probe.encode()) == probe


def test_equal_sides_say_nothing_after_one_lookup() -> None:
    heads = {one: Head(0, 5) for one in random_keys(1000)}
    first, second = sides(heads, heads)
    assert meet(first, second) == 1
    assert first.announced == second.announced == 0


def test_few_changed_of_many_are_found_with_few_bytes() -> None:
    keys = random_keys(10_000)
    heads = {one: Head(0, 5) for one in keys}
    first, second = sides({**heads, **{one: Head(0, 6) for one in keys[:10]}}, heads)
    lookups = meet(first, second)
    assert second.woken == set(keys[:10])
    assert first.woken == set()
    assert lookups < 500
    assert first.announced + second.announced <= 2 * 10 * FEW


def test_changes_on_both_sides_are_found_by_whom_they_are_news_for() -> None:
    keys = random_keys(300)
    heads = {one: Head(0, 5) for one in keys}
    first, second = sides(
        {**heads, keys[0]: Head(0, 9), keys[1]: Head(0, 9)}, {**heads, keys[2]: Head(0, 7)}
    )
    meet(first, second)
    assert second.woken == set(keys[:2])
    assert first.woken == {keys[2]}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_differs_both_sides_learn_all_of_it(seed: int) -> None:
    chance = random.Random(seed)
    keys = random_keys(chance.choice([1, 5, 40, 300, 2000]), seed)
    mine = {one: Head(0, chance.randrange(4)) for one in keys}
    theirs = dict(mine)
    for one in keys:
        if chance.random() < 0.03:
            theirs[one] = Head(0, chance.randrange(4))
    first, second = sides(mine, theirs)
    meet(first, second)
    assert first.woken == {one for one in keys if theirs[one].length > mine[one].length}
    assert second.woken == {one for one in keys if mine[one].length > theirs[one].length}


def test_who_has_nothing_is_told_everything_at_once() -> None:
    keys = random_keys(2000)
    first, second = sides(dict.fromkeys(keys, EMPTY), {one: Head(0, 1) for one in keys})
    assert meet(first, second) == 1
    assert first.woken == set(keys)
    other, again = sides({one: Head(0, 1) for one in keys}, dict.fromkeys(keys, EMPTY))
    assert meet(other, again) <= 3
    assert again.woken == set(keys)


def test_an_answer_provokes_no_lookup_that_asks() -> None:
    table = filled({one: Head(0, 1) for one in random_keys(500)})
    reply = reply_to(Probe(ROOT, Summary(3, bytes(18)), ANSWER), table)
    assert reply.announce == ROOT
    assert [probe.flags for probe in reply.probes] == [FINAL]
    assert reply_to(Probe(ROOT, Summary(3, bytes(18)), FINAL), table) == (None, ())


@pytest.mark.parametrize("count", [1, 3, 20, 300])
def test_a_fork_of_equal_length_wakes_it_on_both_sides(count: int) -> None:
    keys = random_keys(count)
    heads = {one: Head(0, 5) for one in keys}
    first, second = sides({**heads, keys[0]: Head(1, 5)}, heads)
    meet(first, second)
    for side in (first, second):
        assert keys[0] in side.woken
        assert len(side.woken) <= FEW


def test_a_fork_in_groups_that_are_not_alike_is_found_too() -> None:
    keys = random_keys(60)
    heads = {one: Head(0, 5) for one in keys}
    first, second = sides({**heads, keys[0]: Head(1, 5)}, {one: heads[one] for one in keys[:40]})
    meet(first, second)
    assert keys[0] in first.woken | second.woken


def test_a_shorter_log_of_the_same_history_wakes_nobody_who_has_more() -> None:
    first, second = sides({key(1): Head(0, 9)}, {key(1): Head(0, 5)})
    meet(second, first)
    assert first.woken == set()
    assert second.woken == {key(1)}


def test_a_cut_that_is_told_live_is_noticed_by_its_digest() -> None:
    cut, there = filled({key(1): Head(1, 3)}), filled({key(1): Head(0, 5)})
    probe = leaf_of(key(1), cut)
    assert judge(probe, {key(1): 3}, there).wake == (key(1),)
    assert judge(probe, {key(1): 3}, filled({key(1): Head(1, 2)})).wake == ()


def test_a_digest_without_the_heads_it_is_about_says_nothing() -> None:
    probe = leaf_of(key(1), filled({key(1): Head(1, 3)}))
    assert judge(probe, {}, filled({key(1): Head(0, 5)})) == ((), ())


def test_a_range_at_the_end_of_its_depth_is_announced_however_many_there_are() -> None:
    keys = [b"same" + bytes([number]) * 28 for number in range(20)]
    table = filled({one: Head(0, 1) for one in keys})
    where = KeyRange(MAX_DEPTH, int.from_bytes(b"same", "big"))
    assert reply_to(Probe(where, Summary(20, bytes(18))), table).announce == where
