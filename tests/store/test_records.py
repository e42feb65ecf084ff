"""Keys in their order, values there and back, damage that is noticed, secrets that stay."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from covey.errors import StoreError, UsageError
from covey.feed.hashes import Node
from covey.feed.manifest import Manifest, Signer, default_manifest
from covey.keys import KeyPair
from covey.store.records import (
    ALIASES,
    BITS_PAGE_SIZE,
    CORES,
    STORE_HEAD,
    Alias,
    Auth,
    CoreRecord,
    Head,
    Hints,
    StoreHead,
    alias_key,
    alias_range,
    auth_key,
    bits_key,
    bits_range,
    block_key,
    block_range,
    check_bits,
    core_by_discovery_key,
    core_ranges,
    head_key,
    hints_key,
    index_of,
    node_key,
    node_range,
    node_value,
    read_node,
    user_data_key,
    user_data_range,
)
from covey.store.storage import MAX_KEY, Kind, check_key

BYTES32 = st.binary(min_size=32, max_size=32)
NUMBER = st.integers(0, 2**53 - 1)
CORE = st.integers(0, 2**32 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=600)
MANIFESTS = st.one_of(
    st.none(),
    st.builds(default_manifest, BYTES32, version=st.integers(0, 3)),
    st.builds(
        lambda signers, data: Manifest(version=2, signers=tuple(signers), user_data=data),
        st.lists(st.builds(Signer, BYTES32), max_size=4),
        st.one_of(st.none(), st.binary(max_size=5)),
    ),
)
SECRET = bytes(range(100, 132))
SAMPLES: list[Any] = [
    Head(3, 2**53 - 1, 2**50, bytes(32), bytes(range(70)), 1_700_000_000_000),
    Head(0, 0, 0, bytes(32)),
    Hints(5, 9),
    Auth(bytes(32), bytes(32), default_manifest(bytes(32)), SECRET, True, SECRET),
    CoreRecord(7, Alias(bytes(32), "a name")),
    StoreHead(2, SECRET, bytes(32)),
]


@given(NUMBER, NUMBER, NUMBER, BYTES32, st.none() | st.binary(max_size=200), NUMBER)
def test_a_head_comes_back(
    fork: int, length: int, size: int, digest: bytes, signature: bytes | None, timestamp: int
) -> None:
    head = Head(fork, length, size, digest, signature, timestamp)
    assert Head.decode(head.encode()) == head


@given(NUMBER, NUMBER)
def test_hints_come_back(here: int, there: int) -> None:
    assert Hints.decode(Hints(here, there).encode()) == Hints(here, there)


@given(BYTES32, BYTES32, MANIFESTS, st.none() | BYTES32, st.booleans(), st.none() | BYTES32)
def test_the_keys_of_a_log_come_back(
    key: bytes,
    discovery_key: bytes,
    manifest: Manifest | None,
    seed: bytes | None,
    frozen: bool,
    encryption_key: bytes | None,
) -> None:
    auth = Auth(key, discovery_key, manifest, seed, frozen, encryption_key)
    assert Auth.decode(auth.encode()) == auth
    assert auth.key_pair == (None if seed is None else KeyPair.from_seed(seed))


@given(CORE, st.none() | st.builds(Alias, BYTES32, TEXT))
def test_the_record_of_a_log_comes_back(core: int, alias: Alias | None) -> None:
    record = CoreRecord(core, alias)
    assert CoreRecord.decode(record.encode()) == record


@given(NUMBER, BYTES32, st.none() | BYTES32)
def test_the_head_of_a_store_comes_back(cores: int, key: bytes, default: bytes | None) -> None:
    head = StoreHead(cores, key, default)
    assert StoreHead.decode(head.encode()) == head


@given(NUMBER, NUMBER, BYTES32)
def test_a_node_comes_back_in_40_bytes(index: int, size: int, digest: bytes) -> None:
    node = Node(index, size, digest)
    assert len(node_value(node)) == 40
    assert read_node(index, node_value(node)) == node


@pytest.mark.parametrize("record", SAMPLES, ids=lambda each: type(each).__name__)
def test_any_change_to_a_value_is_noticed(record: Any) -> None:
    value = record.encode()
    for position in range(len(value)):
        for flip in (1, 0x80, 0xFF):
            harmed = bytearray(value)
            harmed[position] ^= flip
            with pytest.raises(StoreError):
                type(record).decode(bytes(harmed))
    for size in range(len(value)):
        with pytest.raises(StoreError):
            type(record).decode(value[:size])
    with pytest.raises(StoreError):
        type(record).decode(value + b"\0")


@pytest.mark.parametrize("kind", [Head, Hints, Auth, CoreRecord, StoreHead])
def test_values_of_another_shape_are_refused(kind: Any) -> None:
    from covey.store.records import _seal

    for body in (b"", b"\0", b"\xff" * 12, b"\x01" * 40, bytes(500), b"\xff" * 500):
        if kind is Head and len(body) > 65:
            continue  # the numbers may be any
        with pytest.raises(StoreError):
            kind.decode(_seal(body))


def test_a_value_of_a_later_version_is_told_as_such() -> None:
    import zlib

    later = b"\x02whatever"
    with pytest.raises(StoreError, match="later covey"):
        Head.decode(later + zlib.crc32(later).to_bytes(4, "little"))


@given(st.binary(max_size=60))
def test_nodes_and_pages_of_another_size_are_refused(value: bytes) -> None:
    if len(value) != 40:
        with pytest.raises(StoreError, match="node 5"):
            read_node(5, value)
    with pytest.raises(StoreError, match="page 5"):
        check_bits(5, value)
    assert check_bits(5, bytes(BITS_PAGE_SIZE)) == bytes(BITS_PAGE_SIZE)


def test_what_does_not_fit_is_refused_when_it_is_written() -> None:
    good = bytes(32)
    bad: list[Any] = [
        Head(-1, 0, 0, good),
        Head(0, 1 << 64, 0, good),
        Head(0, 0, 0, b"short"),
        Hints(-1, 0),
        Auth(b"short", good),
        Auth(good, b"short"),
        Auth(good, good, seed=b"short"),
        Auth(good, good, encryption_key=b"short"),
        Auth(good, good, manifest=b"none"),  # type: ignore[arg-type]
        CoreRecord(1 << 32),
        CoreRecord(1, Alias(b"short", "a")),
        CoreRecord(1, Alias(good, "\ud800")),
        StoreHead(-1, good),
        StoreHead(1, b"short"),
        StoreHead(1, good, b"short"),
    ]
    for record in bad:
        with pytest.raises(UsageError):
            record.encode()
    for node in (Node(0, -1, good), Node(0, 1 << 64, good), Node(0, 0, b"short")):
        with pytest.raises(UsageError):
            node_value(node)


SECRETIVE: list[Any] = [
    Auth(bytes(32), bytes(32), None, SECRET, False, SECRET),
    StoreHead(1, SECRET),
]


@pytest.mark.parametrize("record", SECRETIVE, ids=lambda each: type(each).__name__)
def test_secrets_are_neither_shown_nor_pickled_nor_copied(record: Any) -> None:
    for text in (repr(record), str(record), f"{record}"):
        assert repr(SECRET)[2:-1] not in text
        assert SECRET.hex() not in text
    for call in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError) as caught:
            call(record)
        assert repr(SECRET)[2:-1] not in str(caught.value)


@pytest.mark.parametrize(
    "record",
    [
        Auth(bytes(32), bytes(32), None, SECRET + b"!"),
        Auth(bytes(32), bytes(32), None, None, False, SECRET + b"!"),
        Auth(b"short", bytes(32), None, SECRET, False, SECRET),
        StoreHead(1, SECRET + b"!"),
        StoreHead(-1, SECRET),
    ],
)
def test_errors_do_not_tell_secrets(record: Any) -> None:
    with pytest.raises(UsageError) as caught:
        record.encode()
    error: BaseException | None = caught.value
    while error is not None:
        assert repr(SECRET)[2:20] not in str(error)
        error = error.__cause__ or error.__context__


def test_a_damaged_value_does_not_tell_its_secret() -> None:
    value = bytearray(SECRETIVE[0].encode())
    value[3] ^= 1
    with pytest.raises(StoreError) as caught:
        Auth.decode(bytes(value))
    assert repr(SECRET)[2:20] not in repr(caught.value)


# Keys


@given(st.lists(st.tuples(CORE, NUMBER), min_size=2))
def test_keys_are_ordered_as_their_numbers(pairs: list[tuple[int, int]]) -> None:
    for make in (block_key, node_key, bits_key):
        keys = [make(core, index) for core, index in sorted(pairs)]
        assert keys == sorted(keys)
        assert [index_of(key) for key in keys] == [index for _, index in sorted(pairs)]


@given(CORE, CORE, NUMBER, NUMBER, NUMBER)
def test_a_range_has_what_it_says(core: int, other: int, index: int, low: int, high: int) -> None:
    for make, over in ((block_key, block_range), (node_key, node_range), (bits_key, bits_range)):
        start, end = over(core, low, high)
        assert (start <= make(core, index) < end) == (low <= index < high)
        start, end = over(core, low)
        assert (start <= make(other, index) < end) == (other == core and low <= index)
        start, end = over(core)
        assert start <= make(core, 2**64 - 1) < end


@given(CORE, CORE, NUMBER, TEXT)
def test_all_of_a_log_and_of_no_other_is_in_its_ranges(
    core: int, other: int, index: int, name: str
) -> None:
    keys = [
        *(auth_key(other), head_key(other), hints_key(other), user_data_key(other, name)),
        *(block_key(other, index), node_key(other, index), bits_key(other, index)),
    ]
    for key in keys:
        check_key(key)
        hits = sum(start <= key < end for start, end in core_ranges(core))
        assert hits == (core == other)
    start, end = user_data_range(core)
    assert (start <= keys[3] < end) == (core == other)


@given(BYTES32, BYTES32, TEXT, TEXT)
def test_names_have_keys_of_their_own(first: bytes, second: bytes, one: str, two: str) -> None:
    keys = alias_key(first, one), alias_key(second, two)
    assert (keys[0] == keys[1]) == ((first, one) == (second, two))
    for key in keys:
        check_key(key)
        assert ALIASES[0] <= key < ALIASES[1]
    start, end = alias_range(first)
    assert start <= keys[0] < end
    assert (start <= keys[1] < end) == (first == second)


def test_a_name_of_any_length_has_a_key() -> None:
    keys = set()
    for size in (0, 1, 254, 255, 256, 257, 100_000):
        for key in (alias_key(b"\xff" * 32, "x" * size), user_data_key(2**32 - 1, "x" * size)):
            check_key(key)
            assert len(key) <= MAX_KEY
            keys.add(key)
    assert len(keys) == 14
    start, end = alias_range(b"\xff" * 32)
    assert start <= alias_key(b"\xff" * 32, "\U0010ffff" * 60) < end


@given(BYTES32)
def test_logs_by_discovery_key_are_a_range(discovery_key: bytes) -> None:
    key = core_by_discovery_key(discovery_key)
    assert CORES[0] <= key < CORES[1]
    assert key[1:] == discovery_key


def test_every_kind_of_record_has_its_own_keys() -> None:
    keys = [
        STORE_HEAD,
        core_by_discovery_key(bytes(32)),
        alias_key(bytes(32), ""),
        auth_key(0),
        head_key(0),
        hints_key(0),
        block_key(0, 0),
        node_key(0, 0),
        bits_key(0, 0),
        user_data_key(0, ""),
    ]
    assert [key[0] for key in keys] == list(Kind)
    for key in keys:
        check_key(key)


def test_what_can_be_no_key_is_refused() -> None:
    for number in (-1, 1 << 32, "1", None):
        with pytest.raises(UsageError):
            head_key(number)  # type: ignore[arg-type]
        with pytest.raises(UsageError):
            block_key(number, 0)  # type: ignore[arg-type]
    for index in (-1, 1 << 64, "1"):
        with pytest.raises(UsageError):
            node_key(0, index)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        core_by_discovery_key(bytes(31))
    with pytest.raises(UsageError):
        alias_key(bytes(33), "a")
    with pytest.raises(UsageError):
        alias_key(bytes(32), "\ud800")
    with pytest.raises(StoreError):
        index_of(head_key(0))
