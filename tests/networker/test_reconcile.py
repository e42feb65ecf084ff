"""Two tables that ask each other until both know what differs."""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest

from covey.networker.head_table import EMPTY, ROOT, Head, HeadTable, KeyRange, Summary
from covey.networker.reconcile import (
    ANSWER,
    FEW,
    FINAL,
    MAX_DEPTH,
    MOST_TOGETHER,
    TAG,
    Probe,
    Step,
    coarser,
    judge,
    leaf_of,
    read_probe,
    reply_to,
)
from tests.networker.test_head_table import filled, key

Message: TypeAlias = tuple[list[tuple[bytes, int]], Probe]
MOST_TOLD = 2 * MOST_TOGETHER


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

    def send(self, step: Step) -> Message:
        items = self.table.items(step.where) if step.tells else []
        self.announced += len(items)
        self.lookups += 1
        probe = Probe(step.where, self.table.summary(step.where), step.flags)
        return [(one, head.length) for one, head in items], probe

    def hear(self, heads: list[tuple[bytes, int]]) -> None:
        for one, length in heads:
            self.told.pop(one, None)
            self.told[one] = length
            if length > (self.table.get(one) or EMPTY).length and one in self.table:
                self.woken.add(one)
        while len(self.told) > MOST_TOLD:
            del self.told[next(iter(self.told))]

    def answer(self, message: Message) -> list[Message]:
        heads, probe = message
        self.hear(heads)
        assert read_probe(probe.encode()) == probe
        steps: list[Step] = []
        if probe.judges:
            found = judge(probe, self.told, self.table)
            self.woken.update(found.wake)
            steps.extend(found.steps)
        steps.extend(reply_to(probe, self.table))
        return [self.send(step) for step in steps]


def meet(first: Side, second: Side) -> int:
    """Everything that follows from the lookup of `first`; how many lookups there were."""
    waiting = deque([(first, second, first.send(Step(ROOT)))])
    count = 0
    while waiting:
        asker, asked, message = waiting.popleft()
        count += 1
        assert count < 100_000
        waiting.extend((asked, asker, one) for one in asked.answer(message))
    return count


def probe_of(one: bytes, table: HeadTable) -> Probe:
    where = leaf_of(one)
    return Probe(where, table.summary(where), FINAL)


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
        TAG + b"\x05" + bytes(27),
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
    assert meet(first, second) <= 1 + 16
    assert first.woken == set(keys)
    other, again = sides({one: Head(0, 1) for one in keys}, dict.fromkeys(keys, EMPTY))
    assert meet(other, again) <= 1 + 1 + 16
    assert again.woken == set(keys)


def test_an_answer_provokes_no_lookup_that_asks() -> None:
    table = filled({one: Head(0, 1) for one in random_keys(500)})
    assert reply_to(Probe(ROOT, Summary(3, bytes(18)), ANSWER), table) == (Step(ROOT, FINAL),)
    assert reply_to(Probe(ROOT, Summary(3, bytes(18)), FINAL), table) == ()


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
    probe = probe_of(key(1), cut)
    assert judge(probe, {key(1): 3}, there).wake == (key(1),)
    assert judge(probe, {key(1): 3}, filled({key(1): Head(1, 2)})).wake == ()


def test_a_digest_without_the_heads_it_is_about_says_nothing() -> None:
    probe = probe_of(key(1), filled({key(1): Head(1, 3)}))
    assert judge(probe, {}, filled({key(1): Head(0, 5)})) == ((), ())


def test_a_range_at_the_end_of_its_depth_is_announced_however_many_there_are() -> None:
    keys = [b"same" + bytes([number]) * 28 for number in range(20)]
    table = filled({one: Head(0, 1) for one in keys})
    where = KeyRange(MAX_DEPTH, int.from_bytes(b"same", "big"))
    assert reply_to(Probe(where, Summary(20, bytes(18))), table) == (Step(where, ANSWER),)


@pytest.mark.parametrize("count", [1000, 1100, 3000])
@pytest.mark.parametrize("cut", [0, 1])
def test_a_cut_is_found_where_one_side_lacks_many_logs(count: int, cut: int) -> None:
    keys = random_keys(count)
    pair = [dict.fromkeys(keys, Head(0, 5)), dict.fromkeys(keys[: count * 9 // 10], Head(0, 5))]
    pair[cut][keys[0]] = Head(1, 3)
    both = sides(pair[0], pair[1])
    meet(*both)
    assert keys[0] in both[1 - cut].woken


@pytest.mark.parametrize("seed", range(60))
def test_the_side_behind_learns_of_forks_and_lengths_whatever_differs(seed: int) -> None:
    chance = random.Random(seed)
    keys = [
        (b"same" if chance.random() < 0.1 else chance.randbytes(4)) + chance.randbytes(28)
        for _ in range(chance.choice([3, 9, 12, 30, 60, 300, 1500]))
    ]
    base = {one: Head(chance.choice([0, 0, 0, 1]), chance.choice([1, 5, 9])) for one in keys}
    pair: list[dict[bytes, Head]] = []
    for _ in range(2):
        lacking, other = chance.choice([0, 0.05, 0.3]), chance.choice([0.01, 0.1, 0.6])
        one_side = {one: head for one, head in base.items() if chance.random() >= lacking}
        for one, head in one_side.items():
            if chance.random() < other:
                one_side[one] = Head(head.fork + chance.choice([0, 1]), chance.randrange(1, 12))
        pair.append(one_side)
    first, second = both = sides(pair[0], pair[1])
    meet(first, second)
    for one in pair[0].keys() & pair[1].keys():
        if pair[0][one] != pair[1][one]:
            behind = both[0 if pair[0][one] < pair[1][one] else 1]
            assert one in behind.woken


def test_of_a_large_range_parts_are_told_that_are_remembered_until_their_digest() -> None:
    table = filled(dict.fromkeys(random_keys(20_000), Head(0, 1)))
    steps = reply_to(Probe(ROOT, Summary(0, bytes(18))), table)
    assert all(step.flags == FINAL for step in steps)
    assert max(table.count(step.where) for step in steps) <= MOST_TOGETHER
    assert sum(table.count(step.where) for step in steps) == 20_000


def test_ranges_that_are_too_many_become_the_larger_ones_that_they_are_in() -> None:
    leaves = [KeyRange(4, number) for number in range(100)]
    assert coarser(leaves, 100) == leaves
    assert coarser([*leaves, KeyRange(2, 7)], 20) == [
        *[KeyRange(3, number) for number in range(7)],
        KeyRange(2, 7),
    ]
    assert coarser([*leaves, KeyRange(4, 65535)], 0) == [ROOT]
