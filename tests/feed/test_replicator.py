"""Two and three replicators joined by encoding pipes: what flows, in which order, and when it ends.

The order of messages is that of the recorded transcripts (`replication-transcript.json`).
"""

from __future__ import annotations

from typing import Any

from covey.feed.replication_peer import DATA, RANGE, REQUEST, SYNC, WANT
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
