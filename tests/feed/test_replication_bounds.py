"""Bounds of replication that no single message reaches, and rules that only show in a corner."""

from __future__ import annotations

from typing import Any

from covey.feed.messages import (
    BitfieldWords,
    BlockRequest,
    NoData,
    Range,
    Request,
    Sync,
    UpgradeData,
)
from covey.feed.replication_blocks import (
    RANGES_PER_TURN,
    SPARE_CANDIDATES,
    SWAPS_LOOKED_AT,
    WANTS_PER_TURN,
)
from covey.feed.replication_choices import MAX_BACKOFFS, REQUEST_TIMEOUT, SWAP_AFTER, swap_limit
from covey.feed.replication_download import MAX_UPGRADE_REST
from covey.feed.replication_events import ChannelWanted, InvalidData
from covey.feed.replication_peer import BITFIELD, DATA, NO_DATA, RANGE, REQUEST, SYNC, WANT
from covey.feed.replication_wants import WANT_BATCH
from tests.feed.replication_links import Link, Side, pass_time, run
from tests.feed.test_replicator import assert_same, numbered, sent


def silent(_sender: Side, kind: int, message: Any) -> Any:
    """No data."""
    return None if kind == DATA else message


def refusing(_sender: Side, kind: int, message: Any) -> Any:
    """No blocks."""
    return NoData(message.request, 1) if kind == DATA and message.block else message


def known_pair(count: int = 8) -> tuple[Side, Side, Link]:
    """A writer, and a reader that knows its head."""
    writer, reader = Side.of(*numbered(count)), Side()
    link = Link(writer, reader)
    run(link)
    return writer, reader, link


def test_refusals_count_in_a_row() -> None:
    _, reader, link = known_pair(100)
    link.peer_of(reader).wants.add(0)
    for start in (0, 40):
        link.drops = refusing
        for index in range(start, start + MAX_BACKOFFS - 1):
            reader.replicator.want_block(index)
        run(link)
        link.drops = None
        reader.replicator.want_block(start + 39)
        run(link)
    assert link.peer_of(reader).paused is None
    assert sorted(reader.blocks) == [39, 79]


def test_proofs_of_heads_that_are_not_news_count_like_refusals() -> None:
    writer, reader, link = known_pair(8)

    def stale(_sender: Side, kind: int, message: Any) -> Any:
        if kind == DATA and message.upgrade:
            upgrade = UpgradeData(4, 8, [], [], b"x")
            return message._replace(upgrade=upgrade, block=None)
        return message

    link.drops = stale
    writer.log.append(numbered(4))
    pass_time(MAX_BACKOFFS * MAX_UPGRADE_REST, link)
    peer = link.peer_of(reader)
    assert "no data" in str(peer.paused)
    assert peer.failures == 0


def test_a_head_that_was_pushed_before_its_answer_came_is_no_refusal() -> None:
    writer, reader = Side.of(*numbered(1)), Side(allow_push=True)
    link = Link(writer, reader)
    run(link)
    for count in range(1, MAX_BACKOFFS + 2):
        asked = len(sent(link, reader, REQUEST))
        writer.log.append([b"pushed"])
        writer.replicator.push(count)
        link.drops = silent
        while link.step():
            pass
        link.drops = None
        (number,) = [m.id for m in sent(link, reader, REQUEST)[asked:]]
        link.inject(reader, NO_DATA, NoData(number, 1))
        run(link)
    peer = link.peer_of(reader)
    assert reader.log.length == MAX_BACKOFFS + 2
    assert (peer.paused, peer.backoffs) == (None, 0)
    reader.replicator.want_block(0)
    run(link)
    assert 0 in reader.blocks


def test_what_is_pushed_and_new_makes_up_for_refusals() -> None:
    writer, reader = Side.of(*numbered(8)), Side(allow_push=True)
    link = Link(writer, reader)
    run(link)
    peer = link.peer_of(reader)
    for left in (0, 5):
        peer.backoffs = 5
        writer.replicator.push(3)
        while link.step():
            pass
        reader.work()
        assert peer.backoffs == left
        link.peer_of(writer).claims.range(3, 1, True, 8)


def test_staged_blocks_are_not_given_out() -> None:
    _, reader, link = known_pair()
    reader.replicator.want_block(3)
    reader.replicator.handle_timer(0.0)
    while link.step():
        pass
    assert reader.log.is_staged(3)
    link.inject(reader, REQUEST, Request(5, 0, block=BlockRequest(3, 0)))
    assert sent(link, reader, NO_DATA) == [NoData(5, 1)]


