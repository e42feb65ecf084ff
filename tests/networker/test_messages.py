"""The channel's messages to the byte, and their limits (`networker.md` section 4)."""

from __future__ import annotations

import random
from typing import Any

import pytest

from covey.errors import DecodeError, EncodeError
from covey.networker.messages import (
    MAX_NAME,
    MAX_NAMES,
    MAX_PAYLOAD,
    WITHDRAWN,
    Names,
    Sent,
    Version,
    names_codec,
    sent_codec,
    version_codec,
)
from covey.wire.encoding import Codec, decode, encode, encode_uint


def test_section_4_the_handshake_is_version_and_flags() -> None:
    assert encode(version_codec, Version()) == b"\x01\x00"
    assert decode(version_codec, b"\x01\x00") == Version(1, 0)


def test_section_4_more_bytes_of_a_handshake_are_ignored() -> None:
    assert decode(version_codec, b"\x07\x03later") == Version(7, 3)


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x00\x00"])
def test_a_handshake_without_a_version_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(version_codec, data)


def test_section_4_a_message_is_its_name_and_the_rest() -> None:
    assert encode(sent_codec, Sent("chat", b"hello")) == b"\x04chathello"
    assert decode(sent_codec, b"\x04chathello") == Sent("chat", b"hello")
    assert decode(sent_codec, b"\x04chat") == Sent("chat", b"")


def test_section_4_names_are_flags_and_a_list() -> None:
    assert encode(names_codec, Names(0, ["chat"])) == b"\x00\x01\x04chat"
    told = decode(names_codec, b"\x01\x02\x01a\x01b")
    assert told == Names(WITHDRAWN, ["a", "b"])
    assert told.withdrawn
    assert not Names(2, []).withdrawn


def test_the_longest_name_and_payload_fit() -> None:
    longest = Sent("n" * MAX_NAME, bytes(MAX_PAYLOAD))
    assert decode(sent_codec, encode(sent_codec, longest)) == longest
    full = Names(0, [f"{number}" for number in range(MAX_NAMES)])
    assert decode(names_codec, encode(names_codec, full)) == full


@pytest.mark.parametrize("name", ["", "n" * (MAX_NAME + 1), "ü" * 128])
def test_other_names_cannot_be_sent(name: str) -> None:
    with pytest.raises(EncodeError):
        encode(sent_codec, Sent(name, b""))
    with pytest.raises(EncodeError):
        encode(names_codec, Names(0, [name]))


def test_more_cannot_be_sent() -> None:
    with pytest.raises(EncodeError):
        encode(sent_codec, Sent("n", bytes(MAX_PAYLOAD + 1)))
    with pytest.raises(EncodeError):
        encode(names_codec, Names(0, ["n"] * (MAX_NAMES + 1)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x05chat",
        b"\xfd\x00\x01" + b"n" * 256,
        b"\x01n" + bytes(MAX_PAYLOAD + 1),
    ],
)
def test_a_message_beyond_the_limits_does_not_decode(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(sent_codec, data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x02\x01a",
        b"\x00\x01\x00\x00",
        b"\x00" + encode_uint(MAX_NAMES + 1) + b"\x01a" * (MAX_NAMES + 1),
        b"\x00\xff\xff\xff\xff\xff\xff\xff\x1f\x00",
    ],
)
def test_a_list_beyond_the_limits_does_not_decode(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(names_codec, data)


@pytest.mark.parametrize("seed", range(200))
def test_random_bytes_decode_or_are_a_decode_error(seed: int) -> None:
    chance = random.Random(seed)
    data = bytes(chance.choice((0, 1, 2, 4, 0x61, chance.randrange(256))) for _ in range(30))
    codecs: list[Codec[Any]] = [version_codec, sent_codec, names_codec]
    for codec in codecs:
        for end in range(len(data)):
            try:
                decode(codec, data[:end])
            except DecodeError:
                continue
