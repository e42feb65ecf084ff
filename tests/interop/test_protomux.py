"""protomux 3.12.1 as the other end, in both roles, over the secret stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from covey.net.connection import Connection
from covey.net.mux import Channel
from covey.wire.encoding import string, uint
from tests.interop.harness import NodePeer
from tests.interop.sides import PATIENCE, accepting, dialled

pytestmark = pytest.mark.interop

PROGRAM = "protomux-echo.cjs"
PROTOCOL = "covey/echo"
ROLES = ("covey-dials", "node-dials")
OURS = "hi from covey"
THEIRS = "hi from node"


@asynccontextmanager
async def joined(role: str, *arguments: object) -> AsyncIterator[tuple[NodePeer, Connection]]:
    """A Node program and covey, connected by whoever `role` says dials."""
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


class Echo:
    """Our end of the program's channel: type 0 a string, type 1 a number; keeps what comes."""

    def __init__(
        self,
        connection: Connection,
        *,
        protocol: str = PROTOCOL,
        name: bytes | None = None,
        aliases: tuple[str, ...] = (),
        handshake: str | None = OURS,
        answers: int = 0,
    ) -> None:
        channel = connection.mux.create_channel(
            protocol, id=name, aliases=aliases, handshake=string if handshake is not None else None
        )
        self.channel: Channel = channel
        self.texts: list[str] = []
        self.numbers: list[int] = []
        self._answers = answers
        self._news = asyncio.Event()
        self.text = channel.add_message(string, self._on_text)
        self.number = channel.add_message(uint, self._on_number)
        channel.open(handshake)

    def _on_text(self, value: str) -> None:
        self.texts.append(value)
        if self._may_answer():
            self.text.send(value)
        self._news.set()

    def _on_number(self, value: int) -> None:
        self.numbers.append(value)
        if self._may_answer():
            self.number.send(value)
        self._news.set()

    def _may_answer(self) -> bool:
        """The program as a server echoes too: without an end of our answers it would go on."""
        self._answers -= 1
        return self._answers >= 0

    async def received(self, count: int) -> None:
        """Wait until `count` messages have come in all."""
        async with asyncio.timeout(PATIENCE):
            while len(self.texts) + len(self.numbers) < count:
                self._news.clear()
                await self._news.wait()

    async def opened(self) -> bool:
        """Whether the remote took the channel."""
        async with asyncio.timeout(PATIENCE):
            return await self.channel.fully_opened()

    async def closed(self) -> None:
        """Wait until nothing of the channel is left."""
        async with asyncio.timeout(PATIENCE):
            await self.channel.fully_closed()


@pytest.mark.parametrize("node_opens", ["now", "pair"])
@pytest.mark.parametrize("role", ROLES)
async def test_a_channel_opens_with_the_handshakes_of_both_ends(role: str, node_opens: str) -> None:
    async with joined(role, "--open", node_opens) as (peer, connection):
        ours = Echo(connection)
        assert await ours.opened()
        assert ours.channel.handshake == THEIRS
        assert (await peer.event("open"))["handshake"] == OURS


@pytest.mark.parametrize("role", ROLES)
async def test_a_channel_without_handshakes(role: str) -> None:
    async with joined(role, "--handshake", "none", "--open", "pair", "--echo") as (
        peer,
        connection,
    ):
        ours = Echo(connection, handshake=None)
        ours.number.send(7)
        await ours.received(1)
        assert ours.numbers == [7]
        assert (await peer.event("open"))["handshake"] is None


@pytest.mark.parametrize("role", ROLES)
async def test_a_pair_callback_here_answers_what_node_opens(role: str) -> None:
    lines = ("--open", "now", "--send", "one", "--uint", 300, "--send", "three")
    async with joined(role, *lines) as (peer, connection):
        made: list[Echo] = []
        asked: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()

        def pair(name: bytes | None) -> None:
            made.append(Echo(connection, name=name, answers=3))
            asked.set_result(name)

        connection.mux.pair(PROTOCOL, pair)
        assert await asked is None
        await made[0].received(3)
        assert (made[0].texts[:2], made[0].numbers[:1]) == (["one", "three"], [300])
        for value in ("one", 300, "three"):
            await peer.event("message", value=value)


