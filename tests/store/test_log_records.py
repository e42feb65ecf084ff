"""A log's records in a storage: what a commit writes, and that damage is never taken for data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from covey.errors import CoveyError, StoreError, UsageError, VerifyError
from covey.feed.hashes import Node
from covey.feed.log import Log
from covey.feed.log_changes import LAST, Changes
from covey.feed.manifest import default_manifest
from covey.keys import KeyPair
from covey.store.lmdb_storage import LmdbStorage
from covey.store.log_records import StoredRecords, open_log
from covey.store.memory_storage import MemoryStorage
from covey.store.records import Auth, Head, auth_key, core_ranges, head_key, hints_key
from covey.store.storage import Storage
from tests.feed.exchange import fetch, follow_fork, upgrade
from tests.store.stored_logs import CORE, MANIFEST, PAIR, assert_intact, contents, make


@pytest.fixture(params=["memory", "lmdb"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    kept: Storage = MemoryStorage() if request.param == "memory" else LmdbStorage(tmp_path)
    with kept:
        yield kept


def test_a_log_without_keys_is_damage(storage: Storage) -> None:
    with pytest.raises(StoreError, match="log number 7 has no keys"):
        open_log(storage, CORE)


def test_a_new_log_has_no_head_and_can_be_written(storage: Storage) -> None:
    log = make(storage, own=True)
    assert (log.length, log.fork, log.writable) == (0, 0, True)
    assert storage.get(head_key(CORE)) is None
    assert storage.get(hints_key(CORE)) is None


def test_a_pair_of_the_caller_signs_where_none_is_stored(storage: Storage) -> None:
    auth = Auth(MANIFEST.key, bytes(32), MANIFEST)
    storage.write_batch([(auth_key(CORE), auth.encode())])
    assert not open_log(storage, CORE).writable
    assert open_log(storage, CORE, key_pair=PAIR).append([b"a"]) == 1


def test_appends_truncations_and_clears_survive_opening(storage: Storage) -> None:
    log = make(storage, own=True)
    log.append([b"block %d" % number for number in range(13)])
    assert contents(assert_intact(storage)) == contents(log)
    log.truncate(6)
    assert assert_intact(storage).fork == 1
    log.append([b"other"] * 5000)
    log.clear(3, 4500)
    again = assert_intact(storage)
    assert contents(again) == contents(log)
    assert again.tree_hash == log.tree_hash
    assert again.append([b"more"]) == 5007


def test_heads_are_stamped_with_the_time(storage: Storage) -> None:
    make(storage, own=True).append([b"a"])
    value = storage.get(head_key(CORE))
    assert value is not None
    assert Head.decode(value).timestamp == 1_700_000_000_000


def test_a_reader_keeps_blocks_manifest_and_fork(storage: Storage) -> None:
    source = make(MemoryStorage(), own=True)
    source.append([b"block %d" % number for number in range(13)])
    log = make(storage, own=False)
    upgrade(log, source, block=12)
    fetch(log, source, [3, 7])
    log.flush()
    assert assert_intact(storage).manifest == MANIFEST
    source.truncate(5)
    source.append([b"other"])
    follow_fork(log, source)
    again = assert_intact(storage)
    assert (again.fork, again.length, again.has(3), again.has(7)) == (1, 6, True, False)
    fetch(again, source, [0, 5])
    again.flush()
    assert contents(assert_intact(storage))[5] == b"other"
    assert contents(assert_intact(storage))[0] == b"block 0"


def test_frozen_and_user_data_survive_opening(storage: Storage) -> None:
    log = make(storage, own=True)
    log.append([b"a"])
    log.set_user_data("note", b"one")
    log.set_user_data("empty", b"")
    log.freeze(length=1, fork=0)
    again = open_log(storage, CORE)
    assert again.frozen
    assert (again.user_data("note"), again.user_data("empty")) == (b"one", b"")
    again.set_user_data("note", None)
    assert open_log(storage, CORE).user_data("note") is None


def test_logs_of_one_store_do_not_touch_one_another(storage: Storage) -> None:
    logs = [make(storage, own=True, core=core) for core in (6, 7, 8, 0xFFFFFFFF)]
    for number, log in enumerate(logs):
        log.append([b"%d" % number] * 20)
    logs[1].truncate(0)
    logs[2].clear(0, 20, keep_tree=False)
    for core, length, held in ((6, 20, 20), (7, 0, 0), (8, 20, 0), (0xFFFFFFFF, 20, 20)):
        log = assert_intact(storage, core)
        assert (log.length, log.bitfield.count()) == (length, held)


def test_a_truncation_to_nothing_leaves_nothing(storage: Storage) -> None:
    log = make(storage, own=True)
    log.append([b"a"] * 9000)
    log.truncate(0)
    left = [key for start, end in core_ranges(CORE) for key, _ in storage.range(start, end)]
    assert sorted(left) == sorted([auth_key(CORE), head_key(CORE), hints_key(CORE)])


def test_what_cannot_be_stored_changes_nothing(storage: Storage) -> None:
    log = make(storage, own=True)
    log.append([b"a"])
    with pytest.raises(UsageError):
        log.set_user_data("half \udc80 a pair", b"x")
    with pytest.raises(UsageError):
        StoredRecords(storage, CORE).commit(
            Changes(blocks=[(1, b"b")], nodes=[Node(2, -1, bytes(32))])
        )
    assert assert_intact(storage).length == 1
    assert log.append([b"b"]) == 2


def test_ranges_without_an_end_reach_the_last_record(storage: Storage) -> None:
    make(storage, own=True).append([b"a"] * 3)
    records = StoredRecords(storage, CORE)
    records.commit(Changes(deleted_blocks=[(1, LAST)], deleted_nodes=[(0, 2)]))
    assert [records.block(index) for index in range(3)] == [b"a", None, None]
    assert [records.node(index) is None for index in range(3)] == [True, True, False]


def test_the_manifest_of_another_log_is_damage(storage: Storage) -> None:
    other = default_manifest(KeyPair.from_seed(b"\x22" * 32).public_key)
    storage.write_batch([(auth_key(CORE), Auth(MANIFEST.key, bytes(32), other).encode())])
    with pytest.raises(StoreError, match="damaged: the manifest is that of another log"):
        open_log(storage, CORE)


def test_a_lost_head_is_damage_and_not_an_empty_log(storage: Storage) -> None:
    log = make(storage, own=True)
    log.append([b"a", b"b"])
    log.clear(0, 2)
    storage.write_batch([], [head_key(CORE)])
    with pytest.raises(StoreError, match="its head is missing"):
        open_log(storage, CORE)


def damaged_values(value: bytes) -> list[bytes | None]:
    """The value as it might be found: bits flipped, cut short, longer, gone."""
    flipped = []
    for place in sorted({0, len(value) // 3, len(value) // 2, len(value) - 1}):
        if value:
            changed = bytearray(value)
            changed[place] ^= 0x10
            flipped.append(bytes(changed))
    return [*flipped, value[:-1], value + b"\0", b"", None]


def damage(storage: Storage, key: bytes, value: bytes | None) -> None:
    storage.write_batch([] if value is None else [(key, value)], [key])


def test_a_damaged_record_is_an_error_and_never_wrong_data() -> None:
    storage = MemoryStorage()
    log = make(storage, own=True)
    log.append([b"block number %d" % number for number in range(11)])
    log.truncate(9)
    true = contents(log)
    true_head = log.head
    records = [item for start, end in core_ranges(CORE) for item in storage.range(start, end)]
    found = 0
    for key, value in records:
        for bad in damaged_values(value):
            if bad == value:
                continue
            damage(storage, key, bad)
            found += told_or_true(storage, true, true_head)
        damage(storage, key, value)
    assert contents(assert_intact(storage)) == true
    assert found > 3 * len(records)


def told_or_true(storage: Storage, true: list[bytes | None], true_head: object) -> bool:
    """Whether damage is told: everything that can be read is right, or a `StoreError`."""
    try:
        log = open_log(storage, CORE)
    except StoreError:
        return True
    told = False
    # Lost bits are blocks not held, which is nothing wrong.
    assert log.head == true_head
    for index in range(log.length):
        try:
            assert log.block(index) in (true[index], None)
        except StoreError:
            told = True
    try:
        list(log.verify_all())
    except StoreError:
        return True
    except VerifyError as error:
        raise AssertionError("opening has checked the signature") from error
    return told


def test_a_damaged_node_is_an_error_where_it_is_read() -> None:
    storage = MemoryStorage()
    make(storage, own=True).append([b"a"])
    records = StoredRecords(storage, CORE)
    value = storage.get(b"\x07" + CORE.to_bytes(4, "big") + bytes(8))
    assert value is not None
    damage(storage, b"\x07" + CORE.to_bytes(4, "big") + bytes(8), value[:-1])
    with pytest.raises(StoreError, match="node 0 has 39 bytes"):
        records.node(0)


@pytest.mark.parametrize(
    "write",
    [
        lambda log: log.append([b"a"]),
        lambda log: log.truncate(1),
        lambda log: log.clear(0, 2),
        lambda log: log.set_user_data("name", b"value"),
        lambda log: log.freeze(length=1, fork=0),
    ],
)
def test_a_closed_store_refuses_and_the_log_stays_as_it_was(
    write: Callable[[Log], object],
) -> None:
    storage = MemoryStorage()
    log = make(storage, own=True)
    log.append([b"x", b"y"])
    head = log.head
    storage.close()
    with pytest.raises(CoveyError, match="closed"):
        write(log)
    assert log.head == head
    assert not log.frozen
    assert log.contiguous_length == 2
