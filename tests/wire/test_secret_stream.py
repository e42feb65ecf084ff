from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import HandshakeError, LimitError, ProtocolError, UsageError
from covey.keys import KeyPair
from covey.limits import Limits
from covey.wire.cipher import MAX_MESSAGE
from covey.wire.noise import HandshakeResult, HandshakeState
from covey.wire.secret_stream import SecretStream
from covey.wire.session import Ended, MessagesReceived, Opened, Session, SessionEvent, TimedOut
from covey.wire.stream_opening import stream_id
from tests.vectors_path import load_vectors
from tests.wire.stream_pair import (
    INITIATOR,
    NO_TIMERS,
    RESPONDER,
    carry,
    flat,
    make_pair,
    make_stream,
    messages_of,
    open_pair,
    scripted_bytes,
    seeded_bytes,
    take,
)

CASES: list[dict[str, Any]] = load_vectors("secret-stream")["cases"]
HEADER_FRAME = 59


def cases(kind: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in CASES if case["kind"] == kind]


def recorded_side(case: dict[str, Any], role: str) -> SecretStream:
    side = case[role]
    knows = role == "initiator" and case["pattern"] in ("IK", "XK")
    return SecretStream(
        is_initiator=role == "initiator",
        key_pair=KeyPair.from_seed(bytes.fromhex(side["static_seed"])),
        now=0,
        random_bytes=scripted_bytes(
            bytes.fromhex(side["ephemeral_seed"]), bytes.fromhex(side["secretstream_header"])
        ),
        pattern=case["pattern"],
        prologue=bytes.fromhex(case["prologue"]),
        remote_public_key=(bytes.fromhex(case["responder"]["static_public"]) if knows else None),
        limits=NO_TIMERS,
        deliver_empty=True,
    )


def other(role: str) -> str:
    return "responder" if role == "initiator" else "initiator"


# Recorded sessions


@pytest.mark.parametrize("case", cases("session"))
def test_a_recorded_session_is_reproduced_to_the_byte(case: dict[str, Any]) -> None:
    sides = {role: recorded_side(case, role) for role in ("initiator", "responder")}
    expected = {"initiator": b"", "responder": b""}
    for entry in case["handshake_messages"] + case["header_frames"]:
        expected[entry["from"]] += bytes.fromhex(entry["wire"])
    wrote = {"initiator": b"", "responder": b""}
    opened: dict[str, Opened] = {}
    while True:
        data = {role: take(side) for role, side in sides.items()}
        if not any(data.values()):
            break
        for role, chunk in data.items():
            wrote[role] += chunk
            for event in sides[other(role)].receive_data(chunk, 0):
                assert isinstance(event, Opened)
                opened[other(role)] = event
    assert wrote == expected
    for role, side in sides.items():
        assert side.handshake_hash == opened[role].handshake_hash
        assert opened[role].handshake_hash == bytes.fromhex(case["handshake_hash"])
        assert opened[role].remote_key == bytes.fromhex(case[other(role)]["static_public"])
        identity = stream_id(bytes.fromhex(case["handshake_hash"]), is_initiator=side.is_initiator)
        assert identity.hex() == case["stream_id"][role]
    for entry in case["frames"]:
        plaintext = bytes.fromhex(entry["plaintext"])
        sides[entry["from"]].send_messages([plaintext])
        wire = take(sides[entry["from"]])
        assert wire.hex() == entry["wire"]
        assert sides[other(entry["from"])].receive_data(wire, 0) == [MessagesReceived([plaintext])]


@pytest.mark.parametrize("case", cases("feed"))
@pytest.mark.parametrize("split", ["as recorded", "bytewise"])
def test_a_recorded_input_has_the_recorded_outcome(case: dict[str, Any], split: str) -> None:
    expected = case["expect"]
    wrote = [bytes.fromhex(wire) for wire in expected["wrote"]]
    header = wrote[-1][35:] if expected["connected"] else bytes(24)
    initiator = case["role"] == "initiator"
    stream = SecretStream(
        is_initiator=initiator,
        key_pair=KeyPair.from_seed(bytes.fromhex(case["static_seed"])),
        now=0,
        random_bytes=scripted_bytes(bytes.fromhex(case["ephemeral_seed"]), header),
        pattern=case["pattern"],
        limits=NO_TIMERS,
        deliver_empty=not case["keep_alive"],
    )
    chunks = [bytes.fromhex(chunk) for chunk in case["input"]]
    if split == "bytewise":
        chunks = [bytes([byte]) for byte in b"".join(chunks)]
    events: list[SessionEvent] = []
    error = None
    try:
        for chunk in chunks:
            events += stream.receive_data(chunk, 0)
    except (HandshakeError, ProtocolError) as raised:
        error = raised
        events += stream.take_events()
    assert take(stream) == b"".join(wrote)
    assert [message.hex() for message in messages_of(events)] == expected["delivered"]
    assert stream.opened is expected["connected"]
    assert any(isinstance(event, Opened) for event in events) is expected["connected"]
    assert (error is not None) is expected["destroyed"]
    if error is not None:
        assert isinstance(error, ProtocolError if expected["connected"] else HandshakeError)