def test_after_nodes_were_let_go_a_shorter_peer_is_asked_for_nothing() -> None:
    writer, short, reader = Side.of(*numbered(5)), Side(), Side()
    for side in (short, reader):
        side.replicator.want_range(0, None)
        run(Link(writer, side))
    for link in short.links.values():
        link.cut()
    short.replicator.set_downloading(False, 0.0, linger=0)
    link = Link(short, reader)
    run(link)
    writer.log.append(numbered(6))
    run(*[other for other in reader.links.values() if other.open])
    assert reader.log.length == 11
    for other in reader.links.values():
        if other is not link:
            other.cut()
    reader.log.clear(0, 11)
    run(link)
    assert link.peer_of(short).invalid_requests == 0


def test_on_another_fork_nothing_is_agreed() -> None:
    _, reader, link = known_pair()
    peer = link.peer_of(reader)
    assert peer.agreed == 8
    link.inject(reader, SYNC, Sync(7, 0, 0, False, True, True, True, False))
    assert (peer.agreed, peer.askable_end) == (0, 0)


def test_lower_forks_are_dropped_when_a_higher_one_is_proven() -> None:
    reader = Side()
    forks = []
    for length, fork in ((4, 1), (16, 2)):
        writer = Side.of(*numbered(16))
        writer.log.truncate(length - 1, fork=fork)
        writer.log.append([b"new"])
        forks.append(writer)
    run(Link(Side.of(*numbered(16)), reader))
    low, high = (Link(writer, reader) for writer in forks)
    low.drops = silent
    while low.step():
        reader.work()
    searches = reader.replicator.downloads.forks.searches
    assert sorted(searches) == [1]
    while 1 in searches:
        assert high.step()
        reader.work()
    run(high)
    assert reader.log.tree_hash == forks[1].log.tree_hash


def test_no_news_is_not_said_while_a_peer_has_not_heard_of_our_head() -> None:
    _, reader, link = known_pair()
    answers: list[Any] = []
    reader.replicator.want_update(done=answers.append)
    link.inject(reader, SYNC, Sync(0, 20, 5, True, True, True, True, False))
    assert not answers
    link.inject(reader, SYNC, Sync(0, 8, 8, False, True, True, True, False))
    assert answers == [False]


def test_the_most_that_a_peer_has_from_the_first_block_on_is_kept_as_a_hint() -> None:
    writer, reader = Side.of(*numbered(8)), Side()
    link = Link(writer, reader)
    run(link)
    assert reader.log.remote_contiguous_length == 8
    assert writer.log.remote_contiguous_length == 0, "the other holds no block"
    link.inject(writer, RANGE, Range(False, 1, 2))
    assert writer.log.remote_contiguous_length == 0
    link.inject(writer, BITFIELD, BitfieldWords(0, b"\x0f\0\0\0"))
    assert writer.log.remote_contiguous_length == 4
    link.inject(writer, RANGE, Range(False, 0, 1 << 52))
    assert writer.log.remote_contiguous_length == 8, "no more than there is"
    writer.log.append([b"more"])
    run(link)
    assert writer.log.remote_contiguous_length == 9
    assert reader.log.remote_contiguous_length == 9
    writer.log.truncate(3)
    assert writer.log.remote_contiguous_length == 3
    assert writer.records.hints == (3, 3), "it is stored with what it is about"


def test_what_a_peer_let_lie_is_asked_of_another_first() -> None:
    writer, reader = Side.of(*numbered(8)), Side()
    slow, other = Link(writer, reader), Link(writer, reader)
    run(slow, other)
    slow.drops = other.drops = silent
    reader.replicator.want_block(2)
    reader.replicator.handle_timer(0.0)
    assert [m.block.index for m in sent(slow, reader, REQUEST) if m.block] == [2]
    slow.peer_of(reader).stalled = False
    reader.now = REQUEST_TIMEOUT
    reader.replicator.handle_timer(REQUEST_TIMEOUT)
    assert [m.block.index for m in sent(other, reader, REQUEST) if m.block] == [2]
    assert len([m for m in sent(slow, reader, REQUEST) if m.block]) == 1


def test_a_log_that_nobody_uses_is_not_opened_again() -> None:
    writer, reader = Side.of(*numbered(3)), Side(downloading=False)
    link = Link(writer, reader)
    run(link)
    peer = link.peer_of(reader)
    peer.remote_downloading = False
    peer.closed(0.0, remote=True)
    assert not [event for event in reader.told(ChannelWanted) if event.peer]


