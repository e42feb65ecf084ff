"""Crashes of every kind: after each the log is whole, and nothing acknowledged is lost."""

from __future__ import annotations

import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import lmdb
import pytest

from covey.errors import StoreError
from covey.feed.log import Log
from covey.feed.log_events import Dropped, LogEvent
from covey.store import lmdb_storage
from covey.store.lmdb_storage import LmdbStorage
from covey.store.log_records import open_log
from covey.store.memory_storage import MemoryStorage
from covey.store.storage import KeyRange, Put
from tests.feed.exchange import fetch, follow_fork, upgrade
from tests.store import children, crashing_logs
from tests.store.children import KILLS, Killed
from tests.store.stored_logs import CORE, assert_intact, contents, make


class FailingStorage(MemoryStorage):
    """A storage whose write number `failing` does not happen."""

    __slots__ = ("failing", "writes")

    def __init__(self) -> None:
        super().__init__()
        self.writes = 0
        self.failing = -1

    def write_batch(
        self,
        puts: Iterable[Put],
        deletes: Iterable[bytes] = (),
        range_deletes: Iterable[KeyRange] = (),
    ) -> None:
        self.writes += 1
        if self.writes == self.failing:
            raise StoreError("no space left")
        super().write_batch(puts, deletes, range_deletes)


Step = Callable[[Log, Log], object]

OWN_STEPS: list[Step] = [
    lambda log, _: log.append([b"block %d" % index for index in range(9)]),
    lambda log, _: log.append([b"one more"]),
    lambda log, _: log.truncate(5),
    lambda log, _: log.append([b"other"] * 12),
    lambda log, _: log.clear(2, 9),
    lambda log, _: log.clear(1, 4, keep_tree=False),
    lambda log, _: log.set_user_data("note", b"value"),
    lambda log, _: log.truncate(0),
    lambda log, _: log.append([b"again"] * 3),
    lambda log, _: log.freeze(length=3, fork=2),
]


def take(*blocks: int) -> Step:
    def step(log: Log, source: Log) -> None:
        fetch(log, source, [block for block in blocks if not log.has(block)])
        log.flush()

    return step


def grow(log: Log, source: Log) -> None:
    source.append([b"grown"] * (20 - source.length))
    upgrade(log, source, block=source.length - 1)


def fork(log: Log, source: Log) -> None:
    if source.fork == log.fork:
        source.truncate(7)
        source.append([b"forked"] * 8)
    follow_fork(log, source)


def staged_then_grown(log: Log, source: Log) -> None:
    if source.length == 15:
        source.append([b"late"] * 4)
    fetch(log, source_of(source, 15), [index for index in (10, 14) if not log.has(index)])
    upgrade(log, source, block=17)


def source_of(source: Log, length: int) -> Log:
    """An earlier state of `source` on its fork, as a peer that lags behind shows it."""
    older = make(MemoryStorage(), own=True)
    blocks = contents(source)[:length]
    older.append([block for block in blocks if block is not None][:7])
    older.append([b"gone"])
    older.truncate(7)
    older.append([block for block in blocks if block is not None][7:])
    return older


READER_STEPS: list[Step] = [
    lambda log, source: upgrade(log, source, block=3),
    take(0, 1, 8),
    take(5),
    grow,
    take(12, 13, 2),
    fork,
    take(9, 7, 8),
    lambda log, _: log.clear(0, 4),
    staged_then_grown,
    take(*range(19)),
    lambda log, _: log.clear(0, 19),
]


def new_source() -> Log:
    source = make(MemoryStorage(), own=True)
    source.append([b"block %d" % index for index in range(9)])
    return source


def state(log: Log) -> tuple[object, ...]:
    return (
        log.head,
        log.roots,
        list(log.bitfield.ranges(0, 1 << 50)),
        log.contiguous_length,
        log.frozen,
        log.manifest,
        log.user_data("note"),
    )


def count_writes(steps: list[Step], own: bool) -> int:
    storage = FailingStorage()
    log, source = make(storage, own=own), new_source()
    for step in steps:
        step(log, source)
        assert_intact(storage)
    return storage.writes - 1  # the first one is that of the keys


