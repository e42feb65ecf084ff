"""Groups of logs between networkers: a hint wakes, and nothing else does."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from covey.networker import group as group_module
from covey.networker import group_peer as group_peer_module
from covey.networker import wakeup_policy
from covey.networker.group import ANNOUNCE_WINDOW
from covey.networker.group_peer import FRESH
from covey.networker.head_table import Head, KeyRange, Summary
from covey.networker.reconcile import FINAL, Probe
from covey.store import open_log
from covey.store.basestore import Basestore
from covey.store.feed_events import Appended, HeadChanged, PeerAdded, PeerRemoved, Uploaded
from covey.wakeup import WriterHead
from tests.networker.groups import (
    Member,
    append,
    close_logs,
    copy_feeds,
    liar,
    listening,
    make_feeds,
    member,
    remote_limits,
    two,
    two_stores,
)
from tests.networker.support import TOPIC, until


def lookups(made: Member) -> tuple[int, int]:
    stats = made.networker.wakeup.stats  # type: ignore[union-attr]
    return stats.wire_lookup_rx, stats.wire_lookup_tx


def announces(made: Member) -> tuple[int, int]:
    stats = made.networker.wakeup.stats  # type: ignore[union-attr]
    return stats.wire_announce_rx, stats.wire_announce_tx


def has_head(made: Member, key: bytes, length: int) -> bool:
    return bool(made.head(key) == Head(0, length))


def has_closed(made: Member, count: int) -> bool:
    return len(made.keys("idle-closed")) == count


# What a hint does


async def test_an_append_wakes_the_log_at_the_other_side_and_brings_it() -> None:
    async with two_stores(3) as (stores, keys), two(stores, keys) as (first, second):
        await append(stores[0], keys[1], b"new")
        await until(lambda: second.keys("caught-up") == [keys[1]])
        assert second.hinted == second.keys("woken") == [keys[1]]
        assert second.group.woken == {keys[1]}
        async with await stores[1].get(keys[1], active=False) as copy:
            assert await copy.get(1, wait=False) == b"new"
        assert first.keys("woken") == []
        assert second.head(keys[1]) == first.head(keys[1]) == Head(0, 2)


async def test_equal_sides_exchange_one_lookup_each_and_open_nothing() -> None:
    async with two_stores(300) as (stores, keys), two(stores, keys) as (first, second):
        await until(lambda: lookups(first) == lookups(second) == (1, 1))
        await asyncio.sleep(2 * ANNOUNCE_WINDOW)  # what must not come would come by then
        for side in (first, second):
            assert lookups(side) == (1, 1)
            assert announces(side) == (0, 0)
            assert side.channels == set()
            assert [event.type for event in side.events] == ["peer-add"]


async def test_three_changed_of_300_open_exactly_three_channels() -> None:
    async with two_stores(300) as (stores, keys):
        for key in keys[:3]:
            await append(stores[0], key, b"new")
        close_logs(stores[0])
        opened: list[list[bytes]] = [[], []]
        for store, seen in zip(stores, opened, strict=True):
            store.watch(lambda event, seen=seen: seen.append(event.key))
        async with two(stores, keys) as (first, second):
            await until(lambda: len(second.keys("caught-up")) == 3)
            assert sorted(second.keys("woken")) == sorted(keys[:3])
            assert sorted(opened[0]) == sorted(opened[1]) == sorted(keys[:3])
            assert first.keys("woken") == []
            assert len(first.channels) == len(second.channels) == 3
            assert sum(lookups(first)) < 200


async def test_a_log_that_nobody_had_before_is_brought_whole() -> None:
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 5, blocks=10)
        async with two(stores, keys) as (_, second):
            await until(lambda: len(second.keys("caught-up")) == 5)
            for key in keys:
                assert second.head(key) == Head(0, 10)
                async with await stores[1].get(key, active=False) as copy:
                    assert copy.contiguous_length == 10


async def test_without_download_only_the_head_comes() -> None:
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 1, blocks=10)
        async with two(stores, keys, download=False) as (_, second):
            await until(lambda: second.keys("caught-up") == keys)
            async with await stores[1].get(keys[0], active=False) as copy:
                assert (copy.length, copy.contiguous_length) == (10, 0)


async def test_appends_in_a_short_window_are_one_announce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_module, "ANNOUNCE_WINDOW", 0.5)
    async with two_stores(20) as (stores, keys), two(stores, keys) as (first, second):
        await until(lambda: lookups(first) == (1, 1))
        for key in keys:
            for number in range(5):
                await append(stores[0], key, b"%d" % number)
        await until(lambda: len(second.keys("caught-up")) >= 20)
        await until(lambda: all(second.head(key) == Head(0, 6) for key in keys))
        assert announces(first)[1] == 1


async def test_who_gave_a_hint_is_not_told_the_same_in_return() -> None:
    async with two_stores(1) as (stores, keys), two(stores, keys) as (first, second):
        await append(stores[0], keys[0], b"new")
        await until(lambda: second.keys("caught-up") == keys)
        await asyncio.sleep(2 * ANNOUNCE_WINDOW)  # what must not come would come by then
        assert announces(first) == (0, 1)


async def test_a_hint_travels_on_to_those_who_do_not_know_its_writer() -> None:
    async with AsyncExitStack() as stack:
        (one, two_), keys = await stack.enter_async_context(two_stores(5))
        three = await stack.enter_async_context(Basestore())
        first, middle = await stack.enter_async_context(two((one, two_), keys))
        place = await listening(middle)
        last = await stack.enter_async_context(member(three, keys, peers=[place]))
        await last.networker.configure(TOPIC)
        await until(lambda: len(last.keys("caught-up")) == 5)
        await append(one, keys[2], b"new")
        await until(lambda: last.head(keys[2]) == Head(0, 2))
        await until(lambda: last.keys("caught-up").count(keys[2]) == 2)
        assert len(last.networker.peers) == len(first.networker.peers) == 1


async def test_a_removed_feed_is_neither_announced_nor_opened() -> None:
    async with two_stores(3) as (stores, keys), two(stores, keys) as (first, second):
        first.group.remove(keys[0])
        second.group.remove(keys[1])
        assert keys[0] not in first.group
        assert len(first.group.feeds) == 2
        for key in keys:
            await append(stores[0], key, b"new")
        await until(lambda: second.keys("caught-up") == [keys[2]])
        unknown = second.told("unknown-writer")[-1]
        assert (unknown.heads, unknown.count) == ((WriterHead(keys[1], 2),), 1)
        assert second.keys("woken") == [keys[2]]


async def test_a_feed_that_is_removed_while_it_is_open_is_closed() -> None:
    async with two_stores(1) as (stores, keys), two(stores, keys) as (_, second):
        await append(stores[0], keys[0], b"new")
        await until(lambda: second.keys("caught-up") == keys)
        second.group.remove(*keys)
        await until(lambda: not second.group.woken)
        assert second.told("given-up")[0].reason == "removed"


async def test_a_feed_that_is_added_later_is_looked_up_and_announced() -> None:
    async with two_stores() as (stores, _), two(stores, []) as (first, second):
        keys = await make_feeds(stores[0], 3)
        second.group.add(*keys)
        assert second.group.feeds.head(keys[0]) is None
        first.group.add(*keys)
        await until(lambda: sorted(second.keys("caught-up")) == sorted(keys))
        assert list(first.group.feeds) == sorted(keys)


@pytest.mark.parametrize("latecomer", [0, 1])
async def test_who_adds_a_log_after_the_meeting_gets_what_the_other_has(latecomer: int) -> None:
    async with two_stores(3) as (stores, old), two(stores, old) as pair:
        late, early = pair[latecomer], pair[1 - latecomer]
        keys = await make_feeds(early.store, 2, name="late")
        early.group.add(*keys)
        await until(lambda: sum(event.count for event in late.told("unknown-writer")) == 2)
        late.group.add(*keys)
        await until(lambda: sorted(late.keys("caught-up")) == sorted(keys))


async def test_logs_that_are_added_to_an_empty_group_after_the_meeting_come_too() -> None:
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], FRESH + 6)
        async with member(stores[0], keys) as first:
            place = await listening(first)
            async with member(stores[1], [], peers=[place]) as second:
                await second.networker.configure(TOPIC)
                await until(lambda: lookups(second) == (1, 0))
                second.group.add(*keys)
                await until(lambda: set(second.keys("caught-up")) == set(keys))


async def test_a_lookup_of_the_listener_long_after_the_meeting_is_answered() -> None:
    async with two_stores(1) as (stores, keys), two(stores, keys) as (first, second):
        await until(lambda: lookups(second) == (1, 1))
        second.group._table.set(keys[0], Head(0, 9))
        second.group._peers[second.group.peers[0]]._roots.sent(second.group._table.revision)
        first.group.lookup()
        await until(lambda: first.hinted == keys)


# Forks


async def test_a_log_that_was_cut_is_cut_at_the_other_side_too() -> None:
    async with two_stores(3) as (stores, keys):
        await append(stores[0], keys[0], b"1", b"2", b"3")
        await copy_feeds(stores[0], stores[1], keys)
        async with two(stores, keys) as (first, second):
            async with await stores[0].get(keys[0], active=False) as feed:
                await feed.truncate(1)
            await until(lambda: second.head(keys[0]) == Head(1, 1))
            await until(lambda: second.keys("caught-up") == [keys[0]])
            assert first.keys("woken") == []


@pytest.mark.parametrize("count", [1, 40])
async def test_a_fork_of_the_same_length_is_noticed_on_connect(count: int) -> None:
    async with two_stores(count) as (stores, keys):
        async with await stores[0].get(keys[0], active=False) as feed:
            await feed.truncate(0)
            await feed.append(b"other")
        async with two(stores, keys) as (first, second):
            await until(lambda: second.head(keys[0]) == Head(1, 1))
            assert first.head(keys[0]) == Head(1, 1)
            await until(lambda: keys[0] in second.keys("caught-up"))
            async with await stores[1].get(keys[0], active=False) as copy:
                assert await copy.get(0, wait=False) == b"other"


async def test_a_cut_while_apart_is_noticed_on_connect() -> None:
    async with two_stores(3) as (stores, keys):
        await append(stores[0], keys[0], b"1", b"2", b"3")
        await copy_feeds(stores[0], stores[1], keys)
        async with await stores[0].get(keys[0], active=False) as feed:
            await feed.truncate(2)
        async with two(stores, keys) as (_, second):
            await until(lambda: second.head(keys[0]) == Head(1, 2))


# Lingering


async def test_a_caught_up_log_is_closed_and_its_channel_on_both_sides() -> None:
    async with two_stores(2) as (stores, keys), two(stores, keys, linger=0.1) as (first, second):
        await append(stores[0], keys[0], b"new")
        await until(lambda: second.keys("idle-closed") == [keys[0]])
        assert second.group.woken == frozenset()
        await until(lambda: not (first.channels or second.channels))


async def test_a_log_that_goes_on_is_not_closed_in_between() -> None:
    async with two_stores(1) as (stores, keys), two(stores, keys, linger=30.0) as (_, second):
        for number in range(5):
            await append(stores[0], keys[0], b"%d" % number)
            await until(partial(has_head, second, keys[0], number + 2))
        await until(lambda: [event.length for event in second.told("caught-up")][-1:] == [6])
        assert second.keys("woken") == keys
        assert second.keys("idle-closed") == []


async def test_logs_opened_on_demand_close_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_log, "IDLE", (0.05, 0.1))
    async with two_stores(2) as (stores, keys), two(stores, keys, linger=0.1) as (_, second):
        await append(stores[0], keys[0], b"new")
        await until(lambda: second.keys("idle-closed") == [keys[0]])
        await until(lambda: not (stores[0]._root.logs or stores[1]._root.logs))


async def test_a_feed_that_a_user_opened_needs_no_hint_and_stays_open() -> None:
    async with two_stores(2) as (stores, keys), two(stores, keys, linger=0.1) as (first, second):
        await append(stores[0], keys[0], b"new")
        await until(lambda: second.keys("caught-up") == [keys[0]])
        mine = await stores[1].get(keys[0])
        await until(lambda: second.keys("idle-closed") == [keys[0]])
        assert first.channels == second.channels == {mine.discovery_key}
        await append(stores[0], keys[0], b"newer")
        await until(lambda: mine.length == 3)
        assert await mine.get(2) == b"newer"
        await mine.close()


async def test_a_hint_after_the_close_opens_it_again() -> None:
    async with two_stores(1) as (stores, keys), two(stores, keys, linger=0.0) as (_, second):
        for number in range(3):
            await append(stores[0], keys[0], b"%d" % number)
            await until(partial(has_closed, second, number + 1))
            assert second.head(keys[0]) == Head(0, number + 2)
        assert second.keys("woken") == keys * 3


# Bounds


async def test_so_many_logs_are_open_at_once() -> None:
    limits = remote_limits(woken_logs=4)
    options = {"limits": limits}
    most = 0
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 40)
        async with two(stores, keys, networker_options=options) as (_, second):

            def look(_event: object) -> None:
                nonlocal most
                most = max(most, len(second.group.woken))

            second.group.subscribe(look)
            await until(lambda: len(second.keys("caught-up")) == 40)
            assert most == 4
            assert second.told("given-up") == []


async def test_a_hint_at_what_its_giver_does_not_have_is_given_up_and_said() -> None:
    async with two_stores(1) as (stores, keys), liar(stores, keys) as (session, second):
        session.announce(session.peers[0], [WriterHead(keys[0], 99)])
        await until(lambda: second.told("given-up"))
        (event,) = second.told("given-up")
        assert (event.key, event.length, event.reason) == (keys[0], 99, "not-so")
        assert second.group.woken == frozenset()


async def test_hints_for_logs_that_never_come_are_given_up_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wakeup_policy, "PATIENCE", 0.1)
    monkeypatch.setattr(wakeup_policy, "IMPATIENCE", 0.02)
    options = {"networker_options": {"limits": remote_limits(woken_logs=3)}}
    async with two_stores() as (stores, _):
        foreign = [bytes([number]) * 32 for number in range(10)]
        async with liar(stores, foreign, **options) as (session, second):
            session.announce(session.peers[0], [WriterHead(key, 5) for key in foreign])
            await until(lambda: second.told("given-up"))
            assert second.told("given-up")[0].reason == "late"
            assert len(second.group.woken) <= 3


async def test_reading_from_us_keeps_no_place_for_what_does_not_come() -> None:
    async with two_stores() as (stores, _):
        foreign = [b"f" * 32]
        async with liar(stores, foreign, download=False) as (session, second):
            session.announce(session.peers[0], [WriterHead(foreign[0], 5)])
            await until(lambda: second.keys("woken") == foreign)
            waker = second.group._waker
            ((wake, running),) = waker._running.items()
            wake.moved_at = since = wake.moved_at - 10
            peer: Any = None
            for event in (Uploaded(0, 1, peer), PeerAdded(peer), PeerRemoved(peer)):
                waker._heard(wake, running, event)
                assert wake.moved_at == since
            waker._heard(wake, running, Appended(1, 0, 0))
            assert wake.moved_at > since
            wake.moved_at, wake.caught_up = since, True
            waker._heard(wake, running, Uploaded(0, 1, peer))
            assert wake.moved_at > since


async def test_who_wants_nothing_asks_nothing() -> None:
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 3)
        async with member(stores[0], keys) as first:
            place = await listening(first)
            async with member(stores[1], [], peers=[place]) as second:
                await second.networker.configure(TOPIC)
                await until(lambda: lookups(second) == (1, 0))
                assert announces(second)[1] == 0


async def test_a_flood_of_lookups_costs_a_bounded_number_of_answers() -> None:
    options = {"networker_options": {"limits": remote_limits(lookups_per_second=1)}}
    async with two_stores(30) as (stores, keys), liar(stores, keys, **options) as (session, second):
        await until(lambda: lookups(second) == (0, 1))
        hash_ = b"cvy\x01" + bytes(6) + (30).to_bytes(4, "big") + bytes(18)
        for _ in range(500):
            session.lookup(session.peers[0], hash_)
        await until(lambda: lookups(second)[0] == 500)
        assert lookups(second)[1] <= 1 + 16 * 16


async def test_after_a_flood_the_peer_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_peer_module, "OWED_PAUSE", 0.05)
    options = {"networker_options": {"limits": remote_limits(lookups_per_second=0)}}
    async with two_stores(30) as (stores, keys), liar(stores, keys, **options) as (session, second):
        await until(lambda: lookups(second) == (0, 1))
        session.lookup(session.peers[0], b"cvy\x01" + bytes(28))
        await until(lambda: lookups(second) == (1, 2))


async def test_claims_of_other_histories_that_are_none_open_ever_less() -> None:
    async with two_stores(1) as (stores, keys), liar(stores, keys, linger=0.0) as (session, second):
        claim = Probe(KeyRange(8, int.from_bytes(keys[0][:4], "big")), Summary(1, bytes(18)), FINAL)
        for number in range(3):
            session.announce(session.peers[0], [WriterHead(keys[0], 1)])
            session.lookup(session.peers[0], claim.encode())
            if number < 2:
                await until(partial(has_closed, second, 1))
        await until(lambda: lookups(second)[0] == 3)
        await asyncio.sleep(0.1)  # what must not come would come by then
        assert second.keys("woken") == keys
        assert keys[0] in second.group._waker.queue.waiting


async def test_a_hint_at_what_came_by_itself_meanwhile_opens_nothing() -> None:
    async with two_stores(1) as (stores, keys), liar(stores, keys) as (_, second):
        (peer,) = second.group.peers
        second.group._announced([WriterHead(keys[0], 2)], peer, second.session)
        assert list(second.group._waker.queue.waiting) == keys
        second.group._head_changed(HeadChanged(keys[0], 0, 2))
        await until(lambda: not second.group._waker.queue.waiting)
        assert second.group.woken == frozenset()
        assert second.keys("woken") == []


async def test_announces_while_a_peer_reads_nothing_wait_as_keys_and_leave_later() -> None:
    async with two_stores(30) as (stores, keys), two(stores, keys) as (first, second):
        await until(lambda: lookups(first) == (1, 1))
        (peer,) = first.group._peers.values()
        await asyncio.sleep(0)
        drained = asyncio.Event()

        class Full:
            """A channel whose peer reads nothing."""

            closed = False

            @property
            def drained(self) -> bool:
                return drained.is_set()

            async def drain(self) -> None:
                await drained.wait()

        peer.channel_of = Full  # type: ignore[method-assign,assignment]
        for number in range(10):
            await append(stores[0], keys[0], b"%d" % number)
            await asyncio.sleep(2 * ANNOUNCE_WINDOW / 10)
        await until(lambda: list(peer._keys) == [keys[0]])
        assert announces(first)[1] == 0
        drained.set()
        await until(lambda: second.head(keys[0]) == Head(0, 11))
        assert announces(first)[1] == 1


# Foreign peers


async def test_a_foreign_lookup_gets_all_heads_once_and_then_what_changes() -> None:
    async with two_stores(20) as (stores, keys), liar(stores, keys) as (session, second):
        heard: list[list[WriterHead]] = session.heard
        for hash_ in (None, bytes(32), None, b"cvy\x02" + bytes(28)):
            session.lookup(session.peers[0], hash_)
        await until(lambda: heard)
        assert heard[0] == [WriterHead(key, 1) for key in sorted(keys)]
        await until(lambda: lookups(second)[0] == 4)
        assert len(heard) == 1


async def test_all_heads_leave_in_announces_of_a_bounded_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_stores(25) as (stores, keys), liar(stores, keys) as (session, _):
        monkeypatch.setattr(group_peer_module, "MOST_ENTRIES", 10)
        session.lookup(session.peers[0], None)
        await until(lambda: len(session.heard) == 3)
        assert [len(heads) for heads in session.heard] == [10, 10, 5]


async def test_a_foreign_announce_wakes_what_is_longer() -> None:
    async with two_stores(2) as (stores, keys):
        await append(stores[0], keys[0], b"new")
        async with liar(stores, keys) as (session, second):
            session.announce(session.peers[0], [WriterHead(keys[0], 2), WriterHead(keys[1], 1)])
            await until(lambda: second.keys("caught-up") == [keys[0]])
            assert second.keys("woken") == [keys[0]]
