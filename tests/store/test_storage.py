"""What holds for every storage: in memory and on disk."""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.errors import ClosedError, UsageError
from covey.store.lmdb_storage import LmdbStorage
from covey.store.memory_storage import MemoryStorage
from covey.store.storage import MAX_KEY, Item, Kind, Snapshot, Storage, spans

KINDS = ("memory", "lmdb")
EVERYTHING = (b"", b"\xff")


def open_storage(kind: str, folder: Path) -> Storage:
    if kind == "memory":
        return MemoryStorage()
    return LmdbStorage(folder / "store", sync=False)


@pytest.fixture(params=KINDS)
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    with open_storage(request.param, tmp_path) as opened:
        yield opened


def key(number: int, kind: Kind = Kind.BLOCK) -> bytes:
    return bytes((kind,)) + number.to_bytes(8, "big")


def fill(storage: Storage, count: int, size: int = 8) -> list[Item]:
    items = [(key(number), number.to_bytes(size, "big")) for number in range(count)]
    storage.write_batch(items)
    return items


def test_both_are_storages_and_their_snapshots_snapshots(storage: Storage) -> None:
    assert isinstance(storage, Storage)
    with storage.snapshot() as snapshot:
        assert isinstance(snapshot, Snapshot)


def test_a_new_storage_is_empty(storage: Storage) -> None:
    assert storage.get(key(0)) is None
    assert storage.get_many([key(0), key(1)]) == [None, None]
    assert list(storage.range(*EVERYTHING)) == []


def test_what_was_put_is_read(storage: Storage) -> None:
    storage.write_batch([(key(1), b"one"), (key(2), b"")])
    assert storage.get(key(1)) == b"one"
    assert storage.get(key(2)) == b""
    assert storage.get_many(iter([key(2), key(3), key(1), key(1)])) == [b"", None, b"one", b"one"]


def test_a_put_replaces_and_the_later_of_two_counts(storage: Storage) -> None:
    storage.write_batch([(key(1), b"a"), (key(1), b"b")])
    assert storage.get(key(1)) == b"b"
    storage.write_batch([(key(1), b"c")])
    assert list(storage.range(*EVERYTHING)) == [(key(1), b"c")]


def test_values_are_copied_from_any_buffer(storage: Storage) -> None:
    value = bytearray(b"abcdef")
    storage.write_batch([(key(1), value), (key(2), memoryview(value)[1:3])])
    value[:] = b"123456"
    assert storage.get_many([key(1), key(2)]) == [b"abcdef", b"bc"]
    assert type(storage.get(key(1))) is bytes


def test_large_values_and_the_longest_keys_are_kept(storage: Storage) -> None:
    long = bytes((Kind.ALIAS,)) + b"\xff" * (MAX_KEY - 1)
    value = bytes(range(256)) * 4096 * 3
    storage.write_batch([(long, value)])
    assert storage.get(long) == value


def test_ranges_go_before_deletes_and_those_before_puts(storage: Storage) -> None:
    fill(storage, 6)
    storage.write_batch(
        puts=[(key(1), b"new"), (key(4), b"back")],
        deletes=[key(4), key(5), key(99)],
        range_deletes=[(key(0), key(3))],
    )
    assert [item[0] for item in storage.range(*EVERYTHING)] == [key(1), key(3), key(4)]
    assert storage.get_many([key(1), key(4)]) == [b"new", b"back"]


def test_a_range_may_go_over_several_kinds(storage: Storage) -> None:
    items = [(bytes((kind, 1)), bytes((kind,))) for kind in Kind]
    storage.write_batch(items)
    assert list(storage.range(*EVERYTHING)) == items
    assert list(storage.range(*EVERYTHING, reverse=True)) == items[::-1]
    assert list(storage.range(b"\x02\x02", b"\x05\x01")) == items[3:5]
    storage.write_batch([], range_deletes=[(b"\x01\x01", b"\x04\x01")])
    assert list(storage.range(*EVERYTHING)) == items[:1] + items[4:]


def test_deleting_everything_leaves_nothing(storage: Storage) -> None:
    fill(storage, 3000, 100)
    storage.write_batch([], range_deletes=[EVERYTHING])
    assert list(storage.range(*EVERYTHING)) == []
    fill(storage, 3)
    assert storage.get(key(2)) is not None


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("limit", [None, 0, 1, 255, 256, 257, 700, 10_000])
def test_a_range_is_read_in_parts_unseen(
    storage: Storage, reverse: bool, limit: int | None
) -> None:
    items = fill(storage, 1000)
    expected = items[10:900]
    if reverse:
        expected.reverse()
    assert list(storage.range(key(10), key(900), reverse=reverse, limit=limit)) == expected[:limit]


