"""Channels, requests and peers that end, wait, or come back (`hypercore.md` 10.1 and 12)."""

from __future__ import annotations

from typing import Any

from covey.feed.messages import Cancel
from covey.feed.replication_choices import MAX_ASKED, REQUEST_TIMEOUT, SWAP_AFTER
from covey.feed.replication_events import (
    ChannelDone,
    ChannelWanted,
    PeerAdded,
    PeerRemoved,
    StoreFailed,
)
from covey.feed.replication_peer import CANCEL, DATA, RANGE, REQUEST, SYNC
from covey.feed.replication_requests import MAX_UNANSWERED
from covey.feed.replicator import LINGER
from tests.feed.replication_links import Link, Side, pass_time, run
from tests.feed.test_replicator import assert_same, numbered, sent


def silent(_sender: Side, kind: int, message: Any) -> Any:
    """No data."""
    return None if kind == DATA else message


def blocks_asked(link: Link, side: Side) -> list[int]:
    """The blocks that a side asked for, in order."""
    return [m.block.index for m in sent(link, side, REQUEST) if m.block]


def test_when_neither_side_downloads_the_channel_is_closed() -> None:
    writer, reader = Side.of(*numbered(3)), Side()
    link = Link(writer, reader)
    run(link)
    writer.replicator.set_downloading(False, 0.0, linger=0)
    run(link)
    assert link.open, "the reader still downloads"
    assert not sent(link, writer, SYNC)[-1].downloading
    reader.replicator.set_downloading(False, 0.0, linger=0)
    run(link)
    assert not link.open
    done = [*writer.told(ChannelDone), *reader.told(ChannelDone)]
    assert {event.error for event in done} == {None}, "whoever notices closes"
    assert not writer.replicator.peers
    assert not reader.replicator.peers
    before = len(reader.told(ChannelWanted))
    reader.replicator.want_block(1)
    reader.work()
    wanted = reader.told(ChannelWanted)
    assert [event.peer for event in wanted[before:]] == [None]
    again = Link(writer, reader)
    run(again)
    assert sorted(reader.blocks) == [1]
    assert not again.open, "and then it is over again"


def test_the_flag_falls_a_while_after_the_last_use() -> None:
    writer, reader = Side.of(*numbered(3)), Side()
    link = Link(writer, reader)
    run(link)
    reader.replicator.set_downloading(False, 0.0)
    due = reader.replicator.next_timer()
    assert due is not None
    assert LINGER[0] <= due <= LINGER[1]
    pass_time(LINGER[0] - 0.1, link)
    assert reader.replicator.is_downloading
    reader.replicator.set_downloading(True, reader.now)
    pass_time(100.0, link)
    assert reader.replicator.is_downloading, "used again in time"
    reader.replicator.set_downloading(False, reader.now)
    pass_time(LINGER[1], link)
    assert not reader.replicator.is_downloading
    assert not sent(link, reader, SYNC)[-1].downloading
    assert link.open, "the writer is in use"


def test_requests_under_way_count_as_downloading() -> None:
    writer, reader = Side.of(*numbered(3)), Side()
    link = Link(writer, reader)
    run(link)
    link.drops = silent
    reader.replicator.want_block(1)
    reader.replicator.handle_timer(0.0)
    reader.replicator.set_downloading(False, 0.0, linger=0)
    assert reader.replicator.is_downloading


def test_a_channel_that_only_the_remote_has_no_use_for_is_opened_again() -> None:
    writer, reader = Side.of(*numbered(3)), Side()
    link = Link(writer, reader)
    writer.replicator.set_downloading(False, 0.0, linger=0)
    run(link)
    peer = link.peer_of(reader)
    peer.closed(0.0, remote=True)
    assert reader.told(ChannelWanted)[-1].peer is peer
    other = Link(writer, reader)
    run(other)
    count = len(reader.told(ChannelWanted))
    other.cut()
    assert len(reader.told(ChannelWanted)) == count, "the connection itself is gone"


def test_peers_come_and_go_in_events() -> None:
    writer, reader = Side.of(*numbered(3)), Side()
    link = Link(writer, reader)
    peer = link.peer_of(reader)
    link.cut()
    link.cut()
    peer.closed(0.0)
    assert [event.peer for event in reader.told(PeerAdded)] == [peer]
    assert [(event.peer, event.error) for event in reader.told(PeerRemoved)] == [(peer, None)]
    peer.receive(RANGE, None, 0.0)
    peer.drained(0.0)


