"""Compact encoding under random values and hostile bytes (`compact-encoding.md` sections 8, 9)."""

from __future__ import annotations

import contextlib
import math
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from covey.errors import CoveyError, DecodeError, EncodeError, UsageError
from covey.wire import encoding as c
from covey.wire.encoding import Codec, IpAddress, Reader, Timestamp, decode, encode
from covey.wire.structs import Field, Struct, bits, enum, versioned

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
UINT = st.integers(0, c.MAX_UINT)
INT = st.integers(-(1 << 52), (1 << 52) - 1)
FLOAT = st.floats(allow_nan=False)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | INT | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)
ANY: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | INT | TEXT | FLOAT | st.binary() | INT.map(Timestamp),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
)
NOTE = Struct(Field("id", c.uint, required=True), Field("text", c.string), Field("seen", c.bool_))


def widths(name: str, bytes_each: int, sign: bool) -> tuple[Codec[Any], st.SearchStrategy[Any]]:
    width = min(8 * bytes_each, 53)
    low, high = (-(1 << width - 1), (1 << width - 1) - 1) if sign else (0, (1 << width) - 1)
    return getattr(c, name), st.integers(low, high)


SAMPLES: dict[str, tuple[Codec[Any], st.SearchStrategy[Any]]] = {
    "uint": (c.uint, UINT),
    "int": (c.int_, INT),
    **{f"uint{8 * n}": widths(f"uint{8 * n}", n, False) for n in range(1, 9)},
    **{f"int{8 * n}": widths(f"int{8 * n}", n, True) for n in range(1, 9)},
    "uint32be": widths("uint32be", 4, False),
    "uint64be": widths("uint64be", 8, False),
    "biguint64": (c.biguint64, st.integers(0, (1 << 64) - 1)),
    "bigint64": (c.bigint64, st.integers(-(1 << 63), (1 << 63) - 1)),
    "biguint": (c.biguint, st.integers(0, 1 << 300)),
    "bigint": (c.bigint, st.integers(-(1 << 300), 1 << 300)),
    "float32": (c.float32, st.floats(width=32, allow_nan=False)),
    "float64": (c.float64, FLOAT),
    "lexint": (c.lexint, st.integers(0, (1 << 32) - 1) | st.integers((1 << 32) + 251, 1 << 43)),
    "bool": (c.bool_, st.booleans()),
    "none": (c.none, st.none()),
    "buffer": (c.buffer, st.binary(max_size=600)),
    "optional_buffer": (c.optional_buffer, st.none() | st.binary(min_size=1)),
    "binary": (c.binary, st.binary()),
    "fixed32": (c.fixed32, st.binary(min_size=32, max_size=32)),
    "string": (c.string, TEXT),
    "ascii": (c.ascii_, st.text(st.characters(max_codepoint=127))),
    "hex": (c.hex_, st.binary().map(bytes.hex)),
    "utf16le": (c.utf16le, st.text()),
    "bitarray": (c.bitarray, st.lists(st.booleans())),
    "uint32array": (c.uint32array, st.lists(st.integers(0, (1 << 32) - 1))),
    "int16array": (c.int16array, st.lists(st.integers(-(1 << 15), (1 << 15) - 1))),
    "array(uint)": (c.array(c.uint), st.lists(UINT)),
    "array(array(string))": (c.array(c.array(c.string)), st.lists(st.lists(TEXT))),
    "frame(string)": (c.frame(c.string), TEXT),
    "record": (c.record(c.string, c.uint), st.dictionaries(TEXT, UINT)),
    "date": (c.date, INT.map(Timestamp)),
    "json": (c.json, JSON),
    "ndjson": (c.ndjson, JSON),
    "any": (c.any_, ANY),
    "ipv4": (c.ipv4, st.ip_addresses(v=4).map(str)),
    "ip_address": (
        c.ip_address,
        st.builds(IpAddress, st.ip_addresses(v=4).map(str), st.integers(0, 65535)),
    ),
    "raw": (c.raw, st.binary()),
    "raw.string": (c.raw.string, TEXT),
    "raw.json": (c.raw.json, JSON),
    "raw.array(uint)": (c.raw.array(c.uint), st.lists(UINT)),
    "raw.uint16array": (c.raw.uint16array, st.lists(st.integers(0, 65535))),
    "struct": (
        NOTE,
        st.fixed_dictionaries(
            {"id": UINT, "text": st.none() | TEXT.filter(bool), "seen": st.booleans()}
        ),
    ),
    "array(struct)": (c.array(c.frame(NOTE)), st.just([{"id": 1, "text": "a", "seen": True}])),
}
each_sample = pytest.mark.parametrize("name", SAMPLES)
quick = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@each_sample
@quick
@given(data=st.data())
def test_what_is_encoded_decodes_to_itself(name: str, data: st.DataObject) -> None:
    codec, values = SAMPLES[name]
    value = data.draw(values)
    encoded = encode(codec, value)
    reader = Reader(memoryview(encoded))
    assert codec.decode_from(reader) == value
    assert reader.remaining == 0
    assert len(encoded) >= codec.minimum


