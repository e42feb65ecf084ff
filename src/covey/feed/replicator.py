"""Replication of one signed log with any number of peers, without input or output of its own.

The complete peer of `hypercore.md` sections 6 to 12; hypercore 11.37.1, `lib/replicator.js`.
Messages come in decoded and leave through the `send` of each peer; time comes in as `now`,
monotonic seconds. Who owns the timer obeys `next_timer` after every call, and when `on_work` is
called.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from covey.errors import ClosedError, CoveyError, ProtocolError, StoreError
from covey.feed.replication_announce import Announcer
from covey.feed.replication_choices import REQUEST_TIMEOUT, SWAP_AFTER, in_flight_limit
from covey.feed.replication_download import Downloads
from covey.feed.replication_events import (
    ChannelDone,
    ChannelWanted,
    Event,
    PeerAdded,
    PeerRemoved,
    ReadFailed,
    ReplicationError,
)
from covey.feed.replication_messages import Conversation
from covey.feed.replication_orders import Orders
from covey.feed.replication_peer import MAX_FAILURES, ReplicationPeer, Send
from covey.feed.replication_server import RequestQueue
from covey.feed.replication_updates import Updates
from covey.feed.replication_watch import LogWatch
from covey.limits import Limits

if TYPE_CHECKING:
    from covey.feed.log import Log

SHUN_TIME = 600.0
"""Seconds for which it is remembered, by the key of a peer, that its answers did not verify."""
MAX_SHUNNED = 1024
"""Keys remembered so; the oldest is forgotten for a new one."""
MAX_UNREADABLE = 1024
"""Records told of that could not be read; nothing is told of more."""
LINGER = (20.0, 40.0)
"""Seconds from the last use of a log until peers are told that it is not downloaded any more."""


class Random(Protocol):
    """What chance is taken from; `random.Random` has it."""

    def randrange(self, stop: int, /) -> int:
        """A number from 0 to before `stop`."""
        ...

    def uniform(self, low: float, high: float, /) -> float:
        """A number between two."""
        ...


class Replicator(Orders):
    """All peers of one log, and what is wanted of it.

    `on_event` has the callbacks that get each `Event`; they and `done` must not raise. `on_work` is
    called when something was asked for or changed outside of a call with a `now`: then
    `handle_timer` is due. It is not while one is `inside`: an answer that was checked must still be
    true when it is stored, so nothing may end a write in between. Everything that is staged is for
    the owner of the log to flush.
    """

    def __init__(
        self,
        log: Log,
        *,
        random: Random,
        now: float,
        limits: Limits | None = None,
        allow_fork: bool = True,
        allow_push: bool = False,
        on_work: Callable[[], None] | None = None,
    ) -> None:
        self.log = log
        self.peers: dict[ReplicationPeer, None] = {}
        self.on_event: list[Callable[[Event], None]] = []
        self.allow_push = allow_push
        self._limits = limits or Limits()
        self._random = random
        self._on_work = on_work
        self._now = now
        self.inside = False
        """Whether a call is under way, at whose end everybody is asked for what is due then."""
        self._stirred = False
        self._closed = False
        self.active = False
        self._told_downloading = False
        self._fall_at: float | None = None
        self._expire_at: float | None = None
        self._swap_at: float | None = None
        self._delayed: dict[ReplicationPeer, None] = {}
        self._failures: dict[bytes, tuple[int, float]] = {}
        """How many answers of the peer with a key did not verify, and until when that counts."""
        self.downloads = Downloads(log, self.peers, random.randrange, self.publish, self.stir)
        self.announcer = Announcer(log, self.peers, self.downloads.pool, self._state)
        self.updates = Updates(log, self.peers, self.downloads)
        self.conversation = Conversation(self, allow_fork=allow_fork)
        self.handlers: Sequence[Callable[[ReplicationPeer, Any, float], None]]
        self.handlers = self.conversation.handlers
        self._watch = LogWatch(self).changed
        log.on_change.append(self._watch)
        log.coming = lambda: self.downloads.pool.asked
        self._unreadable: set[str] = set()
        log.unreadable = self.read_failed

    # Peers

    def add_peer(
        self,
        send: Send,
        *,
        remote_key: bytes | None = None,
        seeks: bool = False,
        round_trip: float | None = None,
        now: float,
    ) -> ReplicationPeer:
        """A channel is open on both sides and its capability was checked: say hello.

        `round_trip` in seconds where the transport knows it (None: TCP). Raises `ReplicationError`
        for a peer that is kept away, and for a log that is frozen.
        """
        self.check_open()
        self._now = now
        if self.log.frozen:
            raise ReplicationError("the log is frozen: it was signed in two ways")
        if remote_key is not None and self.shunned(remote_key, now):
            raise ReplicationError("its answers did not verify a short while ago")
        peer = ReplicationPeer(
            send, owner=self, remote_key=remote_key, seeks=seeks, limits=self._limits
        )
        if remote_key is not None:
            peer.failures = peer.earlier_failures = self._failures_of(remote_key, now)
        peer.round_trip = round_trip
        peer.requests = RequestQueue(self.log, peer, self.publish)
        self.peers[peer] = None
        for other in self.peers:
            other.most_in_flight = in_flight_limit(other.round_trip, len(self.peers))
        self.announcer.greet(peer)
        if len(self.peers) == 1:
            self._told_downloading = self.is_downloading
        self.publish(PeerAdded(peer))
        return peer

    def shunned(self, remote_key: bytes, now: float) -> bool:
        """Whether the peer with this key is kept away, because its answers did not verify."""
        return self._failures_of(remote_key, now) >= MAX_FAILURES

    def push(self, index: int) -> None:
        """Send a block of ours unasked to the peers that allow it and lack it."""
        self.check_open()
        self.conversation.push(index)

    # State

    @property
    def is_downloading(self) -> bool:
        """Whether anything is wanted: the log is in use, or requests or tickets are open."""
        downloads = self.downloads
        return (
            self.active
            or bool(downloads.pool.works or downloads.pool.ranges)
            or len(downloads.seeks) > 0
            or downloads.updates_wanted > 0
            or any(peer.table.open for peer in self.peers)
        )

    @property
    def flush_wanted(self) -> bool:
        """Whether somebody waits for a block that is staged."""
        return bool(self.downloads.pool.awaited)

    def set_downloading(self, active: bool, now: float, *, linger: float | None = None) -> None:
        """The log is in use, or not any more: peers hear of that `linger` seconds later.

        Without a number that is a random time of `LINGER`.
        """
        self.check_open()
        self._now = now
        self._fall_at = None
        if active:
            self.active = self.downloads.eager = True
            self.stir()
        elif self.active:
            wait = self._random.uniform(*LINGER) if linger is None else linger
            self._fall_at = now + wait
            if wait <= 0:
                self.handle_timer(now)

    def resume(self, now: float) -> None:
        """The store works again: go on asking, when `handle_timer` is called.

        A write may end inside of a change of the log, which no other may get into.
        """
        self._now = now
        self.downloads.suspended = False
        self.stir()

    # Time

    def next_timer(self) -> float | None:
        """When `handle_timer` is due; in the past: now. None: nothing is waited for."""
        if self._closed:
            return None
        if self._stirred:
            return self._now
        downloads = self.downloads
        if self._expire_at is None and downloads.waiting:
            self._expire_at = self._now + REQUEST_TIMEOUT
        if self._swap_at is None and downloads.pool.asked and len(self.peers) > 1:
            self._swap_at = self._now + SWAP_AFTER
        due = None
        timers = self._expire_at, self._swap_at, self._fall_at, self.updates.due
        for at in (*timers, downloads.rest_ends):
            if at is not None and (due is None or at < due):
                due = at
        for peer in self._delayed:
            at = peer.requests.due
            if at is not None and (due is None or at < due):
                due = at
        return due

    def handle_timer(self, now: float) -> None:
        """Do what is due."""
        if self._closed:
            return
        self._now = now
        self._at_once(partial(self._do_due, now), now)

    def _do_due(self, now: float) -> None:
        if self._expire_at is not None and self._expire_at <= now:
            self._expire(now)
        if self._fall_at is not None and self._fall_at <= now:
            self._fall_at = None
            self.active = self.downloads.eager = False
            self.stir()
        rest_ends = self.downloads.rest_ends
        if rest_ends is not None and rest_ends <= now:
            self.downloads.end_rests(now)
        if self.updates.due is not None and self.updates.due <= now:
            self.stir()
        for peer in list(self._delayed):
            peer.requests.handle_timer(now)
            if peer.requests.due is None:
                del self._delayed[peer]
        if self._swap_at is not None and self._swap_at <= now:
            self._swap_at = None
            for peer in list(self.peers):
                self.downloads.swap(peer, now)

    def close(self) -> None:
        """Everything that is waited for ends with `ClosedError`, every peer is let go."""
        if self._closed:
            return
        self.log.on_change.remove(self._watch)
        self.log.coming = tuple
        self.log.unreadable = lambda _: None
        for peer in list(self.peers):
            self._remove(peer, None)
        self._closed = True
        self._stirred = False
        self._fall_at = self._expire_at = self._swap_at = None
        self.end_tickets(ClosedError("the log was closed"))

    # For its own parts

    def publish(self, event: Event) -> None:
        """Tell an event to everybody who listens."""
        for callback in self.on_event:
            callback(event)

    def stir(self) -> None:
        """Have every peer asked for what it can give, at the end of this call or soon."""
        if self._stirred or self._closed:
            return
        self._stirred = True
        if not self.inside and self._on_work is not None:
            self._on_work()

    def settle(self, now: float) -> None:
        """Ask everybody, if there may be something to ask for that was not before."""
        self._now = now
        if self._closed or self.inside or not self._stirred:
            return
        self.inside = True
        try:
            self.conversation.change_fork(now)
            self.conversation.consider_forks()
            self._stirred = False
            # Who let a request lie is asked again only for what nobody else has.
            for peer in sorted(self.peers, key=lambda peer: peer.stalled):
                self.downloads.fill(peer, now)
            self.updates.check(now)
            self._tell_downloading()
        except StoreError as error:
            self.read_failed(error)
        finally:
            self.inside = False

    def note_delayed(self, peer: ReplicationPeer) -> None:
        """A request of this peer is to be refused later."""
        self._delayed[peer] = None

    def close_channel(self, peer: ReplicationPeer, error: CoveyError | None) -> None:
        """Let a peer go of our own accord."""
        if peer.active:
            self._remove(peer, error)
            self.publish(ChannelDone(peer, error))

    def end_all(self, error: CoveyError) -> None:
        """The log is over: every channel and every ticket ends."""
        for peer in list(self.peers):
            self.close_channel(peer, error)
        self.end_tickets(error)

    # PeerOwner

    def handle(self, peer: ReplicationPeer, kind: int, message: Any, now: float) -> None:
        """A peer sent a message: what it changes is asked for once it is dealt with."""
        self._at_once(partial(self.handlers[kind], peer, message, now), now)

    def peer_failed(self, peer: ReplicationPeer, error: ProtocolError, now: float) -> None:
        """A peer broke a rule: it is let go, and perhaps kept away."""
        self._now = now
        if isinstance(error, ReplicationError) and error.shun:
            peer.failures = max(peer.failures, MAX_FAILURES)
        self._remove(peer, error)
        self.settle(now)

    def store_failed(self, error: StoreError) -> None:
        """Blocks could not be written: nothing is asked for until `resume`."""
        self.downloads.store_failed(error)

    def read_failed(self, error: StoreError) -> None:
        """A record could not be read: that is told once, and everything else goes on."""
        told = str(error)
        if told not in self._unreadable and len(self._unreadable) < MAX_UNREADABLE:
            self._unreadable.add(told)
            self.publish(ReadFailed(error))

    def peer_drained(self, peer: ReplicationPeer, now: float) -> None:
        """Answer what the peer asked meanwhile."""
        self._now = now
        self._at_once(partial(self._serve, peer, now), now)

    def _serve(self, peer: ReplicationPeer, now: float) -> None:
        try:
            peer.requests.serve(now)
        except ProtocolError as error:
            self.peer_failed(peer, error, now)
            self.publish(ChannelDone(peer, error))
        if peer.requests.due is not None:
            self._delayed[peer] = None

    def peer_closed(self, peer: ReplicationPeer, remote: bool, now: float) -> None:
        """The channel is gone; wanted again when only the remote had no use for it any more."""
        self._now = now
        self._at_once(partial(self._gone, peer, remote), now)

    def _gone(self, peer: ReplicationPeer, remote: bool) -> None:
        idle = remote and not peer.remote_downloading and peer.remote.uploading
        self._remove(peer, None)
        if idle and self.is_downloading:
            self.publish(ChannelWanted(peer))

    # Its own

    def _at_once(self, work: Callable[[], object], now: float) -> None:
        outer, self.inside = self.inside, True
        try:
            work()
        finally:
            self.inside = outer
        self.settle(now)

    def check_open(self) -> None:
        """`ClosedError` when the replicator is closed."""
        if self._closed:
            raise ClosedError("the log was closed")

    def _state(self) -> tuple[bool, bool]:
        downloading = self.is_downloading
        return downloading, self.allow_push and downloading and self._fall_at is None

    def _tell_downloading(self) -> None:
        """Peers hear when we begin and end to download; a channel that neither side uses ends."""
        if self.active and self._told_downloading:
            return
        downloading = self.is_downloading
        if downloading == self._told_downloading:
            return
        self._told_downloading = downloading
        self.announcer.sync_all()
        if downloading:
            self.publish(ChannelWanted(None))
            return
        for peer in list(self.peers):
            if peer.synced and not peer.remote_downloading:
                self.close_channel(peer, None)

    def _remove(self, peer: ReplicationPeer, error: CoveyError | None) -> None:
        if not peer.active:
            return
        peer.active = False
        self.peers.pop(peer, None)
        self._delayed.pop(peer, None)
        self._remember_failures(peer)
        for other in self.peers:
            other.most_in_flight = in_flight_limit(other.round_trip, len(self.peers))
        self.downloads.release_all(peer)
        self.stir()
        self.publish(PeerRemoved(peer, error))

    def _failures_of(self, key: bytes, now: float) -> int:
        """How many answers of the peer with this key did not verify lately."""
        count, until = self._failures.get(key, (0, now))
        if until <= now:
            self._failures.pop(key, None)
            return 0
        return count

    def _remember_failures(self, peer: ReplicationPeer) -> None:
        """Who comes again has no more chances than who stays, for the time after a failure."""
        key = peer.remote_key
        if key is None or peer.failures == peer.earlier_failures:
            return
        if peer.failures <= self._failures_of(key, self._now):
            return
        self._failures.pop(key, None)
        if len(self._failures) >= MAX_SHUNNED:
            del self._failures[next(iter(self._failures))]
        self._failures[key] = peer.failures, self._now + SHUN_TIME

    def _expire(self, now: float) -> None:
        """Take requests back that were not answered in time."""
        oldest: float | None = None
        for peer in list(self.peers):
            try:
                self.downloads.expire(peer, now)
            except ReplicationError as error:
                self.close_channel(peer, error)
                continue
            left = peer.table.oldest()
            if left is not None and (oldest is None or left.sent < oldest):
                oldest = left.sent
        self.downloads.waiting = oldest is not None
        self._expire_at = None if oldest is None else oldest + REQUEST_TIMEOUT
