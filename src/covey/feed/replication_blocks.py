"""The blocks that are wanted: single ones, ranges, and which of them each peer is asked for next.

No step takes time by the number of blocks, tickets or peers: each peer has its own list of single
blocks to look at and its own place in each range, and is sent back to the start only when
something became available that was not before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from functools import partial
from heapq import heappop, heappush
from itertools import islice
from typing import TYPE_CHECKING

from covey.feed.availability import Availability
from covey.feed.bitfield import BitPages
from covey.feed.intervals import Intervals
from covey.feed.replication_choices import MAX_ASKED, SWAP_AFTER, wanted_batches
from covey.feed.replication_peer import UNWANT, WANT, ReplicationPeer
from covey.feed.replication_requests import Outstanding
from covey.feed.replication_tickets import BlockTicket, RangeTicket
from covey.feed.replication_wants import MAX_WANTS, WANT_BATCH

if TYPE_CHECKING:
    from covey.feed.log import Log

RANGES_PER_TURN = 64
"""Ranges looked through for one peer before others have their turn (section 14)."""
WANTS_PER_TURN = 3
"""Batches that one look through a range asks about; more when their answers are used up."""
SPARE_CANDIDATES = 64
"""Entries in the lists of a peer above twice the blocks wanted: then stale ones are thrown out."""
SWAPS_LOOKED_AT = 64
"""Blocks under way that one idle peer is compared with at a time."""


class BlockWork:
    """A single block that somebody waits for. `queued`: no peer is asked for it yet."""

    __slots__ = ("index", "priority", "queued", "tickets", "upcoming")

    def __init__(self, index: int) -> None:
        self.index = index
        self.priority = 0
        self.tickets: list[BlockTicket] = []
        self.queued = True
        self.upcoming = False


class BlockPool:
    """Blocks wanted, asked for, and arrived but not stored yet."""

    def __init__(
        self, log: Log, peers: Collection[ReplicationPeer], below: Callable[[int], int]
    ) -> None:
        """`below(n)` gives a random number from 0 to before n."""
        self._log = log
        self._peers = peers
        self._below = below
        self._taken: BitPages | None = None
        self._upcoming: list[int] = []
        self.works: dict[int, BlockWork] = {}
        self.ranges: dict[RangeTicket, None] = {}
        self.reporting: dict[RangeTicket, None] = {}
        """Ranges whose progress is told."""
        self._lows: dict[int, dict[RangeTicket, None]] = {}
        """Ranges by the first block that they miss."""
        self.following = 0
        """Ranges without an end."""
        self.asked: dict[int, list[Outstanding]] = {}
        """Who is asked for a block, by block; those asked for longest first."""
        self.arrived: dict[int, tuple[ReplicationPeer, bytes]] = {}
        """Verified and staged, not stored yet."""
        self.awaited: set[int] = set()
        """Those of `arrived` that somebody waits for."""

    def add(self, ticket: BlockTicket) -> None:
        """A single block is wanted; the caller looks after those that are here."""
        index = ticket.index
        work = self.works.get(index)
        if work is None:
            work = self.works[index] = BlockWork(index)
            work.queued = index not in self.asked and index not in self.arrived
            if work.queued:
                self._offer(index, ticket.priority)
        if index in self.arrived:
            self.awaited.add(index)
        work.tickets.append(ticket)
        work.priority = max(work.priority, ticket.priority)

    def drop(self, ticket: BlockTicket) -> None:
        """Nobody waits on this ticket any more: what was asked for it alone is cancelled."""
        work = self.works.get(ticket.index)
        if work is None or ticket not in work.tickets:
            return
        work.tickets.remove(ticket)
        if work.tickets:
            return
        del self.works[ticket.index]
        self.awaited.discard(ticket.index)
        if not self.wants(ticket.index):
            self.cancel(ticket.index)

    def add_range(self, ticket: RangeTicket) -> None:
        """A range of blocks is wanted."""
        self.ranges[ticket] = None
        self._lows.setdefault(ticket.low, {})[ticket] = None
        if ticket.progress is not None:
            self.reporting[ticket] = None
        self.following += ticket.end is None
        for peer in self._peers:
            if peer.ranges is not None:
                peer.ranges[ticket] = None

    def drop_range(self, ticket: RangeTicket) -> None:
        """It is no longer, or it is here."""
        if ticket in self.ranges:
            del self.ranges[ticket]
            self.reporting.pop(ticket, None)
            self._leave_low(ticket)
            self.following -= ticket.end is None
            for peer in self._peers:
                peer.cursors.pop(ticket, None)
                if peer.ranges is not None:
                    peer.ranges.pop(ticket, None)

    def move_low(self, ticket: RangeTicket, low: int) -> None:
        """Another block is the first one missing of a range."""
        if ticket in self.ranges and low != ticket.low:
            self._leave_low(ticket)
            self._lows.setdefault(low, {})[ticket] = None
        ticket.low = low
        ticket.had.remove(0, low)

    def ranges_touched(self, blocks: list[int]) -> list[RangeTicket]:
        """The ranges to look at when these blocks are stored."""
        if not self.ranges:
            return []
        touched = dict(self.reporting)
        lows = self._lows
        for index in blocks:
            if index in lows:
                touched.update(lows[index])
        return list(touched)

    def next_single(self, peer: ReplicationPeer) -> BlockWork | None:
        """A single block to ask this peer for, taken off the queue; None: nothing."""
        candidates = peer.candidates
        while candidates:
            index = candidates.popleft()
            work = self.works.get(index)
            if work is None or not work.queued:
                continue
            if index >= self._log.length:
                self._put_off(work)
            elif index < peer.askable_end and index in peer.claims:
                work.queued = False
                return work
            else:
                self._set_aside(index, peer)
        return None

    def next_in_ranges(self, peer: ReplicationPeer) -> int | None:
        """A block of a range to ask this peer for; None: nothing in the ranges of one turn."""
        ranges = peer.ranges
        if ranges is None:
            ranges = peer.ranges = OrderedDict(self.ranges)
        for _ in range(RANGES_PER_TURN):
            if not ranges:
                return None
            ticket = next(iter(ranges))
            index = self._next_in(ticket, peer)
            if index is not None:
                return index
            del ranges[ticket]
        return None

    def upcoming(self, peer: ReplicationPeer) -> int | None:
        """A single block past our head that this peer has: to be asked for with the upgrade."""
        heap = self._upcoming
        while heap:
            index = heap[0]
            work = self.works.get(index)
            if work is not None and work.queued and work.upcoming:
                break
            heappop(heap)
            if work is not None:
                work.upcoming = False
        if not heap or not self._log.length <= heap[0] < peer.remote.length:
            return None
        return heap[0] if heap[0] in peer.claims else None

    def note_asked(self, index: int, outstanding: Outstanding) -> None:
        """A peer was asked for a block."""
        askers = self.asked.get(index)
        if askers is not None:
            askers.append(outstanding)
            return
        self.asked[index] = [outstanding]
        work = self.works.get(index)
        if work is not None:
            work.queued = False
        if self._taken is not None:
            self._taken.set(index, True)

    def returned(self, outstandings: Iterable[Outstanding]) -> bool:
        """Blocks that are not coming by these requests; whether others are to be asked for some."""
        missing = False
        for outstanding in outstandings:
            part = outstanding.request.block
            if part is None or not self._remove_asker(part.index, outstanding):
                continue
            missing = self._set_free(part.index) or missing
        if missing:
            self.look_again()
        return missing

    def came(self, peer: ReplicationPeer, index: int, value: bytes) -> None:
        """A block is verified and about to be staged; then `cancel` takes it back from others."""
        peer.blocks_down += 1
        peer.bytes_down += len(value)
        self.arrived[index] = peer, value
        if index in self.works:
            self.awaited.add(index)

    def lost(self, indices: Iterable[int]) -> None:
        """Blocks that had arrived could not be stored: they are wanted again."""
        missing = False
        for index in indices:
            self.awaited.discard(index)
            if self.arrived.pop(index, None) is not None:
                self._take_back(index)
                missing = self._set_free(index) or missing
        if missing:
            self.look_again()

    def held(self, start: int, end: int) -> None:
        """Blocks of this range that the log holds now are not asked for."""
        if self._taken is not None:
            for low, high in self._log.bitfield.ranges(start, end):
                self._taken.set_range(low, high, True)

    def gone(self, start: int, end: int) -> None:
        """Blocks are no longer part of the log; others will be in their places."""
        self._taken = None
        for ticket in self.ranges:
            ticket.had.remove(start, end)
            if start < (ticket.end or end):
                self.move_low(ticket, min(ticket.low, max(ticket.start, start)))
        self.look_again()

    def let_go(self, held: Iterable[tuple[int, int]]) -> None:
        """Blocks are not held any more, as it was wanted here: only who asks now fetches them."""
        for start, end in held:
            if self._taken is not None:
                self._taken.set_range(start, end, False)
            for ticket in self.ranges:
                last = end if ticket.end is None else min(end, ticket.end)
                ticket.had.add(max(start, ticket.low), last)

    def wants(self, index: int) -> bool:
        """Whether anybody waits for this block, if it is not here."""
        return index in self.works or any(ticket.covers(index) for ticket in self.ranges)

    def look_again(self) -> None:
        """Every peer looks through the ranges anew."""
        for peer in self._peers:
            peer.ranges = None

    def head_grew(self) -> None:
        """Single blocks that were past the head can be asked for."""
        heap = self._upcoming
        while heap and heap[0] < self._log.length:
            index = heappop(heap)
            work = self.works.get(index)
            if work is not None and work.upcoming:
                work.upcoming = False
                self._offer(index, work.priority)

    def see_again(self, peer: ReplicationPeer, start: int = 0, end: int | None = None) -> None:
        """This peer may have blocks of this range that it could not be asked for before."""
        peer.ranges = None
        peer.seeks_looked_at = -1
        unseen = peer.unseen
        if not unseen:
            return
        if end is not None and end - start < len(unseen):
            seen = [index for index in range(start, end) if index in unseen]
        else:
            seen = [index for index in unseen if index >= start and (end is None or index < end)]
        unseen.difference_update(seen)
        peer.candidates.extend(sorted(seen))

    def welcome(self, peer: ReplicationPeer) -> None:
        """A peer looks at everything that nobody is asked for: it is new, or was paused."""
        peer.ranges = None
        peer.unseen.clear()
        peer.candidates.clear()
        peer.candidates.extend(
            sorted(
                (index for index, work in self.works.items() if work.queued),
                key=lambda index: -self.works[index].priority,
            )
        )

    def cancel(self, index: int) -> None:
        """Take back the requests for a block that arrived otherwise, or is not wanted any more."""
        if self._take_back(index):
            self._set_free(index)

    def slow_blocks(self, peer: ReplicationPeer, now: float) -> list[int]:
        """Blocks that others let wait and this peer could send, the oldest first."""
        slow: list[int] = []
        for index, askers in islice(self.asked.items(), SWAPS_LOOKED_AT):
            if now - askers[-1].sent < SWAP_AFTER or len(askers) >= MAX_ASKED:
                continue
            if any(outstanding.peer is peer for outstanding in askers):
                continue
            if index < peer.askable_end and index in peer.claims:
                slow.append(index)
        return slow

    def want_near(self, peer: ReplicationPeer, index: int) -> None:
        """Ask a peer what it holds around a block."""
        self._want(peer, index // WANT_BATCH)

    def follows(self, index: int) -> bool:
        """Whether a range without an end takes in this block."""
        return self.following > 0 and any(
            ticket.end is None and ticket.start <= index
            for ticket in islice(self.ranges, RANGES_PER_TURN)
        )

    def _next_in(self, ticket: RangeTicket, peer: ReplicationPeer) -> int | None:
        low, end = ticket.low, peer.askable_end
        if ticket.end is not None and ticket.end < end:
            end = ticket.end
        if low >= end:
            return None
        taken = self._taken
        if taken is None:
            taken = self._note_taken()
        cursor = peer.cursors.get(ticket, -1)
        if ticket.linear:
            cursor = low
        elif not low <= cursor < end:
            cursor = low + self._below(end - low)
        claims, had = peer.claims, ticket.had
        first_in = partial(_first_not_in, had, claims) if had else claims.first_in
        found = first_in(cursor, end, taken)
        if found is None and cursor > low:
            found = first_in(low, cursor, taken)
        if found is None:
            self._want_range(peer, low, end)
            return None
        peer.cursors[ticket] = found + 1
        return found

    def _note_taken(self) -> BitPages:
        taken = self._taken = BitPages()
        for low, high in self._log.bitfield.ranges(0, self._log.length):
            taken.set_range(low, high, True)
        for index in (*self.asked, *self.arrived):
            taken.set(index, True)
        return taken

    def _want_range(self, peer: ReplicationPeer, start: int, end: int) -> None:
        batches = wanted_batches(
            peer.claims,
            self._log.bitfield,
            start,
            end,
            asked=peer.wants,
            most=WANTS_PER_TURN,
        )
        for batch in batches:
            self._want(peer, batch)

    def _want(self, peer: ReplicationPeer, batch: int) -> None:
        """Ask a peer what it holds of a batch, once; an unused one is taken back for it."""
        wants = peer.wants
        if batch in wants:
            return
        if wants.full:
            unused = next((other for other in wants.batches if not self._used(other)), None)
            if unused is None:
                return
            peer.tell(UNWANT, wants.remove(unused))
        peer.tell(WANT, wants.add(batch))

    def _used(self, batch: int) -> bool:
        start, end = batch * WANT_BATCH, (batch + 1) * WANT_BATCH
        if any(start <= index < end for index in islice(self.works, MAX_WANTS)):
            return True
        return any(
            ticket.low < end and (ticket.end is None or start < ticket.end)
            for ticket in islice(self.ranges, RANGES_PER_TURN)
        ) and self._log.bitfield.first_unset(start) < min(end, self._log.length)

    def _leave_low(self, ticket: RangeTicket) -> None:
        others = self._lows[ticket.low]
        del others[ticket]
        if not others:
            del self._lows[ticket.low]

    def _set_aside(self, index: int, peer: ReplicationPeer) -> None:
        """This peer cannot be asked for a block now; `see_again` has it looked at again."""
        unseen = peer.unseen
        if len(unseen) > 2 * len(self.works) + SPARE_CANDIDATES:
            unseen.intersection_update(self.works)
        unseen.add(index)
        if index < peer.askable_end:
            self._want(peer, index // WANT_BATCH)

    def _put_off(self, work: BlockWork) -> None:
        if not work.upcoming:
            work.upcoming = True
            heappush(self._upcoming, work.index)

    def _offer(self, index: int, priority: int) -> None:
        """Every peer looks at this block, before others when it is urgent."""
        if index >= self._log.length:
            self._put_off(self.works[index])
            return
        for peer in self._peers:
            if not peer.synced or peer.paused is not None:
                continue
            if len(peer.candidates) > 2 * len(self.works) + SPARE_CANDIDATES:
                self.welcome(peer)
            elif priority > 1:
                peer.candidates.appendleft(index)
            else:
                peer.candidates.append(index)

    def _set_free(self, index: int) -> bool:
        """The block is nowhere: wanted again if it is still missing; whether it is."""
        if index in self.arrived or index in self.asked or self._log.has(index):
            return False
        if self._taken is not None:
            self._taken.set(index, False)
        work = self.works.get(index)
        if work is not None:
            work.queued = True
            self._offer(index, work.priority)
        return True

    def _take_back(self, index: int) -> bool:
        """Nobody is asked for the block any more; whether anybody was."""
        askers = self.asked.pop(index, ())
        for outstanding in askers:
            outstanding.peer.cancel(outstanding.request.id)
        return len(askers) > 0

    def _remove_asker(self, index: int, outstanding: Outstanding) -> bool:
        """Whether nobody is asked for the block any more."""
        askers = self.asked.get(index)
        if askers is None or outstanding not in askers:
            return False
        askers.remove(outstanding)
        if askers:
            return False
        del self.asked[index]
        return True


def _first_not_in(
    had: Intervals, claims: Availability, start: int, end: int, taken: BitPages
) -> int | None:
    found = claims.first_in(start, end, taken)
    while found is not None and found in had:
        found = claims.first_in(had.first_missing(found), end, taken)
    return found
