"""Truncated and rewritten logs, and logs signed in two ways (`hypercore.md` section 11)."""

from __future__ import annotations

from typing import Any

import pytest

from covey.errors import FrozenError
from covey.feed.log import Log
from covey.feed.log_events import Appended, LogEvent, Truncated
from covey.feed.messages import NoData, Range, Sync, UpgradeRequest
from covey.feed.replication_conflict import history
from covey.feed.replication_events import ChannelDone, Conflict, InvalidData, ReplicationError
from covey.feed.replication_peer import DATA, NO_DATA, RANGE, REQUEST, SYNC
from tests.feed.replication_links import PAIR, Link, Side, pass_time, run
from tests.feed.test_replicator import assert_same, numbered, sent


def follower(**options: Any) -> Side:
    """A reader that wants everything."""
    side = Side(**options)
    side.replicator.want_range(0, None)
    return side


def other(count: int, size: int = 3) -> list[bytes]:
    """Blocks that are not those of `numbered`."""
    return [b"other %d" % index + bytes(size) for index in range(count)]


def after(link: Link, before: int, side: Side, kind: int) -> list[Any]:
    """The messages of one kind from one side since."""
    return [message for who, what, message in link.trace[before:] if who is side and what == kind]


def test_a_truncation_is_told_and_followed() -> None:
    writer, reader = Side.of(*numbered(8)), follower()
    link = Link(writer, reader)
    run(link)
    before = len(link.trace)
    heard: list[LogEvent] = []
    reader.log.on_change.append(heard.append)
    writer.log.truncate(3)
    told = [(kind, message) for who, kind, message in link.trace[before:] if who is writer]
    assert told == [
        (RANGE, Range(True, 3, 5)),
        (SYNC, Sync(1, 3, 0, False, True, True, True, False)),
    ]
    run(link)
    asked = after(link, before, reader, REQUEST)
    assert [(m.fork, m.upgrade) for m in asked] == [(1, UpgradeRequest(0, 3))]
    assert after(link, before, reader, RANGE) == [Range(True, 3, 5)]
    assert after(link, before, reader, SYNC)[-1][:3] == (1, 3, 3)
    assert_same(reader, writer)
    assert heard == [Truncated(3, 1, 8)]
    writer.log.append(other(2))
    run(link)
    assert_same(reader, writer)
    carried = [m for m in after(link, before, reader, REQUEST) if m.upgrade and m.block]
    assert [m.block.index for m in carried] == [4], "the last block comes with the head again"


@pytest.mark.parametrize("shared", range(17))
def test_the_fork_point_is_found_by_hashes_and_the_shared_blocks_stay(shared: int) -> None:
    writer, reader = Side.of(*numbered(16)), follower()
    link = Link(writer, reader)
    run(link)
    link.cut()
    writer.log.truncate(shared)
    writer.log.append(other(20 - shared))
    before = dict(reader.blocks)
    heard: list[LogEvent] = []
    reader.log.on_change.append(heard.append)
    link = Link(writer, reader)
    run(link)
    assert_same(reader, writer)
    assert heard[:2] == [Truncated(shared, 1, 16), Appended(20, 1, shared)]
    fetched = [m.block.index for m in sent(link, reader, REQUEST) if m.block]
    assert sorted(fetched) == list(range(shared, 20)), "nothing shared is fetched again"
    assert all(reader.blocks[index] == before[index] for index in range(shared))
    hashes = [m for m in sent(link, reader, REQUEST) if m.hash]
    assert len(hashes) <= 5


def test_a_reader_without_blocks_goes_to_any_fork_with_its_manifest() -> None:
    writer, reader = Side.of(*numbered(8)), follower()
    writer.log.truncate(2)
    writer.log.append(other(5))
    run(Link(writer, reader))
    assert_same(reader, writer)


def test_forks_pass_through_a_reader_to_the_next() -> None:
    writer, middle, last = Side.of(*numbered(30)), follower(), follower()
    links = Link(writer, middle), Link(middle, last)
    run(*links)
    for length in (17, 30, 4):
        writer.log.truncate(min(length, writer.log.length))
        writer.log.append(other(9, length))
        run(*links)
        assert_same(last, writer)