@each_sample
@quick
@given(data=st.data())
def test_every_strict_prefix_raises_or_stays_inside(name: str, data: st.DataObject) -> None:
    codec, values = SAMPLES[name]
    encoded = encode(codec, data.draw(values))
    for size in range(min(len(encoded), 64)):
        reader = Reader(encoded, 0, size)
        try:
            codec.decode_from(reader)
        except DecodeError:
            continue
        assert reader.start <= reader.end == size


@each_sample
@quick
@given(junk=st.binary(max_size=200))
def test_random_bytes_raise_nothing_but_decode_errors(name: str, junk: bytes) -> None:
    codec, _ = SAMPLES[name]
    with contextlib.suppress(DecodeError):
        decode(codec, junk)


@pytest.mark.parametrize("name", [name for name in SAMPLES if not name.startswith("raw")])
@pytest.mark.parametrize(
    "claim",
    ["ffffffffffffff1f00", "fe00001000", "feffffffff", "08feffffffff", "07feffffffff"],
    ids=["2^53-1", "2^20", "2^32-1", "object", "list"],
)
def test_a_claimed_count_allocates_nothing(name: str, claim: str) -> None:
    codec, _ = SAMPLES[name]
    data = bytes.fromhex(claim) + b"\x00" * 64
    tracemalloc.start()
    try:
        decode(codec, data)
    except DecodeError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 40_000


@pytest.mark.parametrize(
    "codec", [c.array(c.uint), c.any_, c.bitarray, c.record(c.string, c.uint), c.biguint, c.json]
)
@pytest.mark.parametrize("filler", [0x00, 0x01, 0x07, 0x08, 0x5B, 0xFF])
def test_memory_is_a_small_multiple_of_the_input(codec: Codec[Any], filler: int) -> None:
    size = 1 << 15
    data = b"\xfe" + (size - 16).to_bytes(4, "little") + bytes([filler]) * size
    tracemalloc.start()
    try:
        for prefix in (b"", b"\x07", b"\x08"):
            with contextlib.suppress(DecodeError):
                decode(codec, prefix + data)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 128 * len(data)


def test_array_of_more_than_2_to_the_20_elements_is_refused_although_they_are_there() -> None:
    data = encode(c.uint, c.MAX_ARRAY + 1)
    with pytest.raises(DecodeError, match="at most"):
        decode(c.array(c.uint), data + bytes(c.MAX_ARRAY + 1))
    with pytest.raises(EncodeError, match="at most"):
        encode(c.array(c.uint), [0] * (c.MAX_ARRAY + 1))
    assert len(decode(c.array(c.uint), encode(c.uint, c.MAX_ARRAY) + bytes(c.MAX_ARRAY))) == 1 << 20


@pytest.mark.parametrize("element", [c.none, c.raw, c.fixed(0), Struct()])
def test_arrays_of_elements_without_size_are_forbidden(element: Codec[Any]) -> None:
    for make in (c.array, c.raw.array):
        with pytest.raises(UsageError):
            make(element)
    with pytest.raises(UsageError):
        c.record(c.fixed(0), element)


@pytest.mark.parametrize(("opening", "closing"), [(b"\x07\x01", b""), (b"\x08\x01\x00", b"")])
def test_any_is_bounded_in_depth(opening: bytes, closing: bytes) -> None:
    limit = c.MAX_ANY_DEPTH
    assert decode(c.any_, opening * limit + b"\x00" + closing) is not None
    for levels in (limit + 1, 100_000):
        with pytest.raises(DecodeError, match="levels"):
            decode(c.any_, opening * levels + b"\x00" + closing)


def test_any_too_deep_is_not_encoded() -> None:
    value: Any = None
    for _ in range(c.MAX_ANY_DEPTH + 1):
        value = [value]
    with pytest.raises(EncodeError, match="levels"):
        encode(c.any_, value)
    assert decode(c.any_, encode(c.any_, value[0])) == value[0]


def test_any_keeps_keys_that_mean_something_elsewhere() -> None:
    value = {"__proto__": 1, "constructor": {"__class__": 2}}
    assert decode(c.any_, encode(c.any_, value)) == value


def test_any_tells_a_date_from_a_number() -> None:
    back = decode(c.any_, encode(c.any_, [Timestamp(5), 5]))
    assert [type(item) for item in back] == [Timestamp, int]