def test_what_a_lost_peer_was_asked_for_is_asked_of_the_others_at_once() -> None:
    writer, reader = Side.of(*numbered(40)), Side()
    links = Link(writer, reader), Link(writer, reader)
    run(*links)
    links[0].drops = silent
    got: list[Any] = []
    reader.replicator.want_block(7, done=got.append)
    reader.replicator.want_range(0, 40)
    reader.replicator.handle_timer(0.0)
    lost = blocks_asked(links[0], reader)
    assert 7 in lost
    run(*links)
    links[0].cut()
    assert set(lost) <= set(blocks_asked(links[1], reader))
    run(*links)
    assert got == [b"block 7"]
    assert_same(reader, writer)
    assert reader.now == 0.0, "no time passed"


def test_a_reconnect_in_the_middle_fetches_nothing_twice() -> None:
    writer, reader = Side.of(*numbered(300)), Side()
    reader.replicator.want_range(0, 300)
    link = Link(writer, reader)
    while len(reader.blocks) + reader.log.staged_blocks < 150:
        link.step()
        reader.work()
    arrived = {m.block.index for m in sent(link, writer, DATA) if m.block}
    kept = set(reader.blocks) | {index for index in arrived if reader.log.is_staged(index)}
    link.cut()
    link = Link(writer, reader)
    run(link)
    assert_same(reader, writer)
    assert not kept & set(blocks_asked(link, reader))


def test_an_unanswered_request_is_cancelled_and_asked_of_another() -> None:
    writer, reader = Side.of(*numbered(4)), Side()
    slow = Link(writer, reader)
    run(slow)
    slow.drops = silent
    reader.replicator.want_block(2)
    run(slow)
    assert blocks_asked(slow, reader) == [2]
    other = Link(writer, reader)
    # The other has no block when it comes, so that nothing is swapped.
    run(slow, other)
    other_peer = other.peer_of(reader)
    other_peer.claims.truncate(0)
    pass_time(REQUEST_TIMEOUT - 0.5, slow, other)
    assert not sent(slow, reader, CANCEL)
    pass_time(1.0, slow, other)
    assert [m.request for m in sent(slow, reader, CANCEL)] == [1]
    other.inject(reader, RANGE, sent(other, writer, RANGE)[0])
    pass_time(SWAP_AFTER, slow, other)
    assert reader.blocks == {2: b"block 2"}


def test_a_request_is_taken_back_when_its_timer_is_due_however_that_is_rounded() -> None:
    times = [count / 10 for count in range(1, 1000)]
    times = [time for time in times if time + REQUEST_TIMEOUT - time < REQUEST_TIMEOUT]
    assert times
    writer, reader = Side.of(*numbered(4)), Side()
    link = Link(writer, reader)
    run(link)
    link.drops = silent
    reader.now = writer.now = times[0]
    reader.replicator.want_block(2)
    reader.replicator.handle_timer(reader.now)
    due = None
    for _ in range(2):  # the first one was set for a request that was answered
        due = reader.replicator.next_timer()
        assert due is not None
        reader.replicator.handle_timer(due)
    assert due == times[0] + REQUEST_TIMEOUT
    assert [m.request for m in sent(link, reader, CANCEL)] == [1]


def test_a_stalled_peer_is_asked_for_one_thing_until_it_speaks() -> None:
    writer, reader = Side.of(*numbered(200)), Side()
    link = Link(writer, reader)
    run(link)
    link.drops = silent
    reader.replicator.want_range(0, 200)
    run(link)
    peer = link.peer_of(reader)
    assert peer.in_flight == 48
    pass_time(REQUEST_TIMEOUT, link)
    assert peer.stalled
    assert peer.in_flight == 1
    link.drops = None
    pass_time(REQUEST_TIMEOUT, link)
    assert not peer.stalled
    assert_same(reader, writer)


def test_who_never_answers_is_let_go() -> None:
    writer, reader = Side.of(*numbered(4)), Side()
    link = Link(writer, reader)
    run(link)
    link.drops = silent
    reader.replicator.want_range(0, 4)
    pass_time(REQUEST_TIMEOUT * (MAX_UNANSWERED + 3), link)
    assert not link.open
    assert "does not answer" in str(reader.told(ChannelDone)[0].error)


def test_a_peer_that_lets_an_upgrade_lie_does_not_hold_up_the_others() -> None:
    writer, reader = Side.of(*numbered(4)), Side()
    bad, good = Link(writer, reader), Link(writer, reader)
    bad.drops = silent
    run(bad, good)
    assert reader.log.length == 0
    pass_time(REQUEST_TIMEOUT, bad, good)
    assert reader.log.length == 4
    for count in range(3):
        writer.log.append([b"more"])
        bad.inject(reader, SYNC, sent(bad, writer, SYNC)[-1])
        pass_time(REQUEST_TIMEOUT if count else 0.0, bad, good)
    assert reader.log.length == 7