def test_of_several_forks_the_highest_wins() -> None:
    writer, second, reader = Side.of(*numbered(8)), Side.of(*numbered(8)), follower()
    run(Link(writer, reader))
    writer.log.truncate(4)
    second.log.truncate(6, fork=5)
    second.log.append(other(3))
    links = Link(writer, reader), Link(second, reader)
    run(*links)
    assert_same(reader, second)


def test_forks_are_ignored_by_who_does_not_allow_them() -> None:
    writer, reader = Side.of(*numbered(8)), follower(allow_fork=False)
    link = Link(writer, reader)
    run(link)
    writer.log.truncate(3)
    writer.log.append(other(9))
    run(link)
    assert (reader.log.fork, reader.log.length) == (0, 8)
    assert link.open


def test_a_fork_that_is_not_signed_is_not_taken() -> None:
    writer, reader = Side.of(*numbered(8)), follower()
    link = Link(writer, reader)
    run(link)

    def spoil(_sender: Side, kind: int, message: Any) -> Any:
        if kind == DATA and message.upgrade:
            return message._replace(upgrade=message.upgrade._replace(signature=b"\1" * 68))
        return message

    link.drops = spoil
    writer.log.truncate(3)
    run(link)
    assert (reader.log.fork, reader.log.length) == (0, 8)
    assert reader.told(InvalidData)
    honest = Link(writer, reader)
    run(link, honest)
    assert_same(reader, writer)


def test_nodes_that_are_refused_end_the_search_with_what_is_known() -> None:
    writer, reader = Side.of(*numbered(16)), follower()
    link = Link(writer, reader)
    run(link)
    link.cut()
    writer.log.truncate(13)
    writer.log.append(other(3))
    link = Link(writer, reader)
    hashes = 0

    def refuse(_sender: Side, kind: int, message: Any) -> Any:
        nonlocal hashes
        if kind == DATA and message.hash:
            hashes += 1
            return NoData(message.request, 1)
        return message

    link.drops = refuse
    run(link)
    assert hashes == 1
    assert_same(reader, writer)


def test_a_search_goes_on_with_another_peer() -> None:
    writer, reader = Side.of(*numbered(16)), follower()
    copy = follower()
    run(Link(writer, reader), Link(writer, copy))
    for link in reader.links.values():
        link.cut()
    writer.log.truncate(5)
    writer.log.append(other(11))
    run(*[link for link in copy.links.values() if link.open])
    assert_same(copy, writer)
    links = Link(writer, reader), Link(copy, reader)
    # The first answers nothing, and is gone when its time is over.
    links[0].drops = lambda _sender, kind, message: None if kind == DATA else message
    pass_time(31.0, *links)
    links[0].cut()
    run(links[1])
    assert_same(reader, writer)


def test_growing_meanwhile_does_not_disturb_the_search() -> None:
    writer, reader = Side.of(*numbered(16)), follower()
    link = Link(writer, reader)
    run(link)
    stale = Side.of(*numbered(16))
    stale.log.append([b"more"])
    cut = Side.of(*numbered(16))
    cut.log.truncate(5)
    cut.log.append(other(11))
    late, quick = Link(cut, reader), Link(stale, reader)
    while not any(search.reorg for search in reader.replicator.downloads.forks.searches.values()):
        assert late.step()
    while reader.log.length == 16:
        quick.step()
    assert any(search.reorg for search in reader.replicator.downloads.forks.searches.values())
    run(late, quick)
    assert_same(reader, cut)


def test_requests_on_the_old_fork_are_refused() -> None:
    writer, reader = Side.of(*numbered(8)), follower()
    link = Link(writer, reader)
    run(link)
    reader.log.clear(0, 8)
    reader.replicator.handle_timer(0.0)
    writer.log.truncate(6)
    run(link)
    assert all(m.reason == 1 for m in sent(link, writer, NO_DATA))
    peer = link.peer_of(reader)
    assert (peer.backoffs, peer.failures, peer.unasked) == (0, 0, 0)
    assert_same(reader, writer)


# Conflicts


def twins(first: int, second: int, shared: int = 3) -> tuple[Side, Side]:
    """One owner who signed two histories."""
    left = Side.of(*numbered(shared), *numbered(first - shared))
    right = Side.of(*numbered(shared), *other(second - shared))
    return left, right


