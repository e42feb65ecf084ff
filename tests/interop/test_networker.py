"""A corestore of Node as the other end of a networker: rows 24, 26, 28 and 29, and section 4."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from covey.errors import ClosedError
from covey.networker import Networker, Peer
from covey.store.basestore import Basestore
from tests.interop.log_sides import LogPeer, block_fields, corestore_peer, named_block
from tests.networker.support import HOST, TOPIC, Recorder, quiet, until

pytestmark = pytest.mark.interop

ROLES = ("covey-dials", "node-dials")


@asynccontextmanager
async def joined(
    role: str, networker: Networker, heard: Recorder, *arguments: object
) -> AsyncIterator[tuple[LogPeer, Peer]]:
    """A Node program and a networker, connected by whoever `role` says dials."""
    host, port = await networker.listen_on()
    ways = () if role == "covey-dials" else ("--connect", port)
    async with corestore_peer(*arguments, *ways) as node:
        if role == "covey-dials":
            networker.flock.add_peer(TOPIC, (host, node.port))
        added = await heard.seen("peer-add")
        yield node, added.peer


@asynccontextmanager
async def stored(**options: Any) -> AsyncIterator[tuple[Basestore, Networker, Recorder]]:
    """A networker and its store, in memory."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(Basestore())
        networker, heard = await stack.enter_async_context(quiet(store, host=HOST, **options))
        yield store, networker, heard


@pytest.mark.parametrize("role", ROLES)
async def test_row_24_one_stream_carries_all_logs_of_node_and_of_ours(role: str) -> None:
    names = ("a", "b", "c")
    async with stored() as (store, networker, heard):
        ours = await store.get(name="ours")
        await ours.append([b"from", b"covey"])
        arguments = ("--names", "a,b,c", "--blocks", 3, "--keys", ours.key.hex(), "--live")
        async with joined(role, networker, heard, *arguments) as (node, _):
            async with asyncio.timeout(20):
                for name in names:
                    feed = await store.get(key=bytes.fromhex(node.core(name)["key"]))
                    blocks = [await feed.get(index) for index in range(3)]
                    assert blocks == [named_block(name, index) for index in range(3)]
            for index, data in enumerate((b"from", b"covey")):
                await node.event("block", **block_fields(index, data))
            await ours.append(b"live")
            await node.event("block", **block_fields(2, b"live"))
            assert len(networker.streams) == 1
        await heard.seen("peer-remove")


@pytest.mark.parametrize("role", ROLES)
async def test_rows_26_and_28_messages_go_both_ways(role: str) -> None:
    got: list[tuple[str, Peer]] = []
    async with stored() as (_, networker, heard):
        chat = networker.register_extension(
            "chat", encoding="utf-8", on_message=lambda text, peer: got.append((text, peer))
        )
        said = ("--net-ext", "chat", "--net-ext-send", "hi from node")
        async with joined(role, networker, heard, *said) as (node, peer):
            opened = await node.event("net-open")
            assert (opened["version"], opened["flags"]) == (1, 0)
            await node.event("net-names", flags=0, names=["chat"])
            await until(lambda: got == [("hi from node", peer)])
            await until(lambda: peer.stream.extensions == {"chat"})
            chat.send("grüß", peer)
            await node.event("net-ext", name="chat", text="grüß")
            await until(lambda: len(got) == 2)
            chat.broadcast("to all")
            await node.event("net-ext", text="to all")
            await until(lambda: len(got) == 3)
            assert [text for text, _ in got] == ["hi from node", "echo:grüß", "echo:to all"]
            assert {sender for _, sender in got} == {peer}


async def test_row_26_what_is_registered_and_destroyed_later_is_told_to_node() -> None:
    async with (
        stored() as (_, networker, heard),
        joined("node-dials", networker, heard, "--net-ext", "chat") as (node, _),
    ):
        await node.event("net-names", flags=0, names=[])
        later = networker.register_extension("later")
        await node.event("net-names", flags=0, names=["later"])
        later.broadcast(b"not known there")
        await node.event("net-ext-unknown", name="later")
        later.destroy()
        await node.event("net-names", flags=1, names=["later"])


@pytest.mark.parametrize("role", ROLES)
async def test_row_29_what_does_not_decode_goes_to_on_error_and_the_stream_lives(role: str) -> None:
    got: list[Any] = []
    errors: list[Exception] = []
    async with stored() as (store, networker, heard):
        chat = networker.register_extension(
            "chat",
            encoding="json",
            on_message=lambda value, _: got.append(value),
            on_error=errors.append,
        )
        said = ("--net-ext", "chat", "--net-ext-send", "this is no JSON", "--names", "a")
        async with joined(role, networker, heard, *said) as (node, peer):
            await until(lambda: errors)
            chat.send({"a": 1}, peer)
            await node.event("net-ext", text='{"a":1}')
            await until(lambda: len(errors) == 2)  # its echo is no JSON either
            feed = await store.get(key=bytes.fromhex(node.core("a")["key"]))
            async with asyncio.timeout(20):
                assert await feed.get(0) == named_block("a", 0)
            assert got == []
            assert networker.peers == {peer}


@pytest.mark.parametrize("role", ROLES)
async def test_section_4_node_without_the_channel_rejects_it_and_replicates(role: str) -> None:
    async with stored() as (store, networker, heard):
        chat = networker.register_extension("chat")
        async with joined(role, networker, heard, "--names", "a") as (node, peer):
            feed = await store.get(key=bytes.fromhex(node.core("a")["key"]))
            async with asyncio.timeout(20):
                assert await feed.get(0) == named_block("a", 0)
            channel = peer.stream.channel
            assert channel is not None
            await until(lambda: channel.closed)
            with pytest.raises(ClosedError):
                chat.send(b"x", peer)
            chat.broadcast(b"x")
            async with asyncio.timeout(20):
                assert await feed.get(1) == named_block("a", 1)
            assert networker.peers == {peer}


async def test_row_31_node_sees_the_end_when_the_networker_closes() -> None:
    async with stored() as (_, networker, heard):
        async with joined("node-dials", networker, heard, "--net-ext", "chat") as (node, _):
            await node.event("net-open")
            await networker.close()
            await node.event("disconnect")
        assert heard.types[-2:] == ["peer-remove", "stream-closed"]
        assert heard.named("replication-error") == []
