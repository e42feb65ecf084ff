"""Floods and frames made to hurt: memory stays bounded, only the offender's stream ends."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from covey.errors import ClosedError, LimitError, ProtocolError
from covey.limits import Limits
from covey.net import mux_intake
from covey.net.mux import Channel, Muxer
from covey.wire.encoding import encode_uint, raw, uint
from tests.net.mux_pipes import (
    FOO,
    RecordingPipe,
    create,
    handled,
    muxers,
    pipe_of,
    recorded,
    settle,
)
from tests.waiting import until


@contextmanager
def growth_below(limit: int) -> Iterator[None]:
    """What the block leaves allocated, and its peak, stay below `limit` bytes."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def open_frame(number: int, name: bytes) -> bytes:
    return b"\0\1" + encode_uint(number) + encode_uint(len(name)) + name + b"\0"


async def test_a_flood_of_opens_that_nobody_wants_leaves_nothing() -> None:
    mux, pipe = recorded()
    with growth_below(1_000_000):
        for number in range(1, 20_001):
            pipe.receive(open_frame(number, b"name%d" % number))
            assert pipe.take() == [b"\0\2" + encode_uint(number)]
    assert pipe.error is None
    assert mux.is_idle


async def test_a_flood_of_opens_while_pair_callbacks_wait_is_rejected_beyond_the_limit() -> None:
    mux, pipe = recorded()
    gate = asyncio.Event()
    asked: list[bytes | None] = []

    async def wait(name: bytes | None) -> None:
        asked.append(name)
        await gate.wait()

    mux.pair("foo", wait)
    for number in range(1, 10_001):
        pipe.receive(open_frame(number, b"foo"))
    await settle()
    assert len(mux._tasks) == len(asked) == Limits().max_pairing
    assert len(pipe.take()) == 10_000 - Limits().max_pairing
    gate.set()
    await mux.wait_closed()
    assert len(pipe.take()) <= Limits().max_pairing
    assert not mux.core._remote
    assert pipe.error is None


async def test_a_peer_that_floods_opens_and_never_reads_is_cut() -> None:
    pipe = RecordingPipe()
    pipe.full = True
    Muxer(pipe, Limits(max_channels=1000))
    for number in range(1, 2000):
        if pipe.error is None:
            pipe.receive(open_frame(number, b"foo"))
    assert isinstance(pipe.error, ProtocolError)
    assert len(pipe.wire) <= 1001


async def test_messages_to_unknown_channels_cost_nothing() -> None:
    _, pipe = recorded()
    with growth_below(500_000):
        for number in range(1, 20_000):
            pipe.receive(encode_uint(number) + b"\0" + bytes(100))
            pipe.receive(b"\0\3" + encode_uint(number))
    assert pipe.take() == []
    assert pipe.error is None


async def test_ten_thousand_of_our_opens_that_nobody_answers_end_with_the_pipe() -> None:
    mux, pipe = recorded()
    closed: list[bool] = []
    for number in range(10_000):
        create(mux, f"p{number}", on_close=lambda remote, _: closed.append(remote)).open()
    await settle()
    assert len(pipe.take()) == 1
    pipe.close()
    assert closed == [True] * 10_000
    assert not mux._channels


@pytest.mark.parametrize("depth", [2, 30_000])
async def test_nested_batches_end_the_stream(depth: int) -> None:
    _, pipe = recorded()
    pipe.receive(b"\0" + b"\0\0\xfe\xff\xff\xff\0" * depth)
    assert isinstance(pipe.error, ProtocolError)


async def test_a_batch_of_many_tiny_messages_takes_little_memory() -> None:
    mux, pipe = recorded()
    count = 0

    def received(_: bytes) -> None:
        nonlocal count
        count += 1

    create(mux, messages=[(raw, received)]).open()
    pipe.receive(FOO)
    batch = b"\0\0\1" + b"\1\0" * 400_000
    with growth_below(1_000_000):
        pipe.receive(batch)
        await handled(mux)
    assert count == 400_000


async def test_a_batch_for_a_pairing_channel_is_kept_in_its_own_size() -> None:
    mux, pipe = recorded()
    gate = asyncio.Event()
    mux.pair("foo", lambda _: gate.wait())
    pipe.receive(FOO)
    batch = b"\0\0\1" + b"\2\0x" * 300_000
    with growth_below(3 * len(batch)):
        pipe.receive(batch)
    gate.set()
    await mux.wait_closed()
    await handled(mux)
    assert not mux.core.paused


async def test_a_slow_handler_flooded_in_one_batch_closes_its_channel_only() -> None:
    pipe = RecordingPipe()
    mux = Muxer(pipe, Limits(channel_backlog=1_000_000))
    forever = asyncio.Event()
    slow = create(mux, messages=[(uint, lambda _: forever.wait())])
    slow.open()
    pipe.receive(FOO)
    with growth_below(8_000_000):
        pipe.receive(b"\0\0\1" + b"\2\0\7" * 300_000)
        await handled(mux)
    assert slow.closed
    assert pipe.error is None
    forever.set()
    await slow.fully_closed()


