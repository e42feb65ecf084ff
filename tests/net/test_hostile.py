"""What strangers do to a listener: the process lives, only the offender loses its connection.

Rows of secret-stream.md section 10 and discovery-swarm.md section 5 over real sockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import tracemalloc
from collections.abc import Iterator

import pytest

from covey.errors import HandshakeError, HandshakeTimeout, ProtocolError, Refused
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from tests.net.endpoints import (
    RawPeer,
    Side,
    collect,
    dialling,
    listening,
    nothing_left,
    raw_socket,
    read_to_end,
    receive,
    until,
)
from tests.vectors_path import load_vectors


@contextlib.contextmanager
def descriptors(wanted: int) -> Iterator[None]:
    """Room for `wanted` descriptors, as far as the hard limit allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, target), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def still_serves(side: Side) -> None:
    """An honest peer can connect and talk."""
    async with dialling() as dialler:
        ours = await dialler.dial(side.address(pinned=True))
        theirs = await side.next()
        await ours.send(b"honest")
        assert await receive(theirs) == b"honest"
        await ours.close()
        await theirs.close()


async def refused_in_handshake(side: Side, data: bytes) -> None:
    """`data` as the first bytes ends the connection with a `HandshakeError`, and nothing else."""
    async with dialling() as dialler:
        bystander = await dialler.dial(side.address())
        witness = await side.next()
        raw = await raw_socket(side.port)
        await asyncio.get_running_loop().sock_sendall(raw, data)
        await read_to_end(raw)
        raw.close()
        assert type(await side.observed.failure()) is HandshakeError
        await bystander.send(b"untouched")
        assert await receive(witness) == b"untouched"
    await still_serves(side)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\xff\xff\xff", id="length of 16 MiB"),
        pytest.param(b"\x00\x00\x00\x00", id="length 0"),
        pytest.param(b"\x1f\x00\x00" + bytes(31), id="one byte short"),
        pytest.param(bytes(65536), id="65536 zero bytes"),
        pytest.param(b"\x10\x00\x00sixteen bytes of", id="16 bytes of text"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="another protocol"),
        pytest.param(b"\x20\x00\x00" + bytes(32), id="all-zero point"),
        pytest.param(b"\x20\x00\x00\x01" + bytes(31), id="identity point"),
        pytest.param(
            b"\x20\x00\x00\xec" + b"\xff" * 30 + b"\x7f",
            id="point of order 2",
        ),
        pytest.param(
            b"\x20\x00\x00"
            + bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
            id="point of order 8",
        ),
        pytest.param(b"\x20\x00\x00" + b"\xff" * 32, id="non-canonical point"),
    ],
)
async def test_a_bad_first_message_ends_only_its_own_connection(data: bytes) -> None:
    async with listening() as side:
        await refused_in_handshake(side, data)


async def test_every_hostile_recording_costs_only_its_own_connection() -> None:
    cases = [case for case in load_vectors("secret-stream")["cases"] if case["kind"] == "feed"]
    assert cases
    async with listening(limits=Limits(handshake_timeout=5)) as side:
        for case in cases:
            raw = await raw_socket(side.port)
            chunks = case.get("input", case.get("chunks", []))
            for chunk in [chunks] if isinstance(chunks, str) else chunks:
                with contextlib.suppress(ConnectionError):
                    await asyncio.get_running_loop().sock_sendall(raw, bytes.fromhex(chunk))
            with contextlib.suppress(OSError):
                raw.shutdown(socket.SHUT_WR)
            await read_to_end(raw)
            raw.close()
        assert side.accepted.empty()
        await still_serves(side)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x00", id="length 0"),
        pytest.param(b"\xa0\x00" + bytes(32), id="over-long varint"),
        pytest.param(b"\xff\xff\xff", id="endless length"),
        pytest.param(b"\x80\x80\x80\x01", id="2 MiB"),
        pytest.param(b"\x80\x01" + bytes(128), id="id of 128 bytes"),
    ],
)
async def test_a_bad_plain_id_ends_only_its_own_connection(data: bytes) -> None:
    async with listening(handshake="plain") as side:
        raw = await raw_socket(side.port)
        await asyncio.get_running_loop().sock_sendall(raw, data)
        await read_to_end(raw)
        raw.close()
        assert isinstance(await side.observed.failure(), HandshakeError)
        assert side.accepted.empty()


