"""What is found when a log is opened and read, and damage that is told and never handed out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from covey.errors import FrozenError, StoreError, UsageError, VerifyError
from covey.feed import flat_tree
from covey.feed.hashes import EMPTY_TREE_HASH
from covey.feed.log import Log
from covey.feed.log_events import (
    Appended,
    Frozen,
    LogEvent,
    Stored,
)
from covey.feed.verify import NewHead, Verified
from covey.keys import KeyPair, discovery_key
from tests.feed.exchange import fetch, follow_fork, upgrade
from tests.feed.memory_records import (
    heard,
    numbered,
    reader,
    reopened,
    summary,
    writer,
)

PAIRS = [KeyPair.from_seed(bytes([number]) * 32) for number in range(1, 4)]


class TestOpening:
    def test_a_new_log_is_empty(self) -> None:
        log, records = writer()
        assert (log.length, log.fork, log.byte_length, log.roots) == (0, 0, 0, [])
        assert log.tree_hash == EMPTY_TREE_HASH
        assert log.signature is None
        assert log.discovery_key == discovery_key(log.key)
        assert records.commits == []
        assert list(log.verify_all()) == []

    def test_what_was_appended_is_there_after_opening_again(self) -> None:
        log, records = writer(*numbered(13))
        again = reopened(log, records)
        assert summary(again) == summary(log)
        assert [again.block(index) for index in range(14)] == [*numbered(13), None]

    def test_the_contiguous_length_comes_from_the_bits_not_from_the_hint(self) -> None:
        log, records = writer(*numbered(13))
        records.hints = records.hints._replace(contiguous_length=2)
        assert reopened(log, records).contiguous_length == 13

    @pytest.mark.parametrize("root", flat_tree.full_roots(13))
    def test_a_missing_root_is_damage(self, root: int) -> None:
        log, records = writer(*numbered(13))
        del records.nodes[root]
        with pytest.raises(StoreError, match="damaged: a root of its head of 13 blocks is missing"):
            reopened(log, records)

    @pytest.mark.parametrize(
        "change",
        [
            {"length": 12},
            {"length": 14},
            {"fork": 1},
            {"byte_length": 5},
            {"tree_hash": bytes(32)},
            {"signature": None},
            {"signature": bytes(68)},
            {"signature": b"\x01"},
        ],
    )
    def test_a_head_that_does_not_fit_is_damage(self, change: dict[str, object]) -> None:
        log, records = writer(*numbered(13))
        assert records.head is not None
        records.head = records.head._replace(**change)  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="damaged"):
            reopened(log, records)

    def test_a_missing_head_is_damage_where_blocks_are_held(self) -> None:
        log, records = writer(*numbered(13))
        records.head = None
        with pytest.raises(StoreError, match="blocks beyond its head of 0"):
            reopened(log, records)

    def test_a_page_of_another_size_is_damage(self) -> None:
        log, records = writer(*numbered(13))
        records.pages[0] = records.pages[0][:-1]
        with pytest.raises(StoreError, match="page 0 of bits has 511 bytes"):
            reopened(log, records)

    def test_who_may_write(self) -> None:
        log, records = writer()
        assert log.writable
        assert not records.open(log.key, manifest=log.manifest).writable
        assert not records.open(log.key, manifest=log.manifest, key_pair=PAIRS[1]).writable


class TestReading:
    def test_offsets_and_seeks(self) -> None:
        blocks = [b"x" * size for size in (3, 0, 5, 1, 7)]
        log, _ = writer(*blocks)
        assert [log.byte_offset(index) for index in range(7)] == [0, 3, 3, 8, 9, 16, None]
        assert log.byte_range(2) == (3, 5)
        assert log.seek(7) == (2, 4)
        assert log.seek(16) == (5, 0)
        assert log.seek(17) is None

    def test_user_data(self) -> None:
        log, records = writer()
        assert log.user_data("name") is None
        log.set_user_data("name", b"value")
        assert reopened(log, records).user_data("name") == b"value"
        log.set_user_data("name", None)
        assert log.user_data("name") is None

    def test_hints_of_remotes_go_with_the_next_commit(self) -> None:
        log, records = writer(b"a")
        log.remote_contiguous_length = 40
        log.append([b"b"])
        assert records.hints == (2, 40)
        assert reopened(log, records).remote_contiguous_length == 40

    @pytest.mark.parametrize("index", [-1, 3, 1 << 60])
    def test_a_block_outside_is_not_here(self, index: int) -> None:
        log, _ = writer(*numbered(3))
        assert log.block(index) is None

    @pytest.mark.parametrize("damage", [None, b"", b"block 2", b"block 1x"])
    def test_a_damaged_block_is_an_error_never_data(self, damage: bytes | None) -> None:
        log, records = writer(*numbered(3))
        if damage is None:
            del records.blocks[1]
        else:
            records.blocks[1] = damage
        for each in (log, reopened(log, records)):
            with pytest.raises(StoreError, match="block 1"):
                each.block(1)
            with pytest.raises(StoreError, match="damaged"):
                list(each.verify_all())

    def test_a_damaged_block_is_not_served(self) -> None:
        log, records = writer(*numbered(3))
        again = reopened(log, records)
        assert again.served_block(0) == b"block 0"
        records.blocks[0] = records.blocks[1] = b"other 1"
        with pytest.raises(StoreError, match="block 1"):
            again.served_block(1)
        # Hashed once since it was opened: the peer finds what happened to it afterwards.
        assert again.served_block(0) == b"other 1"
        with pytest.raises(StoreError, match="block 0"):
            again.block(0)

    @pytest.mark.parametrize("rewrite", [False, True])
    def test_a_block_that_came_back_is_hashed_before_it_is_served(self, rewrite: bool) -> None:
        log, records = writer(*numbered(3))
        source, _ = writer(*numbered(3))
        assert [log.served_block(index) for index in range(4)] == [*numbered(3), None]
        if rewrite:
            source.truncate(1)
            source.append([b"another", b"history"])
            assert follow_fork(log, source) == 1
        else:
            log.clear(1, 3)
        assert log.served_block(1) is None
        fetch(log, source, [1])
        log.flush()
        records.blocks[1] = b"damaged"
        with pytest.raises(StoreError, match="block 1"):
            log.served_block(1)

    @pytest.mark.parametrize("index", [*range(15), 16])
    def test_every_damaged_node_is_found(self, index: int) -> None:
        log, records = writer(*numbered(9))
        node = records.nodes[index]
        for bad in (node._replace(hash=bytes(32)), node._replace(size=node.size + 1), None):
            if bad is None:
                del records.nodes[index]
            else:
                records.nodes[index] = bad
            with pytest.raises(StoreError, match="damaged"):
                list(reopened(log, records).verify_all())

    def test_verifying_tells_how_far_it_is(self) -> None:
        log, _ = writer(*numbered(9))
        log.clear(2, 6)
        steps = list(log.verify_all())
        assert [step.blocks for step in steps] == [1, 2, 4, 6, 7, 8, 9]
        assert {step.length for step in steps} == {9}
        assert steps[-1].bytes == 5 * 7

    def test_appending_while_verifying_is_fine(self) -> None:
        log, _ = writer(*numbered(9))
        steps = log.verify_all()
        next(steps)
        log.append(numbered(7, 9))
        assert list(steps)[-1].blocks == 9

    @pytest.mark.parametrize("how", [lambda log: log.truncate(3), lambda log: log.clear(4, 8)])
    def test_cutting_while_verifying_ends_it(self, how: Callable[[Log], None]) -> None:
        log, _ = writer(*numbered(9))
        steps: Iterator[object] = log.verify_all()
        next(steps)
        how(log)
        with pytest.raises(UsageError, match="while it was verified"):
            next(steps)

    def test_a_wrong_signature_is_told(self) -> None:
        log, _ = writer(*numbered(9))
        log.signature = bytes(68)
        with pytest.raises(VerifyError):
            next(log.verify_all())


class TestFrozen:
    def test_a_frozen_log_reads_on_and_writes_no_more(self) -> None:
        log, records = writer(*numbered(3))
        events = heard(log)
        log.freeze(length=3, fork=0)
        assert events == [Frozen(3, 0)]
        assert log.frozen
        assert not log.writable
        writes: list[Callable[[], object]] = [
            lambda: log.append([b"a"]),
            lambda: log.truncate(1),
            lambda: log.clear(0, 1),
            lambda: log.accept(Verified([], (1, b""), None, None)),
            lambda: log.reorg(NewHead(1, 0, 0, [], None), [], 0),
        ]
        for each in (log, reopened(log, records)):
            assert each.frozen
            assert each.block(2) == b"block 2"
        for write in writes:
            with pytest.raises(FrozenError):
                write()
        log.set_user_data("note", b"kept all the same")
        log.freeze(length=3, fork=0)
        assert len(events) == 1

    def test_what_was_staged_is_dropped(self) -> None:
        source, _ = writer(*numbered(3))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, [1])
        log.freeze(length=3, fork=0)
        assert log.flush() == 0
        assert log.block(1) is None
        assert records.blocks == {}

    def test_one_that_fails_does_not_freeze(self) -> None:
        log, records = writer(*numbered(3))
        records.fail()
        with pytest.raises(StoreError):
            log.freeze(length=3, fork=0)
        assert log.append([b"a"]) == 4


class TestTelling:
    def test_the_change_is_there_when_it_is_told(self) -> None:
        log, records = writer()
        seen: list[tuple[int, int]] = []
        log.on_change.append(lambda _: seen.append((log.length, len(records.commits))))
        log.append([b"a"])
        log.truncate(0)
        assert seen == [(1, 1), (1, 1), (0, 2)]

    def test_a_listener_that_fails_harms_nobody(self, caplog: pytest.LogCaptureFixture) -> None:
        log, _ = writer()

        def fail(_: LogEvent) -> None:
            raise RuntimeError("a bug of the listener")

        log.on_change.append(fail)
        events = heard(log)
        with caplog.at_level(logging.ERROR, logger="covey.feed.log"):
            assert log.append([b"a"]) == 1
        assert len(events) == 2
        assert "a bug of the listener" in caplog.text

    def test_everybody_hears_everything_in_order(self) -> None:
        log, _ = writer()

        def append_once(event: LogEvent) -> None:
            if event == Appended(1, 0, 0):
                log.append([b"b"])

        log.on_change.append(append_once)
        events = heard(log)
        log.append([b"a"])
        assert events == [Appended(1, 0, 0), Stored([0]), Appended(2, 0, 1), Stored([1])]
