"""Two and three replicators joined by encoding pipes: what flows, in which order, and when it ends.

The order of messages is that of the recorded transcripts (`replication-transcript.json`).
"""

from __future__ import annotations

from typing import Any

import pytest

from covey.errors import ClosedError, EncodeError
from covey.feed.replication_choices import IN_FLIGHT
from covey.feed.replication_events import Downloaded, ExtensionReceived, Uploaded
from covey.feed.replication_peer import CANCEL, DATA, EXTENSION, RANGE, REQUEST, SYNC, WANT
from tests.feed.replication_links import Link, Side, run


def numbered(count: int, size: int = 0) -> list[bytes]:
    """Blocks that differ."""
    return [b"block %d" % index + bytes(size) for index in range(count)]


def sent(link: Link, side: Side, kind: int) -> list[Any]:
    """The messages of one kind from one side."""
    return [message for who, what, message in link.trace if who is side and what == kind]


def assert_same(reader: Side, writer: Side) -> None:
    """Same head, same blocks."""
    assert reader.log.length == writer.log.length
    assert reader.log.fork == writer.log.fork
    assert reader.log.tree_hash == writer.log.tree_hash
    assert reader.blocks == writer.blocks


def test_a_reader_downloads_everything() -> None:
    writer, reader = Side.of(*numbered(100)), Side()
    ends: list[Any] = []
    reader.replicator.want_range(0, 100, done=ends.append)
    link = Link(writer, reader)
    run(link)
    assert_same(reader, writer)
    assert ends == [100]
    assert len(sent(link, reader, REQUEST)) == 101, "one for the head, one for each block"


def test_the_writer_says_its_head_then_what_it_holds() -> None:
    writer, reader = Side.of(*numbered(5)), Side()
    link = Link(writer, reader)
    kinds = [kind for who, kind, _ in link.trace if who is writer]
    assert kinds == [SYNC, RANGE]


def test_a_follower_gets_what_is_appended() -> None:
    writer, reader = Side.of(*numbered(5)), Side()
    reader.replicator.want_range(0, None)
    link = Link(writer, reader)
    run(link)
    for count in (1, 3, 20):
        before = len(link.trace)
        writer.log.append(numbered(count))
        kinds = [kind for who, kind, _ in link.trace[before:] if who is writer]
        assert kinds == [RANGE, SYNC], "what is there comes before the head it belongs to"
        run(link)
        asked = [m for who, k, m in link.trace[before:] if who is reader and k == REQUEST]
        assert asked[0].upgrade is not None
        assert asked[0].block is not None
        assert asked[0].block.index == writer.log.length - 1, "the last block comes with the head"
        assert_same(reader, writer)


def test_a_sparse_reader_asks_only_for_what_it_wants() -> None:
    writer, reader = Side.of(*numbered(16)), Side()
    link = Link(writer, reader)
    run(link)
    got: list[Any] = []
    for index in (3, 2, 15, 8):
        reader.replicator.want_block(index, done=got.append)
        run(link)
    assert got == [b"block 3", b"block 2", b"block 15", b"block 8"]
    asked = [m.block for m in sent(link, reader, REQUEST) if m.block]
    assert [(part.index, part.nodes) for part in asked] == [(3, 4), (2, 0), (15, 3), (8, 2)]
    assert sorted(reader.blocks) == [2, 3, 8, 15]
    assert not sent(link, reader, WANT)
    assert len(sent(link, writer, DATA)) == 5


def test_who_waits_for_a_staged_block_has_it_flushed() -> None:
    writer, reader = Side.of(*numbered(8)), Side()
    link = Link(writer, reader)
    run(link)
    got: list[Any] = []
    ticket = reader.replicator.want_block(3, done=got.append)
    reader.replicator.handle_timer(0.0)
    while link.step():
        pass
    assert reader.log.staged_blocks == 1
    assert reader.replicator.flush_wanted
    assert not got, "it is not stored yet"
    reader.log.flush()
    assert got == [b"block 3"]
    assert not reader.replicator.flush_wanted
    assert not ticket.open


