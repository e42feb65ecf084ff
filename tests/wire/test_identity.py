from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import HandshakeError, LimitError, UsageError
from covey.limits import Limits
from covey.wire.identity import MAX_LENGTH, PlainSession, encode_identity, read_identity
from covey.wire.session import Ended, MessagesReceived, Opened, Session, SessionEvent, TimedOut
from tests.vectors_path import load_vectors
from tests.wire.stream_pair import carry, messages_of, take

CASES: list[dict[str, Any]] = load_vectors("discovery-swarm")["handshake"]
OURS, THEIRS = b"a" * 32, b"b" * 32


def make_session(**options: Any) -> PlainSession:
    settings: dict[str, Any] = {"is_initiator": True, "id": OURS, "now": 0.0}
    return PlainSession(**(settings | options))


def feed(session: PlainSession, chunks: list[bytes]) -> None:
    for chunk in chunks:
        session.receive_data(chunk, 0)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{len(case['id']) // 2} bytes")
def test_the_recorded_handshakes(case: dict[str, Any]) -> None:
    identity, wire = bytes.fromhex(case["id"]), bytes.fromhex(case["hex"])
    assert encode_identity(identity) == wire
    assert take(make_session(id=identity)) == wire
    assert read_identity(wire, (1, MAX_LENGTH)) == (identity, len(wire))
    session = make_session(id_sizes=(1, MAX_LENGTH))
    assert session.receive_data(wire, 0) == [Opened(None, identity, None)]
    assert session.remote_id == identity


def test_both_sides_learn_the_id_and_raw_bytes_follow() -> None:
    left, right = make_session(), make_session(is_initiator=False, id=THEIRS)
    left.send_messages([b"hello, ", b"", bytearray(b"world")])
    left_events, right_events = carry(left, right)
    assert left_events == [Opened(None, THEIRS, None)]
    assert right_events[0] == Opened(None, OURS, None)
    assert b"".join(messages_of(right_events)) == b"hello, world"
    right.send_messages([b"answer"])
    assert messages_of(carry(left, right)[0]) == [b"answer"]
    assert (left.bytes_read, left.bytes_written) == (right.bytes_written, right.bytes_read)


def test_bytes_after_the_id_in_the_same_segment_belong_to_the_application() -> None:
    events = make_session().receive_data(encode_identity(THEIRS) + b"data", 0)
    assert events == [Opened(None, THEIRS, None), MessagesReceived([b"data"])]


def test_length_and_id_may_come_as_two_segments() -> None:
    session = make_session()
    assert session.receive_data(b"\x20", 0) == []
    assert not session.opened
    assert session.receive_data(THEIRS, 0) == [Opened(None, THEIRS, None)]


@given(st.lists(st.integers(0, 60), max_size=20), st.sampled_from([1, 33, 64, 130]))
def test_any_split_gives_the_same_id_and_the_same_bytes(cuts: list[int], size: int) -> None:
    identity = bytes(range(size))
    wire = encode_identity(identity) + b"application bytes"
    marks = [0, *sorted(cuts), len(wire)]
    session = make_session(id_sizes=(1, 200))
    scratch = bytearray(len(wire))
    events: list[SessionEvent] = []
    for start, end in pairwise(marks):
        part = wire[start:end]
        scratch[: len(part)] = part
        events += session.receive_data(memoryview(scratch)[: len(part)], 0)
        scratch[:] = bytes(len(scratch))
    assert events[0] == Opened(None, identity, None)
    assert b"".join(messages_of(events)) == b"application bytes"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        pytest.param(b"\0", "0 bytes, 1 to 64 are accepted", id="length 0: closed at once"),
        pytest.param(b"\x41", "65 bytes, 1 to 64", id="longer than 64"),
        pytest.param(b"\xa0\0", "not in its shortest form", id="over-long a0 00 for 32"),
        pytest.param(b"\xff\xff", "more than two bytes", id="endless ff: after two bytes"),
        pytest.param(b"\x80\x80\x80\x01", "more than two bytes", id="2 MiB"),
        pytest.param(b"\xff\x7f", "16383 bytes, 1 to 64", id="largest of two bytes"),
    ],
)
@pytest.mark.parametrize("bytewise", [False, True])
def test_a_length_that_the_reference_takes_but_we_do_not(
    data: bytes, told: str, bytewise: bool
) -> None:
    session = make_session()
    chunks = [bytes([byte]) for byte in data] if bytewise else [data]
    with pytest.raises(HandshakeError, match=told):
        feed(session, chunks)
    assert not session.opened
    assert session.next_timer() is None
    with pytest.raises(HandshakeError, match=told):
        session.receive_data(b"more", 0)


