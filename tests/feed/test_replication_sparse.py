"""Peers that hold a part of a log: claims, wants, announcements (`hypercore.md` section 9)."""

from __future__ import annotations

from typing import Any

import pytest

from covey.errors import VerifyError
from covey.feed.messages import BitfieldWords, Data, NoData, Range, Unwant, Want
from covey.feed.replication_peer import (
    BITFIELD,
    DATA,
    NO_DATA,
    RANGE,
    REQUEST,
    SYNC,
    UNWANT,
    WANT,
)
from covey.feed.replication_wants import MAX_WANTS, WANT_BATCH
from tests.feed.replication_links import Link, Side, run
from tests.feed.test_replicator import assert_same, numbered, sent


def sparse_writer(count: int, *cleared: tuple[int, int]) -> Side:
    """A writer that let some blocks go."""
    writer = Side.of(*numbered(count))
    for start, end in cleared:
        writer.log.clear(start, end)
    return writer


def since(link: Link, before: int, side: Side, *kinds: int) -> list[Any]:
    """The messages of some kinds from one side, from a place in the trace on."""
    return [m for who, kind, m in link.trace[before:] if who is side and kind in kinds]


def test_what_a_sparse_server_has_is_asked_for_once_and_then_fetched() -> None:
    writer, reader = sparse_writer(10, (0, 4)), Side()
    link = Link(writer, reader)
    run(link)
    assert not sent(link, writer, RANGE), "it holds nothing from the start"
    got: list[Any] = []
    reader.replicator.want_block(6, done=got.append)
    run(link)
    assert got == [b"block 6"]
    assert sent(link, reader, WANT) == [Want(0, WANT_BATCH, False)]
    assert sent(link, writer, BITFIELD) == [BitfieldWords(0, b"\xf0\x03\x00\x00")]
    reader.replicator.want_block(2, done=got.append)
    run(link)
    assert len(sent(link, reader, WANT)) == 1
    assert len(got) == 1, "nobody has it"


def test_a_range_of_a_sparse_server_is_fetched_as_far_as_it_is_there() -> None:
    writer, reader = sparse_writer(100, (10, 20), (50, 90)), Side()
    seen: list[tuple[int, int]] = []
    reader.replicator.want_range(0, 100, progress=lambda *figures: seen.append(figures))
    link = Link(writer, reader)
    run(link)
    assert reader.blocks == writer.blocks
    assert seen[-1] == (50, 100)
    assert len(sent(link, reader, WANT)) == 1


def test_blocks_that_a_peer_lets_go_are_not_asked_of_it() -> None:
    writer, reader = Side.of(*numbered(10)), Side()
    link = Link(writer, reader)
    run(link)
    before = len(link.trace)
    writer.log.clear(7, 8)
    assert since(link, before, writer, RANGE) == [Range(True, 7, 1)]
    run(link)
    reader.replicator.want_block(7)
    run(link)
    assert not [m for m in since(link, before, reader, REQUEST) if m.block]
    assert link.peer_of(reader).backoffs == 0


def test_the_last_blocks_are_announced_and_older_ones_to_those_who_want_them() -> None:
    writer, middle, reader = Side.of(*numbered(400)), Side(), Side()
    links = Link(writer, middle), Link(middle, reader)
    run(*links)
    for index, announced in ((143, False), (144, True), (399, True)):
        before = len(links[1].trace)
        middle.replicator.want_block(index)
        run(*links)
        told = since(links[1], before, middle, RANGE)
        assert told == ([Range(False, index, 1)] if announced else []), index
    reader.replicator.want_block(7)
    run(*links)
    before = len(links[1].trace)
    middle.replicator.want_block(7)
    run(*links)
    assert since(links[1], before, middle, RANGE) == [Range(False, 7, 1)]
    assert 7 in reader.blocks


def test_becoming_complete_is_announced_once() -> None:
    writer, reader, last = Side.of(*numbered(600)), Side(), Side()
    links = Link(writer, reader), Link(reader, last)
    run(*links)
    reader.replicator.want_range(0, 600)
    run(*links)
    whole = Range(False, 0, 600)
    assert sent(links[0], reader, RANGE) == [whole], "the writer knows all before"
    assert sent(links[1], reader, RANGE)[-1] == whole
    assert sent(links[1], reader, RANGE).count(whole) == 1


def test_known_blocks_are_not_announced() -> None:
    writer, reader = Side.of(*numbered(20)), Side()
    link = Link(writer, reader)
    run(link)
    reader.replicator.want_block(15)
    run(link)
    assert not sent(link, reader, RANGE)


def test_claims_past_the_head_are_remembered() -> None:
    writer, reader = Side.of(*numbered(3)), Side()
    link = Link(writer, reader)
    run(link)
    link.inject(reader, RANGE, Range(False, 0, 5))
    assert link.peer_of(reader).have == 5
    writer.log.append(numbered(2))
    reader.replicator.want_block(4)
    run(link)
    assert 4 in reader.blocks


