"""Fetching a log: what each peer is asked for, and what becomes of the answers.

`hypercore.md` sections 10.1, 10.3, 10.4 and 11; hypercore 11.37.1, `lib/replicator.js`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from covey.errors import StoreError, VerifyError
from covey.feed.intervals import Intervals
from covey.feed.messages import (
    INVALID_REQUEST,
    BlockRequest,
    Data,
    NoData,
    Request,
    UpgradeRequest,
)
from covey.feed.replication_blocks import BlockPool
from covey.feed.replication_choices import MAX_BACKOFFS, REQUEST_TIMEOUT, swap_limit
from covey.feed.replication_early import EarlyAnswers
from covey.feed.replication_events import Event, InvalidData, ReplicationError, StoreFailed
from covey.feed.replication_forks import Forks, ForkSearch
from covey.feed.replication_paths import Paths
from covey.feed.replication_peer import MAX_FAILURES, MAX_UNASKED, REQUEST, ReplicationPeer
from covey.feed.replication_requests import MAX_UNANSWERED, Outstanding
from covey.feed.replication_seeks import Seeks
from covey.feed.replication_tickets import SeekTicket
from covey.feed.verify import StaleProof, Verified, matches, verify

if TYPE_CHECKING:
    from covey.feed.log import Log

MAX_UPGRADE_REST = 480.0
"""Seconds without asking a peer for upgrades that let several of them lie, at most."""
REFUSED_REST = 1.0
"""Seconds without asking one that answered, but gave none; twice as long each time."""


class Downloads(EarlyAnswers):
    """The asking side of a replicator."""

    def __init__(
        self,
        log: Log,
        peers: dict[ReplicationPeer, None],
        below: Callable[[int], int],
        publish: Callable[[Event], None],
        stir: Callable[[], None],
    ) -> None:
        """`stir` has every peer asked for what it can give, soon."""
        self._log = log
        self._peers = peers
        self._publish = publish
        self._stir = stir
        self.pool = BlockPool(log, peers, below)
        self.paths = Paths(log)
        self.seeks = Seeks(log, self.pool, below)
        self.forks = Forks(log, peers)
        self._upgrading: Outstanding | None = None
        self.eager = False
        """Longer heads are asked for without anybody waiting for one."""
        self.updates_wanted = 0
        self.suspended = False
        """The store failed: nothing is asked for."""
        self.rest_ends: float | None = None
        """When the next peer may be asked for an upgrade again."""
        self.waiting = False
        """Requests may be under way, whose time runs."""

    @property
    def upgrading(self) -> bool:
        """Whether a request for a longer head is under way: there is one at a time."""
        asked = self._upgrading
        return asked is not None and asked.peer.table.open.get(asked.request.id) is asked

    def fill(self, peer: ReplicationPeer, now: float) -> None:
        """Ask a peer for as much as may be under way."""
        if peer.table.stranded:
            self._give_up_stranded(peer)
        if not peer.active or not peer.synced or peer.paused is not None:
            return
        if self.suspended or self._log.frozen or not peer.remote.uploading:
            return
        under_way = peer.table.open
        most = 1 if peer.stalled else peer.most_in_flight
        while len(under_way) < most:
            if not self._ask(peer, now):
                if peer.ranges:
                    self._stir()
                return

    def swap(self, peer: ReplicationPeer, now: float) -> None:
        """Ask an idle peer for blocks that others are slow with."""
        if not peer.active or peer.paused is not None or peer.stalled or self.suspended:
            return
        limit = swap_limit(peer.most_in_flight)
        if peer.in_flight >= limit:
            return
        for index in self.pool.slow_blocks(peer, now)[: limit - peer.in_flight]:
            self._ask_block(peer, index, 0, now)

    def on_data(self, peer: ReplicationPeer, data: Data, now: float) -> None:
        """An answer to a request of ours; what it does not bring is asked again."""
        outstanding = peer.table.open.get(data.request)
        if outstanding is None:
            late = peer.table.late(data.request)
            if late is None:
                self.unasked(peer)
            else:
                self._on_late(peer, late, data, now)
            return
        if outstanding.hoped is not None and self._keep(peer, outstanding, data):
            return
        if isinstance(outstanding.work, ForkSearch):
            peer.table.answered(data.request)
            self._on_fork_answer(peer, outstanding.work, data, now)
        else:
            self._on_answer(peer, outstanding, data)
            self._look_at_head(peer, outstanding.request, now)
        if outstanding.waiting:
            self._take_up(peer, outstanding)
        self.fill(peer, now)

    def _on_answer(self, peer: ReplicationPeer, outstanding: Outstanding, data: Data) -> None:
        """Check what came, and store what is true of it."""
        peer.table.answered(data.request)
        work = outstanding.work
        if work is not None:
            self._work_returned(outstanding)
        request = outstanding.request
        if not matches(data, request):
            self._return_block(outstanding)
            self.unasked(peer)
            return
        verified = self._verify(peer, data, outstanding)
        if verified is None:
            return
        if verified.block is None and request.block is not None:
            self._return_block(outstanding)
        if data.block is None and data.hash is None and verified.upgrade is None:
            if isinstance(work, SeekTicket):
                self.seeks.refused(work, peer, request)
            self._back_off(peer, request)
        else:
            peer.backoffs = 0
            if peer.doubt:
                peer.doubt -= 1
        self.accept(peer, verified)
        if self.seeks and isinstance(work, SeekTicket):
            self.seeks.look_again()

    def _on_late(
        self, peer: ReplicationPeer, outstanding: Outstanding, data: Data, now: float
    ) -> None:
        """An answer to what was taken back: of use where it is still wanted, and blames nobody.

        On a slow line a block is longer under way than its request is given time.
        """
        useful = peer.paused is None and outstanding.work is None and not self.suspended
        if useful and matches(data, outstanding.request):
            with suppress(VerifyError):
                verified = self._check(data)
                if verified.block is not None and not self.pool.wants(verified.block[0]):
                    verified = verified._replace(block=None)
                if verified.block is not None or verified.upgrade is not None:
                    self.accept(peer, verified)
        self.fill(peer, now)

    def on_no_data(self, peer: ReplicationPeer, message: NoData, now: float) -> None:
        """A request of ours gets no answer."""
        outstanding = peer.table.answered(message.request)
        if outstanding is None:
            if peer.table.late(message.request) is None and message.request:
                self.unasked(peer)
            return
        work = outstanding.work
        if isinstance(work, ForkSearch):
            self._on_fork_answer(peer, work, None, now)
        else:
            if isinstance(work, SeekTicket):
                self.seeks.refused(work, peer, outstanding.request)
            self._back_off(peer, outstanding.request, invalid=message.reason == INVALID_REQUEST)
            self._look_at_head(peer, outstanding.request, now)
        self._release((outstanding,))
        if outstanding.waiting:
            self._take_up(peer, outstanding)
        self.fill(peer, now)

    def accept(self, peer: ReplicationPeer, verified: Verified) -> None:
        """Stage what is true, or store it where it is a longer head."""
        if verified.upgrade is not None:
            peer.missed_upgrades = 0
        block = verified.block
        if block is not None:
            if self._log.has(block[0]) or block[0] in self.pool.arrived:
                verified = verified._replace(block=None)
            else:
                self.pool.came(peer, *block)
        try:
            self._log.accept(verified)
        except StoreError as error:
            if verified.block is not None:
                self.pool.lost((verified.block[0],))
            self.store_failed(error)
        if block is not None:
            # Only now: nothing may come between what was checked and its storing.
            self.pool.cancel(block[0])

    def store_failed(self, error: StoreError) -> None:
        """Ask for nothing more until somebody says that the store works again."""
        self.suspended = True
        self._publish(StoreFailed(error))

    def unasked(self, peer: ReplicationPeer) -> None:
        """A peer answered what it was not asked; `ReplicationError` at the 64th."""
        peer.unasked += 1
        if peer.unasked >= MAX_UNASKED:
            raise ReplicationError(f"{MAX_UNASKED} answers to nothing that was asked")

    def fail(self, peer: ReplicationPeer, error: VerifyError) -> None:
        """An answer does not verify: look for a conflict, and `ReplicationError` the second time.

        Until the peer has shown a head that agrees with ours it is asked for nothing.
        """
        peer.failures += 1
        self._publish(InvalidData(peer, error))
        if peer.failures >= MAX_FAILURES:
            raise ReplicationError("its answers do not verify", shun=True) from error
        peer.paused = f"an answer did not verify: {error}"
        # What is under way would fail for the same reason, before it can say what it has.
        self._recall(peer)
        self.forks.forget(peer)
        length = min(self._log.length, peer.remote.length)
        if length and peer.remote.fork == self._log.fork:
            peer.probing = True
            peer.tell(REQUEST, Request(0, peer.remote.fork, upgrade=UpgradeRequest(0, length)))

    def release_all(self, peer: ReplicationPeer) -> None:
        """Everything under way to a peer goes back, without telling it."""
        self._release(peer.table.clear())
        self.forks.forget(peer)

    def recall_all(self, nodes: Iterable[tuple[int, int]] | None = None) -> None:
        """Cancel what is under way: it was asked for a log that is no longer so.

        Where only nodes went, in these ranges, what cannot lead to one of them goes on.
        """
        gone = None if nodes is None else Intervals(nodes)
        for peer in self._peers:
            self._recall(peer, gone)
        self.paths.forget()
        self.forks.restart()

    def _recall(self, peer: ReplicationPeer, gone: Intervals | None = None) -> None:
        """Cancel what is under way to a peer, or what leads up from a leaf that is `gone`."""
        open_ = peer.table.open.values()
        outstandings = [asked for asked in open_ if gone is None or asked.leaf in gone]
        for outstanding in outstandings:
            peer.cancel(outstanding.request.id)
        self._release(outstandings)

    def expire(self, peer: ReplicationPeer, now: float) -> None:
        """Cancel requests that were not answered in time; `ReplicationError` after too many."""
        expired: list[Outstanding] = []
        while (oldest := peer.table.oldest()) is not None:
            if oldest.sent + REQUEST_TIMEOUT > now:
                break
            peer.cancel(oldest.request.id)
            expired.append(oldest)
            if oldest.request.upgrade is not None or isinstance(oldest.work, ForkSearch):
                self._rest(peer, now)
            if isinstance(oldest.work, ForkSearch) and peer.missed_upgrades > 1:
                self.forks.refused(oldest.work, peer)
        if not expired:
            return
        peer.stalled = True
        self._release(expired)
        self._stir()
        if peer.table.unanswered > MAX_UNANSWERED:
            raise ReplicationError("it does not answer")

    def _look_at_head(self, peer: ReplicationPeer, request: Request, now: float) -> None:
        """A longer head was asked for with this: who did not give it lets others go first."""
        log, asked = self._log, request.upgrade
        if asked is None or log.length > asked.start or self.suspended:
            return
        if peer.remote.fork == log.fork == request.fork:
            self._rest(peer, now, REFUSED_REST)
            self._stir()

    def _rest(self, peer: ReplicationPeer, now: float, seconds: float = REQUEST_TIMEOUT) -> None:
        """Ask a peer for no upgrade or fork for a while: the last one it did not give."""
        peer.missed_upgrades += 1
        rest = seconds * 2.0 ** min(peer.missed_upgrades - 1, 10)
        peer.upgrade_rest = now + min(rest, MAX_UPGRADE_REST)
        self.rest_ends = min(self.rest_ends or peer.upgrade_rest, peer.upgrade_rest)

    def end_rests(self, now: float) -> None:
        """Peers that let upgrades lie may be asked again when they have rested."""
        rests = [peer.upgrade_rest for peer in self._peers if peer.upgrade_rest > now]
        self.rest_ends = min(rests, default=None)
        self._stir()

    def upgrade_wanted(self) -> bool:
        """Whether a longer head is of use to anybody."""
        return self.eager or self.updates_wanted > 0 or bool(self.pool.works or self.pool.ranges)

    def _ask(self, peer: ReplicationPeer, now: float) -> bool:
        """Send one request; False: there is nothing to ask this peer for."""
        if self.seeks.ready and peer.askable_end:
            question = self.seeks.next(peer)
            if question is not None:
                number = peer.table.next_number()
                fork = self._log.fork
                request = Request(number, fork, hash=question.hash, seek=question.seek)
                self._send(peer, request, now, question.ticket)
                return True
        pool = self.pool
        if peer.candidates:
            work = pool.next_single(peer)
            if work is not None:
                self._ask_block(peer, work.index, work.priority, now)
                return True
        if pool.ranges:
            index = pool.next_in_ranges(peer)
            if index is not None:
                self._ask_block(peer, index, 0, now)
                return True
        return self._ask_fork(peer, now) or self._ask_upgrade(peer, now)

    def _ask_block(self, peer: ReplicationPeer, index: int, priority: int, now: float) -> None:
        log = self._log
        table = peer.table
        number = table.next_number()
        upgrade = None
        if self._may_upgrade(peer, now):
            upgrade = UpgradeRequest(log.length, peer.remote.length - log.length)
        # Urgent requests are answered before others that were sent before.
        counts = priority == 0 and upgrade is None and self.paths.counts_on(peer)
        path = self.paths.choose(index, table.expected if counts else None)
        request = Request(
            number,
            log.fork,
            BlockRequest(index, path.levels),
            None,
            None,
            upgrade,
            peer.remote_has_manifest and log.manifest is None,
            priority,
        )
        outstanding = self._send(peer, request, now)
        outstanding.hoped = path.hoped
        if path.missing:
            table.expect(outstanding, path.missing)
        self.pool.note_asked(index, outstanding)
        if upgrade is not None:
            self._upgrading = outstanding

    def _ask_upgrade(self, peer: ReplicationPeer, now: float) -> bool:
        """Ask for a longer head, and with it for its last block where somebody follows the log."""
        if not self._may_upgrade(peer, now):
            return False
        pool = self.pool
        index = pool.upcoming(peer)
        last = peer.remote.length - 1
        if index is None and last in peer.claims and pool.follows(last):
            index = last
        if index is not None:
            self._ask_block(peer, index, 1 if index in pool.works else 0, now)
            return True
        log = self._log
        number = peer.table.next_number()
        upgrade = UpgradeRequest(log.length, peer.remote.length - log.length)
        manifest = peer.remote_has_manifest and log.manifest is None
        request = Request(number, log.fork, upgrade=upgrade, manifest=manifest)
        self._upgrading = self._send(peer, request, now)
        return True

    def _may_upgrade(self, peer: ReplicationPeer, now: float) -> bool:
        return (
            peer.offers_upgrade
            and not self.upgrading
            and now >= peer.upgrade_rest
            and self.upgrade_wanted()
        )

    def _ask_fork(self, peer: ReplicationPeer, now: float) -> bool:
        search = self.forks.next(peer, now) if self.forks.searches else None
        if search is None:
            return False
        request = self.forks.request(search, peer, peer.table.next_number())
        search.asked = self._send(peer, request, now, search)
        return True

    def _send(
        self, peer: ReplicationPeer, request: Request, now: float, work: object = None
    ) -> Outstanding:
        table = peer.table
        outstanding = Outstanding(peer, request, now, table.tick, work)
        table.open[request.id] = outstanding
        self.waiting = True
        peer.tell(REQUEST, request)
        return outstanding

    def _on_fork_answer(
        self, peer: ReplicationPeer, search: ForkSearch, data: Data | None, now: float
    ) -> None:
        """The head of a fork, or a hash of its tree; None: the peer does not give it."""
        search.asked = None
        self._stir()
        try:
            if data is not None and self.forks.receive(search, data, peer):
                peer.backoffs = 0
            elif self.forks.refused(search, peer):
                if search.reorg is None:
                    self._rest(peer, now)
                self._back_off(peer, None)
        except VerifyError as error:
            self.fail(peer, error)

    def _verify(
        self, peer: ReplicationPeer, data: Data, outstanding: Outstanding
    ) -> Verified | None:
        """What is true of an answer; None when nothing is, its request is then returned."""
        hoped = outstanding.hoped
        if hoped is not None and data.block is not None and not self._log.has_node(hoped):
            self._miss(peer, outstanding)
            return None
        try:
            return self._check(data)
        except (VerifyError, StoreError) as error:
            self._return_block(outstanding)
            if isinstance(error, StoreError):
                self._log.unreadable(error)
            elif isinstance(error, StaleProof):
                self._back_off(peer, None)
            else:
                self.fail(peer, error)
        return None

    def _check(self, data: Data) -> Verified:
        """What an answer proves as things are; raises `VerifyError`."""
        log = self._log
        return verify(
            data,
            roots=log.roots,
            length=log.length,
            fork=log.fork,
            get_node=log.node,
            authority=log.authority,
            known_node=log.known_node,
        )

    def _return_block(self, outstanding: Outstanding) -> None:
        """An answer brought nothing: what it was for is asked again, of anybody."""
        self.pool.returned((outstanding,))
        self._stir()

    def _back_off(
        self, peer: ReplicationPeer, request: Request | None, *, invalid: bool = False
    ) -> None:
        """No data came. What the peer took back meanwhile does not count against it."""
        block = None if request is None else request.block
        if request is not None and not invalid:
            if request.fork != peer.remote.fork:
                return
            if block is not None and block.index not in peer.claims:
                return
            if block is None and request.upgrade and request.upgrade.start < self._log.length:
                return  # What it was asked for came otherwise meanwhile.
        if block is not None:
            peer.claims.refute(block.index)
        peer.backoffs += 1
        if peer.backoffs >= MAX_BACKOFFS:
            peer.paused = f"{MAX_BACKOFFS} requests in a row got no data"
            self.forks.forget(peer)
            self._stir()

    def _release(self, outstandings: list[Outstanding] | tuple[Outstanding, ...]) -> None:
        """Requests are over without an answer: what they were for is asked of others."""
        for outstanding in outstandings:
            if outstanding.request.upgrade is not None:
                self._stir()
            if outstanding.work is not None:
                self._work_returned(outstanding)
                self._stir()
        if self.pool.returned(outstandings):
            self._stir()

    def _work_returned(self, outstanding: Outstanding) -> None:
        work = outstanding.work
        if isinstance(work, SeekTicket):
            self.seeks.returned(work)
        elif isinstance(work, ForkSearch):
            work.asked = None