@pytest.mark.parametrize("size", [1, 5, 33, 64])
def test_ids_of_1_to_64_bytes_are_accepted_unless_exactly_32_are_asked_for(size: int) -> None:
    wire = encode_identity(bytes(size))
    assert make_session().receive_data(wire, 0) == [Opened(None, bytes(size), None)]
    with pytest.raises(HandshakeError, match=f"{size} bytes, 32 are accepted"):
        make_session(id_sizes=(32, 32)).receive_data(wire, 0)


def test_no_more_than_an_id_is_kept_while_it_is_incomplete() -> None:
    session = make_session()
    session.receive_data(b"\x40" + bytes(63), 0)
    assert len(session._partial) <= 66
    assert session.receive_data(b"\1" + b"x" * 100_000, 0)[1] == MessagesReceived([b"x" * 100_000])
    assert len(session._partial) == 0


def test_a_mute_remote_times_out_and_trickling_does_not_help() -> None:
    session = make_session(now=5.0)
    session.receive_data(b"\x20", 14.0)
    assert session.next_timer() == 15.0
    assert session.handle_timer(14.9) == []
    assert session.handle_timer(15.0) == [TimedOut("handshake")]
    assert session.next_timer() is None
    assert session.handle_timer(16.0) == []


def test_after_the_opening_there_is_no_timer() -> None:
    session = make_session()
    session.receive_data(encode_identity(THEIRS), 0)
    assert session.next_timer() is None
    assert session.handle_timer(1e9) == []


def test_an_end_before_the_id_is_complete_is_told_as_truncated() -> None:
    session = make_session()
    session.receive_data(b"\x20abc", 0)
    assert session.receive_eof(0) == [Ended(truncated=True)]
    session = make_session()
    session.receive_data(encode_identity(THEIRS), 0)
    assert session.receive_eof(0) == [Ended(truncated=False)]


def test_what_may_be_queued_before_the_id_is_bounded() -> None:
    session = make_session(limits=Limits(max_queued=10))
    session.send_messages([b"0123456789"])
    with pytest.raises(LimitError, match="more than 10 bytes queued"):
        session.send_messages([b"x"])
    assert take(session) == encode_identity(OURS)
    session.receive_data(encode_identity(THEIRS), 0)
    session.send_messages([b"x" * 100])
    assert take(session) == b"0123456789" + b"x" * 100


def test_an_id_of_ours_that_no_remote_would_take_is_refused() -> None:
    for size in (0, MAX_LENGTH + 1):
        with pytest.raises(UsageError, match=f"not {size}"):
            make_session(id=bytes(size))


def test_our_own_id_is_left_to_the_upper_layer() -> None:
    assert make_session().receive_data(encode_identity(OURS), 0) == [Opened(None, OURS, None)]


def test_a_plain_session_is_a_session() -> None:
    session: Session = make_session()
    assert not session.opened
    assert session.take_events() == []


@pytest.mark.parametrize("opened", [False, True])
def test_a_buffer_may_be_filled_anew_once_it_was_queued(opened: bool) -> None:
    session = make_session()
    if opened:
        session.receive_data(encode_identity(THEIRS), 0)
    take(session)
    buffer = bytearray(b"one")
    session.send_messages([buffer, memoryview(buffer)[1:]])
    buffer[:] = b"two"
    if not opened:
        session.receive_data(encode_identity(THEIRS), 0)
    assert take(session) == b"onene"


def test_a_number_is_no_chunk_of_so_many_zeros() -> None:
    session = make_session()
    session.receive_data(encode_identity(THEIRS), 0)
    with pytest.raises(TypeError):
        session.send_messages([5])  # type: ignore[list-item]