async def test_overlapping_handlers_are_bounded_too() -> None:
    pipe = RecordingPipe()
    mux = Muxer(pipe, Limits(channel_backlog=100_000))
    forever = asyncio.Event()
    slow = create(mux, messages=[(raw, lambda _: forever.wait())], ordered=False)
    slow.open()
    pipe.receive(FOO)
    for _ in range(2000):
        pipe.receive(b"\1\0" + bytes(1000))
    assert slow.closed
    assert pipe.error is None
    forever.set()
    await slow.fully_closed()
    await mux.wait_closed()


async def test_handlers_of_many_channels_share_one_backlog() -> None:
    mux, pipe = recorded(Limits(mux_backlog=1_000_000, close_timeout=0.01))
    forever = asyncio.Event()
    mux.pair("foo", lambda name: create(mux, id=name, messages=[(raw, wait)]).open())

    async def wait(_: bytes) -> None:
        await forever.wait()

    for number in range(1, 61):
        pipe.receive(b"\0\1" + bytes([number]) + b"\3foo\1" + bytes([number]))
    await settle()
    channels = list(mux)
    assert len(channels) == 60
    with growth_below(2_500_000):
        for _ in range(100):
            for number in range(1, 61):
                pipe.receive(bytes([number]) + b"\0" + bytes(1000))
    errors = [channel.error for channel in channels if channel.closed]
    assert errors
    first = errors[0]
    assert isinstance(first, LimitError)
    assert first.limit == "mux_backlog"
    assert mux.backlog.bytes <= 1_000_000
    pipe.close(ProtocolError("enough"))
    async with asyncio.timeout(10):
        await mux.wait_closed()
    assert mux.backlog.bytes == 0


async def test_the_channel_that_keeps_most_goes_first_and_one_with_backpressure_waits() -> None:
    events: list[tuple[object, ...]] = []
    pipe = RecordingPipe(lambda *event: events.append(event))
    mux = Muxer(pipe, Limits(mux_backlog=20_000))
    gate = asyncio.Event()
    small = create(mux, messages=[(raw, lambda _: gate.wait())])
    big = create(mux, "bar", messages=[(raw, lambda _: gate.wait())], backpressure=True)
    small.open()
    big.open()
    pipe.receive(FOO, bytes.fromhex("0001020362617200"), b"\1\0" + bytes(1000))
    for _ in range(30):
        pipe.receive(b"\2\0" + bytes(1000))
    assert small.opened
    assert big.opened
    assert events == [("stream_pause",)]
    gate.set()
    await settle(100)
    assert events == [("stream_pause",), ("stream_resume",)]
    assert mux.backlog.bytes == 0


async def test_handlers_of_closed_channels_count_on_and_end_in_time() -> None:
    limits = Limits(max_channels=50, close_timeout=0.05)
    mux, pipe = recorded(limits)
    ended = 0

    async def stuck(_: bytes) -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1

    mux.pair("foo", lambda _: create(mux, messages=[(raw, stuck)]).open())
    for _ in range(200):  # open, a message, close
        pipe.receive(FOO)
        await settle(3)
        pipe.receive(b"\1\0x", b"\0\3\1")
    assert len(mux._tasks) == len(mux._channels) == limits.max_channels
    assert bytes.fromhex("000201") in pipe.take()
    assert pipe.error is None
    async with asyncio.timeout(10):
        await mux.wait_closed()
    assert ended == 50
    assert not mux._channels
    assert mux.core.lingering == 0
    assert mux.backlog.bytes == 0


async def test_handlers_of_closed_channels_that_keep_too_much_end_the_stream() -> None:
    mux, pipe = recorded(Limits(mux_backlog=100_000, close_timeout=0.05))
    mux.pair("foo", lambda _: create(mux, messages=[(raw, stuck)]).open())

    async def stuck(_: bytes) -> None:
        await asyncio.Event().wait()

    for _ in range(20):
        pipe.receive(FOO)
        await settle(3)
        pipe.receive(b"\1\0" + bytes(10_000), b"\0\3\1")
    assert isinstance(pipe.error, ProtocolError)
    async with asyncio.timeout(10):
        await mux.wait_closed()
    assert mux.backlog.bytes == 0