# Section 12: the reference's own scenarios


@pytest.mark.parametrize("pattern", ["XX", "IK", "XK"])
def test_two_streams_piped_see_each_others_key_at_open(pattern: str) -> None:
    left = make_stream(
        is_initiator=True,
        pattern=pattern,
        remote_public_key=None if pattern == "XX" else RESPONDER.public_key,
    )
    right = make_stream(is_initiator=False, pattern=pattern)
    assert left.remote_public_key is None or pattern != "XX"
    left_events, right_events = carry(left, right)
    assert left_events == [Opened(RESPONDER.public_key, None, left.handshake_hash)]
    assert right_events == [Opened(INITIATOR.public_key, None, right.handshake_hash)]
    assert left.remote_public_key == right.public_key
    assert left.handshake_hash == right.handshake_hash
    assert len(left.handshake_hash or b"") == 64


def test_plaintext_does_not_occur_in_the_raw_bytes() -> None:
    left, _ = open_pair()
    left.send_messages([b"the plaintext", b"the plaintext" * 5000])
    assert b"the plaintext" not in take(left)


def test_one_byte_chunks_both_ways_with_a_message_of_40000_bytes() -> None:
    left, right = make_pair()
    left.send_messages([b"l" * 40_000])
    right.send_messages([b"r" * 40_000])
    left_events, right_events = carry(left, right, chunk=1)
    assert messages_of(right_events) == [b"l" * 40_000]
    assert messages_of(left_events) == [b"r" * 40_000]


def test_what_is_written_before_the_opening_arrives_after_it() -> None:
    left, right = make_pair()
    changing = bytearray(b"first")
    left.send_messages([changing, b"second"])
    changing[:] = b"xxxxx"
    left_events, right_events = carry(left, right)
    assert isinstance(right_events[0], Opened)
    assert flat(right_events)[1:] == [b"first", b"second"]
    assert messages_of(left_events) == []


def test_many_messages_of_64_kib_arrive_with_the_same_bytes_and_count() -> None:
    left, right = open_pair()
    source = random.Random(1)
    received: list[bytes] = []
    sent: list[bytes] = []
    for _ in range(20):
        batch = [source.randbytes(65536) for _ in range(8)]
        sent += batch
        left.send_messages(list(batch))
        received += messages_of(carry(left, right)[1])
    assert received == sent
    assert left.messages_written == right.messages_read == 160
    assert left.bytes_written == right.bytes_read


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(bytes(65536), id="65536 zero bytes"),
        pytest.param(b"\x10\0\0sixteen bytes !!", id="a frame of 16 bytes of text"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="http"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01", id="tls"),
    ],
)
@pytest.mark.parametrize("is_initiator", [True, False])
def test_a_garbage_handshake_is_an_error_on_the_receiving_side(
    garbage: bytes, is_initiator: bool
) -> None:
    stream = make_stream(is_initiator=is_initiator)
    take(stream)
    with pytest.raises(HandshakeError, match="another protocol or another handshake"):
        stream.receive_data(garbage, 0)
    assert not stream.opened
    assert take(stream) == b""


def test_garbage_instead_of_the_header_is_an_error_after_the_opening() -> None:
    left, right = make_pair()
    right.receive_data(take(left), 0)
    left.receive_data(take(right), 0)
    final = take(left)[: 3 + 64]
    assert [type(event) for event in right.receive_data(final, 0)] == [Opened]
    with pytest.raises(ProtocolError, match="names another stream"):
        right.receive_data(b"\x38\0\0" + bytes(56), 0)


