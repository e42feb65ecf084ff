"""Logs with encrypted blocks between covey and hypercore 11.37.1, in both directions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.keys import KeyPair
from covey.store.basestore import Basestore
from tests.interop.harness import NodePeer
from tests.store.meeting import happened, place, take
from tests.waiting import PATIENCE

pytestmark = pytest.mark.interop

PROGRAM = "encrypted-peer.cjs"
SECRET = bytes(range(32))


@pytest.mark.parametrize("kind", [(), ("--compat",)])
async def test_what_node_encrypted_is_read_here(tmp_path: Path, kind: tuple[str, ...]) -> None:
    options = ("--secret", SECRET.hex(), "--blocks", 20, "--dir", tmp_path / "node", *kind)
    async with (
        Basestore(tmp_path / "ours") as store,
        place(store) as mine,
        NodePeer(PROGRAM, *options, stdin=True) as node,
    ):
        ready = await node.event("ready")
        await node.event("listening")
        feed = await store.get(bytes.fromhex(ready["key"]), encryption_key=SECRET)
        events = feed.listen()
        await mine.dial(node.port)
        reader = feed.live()
        assert await take(reader, 20) == [f"secret #{index}".encode() for index in range(20)]
        assert feed.byte_length == ready["byteLength"]
        async with asyncio.timeout(PATIENCE):
            assert await feed.seek(21) == (2, 3)
        await node.tell("later")
        assert await take(reader, 1) == [b"later"]
        await node.tell("!truncate 10")
        await happened(events, "truncate", length=10, fork=1)
        await node.tell("on another fork")
        assert await take(reader, 1) == [b"on another fork"]


@pytest.mark.parametrize("compat", [False, True])
async def test_what_was_encrypted_here_is_read_by_node(tmp_path: Path, compat: bool) -> None:
    pair = KeyPair.generate()
    async with Basestore() as store, place(store) as mine:
        key = pair.public_key if compat else None
        feed = await store.get(key=key, key_pair=pair, encryption_key=SECRET)
        await feed.append([b"one", b"", b"three", b"gone"])
        await feed.truncate(3)
        await feed.append(b"on another fork")
        options = ("--secret", SECRET.hex(), "--blocks", 4, "--dir", tmp_path)
        ways = ("--key", feed.key.hex(), "--connect", mine.port, *(["--compat"] * compat))
        async with NodePeer(PROGRAM, *options, *ways) as node:
            for index, text in enumerate(("one", "", "three", "on another fork")):
                await node.event("block", index=index, text=text)
            assert (await node.event("done"))["byteLength"] == feed.byte_length
