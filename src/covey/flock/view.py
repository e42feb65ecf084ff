"""What a flock shows: its candidates and peers as a list, and the story of one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from covey.address import Address
from covey.conn.hub import Hub
from covey.conn.story import Story, host_story
from covey.flock.admission import canonical_host
from covey.flock.candidates import Candidate, CandidateState
from covey.flock.context import Context
from covey.flock.events import Peer
from covey.flock.outlook import outlook
from covey.flock.places import PeerPlace, place_of
from covey.flock.pursuit import Pursuit
from covey.flock.records import Record
from covey.flock.roster import Roster
from covey.net.connection import Connection


@dataclass(frozen=True, slots=True)
class FlockEntry:
    """One line of the live view: a candidate, or a peer that connected to us.

    `text` says what happened last; `connection` is set while the peer is connected.
    """

    peer: Peer
    state: CandidateState
    text: str = ""
    connection: Connection | None = None


@dataclass(frozen=True, slots=True)
class View:
    """Reads what the parts of a flock know."""

    context: Context
    hub: Hub
    pursuit: Pursuit
    roster: Roster

    def entries(self) -> tuple[FlockEntry, ...]:
        """Every candidate, then the peers that connected to us from elsewhere."""
        leads_to: dict[Candidate, Record] = {}
        for record in self.roster.registered():
            leads_to.update((candidate, record) for candidate in record.candidates)
        lines = []
        shown = set()
        for candidate in self.pursuit.candidates():
            found = leads_to.get(candidate)
            connection = found.connection if found is not None else None
            peer = self.context.peer(candidate)
            lines.append(FlockEntry(peer, candidate.state, candidate.last, connection))
            shown.add(connection)
        for record in self.roster.registered():
            if record.connection not in shown:
                peer = Peer(record.info.host, record.info.port, record.info.channel)
                text = "dialled" if record.info.initiator else "it connected to us"
                lines.append(FlockEntry(peer, CandidateState.CONNECTED, text, record.connection))
        return tuple(lines)

    def explain(self, peer: PeerPlace | bytes | Peer) -> Story:
        """The hub's story of a peer, with the flock's lines, state and next step."""
        if isinstance(peer, Peer):
            peer = (peer.host, peer.port)
        if isinstance(peer, bytes) or (isinstance(peer, Address) and peer.host is None):
            return self._explain_key(peer)
        host, port, key = place_of(peer)
        return self._explain_place((canonical_host(host), port), key)

    def _explain_place(self, place: tuple[str, int], key: bytes | None) -> Story:
        known = self.pursuit.at(*place)
        if key is None and known:
            key = known[0].key
        address = self.context.address_of(*place, key)
        for record in self.roster.all():
            if not known and (record.info.host, record.info.port) == place:
                address = str(record.connection.address)  # it came from there
        story = self.hub.explain(address)
        if not story.lines and story.state is None:
            # Perhaps it came from there and was not let in; then only its host was noted.
            of_host = self.context.history.story(host_story(place[0]))
            story = replace(of_host, peer=story.peer) if of_host.lines else story
        return self._with_outlook(story, known)

    def _explain_key(self, key: bytes | Address) -> Story:
        """That of a key, or of an address that names no place."""
        story = self.hub.explain(key)
        known = [
            one
            for at in map(Address.parse, story.addresses)
            if at.host and at.port
            for one in self.pursuit.at(at.host, at.port)
        ]
        return self._with_outlook(story, known)

    def _with_outlook(self, story: Story, known: list[Candidate]) -> Story:
        """What the hub is busy with it knows best; what it is not, it never retries."""
        if story.state is not None:
            return story
        context = self.context
        taken = self.pursuit.attempts + self.roster.connected + self.roster.pending_outgoing
        full = "max_connections of the flock" if 0 < context.max_connections <= taken else ""
        told = outlook(story, known, context.clock.now(), full=full)
        return replace(story, state=told.state, next_step=told.next_step, advice=told.advice)