def test_opening_and_garbage_in_one_chunk_give_the_opening_then_the_error() -> None:
    left, right = make_pair()
    right.receive_data(take(left), 0)
    left.receive_data(take(right), 0)
    with pytest.raises(ProtocolError, match="header frame has 57 bytes"):
        right.receive_data(take(left)[: 3 + 64] + b"\x39\0\0", 0)
    assert [type(event) for event in right.take_events()] == [Opened]


def test_a_garbage_data_frame_after_a_good_one_is_an_error_after_the_message() -> None:
    left, right = open_pair()
    left.send_messages([b"good"])
    with pytest.raises(ProtocolError, match="failed authentication"):
        right.receive_data(take(left) + b"\x20\0\0" + bytes(32), 0)
    assert messages_of(right.take_events()) == [b"good"]
    assert take(right) == b""
    with pytest.raises(ProtocolError, match="failed authentication"):
        right.receive_data(b"more", 0)


def results() -> tuple[HandshakeResult, HandshakeResult]:
    """Keys of a handshake that ran elsewhere: Noise IK with payloads and a prologue."""
    left = HandshakeState(
        "IK",
        is_initiator=True,
        key_pair=INITIATOR,
        ephemeral_seed=b"1" * 32,
        prologue=b"elsewhere",
        remote_public_key=RESPONDER.public_key,
    )
    right = HandshakeState(
        "IK",
        is_initiator=False,
        key_pair=RESPONDER,
        ephemeral_seed=b"2" * 32,
        prologue=b"elsewhere",
    )
    assert right.receive(left.send(b"hello")) == b"hello"
    assert left.receive(right.send(b"welcome")) == b"welcome"
    return left.result(), right.result()


def test_handshake_values_from_elsewhere_open_at_once_and_work() -> None:
    left_result, right_result = results()
    left = make_stream(is_initiator=True, handshake=left_result)
    right = make_stream(is_initiator=False, handshake=right_result, now=5.0)
    assert left.opened
    assert right.next_timer() == 5.0
    assert right.handle_timer(5.0) == [Opened(INITIATOR.public_key, None, right_result.hash)]
    left.send_messages([b"ping"])
    right.send_messages([b"pong"])
    left_events, right_events = carry(left, right)
    assert flat(left_events) == [Opened(RESPONDER.public_key, None, left_result.hash), b"pong"]
    assert flat(right_events) == [b"ping"]


def test_only_the_first_32_bytes_of_such_keys_count() -> None:
    left_result, right_result = results()
    longer = HandshakeResult(
        left_result.tx + bytes(32),
        left_result.rx + bytes(32),
        left_result.hash,
        left_result.public_key,
        left_result.remote_public_key,
    )
    left = make_stream(is_initiator=True, handshake=longer)
    right = make_stream(is_initiator=False, handshake=right_result)
    left.send_messages([b"ping"])
    assert messages_of(carry(left, right)[1]) == [b"ping"]


def test_handshake_values_that_do_not_fit_are_refused() -> None:
    result, _ = results()
    for tx, digest in ((result.tx[:31], result.hash), (result.tx, result.hash[:32])):
        broken = HandshakeResult(tx, result.rx, digest, result.public_key, bytes(32))
        with pytest.raises(UsageError, match="handshake values"):
            make_stream(is_initiator=True, handshake=broken)
    with pytest.raises(HandshakeError, match="another key"):
        make_stream(is_initiator=True, handshake=result, remote_public_key=bytes(32))


def test_final_handshake_message_header_and_first_data_in_one_chunk() -> None:
    left, right = make_pair()
    left.send_messages([b"one", b"two"])
    right.receive_data(take(left), 0)
    left.receive_data(take(right), 0)
    events = right.receive_data(take(left), 0)
    assert flat(events) == [
        Opened(INITIATOR.public_key, None, right.handshake_hash),
        b"one",
        b"two",
    ]


def test_a_timeout_comes_only_after_the_writes_stop() -> None:
    left, right = open_pair()
    right.set_timeout(0.2, 0.0)
    now = 0.0
    for _ in range(10):
        now += 0.05
        left.send_messages([b"tick"])
        assert right.handle_timer(now) == []
        right.receive_data(take(left), now)
    assert right.next_timer() == now + 0.2
    assert right.handle_timer(now + 0.19) == []
    assert right.handle_timer(now + 0.2) == [TimedOut("idle")]
    assert right.next_timer() is None
    assert right.handle_timer(now + 1) == []