def test_a_block_that_is_here_is_given_at_once() -> None:
    writer = Side.of(*numbered(3))
    got: list[Any] = []
    writer.replicator.want_block(1, done=got.append)
    assert got == [b"block 1"]


def test_a_block_that_does_not_exist_yet_is_waited_for() -> None:
    writer, reader = Side.of(*numbered(3)), Side()
    got: list[Any] = []
    reader.replicator.want_block(5, done=got.append)
    link = Link(writer, reader)
    run(link)
    assert not got
    writer.log.append(numbered(1))
    run(link)
    assert not got
    writer.log.append([b"x", b"there", b"y"])
    run(link)
    assert got == [b"there"]
    carried = [m for m in sent(link, reader, REQUEST) if m.upgrade and m.block]
    assert [m.block.index for m in carried] == [5], "it is asked for together with the head"
    assert sorted(reader.blocks) == [5]


def test_a_cancelled_block_is_not_waited_for() -> None:
    writer, reader = Side.of(*numbered(8)), Side()
    link = Link(writer, reader)
    run(link)
    got: list[Any] = []
    ticket = reader.replicator.want_block(3, done=got.append)
    reader.replicator.handle_timer(0.0)
    ticket.cancel()
    ticket.cancel()
    run(link)
    assert not got
    assert len(sent(link, reader, CANCEL)) == 1
    assert not reader.blocks
    assert link.peer_of(reader).unasked == 0, "the answer crossed the cancellation"


def test_a_range_with_an_end_tells_its_progress_and_its_end() -> None:
    writer, reader = Side.of(*numbered(20)), Side()
    seen: list[tuple[int, int]] = []
    ends: list[Any] = []
    reader.replicator.want_range(
        5, 15, done=ends.append, progress=lambda have, total: seen.append((have, total))
    )
    link = Link(writer, reader)
    run(link)
    assert sorted(reader.blocks) == list(range(5, 15))
    assert ends == [10]
    assert seen[0] == (0, 10)
    assert [have for have, _ in seen] == sorted(have for have, _ in seen)


def test_a_range_past_the_head_ends_when_the_log_has_grown() -> None:
    writer, reader = Side.of(*numbered(4)), Side()
    ends: list[Any] = []
    reader.replicator.want_range(2, 6, done=ends.append)
    link = Link(writer, reader)
    run(link)
    assert not ends
    writer.log.append(numbered(9))
    run(link)
    assert ends == [4]
    assert sorted(reader.blocks) == [2, 3, 4, 5]


def test_an_empty_range_is_done_at_once() -> None:
    ends: list[Any] = []
    Side().replicator.want_range(3, 3, done=ends.append)
    assert ends == [0]


def test_a_linear_range_comes_in_order_and_others_start_anywhere() -> None:
    writer, straight, anywhere = Side.of(*numbered(30)), Side(), Side(seed=3)
    straight.replicator.want_range(0, 30, linear=True)
    anywhere.replicator.want_range(0, 30)
    orders = []
    for reader in (straight, anywhere):
        link = Link(writer, reader)
        run(link)
        orders.append([m.block.index for m in sent(link, reader, REQUEST) if m.block])
    assert orders[0] == list(range(30))
    start = orders[1][0]
    assert start != 0
    assert orders[1] == [*range(start, 30), *range(start)], "from there on, then from the start"


def test_what_is_wanted_most_is_asked_for_first() -> None:
    writer, reader = Side.of(*numbered(300)), Side()
    link = Link(writer, reader)
    run(link)
    reader.replicator.want_range(0, 300, linear=True)
    reader.replicator.want_block(250, priority=1)
    reader.replicator.want_block(251, priority=2)
    reader.replicator.handle_timer(0.0)
    asked = [m for m in sent(link, reader, REQUEST) if m.block]
    assert [(m.block.index, m.priority) for m in asked[:3]] == [(251, 2), (250, 1), (0, 0)]
    assert len(asked) == IN_FLIGHT, "so many requests are under way and no more"
    run(link)
    assert len(reader.blocks) == 300


