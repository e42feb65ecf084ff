"""Numbers of compact encoding: fixed widths, zig-zag, big integers, floats, lexint, bool.

Source: compact-encoding 3.5.2; `compact-encoding.md` sections 2.2 to 2.4. Where the reference
reduces a value modulo its width, this port raises.
"""

from __future__ import annotations

import struct
from typing import Literal

from covey.errors import DecodeError, EncodeError
from covey.wire.codec import MAX_UINT, Codec, Reader, encode_uint, out_of_bounds, uint

_LEXINT_BASE = 251
_LEXINT_MAX_EXPONENT = 20  # 2^(32 + 20) is the last power of two below MAX_UINT
_WORD = 8


def checked_integer(value: int, low: int, high: int, name: str) -> int:
    """`value` when it is an int from `low` to `high`; otherwise `EncodeError`."""
    if not isinstance(value, int):
        raise EncodeError(f"{name} is an int, not {type(value).__name__}")
    if not low <= value <= high:
        raise EncodeError(f"{name} is {low} to {high}, not {value}")
    return value


class FixedUintCodec(Codec[int]):
    """An unsigned integer of `size` bytes, at most `highest` both ways."""

    __slots__ = ("_highest", "_name", "_order", "minimum")
    default = 0

    def __init__(
        self,
        size: int,
        *,
        order: Literal["little", "big"] = "little",
        highest: int = MAX_UINT,
    ) -> None:
        self.minimum = size
        self._order = order
        self._highest = min((1 << 8 * size) - 1, highest)
        self._name = f"uint{8 * size}"

    def encode_into(self, out: bytearray, value: int) -> None:
        """Append exactly `size` bytes."""
        checked_integer(value, 0, self._highest, self._name)
        out += value.to_bytes(self.minimum, self._order)

    def decode_from(self, reader: Reader) -> int:
        """Take exactly `size` bytes."""
        value = int.from_bytes(reader.take(self.minimum), self._order)
        if value > self._highest:
            raise DecodeError(f"{self._name} is at most {self._highest}, not {value}")
        return value


class ZigZagCodec(Codec[int]):
    """A signed integer over an unsigned codec: 2n for n >= 0, -2n - 1 below."""

    __slots__ = ("_high", "_low", "_unsigned", "minimum")
    default = 0

    def __init__(self, unsigned: Codec[int], *, bits: int | None) -> None:
        self._unsigned = unsigned
        self.minimum = unsigned.minimum
        self._high = None if bits is None else (1 << bits - 1) - 1
        self._low = None if bits is None else -(1 << bits - 1)

    def encode_into(self, out: bytearray, value: int) -> None:
        """Append the folded value."""
        if not isinstance(value, int):
            raise EncodeError(f"an int is an int, not {type(value).__name__}")
        if self._low is not None and self._high is not None:
            checked_integer(value, self._low, self._high, "a signed integer")
        self._unsigned.encode_into(out, 2 * value if value >= 0 else -2 * value - 1)

    def decode_from(self, reader: Reader) -> int:
        """Take one and unfold it."""
        folded = self._unsigned.decode_from(reader)
        return -((folded + 1) >> 1) if folded & 1 else folded >> 1


