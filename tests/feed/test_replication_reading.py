"""Records that cannot be read: that is told once, and everything else goes on."""

from __future__ import annotations

from typing import Any

import pytest

from covey.errors import StoreError
from covey.feed.messages import NOT_AVAILABLE, BlockRequest, NoData, Request
from covey.feed.replication_events import ReadFailed, StoreFailed
from covey.feed.replication_peer import DATA, NO_DATA, REQUEST
from covey.feed.replicator import MAX_UNREADABLE
from tests.feed.replication_links import Link, Side, run
from tests.feed.test_replication_progress import known_pair
from tests.feed.test_replicator import assert_same, numbered, sent

ABOVE_8_TO_15 = 23
"""The node above these blocks, which comes with the path of block 5."""


def damage(side: Side, *nodes: int) -> None:
    """They cannot be read any more, and memory does not have them."""
    side.log._cache.clear()
    side.records.damaged.update(nodes)


def damaged_pair() -> tuple[Side, Side, Link]:
    """A writer of 128 blocks, and a reader with block 5, of which a node is damaged."""
    writer, reader, link = known_pair(128)
    reader.replicator.want_block(5)
    run(link)
    damage(reader, ABOVE_8_TO_15)
    return writer, reader, link


def assert_told_once(side: Side, what: str) -> None:
    """One failed read, and nothing that would end or suspend anything."""
    (event,) = side.told(ReadFailed)
    assert what in str(event.error)
    assert not side.told(StoreFailed)
    assert not side.replicator.downloads.suspended


def test_a_damaged_block_that_is_asked_for_is_refused_each_time_and_told_once() -> None:
    writer, relay, reader = Side.of(*numbered(6)), Side(), Side()
    relay.replicator.want_range(0, 6)
    source = Link(writer, relay)
    run(source)
    relay.records.blocks[2] = b"rotten"
    link = Link(relay, reader)
    reader.replicator.want_block(2)
    run(link)
    assert not reader.blocks
    for number in range(900, 920):
        link.inject(relay, REQUEST, Request(number, 0, BlockRequest(2, 0)))
        assert sent(link, relay, NO_DATA)[-1] == NoData(number, NOT_AVAILABLE)
    assert not [m for m in sent(link, relay, DATA) if m.block]
    assert_told_once(relay, "block 2")
    writer.log.append([b"seven"])
    run(source, link)
    assert relay.log.length == 7


def test_who_asks_for_much_that_is_damaged_fills_neither_memory_nor_the_log() -> None:
    _, reader, _ = known_pair(4)
    for number in range(MAX_UNREADABLE + 100):
        reader.replicator.read_failed(StoreError(f"block {number}"))
    assert len(reader.told(ReadFailed)) == MAX_UNREADABLE


def test_a_damaged_node_is_fetched_again_and_keeps_no_other_block_from_coming() -> None:
    writer, reader, link = damaged_pair()
    reader.replicator.want_range(8, 16)
    reader.replicator.want_block(100)
    run(link)
    assert sorted(reader.blocks) == [5, *range(8, 16), 100]
    assert_told_once(reader, f"node {ABOVE_8_TO_15}")
    assert not reader.records.damaged, "what came with the blocks replaced it"
    reader.replicator.want_range(0, 128)
    run(link)
    assert_same(reader, writer)
    list(reader.log.verify_all())


def test_a_node_that_is_damaged_while_an_answer_is_under_way_blames_nobody() -> None:
    _, reader, link = damaged_pair()
    reader.records.damaged.clear()
    reader.replicator.want_block(9)
    reader.replicator.handle_timer(0.0)
    assert link.peer_of(reader).in_flight == 1
    damage(reader, ABOVE_8_TO_15)
    run(link)
    assert sorted(reader.blocks) == [5, 9]
    assert link.peer_of(reader).failures == 0
    assert_told_once(reader, f"node {ABOVE_8_TO_15}")


def test_a_byte_is_found_below_a_damaged_node() -> None:
    writer, reader, link = damaged_pair()
    got: list[Any] = []
    at = writer.log.byte_offset(11)
    assert at is not None
    reader.replicator.want_seek(at, done=got.append)
    run(link)
    assert got == [(11, 0)]
    assert_told_once(reader, f"node {ABOVE_8_TO_15}")


@pytest.mark.parametrize("index", range(128))
def test_a_byte_is_found_whatever_is_damaged(index: int) -> None:
    writer, reader, link = known_pair(64)
    reader.replicator.want_seek(200)
    reader.replicator.want_block(5)
    run(link)
    damage(reader, *{index} & set(reader.records.nodes))
    got: list[Any] = []
    for block in (3, 21, 27, 28, 60):
        at = writer.log.byte_offset(block)
        assert at is not None
        reader.replicator.want_seek(at, done=got.append)
        run(link, most=2000)
    if index == 2 * 26:
        assert isinstance(got.pop(2), StoreError), (
            "only the leaf of block 26, held, says where it ends"
        )
        got.insert(2, (27, 0))
    assert [found[0] for found in got] == [3, 21, 27, 28, 60]
    assert link.peer_of(reader).failures == 0
    assert link.open


@pytest.mark.parametrize("shared", [4, 12, 40])
def test_a_fork_is_followed_with_a_damaged_node(shared: int) -> None:
    writer, reader, link = damaged_pair()
    writer.log.truncate(shared)
    writer.log.append(numbered(100))
    run(link)
    reader.replicator.want_range(0, writer.log.length)
    run(link)
    assert_same(reader, writer)
    assert link.peer_of(reader).failures == 0
    assert not reader.told(StoreFailed)


def test_a_damaged_root_is_known_from_the_head() -> None:
    writer, reader, link = known_pair(128)
    (root,) = reader.log.roots
    damage(reader, root.index)
    reader.replicator.want_range(0, 128)
    run(link)
    assert_same(reader, writer)
    assert link.peer_of(reader).failures == 0
    assert_told_once(reader, f"node {root.index}")


def test_a_fork_that_cannot_be_stored_is_a_failure_of_the_store() -> None:
    writer, reader, link = known_pair(8)
    reader.records.failing = True
    writer.log.truncate(4)
    writer.log.append(numbered(8))
    run(link)
    assert reader.told(StoreFailed)
    assert not reader.told(ReadFailed)
    assert reader.replicator.downloads.suspended
    reader.records.failing = False
    reader.replicator.resume(0.0)
    run(link)
    assert reader.log.tree_hash == writer.log.tree_hash
