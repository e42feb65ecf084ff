"""The deadlines of a secret stream: silence, frames that do not end, and what fits in one."""

from __future__ import annotations

import pytest

from covey.errors import LimitError
from covey.limits import Limits
from covey.wire.session import MessagesReceived, TimedOut
from covey.wire.stream_clock import FRAME_RATE
from tests.wire.stream_pair import flat, open_pair, take

WATCHING = Limits(keep_alive=0, idle_timeout=10)


def test_a_silent_remote_that_never_kept_alive_is_not_timed_out() -> None:
    left, right = open_pair(receiving=WATCHING)
    left.send_messages([b"busy"])
    right.receive_data(take(left), 1.0)
    assert right.next_timer() is None
    assert right.handle_timer(1e9) == []


@pytest.mark.parametrize("deliver_empty", [False, True])
def test_a_remote_that_kept_alive_once_is_timed_out_when_it_falls_silent(
    *, deliver_empty: bool
) -> None:
    left, right = open_pair(receiving=WATCHING, deliver_empty=deliver_empty)
    left.send_messages([b""])
    right.receive_data(take(left), 3.0)
    assert right.next_timer() == 13.0
    assert right.handle_timer(12.9) == []
    assert right.handle_timer(13.0) == [TimedOut("idle")]


def test_a_timeout_that_was_asked_for_counts_without_keep_alives() -> None:
    _, right = open_pair(receiving=WATCHING)
    right.set_timeout(2.0, 5.0)
    assert right.handle_timer(6.9) == []
    assert right.handle_timer(7.0) == [TimedOut("idle")]


def test_no_time_counts_while_this_side_does_not_read() -> None:
    left, right = open_pair(receiving=WATCHING)
    left.send_messages([b"", bytes(100)])
    right.receive_data(take(left)[:-1], 0.0)
    right.set_reading(False, 1.0)
    right.set_reading(False, 2.0)
    assert right.next_timer() is None
    assert right.handle_timer(50.0) == []
    right.set_reading(True, 50.0)
    right.set_reading(True, 51.0)
    assert right.handle_timer(59.0) == []
    assert right.handle_timer(59.1) == [TimedOut("frame")]


def test_a_frame_that_trickles_is_given_up_after_a_fixed_time() -> None:
    left, right = open_pair(receiving=WATCHING)
    left.send_messages([bytes(1000)])
    frame, now = take(left), 100.0
    deadline = now + 10 + len(frame) / FRAME_RATE
    for byte in frame[:-1]:
        right.receive_data(bytes([byte]), now)
        now += 0.01
    while now < deadline:
        assert right.handle_timer(now) == []
        now += 1
    assert right.handle_timer(now) == [TimedOut("frame")]
    assert right.next_timer() is None


def test_a_large_frame_may_go_on_as_long_as_it_keeps_the_pace() -> None:
    left, right = open_pair(receiving=WATCHING)
    message = bytes(40 * FRAME_RATE)
    left.send_messages([message])
    frame, now, offset = take(left), 0.0, 0
    events = []
    while offset < len(frame):
        assert right.handle_timer(now) == []
        events += right.receive_data(frame[offset : offset + FRAME_RATE], now)
        offset += FRAME_RATE
        now += 1
    assert events == [MessagesReceived([message])]
    assert right.next_timer() is None


def test_each_frame_has_its_own_time() -> None:
    left, right = open_pair(receiving=WATCHING)
    left.send_messages([b"one", b"two"])
    data = take(left)
    right.receive_data(data[:5], 0.0)
    assert flat(right.receive_data(data[5:-1], 9.0)) == [b"one"]
    assert right.handle_timer(18.9) == []
    assert right.handle_timer(19.1) == [TimedOut("frame")]


def test_what_is_held_of_a_frame_is_told_and_let_go() -> None:
    left, right = open_pair(receiving=WATCHING)
    left.send_messages([bytes(1000)])
    right.receive_data(take(left)[:500], 0.0)
    assert right.held == 500
    right.discard()
    assert right.held == 0
    assert right.next_timer() is None


def test_messages_above_our_own_frame_limit_are_not_sent() -> None:
    left, _ = open_pair(limits=Limits(max_frame=117, keep_alive=0))
    left.send_messages([bytes(100)])
    assert len(take(left)) == 120
    assert left.seal_lone(bytes(101)) is None
    with pytest.raises(LimitError, match="101 bytes, one frame carries 100") as refused:
        left.send_messages([b"kept back", bytes(101)])
    assert (refused.value.limit, refused.value.allowed) == ("max_frame", 100)
    assert take(left) == b""
