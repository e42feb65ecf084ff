"""What a log takes from peers: blocks staged, heads and forks at once, and all of it or nothing."""

from __future__ import annotations

import contextlib
import random

import pytest

from covey.errors import StoreError, UsageError
from covey.feed import log as log_module
from covey.feed.hashes import tree_hash
from covey.feed.log import Log
from covey.feed.log_events import (
    Appended,
    Dropped,
    ManifestLearned,
    Stored,
    Truncated,
)
from covey.feed.verify import NewHead, Verified
from tests.feed.exchange import answer, check, fetch, follow_fork, upgrade
from tests.feed.memory_records import (
    assert_sound,
    heard,
    numbered,
    reader,
    summary,
    writer,
)
from tests.feed.plain_logs import ask


class TestAccept:
    def test_blocks_are_staged_until_they_are_flushed(self) -> None:
        source, _ = writer(*numbered(13))
        log, records = reader(source)
        upgrade(log, source)
        events = heard(log)
        records.commits.clear()
        fetch(log, source, [5, 2])
        assert (log.staged_blocks, log.staged_bytes) == (2, 14)
        assert log.block(5) == b"block 5"
        assert log.node(10) == source.node(10)
        assert log.is_staged(2)
        assert not log.has(2)
        assert log.bitfield.count() == 0
        assert records.commits == []
        assert events == []
        assert log.flush() == 2
        assert (log.staged_blocks, log.staged_bytes) == (0, 0)
        assert log.has(2)
        assert not log.is_staged(2)
        assert len(records.commits) == 1
        assert events == [Stored([2, 5])]
        assert_sound(log, records)
        assert log.flush() == 0
        assert len(records.commits) == 1

    def test_staged_nodes_vouch_for_the_next_block(self) -> None:
        source, _ = writer(*numbered(8))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, [0])
        data = answer(source, ask(block=(1, 0)))
        assert data.block is not None
        assert data.block.nodes == []
        log.accept(check(log, data))
        log.flush()
        assert_sound(log, records)

    def test_an_upgrade_takes_everything_along_in_one_commit(self) -> None:
        source, _ = writer(*numbered(5))
        log, records = reader(source)
        upgrade(log, source)
        source.append(numbered(4, 5))
        fetch(log, source_at(5), [0, 3])
        events = heard(log)
        records.commits.clear()
        upgrade(log, source, block=8)
        (changes,) = records.commits
        assert [index for index, _ in changes.blocks] == [0, 3, 8]
        assert changes.head is not None
        assert events == [Appended(9, 0, 5), Stored([0, 3, 8])]
        assert (log.length, log.tree_hash) == (9, source.tree_hash)
        assert_sound(log, records)

    def test_a_manifest_is_stored_with_the_head_that_it_proves(self) -> None:
        source, _ = writer(*numbered(5))
        log, records = reader(source)
        events = heard(log)
        upgrade(log, source)
        assert log.manifest == records.manifest == source.manifest
        assert source.manifest is not None
        assert events == [ManifestLearned(source.manifest), Appended(5, 0, 0)]
        assert len(records.commits) == 1
        assert_sound(log, records)

    def test_a_manifest_alone_is_stored_at_once(self) -> None:
        source, _ = writer(*numbered(5))
        log, records = reader(source)
        log.accept(check(log, answer(source, ask(manifest=True))))
        assert records.manifest == source.manifest
        assert log.length == 0

    def test_the_same_block_twice_is_stored_once(self) -> None:
        source, _ = writer(*numbered(5))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, [1, 1])
        assert (log.staged_blocks, log.staged_bytes) == (1, 7)
        log.flush()
        records.commits.clear()
        events = heard(log)
        fetch(log, source, [1])
        assert log.flush() == 0
        assert events == []
        assert_sound(log, records)

    def test_a_flush_that_fails_drops_what_was_staged_and_says_so(self) -> None:
        source, _ = writer(*numbered(13))
        log, records = reader(source)
        upgrade(log, source)
        before = summary(log)
        fetch(log, source, [7, 3])
        events = heard(log)
        error = StoreError("no space left")
        records.fail(error)
        with pytest.raises(StoreError):
            log.flush()
        assert summary(log) == before
        assert events == [Dropped([3, 7], error)]
        assert log.block(3) is None
        assert log.node(6) is None
        assert_sound(log, records)
        fetch(log, source, [7, 3])
        assert log.flush() == 2
        assert_sound(log, records)

    def test_an_upgrade_that_fails_drops_its_block_too(self) -> None:
        source, _ = writer(*numbered(5))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, [2])
        before = summary(log)[:-3]
        source.append(numbered(1, 5))
        events = heard(log)
        records.fail()
        with pytest.raises(StoreError):
            upgrade(log, source, block=5)
        assert summary(log)[:-3] == before
        assert isinstance(events[0], Dropped)
        assert events[0].blocks == [2, 5]
        assert_sound(log, records)

    def test_an_upgrade_that_leads_nowhere_is_refused(self) -> None:
        log, _ = writer(*numbered(3))
        head = NewHead(0, 3, log.byte_length, log.roots, log.signature)
        for old in (head, head._replace(fork=1, length=4)):
            with pytest.raises(UsageError):
                log.accept(Verified([], None, old, None))
        assert log.length == 3

    @pytest.mark.parametrize(
        ("bound", "value"),
        [("MAX_STAGED_BLOCKS", 4), ("MAX_STAGED_BYTES", 28), ("MAX_STAGED_NODES", 8)],
    )
    def test_what_is_staged_is_bounded(
        self, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
    ) -> None:
        monkeypatch.setattr(log_module, bound, value)
        source, _ = writer(*numbered(9))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, range(8))
        assert log.staged_blocks < 6
        assert len(records.commits) > 1
        log.flush()
        assert_sound(log, records)


