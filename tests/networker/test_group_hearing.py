"""What a group does with announces: what it takes in, what it tells of, and at what price."""

from __future__ import annotations

import logging
from contextlib import suppress

import pytest

from covey.networker.group import SLICE
from covey.wakeup import WriterHead
from tests.networker.groups import (
    liar,
    listening,
    make_feeds,
    member,
    remote_limits,
    two,
    two_stores,
)
from tests.networker.support import TOPIC, until


async def test_unknown_writers_are_told_of_in_part_and_open_nothing() -> None:
    async with two_stores(1) as (stores, keys), liar(stores, keys) as (session, second):
        heads = [WriterHead(number.to_bytes(32, "big"), 1) for number in range(5000)]
        session.announce(session.peers[0], heads)
        await until(lambda: second.told("unknown-writer"))
        (event,) = second.told("unknown-writer")
        assert (event.heads, event.count) == (tuple(heads[:64]), 5000)
        assert len(second.group.feeds) == 1
        assert second.group.woken == frozenset()


async def test_announced_writers_are_accepted_up_to_the_bound() -> None:
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 8)
        options = {"limits": remote_limits(accepted_logs=10)}
        async with member(stores[0], keys) as first:
            place = await listening(first)
            async with member(
                stores[1], [], peers=[place], accept=True, networker_options=options
            ) as second:
                await second.networker.configure(TOPIC)
                await until(lambda: len(second.keys("caught-up")) == 5)
                assert len(second.group.feeds) == 5
                assert second.told("unknown-writer")[0].count == 3


async def test_a_log_that_is_told_of_many_times_is_accepted_once_and_gives_its_place_back() -> None:
    limits = {"networker_options": {"limits": remote_limits(accepted_logs=4)}}
    async with (
        two_stores() as (stores, _),
        liar(stores, [], accept=True, **limits) as (liar_, made),
    ):
        one, two_, other = (bytes([number]) * 32 for number in range(3))
        liar_.announce(liar_.peers[0], [WriterHead(one, 1)] * 1000)
        liar_.announce(liar_.peers[0], [WriterHead(two_, 1), WriterHead(other, 1)])
        await until(lambda: made.told("unknown-writer"))
        assert list(made.group.feeds) == [one, two_]
        made.group.remove(one)
        liar_.announce(liar_.peers[0], [WriterHead(other, 1)])
        await until(lambda: list(made.group.feeds) == [two_, other])


async def test_a_large_announce_is_heard_in_slices_and_told_in_one_event() -> None:
    async with two_stores(1) as (stores, keys), liar(stores, keys) as (_, second):
        more = [bytes([1, number % 256, number >> 8]) + bytes(29) for number in range(3 * SLICE)]
        second.group.add(*more)
        await until(lambda: second.head(more[-1]) is not None)
        peer = second.group.peers[0]
        heads = [WriterHead(key, 5) for key in more]
        hearing = second.group._announced(heads, peer, second.session)
        assert hearing is not None
        hearing.send(None)
        assert len(second.group._waker.queue.waiting) == SLICE
        with suppress(StopIteration):
            while True:
                hearing.send(None)
        (event,) = second.told("hint")
        assert (event.heads, event.count) == (tuple(heads[:64]), len(heads))


async def test_who_tells_too_much_is_not_heard_and_asked_later() -> None:
    options = {"limits": remote_limits(wakeup_announced=100, accepted_logs=0)}
    async with (
        two_stores(1) as (stores, keys),
        liar(stores, keys, networker_options=options) as (_, second),
    ):
        (peer,) = second.group.peers
        heads = [WriterHead(number.to_bytes(32, "big"), 1) for number in range(100)]
        for _ in range(50):
            second.group._announced(heads, peer, second.session)
        assert len(second.told("unknown-writer")) == 1
        assert second.group._peers[peer]._owed is not None


async def test_groups_that_take_small_announces_tell_each_other_all() -> None:
    options = {"limits": remote_limits(wakeup_announced=10)}
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 30)
        async with two(stores, keys, networker_options=options) as (_, second):
            await until(lambda: set(second.keys("caught-up")) == set(keys))


async def test_accept_decides_key_by_key_and_its_failure_is_a_no(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with two_stores() as (stores, _):
        keys = sorted(await make_feeds(stores[0], 3))

        def accept(key: bytes) -> bool:
            if key == keys[1]:
                raise RuntimeError("no idea")
            return key == keys[2]

        async with member(stores[0], keys) as first:
            place = await listening(first)
            with caplog.at_level(logging.CRITICAL, "covey.networker"):
                async with member(stores[1], [], peers=[place], accept=accept) as second:
                    await second.networker.configure(TOPIC)
                    await until(lambda: second.keys("caught-up") == [keys[2]])
                    assert list(second.group.feeds) == [keys[2]]
