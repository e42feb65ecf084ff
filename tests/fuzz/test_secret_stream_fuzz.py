"""Whatever arrives, a session raises `HandshakeError` or `ProtocolError` and nothing else."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from covey.errors import HandshakeError, ProtocolError
from covey.wire.identity import PlainSession
from covey.wire.secret_stream import SecretStream
from covey.wire.session import Session
from tests.wire.stream_pair import RESPONDER, carry, make_pair, make_stream, open_pair, take


def swallow(session: Session, data: bytes, source: random.Random) -> None:
    """Feed `data` in random chunks until the session refuses it."""
    at = 0
    opened = session.opened
    try:
        while at < len(data):
            size = source.choice((1, 2, 3, 10, 100, 1 << 20))
            session.receive_data(memoryview(data)[at : at + size], 0)
            at += size
            opened = session.opened
    except HandshakeError:
        assert not opened
    except ProtocolError:
        assert session.opened
    session.take_events()
    session.receive_eof(0)


@given(st.binary(max_size=300), st.booleans(), st.sampled_from(["XX", "IK", "XK"]), st.randoms())
def test_random_bytes_instead_of_a_handshake(
    data: bytes, is_initiator: bool, pattern: str, source: random.Random
) -> None:
    stream = make_stream(
        is_initiator=is_initiator, pattern=pattern, remote_public_key=RESPONDER.public_key
    )
    swallow(stream, data, source)
    assert not stream.opened


@given(st.binary(min_size=32, max_size=200), st.sampled_from([32, 96, 48, 64]), st.booleans())
def test_random_bodies_in_well_formed_frames(data: bytes, size: int, is_initiator: bool) -> None:
    body = (data * 3)[:size]
    stream = make_stream(is_initiator=is_initiator)
    swallow(stream, len(body).to_bytes(3, "little") + body, random.Random(0))
    assert not stream.opened


def transcripts() -> tuple[bytes, bytes]:
    """All that an initiator and a responder write in one session."""
    left, right = make_pair()
    left.send_messages([b"one", bytes(20_000)])
    right.send_messages([b"two"])
    wrote = [b"", b""]
    while True:
        chunks = take(left), take(right)
        if not any(chunks):
            return wrote[0], wrote[1]
        wrote[0] += chunks[0]
        wrote[1] += chunks[1]
        right.receive_data(chunks[0], 0)
        left.receive_data(chunks[1], 0)


TRANSCRIPTS = transcripts()


@given(st.integers(0, 2**32), st.booleans())
def test_mutated_transcripts(seed: int, is_initiator: bool) -> None:
    source = random.Random(seed)
    data = bytearray(TRANSCRIPTS[1 if is_initiator else 0])
    for _ in range(source.randint(1, 3)):
        kind, at = source.randrange(4), source.randrange(min(len(data), 400))
        if kind == 0:
            data[at] ^= 1 << source.randrange(8)
        elif kind == 1:
            del data[at : at + source.randint(1, 40)]
        elif kind == 2:
            data[at:at] = source.randbytes(source.randint(1, 40))
        else:
            data[at:at] = data[: source.randint(1, 200)]
    swallow(make_stream(is_initiator=is_initiator), bytes(data), source)


def test_an_untouched_transcript_is_swallowed_whole() -> None:
    for is_initiator in (True, False):
        stream = make_stream(is_initiator=is_initiator)
        swallow(stream, TRANSCRIPTS[1 if is_initiator else 0], random.Random(1))
        assert stream.opened
        assert stream.messages_read == (1 if is_initiator else 2)


@given(st.binary(max_size=200), st.randoms())
def test_random_bytes_after_the_opening(data: bytes, source: random.Random) -> None:
    left, right = open_pair()
    left.send_messages([b"good"])
    carry(left, right)
    read = right.messages_read
    swallow(right, data, source)
    assert right.messages_read == read


@given(st.binary(max_size=200), st.randoms())
def test_random_bytes_to_a_plain_session(data: bytes, source: random.Random) -> None:
    swallow(PlainSession(is_initiator=False, id=b"i" * 32, now=0), data, source)


def test_a_secret_stream_survives_every_single_cut() -> None:
    data = TRANSCRIPTS[0][:300]
    for cut in range(len(data)):
        stream: SecretStream = make_stream(is_initiator=False)
        swallow(stream, data[:cut] + data[cut + 1 :], random.Random(cut))