class Looks:
    """Counts how often a property of any channel is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        self.count = 0
        for name in names:
            monkeypatch.setattr(Channel, name, property(self._counting(getattr(Channel, name))))

    def _counting(self, original: Any) -> Callable[[Channel], Any]:
        def look(channel: Channel) -> Any:
            self.count += 1
            return original.fget(channel)

        return look


async def test_channels_that_keep_too_much_are_not_all_looked_at_for_each_message(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mux, pipe = recorded(Limits(mux_backlog=1_600_000, close_timeout=0.01))
    mux.pair("foo", lambda name: create(mux, id=name, messages=[(raw, wait)]).open())
    forever = asyncio.Event()

    async def wait(_: bytes) -> None:
        await forever.wait()

    for number in range(1, 101):
        pipe.receive(b"\0\1" + bytes([number]) + b"\3foo\1" + bytes([number]))
    await settle()
    channels = list(mux)
    looks = Looks(monkeypatch, "kept")
    for _ in range(30):
        for number in range(1, 101):
            pipe.receive(bytes([number]) + b"\0" + bytes(1000))
    closed = sum(channel.closed for channel in channels)
    assert 10 < closed < 90
    assert 0 < looks.count < 1_500
    assert mux.backlog.bytes <= 1_600_000
    pipe.close(ProtocolError("enough"))
    await mux.wait_closed()


async def test_channels_are_not_looked_at_again_while_one_pauses_the_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mux, pipe = recorded(Limits(mux_backlog=20_000, read_backlog=1 << 20))
    gate = asyncio.Event()
    big = create(mux, messages=[(raw, lambda _: gate.wait())], backpressure=True)
    big.open()
    pipe.receive(FOO)
    looks = Looks(monkeypatch, "kept")
    pipe.receive(*[b"\1\0" + bytes(1000)] * 100)
    assert mux.backlog.bytes > 20_000
    assert looks.count == 1
    gate.set()
    await settle(200)
    assert mux.backlog.bytes == 0
    gate.clear()  # it goes on afterwards, and is looked at again
    pipe.receive(*[b"\1\0" + bytes(1000)] * 100)
    assert looks.count == 2
    gate.set()
    await settle(200)


async def test_closed_channels_whose_handlers_run_are_not_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mux, pipe = recorded(Limits(mux_backlog=400_000, close_timeout=0.05))
    mux.pair("foo", lambda _: create(mux, messages=[(raw, stuck)]).open())

    async def stuck(_: bytes) -> None:
        await asyncio.Event().wait()

    for _ in range(100):
        pipe.receive(FOO)
        await settle(3)
        pipe.receive(b"\1\0x", b"\0\3\1")
    assert len(mux._channels) == 100
    pipe.receive(FOO)
    await settle(3)
    looks = Looks(monkeypatch, "kept", "closed")
    pipe.receive(*[b"\1\0" + bytes(10_000)] * 40)
    assert 0 < looks.count < 20
    assert pipe.error is None
    await mux.wait_closed()


class Counted(dict[Any, Any]):
    """Counts the entries that are gone through."""

    count = 0

    def __iter__(self) -> Iterator[Any]:
        for key in super().__iter__():
            self.count += 1
            yield key

    def items(self) -> Any:
        return [(key, self[key]) for key in self]

    def values(self) -> Any:
        return [self[key] for key in self]


@pytest.mark.parametrize("how", ["cut", "closes"])
async def test_the_senders_of_other_channels_are_not_looked_at_when_one_closes(how: str) -> None:
    mux, pipe = recorded()
    pipe.full = True
    mux.pair("foo", lambda name: create(mux, id=name).open())
    for number in range(1, 101):
        pipe.receive(b"\0\1" + bytes([number]) + b"\3foo\1" + bytes([number]))
    await settle()
    senders = [asyncio.create_task(channel.drain()) for channel in mux for _ in range(2)]
    await settle()
    mux._writers = counted = Counted(mux._writers)
    if how == "cut":
        pipe.close(ProtocolError("cut"))
    else:
        pipe.receive(*[b"\0\3" + bytes([number]) for number in range(1, 101)])
    ends = await asyncio.gather(*senders, return_exceptions=True)
    assert len(ends) == 200
    assert all(isinstance(end, ClosedError) for end in ends)
    assert counted.count == 0
    assert not mux._writers


async def test_a_peer_makes_us_warn_once(caplog: pytest.LogCaptureFixture) -> None:
    mux, pipe = recorded(Limits(channel_backlog=1000, close_timeout=0.01))
    mux.pair("foo", lambda _: create(mux, messages=[(raw, lambda _: stuck.wait())]).open())
    stuck = asyncio.Event()
    for _ in range(10):
        pipe.receive(FOO)
        await settle(3)
        pipe.receive(b"\1\0", b"\1\0" + bytes(2000), b"\0\3\1")
    assert caplog.text.count("it is closed") == 1
    async with asyncio.timeout(10):
        await mux.wait_closed()


ENTRIES = 100_000
SHAPES = {
    "tiny messages": b"\1" + b"\1\0" * ENTRIES,
    "messages that alternate with switches": b"\1" + b"\1\0\0\1" * ENTRIES,
    "switches": b"\1" + b"\0\1" * ENTRIES,
    "closes of unknown channels": b"\0" + b"\2\3\7" * ENTRIES,
    "messages to an unknown channel": b"\5" + b"\1\0" * ENTRIES,
    "messages of an unknown type": b"\1" + b"\1\7" * ENTRIES,
    "opens and closes": b"\0" + b"\5\1\2\1x\0\2\3\2" * 1000,
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_frame_of_countless_entries_lets_others_have_their_turns(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mux_intake, "SHARE", 0.0)  # every look at the clock ends the turn
    told: list[str] = []
    pipe = RecordingPipe(lambda what, *_: told.append(what))
    mux = Muxer(pipe)
    seen: list[bytes] = []
    create(mux, messages=[(raw, seen.append)]).open()
    pipe.receive(FOO)
    turns = 0
    pipe.receive(b"\0\0" + SHAPES[shape], b"\1\0last")
    while mux._intake.waiting:
        assert told[-1] == "stream_pause"
        before = len(seen)
        await asyncio.sleep(0)
        assert len(seen) - before <= 2048
        turns += 1
    entries = 2000 if shape == "opens and closes" else ENTRIES
    assert turns >= entries // 2048
    assert seen[-1] == b"last"  # nothing overtakes
    assert told[-1] == "stream_resume"
    assert pipe.error is None


async def test_a_frame_for_a_pairing_channel_waits_with_it_once_enough_is_kept() -> None:
    mux, pipe = recorded()
    gate = asyncio.Event()
    mux.pair("foo", lambda _: gate.wait())
    pipe.receive(FOO, b"\0\0\1" + b"\1\0" * 100_000)
    assert mux.core.paused
    assert mux.core._kept <= Limits().pairing_backlog + 2 * 1024 * 513
    assert mux._intake.waiting
    gate.set()
    await mux.wait_closed()
    await handled(mux)
    assert mux.core._kept == 0


async def test_what_waits_of_a_frame_is_dropped_with_the_stream() -> None:
    mux, pipe = recorded()
    seen: list[bytes] = []
    create(mux, messages=[(raw, seen.append)]).open()
    pipe.receive(FOO, b"\0\0\1" + b"\1\0" * 1_000_000)
    assert mux._intake.waiting
    pipe.close()
    count = len(seen)
    await settle()
    assert len(seen) == count


async def test_a_peer_that_asks_and_never_reads_is_not_read_either() -> None:
    limits = Limits(write_backlog=1000)
    told: list[str] = []
    pipe = RecordingPipe(lambda what, *_: told.append(what))
    mux = Muxer(pipe, limits)
    channel = create(mux)
    message = channel.add_message(raw)
    message.on_message = message.send
    channel.open()
    pipe.receive(FOO)
    pipe.full = True
    async with asyncio.timeout(10):
        while mux._outflow._answers <= mux_intake.MOST * limits.write_backlog:
            await until(lambda: not told or told[-1] != "stream_pause")  # our patience is over
            pipe.receive(b"\1\0" + bytes(500))
    assert told.count("stream_pause") >= 2
    await asyncio.sleep(3 * mux_intake.PATIENCE)
    assert told[-1] == "stream_pause"  # and so it stays
    pipe.full = False
    mux.writable()
    assert told[-1] == "stream_resume"
    pipe.close()


async def test_two_sides_that_answer_everything_with_more_finish(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mux_intake, "PATIENCE", 0.0001)
    left, right = muxers(Limits(write_backlog=1000), high=4)
    for mux in (left, right):
        pipe_of(mux).group = lambda: 4
    count = 500
    heard = {left: 0, right: 0}
    done = asyncio.Event()

    def serve(mux: Muxer) -> Channel:
        channel = create(mux)
        ask, answer = channel.add_message(raw), channel.add_message(raw)

        def answered(_: bytes) -> None:
            heard[mux] += 1
            if min(heard.values()) == count:
                done.set()

        ask.on_message = answer.send
        answer.on_message = answered
        channel.open()
        return channel

    for channel in (serve(left), serve(right)):
        message = channel.messages[0]
        assert message is not None
        for _ in range(count):  # all at once, and nobody waits for anything
            message.send(bytes(1000))
    async with asyncio.timeout(30):
        await done.wait()
    pipe_of(left).end()


async def test_frames_after_the_stream_was_destroyed_are_ignored() -> None:
    mux, pipe = recorded()
    seen: list[bytes] = []
    create(mux, messages=[(raw, seen.append)]).open()
    pipe.receive(FOO, b"\1", b"\1\0late")
    pipe.receive(b"\1\0later")
    await settle()
    assert seen == []
    assert pipe.closed
