"""All cases of the compact encoding vectors, by kind."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from covey.errors import DecodeError, EncodeError
from covey.wire import encoding, structs
from covey.wire.encoding import Codec, IpAddress, Reader, Timestamp, decode, encode
from covey.wire.structs import Field, Struct
from tests.vectors_path import load_vectors

VECTORS = load_vectors("compact-encoding")
CASES = VECTORS["cases"]
BUILTINS = {"int", "bool", "any", "hex", "ascii"}


def snake(name: str) -> str:
    name = re.sub("(?<=[a-z0-9])[A-Z]", lambda m: "_" + m[0].lower(), name)
    return name + "_" if name in BUILTINS else name


def split_arguments(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return parts


def codec_named(name: str) -> Codec[Any]:
    """The codec that a vector's type means, such as `array(frame(uint))` or `raw.string`."""
    if match := re.fullmatch(r"(?:(\w+)\.)?(\w+)\((.*)\)", name):
        owner, function, inside = match.groups()
        scope: Any = getattr(encoding, snake(owner)) if owner else encoding
        arguments = [
            int(part) if part.isdigit() else codec_named(part) for part in split_arguments(inside)
        ]
        made: Codec[Any] = getattr(scope, function)(*arguments)
        return made
    owner, _, attribute = name.rpartition(".")
    found: Codec[Any] = (
        getattr(getattr(encoding, snake(owner)), attribute)
        if owner
        else getattr(encoding, snake(attribute))
    )
    return found


def plain(value: Any) -> Any:
    """A vector's value in Python."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"$hex": text}:
            return bytes.fromhex(text)
        case {"$int": text}:
            return int(text)
        case {"$float": text}:
            return float(text)
        case {"$date": milliseconds}:
            return Timestamp(milliseconds)
        case {"host": host, "port": port, **rest}:
            address = IpAddress(host, port)
            assert rest.get("family", address.family) == address.family
            return address
    return {key: plain(item) for key, item in value.items()}


def same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        if math.isnan(left) or math.isnan(right):
            return math.isnan(left) and math.isnan(right)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    return bool(left == right) and isinstance(left, bool) == isinstance(right, bool)


def compile_structs(definitions: list[dict[str, Any]]) -> dict[str, Codec[Any]]:
    """The codecs that hyperschema's definitions mean, by name."""
    made: dict[str, Codec[Any]] = {}

    def of_type(name: str) -> Any:
        if name.startswith("@"):
            return made[name.rpartition("/")[2]]
        if match := re.fullmatch("uint([1-7])", name):
            return structs.bits(int(match[1]))
        return codec_named(name)

    def field(definition: dict[str, Any]) -> Field:
        return Field(
            definition["name"],
            of_type(definition["type"]),
            required=definition.get("required", False),
            array=definition.get("array", False),
        )

    for definition in definitions:
        name = definition["name"]
        if "enum" in definition:
            made[name] = structs.enum(
                definition["enum"],
                offset=definition.get("offset", 1),
                strings=definition.get("strings", False),
            )
        elif definition.get("record"):
            made[name] = encoding.record(of_type(definition["key"]), of_type(definition["value"]))
        elif definition.get("array"):
            made[name] = structs.array_of(of_type(definition["type"]))
        else:
            made[name] = Struct(
                *map(field, definition["fields"]), compact=definition.get("compact", False)
            )
    return made


STRUCTS = compile_structs(VECTORS["struct_definitions"])


def of_kind(*kinds: str) -> Any:
    return pytest.mark.parametrize(
        "case",
        [pytest.param(case, id=case["name"]) for case in CASES if case["kind"] in kinds],
    )


def test_every_kind_of_case_is_run() -> None:
    assert {case["kind"] for case in CASES} <= {
        "roundtrip",
        "decode",
        "encode",
        "decode-error",
        "encode-error",
        "struct",
        "struct-decode",
        "struct-decode-error",
    }


@of_kind("roundtrip")
def test_roundtrip(case: dict[str, Any]) -> None:
    codec, data = codec_named(case["type"]), bytes.fromhex(case["encoded"])
    value = plain(case["value"])
    nan = isinstance(value, float) and math.isnan(value)
    if not nan:  # the bytes of a NaN are the engine's own
        assert encode(codec, value) == data
    wanted = plain(case["decoded"] if "decoded" in case else case["value"])
    for form in (bytes, bytearray, memoryview):
        assert same(decode(codec, form(data)), wanted)


@of_kind("roundtrip")
def test_a_value_is_read_from_the_middle_and_no_further(case: dict[str, Any]) -> None:
    codec, data = codec_named(case["type"]), bytes.fromhex(case["encoded"])
    reader = Reader(b"\xff" + data + b"\x01", 1, 1 + len(data))
    wanted = plain(case["decoded"] if "decoded" in case else case["value"])
    assert same(codec.decode_from(reader), wanted)
    assert (reader.start, reader.end) == (1 + len(data), 1 + len(data))


@of_kind("roundtrip", "struct")
def test_every_prefix_raises_or_reads_a_shorter_value(case: dict[str, Any]) -> None:
    codec = STRUCTS[case["struct"]] if "struct" in case else codec_named(case["type"])
    data = bytes.fromhex(case["encoded"])
    for size in range(len(data)):
        reader = Reader(data, 0, size)
        try:
            codec.decode_from(reader)
        except DecodeError:
            continue
        assert reader.start <= size


@of_kind("decode")
def test_decode_takes_exactly_what_it_needs(case: dict[str, Any]) -> None:
    codec = codec_named(case["type"])
    reader = Reader(bytes.fromhex(case["encoded"]))
    assert same(codec.decode_from(reader), plain(case["value"]))
    assert reader.start == case["consumed"]


@of_kind("decode-error")
def test_bad_bytes_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode(codec_named(case["type"]), bytes.fromhex(case["encoded"]))


@of_kind("encode-error")
def test_bad_values_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(EncodeError):
        encode(codec_named(case["type"]), plain(case["value"]))


@of_kind("encode")
def test_what_the_reference_truncates_is_refused_or_the_same(case: dict[str, Any]) -> None:
    try:
        data = encode(codec_named(case["type"]), plain(case["value"]))
    except EncodeError:
        return
    assert data.hex() == case["encoded"]


@of_kind("struct")
def test_struct(case: dict[str, Any]) -> None:
    codec, data = STRUCTS[case["struct"]], bytes.fromhex(case["encoded"])
    assert encode(codec, plain(case["value"])).hex() == case["encoded"]
    assert same(decode(codec, data), plain(case["decoded"]))
    assert len(data) >= codec.minimum


@of_kind("struct-decode")
def test_struct_decode(case: dict[str, Any]) -> None:
    decoded = decode(STRUCTS[case["struct"]], bytes.fromhex(case["encoded"]))
    assert same(decoded, plain(case["value"]))


@of_kind("struct-decode-error")
def test_bad_struct_bytes_are_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DecodeError):
        decode(STRUCTS[case["struct"]], bytes.fromhex(case["encoded"]))
