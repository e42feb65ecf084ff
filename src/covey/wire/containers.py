"""Arrays, frames, records, dates, JSON, `any`, and the `raw` family of compact encoding.

Source: compact-encoding 3.5.2; `compact-encoding.md` sections 4 and 8. Every count is held against
the bytes that are left before anything is made of it.
"""

from __future__ import annotations

import json as json_module
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from covey.errors import DecodeError, EncodeError, UsageError
from covey.wire import binary as b
from covey.wire.codec import Codec, Reader, encode_uint, out_of_bounds, read_uint, uint
from covey.wire.numeric import bool_, float64, int_
from covey.wire.session import Buffer

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

MAX_ARRAY = 1 << 20
"""Elements of an `array`; the reference refuses more before it reads any."""
MAX_ANY_DEPTH = 32
"""Levels of arrays and objects in an `any`; the reference has no limit and overflows its stack."""


class Timestamp(int):
    """Milliseconds since 1970: an int that `any` can tell from other ints."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Timestamp({int(self)})"


def _require_size(codec: Codec[Any], what: str) -> None:
    if codec.minimum < 1:
        raise UsageError(f"{what} needs elements that take bytes: a count could not be bounded")


class ArrayCodec(Codec[Sequence[T]]):
    """A `uint` count and the elements; `prefixed=False` reads elements up to the limit."""

    __slots__ = ("_element", "_prefixed", "minimum")

    def __init__(self, element: Codec[T], *, prefixed: bool = True) -> None:
        _require_size(element, "an array")
        self._element = element
        self._prefixed = prefixed
        self.minimum = 1 if prefixed else 0

    def encode_into(self, out: bytearray, value: Sequence[T]) -> None:
        """Append count and elements; `EncodeError` above 2^20 of them."""
        if not isinstance(value, list | tuple):
            raise EncodeError(f"an array is a list or tuple, not {type(value).__name__}")
        if len(value) > MAX_ARRAY:
            raise EncodeError(f"an array has at most {MAX_ARRAY} elements, not {len(value)}")
        if self._prefixed:
            out += encode_uint(len(value))
        encode_into = self._element.encode_into
        for element in value:
            encode_into(out, element)

    def decode_from(self, reader: Reader) -> list[T]:
        """Take count and elements, as a list."""
        decode_from = self._element.decode_from
        if not self._prefixed:
            values: list[T] = []
            while reader.start < reader.end:
                values.append(decode_from(reader))
            return values
        count = uint.decode_from(reader)
        if count > MAX_ARRAY:
            raise DecodeError(f"an array has at most {MAX_ARRAY} elements, not {count}")
        if count * self._element.minimum > reader.end - reader.start:
            raise out_of_bounds(count * self._element.minimum, reader.end - reader.start)
        return [decode_from(reader) for _ in range(count)]


class FrameCodec(Codec[T]):
    """A `uint` length around another codec; what that leaves unread in the frame is skipped."""

    __slots__ = ("_inner",)

    def __init__(self, inner: Codec[T]) -> None:
        self._inner = inner

    def encode_into(self, out: bytearray, value: T) -> None:
        """Append length and value."""
        start = len(out)
        self._inner.encode_into(out, value)
        out[start:start] = encode_uint(len(out) - start)

    def decode_from(self, reader: Reader) -> T:
        """Take the frame; the inner codec cannot read past it."""
        size, start = read_uint(reader.buffer, reader.start, reader.end)
        limit = reader.end
        stop = start + size
        if stop > limit:
            raise out_of_bounds(size, limit - start)
        reader.start = start
        reader.end = stop
        try:
            return self._inner.decode_from(reader)
        finally:
            reader.start = stop
            reader.end = limit


class RecordCodec(Codec[Mapping[K, V]]):
    """A `uint` count, then key and value pairs in insertion order."""

    __slots__ = ("_key", "_value")

    def __init__(self, key: Codec[K], value: Codec[V]) -> None:
        if key.minimum + value.minimum < 1:
            raise UsageError("a record needs pairs that take bytes: a count could not be bounded")
        self._key = key
        self._value = value

    def encode_into(self, out: bytearray, value: Mapping[K, V]) -> None:
        """Append count and pairs."""
        if not isinstance(value, Mapping):
            raise EncodeError(f"a record is a mapping, not {type(value).__name__}")
        out += encode_uint(len(value))
        for key, element in value.items():
            self._key.encode_into(out, key)
            self._value.encode_into(out, element)

    def decode_from(self, reader: Reader) -> dict[K, V]:
        """Take count and pairs; the last of equal keys wins."""
        count = reader.take_count(self._key.minimum + self._value.minimum)
        values: dict[K, V] = {}
        for _ in range(count):
            key = self._key.decode_from(reader)
            values[key] = self._value.decode_from(reader)
        return values


class DateCodec(Codec[int]):
    """`int` of milliseconds since 1970; decodes to `Timestamp`."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: int) -> None:
        """Append the milliseconds."""
        int_.encode_into(out, value)

    def decode_from(self, reader: Reader) -> Timestamp:
        """Take the milliseconds."""
        return Timestamp(int_.decode_from(reader))


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class JsonCodec(Codec[Any]):
    """JSON text inside a string codec, written without spaces; `end` follows it (ndjson)."""

    __slots__ = ("_end", "_text", "minimum")

    def __init__(self, text: Codec[str], *, end: str = "") -> None:
        self._text = text
        self._end = end
        self.minimum = text.minimum

    def encode_into(self, out: bytearray, value: Any) -> None:
        """Append the text; `EncodeError` when `value` is not JSON."""
        try:
            text = json_module.dumps(
                value, ensure_ascii=False, allow_nan=False, separators=(",", ":")
            )
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(f"not a JSON value: {error}") from error
        self._text.encode_into(out, text + self._end)

    def decode_from(self, reader: Reader) -> Any:
        """Take the text; `DecodeError` when it is not JSON, or nested beyond reason."""
        text = self._text.decode_from(reader)
        try:
            return json_module.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise DecodeError(f"not JSON: {error}") from error


