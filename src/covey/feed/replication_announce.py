"""What peers are told unasked: our head, and which blocks came and went (sections 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from covey.feed.intervals import Intervals
from covey.feed.messages import Range, Sync, Want
from covey.feed.replication_blocks import BlockPool
from covey.feed.replication_choices import (
    LAST_BLOCKS,
    announced,
    askable_end,
    can_upgrade,
    offers_upgrade,
)
from covey.feed.replication_peer import RANGE, SYNC, ReplicationPeer

if TYPE_CHECKING:
    from covey.feed.log import Log


def runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Rising numbers as ranges, ends not included."""
    start = end = -1
    for number in numbers:
        if number != end:
            if end > start:
                yield start, end
            start = number
        end = number + 1
    if end > start:
        yield start, end


class Announcer:
    """Keeps the peers up to date about us, and what we may ask them in line with our head."""

    def __init__(
        self,
        log: Log,
        peers: dict[ReplicationPeer, None],
        pool: BlockPool,
        state: Callable[[], tuple[bool, bool]],
    ) -> None:
        """`state` tells whether we download, and whether peers may push."""
        self._log = log
        self._peers = peers
        self._pool = pool
        self._state = state
        self._told = Intervals()

    def greet(self, peer: ReplicationPeer) -> None:
        """The first messages of a channel: our head, then what we hold from the start."""
        self.sync(peer)
        self._tell_contiguous(peer)

    def catch_up(self, peer: ReplicationPeer, now: float) -> None:
        """Tell what was kept back, and refused, while the peer was in doubt."""
        self._tell_contiguous(peer)
        log = self._log
        if log.contiguous_length < log.length:
            start = 0 if peer.remote_wants.everything else max(log.length - LAST_BLOCKS, 0)
            newest = Want(start, log.length - start, False)
            peer.requests.answer_wants([*peer.remote_wants, newest], now)

    def sync(self, peer: ReplicationPeer) -> None:
        """Tell our head, and the peer's as we know it."""
        log, remote = self._log, peer.remote
        same = remote.fork == log.fork
        downloading, pushable = self._state()
        # At first nothing is known of the peer: its fork is taken for 0.
        able = not peer.synced or can_upgrade(
            remote, fork=log.fork, length=log.length, has_node=log.has_node
        )
        peer.told_able = able
        peer.tell(
            SYNC,
            Sync(
                log.fork,
                log.length,
                remote.length if same else 0,
                able,
                True,
                downloading,
                log.manifest is not None and not log.authority.compat,
                pushable,
            ),
        )

    def sync_all(self) -> None:
        """Tell everybody."""
        for peer in list(self._peers):
            self.sync(peer)

    def reconsider(self, peer: ReplicationPeer) -> None:
        """Work out anew what this peer can be asked for, after its head or ours changed."""
        log, remote = self._log, peer.remote
        end = askable_end(
            remote,
            fork=log.fork,
            length=log.length,
            agreed=peer.agreed,
            has_node=log.has_node,
        )
        if remote.fork == log.fork:
            peer.agreed = end
        peer.offers_upgrade = offers_upgrade(remote, fork=log.fork, length=log.length)
        if end != peer.askable_end:
            peer.askable_end = end
            self._pool.see_again(peer)

    def head_changed(self) -> None:
        """Our head is another one."""
        for peer in list(self._peers):
            self.reconsider(peer)
            self.sync(peer)

    def appended(self, start: int, length: int) -> None:
        """The log grew: what of the new part we hold is told before the head."""
        # Blocks that came with the head are told once more, by `stored`, right after this.
        self._told = Intervals(self._log.bitfield.ranges(start, length))
        for low, high in self._told:
            self._announce(low, high)

    def proves_more(self) -> None:
        """Nodes came: perhaps we can prove our head to peers to whom we could not."""
        log = self._log
        for peer in list(self._peers):
            remote = peer.remote
            if peer.told_able or remote.fork != log.fork or remote.length >= log.length:
                continue
            if can_upgrade(remote, fork=log.fork, length=log.length, has_node=log.has_node):
                self.reconsider(peer)
                self.sync(peer)

    def nodes_went(self) -> None:
        """Nodes are not here any more: what needs them is neither asked for nor promised."""
        log = self._log
        for peer in list(self._peers):
            peer.agreed = 0
            self.reconsider(peer)
            able = can_upgrade(peer.remote, fork=log.fork, length=log.length, has_node=log.has_node)
            if peer.synced and peer.told_able and not able:
                self.sync(peer)

    def stored(self, blocks: list[int]) -> None:
        """These blocks are held now."""
        told, self._told = self._told, Intervals()
        if told.covers(blocks[0], blocks[-1] + 1):
            return
        for low, high in runs(block for block in blocks if block not in told):
            self._announce(low, high)

    def dropped(self, start: int, end: int) -> None:
        """These blocks are not held any more."""
        for peer in list(self._peers):
            peer.complete_told = min(peer.complete_told, start)
            peer.tell(RANGE, Range(True, start, end - start))

    def _tell_contiguous(self, peer: ReplicationPeer) -> None:
        contiguous = self._log.contiguous_length
        if contiguous:
            if contiguous == self._log.length:
                peer.complete_told = contiguous
            peer.tell(RANGE, Range(False, 0, contiguous))

    def _announce(self, start: int, end: int) -> None:
        length = self._log.length
        complete = self._log.contiguous_length == length
        for peer in list(self._peers):
            if peer.paused is not None:
                continue
            span = announced(
                start,
                end,
                length=length,
                complete=complete,
                told=peer.complete_told,
                known=peer.claims.covers(start, end),
                wanted=peer.remote_wants.touches(start, end),
            )
            if complete:
                peer.complete_told = length
            if span is not None:
                peer.tell(RANGE, Range(False, span[0], span[1] - span[0]))
