from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from covey.address import Address
from covey.conn import hub_machine
from covey.conn.hub import Hub
from covey.conn.hub_events import Connected, Disconnected, HubEvent
from covey.conn.story import STRANGER_LINES
from covey.errors import (
    AddressError,
    ConnectError,
    HandshakeError,
    HandshakeTimeout,
    SelfConnection,
)
from covey.events import Lagged, Subscription
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.net.stream_shell import StreamShell
from covey.wire.secret_stream import SecretStream

HERE = "127.0.0.1"


async def listening(seed: int, **options: Any) -> tuple[Hub, Address]:
    key_pair = KeyPair.from_seed(bytes([seed]) * 32)
    hub = Hub(key_pair=key_pair, **options)
    host, port = await hub.listen_on(HERE)
    return hub, Address.net(host, port, key=key_pair.public_key)


@asynccontextmanager
async def two_hubs(**options: Any) -> AsyncIterator[tuple[Hub, Hub, Address]]:
    other, address = await listening(1, **options)
    async with other, Hub(key_pair=KeyPair.from_seed(bytes([2]) * 32), **options) as hub:
        yield hub, other, address


async def until(events: Subscription[HubEvent], kind: str) -> Any:
    """The next event with that type."""
    async with asyncio.timeout(20):
        async for event in events:
            assert not isinstance(event, Lagged)
            if event.type == kind:
                return event
    raise AssertionError(f"the stream ended without {kind}")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_machine, "UNUSED", 0.01)


@pytest.fixture(autouse=True)
async def nothing_is_left() -> AsyncIterator[None]:
    """No task, timer or descriptor may outlive a test."""
    loop: Any = asyncio.get_running_loop()
    timers = set(loop._scheduled)
    open_now = len(loop._selector.get_map())
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        yield
        await asyncio.sleep(0)
        gc.collect()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    left = [timer for timer in loop._scheduled if timer not in timers and not timer.cancelled()]
    assert left == []
    assert len(loop._selector.get_map()) == open_now


async def test_connect_events_entries_and_disconnect_on_both_sides() -> None:
    async with two_hubs() as (hub, other, address):
        events, theirs = hub.listen(), other.listen()
        connection = await hub.connect(address, {"note": "x"})
        assert isinstance(connection, Connection)
        assert [(await anext(events)).type for _ in range(2)] == ["connecting", "connected"]
        came = await until(theirs, "connected")
        assert isinstance(came, Connected)
        assert (came.details.is_client, came.details.via) == (False, "incoming")
        _, port = came.details.connection.remote_address
        assert came.address == str(Address.net(HERE, port, key=hub.public_key))
        [(name, data)] = other.entries()
        assert (name, data["state"], data["inferred_type"]) == (came.address, "connected", "lan")
        assert await hub.disconnect(address) is True
        assert [(await anext(events)).type for _ in range(2)] == ["disconnecting", "disconnected"]
        gone = await until(theirs, "disconnected")
        assert gone.details.reason == CloseReason.REMOTE_END
        assert (hub.entries(), other.entries()) == ((), ())


async def test_messages_flow_over_what_connect_gives() -> None:
    async with two_hubs() as (hub, other, address):
        theirs = other.listen()
        connection = await hub.connect(address)
        came = await until(theirs, "connected")
        await connection.send(b"hello")
        async for message in came.details.connection:
            assert message == b"hello"
            break


async def test_a_remote_close_is_one_disconnected() -> None:
    async with two_hubs() as (hub, other, address):
        events, theirs = hub.listen(), other.listen()
        await hub.connect(address)
        came = await until(theirs, "connected")
        await other.disconnect_session(came.details.connection, "go away")
        assert (await until(theirs, "disconnected")).details.reason == "go away"
        gone = await until(events, "disconnected")
        assert isinstance(gone, Disconnected)
        assert hub.get_state(address) is None
        assert "disconnected" in str(hub.explain(address))


async def test_closing_one_hub_ends_the_sessions_of_the_other() -> None:
    async with two_hubs() as (hub, other, address):
        events = hub.listen()
        await hub.connect(address)
        await other.close()
        await until(events, "disconnected")
        assert hub.sessions == ()


async def test_upstream_connect_to_a_closed_port() -> None:
    with socket.socket() as closed:
        closed.bind((HERE, 0))
        address = Address.net(HERE, closed.getsockname()[1], key=bytes([5]) * 32)
        async with Hub() as hub:
            events = hub.listen()
            with pytest.raises(ConnectError) as caught:
                await hub.connect(address)
            assert caught.value.code == "ECONNREFUSED"
            first, second = await anext(events), await anext(events)
            assert not isinstance(first, Lagged)
            assert not isinstance(second, Lagged)
            assert [first.type, second.type] == ["connecting", "connecting-failed"]
            for event in (first, second):
                assert (event.address, event.key) == (str(address), address.key)
            assert second.details is caught.value
            story = hub.explain(address)
            assert "failed at the dial" in str(story)
            assert story.advice is not None
            assert "correct the port" in story.advice
        assert [event async for event in events] == []


