"""The storage on disk: kills, full disks, full maps, damage, forks."""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb
import pytest

from covey.errors import ClosedError, StoreError
from covey.store.directory_lock import LOCK_NAME
from covey.store.lmdb_environment import DATA_NAME, DEFAULT_MAP, FORMAT_NAME
from covey.store.lmdb_storage import LmdbStorage
from covey.store.lmdb_view import LmdbSnapshot
from covey.store.records import STORE_HEAD, block_key, block_range, node_key
from covey.store.storage import Item
from tests.store.children import KILLS, line, run, running

SMALL_MAP = 1 << 20
posix = pytest.mark.skipif(os.name != "posix", reason="signals, forks and limits of POSIX")

WRITE = """
import sys
from covey.store.lmdb_storage import LmdbStorage
from tests.store.test_lmdb_storage import SMALL_MAP, write_numbered
storage = LmdbStorage(sys.argv[1], map_size=SMALL_MAP)
print("open", flush=True)
number = int(storage.get(b"\\0\\0") or b"-1")
while True:
    number += 1
    write_numbered(storage, number)
    print(number, flush=True)
"""
KEPT, BLOCKS = 40, 8  # batches that stay, blocks of each


def numbered(number: int) -> list[Item]:
    """What a numbered batch puts: blocks of all sizes around that of a page."""
    return [
        (block_key(0, number * BLOCKS + part), b"%d." % number * (40 * part * (number % 7) + 1))
        for part in range(BLOCKS)
    ]


def write_numbered(storage: LmdbStorage, number: int) -> None:
    """A batch that puts, replaces and deletes."""
    old = block_range(0, 0, max(0, number + 1 - KEPT) * BLOCKS)
    storage.write_batch([*numbered(number), (STORE_HEAD, b"%d" % number)], range_deletes=[old])


@posix
@pytest.mark.timeout(60 + 10 * KILLS)
def test_a_killed_process_loses_no_acknowledged_batch_and_tears_none(tmp_path: Path) -> None:
    chance = random.Random(1)
    for _ in range(KILLS):
        with running(WRITE, tmp_path) as child:
            assert line(child) == "open"
            for _ in range(chance.randrange(60)):
                line(child)
            time.sleep(chance.random() * 0.004)  # any moment of a batch
            child.kill()
            assert child.stdout is not None
            acknowledged = [-1, *map(int, child.stdout.read().split())][-1]
        with LmdbStorage(tmp_path) as storage:
            last = int(storage.get(STORE_HEAD) or b"-1")
            assert last >= acknowledged
            first = max(0, last + 1 - KEPT)
            expected = [item for number in range(first, last + 1) for item in numbered(number)]
            assert list(storage.range(*block_range(0))) == expected


def test_everything_is_there_after_close_and_open(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path / "store") as storage:
        write_numbered(storage, 0)
        assert storage.path == tmp_path / "store"
        assert storage.map_size == DEFAULT_MAP
    for _ in range(2):
        with LmdbStorage(str(tmp_path / "store")) as storage:
            assert list(storage.range(*block_range(0))) == numbered(0)


@posix
def test_folder_and_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        LmdbStorage(tmp_path / "store").close()
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "store").stat().st_mode) == 0o700
    files = sorted((tmp_path / "store").iterdir())
    assert {DATA_NAME, FORMAT_NAME, LOCK_NAME} <= {file.name for file in files}
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_folder_is_open_once(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path), pytest.raises(StoreError, match="is open already"):
        LmdbStorage(tmp_path)
    with running(WRITE, tmp_path) as child:
        assert line(child) == "open"
        with pytest.raises(StoreError, match=f"another process, number {child.pid}"):
            LmdbStorage(tmp_path)


# Growth


def test_a_full_map_grows_between_batches_and_within_one(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path, map_size=SMALL_MAP, sync=False) as storage:
        sizes = {storage.map_size}
        for number in range(20):
            storage.write_batch([(block_key(0, number), bytes(1 << 18))])
            sizes.add(storage.map_size)
        assert len(sizes) >= 3
        large = [(block_key(1, number), bytes(1 << 18)) for number in range(200)]
        storage.write_batch(iter(large), range_deletes=[block_range(0, 5)])
        assert list(storage.range(*block_range(1))) == large
        assert sum(1 for _ in storage.range(*block_range(0))) == 5
    with LmdbStorage(tmp_path, map_size=SMALL_MAP) as storage:  # smaller than what is in it
        assert list(storage.range(*block_range(1))) == large
        storage.write_batch([(block_key(2, 0), bytes(1 << 22))])


