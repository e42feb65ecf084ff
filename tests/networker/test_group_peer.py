"""One peer of a group, with a session that notes what would be sent."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from covey.limits import Limits
from covey.networker import group_peer as group_peer_module
from covey.networker.group_peer import FRESH, MOST_TOLD, GroupPeer, GroupPeerOptions
from covey.networker.head_table import ROOT, Head, HeadTable, Summary
from covey.networker.reconcile import ANEW, ANSWER, FINAL, Probe, leaf_of, read_probe
from covey.networker.wakeup_policy import FULL_PAUSE
from covey.owned_tasks import OwnedTasks
from covey.wakeup import WakeupPeer, WakeupSession, WriterHead
from tests.networker.test_head_table import filled, key
from tests.waiting import until


class FakeChannel:
    """Takes everything while `full` is not set."""

    closed = False

    def __init__(self) -> None:
        self.full = False
        self._emptied = asyncio.Event()

    @property
    def drained(self) -> bool:
        return not self.full

    async def drain(self) -> None:
        await self._emptied.wait()

    def empty(self) -> None:
        self.full = False
        self._emptied.set()


class FakeStream:
    def __init__(self, *, initiator: bool) -> None:
        self.initiator = initiator


class FakePeer:
    def __init__(self, *, initiator: bool) -> None:
        self.channel = FakeChannel()
        self.stream = FakeStream(initiator=initiator)


class Sent:
    """A session; `announces` and `probes` are what it was to send."""

    def __init__(self) -> None:
        self.announces: list[list[WriterHead]] = []
        self.hashes: list[bytes] = []

    def announce(self, _peer: object, heads: Iterable[WriterHead]) -> None:
        self.announces.append(list(heads))

    def lookup(self, _peer: object, given: bytes) -> None:
        self.hashes.append(given)

    @property
    def probes(self) -> list[Probe | None]:
        return [read_probe(given) for given in self.hashes]


@asynccontextmanager
async def talking(
    table: HeadTable, *, initiator: bool = False, accepts: bool = False, **limits: Any
) -> AsyncIterator[tuple[GroupPeer, Sent, FakeChannel, list[Any]]]:
    tasks = OwnedTasks(logging.getLogger("covey.test"))
    sent, peer, suspects = Sent(), FakePeer(initiator=initiator), []
    options = GroupPeerOptions(
        table=table,
        accepts=accepts,
        limits=Limits(**limits),
        tasks=tasks,
        suspect=lambda _peer, heads: suspects.append(heads),
    )
    made = GroupPeer(cast("WakeupPeer", peer), cast("WakeupSession", sent), options)
    try:
        yield made, sent, peer.channel, suspects
    finally:
        made.close()
        await tasks.end()


def some(count: int) -> HeadTable:
    return filled({key(number * 7919 << 8): Head(0, 1) for number in range(count)})


def leaf_probe(one: bytes, table: HeadTable) -> Probe:
    where = leaf_of(one)
    return Probe(where, table.summary(where), FINAL)


ROOT_PROBE = Probe(ROOT, Summary(100, bytes(18)))


async def test_the_responder_answers_a_root_lookup() -> None:
    async with talking(some(100)) as (peer, sent, _, _):
        peer.looked_up(ROOT_PROBE.encode())
        assert len(sent.hashes) == 16
        assert sent.announces == []


async def test_the_initiator_leaves_it_to_its_own_unless_its_heads_changed() -> None:
    table = some(100)
    async with talking(table, initiator=True) as (peer, sent, _, _):
        peer.ask()
        peer.looked_up(ROOT_PROBE.encode())
        assert sent.probes == [Probe(ROOT, table.summary())]
        peer.looked_up(ROOT_PROBE.encode())
        assert sent.probes == [Probe(ROOT, table.summary())] * 2
        table.set(next(iter(table)), Head(0, 9))
        peer.looked_up(ROOT_PROBE.encode())
        assert sent.probes[2] == Probe(ROOT, table.summary())
        peer.looked_up(Probe(ROOT, table.summary()).encode())
        assert len(sent.hashes) == 3


async def test_an_answer_gets_the_range_and_its_digest_and_no_question() -> None:
    table = some(5)
    async with talking(table, initiator=True) as (peer, sent, _, _):
        peer.looked_up(Probe(ROOT, Summary(4, bytes(18)), ANSWER).encode())
        assert [len(heads) for heads in sent.announces] == [5]
        assert sent.probes == [Probe(ROOT, table.summary(), FINAL)]


async def test_who_can_use_nothing_neither_asks_nor_answers() -> None:
    async with talking(HeadTable()) as (peer, sent, _, _):
        peer.ask()
        peer.looked_up(ROOT_PROBE.encode())
        peer.looked_up(None)
        assert (sent.hashes, sent.announces) == ([], [])
    async with talking(HeadTable(), accepts=True) as (peer, sent, _, _):
        peer.ask()
        assert len(sent.hashes) == 1


async def test_a_changed_fork_is_followed_by_its_digest() -> None:
    table = filled({key(1): Head(0, 1), key(2): Head(1, 1)})
    async with talking(table) as (peer, sent, _, _):
        peer.tell([key(1), key(2)], [key(2)])
        assert sent.announces == [[WriterHead(key(1), 1)], [WriterHead(key(2), 1)]]
        assert sent.probes == [leaf_probe(key(2), table)]


async def test_what_waits_for_a_slow_peer_is_one_key_each_and_the_newest_head() -> None:
    table = some(10)
    first = next(iter(table))
    async with talking(table) as (peer, sent, channel, _):
        channel.full = True
        for length in range(2, 100):
            table.set(first, Head(0, length))
            peer.tell([first], [])
        assert sent.announces == []
        assert list(peer._keys) == [first]
        channel.empty()
        await until(lambda: sent.announces)
        assert sent.announces == [[WriterHead(first, 99)]]


async def test_lookups_that_wait_for_a_slow_peer_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_peer_module, "MOST_STEPS", 12)
    async with talking(some(100)) as (peer, sent, channel, _):
        channel.full = True
        monkeypatch.setattr(peer, "flush", lambda: None)
        for where in [ROOT, *ROOT.children()]:
            peer.looked_up(Probe(where, Summary(90, bytes(18))).encode())
        assert len(peer._steps) == 12
        assert len(peer._left_out) == 5
        assert peer._owed is not None
        assert sent.hashes == []


async def test_a_peer_that_asks_too_much_gets_no_answer_and_is_asked_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(group_peer_module, "OWED_PAUSE", 0.01)
    async with talking(some(100), lookups_per_second=1.0) as (peer, sent, _, _):
        for _ in range(1000):
            peer.looked_up(ROOT_PROBE.encode())
        assert 16 <= len(sent.hashes) <= 16 * 16
        answered = len(sent.hashes)
        await until(lambda: len(sent.hashes) > answered)
        assert sent.probes[answered:] == [Probe(ROOT, peer._table.summary(), ANEW)]


async def test_the_whole_group_is_told_so_often_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    table = some(100)
    monkeypatch.setattr(group_peer_module, "MOST_ENTRIES", 50)
    lopsided = Probe(ROOT, Summary(0, bytes(18))).encode()
    async with talking(table) as (peer, sent, _, _):
        for _ in range(50):
            peer.looked_up(lopsided)
        assert sum(map(len, sent.announces)) <= len(table) + 50
        assert peer._owed is not None


async def test_a_foreign_peer_is_told_everything_once_in_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with talking(some(9)) as (peer, sent, _, _):
        now = peer._loop.time()
        for _ in range(5):
            peer.looked_up(None)
        assert [len(heads) for heads in sent.announces] == [9]
        monkeypatch.setattr(peer, "_all_told_at", now - FULL_PAUSE)
        peer.looked_up(bytes(32))
        assert [len(heads) for heads in sent.announces] == [9, 9]


async def test_lengths_are_remembered_for_the_digest_only_and_few_of_them() -> None:
    table = filled({key(1): Head(0, 5)})
    async with talking(table) as (peer, _, _, suspects):
        peer.announced([WriterHead(key(1), 3)])
        peer.looked_up(leaf_probe(key(1), filled({key(1): Head(1, 3)})).encode())
        assert suspects == [[(key(1), 3)]]
        assert peer._told == {}
        for start in range(0, 100_000, 500):
            peer.announced([WriterHead(key(start + one), 1) for one in range(500)])
            assert len(peer._told) <= MOST_TOLD
        peer.announced([WriterHead(key(one), 1) for one in range(MOST_TOLD + 1)])
        assert [*peer._told] == [key(one) for one in range(1, MOST_TOLD + 1)]


async def test_after_close_nothing_is_sent_any_more() -> None:
    async with talking(some(5)) as (peer, sent, channel, _):
        channel.full = True
        peer.tell(list(some(5)), [])
        peer.close()
        peer.close()
        channel.empty()
        await asyncio.sleep(0)
        peer.ask()
        assert (sent.hashes, sent.announces) == ([], [])


async def test_the_lookups_for_eight_changed_of_many_fit_into_what_a_peer_may_cost() -> None:
    chance = random.Random(3)
    heads = {chance.randbytes(32): Head(0, 1) for _ in range(5000)}
    changed = list(heads)[:8]
    ours, theirs = filled(heads), filled({**heads, **dict.fromkeys(changed, Head(0, 2))})
    async with (
        talking(ours, initiator=True) as (here, to_there, _, _),
        talking(theirs) as (there, to_here, _, _),
    ):
        here.ask()
        there.ask()
        heard: set[bytes] = set()
        while to_there.hashes or to_here.hashes:
            for sent, side in ((to_there, there), (to_here, here)):
                announces, sent.announces = sent.announces, []
                hashes, sent.hashes = sent.hashes, []
                for told in announces:
                    side.announced(told)
                    heard |= {one for one, length in told if length == 2}
                for given in hashes:
                    side.looked_up(given)
        assert heard == set(changed)
        assert here._owed is None
        assert there._owed is None


class Clock:
    """Time that stands still until a test moves it, and what is due by then."""

    def __init__(self, now: float) -> None:
        self.now = now
        self.timers: list[tuple[float, Any]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Any) -> asyncio.TimerHandle:
        self.timers.append((self.now + delay, callback))
        return cast("asyncio.TimerHandle", Timer())

    def move(self, seconds: float) -> None:
        self.now += seconds
        due = [callback for at, callback in self.timers if at <= self.now]
        self.timers = [timer for timer in self.timers if timer[0] > self.now]
        for callback in due:
            callback()


class Timer:
    def cancel(self) -> None:
        pass


def exchange(*sides: tuple[GroupPeer, Sent]) -> set[bytes]:
    """Give each side what the other sent, to the end; gives what was told at length 2."""
    heard: set[bytes] = set()
    while any(sent.hashes or sent.announces for _, sent in sides):
        for (_, sent), (side, _) in zip(sides, reversed(sides), strict=True):
            announces, sent.announces = sent.announces, []
            hashes, sent.hashes = sent.hashes, []
            for told in announces:
                side.announced(told)
                heard |= {one for one, length in told if length == 2}
            for given in hashes:
                side.looked_up(given)
    return heard


@pytest.mark.parametrize("most_owed", [2048, 32])
async def test_more_changes_than_one_may_ask_for_at_once_are_all_told_in_the_end(
    most_owed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_peer_module, "MOST_OWED", most_owed)
    chance = random.Random(3)
    heads = {chance.randbytes(32): Head(0, 1) for _ in range(3000)}
    changed = set(chance.sample([*heads], 900))
    ours, theirs = filled(heads), filled({**heads, **dict.fromkeys(changed, Head(0, 2))})
    async with (
        talking(ours, initiator=True, lookups_per_second=20) as (here, to_there, _, _),
        talking(theirs, lookups_per_second=20) as (there, to_here, _, _),
    ):
        clock = Clock(here._loop.time())
        here._loop = there._loop = cast("asyncio.AbstractEventLoop", clock)
        here.ask()
        there.ask()
        known = exchange((here, to_there), (there, to_here))
        assert known < changed
        rounds = 0
        while clock.timers:
            rounds += 1
            assert rounds < 500
            for one in known:
                ours.set(one, Head(0, 2))
            clock.move(1.0)
            known = exchange((here, to_there), (there, to_here))
        assert ours.summary() == theirs.summary()


async def test_the_initiator_answers_each_lookup_of_everything_that_comes_later() -> None:
    ours = some(100)
    theirs = some(100)
    async with (
        talking(ours, initiator=True) as (here, to_there, _, _),
        talking(theirs) as (there, to_here, _, _),
    ):
        here.ask()
        there.ask()
        exchange((here, to_there), (there, to_here))
        for one in [*ours][:3]:
            ours.set(one, Head(0, 2))
            there.ask_anew()
            assert one in exchange((here, to_there), (there, to_here))
            theirs.set(one, Head(0, 2))


async def test_logs_that_came_later_are_asked_for_and_told_with_their_digest() -> None:
    ours = filled({key(1): Head(0, 1)})
    theirs = filled({key(1): Head(0, 1), key(2): Head(0, 2), key(3): Head(1, 1)})
    async with (
        talking(ours) as (here, to_there, _, here_suspects),
        talking(theirs) as (there, to_here, _, there_suspects),
    ):
        ours.add([key(2), key(3)])
        ours.set(key(3), Head(0, 5))
        here.ask_anew([key(2), key(3)])
        assert exchange((here, to_there), (there, to_here)) == {key(2)}
        assert [[one for one, _ in heads] for heads in here_suspects] == [[key(3)]]
        assert [[one for one, _ in heads] for heads in there_suspects] == [[key(3)]]


async def test_for_many_logs_that_came_later_everything_is_compared_once() -> None:
    table = some(FRESH + 1)
    async with talking(table) as (peer, sent, _, _):
        peer.ask_anew([*table])
        assert [len(heads) for heads in sent.announces] == [FRESH + 1]
        assert sent.probes == [Probe(ROOT, table.summary(), ANEW)]


async def test_no_announce_has_more_heads_than_are_taken_in_one() -> None:
    table = some(250)
    async with talking(table, wakeup_announced=100) as (peer, sent, _, _):
        peer.looked_up(None)
        peer.looked_up(Probe(ROOT, Summary(0, bytes(18))).encode())
        assert [len(heads) for heads in sent.announces] == [100, 100, 50] * 2


async def test_who_reads_slowly_is_sent_no_more_ranges_than_it_takes() -> None:
    table = filled({bytes([number]) * 32: Head(0, 1) for number in range(250)})
    async with talking(table) as (peer, sent, channel, _):
        channel.full = True
        for child in ROOT.children():
            peer.looked_up(Probe(child, Summary(1, bytes(18))).encode())
        assert (sent.hashes, sent.announces) == ([], [])
        channel.empty()
        await until(lambda: len(sent.hashes) == 16)
        assert sum(map(len, sent.announces)) == 250