async def test_a_wrong_key_fails_at_the_handshake() -> None:
    async with two_hubs() as (hub, other, address):
        wrong = Address.net(HERE, address.port or 0, key=bytes([5]) * 32)
        with pytest.raises(HandshakeError):
            await hub.connect(wrong)
        story = hub.explain(wrong)
        assert "failed at the handshake" in str(story)
        assert "check the key" in str(story)
        assert (hub.entries(), other.sessions) == ((), ())


async def test_a_host_that_stays_silent_runs_out_of_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, HERE, 0)
    address = Address.net(HERE, server.sockets[0].getsockname()[1])
    async with Hub(limits=Limits(handshake_timeout=0.05)) as hub:
        with pytest.raises(HandshakeTimeout):
            await hub.connect(address)
    server.close()
    await server.wait_closed()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("net:127.0.0.1:1~noise~gzip", "unsupported transform gzip"),
        ("net:127.0.0.1:1~noise~gzip;net:127.0.0.1:1~noise", "unsupported transform gzip"),
        ("ufo:somewhere~noise", "known are net with noise, plain"),
        (f"net:127.0.0.1:1~shs:{'A' * 43}=", "known are net with noise, plain"),
        ("net:127.0.0.1:1", "no handshake"),
        ("net:127.0.0.1:1~noise:short", "cannot be dialled"),
        ("net:127.0.0.1:0~noise", "cannot be dialled"),
    ],
)
async def test_what_cannot_be_dialled_is_refused_before_any_change(address: str, why: str) -> None:
    async with Hub() as hub:
        told: list[str] = []
        hub.subscribe(lambda event: told.append(event.type))
        with pytest.raises(AddressError, match=why):
            await hub.connect(address)
        assert (told, hub.entries(), hub.dialling) == ([], (), 0)
        story = hub.explain(address)
        assert [line.step for line in story.lines] == ["refused"]
        assert story.advice == "correct the address"


async def test_a_later_alternative_is_dialled_where_the_first_is_unknown() -> None:
    hub, address = await listening(4)
    async with hub, Hub() as other:
        link = await other.connect(f"ufo:somewhere~noise~gzip;{address}")
        assert link.remote_key == address.key


async def test_our_own_address_without_a_key_is_noticed() -> None:
    hub, address = await listening(3)
    async with hub:
        with pytest.raises(SelfConnection):
            await hub.connect(Address.net(HERE, address.port or 0))
        await asyncio.sleep(0)
        assert hub.entries() == ()


async def test_what_hangs_at_close_is_called_off() -> None:
    async with asyncio.timeout(20):
        listener = socket.create_server((HERE, 0))
        with listener:
            hub = Hub()
            events = hub.listen()
            call = asyncio.create_task(hub.connect(Address.net(HERE, listener.getsockname()[1])))
            await until(events, "connecting")
            await hub.close()
            [error] = await asyncio.gather(call, return_exceptions=True)
            assert "closed" in str(error)


class Observer:
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.failed = asyncio.Event()

    def handshaking(self, attempt: Any) -> None:
        self.seen.append("in" if not attempt.initiator else "out")

    def handshake_failed(self, attempt: Any, error: ConnectError) -> None:
        self.seen.append("failed")
        self.failed.set()


async def test_observers_of_calls_and_of_the_hub_hear_of_handshakes() -> None:
    inbound, outbound = Observer(), Observer()
    other, address = await listening(1, observer=inbound)
    async with other, Hub(observer=inbound) as hub:
        await hub.connect(address, observer=outbound)
        assert (inbound.seen, outbound.seen) == (["in"], ["out"])
        _, writer = await asyncio.open_connection(HERE, address.port)
        writer.write(b"GET / HTTP/1.0\r\n\r\n" * 100)
        async with asyncio.timeout(20):
            await inbound.failed.wait()
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
        assert inbound.seen == ["in", "in", "failed"]
        assert "handshake failed" in str(other.explain(f"net:{HERE}"))


async def test_who_is_not_admitted_is_refused_before_the_handshake() -> None:
    other, address = await listening(1, admit=lambda host, port: "not on the list")
    async with other, Hub() as hub:
        with pytest.raises(ConnectError):
            await hub.connect(address)
        assert other.sessions == ()
        assert "not on the list" in str(other.explain(f"net:{HERE}"))


