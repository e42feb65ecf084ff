"""Section 10: what a stranger may try, and what it costs us."""

from __future__ import annotations

import gc
import random
import sys
import tracemalloc

import pytest

from covey.errors import CoveyError, HandshakeError, LimitError, ProtocolError
from covey.limits import Limits
from covey.wire.session import MessagesReceived, Opened, TimedOut
from tests.wire.stream_pair import (
    NO_TIMERS,
    RESPONDER,
    carry,
    make_pair,
    make_stream,
    messages_of,
    open_pair,
    take,
)


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + body


@pytest.mark.parametrize("pattern", ["XX", "IK", "XK"])
@pytest.mark.parametrize("is_initiator", [True, False])
def test_before_the_opening_a_wrong_length_is_refused_by_its_prefix_alone(
    pattern: str, is_initiator: bool
) -> None:
    for length in (0, 1, 31, 16 << 20 - 1):
        stream = make_stream(
            is_initiator=is_initiator, pattern=pattern, remote_public_key=RESPONDER.public_key
        )
        with pytest.raises(HandshakeError, match=f"a handshake frame of {length & 0xFFFFFF} bytes"):
            stream.receive_data((length & 0xFFFFFF).to_bytes(3, "little"), 0)


def test_small_handshake_payloads_are_accepted_and_large_ones_refused() -> None:
    limits = Limits(max_handshake_payload=5, keep_alive=0, idle_timeout=0)
    message = take(make_stream(is_initiator=True))[3:]
    stream = make_stream(is_initiator=False, limits=limits)
    stream.receive_data(framed(message + b"12345"), 0)
    assert len(take(stream)) == 99
    stream = make_stream(is_initiator=False, limits=limits)
    with pytest.raises(HandshakeError, match="38 bytes where 32 to 37 belong"):
        stream.receive_data(framed(message + b"123456"), 0)


@pytest.mark.parametrize("length", [0, 16, 55, 57, 1 << 16, (1 << 24) - 1])
def test_a_header_frame_of_another_length_is_refused_by_its_prefix_alone(length: int) -> None:
    left, right = make_pair()
    right.receive_data(take(left), 0)
    left.receive_data(take(right), 0)
    right.receive_data(take(left)[: 3 + 64], 0)
    with pytest.raises(ProtocolError, match=f"header frame has {length} bytes, it takes 56"):
        right.receive_data(length.to_bytes(3, "little"), 0)


def test_a_reflected_header_is_refused() -> None:
    left, right = make_pair()
    right.receive_data(take(left), 0)
    left.receive_data(take(right), 0)
    right.receive_data(take(left)[: 3 + 64], 0)
    with pytest.raises(ProtocolError, match="names another stream"):
        right.receive_data(take(right), 0)


def test_a_frame_above_our_limit_is_refused_by_its_prefix_alone() -> None:
    limits = Limits(max_frame=1017, keep_alive=0, idle_timeout=0)
    left, right = open_pair(receiving=limits)
    left.send_messages([bytes(1000)])
    assert messages_of(carry(left, right)[1]) == [bytes(1000)]
    left.send_messages([bytes(1001)])
    with pytest.raises(ProtocolError, match="1018 bytes, the limit is 1017"):
        right.receive_data(take(left)[:3], 0)


def test_the_announced_size_is_not_allocated_before_the_bytes_arrive() -> None:
    _, right = open_pair()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        right.receive_data(b"\xff\xff\xff" + bytes(1000), 0)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000


def test_a_large_frame_in_small_chunks_is_moved_a_bounded_number_of_times() -> None:
    left, right = open_pair()
    left.send_messages([bytes(4 << 20)])
    wire = memoryview(take(left))
    resizes, address, received = 0, 0, []
    for at in range(0, len(wire), 1000):
        received += messages_of(right.receive_data(wire[at : at + 1000], 0))
        partial = right._partial
        size = sys.getsizeof(partial)
        if size != address:
            resizes, address = resizes + 1, size
    assert received == [bytes(4 << 20)]
    assert resizes < 300  # over-allocation grows with the size: linear work in all


def test_what_is_received_is_copied_out_of_the_callers_buffer() -> None:
    left, right = open_pair()
    left.send_messages([b"a" * 1000])
    wire, scratch = take(left), bytearray(256)
    received = []
    for at in range(0, len(wire), 256):
        part = wire[at : at + 256]
        scratch[: len(part)] = part
        received += messages_of(right.receive_data(memoryview(scratch)[: len(part)], 0))
        scratch[:] = bytes(256)
    scratch.clear()  # no view of it is left
    assert received == [b"a" * 1000]


def test_a_connection_that_sends_nothing_times_out() -> None:
    stream = make_stream(is_initiator=False, now=100.0)
    assert stream.next_timer() == 110.0
    assert stream.handle_timer(109.9) == []
    assert stream.handle_timer(110.0) == [TimedOut("handshake")]
    assert stream.next_timer() is None
    assert stream.handle_timer(120.0) == []


def test_trickling_bytes_do_not_move_the_handshake_deadline() -> None:
    left, right = make_pair(now=0.0)
    for second, byte in enumerate(take(left)[:9]):
        right.receive_data(bytes([byte]), float(second))
    assert right.next_timer() == 10.0
    assert right.handle_timer(10.0) == [TimedOut("handshake")]