async def test_a_handshake_cut_in_the_middle_is_a_handshake_error() -> None:
    async with listening() as side:
        peer = await RawPeer.connect(side.port)
        await peer.flush()
        peer.sock.shutdown(socket.SHUT_WR)
        await peer.until_end()
        assert isinstance(await side.observed.failure(), HandshakeError)
        peer.close()


async def test_a_handshake_that_never_ends_is_timed_out() -> None:
    with nothing_left():
        async with listening(limits=Limits(handshake_timeout=0.03)) as side:
            raw = await raw_socket(side.port)
            assert await read_to_end(raw) == b""
            raw.close()
            assert isinstance(await side.observed.failure(), HandshakeTimeout)


async def test_trickled_bytes_do_not_extend_the_handshake() -> None:
    async with listening(limits=Limits(handshake_timeout=0.1)) as side:
        peer = await RawPeer.connect(side.port)
        data = b"".join(bytes(chunk) for chunk in peer.stream.data_to_send())
        loop = asyncio.get_running_loop()
        failed = asyncio.create_task(side.observed.failure())
        for n in range(len(data) - 1):
            await loop.sock_sendall(peer.sock, data[n : n + 1])
            done, _ = await asyncio.wait([failed], timeout=0.02)
            if done:
                break
        assert isinstance(await failed, HandshakeTimeout)
        peer.close()


async def test_a_peer_that_withholds_its_header_frame_is_timed_out() -> None:
    async with listening(limits=Limits(handshake_timeout=0.1)) as side:
        peer = await RawPeer.connect(side.port)
        await peer.flush()
        peer.stream.receive_data(await peer.loop.sock_recv(peer.sock, 4096), 0.0)
        last_message, *_header = peer.stream.data_to_send()
        await peer.loop.sock_sendall(peer.sock, bytes(last_message[:67]))
        connection = await side.next()
        async with asyncio.timeout(5):
            await connection.wait_closed()
        assert isinstance(connection.close_error, HandshakeTimeout)
        assert connection.close_reason is CloseReason.HANDSHAKE
        peer.close()


async def opened(side: Side) -> tuple[RawPeer, Connection]:
    """A raw peer with its handshake behind it, and our end."""
    peer = await RawPeer.connect(side.port)
    await peer.shake()
    return peer, await side.next()


async def test_garbage_instead_of_the_header_frame_ends_the_connection() -> None:
    async with listening() as side:
        peer = await RawPeer.connect(side.port)
        await peer.flush()
        peer.stream.receive_data(await peer.loop.sock_recv(peer.sock, 4096), 0.0)
        last = b"".join(bytes(chunk) for chunk in peer.stream.data_to_send())[:67]
        await peer.loop.sock_sendall(peer.sock, last + b"\x38\x00\x00" + bytes(56))
        connection = await side.next()
        await connection.wait_closed()
        assert type(connection.close_error) is ProtocolError
        peer.close()
        await still_serves(side)


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x20\x00\x00" + bytes(32), id="bad MAC"),
        pytest.param(b"\x10\x00\x00" + bytes(16), id="shorter than a MAC"),
    ],
)
async def test_a_bad_frame_after_a_good_one_delivers_the_good_one_then_the_error(
    garbage: bytes,
) -> None:
    async with listening() as side:
        peer, connection = await opened(side)
        peer.stream.send_messages([b"good"])
        good = b"".join(bytes(chunk) for chunk in peer.stream.data_to_send())
        await peer.loop.sock_sendall(peer.sock, good + garbage)
        await connection.wait_closed()
        assert connection.close_reason is CloseReason.PROTOCOL
        messages = aiter(connection)
        assert await anext(messages) == b"good"
        with pytest.raises(Exception, match="closed") as caught:
            await anext(messages)
        assert isinstance(caught.value.__cause__, ProtocolError)
        peer.stream.receive_data(await peer.until_end(), 0.0)  # nothing came back but an end
        assert peer.stream.messages_read == 0
        peer.close()


async def test_a_replayed_frame_ends_the_connection() -> None:
    async with listening() as side:
        peer, connection = await opened(side)
        peer.stream.send_messages([b"once"])
        frame = b"".join(bytes(chunk) for chunk in peer.stream.data_to_send())
        await peer.loop.sock_sendall(peer.sock, frame + frame)
        await connection.wait_closed()
        assert connection.messages_read == 1
        assert connection.close_reason is CloseReason.PROTOCOL
        peer.close()


