"""Who waits for a longer head, and when the answer is that there is none."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING

from covey.feed.replication_download import Downloads
from covey.feed.replication_peer import ReplicationPeer
from covey.feed.replication_tickets import UpdateTicket

if TYPE_CHECKING:
    from covey.feed.log import Log

PEERS_CONSULTED = 3
"""Peers that must have nothing new before that is the answer (section 14)."""


class Updates:
    """The open questions for a longer head."""

    def __init__(self, log: Log, peers: Collection[ReplicationPeer], downloads: Downloads) -> None:
        self._log = log
        self._peers = peers
        self._downloads = downloads
        self.tickets: dict[UpdateTicket, None] = {}

    def add(self, ticket: UpdateTicket) -> None:
        """Somebody asks."""
        self.tickets[ticket] = None
        self._downloads.updates_wanted = len(self.tickets)

    def drop(self, ticket: UpdateTicket) -> None:
        """Not any more."""
        self.tickets.pop(ticket, None)
        self._downloads.updates_wanted = len(self.tickets)

    def head_changed(self) -> None:
        """There is one."""
        self._answer(list(self.tickets), True)

    def check(self) -> None:
        """Answer that there is none, when the peers say so and nothing is under way."""
        if not self.tickets or self._downloads.upgrading is not None:
            return
        if any(search.asked for search in self._downloads.forks.searches.values()):
            return
        if any(self._undecided(peer) for peer in islice(self._peers, PEERS_CONSULTED)):
            return
        answered = [ticket for ticket in self.tickets if self._peers or not ticket.wait]
        self._answer(answered, False)

    def _undecided(self, peer: ReplicationPeer) -> bool:
        """Whether a longer head may still come from this peer."""
        if not peer.synced:
            return True
        remote, log = peer.remote, self._log
        if peer.paused is not None:
            return False
        if remote.fork in self._downloads.forks.searches:
            return True
        if remote.fork != log.fork or remote.length <= log.length:
            return False
        return remote.acked != log.length or peer.offers_upgrade

    def _answer(self, tickets: list[UpdateTicket], result: bool) -> None:
        for ticket in tickets:
            self.drop(ticket)
            ticket.finish(result)
