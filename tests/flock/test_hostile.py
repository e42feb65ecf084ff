"""Odd and hostile remotes (section 5, with real sockets) and what a stranger cannot do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import pytest

from covey.errors import HandshakeError, SelfConnection
from covey.flock.events import ConnectionClosed, PeerBanned
from covey.flock.flock import Flock
from covey.limits import Limits
from tests.flock.support import HOST, Recorder, quiet_flock, until

OURS = b"\x02" * 32


@asynccontextmanager
async def plain_flock(**options: object) -> AsyncIterator[tuple[Flock, Recorder, int]]:
    """A flock that speaks plain, and its port."""
    async with quiet_flock(**{"handshake": "plain", "id": OURS, **options}) as (flock, events):
        _, port = await flock.listen_on()
        yield flock, events, port


@asynccontextmanager
async def stranger(
    port: int, first: bytes = b""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A raw connection that begins with `first`."""
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(first)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


@pytest.mark.parametrize("size", [1, 5, 32, 33, 64])
async def test_ids_of_other_sizes_are_accepted(size: int) -> None:
    remote = b"\x07" * size
    async with plain_flock() as (_, events, port), stranger(port, bytes([size]) + remote):
        assert (await events.seen("connection")).info.id == remote


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"\x00", id="no-id"),
        pytest.param(b"\xa0\x00" + b"\x07" * 32, id="length-not-minimal"),
        pytest.param(b"\xff" * 40, id="length-without-end"),
        pytest.param(b"\x80\x80\x80\x01", id="two-mebibytes"),
        pytest.param(b"\x41" + b"\x07" * 65, id="too-long"),
    ],
)
async def test_malformed_ids_are_cut_at_once_and_hurt_nobody_else(first: bytes) -> None:
    async with plain_flock() as (flock, events, port), stranger(port, b"\x01\x07") as (good, _):
        await events.seen("connection")
        async with stranger(port, first) as (bad, _):
            closed = await events.seen("connection-closed")
            assert isinstance(closed.error, HandshakeError)
            assert closed.info.id is None
            with suppress(ConnectionResetError):
                rest = await bad.read()
                assert rest in (b"", b"\x20" + OURS)
        assert "handshake-timeout" not in events.types
        assert (flock.connecting, flock.connected) == (0, 1)
        await flock.connections[0].send(b"still here")
        assert await good.readexactly(33 + 10) == b"\x20" + OURS + b"still here"


async def test_our_own_id_from_outside_is_closed_and_bans_no_port_that_nobody_dials() -> None:
    async with plain_flock() as (flock, events, port), stranger(port, b"\x20" + OURS):
        closed = await events.seen("connection-closed")
        assert isinstance(closed.error, SelfConnection)
        assert events.of(PeerBanned) == []
        assert flock.total_connections == 0
        assert "connection" not in events.types


async def test_bytes_in_the_segment_of_the_id_belong_to_the_application() -> None:
    async with plain_flock() as (_, events, port), stranger(port, b"\x01\x07first"):
        connection = (await events.seen("connection")).connection
        assert await anext(aiter(connection)) == b"first"


async def test_a_stranger_that_says_nothing_times_out() -> None:
    async with (
        plain_flock(limits=Limits(handshake_timeout=0.05)) as (flock, events, port),
        stranger(port),
    ):
        await events.seen("handshaking")
        assert (flock.connecting, flock.connected) == (1, 0)
        await events.seen("connection-closed")
        assert events.types[-2:] == ["handshake-timeout", "connection-closed"]
        assert events.counts[-2:] == [(0, 0, 0), (0, 0, 0)]


async def test_half_open_strangers_do_not_keep_peers_out() -> None:
    limits = Limits(max_handshakes=8)
    async with plain_flock(limits=limits, max_connections=4) as (flock, events, port):
        async with AsyncExitStack() as stack:
            for _ in range(30):
                await stack.enter_async_context(stranger(port))
            await until(lambda: len(events.named("handshaking")) == 30)
            await until(lambda: flock.connecting <= 8)
            await stack.enter_async_context(stranger(port, b"\x01\x07"))
            await events.seen("connection")
            async with plain_flock(id=b"\x09" * 32) as (_, _, other):
                flock.add_peer("x", other)
                await events.seen("connection", 2)
        await until(lambda: len(events.of(ConnectionClosed)) >= 30)


async def test_many_claims_of_one_id_hold_few_connections() -> None:
    async with plain_flock() as (flock, events, port), AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(stranger(port, b"\x20" + b"\x01" * 32))
        await events.seen("redundant-connection", 17)
        genuine = events.named("connection")[0].connection
        assert flock.connections == (genuine,)
        assert flock.connecting <= 2
        assert not genuine.closed


async def test_the_host_of_a_mapped_address_is_told_as_ipv4() -> None:
    async with quiet_flock(host=None) as (flock, events):
        _, port = await flock.listen_on()
        async with stranger(port):
            assert (await events.seen("handshaking")).info.host == HOST
