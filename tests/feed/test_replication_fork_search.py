"""Peers that take a fork search nowhere: it ends all the same, and nobody honest is blamed."""

from __future__ import annotations

from typing import Any

import pytest

from covey.feed import flat_tree
from covey.feed.log_events import LogEvent, Truncated
from covey.feed.manifest import Manifest, Prologue, Signer
from covey.feed.messages import BlockRequest, Data, NoData, Request, Sync, UpgradeData
from covey.feed.proof import build
from covey.feed.replication_choices import REQUEST_TIMEOUT
from covey.feed.replication_events import InvalidData
from covey.feed.replication_peer import DATA, NO_DATA, REQUEST, SYNC
from covey.feed.tree import Batch
from tests.feed.replication_links import PAIR, Link, Side, pass_time, run
from tests.feed.test_replication_forks import follower, other
from tests.feed.test_replicator import assert_same, numbered, sent


def forked(shared: int = 5) -> tuple[Side, Side, Side]:
    """A writer that rewrote 16 blocks, one who has that fork too, and a reader of the old one."""
    writer, reader, copy = Side.of(*numbered(16)), follower(), follower()
    links = Link(writer, reader), Link(writer, copy)
    run(*links)
    links[0].cut()
    writer.log.truncate(shared)
    writer.log.append(other(16 - shared))
    run(links[1])
    links[1].cut()
    return writer, copy, reader


def no_hashes(answer: bool) -> Any:
    """Hash requests are refused, by `noData` or by an answer without the hash."""

    def change(_sender: Side, kind: int, message: Any) -> Any:
        if kind != DATA or message.hash is None:
            return message
        return Data(message.request, message.fork) if answer else NoData(message.request, 1)

    return change


@pytest.mark.parametrize("answer", [True, False])
def test_who_refuses_a_hash_does_not_hold_the_search_while_others_know_it(answer: bool) -> None:
    writer, copy, reader = forked()
    links = Link(writer, reader), Link(copy, reader)
    links[0].drops = no_hashes(answer)
    heard: list[LogEvent] = []
    reader.log.on_change.append(heard.append)
    run(*links)
    assert_same(reader, writer)
    assert heard[0] == Truncated(5, 1, 16), "the other told the rest: nothing shared was dropped"
    assert len([m for m in sent(links[0], reader, REQUEST) if m.hash]) == 1
    assert links[0].peer_of(reader).paused is None


@pytest.mark.parametrize("answer", [True, False])
def test_hashes_that_everybody_refuses_end_the_search_with_what_is_known(answer: bool) -> None:
    writer, copy, reader = forked()
    links = Link(writer, reader), Link(copy, reader)
    for link in links:
        link.drops = no_hashes(answer)
    run(*links)
    assert_same(reader, writer)
    for link in links:
        assert len([m for m in sent(link, reader, REQUEST) if m.hash]) == 1


def test_who_proves_a_fork_and_is_silent_then_does_not_hold_it_for_ever() -> None:
    writer, _, reader = forked()
    link = Link(writer, reader)
    link.drops = lambda _sender, kind, message: (
        None if kind == DATA and message.hash is not None else message
    )
    pass_time(2 * REQUEST_TIMEOUT, link)
    assert reader.log.fork == 0, "it is asked once more"
    pass_time(2 * REQUEST_TIMEOUT, link)
    assert_same(reader, writer)


def test_a_fork_whose_head_is_refused_is_asked_for_again_after_a_rest() -> None:
    writer, _, reader = forked()
    link = Link(writer, reader)
    link.drops = lambda _sender, kind, message: (
        NoData(message.request, 1) if kind == DATA and message.upgrade is not None else message
    )
    run(link)
    assert len(sent(link, reader, REQUEST)) == 1, "not again at once"
    link.drops = None
    pass_time(REQUEST_TIMEOUT, link)
    assert_same(reader, writer)


class Recorded:
    """A peer with an old history, signed at each length, of which it gives one block at a time."""

    def __init__(self, reader: Side, count: int) -> None:
        self._heads: dict[int, tuple[bytes | None, dict[int, Any]]] = {}
        self._old = Side(writer=True)
        self._asked: list[tuple[int, Any]] = []
        for length in range(1, count + 1):
            self._old.log.append([b"block %d" % (length - 1)])
            self._heads[length] = self._old.log.signature, dict(self._old.records.nodes)
        self.peer = reader.replicator.add_peer(self._send, now=0.0)
        self._say(1, 0)

    def _send(self, kind: int, message: Any) -> bool:
        self._asked.append((kind, message))
        return True

    def _say(self, length: int, heard: int) -> None:
        sync = Sync(0, length, heard, True, True, True, True, False)
        self.peer.receive(SYNC, sync, 0.0)

    def answer(self) -> bool:
        """Give the next head, and say at once that there is one more; whether it was asked."""
        asked, self._asked = self._asked, []
        upgrades = [m for kind, m in asked if kind == REQUEST and m.upgrade and m.fork == 0]
        for request in upgrades:
            length = request.upgrade.start + request.upgrade.length
            signature, nodes = self._heads[length]
            data = build(
                request,
                length=length,
                fork=0,
                get_node=nodes.get,
                get_block=lambda _: None,
                signature=signature,
                manifest=self._old.log.manifest,
            )
            self.peer.receive(DATA, data, 0.0)
            self._say(length + 1, length)
        return bool(upgrades)


