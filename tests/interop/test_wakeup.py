"""protomux-wakeup 2.9.0 as the other end, in both roles, over the secret stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from covey.net.connection import Connection
from covey.wakeup import Wakeup, WakeupSession, WriterHead, topic_id
from tests.interop.harness import NodePeer
from tests.interop.sides import accepting, dialled
from tests.wakeup_sides import Recorder

pytestmark = pytest.mark.interop

PROGRAM = "wakeup-peer.cjs"
ROLES = ("covey-dials", "node-dials")
CAPABILITY = b"\x63" * 32
"""What the program uses unless it is told another."""
OTHER = b"\x64" * 32
TOPIC = topic_id(CAPABILITY)
KEY = b"\x07" * 32
HASH = b"\x08" * 32
HEAD = WriterHead(KEY, 1337)
NODE_HEAD = {"key": KEY.hex(), "length": 1337}
ANSWER = f"{KEY.hex()}:1337"


@asynccontextmanager
async def joined(role: str, *arguments: object) -> AsyncIterator[tuple[NodePeer, Connection]]:
    """The Node program and covey, connected by whoever `role` says dials."""
    async with AsyncExitStack() as stack:
        if role == "covey-dials":
            peer = await stack.enter_async_context(NodePeer(PROGRAM, "--listen", 0, *arguments))
            await peer.event("listening")
            connection = await stack.enter_async_context(dialled(peer.port))
        else:
            ours = await stack.enter_async_context(accepting())
            peer = await stack.enter_async_context(
                NodePeer(PROGRAM, "--connect", ours.port, *arguments)
            )
            connection = await ours.connection()
        yield peer, connection


@asynccontextmanager
async def met(
    role: str, *arguments: object, recorder: Recorder | None = None, **options: Any
) -> AsyncIterator[tuple[NodePeer, Wakeup, WakeupSession, Recorder]]:
    """The Node program and a session of covey that has met it."""
    recorder = recorder or Recorder()
    async with joined(role, *arguments) as (peer, connection), Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY, recorder.handlers(**options))
        wakeup.add_stream(connection)
        if not options.get("active", True):
            session.add_stream(connection)
        await recorder.until("peer-add")
        await peer.event("peeradd")
        yield peer, wakeup, session, recorder


@pytest.mark.parametrize("role", ROLES)
async def test_a_lookup_is_answered_by_the_other_side(role: str) -> None:
    async with met(role, "--answer", ANSWER) as (peer, wakeup, session, ours):
        await peer.event("peeractive")
        session.broadcast_lookup()
        await peer.event("lookup", hash=None)
        await ours.until("announce", HEAD)
        session.broadcast_lookup(HASH)
        await peer.event("lookup", hash=HASH.hex())
        counts = wakeup.stats.snapshot()
        assert (counts.wire_lookup_tx, counts.wire_lookup_rx) == (2, 0)


@pytest.mark.parametrize("role", ROLES)
async def test_a_lookup_of_the_other_side_is_answered(role: str) -> None:
    recorder = Recorder(answer=[HEAD, WriterHead(HASH, 1 << 40)])
    at = (
        "--at",
        "300:lookup",
        "--at",
        f"400:lookup={HASH.hex()}",
        "--at",
        f"500:announce={ANSWER}",
    )
    async with met(role, *at, recorder=recorder) as (peer, wakeup, _session, ours):
        await ours.until("lookup", None)
        listed = [NODE_HEAD, {"key": HASH.hex(), "length": 1 << 40}]
        await peer.event("announce", list=listed)
        await ours.until("lookup", HASH)
        await ours.until("announce", HEAD)
        assert wakeup.stats.wire_announce_tx == 2


@pytest.mark.parametrize("role", ROLES)
async def test_activity_is_told_both_ways(role: str) -> None:
    at = ("--at", "300:inactive", "--at", "400:active", "--at", "500:destroy-session")
    async with met(role, *at) as (peer, _wakeup, session, ours):
        await peer.event("peeractive")
        await peer.event("did", action="destroy-session")
        session.inactive()
        await ours.until("peer-inactive")
        async with asyncio.timeout(10):
            while ours.told.count(("peer-inactive",)) < 2:
                ours.news.clear()
                await ours.news.wait()
        assert ours.told == [
            *(("peer-add",), ("peer-active",)),
            *(("peer-inactive",), ("peer-active",), ("peer-inactive",)),
        ]


@pytest.mark.parametrize("role", ROLES)
async def test_our_activity_is_told(role: str) -> None:
    async with met(role) as (peer, wakeup, session, _ours):
        await peer.event("peeractive")
        session.inactive()
        await peer.event("peerinactive")
        session.active()
        await peer.event("peeractive")
        session.destroy()
        await peer.event("peerinactive")
        assert wakeup.stats.wire_info_tx == 3


@pytest.mark.parametrize("role", ROLES)
async def test_an_inactive_side_is_met_and_is_no_active_peer(role: str) -> None:
    async with met(role, "--start-inactive", active=False) as (peer, _wakeup, session, ours):
        session.broadcast_announce([HEAD])
        await peer.event("announce", list=[NODE_HEAD])
        assert ours.told == [("peer-add",)]
        assert peer.named("peeractive") == []


@pytest.mark.parametrize("role", ROLES)
async def test_another_capability_for_the_same_topic_is_refused_and_the_stream_lives(
    role: str,
) -> None:
    ours, other = Recorder(), Recorder()
    key = HASH
    arguments = ("--discovery-key", key.hex(), "--at", "1500:state")
    async with joined(role, *arguments) as (peer, connection), Wakeup() as wakeup:
        wakeup.session(OTHER, ours.handlers(discovery_key=key))
        wakeup.session(CAPABILITY, other.handlers())
        wakeup.add_stream(connection)
        state = await peer.event("state")
        [topic] = state["topics"]
        assert (topic["peers"], topic["pending"], topic["activePeers"]) == (0, 0, 0)
        assert ours.told == other.told == []
        assert wakeup.stats.peers_removed == 2  # one was refused, the other rejected
        assert not connection.closed
        assert peer.named("error") == peer.named("stream-close") == []


@pytest.mark.parametrize("role", ROLES)
async def test_a_topic_with_an_id_of_its_own(role: str) -> None:
    arguments = ("--discovery-key", HASH.hex(), "--answer", ANSWER)
    async with met(role, *arguments, discovery_key=HASH) as (_peer, _wakeup, session, ours):
        assert session.topic.id == HASH
        session.broadcast_lookup()
        await ours.until("announce", HEAD)


@pytest.mark.parametrize("role", ROLES)
async def test_a_topic_that_node_does_not_want_is_refused(role: str) -> None:
    ours = Recorder()
    async with joined(role, "--session", "none") as (peer, connection), Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY, ours.handlers())
        wakeup.add_stream(connection)
        asked = await peer.event("wakeup")
        assert asked["id"] == TOPIC.hex()
        async with asyncio.timeout(10):
            await session.topic.pending_peers[0].channel.fully_closed()
        assert ours.told == []
        assert not connection.closed


@pytest.mark.parametrize("role", ROLES)
async def test_node_is_woken_and_answers_what_was_asked_meanwhile(role: str) -> None:
    ours = Recorder()
    arguments = ("--session", "onwakeup", "--answer", ANSWER)
    async with joined(role, *arguments) as (peer, connection), Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY, ours.handlers())
        wakeup.add_stream(connection)
        session.broadcast_lookup(HASH)
        await peer.event("wakeup", id=TOPIC.hex())
        await peer.event("lookup", hash=HASH.hex())
        await ours.until("announce", HEAD)


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
@pytest.mark.parametrize("role", ROLES)
async def test_covey_is_woken_by_node(role: str, later: bool) -> None:
    ours = Recorder(answer=[HEAD])
    woken: list[tuple[bytes, Connection]] = []

    def on_wakeup(key: bytes, stream: Connection) -> None:
        woken.append((key, stream))
        wakeup.session(CAPABILITY, ours.handlers())

    async def on_wakeup_later(key: bytes, stream: Connection) -> None:
        await asyncio.sleep(0)
        on_wakeup(key, stream)

    wakeup = Wakeup(on_wakeup_later if later else on_wakeup)
    async with joined(role, "--at", "0:lookup") as (peer, connection), wakeup:
        wakeup.add_stream(connection)
        await peer.event("announce", list=[NODE_HEAD])
        assert woken == [(TOPIC, connection)]
        assert ours.told[:2] == [("peer-add",), ("peer-active",)]


@pytest.mark.parametrize("role", ROLES)
async def test_covey_refuses_a_topic_that_it_does_not_want(role: str) -> None:
    woken: list[bytes] = []
    wakeup = Wakeup(lambda key, _stream: woken.append(key))
    async with (
        joined(role, "--at", "1500:state", "--at", "1600:stats") as (peer, connection),
        wakeup,
    ):
        wakeup.add_stream(connection)
        [topic] = (await peer.event("state"))["topics"]
        assert (topic["peers"], topic["pending"]) == (0, 0)
        assert (await peer.event("stats"))["stats"]["peersRemoved"] == 1
        assert woken == [TOPIC]
        assert not connection.closed


@pytest.mark.parametrize("role", ROLES)
async def test_several_topics_on_one_stream(role: str) -> None:
    first, second = Recorder(answer=[HEAD]), Recorder()
    async with joined(role, "--at", "300:lookup") as (peer, connection), Wakeup() as wakeup:
        wakeup.session(OTHER, second.handlers())
        wakeup.session(CAPABILITY, first.handlers())
        third = wakeup.session(HASH)
        wakeup.add_stream(connection)
        await first.until("lookup", None)
        await peer.event("announce", list=[NODE_HEAD])
        assert second.told == []  # Node does not know it
        assert third.peers == []
        assert len(connection.mux.core.channels) == 1


@pytest.mark.parametrize("role", ROLES)
async def test_node_collects_a_topic_that_nobody_needs(role: str) -> None:
    at = ("--gc-tick", 50, "--at", "300:destroy-session", "--at", "1500:state")
    async with met(role, *at) as (peer, wakeup, session, ours):
        session.inactive()
        await ours.until("peer-remove")
        assert (await peer.event("state"))["topics"] == []
        assert wakeup.stats.peers_removed == 1
        assert ours.told[-1] == ("peer-remove",)


@pytest.mark.parametrize("role", ROLES)
async def test_covey_collects_a_topic_that_nobody_needs(role: str) -> None:
    ours = Recorder()
    wakeup = Wakeup(gc_tick=0.05)
    async with joined(role, "--start-inactive") as (peer, connection), wakeup:
        session = wakeup.session(CAPABILITY, ours.handlers())
        wakeup.add_stream(connection)
        await peer.event("peeractive")
        session.destroy()
        await peer.event("peerinactive")
        await peer.event("peerremove")
        assert not wakeup.topics
        assert wakeup.stats.topics_gcd == 1
        assert not connection.closed


@pytest.mark.parametrize("role", ROLES)
async def test_an_active_node_keeps_a_topic_without_sessions(role: str) -> None:
    at = ("--at", "600:inactive")
    async with joined(role, *at) as (peer, connection), Wakeup(gc_tick=0.01) as wakeup:
        session = wakeup.session(CAPABILITY, Recorder().handlers())
        wakeup.add_stream(connection)
        await peer.event("peeractive")
        session.destroy()
        await peer.event("peerinactive")
        assert TOPIC in wakeup.topics
        await peer.event("peerremove")  # after it turned inactive itself
        assert peer.named("did") == [{"event": "did", "action": "inactive"}]


@pytest.mark.parametrize("role", ROLES)
async def test_the_end_of_either_wakeup_closes_its_channels(role: str) -> None:
    async with met(role, "--at", "500:destroy") as (peer, _wakeup, session, ours):
        await ours.until("peer-remove")
        await peer.event("session-destroyed")
        assert session.peers == []
    async with met(role) as (peer, wakeup, _session, ours):
        wakeup.destroy()
        await peer.event("peerinactive")
        await peer.event("peerremove")
        assert ours.told[-1] == ("destroy",)


@pytest.mark.parametrize("role", ROLES)
async def test_an_announce_of_many_heads_arrives_whole(role: str) -> None:
    count = 20_000
    async with met(role) as (peer, _wakeup, session, _ours):
        heads = [WriterHead(number.to_bytes(32, "big"), number) for number in range(count)]
        session.broadcast_announce(heads)
        told = (await peer.event("announce"))["list"]
        assert len(told) == count
        assert told[-1] == {"key": (count - 1).to_bytes(32, "big").hex(), "length": count - 1}
