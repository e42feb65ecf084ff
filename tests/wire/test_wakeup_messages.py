"""The messages of a wakeup: what the vectors do not reach."""

from __future__ import annotations

import pytest

from covey.errors import DecodeError, EncodeError, UsageError
from covey.limits import Limits
from covey.wire.encoding import decode, encode, encode_uint
from covey.wire.wakeup_messages import (
    AnnounceCodec,
    Handshake,
    Lookup,
    WriterHead,
    capability_proof,
    encoded_heads,
    handshake_codec,
    lookup_codec,
    topic_id,
)

KEY = bytes(range(32))
MOST = Limits().wakeup_announced
announce_codec = AnnounceCodec(MOST)


def heads(count: int) -> list[WriterHead]:
    return [WriterHead(number.to_bytes(32, "big"), number) for number in range(count)]


def test_the_most_heads_fit_one_announce() -> None:
    assert decode(announce_codec, encode(announce_codec, heads(MOST))) == heads(MOST)


def test_one_head_more_is_refused_before_anything_is_made_of_it() -> None:
    claimed = encode_uint(MOST + 1) + bytes(33 * (MOST + 1))
    with pytest.raises(DecodeError, match=f"at most {MOST} heads"):
        decode(announce_codec, claimed)


def test_one_head_more_is_not_sent() -> None:
    with pytest.raises(EncodeError, match=f"at most {MOST} heads"):
        encode(announce_codec, heads(MOST + 1))


@pytest.mark.parametrize("count", [2, 253, 65536, 1 << 20, (1 << 53) - 1])
def test_a_count_that_cannot_fit_what_is_left_is_refused(count: int) -> None:
    with pytest.raises(DecodeError):
        decode(announce_codec, encode_uint(count) + bytes(33 + 32))


def test_a_length_that_is_cut_is_refused() -> None:
    with pytest.raises(DecodeError):
        decode(announce_codec, b"\x01" + KEY + b"\xfd\x01")


def test_what_is_decoded_is_no_view_of_the_frame() -> None:
    frame = bytearray(b"\x01" + KEY + b"\x05")
    [head] = decode(announce_codec, frame)
    lookup = decode(lookup_codec, memoryview(bytearray(b"\x01" + KEY)))
    frame[1:33] = bytes(32)
    assert head == WriterHead(KEY, 5)
    assert type(head.key) is bytes
    assert type(lookup.hash) is bytes


def test_heads_that_are_encoded_once_are_the_same_bytes() -> None:
    assert encode(announce_codec, encoded_heads(announce_codec, heads(3))) == encode(
        announce_codec, heads(3)
    )


@pytest.mark.parametrize("key", [b"", bytes(31), bytes(33)])
def test_a_key_of_another_size_is_not_announced(key: bytes) -> None:
    with pytest.raises(EncodeError, match="32 bytes"):
        encode(announce_codec, [WriterHead(key, 0)])


@pytest.mark.parametrize("length", [-1, 1 << 53])
def test_a_length_that_is_none_is_not_announced(length: int) -> None:
    with pytest.raises(EncodeError):
        encode(announce_codec, [WriterHead(KEY, length)])


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_hash_or_proof_of_another_size_is_not_sent(size: int) -> None:
    with pytest.raises(EncodeError):
        encode(lookup_codec, Lookup(bytes(size)))
    with pytest.raises(EncodeError):
        encode(handshake_codec, Handshake(bytes(size), active=True))


def test_a_proof_fits_one_role_and_one_connection_alone() -> None:
    proofs = {
        capability_proof(KEY, connection, is_initiator=role)
        for connection in (bytes(64), b"\x01" * 64)
        for role in (True, False)
    }
    assert len(proofs) == 4


def test_a_topic_does_not_tell_its_capability_and_needs_one_of_32_bytes() -> None:
    assert len(topic_id(KEY)) == 32
    assert topic_id(KEY) != KEY
    with pytest.raises(UsageError, match="discovery_key"):
        topic_id(bytes(16))
    with pytest.raises(TypeError):
        topic_id("text")  # type: ignore[arg-type]