class BigUintCodec(Codec[int]):
    """An unsigned integer of any size: a `uint` count of 64-bit words, the least first."""

    __slots__ = ()
    default = 0

    def encode_into(self, out: bytearray, value: int) -> None:
        """Append the fewest words that hold it; 0 takes none."""
        if not isinstance(value, int) or value < 0:
            raise EncodeError("a biguint is an int from 0 up")
        words = -(-value.bit_length() // 64)
        out += encode_uint(words)
        out += value.to_bytes(words * _WORD, "little")

    def decode_from(self, reader: Reader) -> int:
        """Take the count, then the words."""
        words = reader.take_count(_WORD)
        return int.from_bytes(reader.take(words * _WORD), "little")


class FloatCodec(Codec[float]):
    """An IEEE 754 number, little endian."""

    __slots__ = ("_format", "minimum")
    default = 0

    def __init__(self, form: Literal["<f", "<d"]) -> None:
        self._format = struct.Struct(form)
        self.minimum = self._format.size

    def encode_into(self, out: bytearray, value: float) -> None:
        """Append 4 or 8 bytes; `EncodeError` when `value` is no number or too large."""
        try:
            out += self._format.pack(value)
        except (struct.error, OverflowError) as error:
            raise EncodeError(f"not a number of {8 * self.minimum} bits: {error}") from error

    def decode_from(self, reader: Reader) -> float:
        """Take 4 or 8 bytes."""
        value: float = self._format.unpack(reader.take(self.minimum))[0]
        return value


class LexintCodec(Codec[int]):
    """An unsigned integer whose encodings sort like the values; above 2^44 it loses low bits.

    2^32 to 2^32 + 250 are refused: the reference writes them so that they do not come back.
    """

    __slots__ = ()
    default = 0

    def encode_into(self, out: bytearray, value: int) -> None:
        """Append 1 to 5 bytes below 2^32, 8 above."""
        checked_integer(value, 0, MAX_UINT, "a lexint")
        offset = value - _LEXINT_BASE
        if offset < 0:
            out.append(value)
        elif value < 1 << 32:
            size = (value.bit_length() + 7) // 8
            out.append(_LEXINT_BASE + size - 1)
            out += offset.to_bytes(size, "big")
        elif offset < 1 << 32:
            raise EncodeError(f"{value} has no lexint that comes back")
        else:
            exponent = offset.bit_length() - 33
            out += bytes([0xFF, exponent])
            out += ((offset << 11) >> exponent).to_bytes(6, "big")

    def decode_from(self, reader: Reader) -> int:
        """Take one; `DecodeError` also for exponents that lead beyond 2^53-1."""
        flag = reader.take(1)[0]
        if flag < _LEXINT_BASE:
            return flag
        if flag < 0xFF:
            size = flag - _LEXINT_BASE + 1
            return int.from_bytes(reader.take(size), "big") + _LEXINT_BASE
        exponent = reader.take(1)[0]
        if exponent > _LEXINT_MAX_EXPONENT:
            raise DecodeError(f"a lexint exponent is at most {_LEXINT_MAX_EXPONENT}")
        mantissa = int.from_bytes(reader.take(6), "big")
        value = ((mantissa << exponent) >> 11) + _LEXINT_BASE
        if value > MAX_UINT:
            raise DecodeError(f"a lexint is at most {MAX_UINT}, not {value}")
        return value


class BoolCodec(Codec[bool]):
    """One byte: 01 is true, every other byte reads as false."""

    __slots__ = ()
    default = False

    def encode_into(self, out: bytearray, value: bool) -> None:
        """Append 01 when `value` holds, else 00."""
        out.append(1 if value else 0)

    def decode_from(self, reader: Reader) -> bool:
        """Take one byte."""
        start = reader.start
        if start >= reader.end:
            raise out_of_bounds(1, 0)
        reader.start = start + 1
        return reader.buffer[start] == 1


uint8 = FixedUintCodec(1)
uint16 = FixedUintCodec(2)
uint24 = FixedUintCodec(3)
uint32 = FixedUintCodec(4)
uint40 = FixedUintCodec(5)
uint48 = FixedUintCodec(6)
uint56 = FixedUintCodec(7)
uint64 = FixedUintCodec(8)
uint32be = FixedUintCodec(4, order="big")
uint64be = FixedUintCodec(8, order="big")
port = uint16
biguint64 = FixedUintCodec(8, highest=(1 << 64) - 1)
biguint = BigUintCodec()

int_ = ZigZagCodec(uint, bits=53)
int8 = ZigZagCodec(uint8, bits=8)
int16 = ZigZagCodec(uint16, bits=16)
int24 = ZigZagCodec(uint24, bits=24)
int32 = ZigZagCodec(uint32, bits=32)
int40 = ZigZagCodec(uint40, bits=40)
int48 = ZigZagCodec(uint48, bits=48)
int56 = ZigZagCodec(uint56, bits=53)
int64 = ZigZagCodec(uint64, bits=53)
bigint64 = ZigZagCodec(biguint64, bits=64)
bigint = ZigZagCodec(biguint, bits=None)

float32 = FloatCodec("<f")
float64 = FloatCodec("<d")
lexint = LexintCodec()
bool_ = BoolCodec()
