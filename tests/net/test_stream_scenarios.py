"""The upstream scenarios of secret-stream.md section 12 that need a socket.

The others (bytes injected by hand, handshakes done elsewhere, key pairs, unordered messages) need
none and are told in `tests/wire`.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from covey.address import Address
from covey.errors import ClosedError, LimitError, ProtocolError, UsageError
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from tests.net.endpoints import (
    RawPeer,
    collect,
    dialling,
    joined,
    listening,
    raw_socket,
    read_to_end,
    receive,
    until,
)


async def test_each_side_sees_the_others_public_key() -> None:
    async with listening() as side, dialling() as dialler:
        ours = await dialler.dial(side.address())
        theirs = await side.next()
        assert ours.remote_key == side.key
        assert theirs.remote_key == dialler.key_pair.public_key


@asynccontextmanager
async def relay(listener_port: int, seen: bytearray, *, piece: int) -> AsyncIterator[Address]:
    """A TCP relay that writes down what passes and cuts it in pieces of `piece` bytes."""
    relays: set[asyncio.Task[None]] = set()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            seen.extend(data)
            for start in range(0, len(data), piece):
                writer.write(data[start : start + piece])
                await asyncio.sleep(0)
            await writer.drain()
        writer.write_eof()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", listener_port)
        try:
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))
        finally:
            for one in (far_writer, writer):
                one.close()
                with suppress(ConnectionError):
                    await one.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        relays.add(asyncio.create_task(serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield Address.net("127.0.0.1", server.sockets[0].getsockname()[1])
        async with asyncio.timeout(20):
            await asyncio.gather(*relays)


async def test_the_plaintext_does_not_occur_in_the_raw_bytes() -> None:
    seen = bytearray()
    async with (
        listening() as side,
        dialling() as dialler,
        relay(side.port, seen, piece=65536) as address,
    ):
        ours = await dialler.dial(address)
        theirs = await side.next()
        await ours.send(b"a secret nobody else can read")
        assert await receive(theirs) == b"a secret nobody else can read"
        assert len(seen) > 32 + 96 + 64 + 2 * 56
        assert b"secret" not in seen
        await ours.close()
        await theirs.close()


async def test_one_byte_chunks_both_ways_with_a_message_of_40000_bytes() -> None:
    async with (
        listening() as side,
        dialling() as dialler,
        relay(side.port, bytearray(), piece=1) as address,
    ):
        ours = await dialler.dial(address)
        theirs = await side.next()
        await asyncio.gather(ours.send(b"a" * 40_000), theirs.send(b"b" * 40_000))
        assert await receive(theirs) == b"a" * 40_000
        assert await receive(ours) == b"b" * 40_000
        await ours.close()
        await theirs.close()


async def test_the_client_ends_after_one_message_and_both_close() -> None:
    async with joined() as (ours, theirs):
        await ours.send(b"hello")
        await ours.end()
        assert await collect(theirs) == [b"hello"]
        await theirs.end()
        async with asyncio.timeout(10):
            await ours.wait_closed()
            await theirs.wait_closed()


async def test_sixty_four_mebibytes_arrive_as_the_same_bytes_and_count() -> None:
    """A sixteenth of the original's gibibyte, which takes seconds; the benchmark sends more."""
    count, size = 1024, 65536
    async with joined() as (ours, theirs):
        sent, got, messages = hashlib.blake2b(), hashlib.blake2b(), 0

        async def pour() -> None:
            for n in range(count):
                block = n.to_bytes(4, "little") * (size // 4)
                sent.update(block)
                await ours.send(block)
            await ours.end()

        task = asyncio.create_task(pour())
        async with asyncio.timeout(50):
            async for message in theirs:
                got.update(message)
                messages += 1
        await task
        assert messages == count
        assert got.digest() == sent.digest()


@pytest.mark.parametrize("data", [bytes(65536), b"\x10\x00\x00hello world 1234"])
async def test_a_garbage_handshake_is_an_error_on_the_receiving_side(data: bytes) -> None:
    async with listening() as side:
        raw = await raw_socket(side.port)
        await asyncio.get_running_loop().sock_sendall(raw, data)
        await read_to_end(raw)
        raw.close()
        await side.observed.failure()
        assert side.accepted.empty()


async def test_abort_with_an_error_on_both_sides_keeps_that_error_on_each() -> None:
    async with joined() as (ours, theirs):
        errors = ProtocolError("ours"), ProtocolError("theirs")
        ours.abort(errors[0])
        theirs.abort(errors[1])
        await ours.wait_closed()
        await theirs.wait_closed()
        assert (ours.close_error, theirs.close_error) == errors


async def test_an_error_given_to_abort_is_not_told_to_the_peer() -> None:
    async with joined() as (ours, theirs):
        await theirs.send(b"so that nothing is left unread here")
        await receive(ours)
        ours.abort(ProtocolError("private"))
        assert await collect(theirs) == []
        assert theirs.close_error is None


async def test_a_remote_that_destroys_its_socket_is_an_end_and_we_stay_writable() -> None:
    async with listening() as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        ours = await side.next()
        peer.close()
        assert await collect(ours) == []
        assert not ours.closed
        await ours.close()
        assert ours.close_reason in {CloseReason.REMOTE_END, CloseReason.RESET}


async def test_half_a_frame_then_an_end_is_an_end_without_an_error() -> None:
    async with listening() as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        ours = await side.next()
        await peer.loop.sock_sendall(peer.sock, b"\x20\x00\x00half")
        peer.sock.shutdown(socket.SHUT_WR)
        assert await collect(ours) == []
        assert ours.close_error is None
        peer.close()


async def test_both_sides_end_at_once_one_with_a_last_message() -> None:
    async with joined() as (ours, theirs):
        await ours.send(b"last")
        await asyncio.gather(ours.end(), theirs.end())
        got = await collect(ours), await collect(theirs)
        assert got == ([], [b"last"])


async def test_an_idle_timeout_strikes_only_after_the_peer_stops_writing() -> None:
    limits = Limits(idle_timeout=0.15, keep_alive=0)
    async with listening(limits=limits) as side:
        peer = await RawPeer.connect(side.port)
        await peer.shake()
        ours = await side.next()
        await peer.send(b"")  # by which it says that it keeps alive
        for n in range(8):  # more than twice the timeout in all
            await peer.send(bytes([n]))
            assert await receive(ours) == bytes([n])
            await pause(0.05)
        assert not ours.closed
        with pytest.raises(ClosedError):
            await receive(ours)
        assert ours.close_reason is CloseReason.TIMEOUT
        peer.close()


async def pause(seconds: float) -> None:
    """The rhythm of a peer in these scenarios, not a way to wait for something."""
    waited = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(seconds, waited.set_result, None)
    await waited


async def test_a_keep_alive_of_20_bytes_appears_only_when_idle() -> None:
    async with joined(limits=Limits(keep_alive=0.1, idle_timeout=0)) as (ours, theirs):
        before = ours.bytes_written
        for _ in range(10):
            await ours.send(b"busy")
            assert await receive(theirs) == b"busy"
            await pause(0.02)
        busy = ours.bytes_written - before
        assert busy <= 10 * 24 + 20  # at most one slipped in between
        await until(lambda: ours.bytes_written >= before + busy + 40)
        assert (ours.bytes_written - before - busy) % 20 == 0
        assert theirs.messages_read == 10


async def test_a_message_of_32_mib_is_refused() -> None:
    async with joined() as (ours, _theirs):
        with pytest.raises(LimitError):
            await ours.send(bytes(32 << 20))


async def test_the_largest_message_passes() -> None:
    async with joined() as (ours, theirs):
        sender = asyncio.create_task(ours.send(bytes(16_777_198)))
        assert len(await receive(theirs)) == 16_777_198
        await sender


async def test_a_stream_cut_in_its_first_turn_closes_both_ends() -> None:
    accepted: list[Connection] = []

    def cut(connection: Connection) -> None:
        accepted.append(connection)
        connection.abort(UsageError("first tick"))

    async with listening(on_connection=cut) as side, dialling() as dialler:
        ours = await dialler.dial(side.address())
        assert await collect(ours) == []
        assert str(accepted[0].close_error) == "first tick"