@pytest.mark.parametrize("role", ROLES)
async def test_what_node_pipelines_before_our_answer_arrives(role: str) -> None:
    lines = ("--open", "now", "--pipeline", "--send", "early", "--uint", 1, "--cork")
    async with joined(role, *lines) as (_, connection):
        ours = Echo(connection)
        await ours.received(2)
        assert (ours.texts, ours.numbers) == (["early"], [1])


@pytest.mark.parametrize("role", ROLES)
async def test_what_we_pipeline_before_nodes_answer_arrives(role: str) -> None:
    async with joined(role, "--open", "pair", "--pair-delay", 100, "--echo") as (peer, connection):
        ours = Echo(connection)
        for n in range(20):
            ours.text.send(f"early {n}")
            ours.number.send(n)
        await ours.received(40)
        assert ours.texts == [f"early {n}" for n in range(20)]
        assert ours.numbers == list(range(20))
        pair, opened = await peer.event("pair"), await peer.event("open")
        assert peer.events.index(pair) < peer.events.index(opened)


@pytest.mark.parametrize("role", ROLES)
async def test_a_refused_channel_is_not_opened_and_the_connection_lives(role: str) -> None:
    async with joined(role, "--open", "pair", "--refuse") as (peer, connection):
        first = Echo(connection)
        assert await first.opened() is False
        await peer.event("pair")
        second = Echo(connection)
        assert await second.opened() is False
        await peer.event("pair")
        assert not connection.closed


@pytest.mark.parametrize("role", ROLES)
async def test_node_is_refused_a_protocol_that_nobody_here_has(role: str) -> None:
    async with joined(role, "--open", "now", "--protocol", "nobody/has") as (peer, connection):
        assert connection.mux.is_idle
        closed = await peer.event("close")
        assert closed["remote"] is True
        assert not peer.named("open")


@pytest.mark.parametrize("role", ROLES)
async def test_ids_tell_channels_of_one_protocol_apart(role: str) -> None:
    async with joined(role, "--open", "pair", "--echo") as (peer, connection):
        names = [b"", b"\x01", b"\x02" * 32]
        channels = [Echo(connection, name=name or None) for name in names]
        for n, channel in enumerate(channels):
            channel.number.send(n)
        for n, channel in enumerate(channels):
            await channel.received(1)
            assert channel.numbers == [n]
        asked = {event["id"] for event in peer.named("pair")}
        assert asked == {None, "01", "02" * 32}


@pytest.mark.parametrize("role", ROLES)
async def test_our_alias_matches_the_old_name_that_node_opens(role: str) -> None:
    lines = ("--open", "now", "--protocol", "covey/old", "--alias", "covey/new", "--send", "hello")
    async with joined(role, *lines) as (peer, connection):
        ours = Echo(connection, protocol="covey/new", aliases=("covey/old",), answers=1)
        assert await ours.opened()
        await peer.event("open")
        await ours.received(1)
        assert ours.texts[0] == "hello"
        await peer.event("message", value="hello")


@pytest.mark.parametrize("role", ROLES)
async def test_many_channels_at_once(role: str) -> None:
    async with joined(role, "--open", "now", "--channels", 100, "--uint", 5) as (peer, connection):
        made: dict[bytes | None, Echo] = {}
        everybody = asyncio.Event()

        def pair(name: bytes | None) -> None:
            made[name] = Echo(connection, name=name, answers=1)
            if len(made) == 100:
                everybody.set()

        connection.mux.pair(PROTOCOL, pair)
        async with asyncio.timeout(PATIENCE):
            await everybody.wait()
        for n in range(100):
            name = n.to_bytes(4, "little")
            await made[name].received(1)
            await peer.event("message", id=name.hex(), value=5)
        assert len(list(connection.mux)) == 100