def test_a_slow_block_is_asked_of_three_peers_and_the_losers_are_cancelled() -> None:
    writer, reader = Side.of(*numbered(4)), Side()
    links = [Link(writer, reader) for _ in range(5)]
    run(*links)
    for link in links:
        link.drops = silent
    reader.replicator.want_block(2)
    run(*links)
    asked = [link for link in links if blocks_asked(link, reader)]
    assert len(asked) == 1
    pass_time(SWAP_AFTER * 10, *links)
    asked = [link for link in links if blocks_asked(link, reader)]
    assert len(asked) == MAX_ASKED
    winner = asked[1]
    winner.drops = None
    number = next(m.id for m in sent(winner, reader, REQUEST) if m.block)
    data = next(m for m in sent(winner, writer, DATA) if m.request == number and m.block)
    winner.inject(reader, DATA, data)
    run(*links)
    assert reader.blocks == {2: b"block 2"}
    assert [len(sent(link, reader, CANCEL)) for link in asked] == [1, 0, 1]
    late = next(m for m in sent(asked[0], writer, DATA) if m.block)
    asked[0].inject(reader, DATA, late)
    assert asked[0].peer_of(reader).unasked == 0, "it was asked, and is late"


def test_numbers_of_cancelled_requests_wait_for_a_round_trip() -> None:
    writer, reader = Side.of(*numbered(9)), Side()
    link = Link(writer, reader)
    run(link)
    link.drops = silent
    ticket = reader.replicator.want_block(2)
    run(link)
    first = sent(link, reader, REQUEST)[-1].id
    ticket.cancel()
    run(link)
    for index in (3, 4):
        reader.replicator.want_block(index)
        run(link)
    later = [m.id for m in sent(link, reader, REQUEST)[-2:]]
    assert first not in later
    data = [m for m in sent(link, writer, DATA) if m.request == later[0]][-1]
    link.inject(reader, DATA, data)
    reader.replicator.want_block(5)
    reader.replicator.want_block(6)
    run(link)
    assert first in [m.id for m in sent(link, reader, REQUEST)[-2:]]


def test_a_full_channel_gets_no_answers_until_it_is_drained() -> None:
    writer, reader = Side.of(*numbered(30)), Side()
    link = Link(writer, reader)
    run(link)
    link.end_of(reader).full = True
    reader.replicator.want_range(0, 30, linear=True)
    run(link)
    peer = link.peer_of(writer)
    assert len([m for m in sent(link, writer, DATA) if m.block]) == 1
    assert len(peer.requests) == 29
    reader.replicator.want_block(29, priority=1)
    asked = {m.block.index: m.id for m in sent(link, reader, REQUEST) if m.block}
    link.inject(writer, CANCEL, cancel_of(asked[5]))
    urgent = [m for m in sent(link, reader, REQUEST) if m.block and m.block.index in (20, 21)]
    for request in urgent:
        link.inject(writer, REQUEST, request._replace(priority=1))
    assert len(peer.requests) == 28, "one cancelled, two replaced"
    link.drain(writer)
    order = [m.block.index for m in sent(link, writer, DATA) if m.block]
    assert order[:4] == [0, 21, 20, 1], "urgent ones first, the last of them before the others"
    assert 5 not in order
    assert len(order) == 29


def cancel_of(number: int) -> Any:
    """The message."""
    return Cancel(number)


def test_a_failing_store_stops_the_asking_until_it_works_again() -> None:
    writer, reader = Side.of(*numbered(60)), Side()
    link = Link(writer, reader)
    run(link)
    reader.records.failing = True
    reader.replicator.want_range(0, 60)
    run(link)
    assert reader.told(StoreFailed)
    assert not reader.blocks
    count = len(sent(link, reader, REQUEST))
    reader.replicator.want_block(3)
    run(link)
    assert len(sent(link, reader, REQUEST)) == count
    reader.records.failing = False
    reader.replicator.resume(0.0)
    run(link)
    assert_same(reader, writer)


def test_a_store_that_fails_at_an_upgrade_leaves_the_log_as_it_was() -> None:
    writer, reader = Side.of(*numbered(6)), Side()
    reader.records.failing = True
    link = Link(writer, reader)
    run(link)
    assert reader.log.length == 0
    assert len(reader.told(StoreFailed)) == 1
    reader.records.failing = False
    reader.replicator.resume(0.0)
    run(link)
    assert reader.log.length == 6
