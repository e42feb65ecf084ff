"""Bodies of the replication messages: the vectors both ways, the bounds, hostile bytes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import DecodeError, EncodeError, ProtocolError
from covey.feed import messages as m
from covey.feed.hashes import Node
from covey.feed.manifest import Manifest, Prologue, Signer, default_manifest
from covey.wire.codec import Codec, Reader, decode, encode, encode_uint
from tests.vectors_path import load_vectors

VECTORS = load_vectors("hypercore-messages")
NAMES = (
    *("sync", "request", "cancel", "data", "noData"),
    *("want", "unwant", "bitfield", "range", "extension"),
)
CODECS: dict[str, Codec[Any]] = {
    "handshake": m.handshake_codec,
    **dict(zip(NAMES, m.MESSAGE_CODECS, strict=True)),
}
Json = dict[str, Any]
TOO_LARGE = b"\xff" + (1 << 53).to_bytes(8, "little")
HASH = bytes(range(32))


def data_bytes(text: str | None) -> bytes | None:
    return None if text is None else bytes.fromhex(text)


def nodes(records: list[Json]) -> list[Node]:
    return [Node(each["index"], each["size"], bytes.fromhex(each["hash"])) for each in records]


def manifest(record: Json | None) -> Manifest | None:
    if record is None:
        return None
    assert record["hash"] == "blake2b"
    prologue, linked = record["prologue"], record["linked"]
    return Manifest(
        version=record["version"],
        quorum=record["quorum"],
        allow_patch=record["allowPatch"],
        signers=tuple(
            Signer(bytes.fromhex(each["publicKey"]), bytes.fromhex(each["namespace"]))
            for each in record["signers"]
        ),
        prologue=prologue and Prologue(bytes.fromhex(prologue["hash"]), prologue["length"]),
        linked=None if linked is None else tuple(map(bytes.fromhex, linked)),
        user_data=data_bytes(record["userData"]),
    )


def sync(record: Json) -> m.Sync:
    return m.Sync(
        fork=record["fork"],
        length=record["length"],
        remote_length=record["remoteLength"],
        can_upgrade=record["canUpgrade"],
        uploading=record["uploading"],
        downloading=record["downloading"],
        has_manifest=record["hasManifest"],
        allow_push=record["allowPush"],
    )


def request(record: Json) -> m.Request:
    block, hashed, seek, upgrade = (record[key] for key in ("block", "hash", "seek", "upgrade"))
    return m.Request(
        id=record["id"],
        fork=record["fork"],
        block=block and m.BlockRequest(block["index"], block["nodes"]),
        hash=hashed and m.BlockRequest(hashed["index"], hashed["nodes"]),
        seek=seek and m.SeekRequest(seek["bytes"], seek["padding"]),
        upgrade=upgrade and m.UpgradeRequest(upgrade["start"], upgrade["length"]),
        manifest=record["manifest"],
        priority=record["priority"],
    )


def data(record: Json) -> m.Data:
    block, hashed, seek, upgrade = (record[key] for key in ("block", "hash", "seek", "upgrade"))
    return m.Data(
        request=record["request"],
        fork=record["fork"],
        block=block
        and m.BlockData(block["index"], bytes.fromhex(block["value"]), nodes(block["nodes"])),
        hash=hashed and m.HashData(hashed["index"], nodes(hashed["nodes"])),
        seek=seek and m.SeekData(seek["bytes"], nodes(seek["nodes"])),
        upgrade=upgrade
        and m.UpgradeData(
            upgrade["start"],
            upgrade["length"],
            nodes(upgrade["nodes"]),
            nodes(upgrade["additionalNodes"]),
            data_bytes(upgrade["signature"]),
        ),
        manifest=manifest(record["manifest"]),
    )


def bitfield(record: Json) -> m.BitfieldWords:
    words = record["bitfield"]["words"]
    return m.BitfieldWords(record["start"], b"".join(word.to_bytes(4, "little") for word in words))


BUILDERS: dict[str, Callable[[Json], Any]] = {
    "handshake": lambda each: m.Handshake(each["seeks"], bytes.fromhex(each["capability"])),
    "sync": sync,
    "request": request,
    "cancel": lambda each: m.Cancel(each["request"]),
    "data": data,
    "noData": lambda each: m.NoData(each["request"], each["reason"]),
    "want": lambda each: m.Want(each["start"], each["length"], each["any"]),
    "unwant": lambda each: m.Unwant(each["start"], each["length"], each["any"]),
    "bitfield": bitfield,
    "range": lambda each: m.Range(each["drop"], each["start"], each["length"]),
    "extension": lambda each: m.ExtensionMessage(each["name"], bytes.fromhex(each["message"])),
}


def described(cases: list[Json]) -> list[Any]:
    return [
        pytest.param(each, id=f"{number}-{each['description']}")
        for number, each in enumerate(cases)
    ]


@pytest.mark.parametrize("case", described(VECTORS["cases"]))
def test_vectors_hold_both_ways(case: Json) -> None:
    codec = CODECS[case["name"]]
    value, encoded = BUILDERS[case["name"]](case["decoded"]), bytes.fromhex(case["encoded"])
    if case["type"] >= 0:
        assert codec is m.MESSAGE_CODECS[case["type"]]
    assert encode(codec, value) == encoded
    for form in (encoded, bytearray(encoded), memoryview(encoded)):
        decoded = decode(codec, form)
        assert decoded == value
        assert type(decoded) is type(value)


@pytest.mark.parametrize("case", described(VECTORS["cases"]))
def test_a_cut_vector_is_refused_or_another_message(case: Json) -> None:
    """No prefix passes the limit of its reader, though the bytes behind it are there."""
    encoded = bytes.fromhex(case["encoded"])
    codec = CODECS[case["name"]]
    for end in range(len(encoded)):
        reader = Reader(encoded, 0, end)
        try:
            value = codec.decode_from(reader)
        except DecodeError:
            continue
        assert reader.start <= end
        assert case["name"] in ("noData", "want", "unwant", "extension")
        assert decode(codec, encode(codec, value)) == value


@pytest.mark.parametrize("case", described(VECTORS["malformed"]))
def test_malformed_vectors_end_as_told(case: Json) -> None:
    codec, encoded = CODECS[case["name"]], bytes.fromhex(case["encoded"])
    if "error" in case:
        with pytest.raises(DecodeError):
            decode(codec, encoded)
    else:
        assert decode(codec, encoded) == BUILDERS[case["name"]](case["decoded"])


@pytest.mark.parametrize(
    ("name", "flags", "numbers"),
    [
        ("handshake", b"", 1),
        ("sync", b"", 4),
        ("request", b"", 3),
        ("request", b"\x3f", 11),
        ("cancel", b"", 1),
        ("data", b"", 3),
        ("data", b"\x0f", 14),
        ("noData", b"", 2),
        ("noData", b"\1\1", 1),
        ("want", b"", 3),
        ("unwant", b"", 3),
        ("bitfield", b"", 2),
        ("range", b"", 3),
        ("extension", b"", 1),
    ],
)
def test_a_number_of_2_to_the_53_is_refused_in_every_place(
    name: str, flags: bytes, numbers: int
) -> None:
    for place in range(numbers):
        encoded = flags + bytes(place) + TOO_LARGE + bytes(40)
        with pytest.raises(DecodeError, match="at most"):
            decode(CODECS[name], encoded)


@pytest.mark.parametrize(
    "value",
    [
        m.Range(False, 1 << 53, 2),
        m.Sync(-1, 0, 0, False, False, False, False, False),
        m.Request(1 << 53, 0),
        m.Cancel(-1),
        m.Data(0, 1 << 53),
        m.NoData(0, -1),
        m.Want(0, 1 << 60, False),
    ],
)
def test_numbers_that_do_not_fit_are_not_sent(value: Any) -> None:
    codec = CODECS[type(value).__name__[0].lower() + type(value).__name__[1:]]
    with pytest.raises(EncodeError):
        encode(codec, value)


@pytest.mark.parametrize("name", CODECS)
def test_bytes_after_the_end_are_ignored(name: str) -> None:
    for case in VECTORS["cases"]:
        if case["name"] == name and name not in ("extension", "want", "unwant"):
            value = BUILDERS[name](case["decoded"])
            reader = Reader(bytes.fromhex(case["encoded"]) + b"\xff\xff")
            assert CODECS[name].decode_from(reader) == value
            assert reader.remaining == 2


@pytest.mark.parametrize("count", [3, 1000, 1 << 30, (1 << 53) - 1])
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("data", b"\1\0\0\0\0"),
        ("data", b"\2\0\0\0"),
        ("data", b"\4\0\0\0"),
        ("data", b"\x08\0\0\0\0"),
        ("data", b"\x08\0\0\0\0\0"),
        ("data", b"\x08\0\0\0\0\0\0"),
        ("data", b"\1\0\0\0"),
        ("bitfield", b"\0"),
        ("extension", b""),
    ],
)
def test_a_count_above_the_bytes_left_is_refused(name: str, head: bytes, count: int) -> None:
    with pytest.raises(DecodeError, match=r"out of bounds|at most"):
        decode(CODECS[name], head + encode_uint(count) + bytes(2))


def test_a_block_above_15_mib_is_refused_and_not_sent() -> None:
    whole = m.Data(1, 0, m.BlockData(0, bytes(m.MAX_BLOCK), []))
    encoded = encode(m.data_codec, whole)
    assert decode(m.data_codec, encoded) == whole
    larger = m.Data(1, 0, m.BlockData(0, bytes(m.MAX_BLOCK + 1), []))
    with pytest.raises(EncodeError, match="block"):
        encode(m.data_codec, larger)
    head = b"\1\1\0\0" + encode_uint(m.MAX_BLOCK + 1)
    with pytest.raises(DecodeError, match="block"):
        decode(m.data_codec, head + bytes(m.MAX_BLOCK + 2))


def test_more_nodes_than_any_proof_needs_are_refused_and_not_sent() -> None:
    most = m.Data(1, 0, hash=m.HashData(0, [Node(0, 0, HASH)] * m.MAX_NODES))
    encoded = encode(m.data_codec, most)
    assert decode(m.data_codec, encoded) == most
    count = m.MAX_NODES + 1
    with pytest.raises(EncodeError, match="nodes"):
        encode(m.data_codec, m.Data(1, 0, hash=m.HashData(0, [Node(0, 0, HASH)] * count)))
    with pytest.raises(DecodeError, match="nodes"):
        decode(m.data_codec, b"\2\1\0\0" + encode_uint(count) + bytes(34 * count))


def test_a_node_whose_hash_is_not_32_bytes_is_not_sent() -> None:
    with pytest.raises(EncodeError, match="hash"):
        encode(m.data_codec, m.Data(1, 0, hash=m.HashData(0, [Node(0, 0, HASH[1:])])))


def test_a_bitfield_above_its_words_is_refused_and_not_sent() -> None:
    most = m.BitfieldWords(0, bytes(4 * m.MAX_BITFIELD_WORDS))
    assert decode(m.bitfield_codec, encode(m.bitfield_codec, most)) == most
    with pytest.raises(EncodeError):
        encode(m.bitfield_codec, m.BitfieldWords(0, bytes(4 * m.MAX_BITFIELD_WORDS + 4)))
    with pytest.raises(EncodeError):
        encode(m.bitfield_codec, m.BitfieldWords(0, bytes(3)))
    count = m.MAX_BITFIELD_WORDS + 1
    with pytest.raises(DecodeError, match="words"):
        decode(m.bitfield_codec, b"\0" + encode_uint(count) + bytes(4 * count))


def test_a_name_above_its_bound_is_refused_and_not_sent() -> None:
    most = m.ExtensionMessage("n" * m.MAX_EXTENSION_NAME, b"payload")
    assert decode(m.extension_codec, encode(m.extension_codec, most)) == most
    size = m.MAX_EXTENSION_NAME + 1
    with pytest.raises(EncodeError, match="name"):
        encode(m.extension_codec, m.ExtensionMessage("n" * size, b""))
    with pytest.raises(DecodeError, match="name"):
        decode(m.extension_codec, encode_uint(size) + b"n" * size)


def test_a_name_that_is_no_utf_8_is_some_name() -> None:
    assert decode(m.extension_codec, b"\1\xffrest") == m.ExtensionMessage("\ufffd", b"rest")


def test_a_capability_of_another_size_is_refused_and_not_sent() -> None:
    with pytest.raises(EncodeError):
        encode(m.handshake_codec, m.Handshake(True, HASH[1:]))
    with pytest.raises(DecodeError):
        decode(m.handshake_codec, b"\0" + HASH[1:])


def test_empty_signatures_and_none_are_the_same() -> None:
    absent = m.Data(1, 0, upgrade=m.UpgradeData(0, 0, [], [], None))
    empty = m.Data(1, 0, upgrade=m.UpgradeData(0, 0, [], [], b""))
    assert encode(m.data_codec, absent) == encode(m.data_codec, empty)
    assert decode(m.data_codec, encode(m.data_codec, empty)) == absent


@pytest.mark.parametrize("flags", [0xC0, 0xFFC0, 1 << 40])
def test_unknown_flags_are_ignored_in_every_message(flags: int) -> None:
    unknown = encode_uint(flags)
    assert decode(m.sync_codec, unknown + b"\1\2\3").length == 2
    assert decode(m.request_codec, unknown + b"\1\2") == m.Request(1, 2)
    assert decode(m.data_codec, unknown + b"\1\2") == m.Data(1, 2)
    assert decode(m.no_data_codec, b"\1" + unknown) == m.NoData(1, 0)
    assert decode(m.want_codec, b"\1\2" + unknown) == m.Want(1, 2, False)
    assert decode(m.range_codec, unknown + b"\1\2") == m.Range(False, 1, 2)
    assert decode(m.handshake_codec, unknown + HASH) == m.Handshake(False, HASH)


def test_what_is_decoded_keeps_no_frame_alive() -> None:
    value = m.Data(1, 0, m.BlockData(0, b"value", [Node(2, 1, HASH)]))
    frame = bytearray(encode(m.data_codec, value))
    decoded = decode(m.data_codec, memoryview(frame))
    frame.clear()
    assert decoded == value


uints = st.integers(0, 252) | st.integers(0, (1 << 53) - 1)
node_lists = st.lists(st.builds(Node, uints, uints, st.binary(min_size=32, max_size=32)))
parts = st.none()
requests = st.builds(
    m.Request,
    uints,
    uints,
    parts | st.builds(m.BlockRequest, uints, uints),
    parts | st.builds(m.BlockRequest, uints, uints),
    parts | st.builds(m.SeekRequest, uints, uints),
    parts | st.builds(m.UpgradeRequest, uints, uints),
    st.booleans(),
    uints,
)
signatures = st.none() | st.binary(min_size=1, max_size=80)
answers = st.builds(
    m.Data,
    uints,
    uints,
    parts | st.builds(m.BlockData, uints, st.binary(max_size=300), node_lists),
    parts | st.builds(m.HashData, uints, node_lists),
    parts | st.builds(m.SeekData, uints, node_lists),
    parts | st.builds(m.UpgradeData, uints, uints, node_lists, node_lists, signatures),
    parts | st.just(default_manifest(HASH)),
)


@given(requests)
def test_requests_come_back(value: m.Request) -> None:
    assert decode(m.request_codec, encode(m.request_codec, value)) == value


@given(answers)
def test_data_come_back(value: m.Data) -> None:
    assert decode(m.data_codec, encode(m.data_codec, value)) == value


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_protocol_error(name: str, junk: bytes) -> None:
    reader = Reader(junk)
    try:
        CODECS[name].decode_from(reader)
    except ProtocolError:
        return
    assert reader.start <= reader.end


@given(answers, st.data())
def test_damaged_data_are_a_message_or_a_protocol_error(value: m.Data, draw: st.DataObject) -> None:
    frame = bytearray(encode(m.data_codec, value))
    for _ in range(draw.draw(st.integers(1, 3))):
        frame[draw.draw(st.integers(0, len(frame) - 1))] = draw.draw(st.integers(0, 255))
    with contextlib.suppress(ProtocolError):
        decode(m.data_codec, frame[: draw.draw(st.integers(0, len(frame)))])
