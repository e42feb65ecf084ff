"""What a flock shows: its candidates and peers as a list, and the story of one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from covey.address import Address
from covey.conn.story import Story, host_story
from covey.flock.candidates import Candidate, State
from covey.flock.context import Context
from covey.flock.events import Peer
from covey.flock.outlook import outlook
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
    state: State
    text: str = ""
    connection: Connection | None = None


def flock_entries(context: Context, pursuit: Pursuit, roster: Roster) -> tuple[FlockEntry, ...]:
    """Every candidate, then the peers that connected to us from elsewhere."""
    leads_to: dict[Candidate, Record] = {}
    for record in roster.registered():
        leads_to.update((candidate, record) for candidate in record.candidates)
    lines = []
    shown = set()
    for candidate in pursuit.candidates():
        found = leads_to.get(candidate)
        connection = found.connection if found is not None else None
        peer = context.peer(candidate)
        lines.append(FlockEntry(peer, candidate.state, candidate.last, connection))
        shown.add(connection)
    for record in roster.registered():
        if record.connection not in shown:
            peer = Peer(record.info.host, record.info.port, record.info.channel)
            text = "dialled" if record.info.initiator else "it connected to us"
            lines.append(FlockEntry(peer, State.CONNECTED, text, record.connection))
    return tuple(lines)


def explain(
    context: Context, pursuit: Pursuit, roster: Roster, place: tuple[str, int], key: bytes | None
) -> Story:
    """The hub's story of a place, with the flock's lines, state and next step."""
    known = pursuit.at(*place)
    if key is None and known:
        key = known[0].key
    address = context.address_of(*place, key)
    for record in roster.all():
        if not known and (record.info.host, record.info.port) == place:
            address = str(record.connection.address)  # it came from there
    story = context.hub.explain(address)
    if not story.lines and story.state is None:
        # Perhaps it came from there and was not let in; then only its host was noted.
        of_host = context.history.story(host_story(place[0]))
        story = replace(of_host, peer=story.peer) if of_host.lines else story
    return _with_outlook(story, known, context, pursuit, roster)


def explain_key(context: Context, pursuit: Pursuit, roster: Roster, key: bytes | Address) -> Story:
    """The hub's story of a key, or of an address that names no place, in the same way."""
    story = context.hub.explain(key)
    places = map(Address.parse, story.addresses)
    known = [one for at in places if at.host and at.port for one in pursuit.at(at.host, at.port)]
    return _with_outlook(story, known, context, pursuit, roster)


def _with_outlook(
    story: Story, known: list[Candidate], context: Context, pursuit: Pursuit, roster: Roster
) -> Story:
    """What the hub is busy with it knows best; what it is not, it never retries."""
    if story.state is not None:
        return story
    taken = pursuit.attempts + roster.connected + roster.pending_outgoing
    full = "max_connections of the flock" if 0 < context.max_connections <= taken else ""
    told = outlook(story, known, context.clock.now(), full=full)
    return replace(story, state=told.state, next_step=told.next_step, advice=told.advice)