@pytest.mark.parametrize(
    ("first", "second", "cleared"),
    [(5, 6, 0), (6, 5, 0), (5, 5, 2), (5, 50, 0), (40, 7, 0), (60, 60, 57)],
)
def test_two_histories_freeze_the_log_and_everybody_is_told(
    first: int, second: int, cleared: int
) -> None:
    left, right = twins(first, second)
    reader, bystander = follower(), Side()
    links = [Link(left, reader), Link(reader, bystander)]
    run(*links)
    links[0].cut()
    reader.log.clear(first - cleared, first)
    reader.replicator.want_range(first - cleared, first)
    ends: list[Any] = []
    reader.replicator.want_block(900, done=ends.append)
    links.append(Link(right, reader))
    run(*links)
    assert reader.log.frozen
    assert reader.records.frozen, "for ever"
    event = reader.told(Conflict)[0]
    assert (event.length, event.fork) == (min(first, second), 0)
    assert not any(link.open for link in links)
    assert not reader.replicator.peers
    assert isinstance(ends[0], FrozenError)
    assert FrozenError in {type(done.error) for done in reader.told(ChannelDone)}
    proofs = [m for m in sent(links[1], reader, DATA) if m.request == 0]
    assert [proof.upgrade.start for proof in proofs] == [0]
    with pytest.raises(ReplicationError):
        Link(left, reader)
    assert all(left.blocks[index] == data for index, data in reader.blocks.items())
    assert right.log.frozen, "it was shown the proof"


def test_who_is_shown_a_conflict_freezes_too() -> None:
    left, right = twins(6, 6)
    link = Link(left, right)
    run(link)
    proof = sent_history(left)
    link.inject(right, DATA, proof)
    assert right.log.frozen
    assert right.told(Conflict)


def sent_history(side: Side) -> Any:
    """The proof of its head from the start."""
    return history(side.log, side.log.length)


def test_a_frozen_log_stays_frozen_when_opened_again() -> None:
    left, right = twins(6, 6)
    link = Link(left, right)
    run(link)
    link.inject(right, DATA, sent_history(left))
    again = Log(
        right.records,
        key=right.log.key,
        manifest=right.log.manifest,
        key_pair=PAIR,
        head=right.records.head,
        pages=right.records.pages,
        frozen=right.records.frozen,
    )
    assert again.frozen
    with pytest.raises(FrozenError):
        again.append([b"x"])


def test_an_unsigned_history_is_no_conflict() -> None:
    left, right = twins(6, 6)
    link = Link(left, right)
    run(link)
    proof = sent_history(left)
    spoilt = proof._replace(upgrade=proof.upgrade._replace(signature=b"\1" * 68))
    link.inject(right, DATA, spoilt)
    assert not right.log.frozen
    assert right.told(InvalidData)


@pytest.mark.parametrize("side", ["writer", "reader"])
@pytest.mark.parametrize("moved", [1, -1])
def test_bytes_moved_between_siblings_below_the_head_are_no_conflict(side: str, moved: int) -> None:
    writer, reader = Side.of(*numbered(6)), follower()
    link = Link(writer, reader)
    run(link)
    proof = history(writer.log, 3)
    assert proof is not None
    assert proof.upgrade is not None
    nodes, above = list(proof.upgrade.nodes), list(proof.upgrade.additional_nodes)
    assert (nodes[-1].index, above[0].index) == (4, 6), "siblings below one that is signed"
    nodes[-1] = nodes[-1]._replace(size=nodes[-1].size + moved)
    above[0] = above[0]._replace(size=above[0].size - moved)
    shifted = proof.upgrade._replace(nodes=nodes, additional_nodes=above)
    target = writer if side == "writer" else reader
    link.inject(target, DATA, proof._replace(upgrade=shifted))
    assert not target.log.frozen
    assert target.told(Conflict) == []
    assert link.open
    writer.log.append([b"more"])
    run(link)
    assert_same(reader, writer)


def test_a_history_of_another_fork_is_no_conflict() -> None:
    left, right = twins(6, 6)
    left.log.truncate(5)
    link = Link(left, right)
    link.inject(right, DATA, sent_history(left))
    assert not right.log.frozen
