"""Whatever happens to several peers of one log, in the end they are equal."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from covey.errors import CoveyError
from covey.feed import flat_tree
from covey.feed.replication_choices import REQUEST_TIMEOUT, SWAP_AFTER
from covey.feed.replication_download import MAX_UPGRADE_REST
from covey.feed.replication_events import InvalidData, InvalidRequest
from covey.feed.replication_tickets import Ticket
from tests.feed.replication_links import Link, Side, pass_time, run

MOST = 20_000
"""Turns until everything is at rest, many more than it takes."""


def assert_provable(side: Side) -> None:
    """Every block that is held can be proven, and every one that will be fetched.

    Paths are asked for up to a node that is here, so that needs its own way to a root.
    """
    nodes, roots = side.records.nodes, {root.index for root in side.log.roots}
    assert roots <= nodes.keys()
    assert nodes.keys() >= {2 * index for index in side.records.blocks}
    for index in nodes.keys() - roots:
        assert flat_tree.sibling(index) in nodes
        assert flat_tree.parent(index) in nodes


class Scene:
    """A writer, some readers, links that come and go, and random things that happen."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.writer = Side(writer=True, seed=seed)
        readers = self.random.randint(1, 3)
        self.readers = [Side(seed=seed * 10 + number) for number in range(readers)]
        self.links: list[Link] = []
        self.count = 0
        self.wildness = self.random.choice((0.0, 0.3, 1.0))
        self.sparse = self.random.random() < 0.4
        """Readers hold little, and tell each other where bytes are."""
        self.answers: list[Any] = []
        self.tickets: list[Ticket] = []
        if self.random.random() < 0.7:
            self.append()
        for reader in self.readers:
            if not self.sparse and self.random.random() < 0.5:
                reader.replicator.want_range(0, None, linear=self.random.random() < 0.3)

    @property
    def sides(self) -> list[Side]:
        """All of them."""
        return [self.writer, *self.readers]

    def append(self) -> None:
        """New blocks, some empty."""
        count = self.random.choice((1, 1, 2, 3, 9, 40))
        blocks = []
        for _ in range(count):
            self.count += 1
            blocks.append(b"%d" % self.count * self.random.randint(0, 4))
        self.writer.log.append(blocks)

    def truncate(self) -> None:
        """A new fork."""
        self.writer.log.truncate(self.random.randint(0, self.writer.log.length))

    def clear(self) -> None:
        """A reader lets go of some blocks."""
        log = self.random.choice(self.readers).log
        if log.length:
            start = self.random.randrange(log.length)
            log.clear(start, self.random.randint(start, log.length))

    def get(self) -> None:
        """A reader waits for a block, perhaps one that does not exist yet."""
        reader = self.random.choice(self.readers)
        index = self.random.randrange(max(self.writer.log.length, 1) + 2)
        self.keep(
            reader.replicator.want_block(
                index, priority=self.random.randrange(3), done=self.answers.append
            )
        )

    def download(self) -> None:
        """A reader wants some blocks in a row, or all from one on."""
        reader = self.random.choice(self.readers)
        start = self.random.randrange(max(self.writer.log.length, 1) + 2)
        end = self.random.choice((None, start + self.random.randrange(20)))
        linear = self.random.random() < 0.5
        self.keep(reader.replicator.want_range(start, end, linear=linear, done=self.answers.append))

    def keep(self, ticket: Ticket) -> None:
        """Somebody may lose interest later, or at once."""
        if self.random.random() < 0.1:
            ticket.cancel()
        else:
            self.tickets.append(ticket)

    def give_up(self) -> None:
        """Somebody has no use any more for what was asked, whether it came or is under way."""
        if self.tickets:
            self.tickets.pop(self.random.randrange(len(self.tickets))).cancel()

    def change_mind(self) -> None:
        """A reader has no use any more for what is on its way."""
        if self.random.random() < 0.5:
            # It comes with the head.
            self.append()
            self.deliver()
            replicator = self.random.choice(self.readers).replicator
            self.keep(replicator.want_block(self.writer.log.length - 1))
        else:
            self.random.choice((self.get, self.download))()
        for side in self.sides:
            side.work()
        if self.tickets:
            self.tickets.pop().cancel()

    def seek(self) -> None:
        """A reader looks for an offset."""
        reader = self.random.choice(self.readers)
        offset = self.random.randrange(self.writer.log.byte_length + 3)
        self.keep(reader.replicator.want_seek(offset, done=self.answers.append))

    def meet(self) -> None:
        """Two readers are among themselves for a while."""
        if len(self.readers) < 2:
            return
        first, second = self.random.sample(self.readers, 2)
        link = Link(first, second)
        run(link, most=MOST)
        for _ in range(3):
            offset = self.random.randrange(second.log.byte_length + 1)
            self.keep(second.replicator.want_seek(offset, done=self.answers.append))
        run(link, most=MOST)
        link.cut()

    def update(self) -> None:
        """A reader asks for news."""
        replicator = self.random.choice(self.readers).replicator
        self.keep(replicator.want_update(done=self.answers.append))

    def connect(self) -> None:
        """Any two of them."""
        first, second = self.random.sample(self.sides, 2)
        self.links = [link for link in self.links if link.open]
        if any({end.side for end in link.ends} == {first, second} for link in self.links):
            return
        self.links.append(Link(first, second, seeks=self.random.random() < 0.7))

    def disconnect(self) -> None:
        """A connection breaks."""
        if self.links:
            self.links.pop(self.random.randrange(len(self.links))).cut()

    def deliver(self) -> None:
        """Some messages arrive, some blocks are stored."""
        for _ in range(self.random.choice((1, 5, 30))):
            for link in self.links:
                if self.random.random() < 0.7:
                    link.step()
            for side in self.sides:
                if self.random.random() < 0.3:
                    side.work()

    def clog(self) -> None:
        """A channel is full, or takes messages again."""
        if self.links:
            link = self.random.choice(self.links)
            end = self.random.choice(link.ends)
            other = link.ends[0] if end is link.ends[1] else link.ends[1]
            if end.full:
                link.drain(other.side)
            else:
                end.full = True

    def break_disk(self) -> None:
        """The disk of a reader is full for a while."""
        reader = self.random.choice(self.readers)
        reader.records.failing = True
        self.deliver()
        reader.records.failing = False
        reader.replicator.resume(reader.now)

    def write(self) -> None:
        """A reader writes in a thread, perhaps in vain, and hears of it when it looks.

        What came so late that others were asked for it too has it tell them.
        """
        reader = self.random.choice(self.readers)
        reader.work()
        for link in self.links * 10:
            link.step()
        for side in self.sides:
            side.now += 2 * SWAP_AFTER
        reader.replicator.next_timer()
        reader.replicator.handle_timer(reader.now)
        reader.records.failing = self.random.random() < 0.5
        reader.write_beside(hold_back=self.random.random() < 0.5)
        reader.records.failing = False
        self.deliver()
        reader.end_writing()
        reader.replicator.resume(reader.now)

    def wait(self) -> None:
        """Time passes, and everything arrives that is under way."""
        self.links = [link for link in self.links if link.open]
        if self.links:
            pass_time(self.random.choice((0.0, 0.5, 1.5, 5.0, 31.0)), *self.links)
            now = max(side.now for side in self.sides)
            for side in self.sides:
                side.now = now

    def step(self) -> None:
        """Something."""
        doings = [self.append, self.get, self.connect, self.seek, self.update, self.clog]
        doings += [self.deliver] * 6 + [self.connect]
        doings += [self.download, self.give_up, self.wait] + [self.change_mind] * 3
        doings += [self.write] * 2
        if self.sparse:
            doings = [self.append, self.truncate, self.get, self.clear, self.connect, self.wait]
            doings += [self.meet] * 4
        elif self.random.random() < self.wildness:
            doings += [self.truncate, self.clear, self.disconnect, self.break_disk]
        self.random.choice(doings)()
        for side in self.sides:
            assert_provable(side)

    def finish(self) -> None:
        """Everybody follows everything, over new links or those that there are."""
        for ticket in self.tickets if self.random.random() < 0.5 else []:
            ticket.cancel()
        for reader in self.readers:
            reader.replicator.want_range(0, None)
        # An empty log has nothing that could be proven: readers keep what they have of it.
        if self.random.random() < 0.5:
            self.append()
            self.finish_on_live_links()
        else:
            self.finish_on_new_links()

    def finish_on_live_links(self) -> None:
        """What went wrong on a link would hold it up still."""
        self.links = [link for link in self.links if link.open]
        for link in self.links:
            for end, other in (link.ends, link.ends[::-1]):
                if end.full:
                    link.drain(other.side)
        for reader in self.readers:
            if not any(
                {end.side for end in link.ends} == {self.writer, reader} for link in self.links
            ):
                self.links.append(Link(self.writer, reader))
        run(*self.links, most=MOST)
        # Who did not answer in time, since its channel was full, rests so long.
        pass_time(MAX_UPGRADE_REST + REQUEST_TIMEOUT, *self.links)

    def finish_on_new_links(self) -> None:
        """With the writer, or along a chain."""
        for link in self.links:
            link.cut()
        self.append()
        chain = self.random.random() < 0.5
        before = self.writer
        self.links = []
        for reader in self.readers:
            self.links.append(Link(before, reader))
            before = reader if chain else self.writer
        run(*self.links, most=MOST)

    def check(self) -> None:
        """Same head, same blocks, and nobody was ever blamed."""
        for side in self.sides:
            assert_provable(side)
            assert side.told(InvalidData) == []
            assert side.told(InvalidRequest) == []
            for peer in side.links:
                assert (peer.failures, peer.paused, peer.unasked) == (0, None, 0)
        for reader in self.readers:
            assert reader.log.fork == self.writer.log.fork
            assert reader.log.length == self.writer.log.length
            assert reader.log.tree_hash == self.writer.log.tree_hash
            assert reader.blocks == self.writer.blocks
            assert not any(isinstance(event, CoveyError) for event in self.answers)
        for link in self.links:
            assert link.errors == []
            for end in link.ends:
                assert end.peer is not None
                assert end.peer.invalid_requests == 0
                assert end.peer.in_flight == 0


@pytest.mark.parametrize("seed", range(500))
def test_peers_of_one_log_end_equal(seed: int) -> None:
    scene = Scene(seed)
    for _ in range(scene.random.choice((5, 20, 60, 200))):
        scene.step()
    scene.finish()
    scene.check()
    pass_time(100.0, *scene.links)
    scene.check()