@pytest.mark.parametrize("bounds", [(key(5), key(5)), (key(6), key(5)), (b"\xff", b""), (b"", b"")])
def test_a_range_of_nothing_is_empty(storage: Storage, bounds: tuple[bytes, bytes]) -> None:
    fill(storage, 10)
    assert list(storage.range(*bounds)) == list(storage.range(*bounds, reverse=True)) == []
    storage.write_batch([], range_deletes=[bounds])
    assert len(list(storage.range(*EVERYTHING))) == 10


def test_a_range_that_is_not_read_on_holds_nothing_up(storage: Storage) -> None:
    items = fill(storage, 1000)
    reading = storage.range(*EVERYTHING)
    assert next(reading) == items[0]
    storage.write_batch([], range_deletes=[(key(500), key(1000))])
    assert list(reading) == items[1:500]


def test_an_iterator_that_fails_leaves_nothing_behind(storage: Storage) -> None:
    def puts() -> Iterator[Item]:
        yield key(1), b"one"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError):
        storage.write_batch(puts(), range_deletes=[EVERYTHING])
    assert storage.get(key(1)) is None


BAD_KEYS = [b"", b"\x01", bytes((len(Kind), 1)), bytes((1,)) * (MAX_KEY + 1), "key", None, 5]


@pytest.mark.parametrize("bad", BAD_KEYS, ids=repr)
def test_what_cannot_be_a_key_is_refused_and_nothing_is_done(storage: Storage, bad: bytes) -> None:
    fill(storage, 2)
    calls: list[Callable[[], object]] = [
        lambda: storage.get(bad),
        lambda: storage.get_many([key(0), bad]),
        lambda: storage.write_batch([(key(9), b""), (bad, b"")]),
        lambda: storage.write_batch([(key(9), b"")], [key(0), bad]),
    ]
    for call in calls:
        with pytest.raises(UsageError):
            call()
    assert [item[0] for item in storage.range(*EVERYTHING)] == [key(0), key(1)]


@pytest.mark.parametrize("bad", [None, "text", 5, [1, 2]], ids=repr)
def test_what_cannot_be_a_value_is_refused_and_nothing_is_done(
    storage: Storage, bad: bytes
) -> None:
    with pytest.raises(UsageError):
        storage.write_batch([(key(1), b"one"), (key(2), bad)])
    assert list(storage.range(*EVERYTHING)) == []


def test_what_cannot_be_a_range_is_refused(storage: Storage) -> None:
    with pytest.raises(UsageError):
        storage.range("a", b"b")  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        storage.range(b"", b"\xff", limit=-1)
    with pytest.raises(UsageError):
        storage.write_batch([(key(1), b"")], range_deletes=[(b"", None)])  # type: ignore[list-item]
    assert storage.get(key(1)) is None


def test_a_snapshot_stays_as_it_was(storage: Storage) -> None:
    items = fill(storage, 500)
    with storage.snapshot() as first:
        storage.write_batch([(key(1), b"new"), (key(1000), b"")], [key(2)], [(key(10), key(400))])
        with storage.snapshot() as second:
            storage.write_batch([], range_deletes=[EVERYTHING])
            assert list(first.range(*EVERYTHING)) == items
            assert list(first.range(*EVERYTHING, reverse=True, limit=3)) == items[:-4:-1]
            assert first.get_many([key(1), key(2), key(1000)]) == [items[1][1], items[2][1], None]
            assert first.get(key(2)) == items[2][1]
            assert second.get_many([key(1), key(2), key(1000)]) == [b"new", None, b""]
            assert sum(1 for _ in second.range(*EVERYTHING)) == 500 - 1 - 390 + 1
        assert storage.get(key(1)) is None


def test_a_snapshot_may_be_read_on_while_batches_go_on(storage: Storage) -> None:
    items = fill(storage, 1000)
    with storage.snapshot() as snapshot:
        read = []
        for item in snapshot.range(*EVERYTHING):
            read.append(item)
            if len(read) % 100 == 0:
                storage.write_batch([(key(len(read) + 5), b"changed")], [key(len(read) + 7)])
        assert read == items


def test_a_closed_snapshot_is_of_no_use_and_does_not_trouble_others(storage: Storage) -> None:
    fill(storage, 300)
    snapshot, other = storage.snapshot(), storage.snapshot()
    reading = snapshot.range(*EVERYTHING)
    next(reading)
    snapshot.close()
    snapshot.close()
    for call in uses(snapshot):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(ClosedError):
        list(reading)  # what was looked up already may still come
    assert other.get(key(1)) == storage.get(key(1)) != None  # noqa: E711
    other.close()