async def test_sessions_of_one_host_are_bounded_before_the_handshake() -> None:
    other, address = await listening(1, limits=Limits(max_per_ip=1))
    async with other, Hub() as hub, Hub() as third:
        theirs = other.listen()
        await hub.connect(address)
        await until(theirs, "connected")
        with pytest.raises(ConnectError):
            await third.connect(address)
        assert len(other.sessions) == 1
        assert "max_per_ip" in str(other.explain(f"net:{HERE}"))


async def test_plain_sessions_work_without_keys() -> None:
    other, address = await listening(1, handshake="plain")
    async with other, Hub() as hub:
        theirs = other.listen()
        plain = Address.net(HERE, address.port or 0, "plain")
        connection = await hub.connect(plain)
        came = await until(theirs, "connected")
        assert came.key is None
        assert connection.remote_key is None
        assert dict(hub.entries())[str(plain)]["key"] is None


def room_for(connections: int) -> int:
    """How many connections with both ends in this process the descriptors allow."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 200
    if soft < wanted and (hard == resource.RLIM_INFINITY or hard > soft):
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return min(connections, (soft - 200) // 2)


async def read_to_end(connection: Connection) -> list[bytes]:
    messages = [message async for message in connection]
    await connection.close()
    return messages


async def test_a_thousand_concurrent_connections_through_one_hub() -> None:
    count = room_for(1000)
    if count < 1000:
        why = f"the limit of open files allows {count} connections only"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    many = Limits(
        max_connections=2 * count,
        max_incoming=count,
        max_per_ip=count,
        max_per_key=count,
        max_handshakes=count,
        event_backlog=4 * count,
        handshake_timeout=50,
    )
    other, address = await listening(1, limits=many)
    hub = Hub(key_pair=KeyPair.from_seed(bytes([2]) * 32), limits=many, connect_timeout=50)
    async with other, hub:
        theirs = other.listen()
        spellings = [Address.parse(f"{address};net:x:{n + 1}~noise") for n in range(count)]
        connections = await asyncio.gather(*(hub.connect(name) for name in spellings))
        assert len({connection.id for connection in connections}) == count
        came = [(await until(theirs, "connected")).details.connection for _ in range(count)]
        assert (len(hub.sessions), len(other.sessions)) == (count, count)
        assert len(hub.entries()) == count
        for connection in connections:
            await connection.send(b"x")
        readers = [asyncio.create_task(read_to_end(connection)) for connection in came]
        await hub.close()
        assert await asyncio.gather(*readers) == [[b"x"]] * count
        for _ in range(count):
            await until(theirs, "disconnected")
        assert other.entries() == ()
    assert all(connection.closed for connection in connections)


LIVE = (Connection, SecretStream, StreamShell)


def alive() -> list[int]:
    """How many of these there are now, by class."""
    gc.collect()
    return [sum(type(one) is kind for one in gc.get_objects()) for kind in LIVE]


async def test_nothing_of_two_hundred_failed_handshakes_stays_alive_in_the_stories() -> None:
    hub, address = await listening(1)
    async with hub:
        before = alive()
        for _ in range(200):
            reader, writer = await asyncio.open_connection(HERE, address.port)
            writer.write((32).to_bytes(3, "little") + b"\xff" * 32 + b"x" * 500)
            with contextlib.suppress(OSError):
                await reader.read()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        story = hub.explain(f"net:{HERE}")
        assert len(story.lines) + story.forgotten == 200
        assert len(story.lines) == STRANGER_LINES
        assert alive() == before


async def test_a_key_that_nobody_proves_is_told_nowhere() -> None:
    """The key of an alternative that was not dialled: neither event, nor entry, nor story."""
    claimed = KeyPair.from_seed(bytes([9]) * 32).public_key
    async with Hub(handshake="plain") as there, Hub() as hub:
        host, port = await there.listen_on(HERE)
        events: list[Any] = []
        hub.subscribe(events.append)
        other = Address.net("10.0.0.1", 1, "noise", claimed)
        connection = await hub.connect(f"{Address.net(host, port, 'plain')};{other}")
        assert connection.remote_key is None
        assert [(event.type, event.key) for event in events] == [
            ("connecting", None),
            ("connected", None),
        ]
        assert hub.entries()[0][1]["key"] is None
        assert hub.explain(claimed).lines == ()


async def test_the_own_key_in_an_alternative_that_is_not_dialled_is_no_self_connection() -> None:
    own = KeyPair.from_seed(bytes([9]) * 32)
    async with Hub(handshake="plain") as there, Hub(key_pair=own) as hub:
        host, port = await there.listen_on(HERE)
        other = Address.net("10.0.0.1", 1, "noise", own.public_key)
        connection = await hub.connect(f"{Address.net(host, port, 'plain')};{other}")
        assert not connection.closed
