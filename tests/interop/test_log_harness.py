"""Node to Node: what the counterparts of the logs do among themselves, and how to drive them.

The reference behaviour that covey's own tests are held against, one scene each.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.interop.harness import Event
from tests.interop.log_sides import (
    FORKED,
    TWIN,
    LogPeer,
    block,
    block_fields,
    corestore_peer,
    digest,
    hypercore_peer,
    named_block,
)

pytestmark = pytest.mark.interop

SEED = "07" * 32


async def test_full_download_of_blocks_of_a_size() -> None:
    async with (
        hypercore_peer("--blocks", 100, "--size", 3000) as writer,
        hypercore_peer("--connect", writer.port, "--key", writer.key, "--full") as reader,
    ):
        await reader.event("done", blocks=100, bytes=300_000)
        assert [event["index"] for event in reader.named("block")] == list(range(100))
        for event in reader.named("block"):
            assert event["blake2b"] == digest(block(event["index"], size=3000))
        assert reader.named("updated")[0]["treeHash"] == writer.named("ready")[0]["treeHash"]
        assert await reader.exit_code() == 0
        assert reader.discovery_key == writer.discovery_key


async def test_appends_arrive_live() -> None:
    async with (
        hypercore_peer("--blocks", 2, "--stdin") as writer,
        hypercore_peer("--connect", writer.port, "--key", writer.key, "--live") as reader,
    ):
        await _blocks(reader, map(block, range(2)))
        await writer.tell("a line")
        await reader.event("block", **block_fields(2, b"a line"))
        await writer.tell("!fill 20")
        await _blocks(reader, map(block, range(3, 23)), first=3)


async def test_a_truncation_and_other_blocks_raise_the_fork_and_replace_the_end() -> None:
    async with (
        hypercore_peer("--blocks", 16, "--stdin") as writer,
        hypercore_peer(
            "--connect", writer.port, "--key", writer.key, "--live", "--stdin"
        ) as reader,
    ):
        await _blocks(reader, map(block, range(16)))
        await writer.tell("!truncate 5")
        assert (await reader.event("truncate"))["fork"] == 1
        # `--live` still waits for block 16, and goes back to 5 only when it has got that
        await writer.tell(f"!fill 12 {FORKED}")
        await _blocks(reader, [block(at, variant=FORKED) for at in range(5, 17)], first=5)
        assert await _info(reader) == await _info(writer)
        assert (await _info(reader))["fork"] == 1


async def test_a_reader_that_was_away_finds_the_fork_point(tmp_path: Path) -> None:
    async with hypercore_peer("--blocks", 16, "--seed", SEED, "--stdin") as writer:
        away = ("--connect", writer.port, "--key", writer.key)
        async with hypercore_peer(*away, "--full", directory=tmp_path) as reader:
            await reader.event("exit")
        await writer.tell("!truncate 5")
        await writer.tell(f"!fill 11 {FORKED}")
        await writer.event("append", fork=1, length=16)
        async with hypercore_peer(
            *away, "--no-exit", "--stdin", "--verbose", directory=tmp_path
        ) as reader:
            assert await reader.event("truncate", fork=1)
            await reader.tell("!get 15")
            await reader.event("block", **block_fields(15, block(15, variant=FORKED)))
            await reader.tell("!get 4")
            await reader.event("block", **block_fields(4))
            assert {event["index"] for event in reader.named("download")} == {15}, "4 was kept"
            assert reader.named("truncate")[0]["to"] == 5


async def test_what_a_sparse_server_lacks_comes_from_another() -> None:
    owner = ("--blocks", 12, "--seed", SEED, "--verbose")
    async with (
        hypercore_peer(*owner, "--clear", "2-9") as sparse,
        hypercore_peer(*owner, "--clear", "0-2") as other,
    ):
        ports = f"{sparse.port},{other.port}"
        async with hypercore_peer("--connect", ports, "--key", sparse.key, "--full") as reader:
            await reader.event("done", blocks=12)
            assert {event["index"] for event in sparse.named("upload")}.isdisjoint(range(2, 9))
            assert {event["index"] for event in other.named("upload")}.isdisjoint(range(2))


async def test_extension_messages_are_echoed() -> None:
    extension = ("--ext", "chat")
    async with (
        hypercore_peer("--blocks", 1, *extension) as server,
        hypercore_peer(
            "--connect", server.port, "--key", server.key, "--live", *extension, "--ext-send", "hé"
        ) as client,
    ):
        await server.event("extension", name="chat", text="hé")
        await client.event("extension", name="chat", text="echo:hé")


async def test_two_histories_of_one_writer_are_a_conflict_for_the_reader_and_the_second() -> None:
    owner = ("--seed", SEED)
    async with (
        hypercore_peer("--blocks", 5, *owner, "--twin", 3, "--stdin") as named,
        hypercore_peer("--listen", 0, "--key", named.key, "--live") as reader,
        hypercore_peer("--blocks", 6, *owner, "--connect", reader.port) as honest,
    ):
        await named.tell("!get 4")
        await named.event("block", **block_fields(4, block(4, variant=TWIN)))
        await _blocks(reader, map(block, range(6)))
        # the twin is longer: a reader that has everything asks a peer only for what is new
        longer = ("--blocks", 8, *owner, "--twin", 3)
        async with hypercore_peer(*longer, "--connect", reader.port) as twin:
            await reader.event("verification-error")
            for peer in (reader, twin):
                assert (await peer.event("conflict"))["length"] == 6
                await peer.event("core-close")
            await honest.event("peer-remove")
            assert not honest.named("conflict"), "it is not told: the reader has its tree"
            assert twin.named("ready")[0]["length"] == 8


async def test_three_cores_over_one_stream_and_an_unknown_one_does_not_disturb() -> None:
    async with (
        corestore_peer("--names", "a,b,c", "--blocks", 4, "--size", 500) as server,
        hypercore_peer("--blocks", 0) as stranger,
    ):
        keys = f"{stranger.key},{server.keys('a,b,c')}"
        async with corestore_peer("--connect", server.port, "--keys", keys) as client:
            for name in "abc":
                core = server.core(name)
                done = await client.event("core-done", key=core["key"])
                assert (done["length"], done["treeHash"]) == (4, core["treeHash"])
                for index in range(4):
                    await client.event(
                        "block",
                        key=core["key"][:16],
                        index=index,
                        blake2b=digest(named_block(name, index, size=500)),
                    )
            assert len(client.named("open")) == 1
            assert not client.named("exit"), "it still waits for the unknown core"


async def test_a_store_that_opened_nothing_serves_on_demand(tmp_path: Path) -> None:
    async with corestore_peer("--names", "a,b", directory=tmp_path) as writer:
        keys = writer.keys("a,b")
    async with (
        corestore_peer("--passive", directory=tmp_path) as server,
        corestore_peer("--connect", server.port, "--keys", keys) as client,
    ):
        for key in keys.split(","):
            await client.event("core-done", key=key, length=5)
        await client.event("exit", reason="done")
        assert not server.named("core")


async def test_networker_extensions_are_echoed_without_any_core() -> None:
    async with (
        corestore_peer("--net-ext", "chat") as server,
        corestore_peer(
            "--connect", server.port, "--net-ext", "chat", "--net-ext-send", "hé"
        ) as client,
    ):
        for peer in (server, client):
            await peer.event("net-open", version=1, flags=0)
            await peer.event("net-names", flags=0, names=["chat"])
        await server.event("net-ext", name="chat", text="hé")
        await client.event("net-ext", name="chat", text="echo:hé")


async def test_a_store_without_networker_extensions_rejects_their_channel_alone() -> None:
    async with (
        corestore_peer("--names", "a", "--blocks", 2) as server,
        corestore_peer(
            "--connect", server.port, "--net-ext", "chat", "--keys", server.keys("a"), "--live"
        ) as client,
    ):
        assert (await client.event("net-close"))["isRemote"] is True
        await client.event("block", blake2b=digest(b"a #1"))


async def test_the_directory_of_a_peer_that_is_killed_is_removed() -> None:
    async with hypercore_peer("--blocks", 1) as peer:
        directory = peer.directory
        assert any(directory.iterdir())
    assert not directory.exists()


async def _blocks(reader: LogPeer, contents: Iterable[bytes], *, first: int = 0) -> None:
    """Wait until the reader has told these blocks, from number `first` on."""
    for index, data in enumerate(contents, first):
        await reader.event("block", **block_fields(index, data))


async def _info(peer: LogPeer) -> Event:
    """Length, fork and tree hash that the peer has now."""
    await peer.tell("!info")
    info = await peer.event("info")
    return {name: info[name] for name in ("length", "fork", "treeHash")}
