"""The short way of one small frame says and keeps what the general way does, or nothing at all."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from covey.errors import ProtocolError
from covey.limits import Limits
from covey.wire.cipher import (
    LONE_SIZE,
    FastOpener,
    FastSealer,
    Opener,
    PlainOpener,
    PlainSealer,
    Sealer,
)
from covey.wire.secret_stream import SecretStream
from covey.wire.session import MessagesReceived
from tests.wire.cipher_state import force_state, state_of
from tests.wire.stream_pair import flat, make_pair, open_pair, take

KEY, HEADER = bytes(range(32)), bytes(range(100, 124))


def content(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


def by_the_general_way(frame: bytes | bytearray, opener: Any) -> list[bytes]:
    messages: list[bytes] = []
    opener.open_frames(memoryview(frame), 0, messages)
    return messages


@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_every_small_message_is_sealed_and_opened_as_by_the_general_way(kind: Any) -> None:
    short, general = FastSealer(KEY, HEADER), FastSealer(KEY, HEADER)
    short_opener, general_opener = FastOpener(KEY, HEADER), FastOpener(KEY, HEADER)
    for size in (0, *range(1, 300), 1000, LONE_SIZE - 1, LONE_SIZE):
        message = content(size)
        frame = short.seal_lone(kind(message))
        assert frame is not None
        assert [frame] == [bytes(buffer) for buffer in general.seal([message])]
        assert state_of(short) == state_of(general)
        opened = short_opener.open_lone(memoryview(frame)) if size else None
        if opened is None:  # an empty message is a keep-alive, for the general way
            assert size == 0
            [opened] = by_the_general_way(frame, short_opener)
        assert [opened] == by_the_general_way(frame, general_opener) == [message]
        assert state_of(short_opener) == state_of(general_opener)


def test_a_counter_that_wraps_rekeys_on_the_short_way_too() -> None:
    sealer, opener = FastSealer(KEY, HEADER), FastOpener(KEY, HEADER)
    last = state_of(sealer)[:32] + b"\xff\xff\xff\xff" + state_of(sealer)[36:]
    force_state(sealer, last)
    force_state(opener, last)
    for _ in range(3):
        frame = sealer.seal_lone(b"hello")
        assert frame is not None
        assert opener.open_lone(memoryview(frame)) == b"hello"
    assert state_of(sealer) == state_of(opener)
    assert state_of(sealer)[:32] != last[:32]


@pytest.mark.parametrize("message", [memoryview(b"view"), content(LONE_SIZE + 1)])
def test_what_is_not_small_and_plain_is_not_sealed_on_the_short_way(message: Any) -> None:
    sealer = FastSealer(KEY, HEADER)
    before = state_of(sealer)
    assert sealer.seal_lone(message) is None
    assert state_of(sealer) == before


def test_the_short_way_opens_nothing_but_exactly_one_good_small_frame() -> None:
    sealer = FastSealer(KEY, HEADER)
    good = bytes(sealer.seal([b"good"])[0])
    more = bytes(sealer.seal([b"more"])[0])
    large = bytes(FastSealer(KEY, HEADER).seal([content(LONE_SIZE + 1)])[0])
    claims = [size.to_bytes(3, "little") + good[3:] for size in (20, 22, 0x10015, 0xFFFFFF)]
    damaged = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(len(good))]
    cut = [good[:size] for size in range(len(good))]
    opener = FastOpener(KEY, HEADER)
    before = state_of(opener)
    for data in (*claims, *damaged, *cut, good + more, good + b"\0", more, large):
        assert opener.open_lone(memoryview(data)) is None
        assert state_of(opener) == before
    assert opener.open_lone(memoryview(good)) == b"good"
    assert opener.open_lone(memoryview(good)) is None
    assert opener.open_lone(memoryview(more)) == b"more"


def test_without_pointers_there_is_no_short_way() -> None:
    sealer: Sealer = PlainSealer(KEY, HEADER)
    opener: Opener = PlainOpener(KEY, HEADER)
    assert sealer.seal_lone(b"message") is None
    [frame] = sealer.seal([b"message"])
    assert opener.open_lone(memoryview(frame)) is None
    assert by_the_general_way(frame, opener) == [b"message"]


def receive(stream: SecretStream, data: bytes, now: float, *, short: bool) -> list[object]:
    """What a shell does with one read, on the short way where there is one."""
    if short and (message := stream.receive_lone(memoryview(data), now)) is not None:
        return [message]
    try:
        return flat(stream.receive_data(data, now))
    except ProtocolError as error:
        return [*flat(stream.take_events()), str(error)]


def pieces(data: bytes, ends: list[int], dice: random.Random) -> list[bytes]:
    """`data` cut at frames' ends and elsewhere."""
    cuts = {end for end in ends if dice.random() < 0.8}
    cuts |= {dice.randrange(len(data)) for _ in range(dice.randrange(4))}
    bounds = [0, *sorted(cuts), len(data)]
    return [data[start:end] for start, end in pairwise(bounds) if end > start]


