"""The sans-I/O muxer: names, numbers, pairing, kept messages, batches, time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from covey.errors import DecodeError, ProtocolError, UsageError
from covey.limits import Limits
from covey.wire.encoding import encode_uint
from covey.wire.protomux import Protomux
from covey.wire.protomux_channel import (
    BatchBegun,
    ChannelClosed,
    ChannelCore,
    ChannelMessages,
    ChannelOpened,
    MoreLeft,
    MuxEvent,
    PairRequested,
    PairTimedOut,
)
from covey.wire.protomux_names import NumberTable


def plain(limits: Limits | None = None) -> Protomux:
    return Protomux(limits=limits, gather=False)


def receive(mux: Protomux, data: str | bytes, now: float = 0.0) -> list[MuxEvent]:
    return list(mux.receive_frame(bytes.fromhex(data) if isinstance(data, str) else data, now))


def wire(mux: Protomux) -> list[str]:
    return [bytes(frame).hex() for frame in mux.data_to_send()]


def created(mux: Protomux, protocol: str = "foo", id: bytes | None = None) -> ChannelCore:  # noqa: A002
    channel = mux.create_channel(protocol, id=id)
    assert channel is not None
    return channel


def paired(mux: Protomux, frame: str = "00010103666f6f00", now: float = 0.0) -> PairRequested:
    (request,) = receive(mux, frame, now)
    assert isinstance(request, PairRequested)
    return request


def open_frame(remote_id: int, name: bytes = b"foo", handshake: bytes = b"") -> bytes:
    number = encode_uint(remote_id)
    return b"\0\1" + number + encode_uint(len(name)) + name + b"\0" + handshake


def messages(events: list[MuxEvent]) -> list[tuple[int, list[bytes]]]:
    return [(each.type, each.payloads) for each in events if isinstance(each, ChannelMessages)]


def kinds(events: list[MuxEvent]) -> list[type]:
    return [type(event) for event in events]


def test_consecutive_messages_of_one_type_are_one_event() -> None:
    mux = plain()
    mux.open(created(mux))
    receive(mux, "00010103666f6f00")
    events = receive(mux, "0000 01 020061 020062 020163 020064")
    assert kinds(events) == [BatchBegun, ChannelMessages, ChannelMessages, ChannelMessages]
    assert messages(events) == [(0, [b"a", b"b"]), (1, [b"c"]), (0, [b"d"])]


def test_events_come_one_by_one_so_that_the_rest_of_a_frame_sees_what_was_done() -> None:
    mux = plain()
    channel = created(mux)
    mux.open(channel)
    receive(mux, "00010103666f6f00")
    seen = []
    for event in mux.receive_frame(bytes.fromhex("0000 01 020061 020162 020063"), 0.0):
        seen.append(event)
        if isinstance(event, ChannelMessages):
            mux.close(channel)
    assert messages(seen) == [(0, [b"a"])]


def test_messages_before_the_damage_are_delivered() -> None:
    mux = plain()
    mux.open(created(mux))
    receive(mux, "00010103666f6f00")
    seen = []
    with pytest.raises(DecodeError):  # noqa: PT012
        for event in mux.receive_frame(bytes.fromhex("0000 01 020061 01fd"), 0.0):
            seen.append(event)
    assert messages(seen) == [(0, [b"a"])]


def test_a_batch_of_many_tiny_messages_comes_in_bounded_events() -> None:
    mux = plain()
    mux.open(created(mux))
    receive(mux, "00010103666f6f00")
    events = receive(mux, b"\0\0\1" + b"\1\0" * 5000)
    assert sum(len(payloads) for _, payloads in messages(events)) == 5000
    assert max(len(payloads) for _, payloads in messages(events)) <= 1024


def test_payloads_are_copies_that_keep_no_frame_alive() -> None:
    mux = plain()
    mux.open(created(mux))
    receive(mux, "00010103666f6f00")
    ((_, payloads),) = messages(receive(mux, b"\1\0" + b"x" * 50))
    assert type(payloads[0]) is bytes


# Section 8: the hardened rules


def test_a_nested_batch_is_refused() -> None:
    with pytest.raises(ProtocolError, match="batch within a batch"):
        receive(plain(), "00000006000103000161")


def test_thirty_thousand_nested_batches_are_refused_without_recursion() -> None:
    frame = b""
    for _ in range(30_000):
        frame = b"\0\0\0" + encode_uint(len(frame) + 1) + frame[: 1 << 16]
    with pytest.raises(ProtocolError):
        receive(plain(), frame)


@pytest.mark.parametrize("name", [b"x" * 256, b"x" * 70_000])
def test_a_protocol_name_that_is_too_long_is_refused(name: bytes) -> None:
    with pytest.raises(ProtocolError, match="protocol name"):
        receive(plain(), open_frame(1, name))


def test_a_channel_id_that_is_too_long_is_refused() -> None:
    with pytest.raises(ProtocolError, match="channel id"):
        receive(plain(), b"\0\1\1\3foo\xfd\0\1" + b"x" * 256)


def test_names_of_255_bytes_are_taken() -> None:
    mux = plain()
    assert receive(mux, b"\0\1\1\xfd\xff\0" + b"x" * 255 + b"\xfd\xff\0" + b"y" * 255) == []
    assert wire(mux) == ["000201"]


def test_our_own_names_are_held_to_the_same_bound() -> None:
    mux = plain()
    calls: list[Callable[[], object]] = [
        lambda: mux.create_channel("x" * 256),
        lambda: mux.create_channel("x", id=bytes(256)),
        lambda: mux.create_channel("x", aliases=("y" * 256,)),
        lambda: mux.pair("x" * 256, print),
    ]
    for call in calls:
        with pytest.raises(UsageError):
            call()


def test_opens_beyond_the_pairing_limit_are_rejected_at_once() -> None:
    mux = plain(Limits(max_pairing=3))
    mux.pair("foo", "callback")
    for number in range(1, 4):
        assert kinds(receive(mux, open_frame(number))) == [PairRequested]
    assert receive(mux, open_frame(4)) == []
    assert wire(mux) == ["000204"]


def test_live_remote_channels_are_bounded() -> None:
    mux = plain(Limits(max_channels=5, max_pairing=100))
    mux.pair("foo", "callback")
    for number in range(1, 6):
        request = paired(mux, open_frame(number).hex())
        channel = mux.create_channel("foo", unique=False)
        assert channel is not None
        assert mux.open(channel)
        assert kinds(list(mux.deliver(channel))) == [ChannelOpened]
        mux.pairing_done(request.request)
    wire(mux)
    assert receive(mux, open_frame(6)) == []
    assert wire(mux) == ["000206"]


def test_closed_remote_channels_leave_nothing_behind() -> None:
    mux = plain()
    for number in range(1, 3000):
        receive(mux, open_frame(number))
        wire(mux)
        mux.answers_taken()
    assert not mux._remote
    assert not mux._names
    assert not mux._deadlines


def test_a_peer_that_floods_opens_and_reads_no_answer_is_cut() -> None:
    mux = plain(Limits(max_channels=50))
    with pytest.raises(ProtocolError, match="reads no answers"):  # noqa: PT012
        for number in range(1, 100):
            receive(mux, open_frame(number))


def test_ten_thousand_of_our_opens_that_nobody_answers() -> None:
    mux = plain()
    channels = [created(mux, f"p{number}") for number in range(10_000)]
    for channel in channels:
        mux.open(channel)
    for channel in channels:
        mux.close(channel)
    assert not mux.is_idle
    for number in range(10_000, 0, -1):
        receive(mux, b"\0\2" + encode_uint(number))
    assert mux.is_idle
    assert not mux._names
    mux.open(created(mux))
    assert wire(mux)[-1] == "00010103666f6f00"


def test_uncork_without_cork_is_refused() -> None:
    with pytest.raises(UsageError):
        plain().outbox.uncork()


def test_a_batch_entry_that_runs_past_the_frame_is_clamped_also_when_it_is_kept() -> None:
    mux = plain()
    mux.pair("foo", "callback")
    request = paired(mux)
    receive(mux, "0000 01 2000aabb")
    channel = created(mux)
    mux.open(channel)
    assert messages(list(mux.deliver(channel))) == [(0, [b"\xaa\xbb"])]
    mux.pairing_done(request.request)


@pytest.mark.parametrize("frame", ["000100 03 666f6f 00", "000102 03 666f6f 00", "0001fd"])
def test_an_open_of_no_zero_or_skipped_number_is_refused(frame: str) -> None:
    with pytest.raises(ProtocolError):
        receive(plain(), frame)


def test_a_number_may_be_used_again_after_its_close() -> None:
    mux = plain()
    first = created(mux)
    mux.open(first)
    receive(mux, "00010103666f6f00")
    receive(mux, "000301")
    second = created(mux)
    mux.open(second)
    assert kinds(receive(mux, "00010103666f6f00")) == [ChannelOpened]


def test_kept_messages_count_512_bytes_and_their_payload_and_pause_the_stream() -> None:
    mux = plain(Limits(pairing_backlog=2048))
    mux.pair("foo", "callback")
    request = paired(mux)
    for _ in range(3):
        receive(mux, b"\1\0" + b"x" * 170)
    assert not mux.paused
    receive(mux, b"\1\0")
    assert mux.paused
    mux.pairing_done(request.request)
    assert not mux.paused
    assert wire(mux) == ["000201"]


def test_kept_messages_of_a_batch_take_no_more_than_their_bytes() -> None:
    mux = plain()
    mux.pair("foo", "callback")
    request = paired(mux)
    receive(mux, b"\0\0\1" + b"\1\0" * 100_000)
    assert mux.paused
    assert len(request.request.kept) == 200_000
    mux.pairing_done(request.request)
    assert not request.request.kept


def test_a_large_handshake_of_a_waiting_open_counts() -> None:
    mux = plain()
    mux.pair("foo", "callback")
    paired(mux, open_frame(1, handshake=bytes(40_000)).hex())
    assert mux.paused


def test_a_pair_callback_that_takes_too_long_ends_in_a_reject() -> None:
    mux = plain(Limits(pair_timeout=10.0))
    mux.pair("foo", "callback")
    request = paired(mux, now=100.0)
    assert mux.next_timer() == 110.0
    assert list(mux.handle_timer(109.9)) == []
    assert list(mux.handle_timer(110.0)) == [PairTimedOut(request.request)]
    assert wire(mux) == ["000201"]
    assert mux.next_timer() is None
    mux.pairing_done(request.request)
    assert wire(mux) == []


def test_a_channel_made_for_a_waiting_open_but_never_opened_is_given_up() -> None:
    mux = plain(Limits(pair_timeout=10.0))
    mux.pair("foo", "callback")
    request = paired(mux)
    channel = created(mux)
    mux.pairing_done(request.request)
    (event,) = mux.handle_timer(10.0)
    assert isinstance(event, ChannelClosed)
    assert event.channel is channel
    assert not event.remote
    assert wire(mux) == ["000201"]


def test_an_automatic_cork_ends_in_time_even_when_younger_ones_follow() -> None:
    mux = Protomux(limits=Limits(auto_cork=0.05))
    mux.open(created(mux))
    wire(mux)
    first = mux.hold(0.0)
    mux.hold(0.04)
    mux.close(mux.channels[0])
    assert wire(mux) == []
    assert mux.next_timer() == 0.05
    assert list(mux.handle_timer(0.05)) == []
    assert wire(mux) == ["000301"]
    mux.release(first)
    assert mux.outbox.depth == 1


def test_a_cork_of_the_application_is_not_split_by_a_hold_that_ends() -> None:
    mux = Protomux(limits=Limits(auto_cork=0.05))
    mux.outbox.cork()
    mux.hold(0.0)
    mux.open(created(mux))
    list(mux.handle_timer(1.0))
    assert wire(mux) == []
    mux.outbox.uncork()
    assert wire(mux) == ["00010103666f6f00"]


# Section 9: the traps


def test_trap_1a_a_close_while_pairing_is_remembered_and_no_ghost_is_made() -> None:
    mux = plain()
    mux.pair("foo", "callback")
    request = paired(mux)
    receive(mux, "000301")
    assert mux.create_channel("foo") is None
    mux.pairing_done(request.request)
    assert wire(mux) == ["000201"]
    assert mux.is_idle


def test_trap_1b_a_late_answer_to_a_closed_channel_gets_its_close_again_before_reuse() -> None:
    mux = plain()
    closed = created(mux)
    mux.open(closed)
    mux.close(closed)
    assert receive(mux, "00010103666f6f00") == []
    mux.open(created(mux, "bar"))
    assert wire(mux) == ["00010103666f6f00", "000301", "000301", "0001010362617200"]


def test_trap_1_two_of_us_survive_the_race_that_kills_the_reference() -> None:
    opener, pairer = plain(), plain()
    pairer.pair("foo", "callback")
    first = created(opener)
    opener.open(first)
    opener.close(first)
    open_, close = opener.data_to_send()
    request = paired(pairer, bytes(open_).hex())
    channel = created(pairer)
    pairer.open(channel)
    receive(pairer, bytes(close))
    events = list(pairer.deliver(channel))
    pairer.pairing_done(request.request)
    assert kinds(events) == [ChannelOpened, ChannelClosed]
    for frame in pairer.data_to_send():
        receive(opener, bytes(frame))
    second = created(opener, "bar")
    opener.open(second)
    pairer.open(created(pairer, "bar"))
    for frame in opener.data_to_send():
        receive(pairer, bytes(frame))
    for frame in pairer.data_to_send():
        receive(opener, bytes(frame))
    assert second.opened
    assert pairer.opened("bar")


def test_trap_2_open_messages_and_close_before_the_callback_is_done_come_in_order() -> None:
    mux = plain()
    mux.pair("foo", "callback")
    paired(mux)
    receive(mux, "01000768656c6c6f2031")
    receive(mux, "000301")
    channel = created(mux)
    mux.open(channel)
    events = list(mux.deliver(channel))
    assert kinds(events) == [ChannelOpened, ChannelMessages, ChannelClosed]
    assert wire(mux) == ["00010103666f6f00"]
    assert mux.is_idle


def test_trap_4_a_channel_that_was_never_opened_writes_no_close_of_zero() -> None:
    mux = plain()
    mux.pair("foo", "callback")
    request = paired(mux)
    channel = created(mux)
    assert list(mux.deliver(channel)) == []
    mux.close(channel)
    mux.pairing_done(request.request)
    assert wire(mux) == ["000201"]


def test_trap_6_aliases_given_when_the_name_is_known_are_ignored() -> None:
    mux = plain()
    first = mux.create_channel("foo", unique=False)
    second = mux.create_channel("foo", unique=False, aliases=("bar",))
    assert first is not None
    assert second is not None
    mux.open(first)
    mux.open(second)
    wire(mux)
    assert receive(mux, "0001010362617200") == []
    assert wire(mux) == ["000201"]


def test_trap_6_the_callback_is_looked_up_under_the_name_that_the_remote_used() -> None:
    mux = plain()
    mux.pair("old", "callback")
    request = paired(mux, "000101036f6c6400")
    assert (request.protocol, request.id) == ("old", None)
    channel = mux.create_channel("new", aliases=("old",))
    assert channel is not None
    mux.open(channel)
    assert kinds(list(mux.deliver(channel))) == [ChannelOpened]
    assert wire(mux) == ["000101036e657700"]


def test_trap_10_nothing_more_is_delivered_after_a_close_in_on_open() -> None:
    mux = plain()
    mux.pair("foo", "callback")
    paired(mux)
    receive(mux, "01000768656c6c6f2031")
    channel = created(mux)
    mux.open(channel)
    seen = []
    for event in mux.deliver(channel):
        seen.append(event)
        mux.close(channel)
    assert kinds(seen) == [ChannelOpened]
    assert wire(mux) == ["00010103666f6f00", "000301"]


def test_a_channel_created_before_and_opened_while_the_callback_waits_takes_the_open() -> None:
    mux = plain()
    channel = created(mux)
    mux.pair("foo", "callback")
    request = paired(mux)
    assert mux.open(channel)
    mux.pairing_done(request.request)
    assert kinds(list(mux.deliver(channel))) == [ChannelOpened]
    assert wire(mux) == ["00010103666f6f00"]


def test_opening_twice_is_refused() -> None:
    mux = plain()
    channel = created(mux)
    mux.open(channel)
    with pytest.raises(UsageError):
        mux.open(channel)


def test_the_end_of_the_stream_drops_everything() -> None:
    mux = plain()
    mux.pair("foo", "callback")
    paired(mux)
    receive(mux, b"\1\0" + bytes(40_000))
    channels = [created(mux, name) for name in "abc"]
    for channel in reversed(channels):
        mux.open(channel)
    assert mux.end() == channels[::-1]
    assert not mux.paused
    assert mux.is_idle
    assert mux.next_timer() is None
    assert wire(mux) == []


def test_a_handshake_is_not_kept_once_it_was_given_out() -> None:
    mux = plain()
    mux.open(created(mux))
    (event,) = receive(mux, open_frame(1, handshake=bytes(5000)))
    assert isinstance(event, ChannelOpened)
    assert event.handshake == bytes(5000)
    assert mux._remote[1].handshake == b""


def test_a_number_freed_twice_goes_to_one_channel_only() -> None:
    numbers = NumberTable()
    first, second, third = (ChannelCore(name, None, (), unique=True) for name in "abc")
    number = numbers.take(first)
    numbers.free(number)
    numbers.free(number)
    assert numbers.take(second) != numbers.take(third)


@pytest.mark.parametrize("entry", [b"\0\1", b"\1\0", b"\0\0\2\3\7"])
def test_entries_that_tell_nothing_are_counted_out_loud(entry: bytes) -> None:
    events = list(plain().receive_frame(b"\0\0\5" + entry * 10_000, 0.0))
    assert kinds(events).count(MoreLeft) >= 9
