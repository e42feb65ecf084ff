"""Higher forks that peers offer, and the search for what they share (`hypercore.md` section 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from covey.errors import VerifyError
from covey.feed.messages import Data, Request, UpgradeRequest
from covey.feed.reorg import Reorg
from covey.feed.replication_peer import ReplicationPeer
from covey.feed.replication_requests import Outstanding

if TYPE_CHECKING:
    from covey.feed.log import Log

MAX_SEARCHES = 2
"""Forks that one peer may have us look into at once; of more the lowest is given up."""


class ForkSearch:
    """One fork: first its head is asked for, then hashes until the fork point is known.

    `origin` told of it, and then proved it.
    """

    __slots__ = ("asked", "fork", "origin", "reorg")

    def __init__(self, fork: int, origin: ReplicationPeer) -> None:
        self.fork = fork
        self.origin = origin
        self.reorg: Reorg | None = None
        self.asked: Outstanding | None = None


class Forks:
    """The forks that are looked into. A signed one with a higher number always wins."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.searches: dict[int, ForkSearch] = {}

    def consider(self, peer: ReplicationPeer) -> bool:
        """Look into the fork that a peer told of, if it is higher; whether that is new."""
        fork = peer.remote.fork
        if fork <= self._log.fork or peer.remote.length == 0 or fork in self.searches:
            return False
        if any(search.reorg and search.fork > fork for search in self.searches.values()):
            return False
        own = sorted(search.fork for search in self.searches.values() if search.origin is peer)
        for lowest in own[: len(own) + 1 - MAX_SEARCHES]:
            del self.searches[lowest]
        self.searches[fork] = ForkSearch(fork, peer)
        return True

    def restart(self) -> None:
        """Our head changed: what was found out does not count any more."""
        self.searches.clear()

    def forget(self, peer: ReplicationPeer) -> None:
        """A peer is gone, or not asked any more: what it told of is begun anew with others."""
        for search in list(self.searches.values()):
            if search.origin is peer:
                del self.searches[search.fork]

    def next(self, peer: ReplicationPeer, number: int) -> tuple[Request, ForkSearch] | None:
        """What to ask this peer under this number; None: nothing now."""
        search = self.searches.get(peer.remote.fork)
        if search is None or search.asked is not None:
            return None
        if search.reorg is None:
            if peer.remote.length == 0:
                return None
            upgrade = UpgradeRequest(0, peer.remote.length)
            manifest = self._log.manifest is None and peer.remote_has_manifest
            return Request(number, search.fork, upgrade=upgrade, manifest=manifest), search
        wanted = search.reorg.wanted
        if wanted is None:
            return None
        if wanted.start + (1 << wanted.nodes) > peer.remote.length:
            return None
        block = peer.claims.first_in(wanted.start, min(wanted.end, peer.remote.length))
        if block is None:
            # Nodes may be there without the block; a refusal ends the search where it is.
            block = wanted.start
        return Request(number, search.fork, hash=wanted.request(block)), search

    def receive(self, search: ForkSearch, data: Data, peer: ReplicationPeer) -> Reorg | None:
        """Go on with an answer; the finished search if it is one. Raises `VerifyError`."""
        search.asked = None
        if self.searches.get(search.fork) is not search:
            return None
        if data.fork != search.fork:
            raise VerifyError(f"an answer for fork {data.fork}, not {search.fork}")
        if search.reorg is None:
            if data.upgrade is None:
                return None
            log = self._log
            search.reorg = Reorg(
                data, length=log.length, get_node=log.node, authority=log.authority
            )
            search.origin = peer
            self._drop_below(search.fork)
        elif data.hash is not None:
            search.reorg.receive(data)
        return search.reorg if search.reorg.shared is not None else None

    def returned(self, search: ForkSearch) -> None:
        """The request for a search is over without an answer."""
        search.asked = None

    def settled_for(self, search: ForkSearch) -> bool:
        """The nodes that would take a search on are not to be had; whether it can do without.

        What is proven to be shared so far is kept then, and the rest fetched again.
        """
        current = self.searches.get(search.fork) is search
        return current and search.reorg is not None and search.reorg.wanted is not None

    def _drop_below(self, fork: int) -> None:
        for lower in [other for other in self.searches if other < fork]:
            del self.searches[lower]