@pytest.mark.parametrize("seed", range(100))
def test_random_splits_and_damage_are_told_alike(seed: int) -> None:
    dice = random.Random(seed)
    limits = Limits(max_frame=dice.choice([200, 1 << 20]))
    left, right = open_pair(receiving=limits, deliver_empty=dice.random() < 0.3)
    twin_left, twin_right = open_pair(receiving=limits, deliver_empty=right.deliver_empty)
    stream, ends = bytearray(), []
    for _ in range(40):
        message = content(dice.choice([0, 1, 100, 100, 100, 183, 184, LONE_SIZE, LONE_SIZE + 1]))
        frame = left.seal_lone(message)
        if frame is None:
            left.send_messages([message])
            frame = take(left)
        twin_left.send_messages([message])
        assert take(twin_left) == frame
        stream += frame
        ends.append(len(stream))
    if dice.random() < 0.3:
        stream[dice.randrange(len(stream))] ^= 1
    told: list[list[object]] = [[], []]
    for now, data in enumerate(pieces(bytes(stream), ends, dice)):
        told[0] += receive(right, data, float(now), short=True)
        told[1] += receive(twin_right, data, float(now), short=False)
        assert right.next_timer() == twin_right.next_timer()
    assert told[0] == told[1]
    for name in ("bytes_read", "messages_read"):
        assert getattr(right, name) == getattr(twin_right, name)
    for name in ("bytes_written", "messages_written"):
        assert getattr(left, name) == getattr(twin_left, name)


def test_the_short_way_is_closed_until_the_stream_is_open() -> None:
    left, right = make_pair()
    assert left.seal_lone(b"early") is None
    first = take(left)
    assert right.receive_lone(memoryview(first), 0.0) is None
    right.receive_data(first, 0.0)
    left.receive_data(take(right), 0.0)
    assert left.seal_lone(b"before our header has left") is None
    header = take(left)
    left_frame = left.seal_lone(b"now")
    assert left_frame is not None
    assert right.receive_lone(memoryview(left_frame), 0.0) is None
    right.receive_data(header, 0.0)
    assert right.receive_lone(memoryview(left_frame), 0.0) == b"now"


def test_a_stream_that_failed_opens_nothing_more() -> None:
    left, right = open_pair()
    with pytest.raises(ProtocolError):
        right.receive_data(b"\1\0\0", 0.0)
    frame = left.seal_lone(b"late")
    assert frame is not None
    assert right.receive_lone(memoryview(frame), 0.0) is None


def test_a_lone_message_waits_for_events_not_taken_yet() -> None:
    left, right = open_pair()
    left.send_messages([b"one"])
    with pytest.raises(ProtocolError):
        right.receive_data(take(left) + b"\1\0\0", 0.0)
    assert right.take_events() == [MessagesReceived([b"one"])]


def test_a_keep_alive_counts_lone_messages_as_writes() -> None:
    left, _ = open_pair(limits=Limits(keep_alive=5, idle_timeout=0))
    assert left.seal_lone(b"busy") is not None
    left.handle_timer(5.0)
    assert take(left) == b""
    left.handle_timer(10.0)
    assert len(take(left)) == 20
