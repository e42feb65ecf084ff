"""What a group opens for hints and for blocks that are lacking, between networkers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest

from covey.errors import StoreError
from covey.networker import wakeup_policy
from covey.networker.head_table import Head
from covey.store.basestore import Basestore
from covey.wakeup import WriterHead
from tests.networker import groups
from tests.networker.groups import (
    Liar,
    Member,
    append,
    close_logs,
    copy_feeds,
    liar,
    listening,
    make_feeds,
    member,
    two,
    two_stores,
)
from tests.networker.support import TOPIC, quiet, until


async def is_whole(store: Basestore, key: bytes, length: int) -> bool:
    """Whether all of so many blocks are here."""
    return (await store.heads([key]))[key] == (0, length, False)


async def until_equal(stores: Sequence[Basestore], keys: Sequence[bytes]) -> None:
    """Wait until the stores have the same heads, and every block."""
    while True:
        found = [await store.heads(keys) for store in stores]
        whole = not any(head.lacking for heads in found for head in heads.values())
        if whole and all(one == found[0] for one in found):
            return
        await asyncio.sleep(0.01)


async def test_blocks_that_are_lacking_come_when_a_peer_is_met() -> None:
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 3, blocks=5)
        async with two(stores, keys, download=False) as (_, second):
            await until(lambda: len(second.keys("caught-up")) == 3)
        for store in stores:
            close_logs(store)
        async with two(stores, keys) as (_, second):
            await until(lambda: len(second.keys("caught-up")) == 3)
            assert all([await is_whole(stores[1], key, 5) for key in keys])
            assert not second.group._waker._lacking.keys


async def test_a_download_that_was_cut_off_goes_on_at_the_next_meeting() -> None:
    async with two_stores() as (stores, _):
        (key,) = await make_feeds(stores[0], 1)
        await append(stores[0], key, *[bytes(50_000)] * 200)
        async with two(stores, [key]) as (_, second):
            await until(lambda: second.head(key) == Head(0, 201))
        assert not await is_whole(stores[1], key, 201)
        for store in stores:
            close_logs(store)
        async with two(stores, [key]) as (_, second):
            await until(lambda: second.keys("caught-up") == [key])
            assert await is_whole(stores[1], key, 201)


async def test_without_download_nobody_looks_for_blocks() -> None:
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 1, blocks=5)
        for _ in range(2):
            async with two(stores, keys, download=False) as (_, second):
                await until(lambda: second.head(keys[0]) == Head(0, 5))
                assert not second.group._waker._lacking.keys
            close_logs(stores[1])


async def test_a_log_that_lingers_follows_a_cut_and_fewer_new_blocks() -> None:
    async with two_stores(1) as (stores, keys), two(stores, keys, linger=60.0) as (_, second):
        await append(stores[0], keys[0], *[b"x"] * 9)
        await until(lambda: second.keys("caught-up") == keys)
        async with await stores[0].get(keys[0], active=False) as feed:
            await feed.truncate(3)
            await feed.append([b"1", b"2", b"3"])
        await until_equal(stores, keys)
        await until(lambda: second.told("caught-up")[-1].length == 6)
        assert second.head(keys[0]) == Head(1, 6)
        assert second.told("given-up") == []


async def test_a_log_that_was_cut_to_nothing_and_grew_as_long_again_is_told() -> None:
    async with two_stores() as (stores, _):
        keys = await make_feeds(stores[0], 2, blocks=5)
        await copy_feeds(stores[0], stores[1], keys)
        async with two(stores, keys, linger=0.0) as (first, second):
            async with await stores[0].get(keys[0], active=False) as feed:
                await feed.truncate(0)
                await until(lambda: first.told("idle-closed"))  # the other one said that it has 5
                await feed.append([b"x"] * 5)
            await until(lambda: second.head(keys[0]) == Head(1, 5))
            await until_equal(stores, keys)


async def test_a_false_hint_of_one_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup_policy, "IMPATIENCE", 0.2)
    async with two_stores(2) as (stores, keys), AsyncExitStack() as stack:
        empty = await stack.enter_async_context(Basestore())
        networker, _ = await stack.enter_async_context(quiet(empty, peers=[]))
        false = Liar(networker)
        places = [await networker.listen_on()]
        await networker.configure(TOPIC)
        honest = await stack.enter_async_context(member(stores[0], keys))
        places.append(await listening(honest))
        third = await stack.enter_async_context(member(stores[1], keys, peers=places, linger=0.0))
        await third.networker.configure(TOPIC)
        await until(lambda: len(third.group.peers) == 2 and false.peers)
        false.announce(false.peers[0], [WriterHead(key, 1 << 40) for key in keys])
        await until(lambda: len(third.keys("woken")) == 2)
        for key in keys:
            await append(stores[0], key, b"1", b"2")
        await until(lambda: {*third.keys("caught-up")} == {*keys})
        assert all([await is_whole(stores[1], key, 3) for key in keys])
        await until(lambda: {*third.keys("idle-closed")} == {*keys})


async def test_a_log_that_left_before_its_task_began_gives_its_place_back() -> None:
    async with two_stores(1) as (stores, keys), liar(stores, keys) as (_, second):
        await append(stores[0], keys[0], b"new")
        (peer,) = second.group.peers
        waker = second.group._waker
        waker.hint(keys[0], 2, peer)
        waker.pump()
        assert second.group.woken == {keys[0]}
        second.group.remove(keys[0])
        await until(lambda: not second.group.woken and not waker._running)
        second.group.add(keys[0])
        await until(lambda: second.head(keys[0]))
        waker.hint(keys[0], 2, peer)
        await until(lambda: second.keys("caught-up") == keys)


async def test_a_peer_that_left_while_heads_were_read_wakes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with two_stores(1) as (stores, keys), liar(stores, []) as (session, second):
        gate, real = asyncio.Event(), stores[1].heads

        async def slow(wanted: Iterable[bytes]) -> Any:
            await gate.wait()
            return await real(wanted)

        monkeypatch.setattr(stores[1], "heads", slow)
        second.group.add(keys[0])
        session.announce(session.peers[0], [WriterHead(keys[0], 9)])
        await until(lambda: second.group._early)
        await second.connection.close()
        await until(lambda: not second.group._early.get(keys[0]))
        gate.set()
        await until(lambda: second.head(keys[0]))
        assert not second.group.woken
        assert not second.group._waker.queue.waiting


async def test_heads_that_could_not_be_read_are_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("covey.networker.group.READ_PAUSE", 0.01)
    async with two_stores(1) as (stores, keys), two(stores, []) as (_, second):
        real, failures = stores[1].heads, [StoreError("no"), StoreError("no")]

        async def failing(wanted: Iterable[bytes]) -> Any:
            if failures:
                raise failures.pop()
            return await real(wanted)

        monkeypatch.setattr(stores[1], "heads", failing)
        second.group.add(keys[0])
        await until(lambda: second.head(keys[0]) == Head(0, 1))
        assert len(second.told("error")) == 2


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_happens_members_in_a_line_end_with_the_same_blocks(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "CAPABILITY", bytes([seed]) * 32)
    chance = random.Random(seed)
    async with AsyncExitStack() as stack:
        (left, middle), keys = await stack.enter_async_context(two_stores(4))
        right = await stack.enter_async_context(Basestore())
        await copy_feeds(left, right, keys)
        own = await make_feeds(right, 4, name="right")
        keys = [*keys, *own]
        hub = await stack.enter_async_context(member(middle, keys, linger=0.0))
        place = await listening(hub)

        async def join(store: Basestore, within: AsyncExitStack) -> Member:
            made = await within.enter_async_context(
                member(store, keys, peers=[place], linger=chance.choice([0.0, 0.3]))
            )
            await made.networker.configure(TOPIC)
            return made

        await join(left, stack)
        for _ in range(3):
            async with AsyncExitStack() as within:
                await join(right, within)
                for _ in range(12):
                    key = chance.choice(keys)
                    await change(right if key in own else left, key, chance.random)
                    await asyncio.sleep(chance.choice([0, 0, 0.01, 0.05]))
        await join(right, stack)
        async with asyncio.timeout(20):
            await until_equal((left, middle, right), keys)


async def change(store: Basestore, key: bytes, chance: Callable[[], float]) -> None:
    """Append to a log, or rarely cut one and append more than was cut."""
    async with await store.get(key, active=False) as feed:
        count = 1 + int(5 * chance())
        if chance() < 0.2 and feed.length > 1:
            await feed.truncate(feed.length - 1)
            count += 1
        await feed.append([bytes(int(3000 * chance()))] * count)
