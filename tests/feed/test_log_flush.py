"""A flush that goes on beside: what is seen meanwhile, and what waits for its end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from covey.errors import CoveyError, StoreError, UsageError
from covey.feed.log import Log
from covey.feed.log_events import Appended, Cleared, Dropped, Frozen, LogEvent, Stored, Truncated
from tests.feed.exchange import answer, check, fetch, follow_fork, upgrade
from tests.feed.memory_records import (
    MemoryRecords,
    assert_sound,
    heard,
    numbered,
    reader,
    reopened,
    writer,
)
from tests.feed.plain_logs import PAIR, ask


class Aside:
    """The flushes of a log begun here, each written only when somebody waits for it."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.settled = 0
        self.errors: list[BaseException] = []
        self.work: Callable[[], None] | None = None
        self.after: Callable[[], object] = int

    def begin(self) -> bool:
        self.work = self.log.begin_flush(self.settle)
        return self.work is not None

    def settle(self) -> None:
        assert self.work is not None
        self.settled += 1
        work, self.work = self.work, None
        failure: BaseException | None = None
        try:
            work()
        except BaseException as error:  # noqa: BLE001  as it comes out of a thread
            failure = error
        try:
            self.log.end_flush(failure)
        except CoveyError as error:
            self.errors.append(error)
        self.after()


def started(*blocks: int) -> tuple[Log, MemoryRecords, Log, Aside]:
    """A reader of 13 blocks of which these are being written."""
    source, _ = writer(*numbered(13))
    log, records = reader(source)
    upgrade(log, source)
    fetch(log, source, blocks)
    aside = Aside(log)
    assert aside.begin()
    return log, records, source, aside


def test_blocks_are_seen_as_staged_until_they_are_written() -> None:
    log, records, source, aside = started(5, 2)
    events = heard(log)
    assert (log.staged_blocks, log.staged_bytes, log.writing_blocks) == (0, 0, 2)
    assert log.is_staged(5)
    assert log.block(5) == b"block 5"
    assert log.node(10) == source.node(10)
    assert not log.has(5)
    assert log.contiguous_length == 0
    fetch(log, source, [0, 5])
    assert (log.staged_blocks, log.writing_blocks) == (1, 2)
    assert events == []
    aside.settle()
    assert events == [Stored([2, 5])]
    assert log.has(5)
    assert not log.is_staged(5)
    assert log.is_staged(0)
    assert aside.begin()
    aside.settle()
    assert events == [Stored([2, 5]), Stored([0])]
    assert (log.contiguous_length, records.hints.contiguous_length) == (1, 1)
    assert_sound(log, records)
    assert not aside.begin()


def test_an_end_without_a_begin_is_an_error() -> None:
    log, _ = writer(b"a")
    with pytest.raises(UsageError):
        log.end_flush(None)


def test_a_change_does_not_go_on_before_the_end_is_told() -> None:
    source, _ = writer(*numbered(13))
    log, _ = reader(source)
    upgrade(log, source)
    fetch(log, source, [5])
    log.begin_flush(lambda: None)
    with pytest.raises(UsageError, match="was not told"):
        log.clear(0, 3)
    assert log.writing_blocks == 1


def grow(log: Log, source: Log) -> None:
    source.append([b"more"])
    upgrade(log, source)


def fork(log: Log, source: Log) -> None:
    source.truncate(7)
    follow_fork(log, source)


CHANGES: list[tuple[Callable[[Log, Log], object], type[LogEvent] | None]] = [
    (lambda log, _: log.append([b"ours"]), Appended),
    (lambda log, _: log.truncate(8), Truncated),
    (lambda log, _: log.clear(2, 3), Cleared),
    (lambda log, _: log.set_user_data("note", b"value"), None),
    (lambda log, _: log.freeze(length=13, fork=0), Frozen),
    (lambda log, _: log.flush(), None),
    (grow, Appended),
    (fork, Truncated),
]


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_every_other_change_comes_after_the_end(
    change: Callable[[Log, Log], object], told: type[LogEvent] | None
) -> None:
    log, records, source, aside = started(5, 2)
    log.key_pair = PAIR
    events = heard(log)
    records.commits.clear()
    change(log, source)
    assert aside.settled == 1
    assert [index for index, _ in records.commits[0].blocks] == [2, 5]
    assert events[0] == Stored([2, 5])
    assert [type(event) for event in events[1:2]] == ([] if told is None else [told])
    assert_sound(log, records)
    reopened(log, records)


@pytest.mark.parametrize(("change", "told"), CHANGES)
def test_a_change_goes_on_where_the_writing_before_it_failed(
    change: Callable[[Log, Log], object], told: type[LogEvent] | None
) -> None:
    log, records, source, aside = started(5, 2)
    log.key_pair = PAIR
    fetch(log, source, [4])
    events = heard(log)
    records.fail()
    if change is grow:
        # It came beside what was lost, and may build on that.
        with pytest.raises(StoreError, match="builds on"):
            change(log, source)
        told = None
    else:
        change(log, source)
    (error,) = aside.errors
    assert isinstance(error, StoreError)
    assert events[0] == Dropped([2, 4, 5], error)
    # Block 4 may count on nodes that came with block 5.
    assert log.staged_blocks == log.writing_blocks == 0
    assert not any(log.has(index) for index in (2, 4, 5))
    if told not in (None, Cleared):
        assert told in map(type, events)
    assert_sound(log, records)
    reopened(log, records)


def test_what_builds_on_nodes_that_were_lost_meanwhile_is_not_stored() -> None:
    log, records, source, aside = started(4)
    source.append([b"more"])
    # Leaf 10 came as the sibling of block 4: no path is needed, only what is being written.
    asked = ask(fork=0, block=(5, 0), upgrade=(13, 1))
    verified = check(log, answer(source, asked))
    records.fail()
    with pytest.raises(StoreError, match="builds on"):
        log.accept(verified)
    assert len(aside.errors) == 1
    assert log.length == 13
    assert not log.staged_blocks
    assert_sound(log, records)
    upgrade(log, source)
    fetch(log, source, [4, 5])
    log.flush()
    assert_sound(log, records)
    reopened(log, records)


def test_what_builds_on_nodes_that_were_lost_right_after_the_writing_is_not_stored() -> None:
    log, records, source, aside = started(2)
    fetch(log, source, [4])
    source.append([b"more"])
    verified = check(log, answer(source, ask(fork=0, block=(5, 0), upgrade=(13, 1))))

    def lose_the_rest() -> None:
        records.fail()
        with pytest.raises(StoreError):
            log.flush()

    aside.after = lose_the_rest
    with pytest.raises(StoreError, match="builds on"):
        log.accept(verified)
    assert aside.errors == []
    assert (log.length, log.staged_blocks) == (13, 0)
    assert_sound(log, records)


def test_after_an_unknown_end_the_log_has_to_be_opened_again() -> None:
    log, records, source, aside = started(5)
    records.fail(RuntimeError("what was that"))
    with pytest.raises(RuntimeError):
        aside.settle()
    fetch(log, source, [4])
    events = heard(log)
    with pytest.raises(StoreError, match="opened again"):
        aside.begin()
    assert [type(event) for event in events] == [Dropped]
    assert log.writing_blocks == 0


def test_keys_learned_meanwhile_stay() -> None:
    log, _, _, aside = started(5)
    authority = log.authority = type(log.authority)(log.key, log.manifest)
    aside.settle()
    assert log.authority is authority