def source_at(length: int) -> Log:
    return writer(*numbered(length))[0]


class TestReorg:
    @pytest.mark.parametrize("shared", [0, 1, 3, 5, 8, 12, 13])
    @pytest.mark.parametrize("more", [0, 1, 6])
    def test_everything_shared_stays(self, shared: int, more: int) -> None:
        source, _ = writer(*numbered(13))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, range(13))
        log.flush()
        source.truncate(shared)
        source.append([b"other"] * more)
        if not source.length:
            return  # a head without blocks cannot be asked for
        events = heard(log)
        records.commits.clear()
        assert follow_fork(log, source) == shared
        assert len(records.commits) == 1
        assert (log.fork, log.tree_hash) == (source.fork, source.tree_hash)
        assert log.contiguous_length == log.bitfield.count() == shared
        grown = [Appended(source.length, 1, shared)] if more else []
        assert events == [Truncated(shared, 1, 13), *grown]
        assert_sound(log, records)
        fetch(log, source, range(shared, source.length))
        log.flush()
        assert log.contiguous_length == source.length
        assert_sound(log, records)

    def test_what_is_staged_is_flushed_first(self) -> None:
        source, _ = writer(*numbered(8))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, [1, 6])
        source.truncate(4)
        source.append([b"other"])
        follow_fork(log, source)
        assert log.has(1)
        assert not log.has(6)
        assert_sound(log, records)

    def test_one_that_fails_changes_nothing(self) -> None:
        source, _ = writer(*numbered(8))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, range(8))
        log.flush()
        before = summary(log)
        source.truncate(4)
        source.append([b"other"])
        records.fail()
        with pytest.raises(StoreError):
            follow_fork(log, source)
        assert summary(log) == before
        assert_sound(log, records)
        follow_fork(log, source)
        assert_sound(log, records)

    @pytest.mark.parametrize(("fork", "shared"), [(0, 0), (1, 4), (1, -1)])
    def test_what_is_no_higher_fork_is_refused(self, fork: int, shared: int) -> None:
        log, _ = writer(*numbered(3))
        head = NewHead(fork, 5, log.byte_length, log.roots, log.signature)
        with pytest.raises(UsageError):
            log.reorg(head, [], shared)


@pytest.mark.parametrize("seed", range(25))
def test_whatever_happens_reader_and_writer_end_alike(seed: int) -> None:
    chance = random.Random(seed)
    source, source_records = writer()
    log, records = reader(source)
    for step in range(60):
        match chance.randrange(8):
            case 0 | 1:
                source.append([b"%d" % step] * chance.randrange(1, 9))
            case 2 if source.length and chance.random() < 0.4:
                source.truncate(chance.randrange(source.length))
            case 3 if source.fork > log.fork and source.length:
                follow_fork(log, source)
            case 4 if log.length:
                start = chance.randrange(log.length)
                log.clear(start, start + chance.randrange(9))
            case 5:
                log.flush()
            case _ if source.fork == log.fork and source.length > log.length:
                upgrade(log, source)
            case _ if source.fork == log.fork and log.length:
                fetch(log, source, [chance.randrange(log.length) for _ in range(4)])
        if chance.random() < 0.1:
            records.fail()
            with contextlib.suppress(StoreError):
                log.flush()
            records.failing = None
        if not log.staged_blocks:
            assert_sound(log, records)
    source.append([b"the end"])
    if source.fork > log.fork:
        follow_fork(log, source)
    elif source.length > log.length:
        upgrade(log, source)
    fetch(log, source, [index for index in range(log.length) if not log.has(index)])
    log.flush()
    assert log.tree_hash == source.tree_hash == tree_hash(log.roots)
    assert [log.block(i) for i in range(log.length)] == [
        source.block(i) for i in range(source.length)
    ]
    assert_sound(log, records)
    assert_sound(source, source_records)