@pytest.mark.parametrize("value", [object(), {1, 2}, 1j])
def test_any_refuses_other_types(value: object) -> None:
    with pytest.raises(EncodeError):
        encode(c.any_, value)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 50_000, "NaN", "[Infinity]", "1" * 10_000, "\ufeff1", ""]
)
def test_hostile_json_is_a_decode_error(text: str) -> None:
    with pytest.raises(DecodeError):
        decode(c.json, encode(c.string, text))


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {1: {2}}, "\ud800"])
def test_what_json_cannot_hold_is_an_encode_error(value: object) -> None:
    with pytest.raises(EncodeError):
        encode(c.json, value)


@pytest.mark.parametrize(
    ("codec", "value"),
    [
        (c.uint, "1"),
        (c.uint, None),
        (c.uint, 1.5),
        (c.uint8, 256),
        (c.uint8, -1),
        (c.uint16, 65537),
        (c.uint64, 1 << 53),
        (c.int8, 128),
        (c.int_, 1.0),
        (c.biguint, -1),
        (c.float32, 1e39),
        (c.float64, "x"),
        (c.lexint, 1 << 32),
        (c.lexint, 1 << 53),
        (c.buffer, "text"),
        (c.buffer, [1]),
        (c.string, b"bytes"),
        (c.string, "\ud800"),
        (c.binary, "\ud800"),
        (c.ascii_, "é"),
        (c.hex_, "zz"),
        (c.base64, "!"),
        (c.string.fixed(2), "abc"),
        (c.fixed32, b""),
        (c.uint16array, [65536]),
        (c.uint16array, ["a"]),
        (c.int8array, None),
        (c.array(c.uint), "12"),
        (c.array(c.uint), None),
        (c.record(c.string, c.uint), [1]),
        (c.ipv4, "127.1"),
        (c.ipv4, "0177.0.0.1"),
        (c.ipv6, "fe80::1%eth0"),
        (c.ip, "host"),
        (c.ip, 4),
        (c.port, 65536),
        (c.ip_address, "10.0.0.1:80"),
        (c.ip_address, ("10.0.0.1", "80")),
        (c.bitarray, 5),
        (NOTE, [1]),
        (NOTE, {"text": "no id"}),
    ],
)
def test_a_value_that_does_not_fit_is_an_encode_error(codec: Codec[Any], value: Any) -> None:
    with pytest.raises(EncodeError):
        encode(codec, value)


@pytest.mark.parametrize("family", [0, 5, 7, 255])
def test_address_families_other_than_4_and_6_are_refused(family: int) -> None:
    with pytest.raises(DecodeError, match="family"):
        decode(c.ip, bytes([family]) + bytes(16))


def test_lexint_sorts_as_its_values_do() -> None:
    values = [0, 1, 250, 251, 255, 256, 65535, 65536, 1 << 24, (1 << 32) - 1, 1 << 33, 1 << 52]
    encoded = [encode(c.lexint, value) for value in values]
    assert encoded == sorted(encoded)


@pytest.mark.parametrize("data", ["ff15000000000001", "ff14ffffffffffff", "ffff00000000"])
def test_lexint_beyond_2_to_the_53_is_refused(data: str) -> None:
    with pytest.raises(DecodeError):
        decode(c.lexint, bytes.fromhex(data))


def test_raw_forms_stop_at_the_limit_and_not_at_the_end_of_the_buffer() -> None:
    data = b"\x02hi\x03abc"
    codecs: list[Codec[Any]] = [c.raw, c.raw.buffer, c.raw.string]
    for codec, value in zip(codecs, (b"hi", b"hi", "hi"), strict=True):
        framed = c.frame(codec)
        reader = Reader(data)
        assert framed.decode_from(reader) == value
        assert reader.start == 3
        assert reader.end == len(data)


def test_a_frame_puts_the_limit_back_when_its_content_is_bad() -> None:
    reader = Reader(b"\x02\xfd\x00\x05")
    with pytest.raises(DecodeError):
        c.frame(c.uint).decode_from(reader)
    assert (reader.start, reader.end) == (3, 4)
    assert c.uint.decode_from(reader) == 5


def test_decoded_bytes_do_not_keep_the_received_frame() -> None:
    frame = bytearray(b"\x02hi" + bytes(32))
    codecs: list[Codec[Any]] = [c.buffer, c.optional_buffer, c.raw, c.binary]
    kept = [decode(codec, memoryview(frame)) for codec in codecs]
    frame[:] = bytes(len(frame))
    frame.clear()  # would raise while anything still points into it
    assert kept[0] == b"hi"
    assert all(type(item) is bytes for item in kept)


@pytest.mark.parametrize(("start", "end"), [(-1, 2), (0, 4), (2, 1)])
def test_a_reader_outside_its_buffer_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="range"):
        Reader(b"abc", start, end)


