"""It always goes on, and comes to rest: what ends early or fails keeps nothing else waiting."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest

from covey.errors import StoreError
from covey.feed.messages import NOT_AVAILABLE, Data, NoData, Sync, UpgradeData
from covey.feed.replication_choices import REQUEST_TIMEOUT, SWAP_AFTER
from covey.feed.replication_download import MAX_UPGRADE_REST
from covey.feed.replication_events import StoreFailed
from covey.feed.replication_peer import CANCEL, DATA, NO_DATA, REQUEST, SYNC
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


def shown_before(message: Any) -> tuple[int, Any]:
    """The start of the log once more."""
    return DATA, Data(message.id, 0, upgrade=UpgradeData(0, 1, [], [], None))


def refused(message: Any) -> tuple[int, Any]:
    """Not to be had."""
    return NO_DATA, NoData(message.id, NOT_AVAILABLE)


@pytest.mark.parametrize("answer", [shown_before, refused])
def test_who_does_not_give_the_head_it_told_of_lets_others_go_first(
    answer: Callable[[Any], tuple[int, Any]],
) -> None:
    writer, reader, link = known_pair()
    asked: list[Any] = []

    def ask(kind: int, message: Any) -> bool:
        asked.append((kind, message))
        return True

    liar = reader.replicator.add_peer(ask, now=0.0)
    told = 0
    for turn in range(30):
        if turn % 3 == 0:
            writer.log.append([b"news"])
        # The liar is heard and answers before the writer gets a turn.
        liar.receive(SYNC, Sync(0, 100, reader.log.length, True, True, True, True, False), 0.0)
        while asked:
            kind, message = asked.pop(0)
            if kind == REQUEST and message.upgrade:
                told += 1
                liar.backoffs = 0  # as if it gave a block in between
                liar.receive(*answer(message), reader.now)
                reader.work()
        run(link)
        assert reader.log.length == writer.log.length
    assert told == 1, "it was asked once, and rests"
    for _ in range(12):
        pass_time(MAX_UPGRADE_REST, link)
        while asked:
            kind, message = asked.pop(0)
            if kind == REQUEST and message.upgrade:
                told += 1
                liar.receive(*answer(message), reader.now)
    assert told > 10, "now and then it may try again"
    assert liar.paused is None


def test_a_head_that_is_given_ends_the_distrust() -> None:
    writer, reader, link = known_pair()
    peer = link.peer_of(reader)
    peer.missed_upgrades = 4
    writer.log.append([b"news"])
    run(link)
    assert reader.log.length == 6
    assert peer.missed_upgrades == 0


def slow_line(link: Link, writer: Side, seconds: float) -> Callable[[], int]:
    """Have each block of the writer come so much later; what is returned counts those sent."""
    waiting: list[tuple[float, Any]] = []
    count = 0

    def hold(sender: Side, kind: int, message: Any) -> Any:
        nonlocal count
        if sender is writer and kind == DATA and message.block:
            count += 1
            waiting.append((writer.now + seconds, message))
            return None
        return message

    def go_on() -> int:
        reader = next(end.side for end in link.ends if end.side is not writer)
        pass_time(1.0, link)
        while waiting and waiting[0][0] <= reader.now:
            link.inject(reader, DATA, waiting.pop(0)[1])
            run(link)
        return count

    link.drops = hold
    return go_on


def test_a_block_that_is_longer_under_way_than_its_request_is_given_time_is_taken() -> None:
    writer, reader, link = known_pair(3)
    go_on = slow_line(link, writer, 2.5 * REQUEST_TIMEOUT)
    got: list[Any] = []
    reader.replicator.want_block(1, done=got.append)
    reader.work()
    for _ in range(300):
        count = go_on()
    assert got == [b"block 1"]
    assert count == 3, "asked for once more each time, and never after it came"
    peer = link.peer_of(reader)
    assert (peer.unasked, peer.failures, peer.in_flight) == (0, 0, 0)
    assert link.open


def test_a_log_comes_over_a_line_on_which_every_block_is_late() -> None:
    writer, reader, link = known_pair(120)
    go_on = slow_line(link, writer, REQUEST_TIMEOUT + 1)
    reader.replicator.want_range(0, 120)
    reader.work()
    for _ in range(400):
        count = go_on()
        assert link.open
    assert_same(reader, writer)
    assert count < 2 * 120
    assert link.peer_of(reader).unasked == 0


def test_a_late_block_that_nobody_wants_any_more_is_not_kept() -> None:
    writer, reader, link = known_pair(3)
    go_on = slow_line(link, writer, 5.0)
    ticket = reader.replicator.want_block(1)
    reader.work()
    run(link)
    ticket.cancel()
    for _ in range(10):
        go_on()
    assert reader.blocks == {}
    assert link.peer_of(reader).unasked == 0


def test_what_was_cleared_does_not_come_back_and_disturbs_no_request() -> None:
    writer, reader, link = known_pair(300)
    ends: list[Any] = []
    reader.replicator.want_range(0, 300, linear=True, done=ends.append)
    reader.replicator.want_range(0, None)
    cleared: list[int] = []
    while len(cleared) < 300:
        reader.work()
        link.step()
        for index in sorted(reader.blocks):
            reader.log.clear(index, index + 1)
            cleared.append(index)
    run(link)
    assert ends == [300]
    assert reader.blocks == {}
    assert len(set(cleared)) == 300
    assert len([m for m in sent(link, writer, DATA) if m.block]) == 300
    assert sent(link, reader, CANCEL) == []
    assert link.peer_of(reader).doubt == 0
    assert len(reader.records.nodes) < 60, "nor do the nodes stay"
    reader.replicator.want_range(100, 110)
    run(link)
    assert sorted(reader.blocks) == list(range(100, 110)), "who asks now gets them"


def test_blocks_that_a_cut_replaced_are_fetched_even_where_the_old_ones_were_cleared() -> None:
    writer, reader, link = known_pair(20)
    reader.replicator.want_range(5, None)
    reader.replicator.want_block(0)
    link.drops = lambda sender, kind, message: (
        NoData(message.request, NOT_AVAILABLE)
        if kind == DATA and message.block and message.block.index == 5
        else message
    )
    run(link)
    reader.log.clear(6, 7)
    reader.log.clear(9, 20)
    link.drops = None
    writer.log.truncate(8)
    writer.log.append(numbered(5))
    run(link)
    assert sorted(set(reader.blocks) - {5}) == [0, 7, *range(8, 13)]
    assert reader.blocks[9] == b"block 1"


def test_while_the_store_fails_no_late_block_is_taken_either() -> None:
    _, reader, link = known_pair(60)
    reader.replicator.want_range(0, 60)
    reader.replicator.handle_timer(0.0)
    assert link.peer_of(reader).in_flight == 48
    reader.records.failing = True
    link.step()
    link.step()
    reader.work()
    tries = len(reader.told(StoreFailed))
    assert tries
    run(link)
    assert len(reader.told(StoreFailed)) == tries
    assert not reader.log.staged_blocks