def test_who_let_an_upgrade_lie_is_not_asked_for_the_next_ones() -> None:
    writer, reader = Side.of(*numbered(4)), Side()
    bad, good = Link(writer, reader), Link(writer, reader)
    bad.drops = silent
    run(bad, good)
    pass_time(REQUEST_TIMEOUT, bad, good)
    assert reader.log.length == 4
    for count in range(5, 9):
        writer.log.append([b"more"])
        run(bad, good)
        assert reader.log.length == count, "at once, by the other"
    peer = bad.peer_of(reader)
    good.cut()
    peer.missed_upgrades = 50
    writer.log.append([b"more"])
    pass_time(REQUEST_TIMEOUT * 2 + 1, bad)
    assert reader.now < peer.upgrade_rest <= reader.now + MAX_UPGRADE_REST
    bad.drops = None
    pass_time(MAX_UPGRADE_REST, bad)
    assert reader.log.length == 9


def test_the_lists_of_a_peer_do_not_grow_with_what_was_given_up() -> None:
    _, reader, link = known_pair(400)
    link.drops = silent
    peer = link.peer_of(reader)
    reader.replicator.want_range(0, 60)
    run(link)
    for index in range(100, 400):
        reader.replicator.want_block(index, priority=index % 3).cancel()
    assert len(peer.candidates) <= SPARE_CANDIDATES + 1
    link.drops = None
    peer.claims.truncate(0)
    for index in range(100, 400):
        ticket = reader.replicator.want_block(index)
        reader.replicator.handle_timer(0.0)
        peer.candidates.append(index)
        reader.replicator.downloads.pool.next_single(peer)
        ticket.cancel()
    assert len(peer.unseen) <= SPARE_CANDIDATES + 2


def test_more_ranges_than_one_turn_looks_at_are_all_fetched() -> None:
    writer, reader = Side.of(*numbered(300)), Side()
    link = Link(writer, reader)
    run(link)
    ends: list[Any] = []
    # The first ones can only be answered when the log has grown.
    for _ in range(3 * RANGES_PER_TURN):
        reader.replicator.want_range(300, 301, done=ends.append)
    reader.replicator.want_range(5, 7, done=ends.append)
    reader.replicator.handle_timer(0.0)
    assert not [m for m in sent(link, reader, REQUEST) if m.block], "others have their turn"
    assert reader.replicator.next_timer() == 0.0
    run(link)
    assert ends == [2]
    writer.log.append([b"last"])
    run(link)
    assert ends == [2] + [1] * 3 * RANGES_PER_TURN


def test_a_look_through_a_range_asks_about_few_batches() -> None:
    reader = Side.of(*numbered(1))
    link = Link(Side(), reader)
    peer = link.peer_of(reader)
    pool = reader.replicator.downloads.pool
    pool._want_range(peer, 1, 50 * WANT_BATCH)
    assert len(sent(link, reader, WANT)) == WANTS_PER_TURN
    pool._want_range(peer, 1, 50 * WANT_BATCH)
    assert len(sent(link, reader, WANT)) == 2 * WANTS_PER_TURN, "the next ones"


def test_an_idle_peer_is_compared_with_the_oldest_blocks_under_way() -> None:
    writer, reader = Side.of(*numbered(200)), Side()
    links = [Link(writer, reader) for _ in range(4)]
    run(*links)
    for link in links:
        link.drops = silent
    reader.replicator.want_range(0, 144, linear=True)
    run(*links)
    pool = reader.replicator.downloads.pool
    idle = links[3].peer_of(reader)
    assert idle.in_flight == 0
    assert len(pool.asked) > SWAPS_LOOKED_AT
    slow = pool.slow_blocks(idle, SWAP_AFTER)
    assert slow == list(range(SWAPS_LOOKED_AT))
    assert pool.slow_blocks(idle, SWAP_AFTER / 2) == []
    pass_time(SWAP_AFTER, *links)
    assert idle.in_flight == swap_limit(idle.most_in_flight)


def test_seeks_past_the_end_keep_no_others_waiting() -> None:
    writer, reader = Side.of(*numbered(64)), Side()
    link = Link(writer, reader)
    run(link)
    found: list[Any] = []
    for offset in range(30):
        reader.replicator.want_seek(writer.log.byte_length + offset, done=found.append)
    for offset in range(0, writer.log.byte_length, 40):
        reader.replicator.want_seek(offset, done=found.append)
    run(link)
    expected = [writer.log.seek(offset) for offset in range(0, writer.log.byte_length, 40)]
    assert sorted(found) == expected


