"""The encodings that applications name, both ways, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest

from covey.errors import DecodeError, EncodeError, UsageError
from covey.wire.encoding import Codec, Reader, uint
from covey.wire.named_encodings import conversion


class Broken(Codec[Any]):
    """A codec of an application, with a bug."""

    def encode_into(self, out: bytearray, value: Any) -> None:
        out += b"x"

    def decode_from(self, reader: Reader) -> Any:
        raise KeyError("oh")


@pytest.mark.parametrize(
    ("encoding", "value", "payload"),
    [
        ("binary", b"\x00\xff", b"\x00\xff"),
        ("utf-8", "grüß", "grüß".encode()),
        ("json", {"a": [1, "ü"]}, '{"a":[1,"ü"]}'.encode()),
        (uint, 253, b"\xfd\xfd\x00"),
    ],
)
def test_a_value_comes_back(encoding: Any, value: Any, payload: bytes) -> None:
    both = conversion(encoding)
    assert both.encode(value) == payload
    assert both.decode(payload) == value
    assert both.decode(memoryview(payload)) == value


@pytest.mark.parametrize(
    ("encoding", "value"),
    [("binary", "text"), ("utf-8", b"bytes"), ("utf-8", "\ud800"), ("json", object()), (uint, -1)],
)
def test_a_value_that_does_not_fit_is_an_encode_error(encoding: Any, value: Any) -> None:
    with pytest.raises(EncodeError):
        conversion(encoding).encode(value)


@pytest.mark.parametrize(
    ("encoding", "payload"),
    [
        ("utf-8", b"\xff"),
        ("json", b"{"),
        ("json", b"\xff"),
        ("json", b"[" * 100_000),
        (uint, b"\xfd"),
        (Broken(), b"x"),
    ],
)
def test_bytes_that_do_not_decode_are_a_decode_error(encoding: Any, payload: bytes) -> None:
    with pytest.raises(DecodeError):
        conversion(encoding).decode(payload)


@pytest.mark.parametrize("encoding", ["utf8", "", None, 3])
def test_other_names_are_refused(encoding: Any) -> None:
    with pytest.raises(UsageError, match="binary, utf-8, json or a codec"):
        conversion(encoding)