SCENARIOS = [
    *((OWN_STEPS, True, number) for number in range(10)),
    *((READER_STEPS, False, number) for number in range(11)),
]


def test_the_scenarios_fail_at_every_write() -> None:
    assert count_writes(OWN_STEPS, own=True) == 10
    assert count_writes(READER_STEPS, own=False) == 11


def take_aside(*blocks: int) -> Step:
    """Half of them written in a thread, the others staged meanwhile and written by the next."""

    def step(log: Log, source: Log) -> None:
        errors: list[BaseException] = []
        threads: list[threading.Thread] = []

        def settle() -> None:
            for thread in threads:
                thread.join()
            log.end_flush(errors[0] if errors else None)

        def write(work: Callable[[], None]) -> None:
            try:
                work()
            except StoreError as error:
                errors.append(error)

        wanted = [block for block in blocks if not log.has(block)]
        fetch(log, source, wanted[::2])
        work = log.begin_flush(settle)
        assert work is not None
        threads.append(threading.Thread(target=write, args=(work,)))
        threads[0].start()
        fetch(log, source, wanted[1::2])
        log.flush()

    return step


ASIDE_STEPS: list[Step] = [
    lambda log, source: upgrade(log, source, block=3),
    take_aside(0, 1, 8, 2),
    grow,
    take_aside(4, 11, 9, 16, 10),
    lambda log, _: log.clear(0, 9),
    take_aside(*range(19)),
]


@pytest.mark.parametrize("number", range(9))
def test_a_write_in_a_thread_that_fails_loses_nothing_and_can_be_done_again(number: int) -> None:
    storage = FailingStorage()
    log, source = make(storage, own=False), new_source()
    told: list[LogEvent] = []
    log.on_change.append(told.append)
    storage.failing = storage.writes + 1 + number
    failures = 0
    for step in ASIDE_STEPS:
        try:
            step(log, source)
        except StoreError:
            failures += 1
            assert log.staged_blocks == log.writing_blocks == 0
            assert state(assert_intact(storage)) == state(log)
            dropped = [event.blocks for event in told if isinstance(event, Dropped)]
            assert len(dropped) == (0 if number == 6 else 1)  # a clear drops nothing
            assert not any(log.has(block) for blocks in dropped for block in blocks)
            step(log, source)
        assert state(assert_intact(storage)) == state(log)
    assert failures == 1
    assert contents(log) == contents(source)