def test_a_keep_alive_of_20_bytes_appears_only_when_idle() -> None:
    left, right = open_pair()
    left.set_keep_alive(60, 0.0)
    left.set_keep_alive(0.5, 0.0)
    for step in range(1, 11):
        left.send_messages([b"busy"], step / 10)
        carry(left, right)
        assert left.handle_timer(step / 10) == []
        assert take(left) == b""
    assert left.next_timer() == 1.5
    left.handle_timer(1.49)
    assert take(left) == b""
    left.handle_timer(1.5)
    frame = take(left)
    assert len(frame) == 20
    assert left.next_timer() == 2.0
    assert right.receive_data(frame, 1.5) == []
    assert right.messages_read == 10


def test_a_keep_alive_waits_when_the_time_of_the_last_write_is_not_told() -> None:
    left, _ = open_pair()
    left.set_keep_alive(0.5, 0.0)
    left.send_messages([b"busy"])
    take(left)
    left.handle_timer(0.5)
    assert take(left) == b""
    assert left.next_timer() == 1.0
    left.handle_timer(1.0)
    assert len(take(left)) == 20


def test_keep_alive_and_timeout_start_as_the_limits_have_them_and_zero_is_off() -> None:
    limits = Limits(keep_alive=2, idle_timeout=7)
    left, right = open_pair(limits=limits)
    assert left.next_timer() == 2.0
    left.set_keep_alive(0, 0.0)
    right.send_messages([b""])
    left.receive_data(take(right), 0.0)
    assert left.next_timer() == 7.0
    left.set_timeout(0, 0.0)
    assert left.next_timer() is None
    assert left.handle_timer(1e9) == []
    assert take(left) == b""


def test_a_keep_alive_set_before_the_opening_works_after_it() -> None:
    left, right = make_pair()
    left.set_keep_alive(0.5, 0.0)
    left.handle_timer(0.6)
    assert len(take(left)) == 35
    left, right = make_pair()
    left.set_keep_alive(0.5, 0.0)
    carry(left, right)
    left.handle_timer(0.6)
    assert len(take(left)) == 20


def test_empty_messages_are_swallowed_unless_asked_for() -> None:
    left, right = open_pair()
    left.send_messages([b"", b"a", b""])
    assert carry(left, right)[1] == [MessagesReceived([b"a"])]
    left, right = open_pair(deliver_empty=True)
    left.send_messages([b"", b"a", b""])
    assert carry(left, right)[1] == [MessagesReceived([b"", b"a", b""])]


def test_a_message_too_large_for_a_frame_is_refused_and_harms_nothing() -> None:
    left, right = open_pair()
    with pytest.raises(LimitError, match="33554432 bytes, one frame carries 16777198") as raised:
        left.send_messages([b"not sent either", bytes(32 << 20)])
    assert raised.value.limit == "max_frame"
    assert raised.value.allowed == MAX_MESSAGE
    left.send_messages([b"still alive"])
    assert messages_of(carry(left, right)[1]) == [b"still alive"]


def test_the_largest_message_arrives() -> None:
    left, right = open_pair()
    left.send_messages([bytes(MAX_MESSAGE)])
    [message] = messages_of(carry(left, right, chunk=1 << 18)[1])
    assert len(message) == MAX_MESSAGE


def test_both_sides_end_at_once_and_the_last_message_still_arrives() -> None:
    left, right = open_pair()
    left.send_messages([b"last"])
    wire = take(left)
    assert left.receive_eof(0) == [Ended(truncated=False)]
    events = right.receive_data(wire, 0) + right.receive_eof(0)
    assert events == [MessagesReceived([b"last"]), Ended(truncated=False)]


def test_a_stream_may_still_write_after_the_remote_ended() -> None:
    left, right = open_pair(limits=Limits())
    left.receive_eof(0)
    left.send_messages([b"answer"])
    assert messages_of(right.receive_data(take(left), 0)) == [b"answer"]
    assert left.handle_timer(1e6) == []  # only the keep-alive goes on


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 20])
def test_an_end_inside_a_frame_is_told_as_truncated(cut: int) -> None:
    left, right = open_pair()
    left.send_messages([b"cut"])
    right.receive_data(take(left)[:cut], 0)
    assert right.receive_eof(0) == [Ended(truncated=True)]