def test_upgrades_of_the_old_fork_do_not_hold_up_the_new_one() -> None:
    writer, reader = Side.of(*numbered(120)), follower()
    writer.log.truncate(3)
    writer.log.append(other(20))
    recorded = Recorded(reader, 120)
    link = Link(writer, reader)
    lengths = []
    while reader.log.fork == 0:
        assert recorded.answer(), "there is always one more"
        reader.work()
        lengths.append(reader.log.length)
        for _ in range(2):
            link.step()
            writer.work()
    assert max(lengths) < 50
    run(link)
    assert_same(reader, writer)
    peer = link.peer_of(reader)
    assert (peer.paused, peer.backoffs) == (None, 0)


def test_answers_to_a_search_that_is_over_do_not_count() -> None:
    writer, _, reader = forked()
    link = Link(writer, reader)
    link.step()
    peer = link.peer_of(reader)
    searches = reader.replicator.downloads.forks.searches
    first = searches[1]
    assert first.asked is not None
    reader.replicator.downloads.forks.restart()
    number = first.asked.request.id
    link.inject(reader, NO_DATA, NoData(number, 1))
    assert (peer.backoffs, peer.upgrade_rest) == (0, 0.0)
    run(link)
    assert_same(reader, writer)


def test_good_answers_about_a_fork_pay_back() -> None:
    writer, _, reader = forked()
    link = Link(writer, reader)
    peer = link.peer_of(reader)
    peer.backoffs = 20
    while reader.log.fork == 0:
        assert link.step()
    assert peer.backoffs == 0


def with_prologue() -> tuple[Side, Side]:
    """A writer and a reader of a log whose first two blocks its key names."""
    first = Batch()
    for block in numbered(2):
        first.append(block)
    prologue = Prologue(first.tree_hash(), 2)
    manifest = Manifest(signers=(Signer(PAIR.public_key),), prologue=prologue)
    writer, reader = Side.of(*numbered(2), manifest=manifest), follower(manifest=manifest)
    writer.log.append([b"signed"])
    return writer, reader


def keep(kept: list[Any], message: Any) -> bool:
    """A channel that only takes."""
    kept.append(message)
    return True


def prologue_alone(writer: Side, request: Request) -> Data:
    """A head that needs no signature, on whatever fork."""
    nodes = [writer.records.nodes[index] for index in flat_tree.full_roots(2)]
    return Data(request.id, request.fork, upgrade=UpgradeData(0, 2, nodes, [], None))


def test_a_fork_that_is_made_up_of_a_prologue_is_blamed_on_its_peer() -> None:
    writer, reader = with_prologue()
    run(Link(writer, reader))
    asked: list[Any] = []
    peer = reader.replicator.add_peer(lambda *message: keep(asked, message), now=0.0)
    peer.receive(SYNC, Sync(7, 2, 0, True, True, True, True, False), 0.0)
    assert not [m for kind, m in asked if kind == REQUEST], "nobody can have signed that"
    peer.receive(SYNC, Sync(7, 5, 0, True, True, True, True, False), 0.0)
    request = next(m for kind, m in asked if kind == REQUEST and m.fork == 7)
    peer.receive(DATA, prologue_alone(writer, request), 0.0)
    assert peer.failures == 1
    assert reader.told(InvalidData)
    assert (reader.log.fork, reader.log.length) == (0, 3)


def test_a_writer_that_cut_its_log_to_the_prologue_is_not_blamed() -> None:
    writer, reader = with_prologue()
    _, knowing = with_prologue()
    links = [Link(writer, knowing)]
    run(*links)
    writer.log.truncate(2)
    links.append(Link(writer, reader))
    run(*links)
    for side in (reader, knowing):
        assert side.told(InvalidData) == []
        assert side.log.fork == 0
    writer.log.append(other(3))
    run(*links)
    assert_same(knowing, writer)
    pass_time(REQUEST_TIMEOUT, *links)
    assert_same(reader, writer)


def test_a_manifest_alone_comes_on_the_fork_that_was_asked_for() -> None:
    writer, reader = Side.of(*numbered(4)), Side()
    link = Link(writer, reader)
    writer.log.truncate(0)
    request = Request(1, 0, block=BlockRequest(0, 0), manifest=True)
    link.inject(writer, REQUEST, request)
    assert sent(link, writer, DATA) == [Data(1, 0, manifest=writer.log.manifest)]