@pytest.mark.parametrize(
    ("want", "answer"),
    [
        (Want(0, 32, False), (RANGE, Range(False, 0, 64))),
        (Want(64, 32, False), (BITFIELD, BitfieldWords(64, b"\0\0\0\0"))),
        (Want(32, 32, False), (BITFIELD, BitfieldWords(32, b"\xff\xff\xff\xff"))),
        (Want(96, 32, False), (BITFIELD, BitfieldWords(96, b"\x0f\0\0\0"))),
        (
            Want(0, 128, False),
            (BITFIELD, BitfieldWords(0, b"\xff" * 8 + b"\0" * 4 + b"\x0f\0\0\0")),
        ),
        (Want(40, 50, True), (RANGE, Range(False, 0, 64))),
        (Want(70, 50, True), (RANGE, Range(False, 96, 1))),
        (Want(70, 5, True), None),
        (Want(128, 128, False), None),
        (
            Want(5, 100, False),
            (BITFIELD, BitfieldWords(0, b"\xff" * 8 + b"\0" * 4 + b"\x0f\0\0\0")),
        ),
        (Want(0, 0, False), None),
    ],
)
def test_wants_are_answered(want: Want, answer: tuple[int, Any] | None) -> None:
    writer = sparse_writer(100, (64, 96))
    link = Link(writer, Side())
    run(link)
    before = len(link.trace)
    link.inject(writer, WANT, want)
    told = [(kind, message) for who, kind, message in link.trace[before:] if who is writer]
    assert told == ([] if answer is None else [answer])


def test_a_complete_server_answers_any_want_with_all_it_has() -> None:
    writer = Side.of(*numbered(10))
    link = Link(writer, Side())
    run(link)
    for want in (Want(0, 32, False), Want(1 << 40, 32, False), Want(3, 1, True)):
        before = len(link.trace)
        link.inject(writer, WANT, want)
        assert since(link, before, writer, RANGE) == [Range(False, 0, 10)]


def test_an_empty_server_answers_no_want() -> None:
    side = Side(writer=True)
    link = Link(side, Side())
    run(link)
    before = len(link.trace)
    link.inject(side, WANT, Want(0, 32, False))
    assert len(link.trace) == before


def test_taken_back_wants_are_forgotten() -> None:
    writer = sparse_writer(100, (0, 50))
    link = Link(writer, Side())
    run(link)
    peer = link.peer_of(writer)
    for want in (Want(32, 32, False), Want(70, 5, True)):
        link.inject(writer, WANT, want)
        assert len(peer.remote_wants) == 1
        assert peer.remote_wants.touches(want.start, want.start + 1)
        link.inject(writer, UNWANT, Unwant(*want))
        link.inject(writer, UNWANT, Unwant(*want))
        assert len(peer.remote_wants) == 0


def test_a_want_that_waits_can_be_taken_back() -> None:
    writer, reader = sparse_writer(100, (0, 50)), Side()
    link = Link(writer, reader)
    run(link)
    link.end_of(reader).full = True
    writer.log.append([b"fills the channel"])
    before = len(link.trace)
    link.inject(writer, WANT, Want(32, 32, False))
    link.inject(writer, WANT, Want(64, 32, False))
    link.inject(writer, UNWANT, Unwant(32, 32, False))
    assert not since(link, before, writer, BITFIELD)
    link.drain(writer)
    assert [m.start for m in since(link, before, writer, BITFIELD)] == [64]


def test_at_most_512_batches_are_wanted_and_unused_ones_are_taken_back() -> None:
    """The length is only told: what we know of a log is bounded by what is proven of it."""
    reader = Side.of(*numbered(1))
    link = Link(Side(), reader)
    peer = link.peer_of(reader)
    pool = reader.replicator.downloads.pool
    tickets = [
        reader.replicator.want_block(batch * WANT_BATCH + 1) for batch in range(MAX_WANTS + 2)
    ]
    for batch in range(MAX_WANTS + 2):
        pool.want_near(peer, batch * WANT_BATCH)
    wants = sent(link, reader, WANT)
    assert [want.start for want in wants] == [n * WANT_BATCH for n in range(MAX_WANTS)]
    assert not sent(link, reader, UNWANT), "all are in use"
    tickets[5].cancel()
    pool.want_near(peer, MAX_WANTS * WANT_BATCH)
    assert sent(link, reader, UNWANT) == [Unwant(5 * WANT_BATCH, WANT_BATCH, False)]
    assert sent(link, reader, WANT)[-1].start == MAX_WANTS * WANT_BATCH
    assert len(peer.wants.batches) == MAX_WANTS


def test_a_relay_that_gets_more_proves_more() -> None:
    """A peer that skipped lengths can prove its head to older ones once it has the nodes."""
    writer, relay, old = Side.of(*numbered(2)), Side(), Side()
    old.replicator.want_range(0, None)
    run(Link(writer, old))
    for link in old.links.values():
        link.cut()
    writer.log.append(numbered(4))
    links = Link(writer, relay), Link(relay, old)
    run(*links)
    assert old.log.length == 2
    assert not sent(links[1], relay, SYNC)[-1].can_upgrade
    relay.replicator.want_range(0, None)
    run(*links)
    assert sent(links[1], relay, SYNC)[-1].can_upgrade or old.log.length == 6
    assert_same(old, writer)


