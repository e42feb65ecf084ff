"""One log's own changes: stored first, then there, then told; what fails changes nothing."""

from __future__ import annotations

import random

import pytest

from covey.errors import BlockNotAvailable, StoreError, UsageError, VerifyError
from covey.feed.data_message import MAX_BLOCK
from covey.feed.log import Log
from covey.feed.log_events import (
    Appended,
    Cleared,
    Stored,
    Truncated,
)
from covey.feed.manifest import Manifest, Prologue, Signer
from covey.feed.signatures import Authority
from covey.feed.tree import Batch
from covey.feed.verify import NewHead
from covey.keys import KeyPair
from tests.feed.exchange import fetch, upgrade
from tests.feed.memory_records import (
    MemoryRecords,
    assert_sound,
    heard,
    needed_nodes,
    numbered,
    reader,
    reopened,
    summary,
    writer,
)
from tests.feed.plain_logs import PAIR, PlainLog

PAIRS = [KeyPair.from_seed(bytes([number]) * 32) for number in range(1, 4)]


class TestAppend:
    def test_the_head_is_that_of_any_other_writer(self) -> None:
        log, _ = writer()
        plain = PlainLog()
        for count in (1, 1, 2, 5, 64):
            blocks = numbered(count, log.length)
            assert log.append(blocks) == log.length == plain.length + count
            plain.append(*blocks)
            assert (log.roots, log.signature) == (plain.roots, plain.signature)
            assert log.byte_length == sum(map(len, plain.blocks.values()))
            assert log.contiguous_length == log.length
        assert all(log.node(index) == node for index, node in plain.nodes.items())

    def test_one_commit_has_all_of_it(self) -> None:
        log, records = writer(*numbered(3))
        records.commits.clear()
        events = heard(log)
        log.append(numbered(2, 3))
        (changes,) = records.commits
        assert [index for index, _ in changes.blocks] == [3, 4]
        assert [node.index for node in changes.nodes] == [6, 5, 3, 8]
        assert changes.head == log.head
        assert changes.pages == {0: b"\x1f" + bytes(511)}
        assert changes.hints is not None
        assert changes.hints.contiguous_length == 5
        assert events == [Appended(5, 0, 3), Stored([3, 4])]

    def test_nothing_appended_commits_nothing(self) -> None:
        log, records = writer(b"a")
        records.commits.clear()
        assert log.append([]) == 1
        assert records.commits == []

    def test_blocks_may_be_empty_and_of_any_kind_of_bytes(self) -> None:
        log, _ = writer()
        source = bytearray(b"changes later")
        log.append([b"", source, memoryview(b"view")])
        source[:] = b"x" * len(source)
        assert [log.block(index) for index in range(3)] == [b"", b"changes later", b"view"]
        assert log.byte_length == 17

    @pytest.mark.parametrize("blocks", [b"one block", "text", ["text"], [None]])
    def test_what_is_no_list_of_bytes_is_refused(self, blocks: list[bytes]) -> None:
        log, records = writer(b"a")
        with pytest.raises(UsageError):
            log.append(blocks)
        assert log.length == len(records.commits) == 1

    def test_a_block_is_15_mib_at_most(self) -> None:
        log, _ = writer()
        log.append([bytes(MAX_BLOCK)])
        assert log.block(0) == bytes(MAX_BLOCK)
        with pytest.raises(UsageError, match="15728640"):
            log.append([bytes(MAX_BLOCK + 1)])
        assert log.length == 1

    def test_a_reader_does_not_append(self) -> None:
        log, _ = writer(b"a")
        other, records = reader(log)
        with pytest.raises(UsageError, match="only read"):
            other.append([b"b"])
        assert records.commits == []

    def test_several_pages_of_bits_at_once(self) -> None:
        log, records = writer(*[b""] * 4095)
        records.commits.clear()
        log.append([b""] * 5000)
        (changes,) = records.commits
        assert sorted(changes.pages) == [0, 1, 2]
        assert log.contiguous_length == 9095
        assert reopened(log, records).contiguous_length == 9095

    def test_an_append_that_fails_changes_nothing_and_can_be_done_again(self) -> None:
        log, records = writer(*numbered(3))
        before = summary(log)
        events = heard(log)
        records.fail()
        with pytest.raises(StoreError, match="no space"):
            log.append(numbered(2, 3))
        assert summary(log) == before
        assert events == []
        assert log.node(3) is None
        assert log.block(3) is None
        log.append(numbered(2, 3))
        assert_sound(log, records)

    def test_an_append_leaves_staged_blocks_alone(self) -> None:
        source, _ = writer(*numbered(6))
        records = MemoryRecords()
        log = records.open(source.key, manifest=source.manifest, key_pair=PAIR)
        upgrade(log, source)
        fetch(log, source, [1, 4])
        log.append(numbered(3, 6))
        assert log.staged_blocks == 2
        assert log.block(4) == b"block 4"
        assert log.contiguous_length == 0
        records.fail()
        with pytest.raises(StoreError):
            log.append([b"fails"])
        assert log.flush() == 2
        assert [index for index in range(9) if log.has(index)] == [1, 4, 6, 7, 8]
        assert_sound(log, records)

    def test_an_interrupted_write_ends_writing(self) -> None:
        log, records = writer(b"a")
        records.fail(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            log.append([b"b"])
        with pytest.raises(StoreError, match="opened again"):
            log.append([b"b"])
        assert reopened(log, records).append([b"b"]) == 2


class TestSeveralSigners:
    manifest = Manifest(signers=tuple(Signer(pair.public_key) for pair in PAIRS))

    def open(self, pair: KeyPair | None = PAIRS[0]) -> tuple[Log, MemoryRecords]:
        records = MemoryRecords()
        key = self.manifest.key
        return records.open(key, manifest=self.manifest, key_pair=pair), records

    def signature(self, batch: Batch, *, fork: int = 0) -> bytes:
        authority = Authority(self.manifest.key, self.manifest)
        head = {"roots": batch.roots, "length": batch.length, "fork": fork}
        parts = [authority.sign_part(pair, **head) for pair in PAIRS[:2]]  # type: ignore[arg-type]
        return authority.assemble(parts, length=batch.length)

    @pytest.mark.parametrize("pair", [PAIRS[0], None])
    def test_a_plan_is_signed_and_appended(self, pair: KeyPair | None) -> None:
        log, records = self.open(pair)
        batch = log.plan(numbered(5))
        assert (log.length, batch.length) == (0, 5)
        assert log.append(numbered(5), signature=self.signature(batch)) == 5
        assert_sound(log, records)
        log.truncate(0, signature=self.signature(Batch(), fork=1))
        assert (log.length, log.fork) == (0, 1)
        assert_sound(log, records)

    def test_one_of_them_alone_does_not_append(self) -> None:
        log, records = self.open()
        with pytest.raises(UsageError, match="1 of 2 signatures"):
            log.append([b"a"])
        assert records.commits == []

    def test_a_signature_for_other_blocks_is_refused(self) -> None:
        log, records = self.open()
        signature = self.signature(log.plan([b"a"]))
        with pytest.raises(VerifyError):
            log.append([b"b"], signature=signature)
        assert records.commits == []
        assert log.length == 0


class TestPrologue:
    blocks = numbered(3)

    def open(self, signers: tuple[Signer, ...]) -> tuple[Log, MemoryRecords]:
        batch = Batch()
        for block in self.blocks:
            batch.append(block)
        prologue = Prologue(batch.tree_hash(), 3)
        manifest = Manifest(signers=signers, prologue=prologue)
        records = MemoryRecords()
        return records.open(manifest.key, manifest=manifest, key_pair=PAIR), records

    def test_a_static_log_is_its_prologue_and_no_more(self) -> None:
        log, records = self.open(())
        assert not log.writable
        assert log.append(self.blocks) == 3
        assert log.signature is None
        assert_sound(log, records)
        with pytest.raises(UsageError):
            log.append([b"more"])
        with pytest.raises(UsageError):
            log.truncate(3)
        assert log.length == 3

    def test_a_prologue_is_appended_whole(self) -> None:
        log, records = self.open((Signer(PAIR.public_key),))
        with pytest.raises(UsageError, match="appended whole"):
            log.append(self.blocks[:2])
        assert records.commits == []

    @pytest.mark.parametrize("more", [[], [b"more"]])
    def test_another_prologue_is_refused(self, more: list[bytes]) -> None:
        log, records = self.open((Signer(PAIR.public_key),))
        with pytest.raises(VerifyError):
            log.append([*self.blocks[:2], b"other", *more])
        assert records.commits == []

    def test_what_follows_a_prologue_is_signed(self) -> None:
        log, records = self.open((Signer(PAIR.public_key),))
        log.append([*self.blocks, b"more"])
        assert log.signature is not None
        with pytest.raises(UsageError, match="cannot be cut to 2"):
            log.truncate(2)
        log.truncate(3)
        assert (log.length, log.fork) == (3, 1)
        assert log.head.signature is None
        assert_sound(log, records)

    def test_a_fork_that_nobody_signed_is_refused(self) -> None:
        log, records = self.open((Signer(PAIR.public_key),))
        log.append([*self.blocks, b"more"])
        plan = Batch()
        for block in self.blocks:
            plan.append(block)
        head = NewHead(1 << 40, 3, plan.byte_length, plan.roots, None)
        before = summary(log)
        with pytest.raises(VerifyError, match="not signed by anyone"):
            log.reorg(head, plan.roots, 3)
        assert summary(log) == before
        assert len(records.commits) == 1


class TestCompat:
    def test_a_log_named_by_the_key_of_its_signer(self) -> None:
        records = MemoryRecords()
        log = records.open(PAIR.public_key, key_pair=PAIR)
        assert log.writable
        assert log.manifest is None
        log.append(numbered(5))
        assert len(log.signature or b"") == 64
        other, other_records = reader(log)
        upgrade(other, log, block=4)
        fetch(other, log, range(4))
        other.flush()
        assert_sound(log, records)
        assert_sound(other, other_records)


class TestTruncate:
    @pytest.mark.parametrize("length", range(14))
    def test_to_every_length(self, length: int) -> None:
        log, records = writer(*numbered(13))
        events = heard(log)
        records.commits.clear()
        log.truncate(length)
        assert len(records.commits) == 1
        assert (log.length, log.fork, log.contiguous_length) == (length, 1, length)
        assert events == [Truncated(length, 1, 13)]
        assert log.block(length) is None
        assert_sound(log, records)
        log.append([b"other", b"more"])
        assert log.block(length) == b"other"
        assert_sound(log, records)

    def test_no_old_node_is_left_in_memory(self) -> None:
        log, _ = writer(*numbered(8))
        old = [log.node(index) for index in (7, 11, 9, 8)]
        log.truncate(4)
        assert [log.node(index) for index in (7, 11, 9, 8)] == [None] * 4
        log.append([b"other"] * 4)
        assert all(log.node(index) != node for index, node in zip((7, 11, 9, 8), old, strict=True))

    def test_pages_of_bits_go_with_the_blocks(self) -> None:
        log, records = writer(*[b""] * 9000)
        log.truncate(10)
        assert sorted(records.pages) == [0]
        assert_sound(log, records)

    def test_a_chosen_fork(self) -> None:
        log, records = writer(*numbered(3))
        log.truncate(1, fork=7)
        assert log.fork == 7
        assert_sound(log, records)

    @pytest.mark.parametrize("fork", [0, 1, -1, 1 << 53])
    def test_a_fork_number_is_never_used_again(self, fork: int) -> None:
        log, _ = writer(*numbered(3))
        log.truncate(2)
        with pytest.raises(UsageError, match="not new"):
            log.truncate(1, fork=fork)
        assert log.fork == 1

    @pytest.mark.parametrize("length", [-1, 4])
    def test_only_to_what_there_is(self, length: int) -> None:
        log, _ = writer(*numbered(3))
        with pytest.raises(UsageError, match="cannot be cut"):
            log.truncate(length)

    def test_a_reader_does_not_truncate(self) -> None:
        log, _ = writer(*numbered(3))
        other, _ = reader(log)
        upgrade(other, log)
        with pytest.raises(UsageError, match="only read"):
            other.truncate(1)

    def test_a_cut_whose_roots_are_not_here_is_refused(self) -> None:
        source, _ = writer(*numbered(8))
        records = MemoryRecords()
        log = records.open(source.key, manifest=source.manifest, key_pair=PAIR)
        upgrade(log, source)
        with pytest.raises(BlockNotAvailable, match="not here: download them before"):
            log.truncate(5)
        assert_sound(log, records)

    def test_one_that_fails_changes_nothing(self) -> None:
        log, records = writer(*numbered(13))
        before = summary(log)
        events = heard(log)
        records.fail()
        with pytest.raises(StoreError):
            log.truncate(5)
        assert summary(log) == before
        assert events == []
        assert_sound(log, records)
        assert log.append([b"more"]) == 14
        assert_sound(log, records)


class TestClear:
    def test_blocks_and_bits_go_and_the_head_stays(self) -> None:
        log, records = writer(*numbered(13))
        head = log.head
        events = heard(log)
        assert log.clear(3, 7) == 4
        assert log.head == head
        assert log.contiguous_length == 3
        assert [log.block(index) for index in (2, 3, 6, 7)] == [b"block 2", None, None, b"block 7"]
        assert events == [Cleared(3, 7, [(3, 7)], [])]
        assert_sound(log, records)

    def test_the_writer_keeps_its_tree_and_proves_its_head_from_any_length(self) -> None:
        log, records = writer(*numbered(13))
        other, _ = reader(log)
        upgrade(other, log)
        old, _ = writer(*numbered(5))
        late, _ = reader(old)
        upgrade(late, old)
        log.clear(0, 13)
        upgrade(late, log)
        assert late.length == 13
        assert_sound(log, records)

    @pytest.mark.parametrize("seed", range(20))
    def test_only_nodes_that_a_held_block_needs_are_left(self, seed: int) -> None:
        chance = random.Random(seed)
        log, records = writer(*numbered(chance.randrange(1, 70)))
        for _ in range(6):
            start = chance.randrange(log.length)
            log.clear(start, chance.randrange(start, log.length + 3), keep_tree=False)
            assert_sound(log, records)
            assert set(records.nodes) == needed_nodes(log)

    def test_pages_of_bits_go_with_their_last_block(self) -> None:
        log, records = writer(*[b""] * 13_000)
        log.clear(100, 12_900)
        assert sorted(records.pages) == [0, 3]
        assert_sound(log, records)
        log.clear(0, 13_000)
        assert records.blocks == {}
        assert_sound(log, records)

    @pytest.mark.parametrize(("start", "end"), [(0, 0), (13, 20), (1 << 50, 1 << 51), (4, 6)])
    def test_where_nothing_is_held_nothing_happens(self, start: int, end: int) -> None:
        log, records = writer(*numbered(13))
        log.clear(4, 6)
        records.commits.clear()
        assert log.clear(start, end) == 0
        assert records.commits == []

    @pytest.mark.parametrize(("start", "end"), [(-1, 3), (5, 3)])
    def test_what_is_no_range_is_refused(self, start: int, end: int) -> None:
        log, _ = writer(*numbered(13))
        with pytest.raises(UsageError, match="no range"):
            log.clear(start, end)

    def test_a_cleared_block_can_be_fetched_again(self) -> None:
        source, _ = writer(*numbered(13))
        log, records = reader(source)
        upgrade(log, source)
        fetch(log, source, range(13))
        log.clear(2, 9)
        assert set(records.nodes) == needed_nodes(log)
        fetch(log, source, range(2, 9))
        log.flush()
        assert log.contiguous_length == 13
        assert_sound(log, records)

    def test_one_that_fails_changes_nothing(self) -> None:
        log, records = writer(*numbered(13))
        before = summary(log)
        records.fail()
        with pytest.raises(StoreError):
            log.clear(3, 7)
        assert summary(log) == before
        assert_sound(log, records)
