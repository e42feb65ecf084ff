"""The core of compact encoding: a bounded reader, the codec shape, and `uint`.

Source: compact-encoding 3.5.2; `compact-encoding.md` sections 1 and 2.1. The rest of the types are
in `numeric`, `binary`, `containers`, `ip` and `structs`; `encoding` gives all of them out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Generic, TypeVar

from covey.errors import DecodeError, EncodeError
from covey.wire.session import Buffer

T = TypeVar("T")

MAX_UINT = (1 << 53) - 1
"""The largest `uint`: what a JavaScript number holds without loss."""
MAX_ONE_BYTE = 252
"""The largest `uint` that takes one byte."""

_SMALL = tuple(bytes([value]) for value in range(MAX_ONE_BYTE + 1))
_LONG_SIZES = {0xFD: 2, 0xFE: 4, 0xFF: 8}


class Reader:
    """A position in bytes and the limit up to which they may be read.

    Decoders take one after the other from the same reader; a frame lowers `end` and puts it back.
    `buffer` is not copied. `ValueError` when `start` and `end` do not lie in it, in that order.
    """

    __slots__ = ("buffer", "end", "start")

    def __init__(self, buffer: Buffer, start: int = 0, end: int | None = None) -> None:
        size = len(buffer)
        self.buffer = buffer
        self.start = start
        self.end = size if end is None else end
        if not 0 <= start <= self.end <= size:
            raise ValueError(f"{start} to {self.end} is not a range of {size} bytes")

    @property
    def remaining(self) -> int:
        """Bytes left before the limit."""
        return self.end - self.start

    def take(self, size: int) -> Buffer:
        """The next `size` bytes, as a slice of the buffer; `DecodeError` when fewer are left."""
        start = self.start
        stop = start + size
        if stop > self.end:
            raise out_of_bounds(size, self.end - start)
        self.start = stop
        return self.buffer[start:stop]

    def take_count(self, minimum: int) -> int:
        """A `uint` count of elements of at least `minimum` bytes each.

        `DecodeError` when so many cannot be left: nothing is ever allocated for a mere claim.
        """
        count = uint.decode_from(self)
        if count * minimum > self.end - self.start:
            raise DecodeError(
                f"out of bounds: {count} elements claimed, {self.end - self.start} bytes left"
            )
        return count


def out_of_bounds(wanted: int, left: int) -> DecodeError:
    """The error for input that ends too early."""
    return DecodeError(f"out of bounds: {wanted} bytes wanted, {left} left")


class Codec(ABC, Generic[T]):
    """How values of one type are written and read.

    `minimum` is the least number of bytes a value takes; containers refuse counts by it. `default`
    is what an absent struct field of this type reads as.
    """

    __slots__ = ()
    minimum: int = 1
    default: Any = None

    @abstractmethod
    def encode_into(self, out: bytearray, value: T) -> None:
        """Append the encoding of `value` to `out`; `EncodeError` when it does not fit the type.

        After an error `out` may end in part of the value.
        """

    @abstractmethod
    def decode_from(self, reader: Reader) -> T:
        """Take one value from `reader`; `DecodeError`, and nothing else, for bad bytes."""


def encode(codec: Codec[T], value: T) -> bytes:
    """`value` in the encoding of `codec`; `EncodeError` when it does not fit."""
    out = bytearray()
    codec.encode_into(out, value)
    return bytes(out)


def decode(codec: Codec[T], data: Buffer) -> T:
    """The value at the start of `data`; bytes after it are ignored, as in the reference.

    Raises `DecodeError`.
    """
    return codec.decode_from(Reader(data))


def encode_uint(value: int) -> bytes:
    """`value` as a `uint`, 1, 3, 5 or 9 bytes; `EncodeError` outside 0 to 2^53-1."""
    if not isinstance(value, int):
        raise EncodeError(f"a uint is an int, not {type(value).__name__}")
    if 0 <= value < 253:
        return _SMALL[value]
    if value < 0 or value > MAX_UINT:
        raise EncodeError(f"a uint is 0 to {MAX_UINT}, not {value}")
    if value <= 0xFFFF:
        return b"\xfd" + value.to_bytes(2, "little")
    if value <= 0xFFFFFFFF:
        return b"\xfe" + value.to_bytes(4, "little")
    return b"\xff" + value.to_bytes(8, "little")


def read_uint(buffer: Buffer, start: int, end: int) -> tuple[int, int]:
    """The `uint` at `start` and the position after it, reading nothing at or after `end`.

    Over-long forms are accepted, as the reference does. Raises `DecodeError`.
    """
    if start >= end:
        raise out_of_bounds(1, 0)
    first = buffer[start]
    if first < 253:
        return first, start + 1
    stop = start + 1 + _LONG_SIZES[first]
    if stop > end:
        raise out_of_bounds(stop - start, end - start)
    value = int.from_bytes(buffer[start + 1 : stop], "little")
    if value > MAX_UINT:
        raise DecodeError(f"a uint is at most {MAX_UINT}, not {value}")
    return value, stop


class UintCodec(Codec[int]):
    """`uint`: the variable-length unsigned integer, 0 to 2^53-1."""

    __slots__ = ()
    default = 0

    def encode_into(self, out: bytearray, value: int) -> None:
        """Append the shortest form."""
        out += encode_uint(value)

    def decode_from(self, reader: Reader) -> int:
        """Take one, of whichever length."""
        start = reader.start
        if start < reader.end and (first := reader.buffer[start]) < 253:
            reader.start = start + 1
            return first
        value, reader.start = read_uint(reader.buffer, start, reader.end)
        return value


uint = UintCodec()