def test_shorter_peers_are_asked_only_below_what_both_can_prove() -> None:
    writer, short, reader = Side.of(*numbered(5)), Side(), Side()
    short.replicator.want_range(0, None)
    run(Link(writer, short))
    for link in short.links.values():
        link.cut()
    writer.log.append(numbered(6))
    run(Link(writer, reader))
    for link in reader.links.values():
        link.cut()
    link = Link(short, reader)
    short.replicator.set_downloading(False, 0.0, linger=0)
    reader.replicator.want_block(1)
    reader.replicator.want_block(4)
    run(link)
    assert all(end.peer.invalid_requests == 0 for end in link.ends if end.peer)
    assert link.peer_of(reader).backoffs == 0


@pytest.mark.parametrize("answer", [True, False])
def test_a_seek_that_a_peer_cannot_answer_is_asked_without_its_seek_part(answer: bool) -> None:
    writer, reader = Side.of(*numbered(64)), Side()
    link = Link(writer, reader)
    run(link)
    seeks = set()

    def refuse(sender: Side, kind: int, message: Any) -> Any:
        if sender is reader and kind == REQUEST and message.seek is not None:
            seeks.add(message.id)
        if sender is writer and kind == DATA and message.request in seeks:
            seeks.remove(message.request)
            return Data(message.request, 0) if answer else NoData(message.request, 1)
        return message

    link.drops = refuse
    found: list[Any] = []
    reader.replicator.want_seek(200, done=found.append)
    run(link)
    assert found == [writer.log.seek(200)]
    asked = sent(link, reader, REQUEST)
    assert len([m for m in asked if m.seek is not None]) == 1
    assert link.peer_of(reader).paused is None


def test_a_hash_that_is_refused_is_not_asked_of_that_peer_again() -> None:
    writer, reader = Side.of(*numbered(64)), Side()
    link = Link(writer, reader)
    run(link)
    link.drops = lambda _sender, kind, message: (
        NoData(message.request, 1) if kind == DATA and message.hash is not None else message
    )
    found: list[Any] = []
    reader.replicator.want_seek(200, done=found.append)
    run(link)
    hashes = [(m.hash.index, m.seek) for m in sent(link, reader, REQUEST) if m.hash]
    assert len(set(hashes)) == len(hashes)
    link.cut()
    other = Link(writer, reader)
    run(other)
    assert found == [writer.log.seek(200)]


def test_a_hash_of_a_fork_that_is_gone_is_refused_without_consequences() -> None:
    writer, reader = Side.of(*numbered(64)), Side()
    link = Link(writer, reader, seeks=False)
    run(link)
    found: list[Any] = []
    reader.replicator.want_seek(200, done=found.append)
    reader.replicator.handle_timer(0.0)
    (asked,) = [m for m in sent(link, reader, REQUEST) if m.hash is not None]
    writer.log.truncate(60)
    run(link)
    assert sent(link, writer, NO_DATA)
    assert asked.hash.index >> 1 in link.peer_of(reader).claims
    assert found == [writer.log.seek(200)]


def test_a_relay_that_lacks_one_of_two_nodes_answers_a_seek_with_what_it_has() -> None:
    writer, relay, reader = Side.of(*numbered(8)), Side(), Side()
    first = Link(writer, relay)
    run(first)
    relay.replicator.want_block(4)
    run(first)
    first.cut()
    relay.records.nodes[1] = writer.records.nodes[1]
    relay.log._cache.clear()
    link = Link(relay, reader)
    reader.replicator.want_seek(23, done=lambda _: None)
    run(link)
    asked = sent(link, reader, REQUEST)
    assert any(m.seek for m in asked)
    assert not sent(link, relay, NO_DATA)
    assert len(asked) < 6
    assert link.peer_of(reader).paused is None


@pytest.mark.parametrize("everything", [False, True])
def test_who_was_doubted_hears_afterwards_what_it_missed(everything: bool) -> None:
    writer, relay, reader = Side.of(*numbered(2000)), Side(), Side()
    links = [Link(writer, relay), Link(writer, reader)]
    run(*links)
    links.pop().cut()
    links.append(Link(reader, relay))
    run(*links)
    peer = links[1].peer_of(relay)
    if everything:
        links[1].inject(relay, WANT, Want(1, 32, False))
    links[1].drops = lambda _sender, kind, message: None if kind == DATA else message
    relay.replicator.downloads.fail(peer, VerifyError("a wrong block"))
    got: list[Any] = []
    for index in (0, 3, 1900):
        reader.replicator.want_block(index, done=got.append)
    run(*links)
    for index in (0, 3, 1900):
        relay.replicator.want_block(index)
    run(*links)
    assert peer.paused is not None
    assert got == []
    links[1].drops = None
    links[1].inject(relay, DATA, sent(links[1], reader, DATA)[0])
    run(*links)
    assert peer.paused is None
    assert sorted(got) == [b"block 0", b"block 1900", b"block 3"]
