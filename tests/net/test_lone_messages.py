"""The short way of a request and its answer, held against the general way, from socket to handler.

The general way is had by taking `Protomux.lone` away and, in the shell, the two methods of the
session that handle one small frame.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable
from typing import Any, cast

import pytest

from covey.errors import ProtocolError
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.mux import Muxer
from covey.net.stream_shell import StreamShell
from covey.wire.encoding import buffer, encode_uint
from covey.wire.protomux import Protomux
from covey.wire.protomux_channel import ChannelCore, ChannelMessages
from covey.wire.secret_stream import SecretStream
from tests.fuzz.test_protomux_fuzz import FRAMES, mutated
from tests.net.endpoints import joined
from tests.net.mux_pipes import RecordingPipe
from tests.net.test_mux_properties import (
    test_random_scripts_keep_order_and_end_alike as run_random_script,
)
from tests.net.test_stream_shell import Owner, ToyTransport


def without_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Protomux, "lone", lambda *_: None)
    monkeypatch.setattr(SecretStream, "receive_lone", lambda *_: None)
    monkeypatch.setattr(SecretStream, "seal_lone", lambda *_: None)


# The muxer


def opened(mux: Protomux, remote_id: int) -> ChannelCore:
    """A channel that the remote opened under `remote_id`, as the next of its numbers."""
    channel = mux.create_channel(f"name {remote_id}")
    assert channel is not None
    mux.open(channel)
    name = channel.protocol.encode()
    frame = b"\0\1" + encode_uint(remote_id) + encode_uint(len(name)) + name + b"\0"
    for _ in mux.receive_frame(frame, 0.0):
        pass
    assert channel.opened
    return channel


def check_lone(mux: Protomux, frame: bytes) -> bool:
    """What `lone` finds is what `receive_frame` tells."""
    channel = mux.lone(frame)
    if channel is not None:
        told = list(mux.receive_frame(frame, 0.0))
        assert told == [ChannelMessages(channel, frame[1], [frame[2:]])]
    return channel is not None


def test_lone_finds_only_what_the_general_way_would_tell() -> None:
    mux = Protomux()
    for remote_id in range(1, 300):
        opened(mux, remote_id)
    found = {
        (number, kind)
        for number in range(1, 300)
        for kind in (0, 1, 252, 253, 254, 1000)
        if check_lone(mux, encode_uint(number) + encode_uint(kind) + b"payload")
    }
    assert found == {(number, kind) for number in range(1, 253) for kind in (0, 1, 252)}
    assert mux.lone(b"") is mux.lone(b"\1") is None


def test_lone_knows_no_control_no_closed_and_no_waiting_channel() -> None:
    mux = Protomux()
    channel = opened(mux, 1)
    mux.pair("waiting", object())
    for _ in mux.receive_frame(b"\0\1\2\7waiting\0", 0.0):
        pass
    assert mux.lone(b"\1\0x") is channel
    assert mux.lone(b"\2\0kept") is mux.lone(b"\3\0unknown") is mux.lone(b"\0\3\1") is None
    mux.close(channel)
    assert mux.lone(b"\1\0x") is None


@pytest.mark.parametrize("seed", range(30))
def test_lone_agrees_with_the_general_way_on_random_frames(seed: int) -> None:
    dice = random.Random(seed)
    mux = Protomux(limits=Limits(max_pairing=8, max_channels=64))
    for remote_id in range(1, 4):
        opened(mux, remote_id)
    for _ in range(200):
        frame = mutated(dice) if dice.random() < 0.5 else dice.choice(FRAMES)
        try:
            if not check_lone(mux, frame):
                for _event in mux.receive_frame(frame, 0.0):
                    pass
        except ProtocolError:
            return


@pytest.mark.parametrize("seed", range(0, 60, 6))
async def test_random_scripts_end_alike_without_the_short_way(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_the_short_way(monkeypatch)
    await run_random_script(seed)


@pytest.mark.parametrize("short", [True, False])
async def test_a_handler_of_a_lone_message_may_do_anything(
    short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answer, close, open, cork and raise: the frames that leave are the same both ways."""
    if not short:
        without_the_short_way(monkeypatch)
    pipe = RecordingPipe()
    mux = Muxer(pipe)
    channel = mux.create_channel("a")
    steps: dict[bytes, Callable[[], Any]] = {
        b"answer": lambda: message.send(b"one"),
        b"twice": lambda: (message.send(b"one"), message.send(b"two")),
        b"cork": mux.cork,
        b"uncork": mux.uncork,
        b"nothing": lambda: None,
        b"close": channel.close,
    }
    message = channel.add_message(buffer, lambda value: (steps[value](), None)[1])
    channel.open()
    await asyncio.sleep(0)
    pipe.take()
    pipe.receive(b"\0\1\1\1a\0")
    wire = []
    for name in (b"answer", b"twice", b"nothing", b"cork", b"answer", b"uncork", b"answer"):
        pipe.receive(b"\1\0" + bytes([len(name)]) + name)
        wire.append(pipe.take())
    one, two = b"\1\0\3one", b"\0\0\1\5\0\3one\5\0\3two"
    assert wire == [[one], [two], [], [], [], [one], [one]]
    pipe.receive(b"\1\0\5close")
    pipe.receive(b"\1\0\6answer")
    assert pipe.take() == [b"\0\3\1"]
    assert pipe.error is None
    pipe.close()