@pytest.mark.parametrize("role", ROLES)
async def test_a_batch_from_node_arrives_in_order_and_is_answered(role: str) -> None:
    async with joined(role, "--open", "now", "--count", 5000) as (peer, connection):
        ours = Echo(connection, answers=5000)
        await ours.received(5000)
        assert ours.numbers[:5000] == list(range(5000))
        await peer.event("message", value=4999)
        assert [event["value"] for event in peer.named("message")] == list(range(5000))


@pytest.mark.parametrize("corked", [False, True])
@pytest.mark.parametrize("role", ROLES)
async def test_many_messages_come_back_in_order(role: str, corked: bool) -> None:
    async with joined(role, "--open", "pair", "--echo") as (_, connection):
        ours = Echo(connection)
        if corked:
            connection.mux.cork()
        for n in range(10_000):
            if not ours.number.send(n):
                await ours.channel.drain()
        if corked:
            connection.mux.uncork()
        await ours.received(10_000)
        assert ours.numbers == list(range(10_000))


@pytest.mark.parametrize("role", ROLES)
async def test_bulk_comes_back_unchanged(role: str) -> None:
    text = "0123456789abcdef" * 4096
    async with joined(role, "--open", "pair", "--echo") as (_, connection):
        ours = Echo(connection)
        for _ in range(256):  # 16 MiB each way
            if not ours.text.send(text):
                await ours.channel.drain()
        await ours.received(256)
        assert set(ours.texts) == {text}


@pytest.mark.parametrize("role", ROLES)
async def test_node_closes_the_channel_and_the_connection_lives(role: str) -> None:
    async with joined(role, "--open", "pair", "--echo", "--close-after", 3) as (peer, connection):
        ours = Echo(connection)
        for n in range(3):
            ours.number.send(n)
        await ours.received(3)
        await ours.closed()
        assert (await peer.event("close"))["remote"] is False
        assert ours.channel.closed
        assert not ours.number.send(9)
        if role == "covey-dials":  # the program as a client ends its stream with its last channel
            again = Echo(connection)
            assert await again.opened()


@pytest.mark.parametrize("role", ROLES)
async def test_covey_closes_the_channel_and_node_is_told(role: str) -> None:
    async with joined(role, "--open", "pair", "--echo") as (peer, connection):
        ours = Echo(connection)
        assert await ours.opened()
        ours.text.send("last")
        await ours.received(1)
        ours.channel.close()
        await ours.closed()
        assert (await peer.event("close"))["remote"] is True
        await peer.event("destroy")


async def test_the_channel_is_closed_while_node_still_pairs_and_the_next_one_works() -> None:
    """The reference forgets a close that comes while its pair callback waits (ghost channel)."""
    async with joined("covey-dials", "--open", "pair", "--pair-delay", 150, "--echo") as (
        peer,
        connection,
    ):
        ghost = Echo(connection)
        await peer.event("pair")
        ghost.channel.close()
        await peer.event("open")  # too late: the reference opens what we have closed
        await peer.event("close")  # our close, said once more
        second = Echo(connection)
        second.text.send("alive")
        await second.received(1)
        assert second.texts == ["alive"]
        assert not connection.closed


@pytest.mark.parametrize("role", ROLES)
async def test_the_stream_closes_the_channels_of_both_ends(role: str) -> None:
    async with joined(role, "--open", "pair", "--echo") as (peer, connection):
        ours = Echo(connection)
        assert await ours.opened()
        await connection.close()
        await ours.closed()
        assert (await peer.event("close"))["remote"] is True
        assert (await peer.event("stream-close"))["idle"] is True


async def test_node_leaves_and_our_channels_close() -> None:
    async with joined("covey-dials", "--open", "pair", "--echo") as (peer, connection):
        ours = Echo(connection)
        assert await ours.opened()
        peer.kill()
        await ours.closed()
        async with asyncio.timeout(PATIENCE):
            await connection.wait_closed()
