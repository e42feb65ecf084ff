"""Frames as we write them: batches, plain frames, and where they are split."""

from __future__ import annotations

import pytest

from covey.errors import EncodeError
from covey.wire.encoding import encode_uint
from covey.wire.protomux import Protomux
from covey.wire.protomux_channel import ChannelCore
from covey.wire.protomux_frames import Outbox


def opened(mux: Protomux) -> ChannelCore:
    channel = mux.create_channel("foo")
    assert channel is not None
    mux.open(channel)
    return channel


def wire(mux: Protomux) -> list[str]:
    return [bytes(frame).hex() for frame in mux.data_to_send()]


def send(mux: Protomux, channel: ChannelCore, payload: bytes) -> None:
    outbox = mux.outbox
    if outbox.channel != channel.wire_id:
        outbox.start(channel.wire_id)
    outbox.buffer += encode_uint(len(payload) + 1) + b"\0" + payload
    if len(outbox.buffer) >= outbox.limit:
        outbox.full()


def test_what_is_gathered_leaves_as_one_batch_and_a_single_message_as_a_plain_frame() -> None:
    mux = Protomux()
    channel = opened(mux)
    send(mux, channel, b"hi")
    assert wire(mux) == ["00000007010103666f6f000001" + "03006869"]
    send(mux, channel, b"hi")
    assert wire(mux) == ["01006869"]
    send(mux, channel, b"x" * 70_000)
    assert wire(mux) == ["0100" + "78" * 70_000]
    assert wire(mux) == []


def test_twenty_corked_mebibytes_leave_in_frames_of_the_reference() -> None:
    mux = Protomux(gather=False)
    channel = opened(mux)
    wire(mux)
    mux.outbox.cork()
    for _ in range(20):
        send(mux, channel, bytes(1 << 20))
    mux.outbox.uncork()
    assert [len(frame) for frame in mux.data_to_send()] == [8388659, 8388659, 4194331]


def test_gathered_batches_leave_when_they_are_large() -> None:
    mux = Protomux()
    channel = opened(mux)
    wire(mux)
    for _ in range(100):
        send(mux, channel, bytes(10_000))
    sizes = [len(frame) for frame in mux.data_to_send()]
    assert max(sizes) < 280_000
    assert sum(sizes) > 1_000_000


@pytest.mark.parametrize("channel", [1, 252, 253, 70_000])
@pytest.mark.parametrize("size", [0, 1, 251, 252, 70_000])
def test_a_batch_of_one_entry_becomes_the_plain_frame_of_it(channel: int, size: int) -> None:
    outbox = Outbox(gather=True, max_batch=1 << 20, max_frame=1 << 21)
    entry = b"\0" + bytes(size)
    for count in (1, 2):
        outbox.start(channel)
        for _ in range(count):
            outbox.buffer += encode_uint(len(entry)) + entry
        (frame,) = outbox.flush()
        if count == 1:
            assert frame == encode_uint(channel) + entry
        else:
            assert frame == b"\0\0" + encode_uint(channel) + (encode_uint(len(entry)) + entry) * 2


def test_an_entry_that_no_frame_takes_is_refused_and_one_that_fills_it_splits_the_batch() -> None:
    outbox = Outbox(gather=True, max_batch=1000, max_frame=2000)
    with pytest.raises(EncodeError):
        outbox.make_room(1990)
    outbox.start(1)
    outbox.buffer += encode_uint(901) + bytes(901)
    outbox.make_room(1500)
    assert not outbox.buffer
    assert len(outbox.flush()) == 1