def test_growth_keeps_snapshots_of_the_present_state_and_ends_older_ones(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path, map_size=SMALL_MAP, sync=False) as storage:
        write_numbered(storage, 1)
        older = storage.snapshot()
        reading = older.range(*block_range(0))
        next(reading)
        write_numbered(storage, 2)
        present = storage.snapshot()
        state = list(present.range(*block_range(0)))
        storage.write_batch([(block_key(1, 0), bytes(1 << 22))], range_deletes=[block_range(0)])
        assert storage.map_size > SMALL_MAP
        assert list(present.range(*block_range(0))) == state
        assert present.get(block_key(1, 0)) is None
        for call in (older.get, lambda key: older.get_many([key])):
            with pytest.raises(StoreError, match="this snapshot has ended"):
                call(block_key(0, 8))
        with pytest.raises(StoreError, match="this snapshot has ended"):
            older.range(*block_range(0))
        present.close()
        older.close()


def test_dropped_snapshots_do_not_stand_in_the_way(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path, map_size=SMALL_MAP, sync=False) as storage:
        write_numbered(storage, 1)
        for number in range(100):
            storage.snapshot().get(block_key(0, 8))
            storage.write_batch([(block_key(1, number), bytes(1 << 17))])
        assert sum(1 for _ in storage.range(*block_range(1))) == 100


def test_overwriting_again_and_again_does_not_grow_the_file(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path, sync=False) as storage:
        for _ in range(300):
            storage.write_batch([(block_key(0, 0), os.urandom(100_000))])
            storage.get(block_key(0, 0))
        assert (tmp_path / DATA_NAME).stat().st_size < 2_000_000


class Standin:
    """An environment that fails once in one of its methods."""

    def __init__(self, real: Any, method: str, error: Exception) -> None:
        self._real = real
        self._method = method
        self._errors = [error]

    def __getattr__(self, name: str) -> Any:
        if name == self._method and self._errors:
            return self._fail
        return getattr(self._real, name)

    def _fail(self, *arguments: object, **options: object) -> Any:
        if self._method == "begin" and not options.get("write"):
            return self._real.begin(*arguments, **options)
        raise self._errors.pop()


def test_a_map_that_cannot_grow_is_told_and_what_fits_is_stored(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path, map_size=SMALL_MAP, sync=False) as storage:
        write_numbered(storage, 1)
        snapshot = storage.snapshot()
        real: Any = storage._environment
        error = lmdb.MemoryError("mdb_env_set_mapsize", 12)
        storage._environment = Standin(real, "set_mapsize", error)  # type: ignore[assignment]
        with pytest.raises(StoreError, match="room in memory") as caught:
            storage.write_batch([(block_key(1, 0), bytes(1 << 22))])
        assert caught.value.__cause__ is error
        assert storage.get(block_key(1, 0)) is None
        with pytest.raises(StoreError):
            snapshot.get(block_key(0, 8))
        write_numbered(storage, 2)
        assert list(storage.range(*block_range(0))) == numbered(1) + numbered(2)
        storage.write_batch([(block_key(1, 0), bytes(1 << 22))])  # now there is room


def test_after_a_broken_commit_the_file_is_opened_again(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path, sync=False) as storage:
        write_numbered(storage, 1)
        panic = lmdb.PanicError("mdb_txn_begin")
        storage._environment = Standin(storage._environment, "begin", panic)  # type: ignore[assignment]
        write_numbered(storage, 2)
        assert list(storage.range(*block_range(0))) == numbered(1) + numbered(2)


def test_a_file_that_cannot_be_opened_again_ends_the_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*arguments: object, **options: object) -> Any:
        raise StoreError("the disk is gone")

    storage = LmdbStorage(tmp_path, sync=False)
    panic = lmdb.PanicError("mdb_txn_begin")
    storage._environment = Standin(storage._environment, "begin", panic)  # type: ignore[assignment]
    monkeypatch.setattr("covey.store.lmdb_storage.open_environment", gone)
    for _ in range(2):
        with pytest.raises(StoreError, match="the disk is gone"):
            write_numbered(storage, 2)
    with pytest.raises(StoreError, match="the disk is gone"):
        storage.get(STORE_HEAD)
    storage.close()
    monkeypatch.undo()
    LmdbStorage(tmp_path).close()  # the folder is free


# Space and memory that run out

