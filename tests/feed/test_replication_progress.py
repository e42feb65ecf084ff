"""It always goes on, and comes to rest: what ends early or fails keeps nothing else waiting."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from covey.errors import StoreError
from covey.feed.replication_choices import REQUEST_TIMEOUT, SWAP_AFTER
from covey.feed.replication_peer import REQUEST, SYNC
from tests.feed.replication_links import Link, Side, pass_time, run
from tests.feed.test_replicator import assert_same, numbered, sent


def known_pair(count: int = 5) -> tuple[Side, Side, Link]:
    """A writer, and a reader that knows its head."""
    writer, reader = Side.of(*numbered(count)), Side()
    link = Link(writer, reader)
    run(link)
    return writer, reader, link


def asked_for_heads(link: Link, side: Side) -> list[Any]:
    """The requests for a block and a longer head that a side sent."""
    return [request for request in sent(link, side, REQUEST) if request.block and request.upgrade]


def ask_with_news(link: Link, writer: Side, reader: Side, block: int) -> Any:
    """The request for a block of a reader that hears of a longer head at that moment."""
    writer.log.append([b"news"])
    while link.end_of(reader).incoming[0][0] != SYNC:
        link.step()
    reader.replicator.want_block(block)
    link.step()
    (asked,) = asked_for_heads(link, reader)
    return asked


def test_a_cancelled_request_keeps_nobody_from_asking_for_the_head_it_was_to_bring() -> None:
    writer, reader, link = known_pair()
    ticket = reader.replicator.want_block(5)
    run(link)
    writer.log.append([b"six"])
    while not reader.replicator.downloads.upgrading:
        assert link.step()
    assert asked_for_heads(link, reader)
    ticket.cancel()
    run(link)
    assert reader.log.length == 6
    writer.log.append([b"seven"])
    run(link)
    assert reader.log.tree_hash == writer.log.tree_hash


def test_the_loser_of_a_slow_block_keeps_nobody_from_asking_for_a_head() -> None:
    writer, relay, reader = Side.of(*numbered(5)), Side(), Side()
    relay.replicator.want_range(0, 5)
    before = Link(writer, relay)
    run(before)
    before.cut()
    slow, fast = Link(writer, reader), Link(relay, reader)
    run(slow, fast)
    slow.drops = lambda sender, kind, message: (
        None if sender is reader and kind == REQUEST else message
    )
    ask_with_news(slow, writer, reader, 2)
    pass_time(2 * SWAP_AFTER, slow, fast)
    assert reader.blocks == {2: b"block 2"}
    slow.drops = None
    pass_time(2 * REQUEST_TIMEOUT, slow, fast)
    assert reader.log.tree_hash == writer.log.tree_hash


def test_a_download_that_is_cancelled_under_way_leaves_nothing_to_do() -> None:
    _, reader, link = known_pair(200)
    ticket = reader.replicator.want_range(0, 200)
    peer = link.peer_of(reader)
    while peer.in_flight < peer.most_in_flight:
        reader.work()
        link.step()
    assert peer.ranges
    ticket.cancel()
    assert not peer.ranges
    run(link, most=5000)
    due = reader.replicator.next_timer()
    assert due is None or due > reader.now


def test_a_peer_that_is_not_asked_keeps_no_ended_downloads() -> None:
    writer, reader, link = known_pair(4)
    other = Link(writer, reader)
    run(link, other)
    peer = other.peer_of(reader)
    peer.paused = "for the test"
    peer.ranges = OrderedDict()
    for length in range(5, 25):
        writer.log.append([b"more"])
        run(link)
        peer.ranges = OrderedDict() if peer.ranges is None else peer.ranges
        reader.replicator.want_range(length - 1, length)
        run(link)
        assert length - 1 in reader.blocks
    assert not peer.ranges


def test_a_block_that_builds_on_nodes_that_were_lost_is_fetched_again() -> None:
    writer, reader, link = known_pair(16)
    reader.replicator.want_block(4)
    reader.work()
    while link.step():
        pass
    assert reader.log.is_staged(4)

    def fails() -> None:
        error = StoreError("the disk is full")
        try:
            reader.log.end_flush(error)
        except StoreError:
            reader.replicator.store_failed(error)

    assert reader.log.begin_flush(fails) is not None
    asked = ask_with_news(link, writer, reader, 5)
    assert (asked.block.index, asked.block.nodes) == (5, 0), "its leaf came with block 4"
    while link.step():
        pass
    assert reader.log.length == 16
    assert reader.log.writing_blocks == reader.log.staged_blocks == 0
    reader.replicator.resume(reader.now)
    run(link)
    assert sorted(reader.blocks) == [4, 5]
    assert link.peer_of(reader).failures == 0
    list(reader.log.verify_all())
    reader.replicator.want_range(0, 17)
    run(link)
    assert_same(reader, writer)
