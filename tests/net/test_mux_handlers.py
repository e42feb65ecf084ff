# ruff: noqa: A002
"""Asynchronous handlers, failing callbacks, and channels that fall behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from covey.errors import ClosedError, CoveyError, LimitError, ProtocolError, UsageError
from covey.limits import Limits
from covey.net.mux import Channel, Muxer
from covey.wire import encoding
from covey.wire.encoding import raw, uint
from covey.wire.numeric import FixedUintCodec
from tests.net.mux_pipes import (
    FOO,
    RecordingPipe,
    create,
    muxers,
    opened_pair,
    recorded,
    settle,
)


async def test_a_slow_handler_stalls_its_own_channel_and_no_other() -> None:
    mux, pipe = recorded()
    seen: list[Any] = []
    gate = asyncio.Event()

    async def slow(value: int) -> None:
        seen.append(("begin", value))
        await gate.wait()
        seen.append(("end", value))

    create(mux, messages=[(uint, slow), (uint, seen.append)]).open()
    create(mux, "bar", messages=[(uint, seen.append)]).open()
    pipe.receive(FOO, bytes.fromhex("0001020362617200"))
    pipe.receive(b"\1\0\1", b"\1\1\2", b"\1\0\3", b"\2\0\4")
    await settle()
    assert seen == [4, ("begin", 1)]
    gate.set()
    await settle()
    assert seen[2:] == [("end", 1), 2, ("begin", 3), ("end", 3)]
    pipe.receive(b"\1\1\5")
    assert seen[-1] == 5


async def test_overlapping_handlers_begin_when_their_messages_arrive() -> None:
    mux, pipe = recorded()
    seen: list[Any] = []
    gate = asyncio.Event()

    async def slow(value: int) -> None:
        seen.append(value)
        await gate.wait()

    create(mux, messages=[(uint, slow)], ordered=False).open()
    pipe.receive(FOO, b"\1\0\1", b"\1\0\2", b"\1\0\3")
    await settle()
    assert seen == [1, 2, 3]
    gate.set()
    await mux.wait_closed()


async def test_messages_wait_for_an_asynchronous_on_open() -> None:
    mux, pipe = recorded()
    seen: list[Any] = []
    gate = asyncio.Event()

    async def check(handshake: Any, channel: Channel) -> None:
        await gate.wait()
        channel.close()

    create(mux, messages=[(uint, seen.append)], on_open=check).open()
    pipe.receive(FOO, b"\1\0\1")
    gate.set()
    await settle()
    assert seen == []
    assert mux.is_idle


async def test_what_came_before_a_remote_close_is_still_handled_then_on_close() -> None:
    mux, pipe = recorded()
    seen: list[Any] = []

    async def slow(value: int) -> None:
        await asyncio.sleep(0)
        seen.append(value)

    channel = create(
        mux,
        messages=[(uint, slow)],
        on_close=lambda remote, _: seen.append(("close", remote)),
        on_destroy=lambda _: seen.append("destroy"),
    )
    channel.open()
    pipe.receive(FOO, b"\1\0\1", b"\1\0\2", bytes.fromhex("000301"))
    assert channel.closed
    async with asyncio.timeout(5):
        await channel.fully_closed()
    assert seen == [1, 2, ("close", True), "destroy"]


async def test_a_clean_end_of_the_pipe_lets_handlers_finish_an_error_cancels_them() -> None:
    for error, expected in ((None, [1, 2]), (CoveyError("cut"), [])):
        mux, pipe = recorded()
        seen: list[int] = []

        async def slow(value: int, seen: list[int] = seen) -> None:
            await asyncio.sleep(0)
            seen.append(value)

        create(mux, messages=[(uint, slow)]).open()
        pipe.receive(FOO, b"\1\0\1", b"\1\0\2")
        pipe.close(error)
        async with asyncio.timeout(5):
            await mux.wait_closed()
        assert seen == expected
        assert not mux._tasks
        assert not mux._channels


@pytest.mark.parametrize("later", [False, True])
async def test_a_handler_that_fails_ends_this_stream_with_the_reason(
    later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    left, right = muxers()
    bystander, _ = await opened_pair(*muxers())
    first, second = create(left), create(right)
    message = first.add_message(uint)

    def fail(value: int) -> Any:
        async def fail_later() -> None:
            await asyncio.sleep(0)
            raise ZeroDivisionError("oh")

        if later:
            return fail_later()
        raise ZeroDivisionError("oh")

    second.add_message(uint, fail)
    first.open()
    second.open()
    message.send(1)
    async with asyncio.timeout(5):
        await first.fully_closed()
        await second.fully_closed()
    assert isinstance(second.error, CoveyError)
    assert isinstance(second.error.__cause__, ZeroDivisionError)
    assert "failed" in caplog.text
    assert bystander.opened


@pytest.mark.parametrize("which", ["on_open", "on_close", "pair", "pair_later", "on_drain"])
async def test_every_callback_that_fails_ends_the_stream_only(which: str) -> None:
    mux, pipe = recorded()

    def fail(*_: Any) -> Any:
        raise ValueError("oh")

    async def fail_later(*_: Any) -> None:
        raise ValueError("oh")

    if which.startswith("pair"):
        mux.pair("foo", fail if which == "pair" else fail_later)
        pipe.receive(FOO)
    else:
        options: dict[str, Any] = {which: fail}
        channel = create(mux, **options)
        channel.open()
        pipe.receive(FOO)
        if which == "on_close":
            channel.close()
        elif which == "on_drain":
            mux.writable()
    await settle()
    assert (pipe.error is None) == (which == "on_close")


async def test_an_application_codec_that_raises_anything_ends_the_stream_only() -> None:
    class Odd(encoding.Codec[Any]):
        def decode_from(self, reader: encoding.Reader) -> Any:
            raise KeyError("odd")

        def encode_into(self, out: bytearray, value: Any) -> None:
            raise KeyError("odd")

    mux, pipe = recorded()
    create(mux, messages=[(Odd(), print)]).open()
    pipe.receive(FOO, b"\1\0\1")
    assert "does not decode" in str(pipe.error)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("error", [UsageError("a bug"), LimitError("x", limit="l", allowed=1)])
async def test_an_error_of_covey_in_a_handler_is_a_bug_too_and_logged_with_its_traceback(
    later: bool, error: CoveyError, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> Any:
        async def fail_later() -> None:
            raise error

        if later:
            return fail_later()
        raise error

    mux, pipe = recorded()
    create(mux, messages=[(uint, fail)]).open()
    pipe.receive(FOO, b"\1\0\1")
    await settle()
    assert type(pipe.error) is CoveyError
    assert pipe.error.__cause__ is error
    assert "in fail" in caplog.text


@pytest.mark.parametrize("queued", [False, True])
@pytest.mark.parametrize("error", [ClosedError("gone"), ProtocolError("what nonsense")])
async def test_the_fault_of_the_remote_and_the_end_of_something_pass_as_they_are_unlogged(
    queued: bool, error: CoveyError, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> None:
        raise error

    async def wait(_: int) -> None:
        await asyncio.sleep(0)

    mux, pipe = recorded()
    create(mux, messages=[(uint, fail), (uint, wait)]).open()
    pipe.receive(FOO, *([b"\1\1\1"] if queued else []), b"\1\0\1")
    await settle()
    assert pipe.error is error
    assert caplog.text == ""


@pytest.mark.parametrize("what", ["message", "queued", "handshake"])
async def test_a_bug_in_a_codec_of_covey_is_logged_and_not_blamed_on_the_remote(
    what: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def decode_badly(_: encoding.Reader) -> int:
        raise IndexError("a bug of ours")

    async def wait(_: bytes) -> None:
        await asyncio.sleep(0)

    broken = FixedUintCodec(2)
    monkeypatch.setattr(FixedUintCodec, "decode_from", lambda _, reader: decode_badly(reader))
    mux, pipe = recorded()
    handshake = broken if what == "handshake" else None
    create(mux, messages=[(broken, print), (encoding.raw, wait)], handshake=handshake).open(1)
    pipe.receive(FOO)
    if what != "handshake":
        pipe.receive(*([b"\1\1\1"] if what == "queued" else []), b"\1\0\1\1")
    await settle()
    assert pipe.error is not None
    assert not isinstance(pipe.error, ProtocolError)
    assert isinstance(pipe.error.__cause__, IndexError)
    assert "in decode_badly" in caplog.text


async def test_on_message_may_be_replaced_at_any_time() -> None:
    mux, pipe = recorded()
    channel = create(mux)
    seen: list[Any] = []
    message = channel.add_message(uint)
    channel.open()
    pipe.receive(FOO, b"\1\0\1")
    message.on_message = seen.append
    pipe.receive(b"\1\0\2")
    assert seen == [2]


async def test_a_channel_whose_handler_falls_behind_is_closed_with_the_reason() -> None:
    pipe = RecordingPipe()
    mux = Muxer(pipe, Limits(channel_backlog=10_000))
    forever = asyncio.Event()
    slow = create(mux, messages=[(raw, lambda value: forever.wait())])
    other = create(mux, "bar")
    slow.open()
    other.open()
    pipe.receive(FOO, bytes.fromhex("0001020362617200"))
    for _ in range(200):
        pipe.receive(b"\1\0" + bytes(100))
    assert slow.closed
    assert isinstance(slow.error, LimitError)
    assert slow.error.limit == "channel_backlog"
    assert other.opened
    assert pipe.error is None
    forever.set()
    await slow.fully_closed()


async def test_a_bulk_channel_pauses_the_stream_instead() -> None:
    events: list[tuple[Any, ...]] = []
    pipe = RecordingPipe(lambda *event: events.append(event))
    mux = Muxer(pipe, Limits(channel_backlog=10_000))
    gate = asyncio.Semaphore(0)
    seen: list[bytes] = []

    async def slow(value: bytes) -> None:
        seen.append(value)
        await gate.acquire()

    channel = create(mux, messages=[(raw, slow)], backpressure=True)
    channel.open()
    pipe.receive(FOO)
    for _ in range(100):
        pipe.receive(b"\1\0" + bytes(100))
    assert not channel.closed
    assert events == [("stream_pause",)]
    for _ in range(101):
        gate.release()
    await settle(200)
    assert len(seen) == 100
    assert events == [("stream_pause",), ("stream_resume",)]


async def test_a_paused_bulk_channel_that_closes_lets_the_stream_go_on() -> None:
    events: list[tuple[Any, ...]] = []
    pipe = RecordingPipe(lambda *event: events.append(event))
    mux = Muxer(pipe, Limits(channel_backlog=1000))
    forever = asyncio.Event()
    channel = create(mux, messages=[(raw, lambda value: forever.wait())], backpressure=True)
    channel.open()
    pipe.receive(FOO)
    for _ in range(100):
        pipe.receive(b"\1\0" + bytes(100))
    channel.close()
    assert events == [("stream_pause",), ("stream_resume",)]
    forever.set()
    await channel.fully_closed()


async def test_a_pair_callback_that_never_ends_is_cancelled_and_the_open_rejected() -> None:
    pipe = RecordingPipe()
    mux = Muxer(pipe, Limits(pair_timeout=0.01))
    ended = asyncio.Event()

    async def never(id: bytes | None) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    mux.pair("foo", never)
    pipe.receive(FOO)
    async with asyncio.timeout(5):
        await ended.wait()
        await mux.wait_closed()
    assert pipe.take() == [bytes.fromhex("000201")]
    assert pipe.error is None
    assert not mux._tasks


async def test_no_task_is_made_for_plain_handlers_and_no_reference_is_left() -> None:
    left, right = muxers()
    first, _ = await opened_pair(left, right, messages=[(raw, len)])
    tasks = asyncio.all_tasks()
    for _ in range(100):
        assert first.messages[0] is not None
        first.messages[0].send(b"x")
    await settle()
    assert asyncio.all_tasks() == tasks
    first.close()
    await settle()
    assert not left._channels
    assert not right._channels


async def test_the_remote_end_writes_what_is_collected_and_ends_ours() -> None:
    events: list[tuple[Any, ...]] = []
    pipe = RecordingPipe(lambda *event: events.append(event))
    mux = Muxer(pipe)
    create(mux).open()
    mux.pipe_ended()
    assert pipe.take() == [FOO]
    assert events == [("stream_end_called",)]


async def test_a_close_in_an_asynchronous_handler_stops_what_waits_in_its_queue() -> None:
    mux, pipe = recorded()
    seen: list[int] = []
    channel = create(mux)

    async def slow(value: int) -> None:
        await asyncio.sleep(0)
        seen.append(value)
        if value == 2:
            channel.close()

    channel.add_message(uint, slow)
    channel.open()
    pipe.receive(FOO, bytes.fromhex("0000 01 020001 020002 020003 020004"))
    async with asyncio.timeout(5):
        await channel.fully_closed()
    assert seen == [1, 2]