FULL = """
import os, resource, sys
from covey.errors import StoreError
from covey.store.lmdb_storage import LmdbStorage
from covey.store.records import block_range
from tests.store.test_lmdb_storage import numbered, write_numbered
storage = LmdbStorage(sys.argv[1], map_size=int(sys.argv[2]))
for number in range(40):
    write_numbered(storage, number)
held = [item for number in range(40) for item in numbered(number)]
size = os.stat(os.path.join(sys.argv[1], "data.mdb")).st_size
for room in (0, 1, 4096, 5000, 20_000, 100_000, 300_000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2 + room, resource.RLIM_INFINITY))
    failures = 0
    while failures < 3:
        try:
            storage.write_batch([(b"\\7new%d" % room + os.urandom(8), bytes(3000))])
        except StoreError as error:
            failures += 1
            assert error.__cause__ is not None
            print(error)
        assert list(storage.range(*block_range(0))) == held
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    storage.write_batch([(b"\\7more%d" % room, bytes(200_000))])
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
try:
    storage.write_batch([(b"\\7none", b"")])
except StoreError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert storage.get(b"\\7none") is None
write_numbered(storage, 40)
storage.close()
storage = LmdbStorage(sys.argv[1])
assert list(storage.range(*block_range(0))) == held[8:] + numbered(40)
assert storage.get(b"\\7more300000") == bytes(200_000)
"""


@posix
@pytest.mark.parametrize("map_size", [SMALL_MAP, DEFAULT_MAP])
def test_a_full_disk_is_told_and_hurts_nothing(tmp_path: Path, map_size: int) -> None:
    told = run(FULL, tmp_path, map_size).splitlines()
    assert len(told) >= 7 * 3 + 1
    assert all("no space left" in each and str(tmp_path) in each for each in told)


LITTLE_MEMORY = """
import resource, sys
from covey.errors import StoreError
from covey.store.lmdb_environment import DEFAULT_MAP
from covey.store.lmdb_storage import LmdbStorage
from tests.store.test_lmdb_storage import SMALL_MAP, numbered, write_numbered
from covey.store.records import block_key, block_range
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (192 << 20), resource.RLIM_INFINITY))
with LmdbStorage(sys.argv[1]) as storage:
    write_numbered(storage, 1)
    print(storage.map_size < DEFAULT_MAP)
with LmdbStorage(sys.argv[1], map_size=SMALL_MAP, sync=False) as storage:
    number = 0
    value = bytes(1 << 22)
    try:
        while True:
            storage.write_batch([(block_key(1, number), value)])
            number += 1
    except StoreError as error:
        print(error)
    assert list(storage.range(*block_range(0))) == numbered(1)
    write_numbered(storage, 2)
    assert sum(1 for _ in storage.range(*block_range(1), limit=5)) == 5
    storage.write_batch([], range_deletes=[block_range(1)])
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    storage.write_batch([(block_key(1, number), value) for number in range(100)])
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="bounds address space on Linux")
def test_little_address_space_makes_the_map_smaller(tmp_path: Path) -> None:
    smaller, told = run(LITTLE_MEMORY, tmp_path).splitlines()
    assert smaller == "True"
    assert "room in memory" in told


# Forks

FORK = """
import os, sys
from covey.errors import StoreError
from covey.store.lmdb_storage import LmdbStorage
from covey.store.records import block_key, block_range
from tests.store.test_lmdb_storage import numbered, write_numbered
storage = LmdbStorage(sys.argv[1])
write_numbered(storage, 1)
snapshot = storage.snapshot()
reading = snapshot.range(*block_range(0))
storage.get(block_key(0, 8))
child = os.fork()
if child == 0:
    key = block_key(0, 8)
    calls = [lambda: storage.get(key), lambda: storage.get_many([key]), storage.snapshot,
        lambda: list(storage.range(b"", b"~")), lambda: storage.write_batch([(key, b"")]),
        lambda: snapshot.get(key), lambda: list(reading), lambda: LmdbStorage(sys.argv[1])]
    for call in calls:
        try:
            call()
        except StoreError as error:
            print(error)
    snapshot.close()
    storage.close()
    sys.exit(0)  # with all that Python does at the end
assert os.waitpid(child, 0)[1] == 0
assert list(reading) == numbered(1)
assert snapshot.get(block_key(0, 8)) == storage.get(block_key(0, 8))
write_numbered(storage, 2)
assert list(snapshot.range(*block_range(0))) == numbered(1)
snapshot.close()
storage.close()
storage.close()
with LmdbStorage(sys.argv[1]) as storage:
    assert list(storage.range(*block_range(0))) == numbered(1) + numbered(2)