def test_two_writers_of_blocks_share_the_work() -> None:
    first, reader = Side.of(*numbered(400)), Side(seed=2)
    second = Side()
    second.replicator.want_range(0, None)
    run(Link(first, second))
    reader.replicator.want_range(0, None)
    links = Link(first, reader), Link(second, reader)
    run(*links)
    assert_same(reader, first)
    counts = [len([m for m in sent(link, reader, REQUEST) if m.block]) for link in links]
    assert sum(counts) == 400, "nothing is asked for twice"
    assert min(counts) > 100


def test_a_reader_serves_what_it_has_to_the_next() -> None:
    writer, middle, last = Side.of(*numbered(50)), Side(), Side()
    middle.replicator.want_range(0, None)
    last.replicator.want_range(0, None)
    links = Link(writer, middle), Link(middle, last)
    run(*links)
    writer.log.append(numbered(7))
    run(*links)
    assert_same(last, writer)


def test_figures_of_a_peer_and_events_of_blocks() -> None:
    writer, reader = Side.of(*numbered(10)), Side()
    reader.replicator.want_range(0, None)
    link = Link(writer, reader)
    run(link)
    down, up = link.peer_of(reader), link.peer_of(writer)
    size = sum(len(block) for block in writer.blocks.values())
    assert (down.blocks_down, down.bytes_down, down.blocks_up) == (10, size, 0)
    assert (up.blocks_up, up.bytes_up, up.blocks_down) == (10, size, 0)
    assert (down.have, down.length, down.in_flight) == (10, 10, 0)
    assert sorted(event.index for event in reader.told(Downloaded)) == list(range(10))
    assert sorted(event.index for event in writer.told(Uploaded)) == list(range(10))
    assert {event.peer for event in reader.told(Downloaded)} == {down}


def test_an_update_tells_whether_there_is_a_longer_head() -> None:
    writer, reader = Side.of(*numbered(3)), Side(downloading=False)
    answers: list[Any] = []
    reader.replicator.want_update(done=answers.append)
    reader.work()
    assert answers == [False], "nobody is there to ask"
    reader.replicator.want_update(wait=True, done=answers.append)
    reader.work()
    assert answers == [False]
    link = Link(writer, reader)
    run(link)
    assert answers == [False, True]
    assert reader.log.length == 3
    reader.replicator.want_update(done=answers.append)
    run(link)
    assert answers == [False, True, False]
    writer.log.append(numbered(2))
    run(link)
    assert reader.log.length == 3, "nobody asked for it"
    reader.replicator.want_update(done=answers.append)
    run(link)
    assert answers[3:] == [True]
    assert reader.log.length == 5


def test_an_update_waits_for_the_answers_of_peers() -> None:
    writer, reader = Side.of(*numbered(3)), Side()
    answers: list[Any] = []
    Link(writer, reader)
    reader.replicator.want_update(done=answers.append)
    reader.work()
    assert not answers, "the peer has not said yet"


def test_a_compat_log_is_read_without_a_manifest() -> None:
    writer, reader = Side(writer=True, compat=True), Side(compat=True)
    writer.log.append(numbered(5))
    reader.replicator.want_range(0, None)
    link = Link(writer, reader)
    run(link)
    assert_same(reader, writer)
    assert not any(m.has_manifest for m in sent(link, writer, SYNC))
    assert not any(m.manifest for m in sent(link, reader, REQUEST))


def test_extensions_go_both_ways_with_the_name_only_when_it_changes() -> None:
    first, second = Side.of(*numbered(1)), Side()
    link = Link(first, second)
    run(link)
    for name, payload in (("demo", b"one"), ("demo", b"two"), ("other", b"three")):
        link.peer_of(first).send_extension(name, payload)
    link.peer_of(second).send_extension("demo", b"four")
    run(link)
    heard = [(event.name, event.payload) for event in second.told(ExtensionReceived)]
    assert heard == [("demo", b"one"), ("demo", b"two"), ("other", b"three")]
    assert [event.payload for event in first.told(ExtensionReceived)] == [b"four"]
    assert [m.name for m in sent(link, first, EXTENSION)] == ["demo", "", "other"]


