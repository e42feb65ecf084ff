"""One remote that replicates one log: what it told, what it was asked, how to tell it things."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from covey.errors import ProtocolError, StoreError
from covey.feed.availability import Availability
from covey.feed.messages import Cancel, ExtensionMessage
from covey.feed.replication_choices import IN_FLIGHT, RemoteHead
from covey.feed.replication_requests import RequestTable
from covey.feed.replication_wants import OwnWants, RemoteWants
from covey.limits import Limits

if TYPE_CHECKING:
    from covey.feed.replication_server import RequestQueue
    from covey.feed.replication_tickets import RangeTicket

SYNC, REQUEST, CANCEL, DATA, NO_DATA, WANT, UNWANT, BITFIELD, RANGE, EXTENSION = range(10)
"""The kinds of messages: their type numbers on the wire."""
MAX_UNASKED = 64
"""Answers to nothing we asked until the channel is closed; as many as requests without sense."""
MAX_FAILURES = 2
"""Answers that do not verify until the channel is closed: the first may be a conflict to find."""

Send: TypeAlias = Callable[[int, Any], bool]
"""Sends a message of a kind; False when the channel is full, until `ReplicationPeer.drained`."""


class PeerOwner(Protocol):
    """Who looks after a peer."""

    def handle(self, peer: ReplicationPeer, kind: int, message: Any, now: float) -> None:
        """It sent a message of one of the kinds above."""
        ...

    def peer_failed(self, peer: ReplicationPeer, error: ProtocolError, now: float) -> None:
        """A handler raised: the peer is over."""
        ...

    def read_failed(self, error: StoreError) -> None:
        """A record could not be read."""
        ...

    def stir(self) -> None:
        """There may be something to ask for that was not before."""
        ...

    def peer_drained(self, peer: ReplicationPeer, now: float) -> None:
        """Its channel takes messages again."""
        ...

    def peer_closed(self, peer: ReplicationPeer, remote: bool, now: float) -> None:
        """Its channel is gone."""
        ...


class ReplicationPeer:
    """One channel for the log. The shell calls `receive`, `drained` and `closed`, nothing else.

    Figures for whoever looks: `remote` (its head), `claims` (the blocks it says it holds),
    `in_flight`, `blocks_down`, `bytes_down`, `blocks_up`, `bytes_up`, `failures`,
    `invalid_requests`, `backoffs`, `unasked`, and `paused`, which says why it is asked for nothing.
    """

    def __init__(
        self,
        send: Send,
        *,
        owner: PeerOwner,
        remote_key: bytes | None,
        seeks: bool,
        limits: Limits,
    ) -> None:
        self._send = send
        self._owner = owner
        self.remote_key = remote_key
        self.seeks = seeks
        self.active = True
        """Whether the channel is open."""
        self.writable = True
        """Whether the channel is drained: only then are requests answered."""
        self._begin_told(limits)
        self._begin_asked()
        self._begin_behaviour()

    def _begin_told(self, limits: Limits) -> None:
        """Nothing was told yet, and nothing follows from it."""
        self.synced = False
        self.remote = RemoteHead(0, 0, False, True, 0)
        self.remote_downloading = True
        self.remote_has_manifest = False
        self.remote_allow_push = False
        self.claims = Availability(limits)
        self.remote_wants = RemoteWants()
        self.requests: RequestQueue
        self._heard_extension = ""
        self._told_extension = ""

        # With our own head; see `Replicator._reconsider`.
        self.askable_end = 0
        self.agreed = 0
        self.offers_upgrade = False
        self.told_able = True
        """It was told that we can prove our head to it."""
        self.complete_told = 0
        """So many blocks were announced as all there are."""
        self.pushed_length = 0

    def _begin_asked(self) -> None:
        """Nothing was asked yet."""
        self.table = RequestTable()
        self.wants = OwnWants()
        self.round_trip: float | None = None
        self.most_in_flight = IN_FLIGHT
        self.stalled = False
        """A request was not answered in time: one at a time, until it says anything."""
        self.upgrade_rest = 0.0
        """No upgrade or fork is asked for before this time: the last one was not answered."""
        self.missed_upgrades = 0
        self.candidates: deque[int] = deque()
        """Single blocks to look at for this peer."""
        self.unseen: set[int] = set()
        """Single blocks that it cannot be asked for as things are."""
        self.ranges: OrderedDict[RangeTicket, None] | None = None
        """Ranges in which it may have something; None: to be looked through anew."""
        self.seeks_looked_at = 0
        """So many additions to the seeks were looked at in vain for this peer."""
        self.cursors: dict[RangeTicket, int] = {}

    def _begin_behaviour(self) -> None:
        """It has done nothing yet, good or bad."""
        self.paused: str | None = None
        self.probing = False
        """It was asked for a head to compare, after an answer that did not verify."""
        self.doubt = 0
        """What is to be paid back by good answers; see `replication_paths`."""
        self.failures = self.backoffs = self.unasked = self.invalid_requests = 0
        self.earlier_failures = 0
        """So many of the failures were on earlier connections."""
        self.blocks_down = self.bytes_down = self.blocks_up = self.bytes_up = 0

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        return len(self.table.open)

    @property
    def have(self) -> int:
        """How many blocks it claims to hold."""
        return self.claims.count()

    @property
    def length(self) -> int:
        """The length of its log, as it told."""
        return self.remote.length

    def receive(self, kind: int, message: Any, now: float) -> None:
        """Take a decoded message; kinds from 10 on are ignored.

        `ProtocolError` when the remote broke a rule: its connection is to end, or for a
        `ReplicationError` what its `scope` says. The peer is closed then.
        """
        if self.active and 0 <= kind <= EXTENSION:
            try:
                self._owner.handle(self, kind, message, now)
            except ProtocolError as error:
                self._owner.peer_failed(self, error, now)
                raise
            except StoreError as error:
                self._owner.read_failed(error)

    def drained(self, now: float) -> None:
        """The channel, that was full, is empty again."""
        self.writable = True
        if self.active:
            self._owner.peer_drained(self, now)

    def closed(self, now: float, *, remote: bool = False) -> None:
        """The channel or connection is gone; `remote`: the remote closed the channel alone."""
        if self.active:
            self._owner.peer_closed(self, remote, now)

    def tell(self, kind: int, message: Any) -> None:
        """Send a message; nothing once the channel is closed."""
        if self.active:
            self.writable = self._send(kind, message)

    def send_extension(self, name: str, payload: bytes) -> None:
        """Send `payload` for the extension `name`."""
        told = "" if name == self._told_extension else name
        self.tell(EXTENSION, ExtensionMessage(told, payload))
        # Only now: what cannot be sent has told the peer no name either.
        self._told_extension = name

    def hear_extension(self, message: ExtensionMessage) -> str:
        """The name that a received extension message is for."""
        if message.name:
            self._heard_extension = message.name
        return self._heard_extension

    def cancel(self, number: int) -> None:
        """Take a request back; nothing when it is not under way."""
        if self.table.cancel(number) is not None:
            self.tell(CANCEL, Cancel(number))
            # There is room for another, and perhaps nobody is asked for a longer head any more.
            self._owner.stir()