"""


@posix
def test_a_forked_child_is_refused_and_does_no_harm(tmp_path: Path) -> None:
    told = run(FORK, tmp_path).splitlines()
    assert len(told) == 8
    assert all("forked" in each for each in told[:7])
    assert "another process" in told[7]


# Damage


@contextmanager
def made(folder: Path) -> Iterator[Path]:
    """The data file of a store with something in it, and none the wiser."""
    with LmdbStorage(folder) as storage:
        storage.write_batch([(node_key(0, number), bytes(400)) for number in range(400)])
    yield folder / DATA_NAME
    with pytest.raises(StoreError, match=str(folder)) as caught:
        LmdbStorage(folder)
    assert "damaged" in str(caught.value) or "another program" in str(caught.value)
    with pytest.raises(StoreError, match=str(folder)):  # and not for being in use
        LmdbStorage(folder)
    assert "in use" not in str(caught.value)


@pytest.mark.parametrize("fill", [b"\0", b"\xff", b"not a store at all"])
def test_a_file_of_something_else_is_refused(tmp_path: Path, fill: bytes) -> None:
    with made(tmp_path) as data:
        data.write_bytes(fill * 10_000)


@pytest.mark.parametrize("pages", [1, 3, 10, 40])
def test_a_file_that_was_cut_is_refused(tmp_path: Path, pages: int) -> None:
    with made(tmp_path) as data:
        os.truncate(data, pages * 4096)


def test_a_file_that_lost_its_last_byte_is_refused(tmp_path: Path) -> None:
    with made(tmp_path) as data:
        os.truncate(data, data.stat().st_size - 1)


def test_an_emptied_file_is_not_a_new_store(tmp_path: Path) -> None:
    with made(tmp_path) as data:
        data.write_bytes(b"")


def test_a_lost_file_is_not_a_new_store(tmp_path: Path) -> None:
    with made(tmp_path) as data:
        data.unlink()


def test_a_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with made(tmp_path) as data:
        for file in data.parent.iterdir():
            file.unlink()
        with lmdb.open(str(tmp_path)) as other, other.begin(write=True) as transaction:
            transaction.put(b"something", b"else")


def test_a_format_of_a_later_covey_is_refused(tmp_path: Path) -> None:
    LmdbStorage(tmp_path).close()
    with lmdb.open(str(tmp_path), max_dbs=1) as raw, raw.begin(write=True) as transaction:
        transaction.put(b"covey store", b"2")
    with pytest.raises(StoreError, match="later covey"):
        LmdbStorage(tmp_path)


def test_a_data_file_alone_is_a_whole_store(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path / "old") as storage:
        write_numbered(storage, 0)
    (tmp_path / "new").mkdir()
    (tmp_path / "old" / DATA_NAME).rename(tmp_path / "new" / DATA_NAME)
    with LmdbStorage(tmp_path / "new") as storage:
        assert list(storage.range(*block_range(0))) == numbered(0)
    assert (tmp_path / "new" / FORMAT_NAME).exists()


def test_a_store_that_was_never_finished_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / DATA_NAME).write_bytes(b"")
    with LmdbStorage(tmp_path) as storage:
        write_numbered(storage, 0)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space cannot be reserved")
def test_a_full_disk_is_found_at_open_and_not_by_touching_the_lock_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(StoreError, match="no space left"):
            LmdbStorage(tmp_path)
    with LmdbStorage(tmp_path):
        status = (tmp_path / "lock.mdb").stat()
        assert status.st_blocks * 512 >= status.st_size > 0


@pytest.mark.parametrize("name", [DATA_NAME, "lock.mdb"])
def test_a_folder_in_place_of_a_file_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(StoreError, match=str(tmp_path)) as caught:
        LmdbStorage(tmp_path)
    assert caught.value.__cause__ is not None


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read_are_told(tmp_path: Path) -> None:
    LmdbStorage(tmp_path / "store").close()
    for name in (DATA_NAME, LOCK_NAME):
        (tmp_path / "store" / name).chmod(0)
        with pytest.raises(StoreError, match=r"may not be|cannot open"):
            LmdbStorage(tmp_path / "store")
        (tmp_path / "store" / name).chmod(0o600)


def test_more_snapshots_than_there_is_room_for_are_refused(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path) as storage:
        snapshots: list[LmdbSnapshot] = []
        with pytest.raises(StoreError, match="open snapshots"):
            snapshots.extend(storage.snapshot() for _ in range(10_000))
        snapshots.pop().close()
        storage.get(STORE_HEAD)
    with pytest.raises(ClosedError):
        snapshots[0].get(STORE_HEAD)
