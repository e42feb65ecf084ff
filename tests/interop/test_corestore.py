"""corestore 7.9.2 as the other end: many logs over one connection, served on demand, relayed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.keys import discovery_key
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from tests.interop.log_sides import (
    block,
    block_fields,
    corestore_peer,
    digest,
    hypercore_peer,
    named_block,
)
from tests.store.meeting import blocks_of, numbered, place, take
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.interop

NAMES = ("a", "b", "c")


async def fetched(feed: Feed, length: int) -> list[bytes]:
    """All blocks of a log that will have `length` of them."""
    async with asyncio.timeout(PATIENCE):
        await feed.download(0, length).done()
    return await blocks_of(feed)


async def test_names_and_keys_are_those_of_a_corestore_with_the_same_primary_key() -> None:
    primary = "0a" * 32
    async with (
        Basestore(primary_key=bytes.fromhex(primary)) as store,
        corestore_peer("--names", "a,ünï", "--primary-key", primary, "--namespace", "x/y") as node,
    ):
        view = store.namespace("x").namespace("y")
        for name in ("a", "ünï"):
            feed = await view.get(name)
            told = node.core(name)
            assert feed.key.hex() == told["key"]
            assert feed.discovery_key.hex() == told["discoveryKey"]


@pytest.mark.parametrize("role", ["covey-dials", "node-dials"])
async def test_three_logs_of_node_over_one_connection_and_one_it_does_not_have(role: str) -> None:
    async with Basestore() as store, place(store) as mine:
        ways = () if role == "covey-dials" else ("--connect", mine.port)
        async with corestore_peer("--names", "a,b,c", "--blocks", 4, *ways) as node:
            for name in NAMES:
                await node.event("core", name=name)
            stranger = await store.get(bytes(range(32)))
            feeds = [await store.get(bytes.fromhex(node.core(name)["key"])) for name in NAMES]
            if role == "covey-dials":
                await mine.dial(node.port)
            for name, feed in zip(NAMES, feeds, strict=True):
                assert await fetched(feed, 4) == [named_block(name, at) for at in range(4)]
                assert (await feed.tree_hash()).hex() == node.core(name)["treeHash"]
            assert len(mine.connections) == 1
            assert stranger.length == 0


@pytest.mark.parametrize("role", ["covey-dials", "node-dials"])
async def test_three_logs_of_ours_over_one_connection(role: str) -> None:
    async with Basestore() as store, place(store) as mine:
        feeds = {name: await store.get(name) for name in NAMES}
        for name, feed in feeds.items():
            await feed.append([named_block(name, index) for index in range(4)])
        keys = ",".join(feed.key.hex() for feed in feeds.values())
        ways = () if role == "covey-dials" else ("--connect", mine.port)
        async with corestore_peer("--keys", keys, *ways) as node:
            if role == "covey-dials":
                await mine.dial(node.port)
            for feed in feeds.values():
                done = await node.event("core-done", key=feed.key.hex())
                assert done["treeHash"] == (await feed.tree_hash()).hex()


async def test_both_sides_give_and_take_at_once() -> None:
    async with Basestore() as store, place(store) as mine:
        ours = await store.get("ours")
        await ours.append(numbered(20))
        async with corestore_peer(
            "--names", "theirs", "--blocks", 20, "--keys", ours.key.hex(), "--live"
        ) as node:
            theirs = await store.get(bytes.fromhex(node.core("theirs")["key"]))
            await mine.dial(node.port)
            assert await fetched(theirs, 20) == [named_block("theirs", at) for at in range(20)]
            for data in numbered(20):
                await node.event("block", blake2b=digest(data))


async def test_appends_of_node_while_connected_arrive() -> None:
    async with (
        Basestore() as store,
        place(store) as mine,
        corestore_peer("--names", "a", "--blocks", 2, "--append-later", "300:a:3") as node,
    ):
        feed = await store.get(bytes.fromhex(node.core("a")["key"]))
        await mine.dial(node.port)
        assert await take(feed.live(), 5) == [named_block("a", at) for at in range(5)]


async def test_a_log_that_is_opened_late_is_asked_for_at_once() -> None:
    async with (
        Basestore() as store,
        place(store) as mine,
        corestore_peer("--names", "a,b", "--blocks", 3) as node,
    ):
        first = await store.get(bytes.fromhex(node.core("a")["key"]))
        await mine.dial(node.port)
        assert len(await fetched(first, 3)) == 3
        late = await store.get(bytes.fromhex(node.core("b")["key"]))
        assert await fetched(late, 3) == [named_block("b", at) for at in range(3)]


async def test_a_log_that_node_opens_late_is_served() -> None:
    async with Basestore() as store, place(store) as mine:
        feed = await store.get("late", active=False)
        await feed.append(numbered(3))
        async with corestore_peer(
            "--connect", mine.port, "--open-later", f"200:{feed.key.hex()}"
        ) as node:
            await node.event("core-done", key=feed.key.hex(), length=3)


async def test_a_passive_node_serves_on_demand() -> None:
    async with (
        Basestore() as store,
        place(store) as mine,
        corestore_peer("--names", "a", "--blocks", 5, "--passive", "--no-open") as node,
    ):
        feed = await store.get(bytes.fromhex(node.core("a")["key"]))
        await mine.dial(node.port)
        assert await fetched(feed, 5) == [named_block("a", at) for at in range(5)]


async def test_a_restarted_store_that_opened_nothing_serves_node(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        feed = await store.get("a")
        await feed.append(numbered(5))
        key = feed.key
    async with (
        Basestore(tmp_path) as store,
        place(store) as mine,
        corestore_peer("--connect", mine.port, "--keys", key.hex()) as node,
    ):
        await node.event("core-done", key=key.hex(), length=5)
        for data in numbered(5):
            await node.event("block", blake2b=digest(data))


async def test_what_came_from_node_is_served_to_node_by_one_who_never_opened_it(
    tmp_path: Path,
) -> None:
    async with (
        Basestore(tmp_path) as store,
        place(store) as mine,
        corestore_peer("--names", "a", "--blocks", 30) as writer,
    ):
        key = writer.core("a")["key"]
        feed = await store.get(bytes.fromhex(key))
        await mine.dial(writer.port)
        await fetched(feed, 30)
    async with Basestore(tmp_path) as store, place(store) as mine:
        async with corestore_peer("--connect", mine.port, "--keys", key) as reader:
            done = await reader.event("core-done", key=key, length=30)
            assert done["treeHash"] == writer.core("a")["treeHash"]
        assert discovery_key(bytes.fromhex(key)) in await store.list()


async def test_python_in_the_middle_of_two_nodes_that_never_meet() -> None:
    async with (
        Basestore() as store,
        place(store) as mine,
        corestore_peer("--names", "a,b", "--blocks", 10, "--append-later", "800:a:5") as writer,
    ):
        keys = {name: writer.core(name)["key"] for name in ("a", "b")}
        feeds = {name: await store.get(bytes.fromhex(key)) for name, key in keys.items()}
        for feed in feeds.values():
            feed.download(0, -1)
        await mine.dial(writer.port)
        async with corestore_peer(
            "--connect", mine.port, "--keys", ",".join(keys.values()), "--live"
        ) as reader:
            for name, count in (("b", 10), ("a", 15)):
                for index in range(count):
                    await reader.event(
                        "block",
                        key=keys[name][:16],
                        index=index,
                        blake2b=digest(named_block(name, index)),
                    )


async def test_two_hundred_logs_over_one_connection() -> None:
    names = [f"n{index}" for index in range(200)]
    async with (
        Basestore() as store,
        place(store) as mine,
        corestore_peer("--names", ",".join(names), "--blocks", 3) as node,
    ):
        feeds = [await store.get(bytes.fromhex(node.core(name)["key"])) for name in names]
        await mine.dial(node.port)
        for name, feed in zip(names, feeds, strict=True):
            assert await fetched(feed, 3) == [named_block(name, at) for at in range(3)]
        assert len(mine.connections) == 1


async def test_node_gets_two_hundred_logs_of_ours() -> None:
    async with Basestore() as store, place(store) as mine:
        keys = []
        for index in range(200):
            feed = await store.get(f"n{index}")
            await feed.append(numbered(3, name=f"n{index}"))
            keys.append(feed.key.hex())
        async with corestore_peer("--connect", mine.port, "--keys", ",".join(keys)) as node:
            await node.event("exit", reason="done")
            assert len(node.named("core-done")) == 200


async def test_a_log_that_node_closes_is_closed_here_alone() -> None:
    async with (
        Basestore() as store,
        place(store) as mine,
        corestore_peer(
            "--names", "a,b", "--blocks", 3, "--close-later", "300:a", "--append-later", "700:b:1"
        ) as node,
    ):
        feeds = [await store.get(bytes.fromhex(node.core(name)["key"])) for name in ("a", "b")]
        await mine.dial(node.port)
        assert len(await fetched(feeds[0], 3)) == 3
        await node.event("core-closed", name="a")
        assert await take(feeds[1].live(), 4) == [named_block("b", at) for at in range(4)]
        assert not mine.connections[0].closed


async def test_a_single_hypercore_and_a_store_understand_one_another() -> None:
    async with (
        Basestore() as store,
        place(store) as mine,
        hypercore_peer("--blocks", 8) as node,
    ):
        feed = await store.get(bytes.fromhex(node.key))
        await mine.dial(node.port)
        assert await fetched(feed, 8) == [block(index) for index in range(8)]
        async with corestore_peer("--connect", mine.port, "--keys", node.key) as reader:
            await reader.event("block", **{**block_fields(7), "key": node.key[:16]})
        await until(lambda: len(feed.peers) == 1)
