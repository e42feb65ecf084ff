"""hypercore 11.37.1 as the other end, in both roles: one log, every way of exchanging it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from covey.feed.manifest import default_manifest
from covey.keys import KeyPair
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from tests.interop.harness import Event
from tests.interop.log_sides import FORKED, LogPeer, block, block_fields, hypercore_peer
from tests.store.meeting import Place, blocks_of, happened, place, take
from tests.waiting import PATIENCE, until

pytestmark = pytest.mark.interop

SEED = "07" * 32
ROLES = ("covey-dials", "node-dials")


@asynccontextmanager
async def writing_node(
    role: str, store: Basestore, *arguments: object
) -> AsyncIterator[tuple[LogPeer, Feed, Place]]:
    """Node owns a log, covey has it by its key, and they are connected by whoever `role` says."""
    async with AsyncExitStack() as stack:
        mine = await stack.enter_async_context(place(store))
        ways = () if role == "covey-dials" else ("--connect", mine.port)
        node = await stack.enter_async_context(
            hypercore_peer("--mode", "serve", "--seed", SEED, "--stdin", *ways, *arguments)
        )
        feed = await store.get(bytes.fromhex(node.key))
        if role == "covey-dials":
            await mine.dial(node.port)
        yield node, feed, mine


@asynccontextmanager
async def reading_node(
    role: str, store: Basestore, feed: Feed, *arguments: object, directory: Path | None = None
) -> AsyncIterator[LogPeer]:
    """covey owns a log, Node has it by its key, and they are connected by whoever `role` says."""
    async with place(store) as mine:
        key = ("--key", feed.key.hex(), *arguments)
        ways = ("--listen", 0) if role == "covey-dials" else ("--connect", mine.port)
        async with hypercore_peer(*ways, *key, directory=directory) as node:
            if role == "covey-dials":
                await mine.dial(node.port)
            yield node


async def info(peer: LogPeer) -> Event:
    """Length, fork and tree hash that the peer has now."""
    await peer.tell("!info")
    told = await peer.event("info")
    return {name: told[name] for name in ("length", "fork", "treeHash")}


async def head_of(feed: Feed) -> Event:
    """The same of a feed of ours."""
    return {
        "length": feed.length,
        "fork": feed.fork,
        "treeHash": (await feed.tree_hash()).hex() if feed.length else None,
    }


async def told_blocks(reader: LogPeer, contents: list[bytes], *, first: int = 0) -> None:
    """Wait until the reader has told these blocks, from number `first` on."""
    for index, data in enumerate(contents, first):
        await reader.event("block", **block_fields(index, data))


# Node writes


@pytest.mark.parametrize("role", ROLES)
async def test_a_whole_log_of_node_arrives_and_verifies(role: str) -> None:
    async with (
        Basestore() as store,
        writing_node(role, store, "--blocks", 100, "--size", 3000) as (node, feed, _),
    ):
        async with asyncio.timeout(PATIENCE):
            assert await feed.get(99) == block(99, size=3000)
            await feed.download(0, 100).done()
        assert await blocks_of(feed) == [block(index, size=3000) for index in range(100)]
        assert await head_of(feed) == await info(node)
        assert (await feed.verify()).held == 100
        assert (feed.progress.have, feed.progress.total, feed.progress.verified) == (100,) * 3
        (peer,) = feed.peers
        assert peer.progress.verified == 100
        assert peer.progress.downloaded_bytes == 300_000
        assert feed.manifest is not None


@pytest.mark.parametrize("role", ROLES)
async def test_only_the_blocks_asked_for_are_fetched(role: str) -> None:
    async with (
        Basestore() as store,
        writing_node(role, store, "--blocks", 64, "--verbose") as (node, feed, _),
    ):
        wanted = [3, 17, 40]
        async with asyncio.timeout(PATIENCE):
            assert [await feed.get(index) for index in wanted] == [block(at) for at in wanted]
            await feed.download(blocks=[50, 52]).done()
        held = [index for index in range(64) if await feed.has(index)]
        assert held == [*wanted, 50, 52]
        assert {event["index"] for event in node.named("upload")} == set(held)


@pytest.mark.parametrize("role", ROLES)
async def test_appends_of_node_arrive_live(role: str) -> None:
    async with Basestore() as store, writing_node(role, store, "--blocks", 2) as (node, feed, _):
        reader = feed.live()
        assert await take(reader, 2) == [block(0), block(1)]
        await node.tell("a line")
        assert await take(reader, 1) == [b"a line"]
        await node.tell("!fill 300")
        assert await take(reader, 300) == [block(index) for index in range(3, 303)]
        assert await head_of(feed) == await info(node)


async def test_a_truncation_and_a_fork_of_node_are_followed() -> None:
    async with (
        Basestore() as store,
        writing_node("covey-dials", store, "--blocks", 16) as (node, feed, _),
    ):
        events = feed.listen()
        reader = feed.live()
        assert await take(reader, 16) == [block(index) for index in range(16)]
        await node.tell("!truncate 5")
        await happened(events, "truncate", length=5, fork=1)
        await node.tell(f"!fill 12 {FORKED}")
        assert await take(reader, 12) == [block(at, variant=FORKED) for at in range(5, 17)]
        assert await head_of(feed) == await info(node)
        assert (feed.fork, feed.length) == (1, 17)


async def test_a_deep_fork_point_is_found_after_an_absence(tmp_path: Path) -> None:
    async with (
        Basestore(tmp_path / "store") as store,
        place(store) as mine,
        hypercore_peer("--blocks", 64, "--seed", SEED, "--stdin") as node,
    ):
        feed = await store.get(bytes.fromhex(node.key))
        connection = await mine.dial(node.port)
        async with asyncio.timeout(PATIENCE):
            await feed.get(63)
            await feed.download(0, 64).done()
        await connection.close()
        await node.tell("!truncate 21")
        await node.tell(f"!fill 50 {FORKED}")
        await node.event("append", fork=1, length=71)
        events = feed.listen()
        await mine.dial(node.port)
        await happened(events, "truncate", length=21, fork=1)
        async with asyncio.timeout(PATIENCE):
            assert await feed.get(70) == block(70, variant=FORKED)
            assert await feed.get(20, wait=False) == block(20), "what is shared was kept"
            await feed.download(0, 71).done()
        assert await head_of(feed) == await info(node)
        assert (await feed.verify()).held == 71


async def test_what_a_sparse_node_lacks_comes_from_another() -> None:
    owner = ("--blocks", 12, "--seed", SEED, "--verbose")
    async with (
        Basestore() as store,
        place(store) as mine,
        hypercore_peer(*owner, "--clear", "2-9") as sparse,
        hypercore_peer(*owner, "--clear", "0-2") as other,
    ):
        feed = await store.get(bytes.fromhex(sparse.key))
        await mine.dial(sparse.port)
        await mine.dial(other.port)
        async with asyncio.timeout(PATIENCE):
            await feed.get(11)
            await feed.download(0, 12).done()
        assert await blocks_of(feed) == [block(index) for index in range(12)]
        assert {event["index"] for event in sparse.named("upload")}.isdisjoint(range(2, 9))
        assert {event["index"] for event in other.named("upload")}.isdisjoint(range(2))


async def test_a_sparse_node_gives_what_it_has_and_the_rest_is_waited_for() -> None:
    # A whole subtree is cleared: next to half a one the reference cannot prove what it holds.
    async with (
        Basestore() as store,
        writing_node("covey-dials", store, "--blocks", 12, "--clear", "4-8") as (_, feed, _),
    ):
        async with asyncio.timeout(PATIENCE):
            assert [await feed.get(index) for index in (11, 2, 8)] == [
                block(11),
                block(2),
                block(8),
            ]
        lacking = asyncio.ensure_future(feed.get(5))
        async with asyncio.timeout(PATIENCE):
            assert await feed.get(3) == block(3)
        assert not lacking.done()
        lacking.cancel()


async def test_byte_offsets_are_sought_at_node() -> None:
    async with (
        Basestore() as store,
        writing_node("covey-dials", store, "--blocks", 40, "--size", 100) as (_, feed, _),
    ):
        async with asyncio.timeout(PATIENCE):
            assert await feed.update(wait=True)
            assert await feed.seek(1234) == (12, 34)
            read = [piece async for piece in feed.read(1234, 1434, by="bytes")]
        whole = b"".join(block(index, size=100) for index in range(40))
        assert b"".join(read) == whole[1234:1434]


@pytest.mark.parametrize("kind", [("--compat",), ("--manifest-version", 2)])
async def test_logs_of_other_kinds_arrive(kind: tuple[object, ...]) -> None:
    async with (
        Basestore() as store,
        writing_node("covey-dials", store, "--blocks", 20, *kind) as (node, feed, _),
    ):
        async with asyncio.timeout(PATIENCE):
            await feed.get(19)
            await feed.download(0, 20).done()
        assert await head_of(feed) == await info(node)


# covey writes


async def written(store: Basestore, count: int, *, size: int | None = None) -> Feed:
    """A log of ours with the blocks that the Node program would write."""
    feed = await store.get("log")
    await feed.append([block(index, size=size) for index in range(count)])
    return feed


@pytest.mark.parametrize("role", ROLES)
async def test_node_gets_a_whole_log_of_ours(role: str) -> None:
    async with Basestore() as store:
        feed = await written(store, 100, size=3000)
        async with reading_node(role, store, feed, "--full") as node:
            await node.event("done", blocks=100, bytes=300_000)
            await told_blocks(node, [block(index, size=3000) for index in range(100)])
            assert node.named("updated")[0]["treeHash"] == (await feed.tree_hash()).hex()
        progress = feed.progress
        assert (progress.uploaded_blocks, progress.uploaded_bytes) == (100, 300_000)


@pytest.mark.parametrize("role", ROLES)
async def test_node_gets_the_blocks_that_it_asks_for(role: str) -> None:
    async with Basestore() as store:
        feed = await written(store, 64)
        async with reading_node(role, store, feed, "--blocks", "3,17,40", "--verbose") as node:
            for index in (3, 17, 40):
                await node.event("block", **block_fields(index))
            await node.event("done", blocks=3)
        assert feed.progress.uploaded_blocks == 3


@pytest.mark.parametrize("role", ROLES)
async def test_node_follows_our_appends(role: str) -> None:
    async with Basestore() as store:
        feed = await written(store, 2)
        async with reading_node(role, store, feed, "--live") as node:
            await told_blocks(node, [block(0), block(1)])
            await feed.append(b"a line")
            await told_blocks(node, [b"a line"], first=2)
            await feed.append([block(index) for index in range(3, 203)])
            await told_blocks(node, [block(index) for index in range(3, 203)], first=3)


async def test_node_follows_our_truncation_and_fork() -> None:
    async with Basestore() as store:
        feed = await written(store, 16)
        async with reading_node("node-dials", store, feed, "--live", "--stdin") as node:
            await told_blocks(node, [block(index) for index in range(16)])
            await feed.truncate(5)
            assert (await node.event("truncate"))["fork"] == 1
            await feed.append([block(at, variant=FORKED) for at in range(5, 17)])
            await told_blocks(node, [block(at, variant=FORKED) for at in range(5, 17)], first=5)
            assert await info(node) == await head_of(feed)


async def test_node_finds_a_deep_fork_point_with_us(tmp_path: Path) -> None:
    async with Basestore() as store:
        feed = await written(store, 64)
        async with reading_node("node-dials", store, feed, "--full", directory=tmp_path) as node:
            await node.event("exit")
        await feed.truncate(21)
        await feed.append([block(at, variant=FORKED) for at in range(21, 71)])
        async with reading_node(
            "node-dials",
            store,
            feed,
            *("--full", "--no-exit", "--stdin", "--verbose"),
            directory=tmp_path,
        ) as node:
            assert (await node.event("truncate", fork=1))["to"] == 21
            await node.tell("!get 70")
            await node.event("block", **block_fields(70, block(70, variant=FORKED)))
            assert {event["index"] for event in node.named("download")}.isdisjoint(range(21))


async def test_node_gets_from_us_what_we_hold_and_waits_for_the_rest() -> None:
    async with Basestore() as store:
        feed = await written(store, 40)
        await feed.clear(10, 20)
        async with reading_node(
            "node-dials", store, feed, "--blocks", "0,9,20,39", "--no-exit"
        ) as node:
            for index in (0, 9, 20, 39):
                await node.event("block", **block_fields(index))


async def test_node_seeks_in_our_log() -> None:
    async with Basestore() as store:
        feed = await written(store, 40, size=100)
        async with reading_node("node-dials", store, feed, "--update", "--seek", 1234) as node:
            assert (await node.event("seek"))["result"] == [12, 34]


async def test_node_reads_a_compat_log_of_ours() -> None:
    async with Basestore() as store:
        pair = KeyPair.generate()
        feed = await store.get(key=pair.public_key, key_pair=pair)
        await feed.append([block(index) for index in range(10)])
        async with reading_node("node-dials", store, feed, "--full") as node:
            await node.event("done", blocks=10)


async def test_node_reads_a_log_with_a_later_manifest() -> None:
    async with Basestore() as store:
        pair = KeyPair.generate()
        manifest = default_manifest(pair.public_key, version=2)
        feed = await store.get(manifest=manifest, key_pair=pair)
        await feed.append([block(index) for index in range(10)])
        async with reading_node("node-dials", store, feed, "--full") as node:
            await node.event("done", blocks=10)


# Beside blocks


async def test_extension_messages_go_both_ways() -> None:
    heard: list[tuple[str, bytes | None]] = []
    async with Basestore() as store:
        feed = await written(store, 1)
        chat = feed.register_extension(
            "chat",
            encoding="utf-8",
            on_message=lambda text, peer: heard.append((text, peer.remote_key)),
        )
        async with reading_node(
            "node-dials", store, feed, "--live", "--ext", "chat", "--ext-send", "hé"
        ) as node:
            await until(lambda: heard)
            text, key = heard.pop()
            assert text == "hé"
            assert key == feed.peers[0].remote_key
            chat.send("to one", feed.peers[0])
            await node.event("extension", name="chat", text="to one")
            chat.broadcast("to all")
            await node.event("extension", name="chat", text="to all")
            await until(lambda: len(heard) == 2)
            assert [said for said, _ in heard] == ["echo:to one", "echo:to all"]


async def test_two_histories_of_a_node_are_a_conflict_and_freeze_the_log() -> None:
    owner = ("--seed", SEED)
    async with Basestore() as store, place(store) as mine:
        async with hypercore_peer("--blocks", 6, *owner) as honest:
            feed = await store.get(bytes.fromhex(honest.key))
            events = feed.listen()
            await mine.dial(honest.port)
            async with asyncio.timeout(PATIENCE):
                await feed.get(5)
                await feed.download(0, 6).done()
            async with hypercore_peer("--blocks", 8, *owner, "--twin", 3) as twin:
                await mine.dial(twin.port)
                await happened(events, "verification-error")
                await happened(events, "conflict", fork=0)
                await twin.event("conflict")
        assert feed.closed
        assert feed.frozen


async def test_reconnecting_in_the_middle_fetches_nothing_twice() -> None:
    fetched: list[int] = []
    async with (
        Basestore() as store,
        place(store) as mine,
        hypercore_peer("--blocks", 600, "--size", 2000, "--seed", SEED, "--verbose") as node,
    ):
        feed = await store.get(bytes.fromhex(node.key))
        feed.subscribe(
            lambda event: fetched.append(event.index) if event.type == "download" else None
        )
        connection = await mine.dial(node.port)
        await feed.update(wait=True)
        download = feed.download(0, 600)
        await until(lambda: feed.progress.have > 200)
        await connection.close()
        assert not download.finished
        await mine.dial(node.port)
        async with asyncio.timeout(PATIENCE):
            await download.done()
        assert sorted(fetched) == list(range(600))
        uploads = [event["index"] for event in node.named("upload")]
        twice = len(uploads) - len(set(uploads))
        assert twice <= 48, "only what was on its way may be sent again"


async def test_python_relays_between_two_nodes() -> None:
    async with (
        Basestore() as store,
        place(store) as mine,
        hypercore_peer("--blocks", 50, "--seed", SEED, "--stdin") as writer,
        hypercore_peer("--connect", mine.port, "--key", writer.key, "--live", "--stdin") as reader,
    ):
        feed = await store.get(bytes.fromhex(writer.key))
        feed.download(0, -1)
        await mine.dial(writer.port)
        await told_blocks(reader, [block(index) for index in range(50)])
        await writer.tell("!fill 30")
        await told_blocks(reader, [block(index) for index in range(50, 80)], first=50)
        assert await info(reader) == await info(writer)
        assert (await info(writer))["length"] == 80
        await writer.tell("!truncate 60")
        await reader.event("truncate", fork=1)
