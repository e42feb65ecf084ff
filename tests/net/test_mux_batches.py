"""What leaves as one frame, and that every value arrives."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from covey.errors import EncodeError, UsageError
from covey.limits import Limits
from covey.net.mux import Message, Muxer
from covey.wire import encoding
from covey.wire.encoding import buffer, raw, string, uint
from tests.net.mux_pipes import (
    FOO,
    RecordingPipe,
    create,
    muxers,
    pipe_of,
    recorded,
    settle,
)


async def test_what_one_turn_sends_leaves_as_one_batch() -> None:
    left, right = muxers()
    first, second = create(left), create(right)
    other = create(left, "bar")
    message, number = first.add_message(string), other.add_message(uint)
    seen: list[str] = []
    second.add_message(string, seen.append)
    for channel in (first, second, other):
        channel.open()
    await settle()
    frames = pipe_of(left).frames_written
    for count in range(10):
        message.send(str(count))
        number.send(count)
    await settle()
    assert pipe_of(left).frames_written == frames + 1
    assert seen == [str(count) for count in range(10)]


async def test_a_part_of_a_turn_may_leave_before_its_end() -> None:
    mux, pipe = recorded()
    channel = create(mux)
    message = channel.add_message(string)
    channel.open()
    await settle()
    pipe.take()
    message.send("hi")
    assert channel.flush()
    message.send("yo")
    assert pipe.take() == [bytes.fromhex("0100026869")]
    await settle()
    assert pipe.take() == [bytes.fromhex("010002796f")]
    channel.cork()
    message.send("hi")
    channel.flush()
    assert pipe.take() == [], "corked"
    channel.uncork()


async def test_a_single_message_leaves_as_a_plain_frame() -> None:
    mux, pipe = recorded()
    channel = create(mux)
    message = channel.add_message(string)
    channel.open()
    await settle()
    pipe.take()
    message.send("hi")
    assert pipe.take() == []
    await settle()
    assert pipe.take() == [bytes.fromhex("0100026869")]


async def test_replies_leave_in_the_turn_in_which_the_question_came() -> None:
    mux, pipe = recorded()
    channel = create(mux)
    echo = channel.add_message(string, lambda value: echo.send(value))  # noqa: PLW0108
    channel.open()
    await settle()
    pipe.take()
    pipe.receive(FOO, bytes.fromhex("0100026869"), bytes.fromhex("0100027961"))
    assert pipe.take() == [bytes.fromhex("00000104000268690400027961")]


async def test_bytes_are_copied_when_they_are_sent() -> None:
    mux, pipe = recorded()
    channel = create(mux)
    message = channel.add_message(raw)
    channel.open()
    await settle()
    pipe.take()
    value = bytearray(b"abc")
    message.send(value)
    message.send(memoryview(b"0123")[1:3])
    value[:] = b"xyz"
    await settle()
    assert pipe.take() == [b"\0\0\1\4\0abc\3\x0012"]


async def test_a_cork_over_several_turns_holds_and_uncork_without_cork_raises() -> None:
    mux, pipe = recorded()
    channel = create(mux)
    with pytest.raises(UsageError):
        mux.uncork()
    channel.cork()
    channel.open()
    await settle()
    assert pipe.take() == []
    channel.uncork()
    with pytest.raises(UsageError):
        channel.uncork()
    await settle()
    assert pipe.take() == [FOO]


async def test_an_automatic_cork_ends_in_time_when_a_handler_does_not() -> None:
    pipe = RecordingPipe()
    mux = Muxer(pipe, Limits(auto_cork=0.01))
    forever = asyncio.Event()
    slow = create(mux, messages=[(uint, lambda value: forever.wait())])
    other = create(mux, "bar")
    message = other.add_message(string)
    slow.open()
    other.open()
    pipe.receive(FOO)
    pipe.take()
    pipe.receive(bytes.fromhex("0000 01 020001 020002"))
    message.send("held")
    await settle()
    assert pipe.take() == []
    pipe.written.clear()
    async with asyncio.timeout(5):
        await pipe.written.wait()
    assert pipe.take() == [bytes.fromhex("02000468656c64")]
    pipe.close()
    forever.set()
    await mux.wait_closed()


async def test_replies_of_asynchronous_handlers_leave_as_one_batch() -> None:
    mux, pipe = recorded()
    channel = create(mux)

    async def reply(value: int) -> None:
        await asyncio.sleep(0)
        echo.send(value)

    echo = channel.add_message(uint, reply)
    channel.open()
    pipe.receive(FOO)
    await settle()
    pipe.take()
    pipe.receive(bytes.fromhex("0000 01 020001 020002 020003"))
    await settle(20)
    assert pipe.take() == [bytes.fromhex("000001020001020002020003")]


async def test_an_entry_that_would_make_a_batch_too_long_for_a_frame_goes_into_the_next() -> None:
    pipe = RecordingPipe()
    mux = Muxer(pipe, Limits(max_frame=200_000, max_batch=150_000))
    channel = create(mux)
    message = channel.add_message(buffer)
    channel.open()
    mux.cork()
    message.send(bytes(120_000))
    message.send(bytes(120_000))
    with pytest.raises(EncodeError):
        message.send(bytes(200_000))
    mux.uncork()
    await settle()
    assert [len(frame) > 120_000 for frame in pipe.take()] == [True, True]


@pytest.mark.parametrize(
    ("codec", "values"),
    [
        (raw, [b"", b"x", b"y" * 239, b"z" * 240, b"a" * 252, b"b" * 70_000]),
        (buffer, [b"", b"x", b"y" * 238, b"z" * 240, b"a" * 251, b"b" * 254, b"c" * 70_000]),
        (string, ["", "x", "é" * 130, "z" * 252, "w" * 253, "v" * 70_000]),
        (uint, [0, 252, 253, 1 << 40]),
        (encoding.json, [{"a": [1, None, "x"]}]),
    ],
    ids=["raw", "buffer", "string", "uint", "json"],
)
@pytest.mark.parametrize("kind", [0, 300])
async def test_values_of_every_size_arrive(codec: Any, values: list[Any], kind: int) -> None:
    left, right = muxers()
    first, second = create(left), create(right)
    for channel in (first, second):
        for _ in range(kind):
            channel.reserve_message()
    seen: list[Any] = []
    message: Message[Any] = first.add_message(codec)
    second.add_message(codec, seen.append)
    first.open()
    second.open()
    for value in values:
        message.send(value)
        await settle(3)
    for value in values:
        message.send(value)
    await settle()
    assert seen == values + values


@pytest.mark.parametrize("value", ["text", 5, None, [1]])
async def test_a_value_that_does_not_fit_its_codec_raises_and_harms_nothing(value: Any) -> None:
    mux, pipe = recorded()
    channel = create(mux)
    messages: list[Message[Any]] = [channel.add_message(codec) for codec in (raw, buffer)]
    channel.open()
    await settle()
    pipe.take()
    for message in messages:
        with pytest.raises(EncodeError):
            message.send(value)
    with pytest.raises(EncodeError):
        channel.add_message(uint).send(-1)
    await settle()
    assert pipe.take() == []
