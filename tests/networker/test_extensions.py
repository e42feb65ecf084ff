"""Extensions and their channel against a remote played by hand: rows 26 to 30, sections 4 and 6."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from covey.errors import ClosedError, EncodeError, LimitError, ProtocolError, UsageError
from covey.limits import Limits
from covey.net.mux import Channel, Muxer
from covey.networker import Extension, ExtensionHandlers, Networker, Peer
from covey.networker.channel import ExtensionChannel
from covey.networker.messages import (
    MAX_NAMES,
    MAX_PAYLOAD,
    PROTOCOL,
    Names,
    Sent,
    Version,
    names_codec,
    sent_codec,
    version_codec,
)
from covey.wire.encoding import raw
from tests.net.mux_pipes import RecordingPipe, settle
from tests.networker.support import (
    LARGE,
    THIRD,
    FakeConnection,
    FakeFlock,
    Recorder,
    faked,
    until,
)
from tests.waiting import turns


class Far:
    """The remote's end of the channel."""

    def __init__(self, mux: Muxer, version: Version | None = None) -> None:
        self.messages: list[Sent] = []
        self.told: list[Names] = []
        self.closed = False
        self.channel: Channel = mux.create_channel(
            PROTOCOL, handshake=version_codec, on_close=self._on_close
        )
        self.ext = self.channel.add_message(sent_codec, self.messages.append)
        self.names = self.channel.add_message(names_codec, self.told.append)
        self.channel.open(version or Version())

    def _on_close(self, remote: bool, channel: Channel) -> None:
        self.closed = True

    def says(self, name: str, payload: bytes) -> None:
        self.ext.send(Sent(name, payload))


@asynccontextmanager
async def meeting(
    **options: Any,
) -> AsyncIterator[tuple[Networker, FakeFlock, Recorder]]:
    """A networker that hears of connections."""
    async with faked(**options) as (networker, flock, heard):
        await networker.listen_on()
        yield networker, flock, heard


async def met(flock: FakeFlock, key: bytes = LARGE.public_key) -> tuple[FakeConnection, Far]:
    """A peer that has a networker too."""
    connection = flock.connects(key)
    far = Far(connection.far)
    async with asyncio.timeout(5):
        assert await far.channel.fully_opened()
    await until(lambda: far.told)
    return connection, far


def peer_of(networker: Networker, connection: FakeConnection) -> Peer:
    return next(peer for peer in networker.peers if peer.remote_public_key == connection.remote_key)


class Heard:
    """What an extension's handlers were told."""

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.peers: list[Peer] = []
        self.errors: list[Exception] = []

    def message(self, message: Any, peer: Peer) -> None:
        self.messages.append(message)
        self.peers.append(peer)

    def error(self, error: Exception) -> None:
        self.errors.append(error)


# The channel


class SilentOwner:
    """Extensions of nobody."""

    names = ("chat",)

    def received(self, channel: ExtensionChannel, message: Sent) -> None:
        raise AssertionError("nothing is received")


async def test_section_4_the_frames_are_those_of_the_document() -> None:
    pipe = RecordingPipe()
    mux = Muxer(pipe, auto_batch=False)

    class OnPipe:
        def __init__(self) -> None:
            self.mux = mux

    channel = ExtensionChannel(OnPipe(), SilentOwner(), Limits())  # type: ignore[arg-type]
    channel.open()
    assert pipe.take() == [
        bytes.fromhex("0001010f") + b"covey/networker" + bytes.fromhex("000100"),
        bytes.fromhex("0101000104") + b"chat",
    ]
    channel.send("chat", b"hello")
    assert pipe.take() == [bytes.fromhex("010004") + b"chathello"]
    channel.tell(["chat"], withdrawn=True)
    assert pipe.take() == [bytes.fromhex("0101010104") + b"chat"]
    pipe.close()


async def test_section_4_names_are_told_once_after_the_open_and_at_each_change() -> None:
    async with meeting() as (networker, flock, _):
        networker.register_extension("a")
        networker.register_extension("b")
        _, far = await met(flock)
        assert far.told == [Names(0, ["a", "b"])]
        again = networker.register_extension("a")
        third = networker.register_extension("c")
        again.destroy()
        third.destroy()
        await until(lambda: len(far.told) == 3)
        assert far.told[1:] == [Names(0, ["c"]), Names(1, ["c"])], "a is still registered"


async def test_section_4_the_names_of_the_remote_are_known() -> None:
    async with meeting() as (networker, flock, _):
        connection, far = await met(flock)
        stream = peer_of(networker, connection).stream
        far.names.send(Names(0, ["x", "y"]))
        await until(lambda: stream.extensions == {"x", "y"})
        far.names.send(Names(1, ["x", "never told"]))
        await until(lambda: stream.extensions == {"y"})
        far.channel.close()
        await until(lambda: not stream.extensions)


