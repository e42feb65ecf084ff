"""Requests count on the nodes that earlier ones to the same peer will bring."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import pytest

from covey.feed import flat_tree
from covey.feed.messages import NOT_AVAILABLE, Data, NoData
from covey.feed.replication_choices import IN_FLIGHT
from covey.feed.replication_events import InvalidData
from covey.feed.replication_paths import LARGE_BLOCK, MAX_DOUBT, MAX_EARLY, MISS, Paths
from covey.feed.replication_peer import DATA, MAX_FAILURES, NO_DATA, REQUEST
from tests.feed.replication_links import Link, Side, pass_time, run
from tests.feed.test_replicator import assert_same, numbered, sent


def readers(count: int, **options: Any) -> tuple[Side, Side, Link]:
    """A writer of `count` blocks, and a reader that knows its head and nothing more."""
    writer, reader = Side.of(*numbered(count)), Side(**options)
    link = Link(writer, reader)
    run(link)
    return writer, reader, link


def paths_asked(link: Link, reader: Side) -> list[int]:
    """The `nodes` of all requests for blocks, in order."""
    return [message.block.nodes for message in sent(link, reader, REQUEST) if message.block]


def hold_back(link: Link, reader: Side, kind: int = DATA) -> deque[tuple[int, bytes]]:
    """What is on its way to the reader of this kind, taken off it."""
    end = link.end_of(reader)
    held = deque(item for item in end.incoming if item[0] == kind)
    end.incoming = deque(item for item in end.incoming if item[0] != kind)
    return held


def answers_waiting(link: Link, writer: Side, reader: Side) -> deque[tuple[int, bytes]]:
    """Deliver what the reader asked, and take the answers off their way."""
    incoming = link.end_of(writer).incoming
    while incoming:
        link.deliver(link.end_of(writer), *incoming.popleft())
    return hold_back(link, reader)


@pytest.mark.parametrize("linear", [True, False])
def test_blocks_in_a_row_cost_one_node_each(linear: bool) -> None:
    writer, reader, link = readers(1000)
    before = len(sent(link, writer, DATA))
    reader.replicator.want_range(0, None, linear=linear)
    run(link)
    assert_same(writer, reader)
    answers = [message for message in sent(link, writer, DATA)[before:] if message.block]
    nodes = sum(len(message.block.nodes) for message in answers)
    assert len(answers) == 1000
    assert nodes <= 1020, "999 would be the least: all siblings, each once"
    assert link.peer_of(reader).doubt == 0
    assert reader.told(InvalidData) == []


def test_what_is_expected_goes_with_its_answers() -> None:
    writer, reader, link = readers(100)
    reader.replicator.want_range(0, None)
    table = link.peer_of(reader).table
    assert not table.expected
    reader.work()
    assert table.expected
    run(link)
    assert not table.expected
    assert_same(writer, reader)


def test_two_peers_are_not_counted_on_for_each_other() -> None:
    writer, reader = Side.of(*numbered(400)), Side()
    links = Link(writer, reader), Link(writer, reader)
    run(*links)
    reader.replicator.want_range(0, None, linear=True)
    reader.work()
    # What one peer never answers takes nothing from what the other proves.
    hold_back(links[0], reader)
    for _ in range(20_000):
        moved = links[1].step()
        if not moved and not reader.work():
            break
    assert reader.told(InvalidData) == []
    assert links[1].peer_of(reader).doubt == 0
    assert len(reader.blocks) == 400 - links[0].peer_of(reader).in_flight
    links[0].cut()
    run(links[1])
    assert_same(writer, reader)


@pytest.mark.parametrize("seed", range(4))
def test_answers_out_of_order_blame_nobody(seed: int) -> None:
    writer, reader, link = readers(300)
    random = Random(seed)
    reader.replicator.want_range(0, None)
    reader.work()
    for _ in range(300):
        held = list(answers_waiting(link, writer, reader))
        random.shuffle(held)
        for kind, data in held:
            link.deliver(link.end_of(reader), kind, data)
        reader.work()
    run(link)
    assert_same(writer, reader)
    assert reader.told(InvalidData) == []
    assert link.errors == []


def test_an_answer_that_overtook_its_path_waits_for_it() -> None:
    writer, reader, link = readers(64)
    reader.replicator.want_range(0, None, linear=True)
    reader.work()
    assert paths_asked(link, reader)[:4] == [6, 0, 1, 0]
    asked = len(paths_asked(link, reader))
    peer, end = link.peer_of(reader), link.end_of(reader)
    held = answers_waiting(link, writer, reader)
    first = held.popleft()
    for kind, data in reversed(held):
        link.deliver(end, kind, data)
    assert peer.in_flight == asked
    assert reader.log.staged_blocks == 0
    link.deliver(end, *first)
    assert reader.log.staged_blocks == asked
    assert peer.doubt == 0
    run(link)
    assert_same(writer, reader)
    assert len(paths_asked(link, reader)) == 64, "nothing is asked for twice"
    assert set(map(len, (link.errors, reader.told(InvalidData)))) == {0}


def test_a_second_answer_to_one_that_waits_was_not_asked_for() -> None:
    writer, reader, link = readers(64)
    reader.replicator.want_range(0, None, linear=True)
    reader.work()
    held = answers_waiting(link, writer, reader)
    peer, end = link.peer_of(reader), link.end_of(reader)
    for _ in range(3):
        link.deliver(end, *held[1])
    assert peer.unasked == 2
    for kind, data in (held[0], *list(held)[2:]):
        link.deliver(end, kind, data)
    run(link)
    assert_same(writer, reader)


def test_a_large_block_that_came_too_early_is_asked_for_with_its_path() -> None:
    blocks = numbered(64)
    blocks[1] = bytes(MAX_EARLY + 1)
    writer, reader = Side.of(*blocks), Side()
    link = Link(writer, reader)
    run(link)
    reader.replicator.want_range(0, None, linear=True)
    reader.work()
    held = answers_waiting(link, writer, reader)
    link.deliver(link.end_of(reader), *held[1])
    assert link.peer_of(reader).doubt == MISS
    again = sent(link, reader, REQUEST)[-1].block
    assert (again.index, again.nodes) == (1, 0), "its leaf still comes, but not in this answer"
    for kind, data in (held[0], *list(held)[2:]):
        link.deliver(link.end_of(reader), kind, data)
    run(link)
    assert_same(writer, reader)
    assert link.peer_of(reader).doubt < MISS, "good answers pay it back"


@pytest.mark.parametrize("how", ["refused", "cancelled", "stranded", "lost"])
def test_a_missing_predecessor_blames_nobody(how: str) -> None:
    writer, reader, link = readers(64)
    single = how in {"cancelled", "stranded"}
    if single:
        ticket = reader.replicator.want_block(0, priority=0)
        reader.work()
    reader.replicator.want_range(1 if single else 0, None, linear=True)
    reader.work()
    held = answers_waiting(link, writer, reader)
    peer = link.peer_of(reader)
    number = sent(link, writer, DATA)[-len(held)].request
    held.popleft()
    if how == "cancelled":
        ticket.cancel()
    elif how == "refused":
        link.inject(reader, NO_DATA, NoData(number, NOT_AVAILABLE))
    for kind, data in held:
        link.deliver(link.end_of(reader), kind, data)
    if how == "stranded":
        assert peer.doubt == 0
        ticket.cancel()
        reader.work()
    assert bool(peer.doubt) == (how != "lost")
    pass_time(40.0, link)
    run(link)
    missing = {0} if single else set()
    assert set(range(64)) - set(reader.blocks) == missing
    assert reader.told(InvalidData) == []
    assert peer.paused is None
    assert not peer.table.expected
    assert not peer.table.stranded


def test_a_block_of_another_peer_leaves_nobody_waiting() -> None:
    writer, reader = Side.of(*numbered(64)), Side()
    links = Link(writer, reader), Link(writer, reader)
    run(*links)
    reader.replicator.want_range(0, 20, linear=True)
    reader.work()
    slow, quick = links
    if not slow.peer_of(reader).in_flight:
        slow, quick = quick, slow
    held = answers_waiting(slow, writer, reader)
    held.popleft()
    for kind, data in held:
        slow.deliver(slow.end_of(reader), kind, data)
    assert reader.log.staged_blocks == 0
    reader.now = 1.5
    reader.work()
    for _ in range(200):
        moved = quick.step()
        if not moved and not reader.work():
            break
    run(*links)
    assert set(reader.blocks) == set(range(20))
    assert reader.told(InvalidData) == []
    assert not slow.peer_of(reader).table.open


def test_a_liar_does_not_hide_behind_what_was_counted_on() -> None:
    writer, reader, link = readers(4000)
    peer = link.peer_of(reader)
    wrong: list[int] = []

    def lie(sender: Side, kind: int, message: Any) -> Any:
        """Refuse who asks for a path; all others get wrong bytes, then everybody."""
        if sender is not writer or kind != DATA or message.block is None:
            return message
        if message.block.nodes and peer.doubt < MAX_DOUBT:
            peer.backoffs = 0  # as if it had given something in between
            return NoData(message.request, NOT_AVAILABLE)
        wrong.append(message.block.index)
        return message._replace(block=message.block._replace(value=b"wrong"))

    link.drops = lie
    reader.replicator.want_range(0, None)
    run(link)
    pass_time(200.0, link)
    assert reader.blocks == {}
    assert reader.told(InvalidData)
    assert len(reader.told(InvalidData)) <= MAX_FAILURES
    assert not peer.active
    assert len(wrong) < MAX_DOUBT // MISS + 3 * IN_FLIGHT


def test_who_never_answers_what_others_wait_for_gains_nothing() -> None:
    writer, reader, link = readers(2000)

    def lie(sender: Side, kind: int, message: Any) -> Any:
        if sender is not writer or kind != DATA or message.block is None or message.block.nodes:
            return None if sender is writer and kind == DATA else message
        return message._replace(block=message.block._replace(value=b"wrong"))

    link.drops = lie
    reader.replicator.want_range(0, None)
    run(link)
    assert link.peer_of(reader).in_flight == IN_FLIGHT
    pass_time(200.0, link)
    assert reader.blocks == {}
    assert len(paths_asked(link, reader)) <= IN_FLIGHT + 10, "one at a time, every 30 seconds"


def test_a_peer_in_full_doubt_is_blamed_for_what_does_not_fit() -> None:
    writer, reader, link = readers(64)
    peer = link.peer_of(reader)
    peer.doubt = MAX_DOUBT
    reader.replicator.want_range(0, None, linear=True)
    reader.work()
    assert set(paths_asked(link, reader)) == {6}
    answers_waiting(link, writer, reader)
    answer: Data = sent(link, writer, DATA)[-1]
    assert answer.block is not None
    spoilt = answer._replace(block=answer.block._replace(value=b"wrong"))
    link.inject(reader, DATA, spoilt)
    assert len(reader.told(InvalidData)) == 1
    assert peer.paused is not None


def test_urgent_requests_count_on_nothing() -> None:
    _, reader, link = readers(64)
    for index in (0, 1, 2):
        reader.replicator.want_block(index, priority=1)
    reader.work()
    assert paths_asked(link, reader) == [6, 6, 6]


def test_large_blocks_are_not_put_at_risk_for_nodes() -> None:
    blocks = [bytes(LARGE_BLOCK + 1)] * 16
    writer, reader = Side.of(*blocks), Side()
    link = Link(writer, reader)
    run(link)
    reader.replicator.want_range(0, None, linear=True)
    reader.work()
    assert set(paths_asked(link, reader)) == {4}
    run(link)
    assert_same(writer, reader)


def test_after_clearing_nothing_counts_on_nodes_that_went() -> None:
    writer, reader, link = readers(256)
    reader.replicator.want_range(0, None, linear=True)
    for _ in range(60):
        link.step()
        reader.work()
    peer = link.peer_of(reader)
    expected = len(peer.table.expected)
    assert expected
    # Some of these are here, some on their way: those are called back.
    held = max(reader.blocks) + 1
    reader.log.clear(held - 5, held + 5)
    assert len(peer.table.expected) < expected
    reader.log.clear(0, 5)
    run(link)
    assert sorted(set(writer.blocks) - set(reader.blocks)) == [*range(5), *range(held - 5, held)]
    reader.replicator.want_range(0, 256)
    run(link)
    assert_same(writer, reader)
    assert peer.doubt == 0
    assert reader.told(InvalidData) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_chosen_path_reaches_what_is_here_or_expected(seed: int) -> None:
    random = Random(seed)
    _, reader, _ = readers(random.choice((1, 7, 64, 333)))
    log = reader.log
    paths = Paths(log)
    expected: dict[int, Any] = {}
    for _ in range(300):
        block = random.randrange(log.length)
        path = paths.choose(block, expected if random.random() < 0.8 else None)
        top = flat_tree.index(path.levels, block >> path.levels)
        assert path.hoped in (None, top)
        assert (path.hoped is None) == (log.has_node(top) and top not in expected) or (
            path.hoped is None and log.has_node(top)
        )
        if path.hoped is not None:
            assert top in expected
        assert len(path.missing) == 2 * path.levels
        for node in path.missing:
            assert flat_tree.contains(top, node)
            expected[node] = None
        if random.random() < 0.05:
            paths.forget()
    assert paths.choose(log.length, expected).levels == 0


def test_a_path_to_nothing_that_is_here_is_never_looked_up_below_a_new_sibling() -> None:
    _, reader, _ = readers(1024)
    log = reader.log
    looked: list[int] = []
    node = reader.records.node

    def count(index: int) -> Any:
        looked.append(index)
        return node(index)

    reader.records.node = count  # type: ignore[method-assign]
    paths = Paths(log)
    expected: dict[int, Any] = {}
    for block in range(1024):
        path = paths.choose(block, expected)
        expected.update(dict.fromkeys(path.missing))
    assert len(looked) <= 11, "the first path alone"