@pytest.mark.parametrize(("steps", "own", "number"), SCENARIOS)
def test_a_write_that_fails_loses_nothing_and_can_be_done_again(
    steps: list[Step], own: bool, number: int
) -> None:
    storage = FailingStorage()
    log, source = make(storage, own=own), new_source()
    storage.failing = storage.writes + 1 + number
    failures = 0
    for step in steps:
        before = state(log)
        try:
            step(log, source)
        except StoreError:
            failures += 1
            assert state(log) == before
            assert log.staged_blocks == 0
            assert state(assert_intact(storage)) == before
            step(log, source)
        assert state(assert_intact(storage)) == state(log)
    assert failures == 1


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("steps", "own", "number"), SCENARIOS)
def test_a_transaction_that_fails_half_way_leaves_nothing_on_disk(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    steps: list[Step],
    own: bool,
    number: int,
    late: bool,
) -> None:
    apply = lmdb_storage._Batch.apply
    left = [number + 1]

    def fail(batch: Any, *arguments: Any) -> None:
        left[0] -= 1
        if not left[0]:
            if late:
                apply(batch, *arguments)
            else:
                batch._puts = [items[: len(items) // 2] for items in batch._puts]
                apply(batch, *arguments)
            raise lmdb.DiskError("the disk is gone")
        apply(batch, *arguments)

    with LmdbStorage(tmp_path, sync=False) as storage:
        log, source = make(storage, own=own), new_source()
        monkeypatch.setattr(lmdb_storage._Batch, "apply", fail)
        before = state(log)
        for step in steps:
            before = state(log)
            try:
                step(log, source)
            except StoreError:
                break
        else:
            pytest.fail("no write failed")
        monkeypatch.undo()
        assert state(log) == before
    with LmdbStorage(tmp_path, sync=False) as storage:
        assert state(assert_intact(storage)) == before


def test_what_was_dropped_is_told_and_fetched_again() -> None:
    storage = FailingStorage()
    log, source = make(storage, own=False), new_source()
    upgrade(log, source)
    dropped: list[LogEvent] = []
    log.on_change.append(dropped.append)
    storage.failing = storage.writes + 1
    fetch(log, source, [4, 1])
    with pytest.raises(StoreError):
        log.flush()
    (event,) = dropped
    assert isinstance(event, Dropped)
    assert event.blocks == [1, 4]
    fetch(log, source, event.blocks)
    log.flush()
    assert contents(assert_intact(storage))[1] == b"block 1"


@pytest.fixture(params=["append", "truncate", "accept", "aside"])
def killed(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Killed]]:
    if not hasattr(os, "fork"):
        pytest.skip("forks and kills")
    folder = tmp_path / "store"
    with LmdbStorage(folder) as storage:
        make(storage, own=request.param in ("append", "truncate"))
    with Killed(crashing_logs.__name__, request.param, folder, seed=len(request.param)) as process:
        yield request.param, process


MOST_APPENDED = 2000
"""Blocks from which on a log is begun anew: reading all of it after each kill takes its time."""


class Check(Protocol):
    """What a loop told, against what is found after it was killed."""

    def hear(self, word: str, numbers: list[int]) -> None: ...

    def check(self, log: Log) -> None: ...


class Appending:
    """What was acknowledged is there, and may be followed by what was not yet told."""

    def __init__(self) -> None:
        self.length = 0

    def hear(self, word: str, numbers: list[int]) -> None:
        assert word == "did"
        (self.length,) = numbers

    def check(self, log: Log) -> None:
        assert log.length >= self.length
        fork = log.fork
        assert contents(log) == [crashing_logs.block(fork, index) for index in range(log.length)]
        if log.length > MOST_APPENDED:
            log.truncate(0)
        self.length = log.length


class Truncating:
    """The head is that of the last step told, or of the one that was begun."""

    def __init__(self) -> None:
        self.done = self.begun = (0, 0)

    def hear(self, word: str, numbers: list[int]) -> None:
        fork, length = numbers
        self.begun = (fork, length)
        if word == "did":
            self.done = self.begun

    def check(self, log: Log) -> None:
        assert (log.fork, log.length) in (self.done, self.begun)
        assert log.contiguous_length == log.length
        self.done = self.begun = (log.fork, log.length)


class Accepting:
    """Every block that was acknowledged is held, unless a clear was begun, and is the true one."""

    def __init__(self) -> None:
        self.held: set[int] = set()

    def hear(self, word: str, numbers: list[int]) -> None:
        if word == "did":
            self.held.update(numbers)
        else:
            start, end = numbers
            self.held.difference_update(range(start, end))

    def check(self, log: Log) -> None:
        assert all(log.has(index) for index in self.held)
        for index, data in enumerate(contents(log)):
            assert data in (None, crashing_logs.block(0, index))


CHECKS: dict[str, Callable[[], Check]] = {
    "append": Appending,
    "truncate": Truncating,
    "accept": Accepting,
    "aside": Accepting,
}


@pytest.mark.timeout(60 + 2 * KILLS)
def test_kill_9_at_any_moment(killed: tuple[str, Killed]) -> None:
    mode, process = killed
    check = CHECKS[mode]()
    for lines in process.rounds():
        for word, *numbers in lines:
            check.hear(word, [int(number) for number in numbers])
        with LmdbStorage(process.folder) as storage:
            check.check(assert_intact(storage))


FULL_DISK = """
import resource, sys
from pathlib import Path
from covey.errors import StoreError
from covey.store.lmdb_storage import LmdbStorage
from covey.store.log_records import open_log
from tests.store.stored_logs import CORE, assert_intact, contents, make

folder = Path(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
storage = LmdbStorage(folder)
log = make(storage, own=True)
failures = 0
for limit in (1 << 20, 2 << 20, 3 << 20):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    while True:
        before = (log.head, log.length, log.contiguous_length)
        try:
            log.append([b"%d" % index * 700 for index in range(log.length, log.length + 10)])
        except StoreError as error:
            break
    for _ in range(3):
        try:
            log.append([b"too much" * 10_000])
            raise SystemExit("a full disk took a block")
        except StoreError:
            failures += 1
    assert before == (log.head, log.length, log.contiguous_length)
    assert contents(log) == [b"%d" % index * 700 for index in range(log.length)]
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.append([b"%d" % log.length * 700]) == log.length
    assert_intact(storage)
storage.close()
with LmdbStorage(folder) as storage:
    again = assert_intact(storage)
    assert contents(again) == [b"%d" % index * 700 for index in range(again.length)]
    assert again.head == log.head
print(failures, again.length > 100)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_full_disk_refuses_and_the_log_goes_on_when_there_is_space(tmp_path: Path) -> None:
    assert children.run(FULL_DISK, tmp_path / "store") == "9 True\n"


FULL_DISK_ASIDE = """
import resource, sys, threading
from pathlib import Path
from covey.errors import StoreError
from covey.store.lmdb_storage import LmdbStorage
from covey.store.memory_storage import MemoryStorage
from tests.feed.exchange import fetch, upgrade
from tests.store.stored_logs import assert_intact, contents, make

folder = Path(sys.argv[1])
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
source = make(MemoryStorage(), own=True)
source.append([b"%d," % index * 9_000 for index in range(100)])
storage = LmdbStorage(folder)
log = make(storage, own=False)
upgrade(log, source)

def write(block):
    wanted = [index for index in (block, block + 1, 98 - block, 99 - block) if not log.has(index)]
    fetch(log, source, wanted[:2])
    errors = [None]
    def run(work):
        try:
            work()
        except StoreError as error:
            errors[0] = error
    def settle():
        thread.join()
        log.end_flush(errors[0])
    thread = threading.Thread(target=run, args=(log.begin_flush(settle),))
    thread.start()
    fetch(log, source, wanted[2:])
    log.flush()

resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
done = failures = 0
while failures < 3:
    before = log.bitfield.count()
    try:
        write(done)
        done += 2
    except StoreError:
        failures += 1
        assert log.bitfield.count() - before in (0, 2)
        assert log.staged_blocks == log.writing_blocks == 0
assert 0 < done < 50
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
while done < 50:
    write(done)
    done += 2
assert_intact(storage)
storage.close()
with LmdbStorage(folder) as storage:
    print(contents(assert_intact(storage)) == contents(source))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such limit")
def test_a_full_disk_refuses_a_thread_too(tmp_path: Path) -> None:
    assert children.run(FULL_DISK_ASIDE, tmp_path / "store") == "True\n"


def test_a_damaged_file_is_an_error(tmp_path: Path) -> None:
    with LmdbStorage(tmp_path) as storage:
        log = make(storage, own=True)
        log.append([b"block %d " % index * 200 for index in range(300)])
        true = contents(log)
    file = tmp_path / "data.mdb"
    whole = file.read_bytes()
    chance = random.Random(5)
    for _ in range(20):
        block = true[chance.randrange(300)]
        assert block is not None
        # What LMDB itself does not look at; pages that were split have a copy in their free space.
        changed = bytearray(block)
        changed[chance.randrange(len(block))] ^= 1 << chance.randrange(8)
        file.write_bytes(whole.replace(block, changed))
        assert read_or_told(tmp_path, true)
    for _ in range(20):
        garbled = bytearray(whole)
        page = 4096 * chance.randrange(2, len(whole) // 4096)
        garbled[page + 100 : page + 4000] = chance.randbytes(3900)
        file.write_bytes(garbled)
        read_or_told(tmp_path, true)
    file.write_bytes(whole)
    with LmdbStorage(tmp_path) as storage:
        assert contents(assert_intact(storage)) == true


def read_or_told(folder: Path, true: list[bytes | None]) -> bool:
    """Read everything: whether damage was told. What is read must be right."""
    told = False
    try:
        with LmdbStorage(folder) as storage:
            log = open_log(storage, CORE)
            for index, data in enumerate(true):
                try:
                    assert log.block(index) == data
                except StoreError:
                    told = True
    except StoreError:
        return True
    return told