async def test_section_4_an_extension_that_is_unknown_here_is_dropped_silently(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = Heard()
    async with meeting() as (networker, flock, _):
        networker.register_extension("known", on_message=heard.message)
        connection, far = await met(flock)
        far.says("unknown", b"x")
        far.says("known", b"y")
        await until(lambda: heard.messages)
        assert heard.messages == [b"y"]
        assert not connection.closed
    assert caplog.records == []


@pytest.mark.parametrize(("theirs", "spoken"), [(1, 1), (9, 1)])
async def test_section_4_the_smaller_version_is_spoken(theirs: int, spoken: int) -> None:
    async with meeting() as (networker, flock, _):
        connection = flock.connects()
        channel = peer_of(networker, connection).stream.channel
        assert channel is not None
        assert channel.version is None
        Far(connection.far, Version(theirs, 5))
        await until(lambda: channel.opened)
        assert channel.version == spoken


async def test_section_4_a_peer_without_a_networker_rejects_and_replication_goes_on() -> None:
    async with meeting() as (networker, flock, heard):
        chat = networker.register_extension("chat")
        connection = flock.connects()
        peer = peer_of(networker, connection)
        channel = peer.stream.channel
        assert channel is not None
        await until(lambda: channel.closed)
        with pytest.raises(ClosedError):
            chat.send(b"hello", peer)
        chat.broadcast(b"hello")
        assert not connection.closed
        assert networker.peers == {peer}
        assert heard.named("replication-error") == []


async def test_section_4_a_networker_that_starts_later_is_let_in() -> None:
    heard = Heard()
    async with meeting() as (networker, flock, _):
        chat = networker.register_extension("chat", on_message=heard.message)
        connection = flock.connects()
        peer = peer_of(networker, connection)
        channel = peer.stream.channel
        assert channel is not None
        await until(lambda: channel.closed)
        far = Far(connection.far)
        await until(lambda: far.told)
        far.says("chat", b"late")
        await until(lambda: heard.messages == [b"late"])
        chat.send(b"welcome", peer)
        await until(lambda: far.messages == [Sent("chat", b"welcome")])


async def test_a_channel_with_an_id_is_another_protocol() -> None:
    async with meeting() as (_, flock, _):
        connection, _far = await met(flock)
        other = connection.far.create_channel(PROTOCOL, id=b"x", handshake=version_codec)
        other.open(Version())
        assert not await other.fully_opened()
        assert not connection.closed


async def test_two_networkers_on_one_flock_do_not_disturb_each_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with meeting() as (_, flock, _), faked(flock=flock) as (second, _, _heard):
        await second.listen_on()
        with caplog.at_level(logging.WARNING, "covey.networker"):
            connection = flock.connects()
        assert "no extensions" in caplog.text
        assert "no hints" in caplog.text
        with pytest.raises(ClosedError):
            second.register_extension("chat").send(b"x", peer_of(second, connection))


# Row 26: registering


@pytest.mark.parametrize("form", ["arguments", "object", "object with name", "function", "both"])
async def test_row_26_the_forms_of_registering(form: str) -> None:
    heard = Heard()
    handlers = ExtensionHandlers(encoding="utf-8", on_message=heard.message, on_error=heard.error)
    named = ExtensionHandlers(name="chat", encoding="utf-8", on_message=heard.message)
    made: list[Extension] = []

    def make(extension: Extension) -> ExtensionHandlers:
        made.append(extension)
        return named

    async with meeting() as (networker, flock, _):
        if form == "arguments":
            chat = networker.register_extension(
                "chat", encoding="utf-8", on_message=heard.message, on_error=heard.error
            )
        elif form == "object":
            chat = networker.register_extension("chat", handlers)
        elif form == "object with name":
            chat = networker.register_extension(named)
        elif form == "function":
            chat = networker.register_extension(make)
        else:
            chat = networker.register_extension("chat", make)
        assert chat.name == "chat"
        assert made == [chat] * (form in ("function", "both"))
        _, far = await met(flock)
        far.says("chat", "grüß".encode())
        await until(lambda: heard.messages == ["grüß"])


async def test_row_26_registering_what_makes_no_sense_is_refused() -> None:
    async with meeting() as (networker, _, _heard):
        for name in ("", "n" * 256, ExtensionHandlers(), lambda _: ExtensionHandlers()):
            with pytest.raises(EncodeError):
                networker.register_extension(name)
        named = ExtensionHandlers(name="chat")
        with pytest.raises(UsageError):
            networker.register_extension(named, named)
        with pytest.raises(UsageError):
            networker.register_extension(named, encoding="json")
        with pytest.raises(UsageError):
            networker.register_extension("chat", encoding="latin-1")
        assert networker._extensions.names == ()


async def test_row_26_a_name_registered_twice_gets_every_message_twice() -> None:
    first, second, other = Heard(), Heard(), Heard()
    async with meeting() as (networker, flock, _):
        networker.register_extension("chat", on_message=first.message)
        connection, far = await met(flock)
        networker.register_extension("chat", encoding="utf-8", on_message=second.message)
        networker.register_extension("other", on_message=other.message)
        far.says("chat", b"one")
        await until(lambda: second.messages)
        assert (first.messages, second.messages, other.messages) == ([b"one"], ["one"], [])
        assert first.peers == second.peers == [peer_of(networker, connection)]


async def test_a_networker_has_1024_extensions_at_most() -> None:
    async with meeting() as (networker, flock, _):
        for number in range(MAX_NAMES):
            networker.register_extension(f"{number}")
        with pytest.raises(LimitError):
            networker.register_extension("one more")
        networker.register_extension("0")
        _, far = await met(flock)
        assert len(far.told[0].names) == MAX_NAMES


# Rows 27 and 28: sending


async def test_row_27_sending_needs_a_peer() -> None:
    async with meeting() as (networker, flock, _):
        chat = networker.register_extension("chat")
        await met(flock)
        for peer in (None, "peer", LARGE.public_key):
            with pytest.raises(UsageError, match="must be specified"):
                chat.send(b"x", peer)  # type: ignore[arg-type]


async def test_row_27_sending_to_a_peer_that_is_gone_is_an_error() -> None:
    async with meeting() as (networker, flock, heard):
        chat = networker.register_extension("chat")
        connection, _ = await met(flock)
        peer = peer_of(networker, connection)
        connection.cut(None, None)
        await heard.seen("peer-remove")
        with pytest.raises(ClosedError):
            chat.send(b"x", peer)


async def test_row_27_what_does_not_encode_is_an_error_and_nothing_is_sent() -> None:
    async with meeting() as (networker, flock, _):
        connection, far = await met(flock)
        chat = networker.register_extension("chat", encoding="utf-8")
        peer = peer_of(networker, connection)
        with pytest.raises(EncodeError):
            chat.send(b"bytes", peer)
        with pytest.raises(EncodeError):
            chat.broadcast(b"bytes")
        with pytest.raises(EncodeError, match="at most"):
            chat.send("x" * (MAX_PAYLOAD + 1), peer)
        chat.send("text", peer)
        await until(lambda: far.messages)
        assert far.messages == [Sent("chat", b"text")]


async def test_row_28_broadcast_reaches_the_peers_of_now_and_no_later_one() -> None:
    async with meeting() as (networker, flock, _):
        chat = networker.register_extension("chat")
        _, first = await met(flock)
        chat.broadcast(b"all")
        _, later = await met(flock, THIRD.public_key)
        chat.broadcast(b"both")
        await until(lambda: later.messages and len(first.messages) == 2)
        assert [one.payload for one in first.messages] == [b"all", b"both"]
        assert [one.payload for one in later.messages] == [b"both"]


async def test_a_peer_that_does_not_read_is_told_to_the_sender_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limits = Limits(extension_backlog=10_000)
    async with meeting(limits=limits) as (networker, flock, _):
        chat = networker.register_extension("chat")
        slow, _ = await met(flock)
        _, quick = await met(flock, THIRD.public_key)
        slow.far_pipe.pause_reading()
        slow.pipe.high = 0
        peer = peer_of(networker, slow)
        chat.send(b"fills the pipe", peer)
        await turns(2)
        assert not chat.send(bytes(6000), peer), "it should wait"
        assert not chat.send(bytes(6000), peer)
        with pytest.raises(LimitError) as caught:
            chat.send(b"x", peer)
        assert caught.value.limit == "extension_backlog"
        with caplog.at_level(logging.WARNING, "covey.networker"):
            chat.broadcast(b"to all")
        assert "left out" in caplog.text
        await until(lambda: quick.messages)
        slow.far_pipe.resume_reading()
        await turns(5)
        assert chat.send(b"again", peer)
        slow.far_pipe.pause_reading()
        await turns(2)
        for _ in range(2):
            assert not chat.send(bytes(6000), peer), "what it has read counts no more"


# Row 29: receiving


async def test_row_29_what_does_not_decode_goes_to_on_error_and_the_stream_lives() -> None:
    heard = Heard()
    async with meeting() as (networker, flock, _):
        networker.register_extension(
            "chat", encoding="json", on_message=heard.message, on_error=heard.error
        )
        connection, far = await met(flock)
        far.says("chat", b"{")
        far.says("chat", b"[1]")
        await until(lambda: heard.messages)
        assert heard.messages == [[1]]
        assert [str(error) for error in heard.errors] == [str(heard.errors[0])]
        assert not connection.closed


async def test_row_29_without_on_error_it_is_logged_and_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard = Heard()
    async with meeting() as (networker, flock, _):
        networker.register_extension("chat", encoding="utf-8", on_message=heard.message)
        _, far = await met(flock)
        with caplog.at_level(logging.DEBUG, "covey.networker"):
            far.says("chat", b"\xff")
            far.says("chat", b"ok")
            await until(lambda: heard.messages)
        assert heard.messages == ["ok"]
        assert "dropped" in caplog.text


@pytest.mark.parametrize("waits", [True, False])
async def test_a_handler_that_fails_is_logged_and_costs_nothing_else(
    waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def plain(message: Any, peer: Peer) -> None:
        raise RuntimeError("a bug")

    async def patient(message: Any, peer: Peer) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("a bug")

    def failing(error: Exception) -> None:
        raise RuntimeError("another one")

    async with meeting() as (networker, flock, _):
        networker.register_extension("chat", on_message=patient if waits else plain)
        networker.register_extension(
            "chat", encoding="utf-8", on_message=heard.message, on_error=failing
        )
        connection, far = await met(flock)
        far.says("chat", b"one")
        far.says("chat", b"\xff")
        far.says("chat", b"two")
        await until(lambda: len(heard.messages) == 2)
        await settle()
        assert heard.messages == ["one", "two"]
        assert not connection.closed
    assert sum(record.levelno == logging.ERROR for record in caplog.records) == 4


async def test_messages_of_one_peer_wait_for_a_coroutine_and_keep_their_order() -> None:
    order: list[str] = []
    gate = asyncio.Event()

    async def slow(message: bytes, peer: Peer) -> None:
        order.append(f"begin {message.decode()}")
        await gate.wait()
        order.append(f"end {message.decode()}")

    async with meeting() as (networker, flock, _):
        networker.register_extension("chat", on_message=slow)
        _, far = await met(flock)
        _, other = await met(flock, THIRD.public_key)
        for text in (b"1", b"2", b"3"):
            far.says("chat", text)
        await until(lambda: order)
        other.says("chat", b"other")
        await until(lambda: "begin other" in order)
        assert order == ["begin 1", "begin other"], "peers do not wait for each other"
        gate.set()
        await until(lambda: "end 3" in order)
        assert [line for line in order if "other" not in line] == [
            f"{word} {number}" for number in (1, 2, 3) for word in ("begin", "end")
        ]


async def test_a_handler_of_a_peer_that_is_gone_is_cancelled() -> None:
    cancelled = asyncio.Event()
    begun = asyncio.Event()

    async def endless(message: bytes, peer: Peer) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with meeting() as (networker, flock, _):
        networker.register_extension("chat", on_message=endless)
        networker.register_extension("chat", on_message=endless)
        connection, far = await met(flock)
        far.says("chat", b"1")
        far.says("chat", b"2")
        await begun.wait()
        connection.cut(None, None)
        await cancelled.wait()


async def test_handlers_end_with_the_networker() -> None:
    begun = asyncio.Event()

    async def endless(message: bytes, peer: Peer) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with meeting() as (networker, flock, _):
        networker.register_extension("chat", on_message=endless)
        _, far = await met(flock)
        far.says("chat", b"1")
        await begun.wait()


# Row 30: destroying


async def test_row_30_a_destroyed_extension_is_gone_also_for_new_peers() -> None:
    """The seed keeps it in its list and registers it again on new peers."""
    heard = Heard()
    async with meeting() as (networker, flock, _):
        chat = networker.register_extension("chat", on_message=heard.message)
        kept = networker.register_extension("kept", on_message=heard.message)
        connection, far = await met(flock)
        chat.destroy()
        chat.destroy()
        assert chat.destroyed
        assert chat.on_message is None
        with pytest.raises(ClosedError):
            chat.send(b"x", peer_of(networker, connection))
        chat.broadcast(b"x")
        _, later = await met(flock, THIRD.public_key)
        assert later.told == [Names(0, ["kept"])]
        for end in (far, later):
            end.says("chat", b"dead")
            end.says("kept", b"alive")
        await until(lambda: len(heard.messages) == 2)
        assert heard.messages == [b"alive", b"alive"]
        kept.broadcast(b"sent")
        await until(lambda: far.messages and later.messages)
        assert far.messages == later.messages == [Sent("kept", b"sent")]


async def test_row_30_one_of_two_of_a_name_is_destroyed_alone() -> None:
    first, second = Heard(), Heard()
    async with meeting() as (networker, flock, _):
        one = networker.register_extension("chat", on_message=first.message)
        networker.register_extension("chat", on_message=second.message)
        _, far = await met(flock)
        one.destroy()
        far.says("chat", b"x")
        await until(lambda: second.messages)
        assert first.messages == []


# Section 6: hostile remotes


async def test_section_6_a_flood_closes_the_channel_and_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gate = asyncio.Event()
    handled: list[int] = []

    async def slow(message: bytes, peer: Peer) -> None:
        handled.append(len(message))
        await gate.wait()

    limits = Limits()
    assert limits.extension_backlog == 1 << 20
    async with meeting(limits=limits) as (networker, flock, _):
        networker.register_extension("chat", on_message=slow)
        connection, far = await met(flock)
        far.says("chat", b"first")
        with caplog.at_level(logging.WARNING, "covey.networker"):
            for _ in range(20):
                far.says("chat", bytes(64 * 1024))
            await until(lambda: far.closed)
        assert "too fast" in caplog.text
        assert not connection.closed
        assert len(networker.peers) == 1
        gate.set()
        await settle()
        assert handled == [5], "what waited is dropped"
        again = Far(connection.far)
        assert not await again.channel.fully_opened(), "it is not let in again"


async def test_section_6_what_was_handled_counts_no_more() -> None:
    sizes: list[int] = []

    async def slow(message: bytes, peer: Peer) -> None:
        await asyncio.sleep(0)
        sizes.append(len(message))

    async with meeting(limits=Limits(extension_backlog=5000)) as (networker, flock, _):
        networker.register_extension("chat", on_message=slow)
        _, far = await met(flock)
        for turn in range(1, 6):
            for _ in range(3):
                far.says("chat", bytes(2000))
            await until(lambda turn=turn: len(sizes) == 3 * turn)  # type: ignore[misc]
        assert not far.closed


async def test_section_6_a_flood_of_empty_messages_is_bounded_too() -> None:
    async def slow(message: bytes, peer: Peer) -> None:
        await asyncio.Event().wait()

    async with meeting(limits=Limits(extension_backlog=5000)) as (networker, flock, _):
        networker.register_extension("chat", on_message=slow)
        _, far = await met(flock)
        for _ in range(30):
            far.says("chat", b"")
        await until(lambda: far.closed)


async def test_one_message_may_be_larger_than_the_backlog() -> None:
    sizes: list[int] = []

    async def slow(message: bytes, peer: Peer) -> None:
        await asyncio.sleep(0)
        sizes.append(len(message))

    async with meeting() as (networker, flock, _):
        networker.register_extension("chat", on_message=slow)
        _, far = await met(flock)
        far.says("chat", b"x")
        far.says("chat", bytes(MAX_PAYLOAD))
        await until(lambda: len(sizes) == 2)
        assert not far.closed


async def test_section_6_more_names_than_allowed_cut_the_connection() -> None:
    async with meeting() as (networker, flock, _):
        connection, far = await met(flock)
        far.names.send(Names(0, [f"a{number}" for number in range(MAX_NAMES)]))
        stream = peer_of(networker, connection).stream
        await until(lambda: len(stream.extensions) == MAX_NAMES)
        far.names.send(Names(0, ["one more"]))
        await until(lambda: connection.pipe.error)
        assert isinstance(connection.pipe.error, ProtocolError)


@pytest.mark.parametrize("kind", [0, 1])
async def test_section_6_rubbish_on_the_channel_cuts_the_connection(kind: int) -> None:
    async with meeting() as (_, flock, _):
        connection = flock.connects()
        channel = connection.far.create_channel(PROTOCOL, handshake=raw, messages=(raw, raw))
        channel.open(b"\x01\x00")
        await channel.fully_opened()
        message = channel.messages[kind]
        assert message is not None
        message.send(b"\x00")
        await until(lambda: connection.pipe.error)
        assert isinstance(connection.pipe.error, ProtocolError)


async def test_section_6_a_rubbish_handshake_cuts_the_connection() -> None:
    async with meeting() as (_, flock, _):
        connection = flock.connects()
        connection.far.create_channel(PROTOCOL, handshake=raw).open(b"")
        await until(lambda: connection.pipe.error)
        assert isinstance(connection.pipe.error, ProtocolError)