def test_a_silent_handshake_is_also_covered_by_a_shorter_idle_timeout() -> None:
    stream = make_stream(is_initiator=False)
    stream.set_timeout(2.0, 0.0)
    assert stream.next_timer() == 2.0
    assert stream.handle_timer(2.0) == [TimedOut("idle")]


def test_the_header_frame_belongs_to_the_budget_of_the_handshake() -> None:
    left, right = make_pair()
    right.receive_data(take(left), 0)
    left.receive_data(take(right), 0)
    right.receive_data(take(left)[: 3 + 64], 0)
    assert right.opened
    assert right.next_timer() == 10.0
    assert right.handle_timer(10.0) == [TimedOut("handshake")]
    left, right = open_pair()
    assert right.next_timer() is None


def test_what_may_be_queued_before_the_opening_is_bounded() -> None:
    limits = Limits(max_queued=1000, keep_alive=0, idle_timeout=0)
    left, right = make_pair(limits=limits)
    left.send_messages([bytes(480), bytes(480)])
    with pytest.raises(LimitError, match="more than 1000 bytes queued") as raised:
        left.send_messages([b"x"])
    assert (raised.value.limit, raised.value.allowed) == ("max_queued", 1000)
    assert messages_of(carry(left, right)[1]) == [bytes(480), bytes(480)]
    left.send_messages([bytes(5000)])
    assert messages_of(carry(left, right)[1]) == [bytes(5000)]


def test_empty_messages_count_for_that_bound_too() -> None:
    left = make_stream(is_initiator=True, limits=Limits(max_queued=1000))
    with pytest.raises(LimitError):
        left.send_messages([b""] * 51)


@pytest.mark.parametrize("size", [10, 20_000])
def test_a_frame_that_is_damaged_repeated_or_left_out_delivers_nothing(size: int) -> None:
    for fault in ("damaged", "repeated", "left out", "reflected"):
        left, right = open_pair()
        left.send_messages([bytes(size)])
        first = take(left)
        left.send_messages([bytes(size)])
        second = take(left)
        good = 0
        if fault == "damaged":
            data = first[:-1] + bytes([first[-1] ^ 1])
        elif fault == "repeated":
            data, good = first + first, 1
        elif fault == "left out":
            data = second
        else:
            right.send_messages([bytes(size)])
            data = take(right)
        with pytest.raises(ProtocolError, match="failed authentication"):
            right.receive_data(data, 0)
        assert messages_of(right.take_events()) == [bytes(size)] * good


def test_a_failed_stream_asks_for_no_timer_and_repeats_its_error() -> None:
    _, right = open_pair(limits=Limits())
    with pytest.raises(ProtocolError):
        right.receive_data(b"\0\0\0", 0)
    assert right.next_timer() is None
    assert right.handle_timer(1e6) == []
    with pytest.raises(ProtocolError, match="0 bytes, the least is 17"):
        right.receive_data(b"", 0)


def test_a_kept_error_holds_no_exported_view_when_the_collector_comes() -> None:
    """Python before 3.12.4 crashes on a memoryview in a cycle that is still exported."""
    for size in (100, 20_000):
        left, right = open_pair()
        left.send_messages([bytes(size)])
        wire = bytearray(take(left))
        wire[-1] ^= 1
        kept: list[object] = []
        try:
            right.receive_data(wire, 0)
        except CoveyError as error:
            kept += [error, error.__traceback__, kept]
        assert len(kept) == 3
        wire.clear()  # raises BufferError while anybody still holds the buffer
        del kept
        gc.collect()


def test_a_failed_stream_is_freed_without_the_collector() -> None:
    left, right = open_pair()
    with pytest.raises(ProtocolError):
        right.receive_data(b"\0\0\0", 0)
    right.take_events()
    gc.collect()
    gc.disable()
    try:
        del left, right
        assert gc.collect() == 0
    finally:
        gc.enable()


def test_the_handshake_is_forgotten_after_the_opening() -> None:
    left, right = open_pair()
    for stream in (left, right):
        assert stream._handshake is None
        assert stream._result_keys is None
        assert stream._partial is None


def test_an_idle_stream_is_small() -> None:
    limits = NO_TIMERS
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        pairs = [open_pair(limits=limits) for _ in range(50)]
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # random.Random holds 2.5 KB per side in these tests; a program passes os.urandom
    assert (after - before) / (2 * len(pairs)) - sys.getsizeof(random.Random()) < 3000


def test_secrets_do_not_appear_in_errors_or_reprs() -> None:
    left, right = open_pair()
    texts = [repr(left), repr(right), repr(left.public_key)]
    with pytest.raises(ProtocolError) as raised:
        right.receive_data(framed(bytes(20)), 0)
    texts.append(str(raised.value))
    for secret in (b"i" * 32, b"r" * 32):
        assert all(secret.hex() not in text and repr(secret)[2:-1] not in text for text in texts)


def test_the_opening_is_told_even_when_the_same_bytes_end_it() -> None:
    left, right = make_pair()
    left.send_messages([b"first", b"second"])
    right.receive_data(take(left), 0)
    left.receive_data(take(right), 0)
    wire = bytearray(take(left))
    wire[-1] ^= 1
    with pytest.raises(ProtocolError):
        right.receive_data(wire, 0)
    events = right.take_events()
    assert [type(event) for event in events] == [Opened, MessagesReceived]
    assert messages_of(events) == [b"first"]