def test_a_round_trip_that_is_known_sets_how_much_is_under_way() -> None:
    writer, reader = Side.of(*numbered(300)), Side()
    run(Link(writer, reader))
    for link in reader.links.values():
        link.cut()
    sends: list[int] = []

    def send(kind: int, _message: object) -> bool:
        sends.append(kind)
        return True

    peer = reader.replicator.add_peer(send, round_trip=0.1, now=0.0)
    assert peer.most_in_flight == 32
    reader.replicator.want_range(0, 300)
    peer.receive(SYNC, Sync(0, 300, 300, False, True, True, True, False), 0.0)
    peer.receive(RANGE, Range(False, 0, 300), 0.0)
    assert sends.count(REQUEST) == 32


def test_nothing_is_asked_of_who_does_not_upload() -> None:
    writer, reader = Side.of(*numbered(8)), Side()
    link = Link(writer, reader)
    sync, held = sent(link, writer, SYNC)[0], sent(link, writer, RANGE)[0]
    link.end_of(reader).incoming.clear()
    reader.replicator.want_range(0, None)
    link.inject(reader, SYNC, sync._replace(uploading=False))
    link.inject(reader, RANGE, held)
    reader.work()
    assert not sent(link, reader, REQUEST)
    link.inject(reader, SYNC, sync)
    run(link)
    assert_same(reader, writer)


def test_what_is_under_way_when_nodes_are_let_go_is_asked_anew() -> None:
    writer, reader, link = known_pair(64)
    reader.replicator.want_range(0, None)
    run(link)
    reader.log.clear(0, 40)
    reader.replicator.want_range(0, 40)
    reader.replicator.handle_timer(0.0)
    assert link.peer_of(reader).in_flight
    reader.log.clear(40, 64)
    assert link.peer_of(reader).in_flight == 40, "the nodes that these need have stayed"
    reader.replicator.want_range(40, 64)
    run(link)
    assert_same(reader, writer)
    reader.log.clear(0, 20)
    reader.replicator.want_range(0, 20)
    reader.replicator.handle_timer(0.0)
    reader.log.clear(10, 22)
    assert link.peer_of(reader).in_flight == 10, "of the others the paths may lead to nothing"
    reader.replicator.want_range(20, 22)
    run(link)
    assert reader.told(InvalidData) == []
    assert link.peer_of(writer).invalid_requests == 0
    assert_same(reader, writer)


def test_a_fork_search_asks_only_peers_whose_tree_is_large_enough() -> None:
    writer, copy, reader = Side.of(*numbered(16)), Side(), Side()
    reader.replicator.want_range(0, None)
    first = Link(writer, reader)
    run(first)
    first.cut()
    writer.log.truncate(5)
    writer.log.append([b"other %d" % number for number in range(5)])
    run(Link(writer, copy))
    for link in copy.links.values():
        link.cut()
    writer.log.append([b"other %d" % number for number in range(54)])
    main = Link(writer, reader)
    main.drops = lambda _sender, kind, message: (
        None if kind == DATA and message.hash is not None else message
    )
    run(main)
    searches = reader.replicator.downloads.forks.searches
    assert [search.reorg is not None for search in searches.values()] == [True]
    main.peer_of(reader).cancel(main.peer_of(reader).table.open[1].request.id)
    searches[1].asked = None
    short = Link(copy, reader)
    run(main, short)
    assert short.peer_of(copy).invalid_requests == 0
    assert not [m for m in sent(short, reader, REQUEST) if m.hash]
    main.cut()
    run(short)
    assert reader.log.fork == 1, "begun anew with the other, whose head is shorter"
    assert reader.log.length == 10


def test_a_seek_whose_span_is_known_by_size_alone_asks_up_to_a_node_that_is_here() -> None:
    writer, reader, link = known_pair(64)
    reader.replicator.want_block(0)
    run(link)
    reader.log.flush()
    # Node 95 is known to be there by the sizes of 63 and 31; its own hash is not here.
    for index in (95, 47, 79, 111):
        reader.records.nodes.pop(index, None)
    reader.log._cache.clear()
    found: list[Any] = []
    offset = writer.log.byte_offset(50) or 0
    reader.replicator.want_seek(offset, done=found.append)
    run(link)
    assert found == [(50, 0)]
    assert reader.told(InvalidData) == []
