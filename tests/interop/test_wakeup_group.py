"""A group of a networker with protomux-wakeup 2.9.0 as its peer: what a foreign program hears."""

from __future__ import annotations

import pytest

from covey.networker.reconcile import read_probe
from covey.store.basestore import Basestore
from tests.interop.harness import NodePeer
from tests.networker.groups import make_feeds, member
from tests.networker.support import TOPIC, until

pytestmark = pytest.mark.interop


async def test_node_is_asked_gets_all_heads_and_wakes_what_is_longer() -> None:
    async with Basestore() as store:
        keys = sorted(await make_feeds(store, 5))
        capability = b"\x63" * 32
        unknown = "07" * 32
        arguments = (
            *("--at", "300:lookup", "--at", "400:lookup"),
            *("--at", f"600:announce={keys[1].hex()}:9,{keys[2].hex()}:1,{unknown}:3"),
        )
        async with NodePeer("wakeup-peer.cjs", "--listen", 0, *arguments) as node:
            await node.event("listening")
            peers = [("127.0.0.1", node.port)]
            async with member(store, keys, peers=peers, capability=capability) as ours:
                await ours.networker.configure(TOPIC)
                asked = await node.event("lookup")
                probe = read_probe(bytes.fromhex(asked["hash"]))
                assert probe is not None
                assert (probe.is_root, probe.summary) == (True, ours.group._table.summary())
                told = await node.event("announce")
                assert told["list"] == [{"key": key.hex(), "length": 1} for key in keys]
                await until(lambda: ours.told("woken"))
                assert [event.heads for event in ours.told("hint")] == [((keys[1], 9),)]
                assert ours.keys("woken") == [keys[1]]
                (event,) = ours.told("unknown-writer")
                assert (event.heads[0].key.hex(), event.count) == (unknown, 1)
                assert len(node.named("announce")) == 1