def test_after_an_extension_message_that_cannot_be_sent_the_next_tells_its_name() -> None:
    first, second = Side.of(*numbered(1)), Side()
    link = Link(first, second)
    run(link)
    peer = link.peer_of(first)
    peer.send_extension("one", b"for one")

    def refuse(_sender: Side, _kind: int, _message: Any) -> Any:
        raise EncodeError("too large for a frame")

    link.drops = refuse
    with pytest.raises(EncodeError):
        peer.send_extension("two", b"too much")
    link.drops = None
    peer.send_extension("two", b"for two")
    run(link)
    heard = [(event.name, event.payload) for event in second.told(ExtensionReceived)]
    assert heard == [("one", b"for one"), ("two", b"for two")]


def test_seeks_find_bytes_in_a_sparse_log() -> None:
    blocks = [bytes(size) for size in (3, 0, 7, 1, 9, 2, 5, 4, 0, 6, 8, 1)]
    for seeks in (True, False):
        writer, reader = Side.of(*blocks), Side(seed=5)
        link = Link(writer, reader, seeks=seeks)
        run(link)
        for offset in range(sum(map(len, blocks))):
            found: list[Any] = []
            reader.replicator.want_seek(offset, done=found.append)
            run(link)
            assert found == [writer.log.seek(offset)], offset
        asked = sent(link, reader, REQUEST)
        assert any(m.hash for m in asked)
        assert any(m.seek for m in asked) == seeks, "only who knows seeks is asked for them"
        assert link.errors == []


def test_a_seek_past_the_end_waits_for_more() -> None:
    writer, reader = Side.of(b"12345"), Side()
    link = Link(writer, reader)
    found: list[Any] = []
    reader.replicator.want_seek(7, done=found.append)
    cancelled = reader.replicator.want_seek(8, done=found.append)
    run(link)
    assert not found
    cancelled.cancel()
    writer.log.append([b"", b"6789"])
    run(link)
    assert found == [(2, 2)]


def test_pushed_blocks_are_taken_when_both_sides_allow_it() -> None:
    writer, reader = Side.of(*numbered(2), allow_push=True), Side(allow_push=True)
    link = Link(writer, reader)
    run(link)
    writer.log.append([b"new"])
    writer.replicator.push(2)
    pushed = sent(link, writer, DATA)[-1]
    assert (pushed.request, pushed.block.index, pushed.upgrade.start) == (0, 2, 2)
    run(link)
    assert reader.blocks == {2: b"new"}
    writer.replicator.push(0)
    run(link)
    assert sorted(reader.blocks) == [0, 2]
    assert link.peer_of(reader).unasked == 0


def test_nothing_is_pushed_to_who_does_not_allow_it() -> None:
    writer, reader = Side.of(*numbered(2), allow_push=True), Side()
    link = Link(writer, reader)
    run(link)
    count = len(sent(link, writer, DATA))
    writer.replicator.push(0)
    assert len(sent(link, writer, DATA)) == count


def test_closing_ends_what_is_waited_for() -> None:
    writer, reader = Side.of(*numbered(2)), Side()
    ends: list[Any] = []
    replicator = reader.replicator
    link = Link(writer, reader)
    run(link)
    replicator.want_block(7, done=ends.append)
    replicator.want_range(0, 90, done=ends.append)
    replicator.want_seek(900, done=ends.append)
    replicator.want_update(wait=True, done=ends.append)
    replicator.close()
    replicator.close()
    assert [type(end) for end in ends] == [ClosedError] * 4
    assert replicator.next_timer() is None
    assert reader.log.on_change == []
    with pytest.raises(ClosedError):
        replicator.want_block(1)


def test_work_from_outside_is_announced() -> None:
    calls: list[int] = []
    side = Side(on_work=lambda: calls.append(1))
    before = len(calls)
    side.replicator.want_block(1)
    side.replicator.want_block(2)
    assert len(calls) == max(before, 1), "once, until it is done"
    assert side.replicator.next_timer() == 0.0
    side.replicator.handle_timer(0.0)
    side.replicator.want_block(3)
    assert len(calls) == max(before, 1) + 1
