from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from covey.discovery import Channel, DnsDiscovery, PeerFound, StaticPeers, Timing, topic_hash
from covey.discovery.dns import TIMING
from covey.discovery.multicast import GROUP
from covey.errors import DiscoveryError, LimitError
from covey.limits import Limits
from covey.wire import dns_discovery as codec
from covey.wire.dns_messages import encode_message
from tests.discovery.fakes import Pauses, free_udp_port

LO = "127.0.0.1"
SLOW = Timing(interval=3600.0)
ROOT = Path(__file__).parent.parent.parent


def channel_on(port: int, *, loopback: bool = False, timing: Timing = SLOW) -> Channel:
    return Channel([DnsDiscovery(port=port, interface=LO, loopback=loopback, timing=timing)])


class Heard:
    """Ports of the peers that a channel tells, in order."""

    def __init__(self, channel: Channel) -> None:
        self.ports: list[int] = []
        self._changed = asyncio.Event()
        channel.subscribe(self._note)

    def _note(self, event: PeerFound) -> None:
        self.ports.append(event.port)
        self._changed.set()

    async def port(self, port: int) -> None:
        """Wait until this one was told."""
        async with asyncio.timeout(5):
            while port not in self.ports:
                self._changed.clear()
                await self._changed.wait()


async def first_peer(channel: Channel) -> PeerFound:
    with channel.listen() as events:
        async with asyncio.timeout(5):
            event = await anext(events)
    assert isinstance(event, PeerFound)
    return event


async def found_on(channel: Channel, port: int) -> PeerFound:
    waiting = asyncio.create_task(first_peer(channel))
    await asyncio.sleep(0)
    channel.join("swarm", port=port or None, announce=port != 0)
    return await waiting


def test_rounds_are_early_and_then_each_60_to_70_seconds() -> None:
    pauses = TIMING.pauses(lambda: 1.0)
    assert [next(pauses) for _ in range(4)] == [1.0, 2.0, 70.0, 70.0]


async def test_two_channels_announce_different_ports_and_each_hears_the_others() -> None:
    port = free_udp_port()
    async with channel_on(port) as one, channel_on(port) as two:
        heard_by_one = asyncio.create_task(first_peer(one))
        heard_by_two = asyncio.create_task(first_peer(two))
        await asyncio.sleep(0)
        await one.join("swarm", port=1001).first_round()
        await two.join("swarm", port=1002).first_round()
        topic = topic_hash("swarm")
        assert await heard_by_one == PeerFound(b"swarm", topic, LO, 1002, "dns")
        assert await heard_by_two == PeerFound(b"swarm", topic, LO, 1001, "dns")


async def test_who_joined_first_hears_of_an_announcer_without_asking_again() -> None:
    port = free_udp_port()
    async with channel_on(port) as early, channel_on(port) as late:
        waiting = asyncio.create_task(first_peer(early))
        await early.join("swarm", announce=False).first_round()
        late.join("swarm", port=1002)
        assert (await waiting).port == 1002


async def test_who_joins_later_only_to_look_hears_of_those_who_announced() -> None:
    port = free_udp_port()
    async with channel_on(port) as early, channel_on(port) as late:
        await early.join("swarm", port=1001).first_round()
        assert (await found_on(late, 0)).port == 1001


async def test_a_name_that_was_left_is_not_answered_for() -> None:
    port = free_udp_port()
    async with channel_on(port) as one, channel_on(port) as two, channel_on(port) as three:
        await one.join("swarm", port=1001).first_round()
        await two.join("swarm", port=1002).first_round()
        one.leave("swarm")
        assert (await found_on(three, 0)).port == 1002


async def test_a_source_switched_off_is_not_found_and_switched_on_it_is() -> None:
    port = free_udp_port()
    async with channel_on(port) as one, channel_on(port) as two, channel_on(port) as three:
        await one.join("swarm", port=1001).first_round()
        await three.join("swarm", port=1003).first_round()
        one.set_source("dns", False)
        heard = Heard(two)
        await two.join("swarm", port=1002).first_round()
        await heard.port(1003)
        assert heard.ports == [1003]
        one.set_source("dns", True)
        await heard.port(1001)


async def test_own_announces_are_reported_only_with_the_loopback_option() -> None:
    port = free_udp_port()
    async with channel_on(port) as plain, channel_on(port, loopback=True) as echoing:
        heard, echoed = Heard(plain), Heard(echoing)
        await plain.join("swarm", port=1001).first_round()
        await echoing.join("swarm", port=1002).first_round()
        await echoed.port(1002)
        await heard.port(1002)
        assert heard.ports == [1002]


async def test_ten_channels_in_one_group_all_find_each_other() -> None:
    port = free_udp_port()
    channels = [channel_on(port) for _ in range(10)]
    found: list[set[int]] = [set() for _ in channels]
    complete = asyncio.Event()

    def note(at: int, event: PeerFound) -> None:
        found[at].add(event.port)
        if all(len(ports) == 9 for ports in found):
            complete.set()

    try:
        for at, channel in enumerate(channels):
            channel.subscribe(lambda event, at=at: note(at, event))  # type: ignore[misc]
            channel.join("swarm", port=1001 + at)
        async with asyncio.timeout(10):
            await complete.wait()
        for at, ports in enumerate(found):
            assert ports == set(range(1001, 1011)) - {1001 + at}
    finally:
        await asyncio.gather(*(channel.close() for channel in channels))


