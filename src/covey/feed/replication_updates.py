"""Who waits for a longer head, and when the answer is that there is none."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import TYPE_CHECKING

from covey.feed.replication_choices import REQUEST_TIMEOUT
from covey.feed.replication_download import Downloads
from covey.feed.replication_peer import ReplicationPeer
from covey.feed.replication_tickets import UpdateTicket

if TYPE_CHECKING:
    from covey.feed.log import Log

PEERS_CONSULTED = 3
"""Peers that must have nothing new before that is the answer (section 14)."""
LONGEST_QUESTION = PEERS_CONSULTED * REQUEST_TIMEOUT
"""Seconds after which that is the answer even though something is still under way: peers are asked
one after the other, and each may let the request lie."""


class Updates:
    """The open questions for a longer head."""

    def __init__(self, log: Log, peers: Collection[ReplicationPeer], downloads: Downloads) -> None:
        self._log = log
        self._peers = peers
        self._downloads = downloads
        self.tickets: dict[UpdateTicket, None] = {}
        self.due: float | None = None
        """When `check` has something to say although nothing happens."""

    def add(self, ticket: UpdateTicket) -> None:
        """Somebody asks."""
        self.tickets[ticket] = None
        self._downloads.updates_wanted = len(self.tickets)

    def drop(self, ticket: UpdateTicket) -> None:
        """Not any more."""
        self.tickets.pop(ticket, None)
        self._downloads.updates_wanted = len(self.tickets)
        if not self.tickets:
            self.due = None

    def head_changed(self) -> None:
        """There is one."""
        self._answer(list(self.tickets), True)

    def check(self, now: float) -> None:
        """Answer that there is none, when the peers say so or have had their time to say more."""
        self.due = None
        if not self.tickets:
            return
        if not self._peers:
            for ticket in self.tickets:
                ticket.asked = None
            self._answer([ticket for ticket in self.tickets if not ticket.wait], False)
            return
        patience = self._patience(now)
        answered: list[UpdateTicket] = []
        for ticket in self.tickets:
            if ticket.asked is None:
                ticket.asked = now
            ends = ticket.asked + patience
            if ends <= now:
                answered.append(ticket)
            elif self.due is None or ends < self.due:
                self.due = ends
        self._answer(answered, False)

    def _patience(self, now: float) -> float:
        """Seconds from the question on that are waited for what may still come."""
        downloads = self._downloads
        if downloads.upgrading:
            return LONGEST_QUESTION
        if any(search.asked for search in downloads.forks.searches.values()):
            return LONGEST_QUESTION
        if any(self._undecided(peer, now) for peer in islice(self._peers, PEERS_CONSULTED)):
            return REQUEST_TIMEOUT
        return 0.0

    def _undecided(self, peer: ReplicationPeer, now: float) -> bool:
        """Whether a longer head may still come from this peer."""
        if not peer.synced:
            return True
        remote, log = peer.remote, self._log
        if peer.paused is not None or peer.stalled or now < peer.upgrade_rest:
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
