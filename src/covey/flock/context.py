"""What the parts of a flock share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from covey.address import Address
from covey.conn.hub_entry import was_found
from covey.conn.staging import Staging
from covey.conn.story import History, host_story
from covey.errors import AddressError, ClosedError
from covey.events import EventStream, LiveView
from covey.flock.admission import Whitelist
from covey.flock.candidates import Candidate
from covey.flock.clock import Clock
from covey.flock.events import FlockEvent, Peer
from covey.flock.self_meetings import SelfMeetings
from covey.limits import Limits
from covey.peer_type import peer_type


@dataclass(slots=True, kw_only=True)
class Context:
    """Settings and services of one flock. `max_connections` 0 is no limit of the flock's own.

    `attempts` are the candidates whose dial or handshake is under way, `handshakes` the attempts
    (by id) of who connected and shakes hands.
    """

    staging: Staging
    history: History
    clock: Clock
    limits: Limits
    live: LiveView[Any]
    whitelist: Whitelist
    handshake: str
    max_connections: int
    closing: bool = False
    attempts: set[Candidate] = field(default_factory=set)
    handshakes: set[int] = field(default_factory=set)
    events: EventStream[FlockEvent] = field(init=False)
    selves: SelfMeetings = field(init=False)

    def __post_init__(self) -> None:
        self.events = EventStream(backlog=self.limits.event_backlog)
        self.selves = SelfMeetings(
            self.clock, self.publish, dialling=self.attempts, accepting=self.handshakes
        )

    def publish(self, event: FlockEvent) -> None:
        """Tell the listeners; the counts are up to date when this is called."""
        self.events.publish(event)
        self.live.changed()

    def address_of(self, host: str, port: int, key: bytes | None = None) -> str:
        """The multiserver address under which a place is staged and dialled; empty if none can."""
        try:
            return str(Address.net(host, port, self.handshake, key))
        except AddressError:
            return ""

    def address(self, candidate: Candidate) -> str:
        """The multiserver address of a candidate."""
        return self.address_of(candidate.host, candidate.port, candidate.key)

    def peer(self, candidate: Candidate) -> Peer:
        """A snapshot of a candidate."""
        return Peer(
            host=candidate.host,
            port=candidate.port,
            channel=candidate.name,
            retries=candidate.retries,
            source=candidate.source,
            address=self.address(candidate),
        )

    def tell(self, candidate: Candidate, step: str, text: str, **fields: Any) -> None:
        """Add a line to the story of a candidate."""
        candidate.last = text
        address = self.address(candidate)
        if address:
            self.history.tell(address, step, text, stranger=was_found(candidate.source), **fields)

    def tell_host(self, host: str, step: str, text: str, **fields: Any) -> None:
        """Add a line to the story of somebody who came and was not let in: only its host counts."""
        self.history.tell(host_story(host), step, text, stranger=True, via="incoming", **fields)

    def stage(self, candidate: Candidate, alike: Iterable[Candidate] = ()) -> None:
        """Show a candidate in the staging pool; `alike` have the same address, in any topic."""
        address = self.address(candidate)
        kind = peer_type(candidate.host)
        data = {
            "type": kind,
            "source": candidate.source,
            "topic": candidate.name,
            "topics": tuple(sorted({one.name for one in (candidate, *alike)})),
        }
        if address:
            with contextlib.suppress(ClosedError):  # a given pool may be closed before us
                if self.staging.stage(address, data, from_network=True, source=candidate.source):
                    self.tell(candidate, "staged", f"staged as {kind}", type=kind)

    def unstage(self, candidate: Candidate) -> None:
        """Take a candidate out of the staging pool."""
        address = self.address(candidate)
        if address:
            with contextlib.suppress(ClosedError):
                self.staging.unstage(address)
