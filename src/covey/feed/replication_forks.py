"""Higher forks that peers offer, and the search for what they share (`hypercore.md` section 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from covey.errors import VerifyError
from covey.feed.messages import Data, Request, UpgradeRequest
from covey.feed.reorg import Reorg, Wanted
from covey.feed.replication_peer import ReplicationPeer
from covey.feed.replication_requests import Outstanding

if TYPE_CHECKING:
    from covey.feed.log import Log

MAX_SEARCHES = 2
"""Forks that one peer may have us look into at once; of more the lowest is given up."""


class ForkSearch:
    """One fork: first its head is asked for, then hashes until the fork point is known.

    `origin` told of it, and then proved it. Who `refused` a hash is asked for no other.
    """

    __slots__ = ("asked", "fork", "origin", "refused", "reorg")

    def __init__(self, fork: int, origin: ReplicationPeer) -> None:
        self.fork = fork
        self.origin = origin
        self.refused: set[ReplicationPeer] = set()
        self.reorg: Reorg | None = None
        self.asked: Outstanding | None = None

    @property
    def wanted(self) -> Wanted | None:
        """The hash that takes the search on; None before its head is proven, and at its end."""
        return None if self.reorg is None else self.reorg.wanted


class Forks:
    """The forks that are looked into. A signed one with a higher number always wins.

    What our log gains meanwhile does not disturb a search; what it loses ends them all.
    """

    def __init__(self, log: Log, peers: dict[ReplicationPeer, None]) -> None:
        self._log = log
        self._peers = peers
        self.searches: dict[int, ForkSearch] = {}

    def consider(self, peer: ReplicationPeer) -> bool:
        """Look into the fork that a peer told of, if it is higher; whether that is new."""
        fork = peer.remote.fork
        if fork <= self._log.fork or fork in self.searches or not self._has_signed_head(peer):
            return False
        if any(search.reorg and search.fork > fork for search in self.searches.values()):
            return False
        own = sorted(search.fork for search in self.searches.values() if search.origin is peer)
        for lowest in own[: len(own) + 1 - MAX_SEARCHES]:
            del self.searches[lowest]
        self.searches[fork] = ForkSearch(fork, peer)
        return True

    def restart(self) -> None:
        """Our log lost nodes, or went to another fork: what was found out does not count."""
        self.searches.clear()

    def forget(self, peer: ReplicationPeer) -> None:
        """A peer is gone, or not asked any more: what it told of is begun anew with others."""
        for search in list(self.searches.values()):
            search.refused.discard(peer)
            if search.origin is peer:
                del self.searches[search.fork]

    def next(self, peer: ReplicationPeer, now: float) -> ForkSearch | None:
        """The search for which this peer is to be asked something; None: nothing now."""
        search = self.searches.get(peer.remote.fork)
        if search is None or search.asked is not None or not self._may_help(peer, search, now):
            return None
        return search

    def request(self, search: ForkSearch, peer: ReplicationPeer, number: int) -> Request:
        """What to ask this peer under this number."""
        wanted = search.wanted
        if wanted is None:
            upgrade = UpgradeRequest(0, peer.remote.length)
            manifest = self._log.manifest is None and peer.remote_has_manifest
            return Request(number, search.fork, upgrade=upgrade, manifest=manifest)
        block = peer.claims.first_in(wanted.start, min(wanted.end, peer.remote.length))
        if block is None:
            # Nodes may be there without the block.
            block = wanted.start
        return Request(number, search.fork, hash=wanted.request(block))

    def receive(self, search: ForkSearch, data: Data, peer: ReplicationPeer) -> bool:
        """Go on with an answer; whether it was one that helps. Raises `VerifyError`."""
        if self.searches.get(search.fork) is not search:
            return False
        if data.fork != search.fork:
            raise VerifyError(f"an answer for fork {data.fork}, not {search.fork}")
        if search.reorg is not None:
            if data.hash is None:
                return False
            search.reorg.receive(data)
            return True
        if data.upgrade is None:
            return False
        log = self._log
        reorg = Reorg(data, length=log.length, get_node=log.known_node, authority=log.authority)
        if not reorg.signed:
            if log.manifest is None:
                return False  # The peer may be right, and not have known what we do not know.
            raise VerifyError(f"fork {search.fork} of {reorg.head.length} blocks is not signed")
        search.reorg = reorg
        search.origin = peer
        for lower in [other for other in self.searches if other < search.fork]:
            del self.searches[lower]
        return True

    def refused(self, search: ForkSearch, peer: ReplicationPeer) -> bool:
        """The peer does not give what takes a search on; False: no matter, by now."""
        if self.searches.get(search.fork) is not search or peer.remote.fork != search.fork:
            return False
        if search.reorg is not None:
            search.refused.add(peer)
        return True

    def finished(self, now: float) -> tuple[Reorg, int] | None:
        """The fork to go over to, and how many blocks of ours stay.

        Where the nodes that would take the search on were refused and nobody else can be asked
        for them, what is proven to be shared so far has to do; the rest is fetched again.
        """
        for search in self.searches.values():
            reorg, wanted = search.reorg, search.wanted
            if reorg is None:
                continue
            if reorg.shared is not None:
                return reorg, reorg.shared
            if wanted is None or search.asked is not None or not search.refused:
                continue
            if not any(self._may_help(peer, search, now) for peer in self._peers):
                return reorg, wanted.start
        return None

    def _has_signed_head(self, peer: ReplicationPeer) -> bool:
        """Whether the head that a peer told can be signed: none inside a prologue is."""
        prologue = self._log.authority.prologue
        return peer.remote.length > (0 if prologue is None else prologue.length)

    def _may_help(self, peer: ReplicationPeer, search: ForkSearch, now: float) -> bool:
        """Whether a peer can be asked for what takes a search on."""
        remote, wanted = peer.remote, search.wanted
        if remote.fork != search.fork or not remote.uploading or not peer.synced:
            return False
        if peer.paused is not None or now < peer.upgrade_rest:
            return False
        if search.reorg is None:
            return self._has_signed_head(peer)
        if wanted is None or peer in search.refused:
            return False
        return wanted.start + (1 << wanted.nodes) <= remote.length