def test_an_end_before_the_opening_or_the_header_is_told_as_truncated() -> None:
    left, right = make_pair()
    assert right.receive_eof(0) == [Ended(truncated=True)]
    left, right = make_pair()
    right.receive_data(take(left), 0)
    left.receive_data(take(right), 0)
    assert left.opened
    assert left.receive_eof(0) == [Ended(truncated=True)]


def test_keys_are_pinned_in_both_roles() -> None:
    wrong = KeyPair.from_seed(b"w" * 32).public_key
    for initiator, responder in ((wrong, None), (None, wrong)):
        left = make_stream(is_initiator=True, remote_public_key=initiator)
        right = make_stream(is_initiator=False, remote_public_key=responder)
        with pytest.raises(HandshakeError, match=f"expected {wrong.hex()} .*, got"):
            carry(left, right)
    left = make_stream(is_initiator=True, remote_public_key=RESPONDER.public_key)
    right = make_stream(is_initiator=False, remote_public_key=INITIATOR.public_key)
    carry(left, right)
    assert left.opened
    assert right.opened


def test_a_connection_to_ourselves_can_be_seen_by_the_upper_layer() -> None:
    left, right = open_pair(key_pair=INITIATOR)
    assert left.remote_public_key == left.public_key
    assert right.remote_public_key == right.public_key


def test_patterns_that_prove_no_key_or_lack_one_are_refused() -> None:
    with pytest.raises(UsageError, match="NN proves no key"):
        make_stream(is_initiator=True, pattern="NN")
    with pytest.raises(UsageError, match="must know the remote public key"):
        make_stream(is_initiator=True, pattern="IK")


def test_random_bytes_are_asked_for_in_the_documented_order() -> None:
    asked: list[int] = []
    source = seeded_bytes(1)

    def watched(size: int) -> bytes:
        asked.append(size)
        return source(size)

    left = make_stream(is_initiator=True, random_bytes=watched)
    assert asked == [32]
    carry(left, make_stream(is_initiator=False))
    assert asked == [32, 24]
    make_stream(is_initiator=True, handshake=results()[0], random_bytes=watched)
    assert asked == [32, 24, 24]


def test_a_secret_stream_is_a_session() -> None:
    session: Session = make_stream(is_initiator=True)
    assert not session.opened


# Any split of the same bytes


def transcript() -> tuple[list[object], bytes]:
    """What the responder of a fixed session receives, and the events it gives."""
    left, right = make_pair()
    source = random.Random(7)
    sizes = (0, 1, 5, 200, 20_000, 0, 3)
    left.send_messages([source.randbytes(size) for size in sizes])
    first = take(left)
    events: list[SessionEvent] = right.receive_data(first, 0)
    left.receive_data(take(right), 0)
    rest = take(left)
    events += right.receive_data(rest, 0)
    return flat(events), first + rest


EXPECTED_EVENTS, TRANSCRIPT = transcript()


def feed(chunks: list[bytes], *, reuse: bool = False) -> list[object]:
    stream = make_stream(is_initiator=False)
    events: list[SessionEvent] = []
    scratch = bytearray(len(TRANSCRIPT))
    for chunk in chunks:
        if reuse:  # as the shell does it: one receive buffer, overwritten each time
            scratch[: len(chunk)] = chunk
            events += stream.receive_data(memoryview(scratch)[: len(chunk)], 0)
            scratch[:] = b"\xaa" * len(scratch)
        else:
            events += stream.receive_data(chunk, 0)
    return flat(events)


@given(st.lists(st.integers(0, len(TRANSCRIPT)), max_size=30), st.booleans())
def test_any_split_of_the_same_bytes_gives_the_same_events(cuts: list[int], reuse: bool) -> None:
    marks = [0, *sorted(cuts), len(TRANSCRIPT)]
    chunks = [TRANSCRIPT[a:b] for a, b in pairwise(marks)]
    assert feed(chunks, reuse=reuse) == EXPECTED_EVENTS


@pytest.mark.parametrize("size", [1, 2, 3, 4, 7, 59, 1000, 1 << 20])
def test_equal_chunks_give_the_same_events(size: int) -> None:
    chunks = [TRANSCRIPT[at : at + size] for at in range(0, len(TRANSCRIPT), size)]
    assert feed(chunks) == EXPECTED_EVENTS
