"""Byte offsets looked for in a tree of which only a part is here (`hypercore.md` section 10.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from covey.errors import StoreError
from covey.feed import flat_tree
from covey.feed.messages import BlockRequest, Request, SeekRequest
from covey.feed.replication_blocks import BlockPool
from covey.feed.replication_peer import ReplicationPeer
from covey.feed.replication_tickets import BlockTicket, SeekTicket
from covey.feed.tree import seek, seek_span

if TYPE_CHECKING:
    from covey.feed.log import Log


class SeekQuestion(NamedTuple):
    """A hash to ask for, and the seek to go along where the peer understands seeks."""

    ticket: SeekTicket
    hash: BlockRequest
    seek: SeekRequest | None


class Seeks:
    """Offsets that wait: for a hash that narrows them, for a block, or for a longer log."""

    def __init__(self, log: Log, pool: BlockPool, below: Callable[[int], int]) -> None:
        self._log = log
        self._pool = pool
        self._below = below
        self._ready: dict[SeekTicket, None] = {}
        self._additions = 0
        self._resting: dict[SeekTicket, BlockTicket | None] = {}
        """Asked for, past the end of the log, or waiting for a block of ours."""

    def __len__(self) -> int:
        return len(self._ready) + len(self._resting)

    def __iter__(self) -> Iterator[SeekTicket]:
        return iter([*self._ready, *self._resting])

    @property
    def ready(self) -> bool:
        """Whether one waits to be asked for."""
        return bool(self._ready)

    def add(self, ticket: SeekTicket) -> None:
        """Look for an offset; answered at once where the nodes for it are here."""
        if not self._settle(ticket):
            self._make_ready(ticket)

    def drop(self, ticket: SeekTicket) -> None:
        """It is not looked for any more."""
        self._ready.pop(ticket, None)
        block = self._resting.pop(ticket, None)
        if block is not None:
            block.cancel()

    def look_again(self) -> None:
        """Nodes or blocks came: answer what can be answered, and go on with the rest."""
        for ticket, block in list(self._resting.items()):
            if block is None and not ticket.asked:
                del self._resting[ticket]
                self._make_ready(ticket)
        for ticket in list(self._ready):
            if self._settle(ticket):
                self._ready.pop(ticket, None)

    def next(self, peer: ReplicationPeer) -> SeekQuestion | None:
        """What to ask this peer for; None: nothing, until something else can be asked of it."""
        if peer.seeks_looked_at == self._additions:
            return None
        for ticket in list(self._ready):
            del self._ready[ticket]
            if self._settle(ticket):
                continue
            question = self._question(ticket, peer)
            if question is not None:
                ticket.asked += 1
                self._resting[ticket] = None
                return question
            if ticket.open and ticket not in self._resting:
                self._ready[ticket] = None
        peer.seeks_looked_at = self._additions
        return None

    def returned(self, ticket: SeekTicket) -> None:
        """The request for a ticket is over, answered or not."""
        ticket.asked -= 1
        if ticket.open and self._resting.pop(ticket, None) is None:
            self.add(ticket)

    def refused(self, ticket: SeekTicket, peer: ReplicationPeer, request: Request) -> None:
        """The peer does not answer this: it is not asked the same once more."""
        if request.fork != peer.remote.fork:
            return
        if request.seek is not None:
            ticket.by_hash = True
        elif request.hash is not None:
            peer.claims.refute(request.hash.index >> 1)

    def _make_ready(self, ticket: SeekTicket) -> None:
        """It is to be asked for, of whoever can be asked."""
        self._ready[ticket] = None
        self._additions += 1

    def _settle(self, ticket: SeekTicket) -> bool:
        """Answer when it can be answered; whether the ticket is over."""
        log = self._log
        found = seek(ticket.offset, log.roots, log.known_node, padding=ticket.padding)
        # The end of the log is no block yet: the offset is in the one that comes next.
        if found is not None and found[0] < log.length:
            ticket.finish(found)
        return not ticket.open

    def _question(self, ticket: SeekTicket, peer: ReplicationPeer) -> SeekQuestion | None:
        log = self._log
        span = seek_span(ticket.offset, log.roots, log.known_node, padding=ticket.padding)
        if span is None or span[0] >= log.length:
            self._resting[ticket] = None
            return None
        start, end = span
        if end - start <= 2:
            # Of a pair of received leaves only the sum of their sizes is proven.
            if log.has(start):
                ticket.finish(StoreError(f"the size of block {start}, which is here, is not known"))
            else:
                self._wait_for_block(ticket, start)
            return None
        stop = min(end, peer.askable_end)
        if start >= stop:
            return None
        place = start + self._below(stop - start)
        block = peer.claims.first_in(place, stop)
        if block is None:
            block = peer.claims.first_in(start, place)
        if block is None:
            self._pool.want_near(peer, start)
            return None
        # The span may be known by the sizes around it alone: the path leads to a node that is here.
        top = start + end - 1
        while not log.has_node(top):
            top = flat_tree.parent(top)
        part = None
        if peer.seeks and not ticket.by_hash:
            part = SeekRequest(ticket.offset, ticket.padding)
        return SeekQuestion(ticket, BlockRequest(2 * block, flat_tree.depth(top)), part)

    def _wait_for_block(self, ticket: SeekTicket, index: int) -> None:
        """One of two blocks has it: the first of them tells by its size."""

        def done(_result: object) -> None:
            if self._resting.pop(ticket, None) is not None:
                self._make_ready(ticket)

        def drop(block: BlockTicket) -> None:
            self._pool.drop(block)

        block = BlockTicket(index, 1, done, drop)
        self._resting[ticket] = block
        self._pool.add(block)