@quick
@given(value=UINT)
def test_the_fast_helpers_agree_with_the_codec(value: int) -> None:
    data = c.encode_uint(value)
    assert data == encode(c.uint, value)
    assert c.read_uint(b"\xff" + data, 1, 1 + len(data)) == (value, 1 + len(data))
    with pytest.raises(DecodeError):
        c.read_uint(data + bytes(8), 0, len(data) - 1)


def test_bytes_in_any_form_are_written_alike() -> None:
    for form in (bytes, bytearray, memoryview):
        assert encode(c.buffer, form(b"ab")) == b"\x02ab"
        assert encode(c.fixed(2), form(b"ab")) == b"ab"
    with pytest.raises(EncodeError):
        encode(c.buffer, memoryview(struct.pack("II", 1, 2)).cast("I"))


def test_ascii_drops_the_high_bit_as_node_does() -> None:
    assert decode(c.ascii_, b"\x02\xe1b") == "ab"


def test_struct_flags_that_came_later_read_as_zero_at_the_end() -> None:
    fields = (Field("a", c.uint, required=True), Field("x", c.uint))
    old, late = Struct(*fields), Struct(*fields, flags_added_later=True)
    assert decode(late, b"\x01") == {"a": 1, "x": 0}
    assert decode(late, b"\x01\x01\x07") == {"a": 1, "x": 7}
    with pytest.raises(DecodeError):
        decode(old, b"\x01")
    assert (old.minimum, late.minimum) == (2, 1)


def test_struct_writes_empty_bytes_and_lists_but_not_empty_text_or_zero() -> None:
    codec = Struct(
        Field("b", c.buffer),
        Field("l", c.uint, array=True),
        Field("s", c.string),
        Field("n", c.int_),
    )
    assert encode(codec, {"b": b"", "l": [], "s": "", "n": 0}) == b"\x03\x00\x00"
    assert decode(codec, b"\x03\x00\x00") == {"b": b"", "l": [], "s": None, "n": 0}


def test_compact_struct_flags_have_a_fixed_width() -> None:
    codec = Struct(*(Field(f"f{n}", c.bool_) for n in range(9)), compact=True)
    assert encode(codec, {}) == b"\x00\x00"
    assert encode(codec, {"f8": True, "f0": True}) == b"\x01\x01"
    eight = Struct(*(Field(f"f{n}", c.bool_) for n in range(8)), compact=True)
    assert encode(eight, {"f7": True}) == b"\x80"


def test_bit_sized_field_that_does_not_fit_is_refused() -> None:
    codec = Struct(Field("a", bits(2)), Field("b", bits(3)))
    for value in (4, -1, "x"):
        with pytest.raises(EncodeError):
            encode(codec, {"a": value})
    with pytest.raises(UsageError):
        bits(8)


def test_structs_that_cannot_be_are_refused_when_made() -> None:
    with pytest.raises(UsageError, match="same name"):
        Struct(Field("a", c.uint), Field("a", c.uint))
    with pytest.raises(UsageError, match="flag bits"):
        Struct(*(Field(f"f{n}", c.uint) for n in range(54)))
    with pytest.raises(UsageError, match="array"):
        Field("a", bits(1), array=True)


def test_enum_numbers_pass_and_unknown_names_do_not() -> None:
    kinds, names = enum(["one", "two"]), enum(["one", "two"], strings=True, offset=0)
    assert kinds["two"] == 2
    assert decode(kinds, b"\x63") == 99
    assert decode(names, b"\x01") == "two"
    assert decode(names, b"\x63") is None
    with pytest.raises(EncodeError):
        encode(names, "three")


def test_versioned_struct_frames_each_version_and_refuses_unknown_ones() -> None:
    codec = versioned({0: Struct(Field("a", c.uint, required=True)), 2: NOTE})
    assert encode(codec, {"version": 0, "a": 5}) == b"\x00\x01\x05"
    assert decode(codec, b"\x02\x02\x07\x00\xff") == {
        "version": 2,
        "id": 7,
        "text": None,
        "seen": False,
    }
    with pytest.raises(DecodeError, match="version"):
        decode(codec, b"\x01\x01\x05")
    with pytest.raises(EncodeError, match="version"):
        encode(codec, {"version": 1, "a": 5})


def test_all_errors_of_bytes_are_faults_of_the_remote() -> None:
    assert issubclass(DecodeError, CoveyError)
    with pytest.raises(DecodeError, match="9 bytes wanted, 1 left"):
        decode(c.uint, b"\xff")


def test_a_struct_of_something_else_than_fields_is_refused() -> None:
    with pytest.raises(TypeError, match="Struct"):
        Struct([Field("a", c.uint)])  # type: ignore[arg-type]
