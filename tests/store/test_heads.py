"""Heads of logs, read without opening any, and told when they change."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.errors import ClosedError, StoreError, UsageError
from covey.keys import discovery_key
from covey.store import basestore as basestore_module
from covey.store import open_log
from covey.store.basestore import Basestore
from covey.store.feed_events import HeadChanged
from covey.store.records import (
    Alias,
    CoreRecord,
    Head,
    Hints,
    core_number,
    fork_and_length,
    head_key,
    is_lacking,
)
from tests.store.meeting import met
from tests.waiting import until


def close(store: Basestore) -> None:
    for log in tuple(store._root.logs.values()):
        log.close()


async def make(store: Basestore, count: int) -> list[bytes]:
    keys = []
    for number in range(count):
        async with await store.get(f"log {number}") as feed:
            await feed.append([b"x"] * (number + 1))
            keys.append(feed.key)
    return keys


@pytest.mark.parametrize("on_disk", [False, True])
async def test_heads_of_stored_logs_are_read_without_opening_them(
    tmp_path: Path, *, on_disk: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(basestore_module, "HEADS_AT_ONCE", 3)
    async with Basestore(tmp_path if on_disk else None) as store:
        keys = await make(store, 8)
        async with await store.get("log 2") as feed:
            await feed.truncate(1)
        for log in tuple(store._root.logs.values()):
            log.close()
        opened: list[object] = []
        store.watch(opened.append)
        heads = await store.heads([*keys, b"?" * 32, keys[0]])
        expected = {key: (0, number + 1, False) for number, key in enumerate(keys)}
        assert heads == {**expected, keys[2]: (1, 1, False), b"?" * 32: (0, 0, False)}
        assert opened == []


async def test_an_empty_log_and_an_open_one_have_heads_too() -> None:
    async with Basestore() as store:
        empty = await store.get("empty")
        full = await store.get("full")
        await full.append(b"x")
        heads = await store.heads([empty.key, full.key])
        assert heads == {empty.key: (0, 0, False), full.key: (0, 1, False)}


async def test_heads_of_what_is_no_key_are_refused() -> None:
    async with Basestore() as store:
        with pytest.raises(UsageError):
            await store.heads([b"short"])
        assert await store.heads([]) == {}
    with pytest.raises(ClosedError):
        await store.heads([b"x" * 32])


async def test_a_damaged_head_is_a_store_error() -> None:
    async with Basestore() as store:
        (key,) = await make(store, 1)
        log = store._root.logs[discovery_key(key)]
        log.close()
        store._root.storage.write_batch([(head_key(log.core), b"damaged!")])
        with pytest.raises(StoreError):
            await store.heads([key])


@pytest.mark.parametrize("core", [0, 252, 253, 70_000, 1 << 31])
@pytest.mark.parametrize("alias", [None, Alias(b"n" * 32, "name")])
def test_the_number_of_a_log_is_read_without_the_rest(core: int, alias: Alias | None) -> None:
    value = CoreRecord(core, alias).encode()
    assert core_number(value) == CoreRecord.decode(value).core == core
    with pytest.raises(StoreError):
        core_number(value[:-1])


def test_fork_and_length_are_read_without_the_rest() -> None:
    assert fork_and_length(Head(3, 1 << 40, 5, bytes(32), b"s" * 64).encode()) == (3, 1 << 40)
    with pytest.raises(StoreError):
        fork_and_length(b"\x01" + bytes(40))


async def test_changed_heads_are_told_of_writes_cuts_and_what_was_replicated() -> None:
    async with Basestore() as one, Basestore() as two, met(one, two):
        told: list[list[HeadChanged]] = [[], []]
        stops = [
            store.watch_heads(seen.append) for store, seen in zip((one, two), told, strict=True)
        ]
        source = await one.get("log")
        copy = await two.get(source.key)
        await source.append([b"1", b"2"])
        await source.truncate(1)
        key = source.key
        assert told[0] == [HeadChanged(key, 0, 2), HeadChanged(key, 1, 1)]
        await until(lambda: copy.fork == 1)
        assert told[1][-1] == HeadChanged(key, 1, 1, lacking=True)
        for stop in stops:
            stop()
        await source.append(b"3")
        assert len(told[0]) == 2


async def test_heads_say_whether_blocks_are_lacking_open_or_not() -> None:
    async with Basestore() as one, Basestore() as two, met(one, two):
        source = await one.get("log")
        await source.append([b"1", b"2"])
        key = source.key
        told: list[HeadChanged] = []
        two.watch_heads(told.append)
        copy = await two.get(key)
        await until(lambda: copy.length == 2)
        assert told[-1].lacking
        assert (await two.heads([key]))[key].lacking
        close(two)
        assert (await two.heads([key]))[key].lacking
        copy = await two.get(key)
        await copy.download(0, 2).done()
        assert not (await two.heads([key]))[key].lacking
        close(two)
        assert not (await two.heads([key]))[key].lacking


def test_hints_that_are_lost_or_damaged_say_that_blocks_are_lacking() -> None:
    assert not is_lacking(0, None)
    assert is_lacking(1, None)
    assert is_lacking(1, b"damaged!")
    assert not is_lacking(3, Hints(3, 0).encode())
    assert is_lacking(4, Hints(3, 0).encode())


async def test_blocks_without_a_new_head_are_not_told() -> None:
    async with Basestore() as one, Basestore() as two, met(one, two):
        source = await one.get("log")
        await source.append([b"1", b"2"])
        copy = await two.get(source.key)
        await until(lambda: copy.length == 2)
        told: list[HeadChanged] = []
        two.watch_heads(told.append)
        await copy.download(0, 2).done()
        await copy.clear(0, 1)
        assert told == []


async def test_a_session_that_does_not_linger_leaves_at_once() -> None:
    async with Basestore() as one, Basestore() as two, met(one, two) as (_, other):
        source = await one.get("log", active=False)
        await source.append(b"1")
        copy = await two.get(source.key, linger=False)
        await until(lambda: copy.length == 1)
        (stream,) = other.store.streams
        assert stream.discovery_keys == [source.discovery_key]
        await copy.close()
        await until(lambda: not stream.discovery_keys)


async def test_a_session_that_lingers_keeps_the_log_wanted_and_another_one_too() -> None:
    async with Basestore() as store:
        lingering, brief = await store.get("log"), await store.get("log", linger=False)
        opened = store._root.logs[lingering.discovery_key]
        await brief.close()
        await asyncio.sleep(0)
        assert opened.wanted
        await lingering.close()
        await asyncio.sleep(0)
        assert opened.wanted
        assert open_log.LINGER[0] > 0
        session = (await store.get("log", linger=False)).session()
        assert not session.lingers