async def test_strange_datagrams_in_the_group_change_nothing() -> None:
    port = free_udp_port()
    async with channel_on(port) as one, channel_on(port) as two:
        await one.join("swarm", port=1001).first_round()
        name = codec.name_of_topic(topic_hash("swarm"))
        record = codec.peers_answer(name, "t", [("224.0.0.1", 80), ("10.0.0.1", 0)])
        forged = encode_message(codec.multicast_response((), (record,)))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            stranger.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1")
            )
            for data in (b"", b"\xff" * 300, os.urandom(500), forged):
                stranger.sendto(data, (GROUP, port))
        heard = Heard(one)
        assert (await found_on(two, 1002)).port == 1001
        await heard.port(1002)
        assert heard.ports == [1002]


async def test_without_the_interface_the_first_round_fails_and_static_peers_still_count() -> None:
    missing = DnsDiscovery(port=free_udp_port(), interface="no-such0", timing=SLOW)
    async with Channel([missing]) as channel:
        with pytest.raises(DiscoveryError, match="no-such0"):
            await channel.join("swarm", port=1).first_round()
    async with Channel([missing, StaticPeers([("10.0.0.1", 80)])]) as channel:
        done = await channel.join("swarm", port=1).first_round()
        assert done.succeeded == ("static",)
        assert isinstance(done.failed["dns"], DiscoveryError)


async def test_a_source_shows_whether_it_is_open() -> None:
    source = DnsDiscovery(port=free_udp_port(), interface=LO, timing=SLOW)
    assert repr(source) == "<DnsDiscovery closed>"
    async with Channel([source]) as channel:
        await channel.join("swarm", port=1).first_round()
        assert repr(source) == "<DnsDiscovery open>"
    assert repr(source) == "<DnsDiscovery closed>"


async def test_when_no_interface_takes_a_datagram_the_round_fails_and_the_next_may_succeed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses = Pauses()
    source = DnsDiscovery(port=free_udp_port(), interface=LO, timing=SLOW)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(101, "Network is unreachable")

    with monkeypatch.context() as broken:
        broken.setattr(source._socket, "send", refuse)
        async with Channel([source], sleep=pauses) as channel:
            with pytest.raises(DiscoveryError, match="unreachable"):
                await channel.join("swarm", port=1).first_round()
    async with Channel([source]) as channel:
        assert (await channel.join("swarm", port=1).first_round()).succeeded == ("dns",)


async def test_too_many_announces_fail_their_round() -> None:
    source = DnsDiscovery(
        port=free_udp_port(), interface=LO, timing=SLOW, limits=Limits(max_dns_records=1)
    )
    async with Channel([source]) as channel:
        await channel.join("one", port=1).first_round()
        with pytest.raises(DiscoveryError) as caught:
            await channel.join("two", port=1).first_round()
        assert isinstance(caught.value.__cause__, LimitError)
        channel.leave("one")
        await channel.join("three", port=1).first_round()


async def test_closing_leaves_no_task_and_no_socket() -> None:
    before = asyncio.all_tasks()
    source = DnsDiscovery(port=free_udp_port(), interface=LO, timing=SLOW)
    async with Channel([source]) as channel:
        await channel.join("swarm", port=1).first_round()
        opened = source._socket._socket
        assert opened is not None
        assert opened.fileno() >= 0
    assert opened.fileno() == -1
    assert asyncio.all_tasks() == before


PEER = """
import asyncio, json, sys
from covey.discovery import Channel, DnsDiscovery

async def main():
    async with Channel([DnsDiscovery(port=int(sys.argv[1]))]) as channel:
        with channel.listen() as events:
            channel.join("swarm", port=int(sys.argv[2]))
            async with asyncio.timeout(10):
                print(json.dumps((await anext(events)).port), flush=True)
        sys.stdin.readline()

asyncio.run(main())
"""

PAIR = """
import json, subprocess, sys
def start(port):
    return subprocess.Popen([sys.executable, "-c", sys.argv[1], "15353", port],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
peers = [start("1001"), start("1002")]
print(json.dumps([json.loads(peer.stdout.readline()) for peer in peers]))
for peer in peers:
    peer.communicate("\\n")
"""

ONLY_LOOPBACK = "ip link set lo up"
ALSO_OUTSIDE = (
    "ip link set lo up && ip link add out0 type veth peer name out1 && ip link set out1 up"
    " && ip link set out0 multicast on up && ip address add 192.0.2.1/24 dev out0"
)
ALSO_DOWN = ALSO_OUTSIDE + " && ip link set out0 down"


@pytest.mark.parametrize(
    "setup",
    [ONLY_LOOPBACK, ALSO_OUTSIDE, ALSO_DOWN],
    ids=["only-lo", "lo-and-another", "lo-and-one-that-is-down"],
)
def test_two_processes_of_one_machine_find_each_other(setup: str) -> None:
    if (
        shutil.which("unshare") is None
        or subprocess.run(
            ["unshare", "-rn", "sh", "-c", setup], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("no network namespaces here")
    done = subprocess.run(
        [
            "unshare",
            "-rn",
            "sh",
            "-c",
            f'{setup} && exec "$@"',
            "sh",
            sys.executable,
            "-c",
            PAIR,
            PEER,
        ],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [1002, 1001]