class AnyCodec(Codec[Any]):
    """A `uint` tag and a value: None, bool, str, bytes, int, float, list, dict or `Timestamp`."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Any) -> None:
        """Append tag and value; `EncodeError` for other types and beyond 32 levels."""
        self._encode(out, value, 0)

    def decode_from(self, reader: Reader) -> Any:
        """Take tag and value; `DecodeError` for unknown tags and beyond 32 levels."""
        return self._decode(reader, 0)

    def _encode(self, out: bytearray, value: Any, depth: int) -> None:
        tag, codec = _any_kind(value)
        out.append(tag)
        if codec is not None:
            codec.encode_into(out, value)
            return
        if depth >= MAX_ANY_DEPTH:
            raise EncodeError(f"an any value has at most {MAX_ANY_DEPTH} levels")
        out += encode_uint(len(value))
        if tag == _ANY_ARRAY:
            for element in value:
                self._encode(out, element, depth + 1)
        else:
            for key, element in value.items():
                b.string.encode_into(out, key)
                self._encode(out, element, depth + 1)

    def _decode(self, reader: Reader, depth: int) -> Any:
        tag = uint.decode_from(reader)
        codec = _ANY_CODECS.get(tag)
        if codec is not None:
            return codec.decode_from(reader)
        if tag not in (_ANY_ARRAY, _ANY_OBJECT):
            raise DecodeError(f"unknown type of an any value: {tag}")
        if depth >= MAX_ANY_DEPTH:
            raise DecodeError(f"an any value has at most {MAX_ANY_DEPTH} levels")
        if tag == _ANY_ARRAY:
            return [self._decode(reader, depth + 1) for _ in range(reader.take_count(1))]
        values: dict[str, Any] = {}
        for _ in range(reader.take_count(2)):
            key = b.string.decode_from(reader)
            values[key] = self._decode(reader, depth + 1)
        return values


_ANY_ARRAY, _ANY_OBJECT = 7, 8
date = DateCodec()
_ANY_CODECS: dict[int, Codec[Any]] = {
    0: b.none,
    1: bool_,
    2: b.string,
    3: b.buffer,
    4: uint,
    5: int_,
    6: float64,
    9: date,
}


def _any_kind(value: Any) -> tuple[int, Codec[Any] | None]:
    """The tag of `value` and its codec; no codec for arrays and objects."""
    if value is None:
        return 0, b.none
    if isinstance(value, bool):
        return 1, bool_
    if isinstance(value, Timestamp):
        return 9, date
    if isinstance(value, int):
        return (4, uint) if value >= 0 else (5, int_)
    for kind, tag in _ANY_TYPES:
        if isinstance(value, kind):
            return tag, _ANY_CODECS.get(tag)
    raise EncodeError(f"an any value cannot be of type {type(value).__name__}")


_ANY_TYPES: tuple[tuple[Any, int], ...] = (
    (str, 2),
    (Buffer, 3),
    (float, 6),
    (list | tuple, _ANY_ARRAY),
    (Mapping, _ANY_OBJECT),
)


class RawCodec(b.RawBytesCodec):
    """Everything up to the reader's limit, and as attributes the unprefixed forms of other types.

    All of them honour the limit; the reference's read to the end of the buffer instead.
    """

    __slots__ = ()
    buffer = b.RawBytesCodec()
    uint8array = buffer
    arraybuffer = buffer
    binary = buffer
    string = b.RawStringCodec(b.string)
    utf8 = string
    ascii = b.RawStringCodec(b.ascii_)
    hex = b.RawStringCodec(b.hex_)
    base64 = b.RawStringCodec(b.base64)
    utf16le = b.RawStringCodec(b.utf16le)
    ucs2 = utf16le
    json = JsonCodec(string)
    ndjson = JsonCodec(string, end="\n")
    uint16array = b.TypedArrayCodec("H", prefixed=False)
    uint32array = b.TypedArrayCodec("I", prefixed=False)
    int8array = b.TypedArrayCodec("b", prefixed=False)
    int16array = b.TypedArrayCodec("h", prefixed=False)
    int32array = b.TypedArrayCodec("i", prefixed=False)
    biguint64array = b.TypedArrayCodec("Q", prefixed=False)
    bigint64array = b.TypedArrayCodec("q", prefixed=False)
    float32array = b.TypedArrayCodec("f", prefixed=False)
    float64array = b.TypedArrayCodec("d", prefixed=False)

    def array(self, element: Codec[T]) -> ArrayCodec[T]:
        """Elements up to the reader's limit, without a count."""
        return ArrayCodec(element, prefixed=False)


raw = RawCodec()
any_ = AnyCodec()
json = JsonCodec(b.string)
ndjson = JsonCodec(b.string, end="\n")


def array(element: Codec[T]) -> ArrayCodec[T]:
    """A count, at most 2^20, and the elements; `UsageError` for elements that take no bytes."""
    return ArrayCodec(element)


def frame(inner: Codec[T]) -> FrameCodec[T]:
    """`inner` behind its length in bytes."""
    return FrameCodec(inner)


def record(key: Codec[K], value: Codec[V]) -> RecordCodec[K, V]:
    """A count, then pairs of `key`, which decodes to something hashable, and `value`."""
    return RecordCodec(key, value)


string_record = record(b.string, b.string)
