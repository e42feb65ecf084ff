"""Structs as the schema compiler lays them out (hyperschema 1.26.2).

`Struct(Field("a", uint, required=True), Field("note", string))` is a codec of dicts. The rules are
those of `compact-encoding.md` section 6; the numbers in the comments are theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from covey.errors import DecodeError, EncodeError, UsageError
from covey.wire.binary import bitarray
from covey.wire.codec import Codec, Reader, encode_uint, uint
from covey.wire.containers import array, frame
from covey.wire.numeric import BoolCodec

T = TypeVar("T")

_MAX_FLAG_BITS = 53


@dataclass(frozen=True, slots=True)
class Bits:
    """An unsigned integer of 1 to 7 bits. Not a codec: it lives in the flags of a struct."""

    bits: int
    default: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 7:
            raise UsageError(f"a bit-sized uint has 1 to 7 bits, not {self.bits}")


def bits(count: int) -> Bits:
    """`uint1` to `uint7` of the schema compiler."""
    return Bits(count)


class EnumCodec(Codec[Any]):
    """Names numbered from `offset`, written as `uint`.

    Values are the numbers themselves, and unknown ones pass through. With `strings` they are the
    names, and unknown numbers decode to None (rule 10).
    """

    __slots__ = ("_names", "_numbers", "_strings", "default")

    def __init__(self, names: Sequence[str], *, offset: int = 1, strings: bool = False) -> None:
        self._names = dict(enumerate(names, offset))
        self._numbers = {name: number for number, name in self._names.items()}
        self._strings = strings
        self.default = None if strings else 0

    def __getitem__(self, name: str) -> int:
        """The number of `name`; `KeyError` when there is none."""
        return self._numbers[name]

    def encode_into(self, out: bytearray, value: Any) -> None:
        """Append the number; `EncodeError` for an unknown name."""
        if self._strings:
            number = self._numbers.get(value) if isinstance(value, str) else None
            if number is None:
                raise EncodeError(f"{value!r} is none of {', '.join(self._numbers)}")
            value = number
        uint.encode_into(out, value)

    def decode_from(self, reader: Reader) -> Any:
        """Take the number."""
        number = uint.decode_from(reader)
        return self._names.get(number) if self._strings else number


def member(codec: Codec[T]) -> Codec[T]:
    """`codec` as it stands inside others: a struct that is not compact gets a frame (rule 8)."""
    return codec if getattr(codec, "compact", True) else frame(codec)


def array_of(codec: Codec[Any]) -> Codec[Any]:
    """An array of `codec` as the schema compiler writes it; of bools, a bit array (rule 9)."""
    return bitarray if isinstance(codec, BoolCodec) else array(member(codec))


class Field:
    """One field of a struct: its name, its codec, whether it must be there.

    A field that is not `required` reads as `default` when absent. `array` makes it an array.
    """

    __slots__ = ("bits", "codec", "default", "flagged", "name", "required")
    codec: Codec[Any] | None

    def __init__(
        self, name: str, codec: Codec[Any] | Bits, *, required: bool = False, array: bool = False
    ) -> None:
        self.name = name
        self.required = required
        self.default = None if array else codec.default
        if isinstance(codec, Bits):
            if array:
                raise UsageError(f"the field {name} cannot be an array of bits")
            self.bits, self.codec = codec.bits, None
        elif isinstance(codec, BoolCodec) and not array:
            self.bits, self.codec = 1, None
        else:
            self.bits = 0 if required else 1
            self.codec = array_of(codec) if array else member(codec)
        self.flagged = self.bits > 0  # without a codec the flags hold all of it (rule 3)

    def flags_of(self, value: Any) -> int:
        """What this field puts in its bits of the flags; `EncodeError` when it does not fit."""
        if self.codec is not None:
            return int(is_present(value))
        if self.bits == 1 and not isinstance(value, int):
            return int(bool(value))
        number = 0 if value is None else value
        if not isinstance(number, int) or not 0 <= number < 1 << self.bits:
            raise EncodeError(f"{self.name} has {self.bits} bits and cannot hold {value!r}")
        return number

    def of_flags(self, number: int) -> Any:
        """The value that these bits of the flags stand for, where the flags hold it."""
        return bool(number) if self.default is False else number


def is_present(value: Any) -> bool:
    """Whether an optional field is written: what JavaScript calls truthy (rule 5).

    0, NaN, False, None and the empty string are not; empty bytes and empty lists are.
    """
    if isinstance(value, int | float):
        return bool(value == value and value != 0)  # noqa: PLR0124 (NaN differs from itself)
    return value is not None and value != ""


class Struct(Codec[Mapping[str, Any]]):
    """Fields in order, with one flags value where the first field that needs a flag stands.

    Values are mappings by field name; names that are no field are ignored, as the reference does.
    `compact` structs have flags of a fixed width and stand in others without a frame.
    `flags_added_later`: the optional fields came with a later version of the schema, so input that
    ends where the flags would be is an old encoding, with none of them (rule 7).
    """

    __slots__ = ("_fields", "_flags_later", "_flags_width", "compact", "minimum")

    def __init__(
        self, *fields: Field, compact: bool = False, flags_added_later: bool = False
    ) -> None:
        for field in fields:
            if not isinstance(field, Field):
                raise TypeError(f"a struct is made of fields, Struct(Field(…), …), not {field!r}")
        flag_bits = sum(field.bits for field in fields if field.flagged)
        if flag_bits > _MAX_FLAG_BITS:
            raise UsageError(f"a struct has at most {_MAX_FLAG_BITS} flag bits, not {flag_bits}")
        if len({field.name for field in fields}) != len(fields):
            raise UsageError("two fields of a struct have the same name")
        self._fields = fields
        self._flags_later = flags_added_later
        self.compact = compact
        # Rule 4: None stands for a `uint`, whose width depends on the value.
        self._flags_width = max(1, -(-flag_bits // 8)) if compact else None
        self.minimum = sum(
            field.codec.minimum for field in fields if field.codec is not None and field.required
        )
        if flag_bits and not flags_added_later:
            self.minimum += self._flags_width or 1

    def encode_into(self, out: bytearray, value: Mapping[str, Any]) -> None:
        """Append the struct; `EncodeError` when a required field is missing or does not fit."""
        if not isinstance(value, Mapping):
            raise EncodeError(f"a struct is a mapping, not {type(value).__name__}")
        flags_written = False
        for field in self._fields:
            item = value.get(field.name)
            if field.flagged and not flags_written:
                self._write_flags(out, value)
                flags_written = True
            if field.codec is None:
                continue
            if field.required:
                if item is None:
                    raise EncodeError(f"the field {field.name} is required")
                field.codec.encode_into(out, item)
            elif is_present(item):
                field.codec.encode_into(out, item)

    def decode_from(self, reader: Reader) -> dict[str, Any]:
        """Take the struct: every field is in the dict, absent ones with their default."""
        values: dict[str, Any] = {}
        flags = -1
        for field in self._fields:
            number = 1
            if field.flagged:
                if flags < 0:
                    flags = self._read_flags(reader)
                number = flags & ((1 << field.bits) - 1)
                flags >>= field.bits
            if field.codec is None:
                values[field.name] = field.of_flags(number)
            elif number:
                values[field.name] = field.codec.decode_from(reader)
            else:
                values[field.name] = field.default
        return values

    def _write_flags(self, out: bytearray, value: Mapping[str, Any]) -> None:
        flags = shift = 0
        for field in self._fields:
            if field.flagged:
                flags |= field.flags_of(value.get(field.name)) << shift
                shift += field.bits
        if self._flags_width is None:
            out += encode_uint(flags)
        else:
            out += flags.to_bytes(self._flags_width, "little")

    def _read_flags(self, reader: Reader) -> int:
        if self._flags_later and reader.start >= reader.end:
            return 0
        if self._flags_width is None:
            return uint.decode_from(reader)
        return int.from_bytes(reader.take(self._flags_width), "little")


class VersionedCodec(Codec[Mapping[str, Any]]):
    """A `uint` version, told in the mapping as `"version"`, and the struct of it (rule 11)."""

    __slots__ = ("_versions",)

    def __init__(self, versions: Mapping[int, Codec[Any]]) -> None:
        self._versions = {version: member(codec) for version, codec in versions.items()}

    def encode_into(self, out: bytearray, value: Mapping[str, Any]) -> None:
        """Append version and struct; `EncodeError` for an unknown version."""
        version = value.get("version") if isinstance(value, Mapping) else None
        codec = self._versions.get(version) if isinstance(version, int) else None
        if codec is None or not isinstance(version, int):
            raise EncodeError(f"unknown version: {version!r}")
        out += encode_uint(version)
        codec.encode_into(out, value)

    def decode_from(self, reader: Reader) -> dict[str, Any]:
        """Take version and struct; `DecodeError` for an unknown version."""
        version = uint.decode_from(reader)
        codec = self._versions.get(version)
        if codec is None:
            raise DecodeError(f"unknown version: {version}")
        return {**codec.decode_from(reader), "version": version}


def versioned(versions: Mapping[int, Codec[Any]]) -> VersionedCodec:
    """A struct for each version of a type."""
    return VersionedCodec(versions)


def enum(names: Sequence[str], *, offset: int = 1, strings: bool = False) -> EnumCodec:
    """Names numbered from `offset`; `strings`: values are the names."""
    return EnumCodec(names, offset=offset, strings=strings)


__all__ = [
    "Bits",
    "EnumCodec",
    "Field",
    "Struct",
    "VersionedCodec",
    "array_of",
    "bits",
    "enum",
    "is_present",
    "member",
    "versioned",
]