@pytest.mark.parametrize("short", [True, False])
async def test_a_lone_message_that_does_not_decode_ends_the_stream(
    short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not short:
        without_the_short_way(monkeypatch)
    pipe = RecordingPipe()
    channel = Muxer(pipe).create_channel("a", messages=[(buffer, lambda _: None)])
    channel.open()
    pipe.receive(b"\0\1\1\1a\0")
    pipe.receive(b"\1\0\x09short")
    assert isinstance(pipe.error, ProtocolError)
    pipe.close(pipe.error)


# The shell


class End:
    """One end of a stream in memory: a shell with the real session and a toy transport."""

    def __init__(self, *, is_initiator: bool) -> None:
        self.tell: list[object] = []
        session = SecretStream(
            is_initiator=is_initiator,
            key_pair=KeyPair.generate(),
            now=asyncio.get_running_loop().time(),
            random_bytes=os.urandom,
        )
        owner = Owner(self.tell)
        self.shell = StreamShell(session, owner, opening=owner, limits=Limits(), quick=True)
        self.shell.connection_made(cast("asyncio.Transport", ToyTransport(self.tell)))

    def feed(self, data: bytes) -> None:
        self.shell.get_buffer(-1)[: len(data)] = data
        self.shell.buffer_updated(len(data))

    def written(self) -> bytes:
        """What it has written since the last call."""
        writes = [entry for entry in self.tell if isinstance(entry, tuple) and entry[0] == "write"]
        for entry in writes:
            self.tell.remove(entry)
        return b"".join(entry[1] for entry in writes)

    def messages(self) -> list[bytes]:
        return [message for entry in self.tell if isinstance(entry, list) for message in entry]


def opened_ends() -> tuple[End, End]:
    left, right = End(is_initiator=True), End(is_initiator=False)
    for here, there in ((left, right), (right, left), (left, right)):
        there.feed(here.written())
    return left, right


@pytest.mark.parametrize("short", [True, False])
@pytest.mark.parametrize("seed", range(10))
async def test_reads_of_any_size_deliver_the_same(
    seed: int, short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not short:
        without_the_short_way(monkeypatch)
    dice = random.Random(seed)
    left, right = opened_ends()
    sent: list[bytes] = []
    before = left.shell.bytes_written, right.shell.bytes_read
    for _ in range(40):
        size = dice.choice([1, 100, 1024, 1025, 5000])
        group = [bytes([1]) * size] * dice.choice([1, 1, 2])
        left.shell.send(list(group))
        sent += group
        if dice.random() < 0.2:
            continue
        data = left.written()
        cut = dice.choice([0, len(data), dice.randrange(len(data))])
        for part in (data[:cut], data[cut:]):
            if part:
                right.feed(part)
    right.feed(left.written())
    assert right.messages() == sent
    size = sum(map(len, sent)) + 20 * len(sent)
    assert left.shell.bytes_written - before[0] == right.shell.bytes_read - before[1] == size
    for end in (left, right):
        end.shell.connection_lost(None)


@pytest.mark.parametrize("short", [True, False])
async def test_a_forged_lone_frame_cuts_and_says_why(
    short: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not short:
        without_the_short_way(monkeypatch)
    left, right = opened_ends()
    left.shell.send([b"message"])
    data = bytearray(left.written())
    data[-1] ^= 1
    right.feed(bytes(data))
    reason, error = right.shell.outcome
    assert reason is CloseReason.PROTOCOL
    assert "failed authentication" in str(error)
    assert right.messages() == []
    for end in (left, right):
        end.shell.connection_lost(None)


async def test_a_request_and_its_answer_take_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the short way is for does not fall back to the general one unnoticed."""
    async with joined() as (left, right):
        answered = asyncio.Event()
        first, second = left.mux.create_channel("a"), right.mux.create_channel("a")
        ask = first.add_message(buffer, lambda _: answered.set())
        answer = second.add_message(buffer, lambda value: (answer.send(value), None)[1])
        first.open()
        second.open()
        assert await first.fully_opened()
        assert await second.fully_opened()
        for name in ("receive_data", "send_messages"):
            monkeypatch.setattr(SecretStream, name, None)
        ask.send(b"x" * 100)
        async with asyncio.timeout(10):
            await answered.wait()
        assert (left.messages_read, right.messages_read) == (2, 2)
        monkeypatch.undo()
