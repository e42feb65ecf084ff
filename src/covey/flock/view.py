"""What a flock shows: its candidates and peers as a list, and the story of one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from covey.conn.story import Story
from covey.flock.candidates import Candidate, State
from covey.flock.context import Context
from covey.flock.events import Peer
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
    """The hub's story of an address, with the flock's lines, state and next step."""
    known = pursuit.at(*place)
    if key is None and known:
        key = known[0].key
    address = context.address_of(*place, key)
    for record in roster.all():
        if not known and (record.info.host, record.info.port) == place:
            address = str(record.connection.address)  # it came from there
    story = context.hub.explain(address)
    state, plan = _outlook(known, context.clock.now())
    # The hub never retries, so where the flock has a plan it knows better what comes next.
    return replace(story, state=story.state or state, next_step=plan or story.next_step)


def _outlook(known: list[Candidate], now: float) -> tuple[str | None, str | None]:
    """State of an address over all channels, and what happens to it next by itself."""
    for candidate in known:
        if candidate.state is State.WAITING and candidate.due is not None:
            left = max(0.0, candidate.due - now)
            return str(candidate.state), f"attempt {candidate.retries + 1} in {left:.1f} s"
        if candidate.state is State.QUEUED:
            return str(candidate.state), "it is dialled when its turn comes"
    return (str(known[0].state) if known else None), None
