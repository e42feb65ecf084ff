"""@hyperswarm/secret-stream 6.9.2 as the other end, in both roles."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from covey.errors import ClosedError, HandshakeError
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.connection import Connection
from covey.wire.secret_stream import SecretStream
from tests.interop.harness import NodePeer
from tests.interop.sides import accepting, bare_client, bare_server, dialled, received
from tests.waiting import until

pytestmark = pytest.mark.interop

PROGRAM = "secret-stream-echo.cjs"
NODE_SEED = bytes([0x11]) * 32
OUR_SEED = bytes([0x22]) * 32
NODE_KEY = KeyPair.from_seed(NODE_SEED).public_key
OUR_KEY = KeyPair.from_seed(OUR_SEED).public_key
BULK = 1 << 30
CHUNK = 65536
ROLES = ("covey-dials", "node-dials")

# The program's test pattern repeats every 65,536 bytes: byte i is (31 i + (i >> 8)) mod 256.
PATTERN = bytes((i * 31 + (i >> 8)) & 255 for i in range(65536))


@asynccontextmanager
async def joined(
    role: str, *arguments: object, limits: Limits | None = None
) -> AsyncIterator[tuple[NodePeer, Connection]]:
    """A Node program and covey, connected by whoever `role` says dials."""
    seeded = ("--seed", NODE_SEED.hex(), *arguments)
    async with AsyncExitStack() as stack:
        if role == "covey-dials":
            peer = await stack.enter_async_context(NodePeer(PROGRAM, "--listen", 0, *seeded))
            await peer.event("listening")
            connection = await stack.enter_async_context(
                dialled(peer.port, seed=OUR_SEED, limits=limits)
            )
        else:
            ours = await stack.enter_async_context(accepting(OUR_SEED, limits))
            peer = await stack.enter_async_context(
                NodePeer(PROGRAM, "--connect", ours.port, *seeded)
            )
            connection = await ours.connection()
        yield peer, connection


@pytest.mark.parametrize("role", ROLES)
async def test_both_ends_agree_on_keys_and_handshake_hash(role: str) -> None:
    async with joined(role, "--mode", "echo") as (peer, connection):
        theirs = await peer.event("connect")
        assert connection.remote_key == NODE_KEY == bytes.fromhex(theirs["publicKey"])
        assert bytes.fromhex(theirs["remotePublicKey"]) == OUR_KEY
        assert connection.handshake_hash == bytes.fromhex(theirs["handshakeHash"])
        assert theirs["isInitiator"] is (role == "node-dials")
        assert connection.initiator is (role == "covey-dials")


@pytest.mark.parametrize("role", ROLES)
async def test_messages_come_back_whole_and_in_order(role: str) -> None:
    sent = [os.urandom(size) for size in (1, 2, 16, 255, 4096, 65519, 65536, 300_000)]
    async with joined(role, "--mode", "echo") as (_, connection):
        for message in sent:
            await connection.send(message)
        assert await received(connection, len(sent)) == sent


async def test_lines_of_a_node_client_arrive_and_are_answered() -> None:
    lines = ("--send", "one", "--send", "two", "--send", "three")
    async with joined("node-dials", "--mode", "lines", *lines) as (peer, connection):
        assert await received(connection, 3) == [b"one", b"two", b"three"]
        await connection.send("ünï".encode())
        assert (await peer.event("message"))["data"] == "ünï"


@pytest.mark.parametrize("role", ROLES)
async def test_many_messages_of_one_byte(role: str) -> None:
    sent = [bytes([n & 255]) for n in range(3000)]
    async with joined(role, "--mode", "echo", "--hex") as (_, connection):
        for message in sent:
            await connection.send(message)
        assert await received(connection, len(sent)) == sent


async def test_the_largest_message_of_the_protocol_passes_both_ways() -> None:
    largest = (1 << 24) - 1 - 17
    async with joined("covey-dials", "--mode", "echo") as (_, connection):
        await connection.send(bytes(largest))
        assert [len(message) for message in await received(connection, 1)] == [largest]


@pytest.mark.parametrize("role", ROLES)
async def test_an_empty_message_reaches_node_and_none_is_delivered_here(role: str) -> None:
    async with joined(role, "--mode", "echo") as (peer, connection):
        await connection.send(b"")
        await peer.event("message", bytes=0)
        await connection.send(b"after")
        assert await received(connection, 1) == [b"after"]


@pytest.mark.parametrize("role", ROLES)
async def test_bulk_to_node_arrives_unchanged(role: str) -> None:
    async with joined(role, "--mode", "sink", "--verify") as (peer, connection):
        for _ in range(BULK // CHUNK):
            await connection.send(PATTERN)
        await connection.end()
        end = await peer.event("end")
        assert (end["bytes"], end["messages"], end["bad"]) == (BULK, BULK // CHUNK, 0)


@pytest.mark.parametrize("role", ROLES)
async def test_bulk_from_node_arrives_unchanged(role: str) -> None:
    blast = ("--mode", "blast", "--bytes", BULK, "--chunk", CHUNK)
    async with joined(role, *blast) as (peer, connection):
        total = 0
        async for message in connection:
            assert message == PATTERN
            total += len(message)
        assert total == BULK
        assert (await peer.event("blasted"))["bytes"] == BULK


async def test_a_slow_reader_here_holds_the_sender_there() -> None:
    blast = ("--mode", "blast", "--bytes", BULK, "--chunk", CHUNK)
    async with joined("node-dials", *blast, limits=Limits(read_backlog=1 << 18)) as (
        peer,
        connection,
    ):
        await peer.event("connect")
        with pytest.raises(AssertionError, match="no event"):
            await peer.event("blasted", timeout=0.5)
        total = sum([len(message) async for message in connection])
        assert total == BULK


@pytest.mark.parametrize("role", ROLES)
async def test_node_ends_first(role: str) -> None:
    async with joined(role, "--mode", "echo", "--end-after", 1) as (peer, connection):
        await connection.send(b"last")
        assert [message async for message in connection] == [b"last"]
        await connection.close()
        await connection.wait_closed()
        assert (await peer.event("close"))["messages"] == 1
        assert await peer.exit_code() == 0


@pytest.mark.parametrize("role", ROLES)
async def test_covey_ends_first_and_still_gets_what_was_under_way(role: str) -> None:
    sent = [b"%d" % n for n in range(50)]
    async with joined(role, "--mode", "echo") as (peer, connection):
        for message in sent:
            await connection.send(message)
        await connection.end()
        assert [message async for message in connection] == sent
        async with asyncio.timeout(20):
            await connection.wait_closed()
        assert (await peer.event("end"))["messages"] == len(sent)
        assert await peer.exit_code() == 0


async def test_close_is_seen_as_a_clean_end_by_node() -> None:
    async with joined("covey-dials", "--mode", "echo") as (peer, connection):
        await peer.event("connect")
        await connection.close()
        await peer.event("end")
        await peer.event("close")
        assert not peer.named("error")
        with pytest.raises(ClosedError):
            await connection.send(b"late")


async def test_a_node_process_that_dies_closes_the_connection() -> None:
    async with joined("covey-dials", "--mode", "echo") as (peer, connection):
        await peer.event("connect")
        peer.kill()
        assert [message async for message in connection] == []
        await connection.close()


async def test_the_right_pinned_key_is_accepted() -> None:
    async with NodePeer(PROGRAM, "--listen", 0, "--seed", NODE_SEED.hex()) as peer:
        await peer.event("listening")
        async with dialled(peer.port, key=NODE_KEY) as connection:
            await connection.send(b"hi")
            assert await received(connection, 1) == [b"hi"]


async def test_a_wrong_pinned_key_is_refused_before_any_message() -> None:
    async with NodePeer(PROGRAM, "--listen", 0, "--stream-timeout", 300) as peer:
        await peer.event("listening")
        with pytest.raises(HandshakeError, match="another key"):
            async with dialled(peer.port, key=OUR_KEY):
                pass
        closed = await peer.event("close")  # the reference only notices by its timeout
        assert (closed["connected"], closed["messages"]) == (False, 0)


async def test_our_keep_alive_keeps_a_node_stream_that_has_a_timeout() -> None:
    patient = ("--mode", "echo", "--stream-timeout", 1500)
    limits = Limits(keep_alive=0.3, idle_timeout=0)
    async with joined("covey-dials", *patient, limits=limits) as (
        peer,
        connection,
    ):
        for _ in range(8):  # 2.4 seconds of silence but for keep-alives
            await peer.event("message", bytes=0)
        await connection.send(b"alive")
        await peer.event("message", data="alive")


async def test_without_keep_alive_node_gives_up_and_we_are_told() -> None:
    patient = ("--mode", "echo", "--stream-timeout", 300)
    limits = Limits(keep_alive=0, idle_timeout=0)
    async with joined("covey-dials", *patient, limits=limits) as (peer, connection):
        await peer.event("error", message="Stream timed out")
        assert [message async for message in connection] == []
        await connection.close()


@pytest.mark.parametrize("role", ROLES)
async def test_a_silent_node_without_keep_alive_stays_past_our_idle_timeout(role: str) -> None:
    limits = Limits(idle_timeout=0.2, keep_alive=0.05)
    async with joined(role, "--mode", "sink", limits=limits) as (_, connection):
        before = connection.bytes_written
        await until(lambda: connection.bytes_written >= before + 20 * 20)  # a second of keep-alives
        assert not connection.closed
        await connection.close()


# Patterns and fixed keys: a bare session, because an endpoint always speaks XX.


def session(pattern: str, *, initiator: bool, remote: bytes | None = None) -> SecretStream:
    """Our end with the fixed key pair."""
    return SecretStream(
        is_initiator=initiator,
        key_pair=KeyPair.from_seed(OUR_SEED),
        now=asyncio.get_running_loop().time(),
        random_bytes=os.urandom,
        pattern=pattern,
        remote_public_key=remote,
        limits=Limits(idle_timeout=0, keep_alive=0),
    )


@pytest.mark.parametrize("pattern", ["XX", "IK", "XK"])
async def test_pattern_as_initiator(pattern: str) -> None:
    arguments = ("--listen", 0, "--pattern", pattern, "--seed", NODE_SEED.hex())
    async with NodePeer(PROGRAM, *arguments) as peer:
        await peer.event("listening")
        ours = session(pattern, initiator=True, remote=NODE_KEY)
        async with bare_client(peer.port, ours) as stream:
            opened = await stream.opened()
            theirs = await peer.event("connect")
            assert opened.remote_key == NODE_KEY
            assert opened.handshake_hash == bytes.fromhex(theirs["handshakeHash"])
            assert bytes.fromhex(theirs["remotePublicKey"]) == OUR_KEY
            stream.send(b"one", b"two")
            assert [await stream.message(), await stream.message()] == [b"one", b"two"]
            stream.end()
            assert not (await stream.ended()).truncated


@pytest.mark.parametrize("pattern", ["XX", "IK", "XK"])
async def test_pattern_as_responder(pattern: str) -> None:
    async with bare_server(session(pattern, initiator=False)) as (port, first):
        arguments = ("--connect", port, "--pattern", pattern, "--seed", NODE_SEED.hex())
        remote = () if pattern == "XX" else ("--remote", OUR_KEY.hex())
        async with NodePeer(PROGRAM, *arguments, *remote, "--send", "hello") as peer:
            async with asyncio.timeout(20):
                stream = await first
            opened = await stream.opened()
            theirs = await peer.event("connect")
            assert opened.remote_key == NODE_KEY
            assert opened.handshake_hash == bytes.fromhex(theirs["handshakeHash"])
            assert await stream.message() == b"hello"
            stream.send(b"back")
            assert (await peer.event("message"))["data"] == "back"


@pytest.mark.parametrize("pattern", ["IK", "XK"])
async def test_dialling_the_wrong_key_fails_on_both_sides(pattern: str) -> None:
    arguments = ("--listen", 0, "--pattern", pattern, "--seed", NODE_SEED.hex())
    async with NodePeer(PROGRAM, *arguments) as peer:
        await peer.event("listening")
        async with bare_client(peer.port, session(pattern, initiator=True, remote=OUR_KEY)) as ours:
            await peer.event("error", message="Noise handshake failed")
            with pytest.raises((HandshakeError, ConnectionError)):
                await ours.opened()


async def test_node_dialling_another_key_than_ours_is_refused_here() -> None:
    async with bare_server(session("IK", initiator=False)) as (port, first):
        arguments = ("--connect", port, "--pattern", "IK", "--remote", NODE_KEY.hex())
        async with NodePeer(PROGRAM, *arguments):
            async with asyncio.timeout(20):
                stream = await first
            with pytest.raises(HandshakeError):
                await stream.opened()


@pytest.mark.parametrize("role", ROLES)
async def test_nodes_keep_alive_is_swallowed_and_the_stream_goes_on(role: str) -> None:
    """Twenty bytes per keep-alive arrive here, and no message."""
    common = ("--keepalive", 40, "--mode", "lines", "--seed", NODE_SEED.hex())
    async with AsyncExitStack() as stack:
        ours = session("XX", initiator=role == "covey-dials")
        if role == "covey-dials":
            peer = await stack.enter_async_context(NodePeer(PROGRAM, "--listen", 0, *common))
            await peer.event("listening")
            stream = await stack.enter_async_context(bare_client(peer.port, ours))
        else:
            port, first = await stack.enter_async_context(bare_server(ours))
            peer = await stack.enter_async_context(NodePeer(PROGRAM, "--connect", port, *common))
            stream = await first
        await stream.opened()
        before = stream.raw_read
        while stream.raw_read < before + 59 + 5 * 20:
            await stream.read_once()
        assert stream.messages == []
        stream.send(b"still here")
        assert (await peer.event("message"))["data"] == "still here"


async def test_fixed_seeds_give_the_same_handshake_hash_every_time() -> None:
    """With both static and both ephemeral keys fixed there is nothing random left in it."""
    hashes = set()
    for _ in range(2):
        fixed = ("--seed", NODE_SEED.hex(), "--ephemeral", "33" * 32)
        async with NodePeer(PROGRAM, "--listen", 0, *fixed) as peer:
            await peer.event("listening")
            ours = SecretStream(
                is_initiator=True,
                key_pair=KeyPair.from_seed(OUR_SEED),
                now=0.0,
                random_bytes=lambda size: bytes([0x44]) * size,
            )
            async with bare_client(peer.port, ours) as stream:
                hashes.add((await stream.opened()).handshake_hash)
                assert (await peer.event("connect"))["handshakeHash"] in {
                    value.hex() for value in hashes if value
                }
    assert len(hashes) == 1
