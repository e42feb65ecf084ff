"""What the owner of a log may ask its replication for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from covey.errors import CoveyError
from covey.feed.replication_download import Downloads
from covey.feed.replication_tickets import (
    BlockTicket,
    RangeTicket,
    SeekTicket,
    Ticket,
    UpdateTicket,
)
from covey.feed.replication_updates import Updates

if TYPE_CHECKING:
    from covey.feed.log import Log


def _ignore(_result: object) -> None:
    """Nobody waits for it."""


class Orders:
    """The part of a replicator that takes orders and answers them."""

    log: Log
    downloads: Downloads
    updates: Updates

    @abstractmethod
    def stir(self) -> None:
        """Have every peer asked for what it can give."""

    @abstractmethod
    def check_open(self) -> None:
        """`ClosedError` when the replicator is closed."""

    def want_block(
        self, index: int, *, priority: int = 1, done: Callable[[Any], None] = _ignore
    ) -> Ticket:
        """One block; `done` gets its stored bytes once it is stored, at once when it is.

        `priority` 0 to 2: 1 goes before ranges, 2 before all others.
        """
        self.check_open()
        ticket = BlockTicket(index, priority, done, self._drop_block)
        if self.log.has(index):
            ticket.finish(self.log.block(index))
            return ticket
        self.downloads.pool.add(ticket)
        self.stir()
        return ticket

    def want_range(
        self,
        start: int = 0,
        end: int | None = None,
        *,
        linear: bool = False,
        done: Callable[[Any], None] = _ignore,
        progress: Callable[[int, int], None] | None = None,
    ) -> RangeTicket:
        """All blocks from `start` to before `end`; without an end the log is followed for ever.

        They come in any order, each reader's own, unless `linear`. `done` gets their number;
        `progress` how many are held and how many there are, after every commit that brought some.
        """
        self.check_open()
        ticket = RangeTicket(
            start, end, linear=linear, done=done, progress=progress, drop=self._drop_range
        )
        self.settle_range(ticket)
        if ticket.open:
            self.downloads.pool.add_range(ticket)
            self.stir()
        return ticket

    def want_seek(
        self, offset: int, *, padding: int = 0, done: Callable[[Any], None] = _ignore
    ) -> Ticket:
        """Where byte `offset` of the log is; `done` gets the block and the offset in it.

        `padding` bytes of each block do not count. Past the end it waits until there is one.
        """
        self.check_open()
        ticket = SeekTicket(offset, padding, done, self._drop_seek)
        self.downloads.seeks.add(ticket)
        self.stir()
        return ticket

    def want_update(self, *, wait: bool = False, done: Callable[[Any], None] = _ignore) -> Ticket:
        """A longer head, or a higher fork; `done` gets whether one came.

        False is the answer when the first three peers have none, or there is no peer; with `wait`
        there must have been one.
        """
        self.check_open()
        ticket = UpdateTicket(wait, done, self._drop_update)
        self.updates.add(ticket)
        self.stir()
        return ticket

    def settle_range(self, ticket: RangeTicket) -> None:
        """For the replicator: see what is still missing of a range."""
        bits = self.log.bitfield
        low = bits.first_unset(ticket.low)
        while low in ticket.had:
            low = bits.first_unset(ticket.had.first_missing(low))
        self.downloads.pool.move_low(ticket, low)
        start, end = ticket.start, ticket.end
        if end is not None and ticket.low >= end:
            self.downloads.pool.drop_range(ticket)
            ticket.finish(max(end - start, 0))
        elif ticket.progress is not None:
            last = self.log.length if end is None else end
            ticket.progress(bits.count(start, last), max(last - start, 0))

    def end_tickets(self, error: CoveyError) -> None:
        """For the replicator: nothing comes any more."""
        downloads = self.downloads
        singles = [ticket for work in downloads.pool.works.values() for ticket in work.tickets]
        open_ = [*singles, *downloads.pool.ranges, *downloads.seeks, *self.updates.tickets]
        downloads.pool.works.clear()
        for ticket in open_:
            ticket.cancel_with(error)

    def _drop_block(self, ticket: BlockTicket) -> None:
        self.downloads.pool.drop(ticket)
        self.stir()

    def _drop_range(self, ticket: RangeTicket) -> None:
        self.downloads.pool.drop_range(ticket)
        self.stir()

    def _drop_seek(self, ticket: SeekTicket) -> None:
        self.downloads.seeks.drop(ticket)
        self.stir()

    def _drop_update(self, ticket: UpdateTicket) -> None:
        self.updates.drop(ticket)
        self.stir()
