# ruff: noqa: A002
"""Two muxers joined in memory: the scenarios of the original's tests, and closing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from covey.errors import ClosedError, CoveyError, UsageError
from covey.net.mux import Channel, Message
from covey.wire.encoding import raw, string, uint
from tests.net.mux_pipes import (
    FOO,
    create,
    muxers,
    opened_pair,
    pipe_of,
    recorded,
    settle,
)

# Section 11: the scenarios of the original


async def test_both_open_and_a_message_arrives() -> None:
    left, right = muxers()
    seen: list[Any] = []
    first = create(left, on_open=lambda handshake, channel: seen.append((handshake, channel)))
    second = create(right)
    message = first.add_message(string)
    second.add_message(string, seen.append)
    first.open()
    second.open()
    message.send("hello world")
    await settle()
    assert (None, first) in seen
    assert seen[-1] == "hello world" or seen[0] == "hello world"


async def test_echo_is_not_disturbed_by_another_channel() -> None:
    left, right = muxers()
    await opened_pair(left, right, "other")
    first, second = create(left), create(right)
    seen: list[str] = []
    message = first.add_message(string, seen.append)
    echo = second.add_message(string, lambda value: echo.send("echo: " + value))
    first.open()
    second.open()
    message.send("hello world")
    await settle()
    assert seen == ["echo: hello world"]


async def test_fully_opened_is_false_when_only_one_side_has_it_then_true_for_both() -> None:
    left, right = muxers()
    lonely = create(left)
    lonely.open()
    async with asyncio.timeout(5):
        assert not await lonely.fully_opened()
        assert not await lonely.fully_opened()
        first, second = await opened_pair(left, right)
        first.close()
        await first.fully_closed()
        await second.fully_closed()
    assert second.closed


async def test_a_third_message_type_that_only_one_side_has_is_ignored() -> None:
    left, right = muxers()
    first, second = create(left), create(right)
    sent = [first.add_message(codec) for codec in (uint, string, string)]
    seen: list[Any] = []
    second.add_message(uint, seen.append)
    second.add_message(string, seen.append)
    first.open()
    second.open()
    sent[0].send(42)
    sent[1].send("a")
    sent[2].send("b")
    sent[1].send("c")
    await settle()
    assert seen == [42, "a", "c"]


async def test_corked_opens_and_messages_leave_as_one_frame() -> None:
    left, right = muxers()
    seen: list[Any] = []
    right.pair("a", lambda _: answer("a"))
    right.pair("b", lambda _: answer("b"))

    def answer(name: str) -> None:
        create(right, name, messages=[(string, seen.append)]).open()

    left.cork()
    for name in "ab":
        channel = create(left, name)
        message = channel.add_message(string)
        channel.open()
        message.send("hello " + name)
    left.uncork()
    await settle()
    assert pipe_of(left).frames_written == 1
    assert seen == ["hello a", "hello b"]


async def test_thirty_two_corked_mebibytes_arrive_in_frames_above_eight() -> None:
    left, right = muxers()
    first, second = create(left), create(right)
    message = first.add_message(raw)
    sizes: list[int] = []
    second.add_message(raw, lambda value: sizes.append(len(value)))
    first.open()
    second.open()
    first.cork()
    for _ in range(32):
        assert message.send(bytes(1 << 20))
    first.uncork()
    await settle()
    assert sizes == [1 << 20] * 32
    assert pipe_of(left).frames_written == 4


async def test_each_side_sees_the_handshake_of_the_other() -> None:
    left, right = muxers()
    first, second = create(left, handshake=string), create(right, handshake=string)
    first.open("from left")
    second.open("from right")
    await settle()
    assert (first.handshake, second.handshake) == ("from right", "from left")


@pytest.mark.parametrize("close", [False, True])
async def test_ten_channels_that_nobody_wants_close_ten_times(close: bool) -> None:
    left, _ = muxers()
    closed: list[bool] = []
    for number in range(10):
        name = f"p{number}"
        channel = create(left, name, on_close=lambda remote, channel: closed.append(remote))
        channel.open()
        if close:
            channel.close()
    await settle()
    assert closed == [not close] * 10
    assert left.is_idle


async def test_an_alias_matches_the_old_name() -> None:
    left, right = muxers()
    first, second = create(left, "new", aliases=["old"]), create(right, "old")
    first.open()
    second.open()
    async with asyncio.timeout(5):
        assert await first.fully_opened()


async def test_open_send_and_close_in_one_turn() -> None:
    left, right = muxers()
    seen: list[Any] = []
    second = create(
        right,
        messages=[(string, seen.append)],
        on_open=lambda *_: seen.append("open"),
        on_close=lambda remote, _: seen.append(("close", remote)),
    )
    second.open()
    told: list[Any] = []
    first = create(
        left,
        on_open=lambda *_: told.append("open"),
        on_close=lambda remote, _: told.append(("close", remote)),
    )
    message = first.add_message(string)
    first.open()
    message.send("hello")
    first.close()
    await settle()
    assert seen == ["open", "hello", ("close", True)]
    assert told == [("close", False)]
    assert left.is_idle
    assert right.is_idle


@pytest.mark.parametrize("delayed", [False, True])
async def test_open_send_and_close_in_one_turn_for_a_pair_callback(delayed: bool) -> None:
    left, right = muxers()
    seen: list[Any] = []

    def answer() -> None:
        create(
            right,
            messages=[(string, seen.append)],
            on_open=lambda *_: seen.append("open"),
            on_close=lambda remote, _: seen.append(("close", remote)),
        ).open()

    async def answer_later(id: bytes | None) -> None:
        await asyncio.sleep(0)
        answer()

    right.pair("foo", answer_later if delayed else lambda _: answer())
    first = create(left)
    message = first.add_message(string)
    first.open()
    message.send("hello")
    first.close()
    await settle(20)
    assert seen == ["open", "hello", ("close", True)]
    assert left.is_idle
    assert right.is_idle


async def test_sending_until_not_drained_ends_in_on_drain_with_the_channel() -> None:
    left, right = muxers(high=3)
    drains: list[Channel] = []
    first, second = create(left, on_drain=drains.append), create(right)
    message = first.add_message(raw)
    second.add_message(raw)
    first.open()
    second.open()
    await settle()
    sent = 0
    while message.send(bytes(1 << 18)):
        sent += 1
        assert sent < 100
    assert not first.drained
    async with asyncio.timeout(5):
        await first.drain()
    assert drains == [first]
    assert first.drained


async def test_empty_frames_are_no_errors() -> None:
    mux, pipe = recorded()
    pipe.receive(b"", b"", b"")
    assert not mux.destroyed


async def test_is_idle_is_true_then_false_while_open_then_true_in_on_close() -> None:
    left, right = muxers()
    idle: list[bool] = []
    first = create(left, on_close=lambda *_: idle.append(left.is_idle))
    second = create(right, on_close=lambda *_: idle.append(right.is_idle))
    assert left.is_idle
    first.open()
    second.open()
    await settle()
    assert not left.is_idle
    first.close()
    await settle()
    assert idle == [True, True]


async def test_the_id_of_a_pair_callback_is_a_copy() -> None:
    mux, pipe = recorded()
    ids: list[bytes | None] = []
    mux.pair("foo", ids.append)
    pipe.receive(bytes.fromhex("00010103666f6f04") + b"abcd")
    assert ids == [b"abcd"]
    assert type(ids[0]) is bytes


async def test_user_data_set_before_open_is_visible_in_on_open() -> None:
    left, right = muxers()
    seen: list[Any] = []

    def paired(id: bytes | None) -> None:
        channel = create(right, on_open=lambda _, channel: seen.append(channel.user_data))
        channel.open()
        channel.user_data = "mine"
        seen.append("returns")

    right.pair("foo", paired)
    create(left).open()
    await settle()
    assert seen == ["returns", "mine"]


async def test_on_open_runs_within_one_turn_after_the_pair_callback() -> None:
    mux, pipe = recorded()
    seen: list[str] = []
    mux.pair("foo", lambda _: create(mux, on_open=lambda *_: seen.append("open")).open())
    pipe.receive(FOO)
    assert seen == []
    await asyncio.sleep(0)
    assert seen == ["open"]


# Closing


async def test_sending_before_open_raises_and_after_close_returns_false() -> None:
    mux, _ = recorded()
    channel = create(mux)
    for codec in (raw, uint):
        message: Message[Any] = channel.add_message(codec)
        with pytest.raises(UsageError):
            message.send(b"" if codec is raw else 1)
    channel.open()
    channel.close()
    assert not message.send(1)
    with pytest.raises(ClosedError):
        await channel.drain()


async def test_a_close_in_on_open_of_a_paired_channel_stops_delivery() -> None:
    mux, pipe = recorded()
    seen: list[Any] = []
    mux.pair(
        "foo",
        lambda _: create(
            mux, messages=[(raw, seen.append)], on_open=lambda _, channel: channel.close()
        ).open(),
    )
    pipe.receive(FOO, b"\1\0one", b"\1\0two")
    await settle()
    assert seen == []
    assert pipe.wire[-1] == bytes.fromhex("000301")


async def test_a_close_in_a_handler_stops_the_rest_of_the_batch() -> None:
    mux, pipe = recorded()
    channel = create(mux)
    seen: list[Any] = []

    def received(value: int) -> None:
        seen.append(value)
        channel.close()

    channel.add_message(uint, received)
    channel.open()
    pipe.receive(FOO, bytes.fromhex("0000 01 020001 020002 020003"))
    assert seen == [1]


async def test_the_end_of_the_pipe_closes_every_channel_once_and_settles_every_wait() -> None:
    left, right = muxers(high=0)
    closed: list[bool] = []
    first, _ = await opened_pair(
        left, right, on_close=lambda remote, channel: closed.append(remote), messages=[raw]
    )
    waiting, unopened = create(left, "waiting"), create(left, "unopened")
    waiting.open()
    pipe_of(right).paused = True
    message = first.messages[0]
    assert message is not None
    while message.send(bytes(1 << 18)):
        pass
    waits = [
        asyncio.create_task(waiting.fully_opened()),
        asyncio.create_task(unopened.fully_opened()),
    ]
    drain = asyncio.create_task(first.drain())
    closes = asyncio.create_task(waiting.fully_closed())
    await settle()
    pipe_of(left).close(CoveyError("the cable was cut"))
    async with asyncio.timeout(5):
        assert [await wait for wait in waits] == [False, False]
        await closes
        with pytest.raises(ClosedError) as caught:
            await drain
    assert "cable" in str(caught.value.__cause__)
    pipe_of(left).close(None)
    assert closed == [True]
    assert first.destroyed
    with pytest.raises(ClosedError):
        left.create_channel("late")
    assert not left._tasks


async def test_destroy_aborts_the_pipe_with_its_reason_and_may_be_called_again() -> None:
    left, right = muxers()
    first, second = await opened_pair(left, right)
    left.destroy(CoveyError("enough"))
    left.destroy()
    async with asyncio.timeout(5):
        await first.fully_closed()
        await second.fully_closed()
    assert str(first.error) == "enough"
    with pytest.raises(ClosedError):
        left.create_channel("late")


async def test_a_channel_is_an_async_context() -> None:
    left, right = muxers()
    first, second = await opened_pair(left, right)
    async with first:
        pass
    assert first.destroyed
    await second.fully_closed()
    assert "foo" in repr(first)


async def test_iteration_gives_open_channels_and_get_last_channel_the_last() -> None:
    mux, _ = recorded()
    a, b = create(mux, "a"), create(mux, "b", id=b"1")
    assert list(mux) == []
    a.open()
    b.open()
    assert list(mux) == [a, b]
    assert mux.get_last_channel("b", b"1") is b
    assert mux.get_last_channel("b") is None
    assert mux.opened("b", b"1")
    b.close()
    assert list(mux) == [a]
    assert (b.id, b.protocol) == (b"1", "b")


@pytest.mark.parametrize("later", [False, True])
async def test_a_pair_callback_whose_channel_is_not_to_be_had_rejects_and_the_stream_goes_on(
    later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    mux, pipe = recorded()
    create(mux).open()
    pipe.receive(FOO)
    pipe.take()
    with pytest.raises(UsageError, match="open already"):
        mux.create_channel("foo")

    def paired(_: bytes | None) -> Any:
        async def make() -> None:
            await asyncio.sleep(0)
            mux.create_channel("foo").open()

        if later:
            return make()
        mux.create_channel("foo").open()
        return None

    mux.pair("foo", paired)
    pipe.receive(bytes.fromhex("00010203666f6f00"))
    await settle()
    assert pipe.take() == [bytes.fromhex("000202")]
    assert pipe.error is None
    assert not caplog.records


async def test_a_channel_that_the_remote_withdrew_is_not_made() -> None:
    mux, pipe = recorded()
    gate = asyncio.Event()

    async def paired(_: bytes | None) -> None:
        await gate.wait()
        with pytest.raises(ClosedError, match="any more"):
            mux.create_channel("foo")

    mux.pair("foo", paired)
    pipe.receive(FOO, bytes.fromhex("000301"))
    gate.set()
    await settle()
    assert pipe.error is None
