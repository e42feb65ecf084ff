"""Bytes, strings and typed arrays of compact encoding, with a length, fixed, or raw.

Source: compact-encoding 3.5.2; `compact-encoding.md` section 3. What is decoded is a copy: it never
keeps the received frame alive. `raw` forms honour the reader's limit, which the reference does not
everywhere (section 4).
"""

from __future__ import annotations

import base64 as base64_module
import binascii
import struct
from collections.abc import Callable, Sequence
from typing import Any

from covey.errors import DecodeError, EncodeError
from covey.wire.codec import Codec, Reader, encode_uint, out_of_bounds, read_uint
from covey.wire.session import Buffer

_SEVEN_BITS = bytes(byte & 0x7F for byte in range(256))


def checked_bytes(value: Buffer) -> Buffer:
    """`value` when it is made of bytes; otherwise `EncodeError`."""
    if isinstance(value, bytes | bytearray):
        return value
    if isinstance(value, memoryview) and value.itemsize == 1:
        return value
    raise EncodeError(f"bytes are wanted, not {type(value).__name__}")


def _take_prefixed(reader: Reader) -> Buffer:
    size, start = read_uint(reader.buffer, reader.start, reader.end)
    stop = start + size
    if stop > reader.end:
        raise out_of_bounds(size, reader.end - start)
    reader.start = stop
    return reader.buffer[start:stop]


class BufferCodec(Codec[Buffer]):
    """A `uint` length and so many bytes. Decodes to `bytes`."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Buffer) -> None:
        """Append length and bytes."""
        value = checked_bytes(value)
        out += encode_uint(len(value))
        out += value

    def decode_from(self, reader: Reader) -> bytes:
        """Take length and bytes."""
        return bytes(_take_prefixed(reader))


class OptionalBufferCodec(Codec[Buffer | None]):
    """Like `buffer`, with None as length 0: so empty bytes come back as None."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Buffer | None) -> None:
        """Append length and bytes, 00 for None."""
        if value is None:
            out.append(0)
        else:
            buffer.encode_into(out, value)

    def decode_from(self, reader: Reader) -> bytes | None:
        """Take length and bytes; None when there are none."""
        return bytes(_take_prefixed(reader)) or None


class BinaryCodec(Codec[Buffer | str]):
    """Like `buffer`; a string is written as UTF-8 and comes back as bytes."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Buffer | str) -> None:
        """Append length and bytes."""
        buffer.encode_into(out, _encode_utf8(value) if isinstance(value, str) else value)

    def decode_from(self, reader: Reader) -> bytes:
        """Take length and bytes."""
        return bytes(_take_prefixed(reader))


class FixedCodec(Codec[Buffer]):
    """Exactly `size` bytes without a length."""

    __slots__ = ("minimum",)

    def __init__(self, size: int) -> None:
        self.minimum = size

    def encode_into(self, out: bytearray, value: Buffer) -> None:
        """Append the bytes; `EncodeError` for another size."""
        value = checked_bytes(value)
        if len(value) != self.minimum:
            raise EncodeError(f"{self.minimum} bytes are wanted, not {len(value)}")
        out += value

    def decode_from(self, reader: Reader) -> bytes:
        """Take `size` bytes."""
        start = reader.start
        stop = start + self.minimum
        if stop > reader.end:
            raise out_of_bounds(self.minimum, reader.end - start)
        reader.start = stop
        return bytes(reader.buffer[start:stop])


class StringCodec(Codec[str]):
    """A `uint` length in bytes, then the text's bytes.

    `to_bytes` may raise `ValueError` (told as `EncodeError`); `from_bytes` takes whatever comes.
    """

    __slots__ = ("_from_bytes", "_to_bytes")

    def __init__(
        self, to_bytes: Callable[[str], bytes], from_bytes: Callable[[Buffer], str]
    ) -> None:
        self._to_bytes = to_bytes
        self._from_bytes = from_bytes

    def text_to_bytes(self, value: str) -> bytes:
        """The bytes of `value` without a length; `EncodeError` when it has none."""
        if not isinstance(value, str):
            raise EncodeError(f"a string is a str, not {type(value).__name__}")
        try:
            return self._to_bytes(value)
        except ValueError as error:
            raise EncodeError(f"the text does not fit its encoding: {error}") from error

    def bytes_to_text(self, data: Buffer) -> str:
        """The text of `data`, with U+FFFD where it is not valid."""
        return self._from_bytes(data)

    def encode_into(self, out: bytearray, value: str) -> None:
        """Append length and text."""
        data = self.text_to_bytes(value)
        out += encode_uint(len(data))
        out += data

    def decode_from(self, reader: Reader) -> str:
        """Take length and text."""
        return self._from_bytes(_take_prefixed(reader))

    def fixed(self, size: int) -> Codec[str]:
        """The same text in exactly `size` bytes, shorter text padded with zero bytes."""
        return FixedStringCodec(self, size)


class FixedStringCodec(Codec[str]):
    """Text in exactly `size` bytes without a length."""

    __slots__ = ("_string", "minimum")

    def __init__(self, string: StringCodec, size: int) -> None:
        self._string = string
        self.minimum = size

    def encode_into(self, out: bytearray, value: str) -> None:
        """Append the text and its padding; `EncodeError` when it is too long."""
        data = self._string.text_to_bytes(value)
        if len(data) > self.minimum:
            raise EncodeError(f"the text takes {len(data)} bytes of {self.minimum}")
        out += data.ljust(self.minimum, b"\0")

    def decode_from(self, reader: Reader) -> str:
        """Take `size` bytes; padding is part of the text."""
        return self._string.bytes_to_text(reader.take(self.minimum))


class RawBytesCodec(Codec[Buffer]):
    """Everything up to the reader's limit: it must come last."""

    __slots__ = ()
    minimum = 0

    def encode_into(self, out: bytearray, value: Buffer) -> None:
        """Append the bytes as they are."""
        out += checked_bytes(value)

    def decode_from(self, reader: Reader) -> bytes:
        """Take what is left."""
        start = reader.start
        reader.start = reader.end
        return bytes(reader.buffer[start : reader.end])


