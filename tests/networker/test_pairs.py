"""The behaviour table of `networker.md` section 2, rows marked P: networkers over the loopback.

The number in a test's name is that of the row.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import AsyncExitStack
from typing import Any

import pytest

from covey.discovery.channel import Channel
from covey.discovery.dns import DnsDiscovery
from covey.discovery.source import Timing
from covey.discovery.static_peers import StaticPeers
from covey.flock.flock import Flock
from covey.networker import Networker, Peer
from covey.store.basestore import Basestore
from tests.discovery.fakes import free_udp_port
from tests.flock.support import mute_listener, refused_port
from tests.flock.test_connections import _forward
from tests.networker.support import (
    HOST,
    LARGE,
    OTHER_TOPIC,
    SMALL,
    TOPIC,
    FakeStore,
    Recorder,
    pair,
    quiet,
    stream_of,
    until,
)

OFTEN = Timing(early=(0.2, 0.5, 1.0), interval=2.0)
"""Rounds close together: a lost datagram must not fail a test."""


async def test_row_4_configure_returns_only_after_the_peer_add_of_a_known_announcer() -> None:
    async with quiet() as (first, _):
        place = await first.listen_on()
        await first.configure(TOPIC)
        async with quiet(peers=[place]) as (second, heard):
            await second.configure(TOPIC)
            assert heard.types == [
                "joined",
                "stream-opened",
                "peer-add",
                "handshake",
                "stream-processed",
                "flushed",
            ]
            assert heard.named("stream-opened")[0].info.initiator
            (peer,) = second.peers
            assert peer.remote_public_key == first.public_key


async def test_row_4_who_cannot_be_reached_is_no_error() -> None:
    async with refused_port() as port, quiet(peers=[(HOST, port)]) as (networker, heard):
        await networker.configure(TOPIC)
        assert heard.types == ["joined", "flushed"]
        assert networker.flushed(TOPIC)


async def test_row_6_leaving_forgets_the_topic_and_flushed_with_it() -> None:
    async with pair() as (_, (networker, heard)):
        assert networker.flushed(TOPIC)
        await networker.configure(TOPIC, announce=False, lookup=False)
        assert networker.flock.topics == ()
        assert not networker.joined(TOPIC)
        assert not networker.flushed(TOPIC)
        await networker.configure(TOPIC)
        assert networker.flushed(TOPIC)
        assert heard.types.count("flushed") == 2


async def test_row_10_flushed_when_what_was_opening_has_finished_or_failed() -> None:
    async with mute_listener() as port, quiet(peers=[(HOST, port)]) as (networker, heard):
        waiting = asyncio.create_task(networker.configure(TOPIC))
        opened = await heard.seen("stream-opened")
        assert not networker.flushed(TOPIC)
        assert not waiting.done()
        await networker.configure(TOPIC, announce=False, lookup=False)
        await waiting
        closed = await heard.seen("stream-closed")
        assert closed.stream is opened.stream
        assert not closed.finished_handshake
        assert heard.named("flushed") == []


async def test_row_10_a_networker_without_anybody_is_flushed() -> None:
    async with quiet(peers=[]) as (networker, heard):
        await networker.configure(TOPIC)
        assert networker.flushed(TOPIC)
        assert heard.types == ["joined", "flushed"]


@pytest.mark.parametrize("keys", [(SMALL, LARGE), (LARGE, SMALL)])
async def test_row_16_two_topics_and_one_peer_leave_one_connection(keys: tuple[Any, Any]) -> None:
    async with AsyncExitStack() as stack:
        first, heard = await stack.enter_async_context(quiet(peers=[], key_pair=keys[0]))
        place = await first.listen_on()
        second, told = await stack.enter_async_context(quiet(peers=[place], key_pair=keys[1]))
        back = await second.listen_on()
        await asyncio.gather(*(first.configure(topic) for topic in (TOPIC, OTHER_TOPIC)))
        first.flock.add_peer(TOPIC, back)
        await asyncio.gather(*(second.configure(topic) for topic in (TOPIC, OTHER_TOPIC)))
        first.flock.add_peer(OTHER_TOPIC, back)
        await until(lambda: len(first.peers) == len(second.peers) == 1)
        flocks = [first.flock, second.flock]
        await until(lambda: all(flock.total_connections == 1 for flock in flocks))
        for networker, recorder in ((first, heard), (second, told)):
            names = [name for name in recorder.types if name.startswith("peer")]
            assert names == ["peer-add"]
            assert len(networker.streams) == 1
        ours, theirs = stream_of(first).connection, stream_of(second).connection
        assert ours is not None
        assert theirs is not None
        assert ours.handshake_hash == theirs.handshake_hash


async def test_row_17_its_own_announcement_is_not_a_peer() -> None:
    async with quiet() as (networker, heard):
        place = await networker.listen_on()
        await networker.configure(TOPIC)
        assert not networker.flock.add_peer(TOPIC, place)
        async with _forward(place) as detour:
            networker.flock.add_peer(TOPIC, detour)
            await heard.seen("stream-closed", 2)
        assert heard.named("peer-add") == []
        assert len(heard.named("stream-processed")) == 2


async def test_rows_18_and_19_peers_and_streams_on_both_sides() -> None:
    async with pair() as ((first, heard), (second, told)):
        for networker, other, recorder in ((first, second, heard), (second, first, told)):
            (peer,) = networker.peers
            stream = stream_of(networker)
            assert peer is recorder.named("peer-add")[0].peer
            assert (peer.type, peer.stream) == ("tcp", stream)
            assert peer.remote_public_key == other.public_key == stream.remote_public_key
            assert stream.public_key == networker.public_key
            assert stream.connection is not None
            assert peer.remote_address == stream.connection.remote_address
            assert peer.remote_address[0] == HOST


@pytest.mark.parametrize("dialler_closes", [True, False])
async def test_row_20_peer_remove_comes_once_on_both_sides(dialler_closes: bool) -> None:
    async with pair() as ((first, heard), (second, told)):
        await first.configure(TOPIC, announce=False, lookup=False)
        closing = second if dialler_closes else first
        connection = stream_of(closing).connection
        assert connection is not None
        await second.configure(TOPIC, announce=False, lookup=False)
        await connection.close()
        for recorder in (heard, told):
            await recorder.seen("stream-closed")
            names = recorder.types
            assert names.count("peer-remove") == names.count("peer-add") == 1
            assert names.index("peer-remove") < names.index("stream-closed")
            assert recorder.named("replication-error") == []
        assert first.peers == second.peers == frozenset()


async def test_row_25_connections_outlive_their_topic() -> None:
    async with pair() as ((first, heard), (second, told)):
        ext = second.register_extension("chat", encoding="utf-8")
        got: list[str] = []
        first.register_extension(
            "chat", encoding="utf-8", on_message=lambda text, _: got.append(text)
        )
        for networker in (first, second):
            await networker.configure(TOPIC, announce=False, lookup=False)
        ext.broadcast("still here")
        await until(lambda: got == ["still here"])
        assert "peer-remove" not in heard.types + told.types


async def test_row_26_extensions_on_present_and_future_peers() -> None:
    got: list[tuple[str, str, Peer]] = []
    async with quiet() as (first, _):
        place = await first.listen_on()
        await first.configure(TOPIC)
        first.register_extension(
            "early", encoding="utf-8", on_message=lambda text, peer: got.append(("e", text, peer))
        )
        async with quiet(peers=[place]) as (second, _):
            await second.configure(TOPIC)
            await until(lambda: first.peers)
            for mark in "12":

                def note(text: str, peer: Peer, mark: str = mark) -> None:
                    got.append((mark, text, peer))

                first.register_extension("late", encoding="utf-8", on_message=note)
            (peer,) = second.peers
            await until(lambda: peer.stream.extensions == {"early", "late"})
            second.register_extension("early", encoding="utf-8").send("a", peer)
            second.register_extension("late", encoding="utf-8").send("b", peer)
            await until(lambda: len(got) == 3)
            (sender,) = first.peers
            assert got == [("e", "a", sender), ("1", "b", sender), ("2", "b", sender)]


async def test_row_28_a_broadcast_reaches_every_peer_there_is() -> None:
    got: dict[int, list[str]] = {}
    async with AsyncExitStack() as stack:
        hub, _ = await stack.enter_async_context(quiet())
        place = await hub.listen_on()
        await hub.configure(TOPIC)
        for number in range(3):
            got[number] = []
            member, _ = await stack.enter_async_context(quiet(peers=[place]))

            def note(text: str, _: Peer, number: int = number) -> None:
                got[number].append(text)

            member.register_extension("chat", encoding="utf-8", on_message=note)
            await member.configure(TOPIC)
        await until(lambda: len(hub.peers) == 3)
        hub.register_extension("chat", encoding="utf-8").broadcast("all")
        await until(lambda: all(got.values()))
        assert got == {0: ["all"], 1: ["all"], 2: ["all"]}


async def test_row_31_close_tells_both_sides_and_may_be_called_twice() -> None:
    async with pair() as ((first, heard), (second, told)):
        await second.close()
        await second.close()
        assert told.types[-2:] == ["peer-remove", "stream-closed"]
        assert not second.peers
        assert not second.streams
        await heard.seen("stream-closed")
        assert heard.types[-2:] == ["peer-remove", "stream-closed"]
        assert first.peers == frozenset()
        assert second.flock.closed
        assert heard.named("replication-error") == told.named("replication-error") == []


async def test_row_31_a_given_flock_goes_on_after_the_networker() -> None:
    async with quiet() as (first, _):
        place = await first.listen_on()
        await first.configure(TOPIC)
        async with (
            Channel([StaticPeers([place])]) as channel,
            Flock(channel=channel, host=HOST) as flock,
        ):
            async with Networker(FakeStore(), flock=flock) as second:
                await second.configure(TOPIC)
                assert len(second.peers) == 1
            assert not flock.closed
            assert flock.topics == ()
            await until(lambda: not first.peers)


async def test_two_networkers_and_a_flock_meet_by_multicast() -> None:
    """By the name that every discovery swarm makes of a topic: the SHA-1 of its 32 bytes."""
    port = free_udp_port()

    async def multicast(stack: AsyncExitStack) -> Channel:
        source = DnsDiscovery(port=port, interface="lo", timing=OFTEN)
        return await stack.enter_async_context(Channel([source]))

    async with AsyncExitStack() as stack:
        networkers = []
        for _ in range(2):
            channel = await multicast(stack)
            networker = Networker(FakeStore(), channel=channel, host=HOST)
            networkers.append(await stack.enter_async_context(networker))
        flock = Flock(channel=await multicast(stack), host=HOST)
        await stack.enter_async_context(flock)
        topic = await flock.join(TOPIC)
        assert topic.hash == hashlib.sha1(TOPIC).digest()
        for networker in networkers:
            await networker.configure(TOPIC)
        first, second = networkers
        await until(lambda: len(first.peers) == len(second.peers) == flock.connected == 2)


async def test_two_stores_exchange_a_log_and_follow_it() -> None:
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(Basestore()) for _ in range(2)]
        source = await stores[0].get(name="notes")
        await source.append([b"one", b"two"])
        first, _ = await stack.enter_async_context(quiet(stores[0]))
        place = await first.listen_on()
        await first.configure(source.discovery_key)
        second, told = await stack.enter_async_context(quiet(stores[1], peers=[place]))
        copy = await stores[1].get(key=source.key)
        await second.configure(source.discovery_key, announce=False)
        async with asyncio.timeout(20):
            assert [await copy.get(index) for index in range(2)] == [b"one", b"two"]
            await source.append(b"three")
            assert await copy.get(2) == b"three"
            later = await stores[0].get(name="another log on the same connection")
            await later.append(b"x")
            other = await stores[1].get(key=later.key)
            assert await other.get(0) == b"x"
        assert len(second.peers) == 1
        await second.close()
        assert told.named("replication-error") == []
        assert Recorder(first).types == []
