"""The published dns-discovery 6.2.3 over multicast on loopback, both roles each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from covey.discovery import Channel, DnsDiscovery, PeerFound, Timing, topic_hash
from tests.discovery.fakes import free_udp_port
from tests.interop.harness import NodePeer

pytestmark = pytest.mark.interop

PROGRAM = "dns-discovery-client.cjs"
TOPIC = topic_hash("swarm")
NAME = TOPIC.hex()
LO = "127.0.0.1"
ONCE = Timing(interval=3600.0)


@asynccontextmanager
async def covey(port: int) -> AsyncIterator[tuple[Channel, asyncio.Queue[PeerFound]]]:
    """A channel in the group on loopback that asks once, and the peers it tells."""
    found: asyncio.Queue[PeerFound] = asyncio.Queue()
    async with Channel([DnsDiscovery(port=port, interface=LO, timing=ONCE)]) as channel:
        channel.subscribe(found.put_nowait)
        yield channel, found


def node(port: int, *steps: str) -> NodePeer:
    return NodePeer(PROGRAM, "--multicast", "lo", "--mdns-port", port, "--linger", 40_000, *steps)


async def told(found: asyncio.Queue[PeerFound]) -> PeerFound:
    async with asyncio.timeout(20):
        return await found.get()


async def test_node_announces_then_covey_looks_up() -> None:
    port = free_udp_port()
    async with node(port, f"announce:{NAME}:4001") as peer, covey(port) as (channel, found):
        await peer.event("announced", port=4001)
        channel.join("swarm", announce=False)
        assert await told(found) == PeerFound(b"swarm", TOPIC, LO, 4001, "dns")


async def test_covey_looks_up_then_node_announces() -> None:
    """The reference answers the echo of its own query, so its announce is heard at once."""
    port = free_udp_port()
    async with covey(port) as (channel, found):
        await channel.join("swarm", announce=False).first_round()
        async with node(port, f"announce:{NAME}:4002"):
            assert await told(found) == PeerFound(b"swarm", TOPIC, LO, 4002, "dns")


async def test_covey_announces_then_node_looks_up() -> None:
    port = free_udp_port()
    async with covey(port) as (channel, _):
        await channel.join("swarm", port=4003).first_round()
        async with node(port, f"lookup:{NAME}") as peer:
            heard = await peer.event("peer", peer={"port": 4003, "host": LO})
            assert heard["name"] == NAME


async def test_node_looks_up_then_covey_announces_and_node_takes_what_it_did_not_ask_for() -> None:
    port = free_udp_port()
    async with node(port, f"lookup:{NAME}") as peer, covey(port) as (channel, _):
        await peer.event("step", error=None)
        await channel.join("swarm", port=4004).first_round()
        heard = await peer.event("peer", peer={"port": 4004, "host": LO})
        assert heard["name"] == NAME


async def test_both_announce_and_each_finds_the_other() -> None:
    port = free_udp_port()
    async with covey(port) as (channel, found), node(port, f"announce:{NAME}:4005") as peer:
        await peer.event("announced", port=4005)
        await channel.join("swarm", port=4006).first_round()
        assert (await told(found)).port == 4005
        heard = await peer.event("peer", peer={"port": 4006, "host": LO})
        assert heard["name"] == NAME


async def test_what_node_withdrew_is_not_found() -> None:
    port = free_udp_port()
    steps = (f"announce:{NAME}:4007", f"unannounce:{NAME}:4007", f"announce:{NAME}:4008")
    async with node(port, *steps) as peer, covey(port) as (channel, found):
        await peer.event("announced", port=4008)
        channel.join("swarm", announce=False)
        assert (await told(found)).port == 4008
        assert found.empty()


async def test_the_bytes_of_a_question_and_its_answer_are_read_by_node_as_meant() -> None:
    port = free_udp_port()
    async with node(port, f"lookup:{NAME}") as peer, covey(port) as (channel, _):
        await peer.event("step", error=None)
        await channel.join("swarm", port=4009).first_round()
        name = f"{NAME}.dns-discovery.local"
        asked = {"id": 0, "questions": [{"type": "TXT", "name": name}]}
        while True:
            traffic = await peer.event("traffic", type="in:multicastresponse")
            (answer,) = traffic["message"]["answers"]
            token, peers = answer["data"]
            if peers == "peers=AAAAAA+p":
                break
        assert traffic["message"] | asked == traffic["message"]
        assert token.startswith("token=")
        assert len(token) == 6 + 44
        assert (answer["name"], answer["ttl"]) == (name, 0)