class RawStringCodec(Codec[str]):
    """Text up to the reader's limit."""

    __slots__ = ("_string",)
    minimum = 0

    def __init__(self, string: StringCodec) -> None:
        self._string = string

    def encode_into(self, out: bytearray, value: str) -> None:
        """Append the text without a length."""
        out += self._string.text_to_bytes(value)

    def decode_from(self, reader: Reader) -> str:
        """Take what is left."""
        return self._string.bytes_to_text(reader.take(reader.remaining))


class TypedArrayCodec(Codec[Sequence[Any]]):
    """A `uint` element count and the elements, little endian, two's complement (no zig-zag).

    `prefixed=False` reads elements up to the reader's limit instead, as the `raw` forms do.
    """

    __slots__ = ("_letter", "_prefixed", "_size", "minimum")

    def __init__(self, letter: str, *, prefixed: bool = True) -> None:
        self._letter = letter
        self._size = struct.calcsize("<" + letter)
        self._prefixed = prefixed
        self.minimum = 1 if prefixed else 0

    def encode_into(self, out: bytearray, value: Sequence[Any]) -> None:
        """Append count and elements; `EncodeError` when one does not fit its width."""
        try:
            data = struct.pack(f"<{len(value)}{self._letter}", *value)
        except (struct.error, OverflowError, TypeError) as error:
            raise EncodeError(f"not an array of {8 * self._size}-bit elements: {error}") from error
        if self._prefixed:
            out += encode_uint(len(value))
        out += data

    def decode_from(self, reader: Reader) -> list[Any]:
        """Take count and elements, as a list."""
        if self._prefixed:
            count = reader.take_count(self._size)
        else:
            count, rest = divmod(reader.remaining, self._size)
            if rest:
                raise DecodeError(f"{rest} bytes are not an element of {self._size}")
        return list(struct.unpack(f"<{count}{self._letter}", reader.take(count * self._size)))


class BitArrayCodec(Codec[Sequence[bool]]):
    """A `uint` number of bits and their bytes, the least significant bit first."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Sequence[bool]) -> None:
        """Append count and bits."""
        if not isinstance(value, list | tuple):
            raise EncodeError(f"a bit array is a list or tuple, not {type(value).__name__}")
        out += encode_uint(len(value))
        packed = bytearray((len(value) + 7) // 8)
        for index, bit in enumerate(value):
            if bit:
                packed[index >> 3] |= 1 << (index & 7)
        out += packed

    def decode_from(self, reader: Reader) -> list[bool]:
        """Take count and bits, as a list."""
        count, reader.start = read_uint(reader.buffer, reader.start, reader.end)
        packed = reader.take((count + 7) // 8)
        return [bool(packed[index >> 3] >> (index & 7) & 1) for index in range(count)]


class NoneCodec(Codec[None]):
    """Nothing at all; decodes as None."""

    __slots__ = ()
    minimum = 0

    def encode_into(self, out: bytearray, value: None) -> None:
        """Append nothing."""

    def decode_from(self, reader: Reader) -> None:
        """Take nothing."""


def _encode_utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise EncodeError(f"the text is not Unicode: {error.reason}") from error


def _decode_utf8(data: Buffer) -> str:
    return str(data, "utf-8", "replace")


def _decode_ascii(data: Buffer) -> str:
    return bytes(data).translate(_SEVEN_BITS).decode("ascii")  # as Node: the high bit is dropped


def _decode_utf16(data: Buffer) -> str:
    return str(data[: len(data) & ~1], "utf-16-le", "surrogatepass")


def _encode_base64(text: str) -> bytes:
    return base64_module.b64decode(text, validate=True)


buffer = BufferCodec()
uint8array = buffer
arraybuffer = buffer
optional_buffer = OptionalBufferCodec()
binary = BinaryCodec()
none = NoneCodec()
bitarray = BitArrayCodec()

string = StringCodec(str.encode, _decode_utf8)
utf8 = string
ascii_ = StringCodec(lambda text: text.encode("ascii"), _decode_ascii)
hex_ = StringCodec(bytes.fromhex, lambda data: bytes(data).hex())
base64 = StringCodec(_encode_base64, lambda data: binascii.b2a_base64(data, newline=False).decode())
utf16le = StringCodec(lambda text: text.encode("utf-16-le", "surrogatepass"), _decode_utf16)
ucs2 = utf16le

uint16array = TypedArrayCodec("H")
uint32array = TypedArrayCodec("I")
int8array = TypedArrayCodec("b")
int16array = TypedArrayCodec("h")
int32array = TypedArrayCodec("i")
biguint64array = TypedArrayCodec("Q")
bigint64array = TypedArrayCodec("q")
float32array = TypedArrayCodec("f")
float64array = TypedArrayCodec("d")


def fixed(size: int) -> FixedCodec:
    """Exactly `size` bytes without a length."""
    if size < 0:
        raise EncodeError(f"a size is 0 or more, not {size}")
    return FixedCodec(size)


fixed8 = fixed(8)
fixed16 = fixed(16)
fixed24 = fixed(24)
fixed32 = fixed(32)
fixed64 = fixed(64)