async def test_a_truncated_frame_at_the_end_is_dropped_silently() -> None:
    async with listening() as side:
        peer, connection = await opened(side)
        peer.stream.send_messages([b"whole", b"cut"])
        data = b"".join(bytes(chunk) for chunk in peer.stream.data_to_send())
        await peer.loop.sock_sendall(peer.sock, data[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        assert await collect(connection) == [b"whole"]
        peer.close()


async def test_an_oversized_frame_is_refused_before_it_is_buffered() -> None:
    async with listening(limits=Limits(max_frame=1000)) as side:
        peer, connection = await opened(side)
        await peer.loop.sock_sendall(peer.sock, (1001).to_bytes(3, "little"))
        await connection.wait_closed()
        assert type(connection.close_error) is ProtocolError
        peer.close()


async def test_an_announced_length_costs_no_memory_until_bytes_arrive() -> None:
    async with listening() as side:
        peers = [await opened(side) for _ in range(8)]
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for peer, connection in peers:
            read = connection.bytes_read
            await peer.loop.sock_sendall(peer.sock, b"\xff\xff\xff")
            await until(lambda c=connection, n=read: c.bytes_read == n + 3)  # type: ignore[misc]
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        assert grown < 1 << 20  # eight times 16 MiB were announced
        for peer, _ in peers:
            peer.close()


async def test_a_flooding_peer_is_paused_while_nobody_reads() -> None:
    limits = Limits(read_backlog=256 * 1024)
    async with listening(limits=limits) as side:
        peer, connection = await opened(side)

        async def flood() -> None:
            while True:
                await peer.send(bytes(65536))

        task = asyncio.create_task(flood())
        await until(lambda: connection._reading_paused)
        count = connection.messages_read
        for _ in range(200):
            await asyncio.sleep(0)
        assert connection.messages_read == count
        assert connection._held <= limits.read_backlog + 2 * 262144
        task.cancel()
        await asyncio.wait([task])
        peer.close()
        await still_serves(side)


async def test_a_claimed_key_is_not_a_proven_key() -> None:
    """A peer cannot connect under a key whose seed it does not have."""
    victim = KeyPair.generate()
    liar = KeyPair(victim.public_key, KeyPair.generate().seed)
    async with listening() as side:
        peer = await RawPeer.connect(side.port, key_pair=liar)
        await peer.flush()
        peer.stream.receive_data(await peer.loop.sock_recv(peer.sock, 4096), 0.0)
        await peer.flush()
        await peer.until_end()
        assert isinstance(await side.observed.failure(), HandshakeError)
        assert side.accepted.empty()
        peer.close()


async def test_ten_thousand_half_open_connections_stay_bounded_and_honest_peers_get_in() -> None:
    total, held = 10_000, 512
    limits = Limits(max_handshakes=64, max_per_ip=16)
    with descriptors(4096), nothing_left():
        async with listening(limits=limits) as side:
            raws: list[socket.socket] = []
            highest = 0
            for n in range(total):
                raws.append(await raw_socket(side.port, f"127.1.{n % 97}.{n % 251 + 1}"))
                highest = max(highest, side.endpoint.handshaking)
                if len(raws) == held:
                    for raw in raws:
                        raw.close()
                    raws.clear()
                if n % 2500 == 1250:
                    await still_serves(side)
            await side.observed.until(lambda seen: len(seen.begun) >= total)
            for raw in raws:
                raw.close()
            assert highest <= limits.max_handshakes + 1
            dropped = [error for _, error in side.observed.failed if isinstance(error, Refused)]
            assert dropped
            assert {error.reason for error in dropped} <= {"max_handshakes", "max_per_ip"}
            await still_serves(side)


async def test_a_thousand_connections_then_nothing_is_left() -> None:
    count = 1000
    limits = Limits(max_per_ip=count, max_handshakes=count)
    with descriptors(4096), nothing_left():
        async with listening(limits=limits) as side, dialling(limits=limits) as dialler:
            ours: list[Connection] = []
            for _ in range(count // 50):
                ours += await asyncio.gather(*[dialler.dial(side.address()) for _ in range(50)])
            theirs = [await side.next() for _ in range(count)]
            assert len(side.endpoint.connections) == count
            for n, connection in enumerate(ours):
                await connection.send(n.to_bytes(2, "big"))
            got = {await receive(connection) for connection in theirs}
            assert len(got) == count
            await asyncio.gather(*[connection.close() for connection in ours])
            await asyncio.gather(*[connection.close() for connection in theirs])
            assert side.endpoint.connections == dialler.connections == []