def uses(reader: Storage | Snapshot) -> list[Callable[[], object]]:
    return [
        lambda: reader.get(key(1)),
        lambda: reader.get_many([key(1)]),
        lambda: reader.range(*EVERYTHING),
    ]


def test_close_ends_all_use_of_snapshots_and_ranges_too(storage: Storage) -> None:
    fill(storage, 1000)
    snapshot = storage.snapshot()
    readings = [storage.range(*EVERYTHING), snapshot.range(*EVERYTHING)]
    for reading in readings:
        next(reading)
    storage.close()
    storage.close()
    calls = uses(storage) + uses(snapshot)
    calls += [lambda: storage.write_batch([]), storage.snapshot]
    calls += [lambda r=reading: list(r) for reading in readings]  # type: ignore[misc]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    snapshot.close()


def test_threads_read_whole_batches_while_another_writes(storage: Storage) -> None:
    keys = [key(number) for number in range(64)]
    storage.write_batch([(each, b"0") for each in keys])
    done = threading.Event()
    torn: list[object] = []

    def read() -> None:
        try:
            while not done.is_set():
                values = set(storage.get_many(keys))
                with storage.snapshot() as snapshot:
                    seen = {item[1] for item in snapshot.range(*EVERYTHING)}
                if len(values) != 1 or len(seen) != 1:
                    torn.append((values, seen))
        except Exception as error:  # noqa: BLE001 (a thread's error is told by the test)
            torn.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for number in range(200):
        storage.write_batch([(each, b"%d" % number) for each in keys])
    done.set()
    for thread in threads:
        thread.join()
    assert torn == []


NUMBERS = st.integers(0, 30)
KEYS = st.builds(key, NUMBERS, st.sampled_from([Kind.STORE, Kind.BLOCK, Kind.USER_DATA]))
BATCH = st.tuples(
    st.lists(st.tuples(KEYS, st.binary(max_size=5))),
    st.lists(KEYS, max_size=5),
    st.lists(st.tuples(KEYS, KEYS), max_size=2),
)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None)
@given(batches=st.lists(BATCH, max_size=8))
def test_any_batches_have_the_effect_they_have_on_a_dict(
    kind: str,
    batches: list[tuple[list[Item], list[bytes], list[tuple[bytes, bytes]]]],
) -> None:
    model: dict[bytes, bytes] = {}
    with tempfile.TemporaryDirectory() as folder, open_storage(kind, Path(folder)) as storage:
        states: list[tuple[Snapshot, list[Item]]] = []
        for puts, deletes, ranges in batches:
            storage.write_batch(iter(puts), iter(deletes), iter(ranges))
            gone = {each for each in model for low, high in ranges if low <= each < high}
            for each in [*gone, *deletes]:
                model.pop(each, None)
            model.update(puts)
            items = sorted(model.items())
            assert list(storage.range(*EVERYTHING)) == items
            for low, high in ranges:
                inside = [item for item in items if low <= item[0] < high]
                assert list(storage.range(low, high)) == inside
                assert list(storage.range(low, high, reverse=True)) == inside[::-1]
            states.append((storage.snapshot(), items))
        for snapshot, items in states:
            assert list(snapshot.range(*EVERYTHING)) == items


@pytest.mark.parametrize("size", [0, 10, 100, 1000, 3000])
@pytest.mark.parametrize("kind", KINDS)
def test_ranges_are_deleted_across_any_number_of_pages(
    kind: str, size: int, tmp_path: Path
) -> None:
    bounds = [0, 1, 7, 150, 151, 400, 599, 600]
    with open_storage(kind, tmp_path) as storage:
        for low, high in itertools.combinations(bounds, 2):
            items = fill(storage, 600, 8 + size)
            storage.write_batch([], range_deletes=[(key(low), key(high))])
            assert list(storage.range(*EVERYTHING)) == items[:low] + items[high:]


def test_spans_of_a_range() -> None:
    assert spans(b"\x05a", b"\x05b") == [(5, b"a", b"b")]
    assert spans(b"\x05", b"\x06") == [(5, b"", None)]
    assert spans(b"\x05a", b"\x07b") == [(5, b"a", None), (6, b"", None), (7, b"", b"b")]
    assert spans(b"\x05b", b"\x05a") == spans(b"\x05", b"\x05") == []
    assert [span[0] for span in spans(*EVERYTHING)] == list(Kind)
