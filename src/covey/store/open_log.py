"""One log that is open in this process: what its sessions and its channels share.

The log and its replicator decide; this turns their wishes into timers, writes and events.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from covey.errors import ClosedError, CoveyError, FrozenError
from covey.feed import replication_events as told
from covey.feed.log import Log
from covey.feed.replication_peer import ReplicationPeer
from covey.feed.replication_tickets import Ticket
from covey.feed.replicator import Replicator
from covey.limits import Limits
from covey.owned_tasks import OwnedTasks
from covey.store import feed_events
from covey.store.clock import Chance, Clock, Timer
from covey.store.extensions import Extensions
from covey.store.feed_peer import FeedPeer
from covey.store.log_writing import LogWriting
from covey.store.progress import FeedProgress, Meter
from covey.store.records import Auth
from covey.store.storage import Storage
from covey.store.writer import Writer

logger = logging.getLogger("covey.store")

LINGER: Final = (20.0, 40.0)
"""Seconds, from and to, that a log stays wanted after its last session (`corestore.md` 4)."""
IDLE: Final = (6.0, 8.0)
"""Seconds after which a log is closed that has neither session nor channel (`corestore.md` 3)."""


class LogHost(Protocol):
    """What an open log needs of its store."""

    chance: Chance
    limits: Limits
    tasks: OwnedTasks
    writer: Writer

    @property
    def clock(self) -> Clock:
        """Time and timers."""

    @property
    def storage(self) -> Storage:
        """Where the records are."""

    def attach(self, log: OpenLog, *, again: bool) -> None:
        """Open channels for `log` on every connection that has none.

        Where a remote rejected it only when `again`: it opens the log itself once it has it.
        """

    def forget(self, log: OpenLog) -> None:
        """`log` was closed."""


class LogSession(Protocol):
    """What an open log needs of its sessions."""

    active: bool
    lingers: bool

    def publish(self, event: feed_events.FeedEvent) -> None:
        """Tell who listens, and act on it."""

    def end(self, error: CoveyError | None) -> None:
        """The log is closed."""


class LogChannel(Protocol):
    """What an open log needs of its channels."""

    connection: Any
    peer: ReplicationPeer | None

    def close(self, error: CoveyError | None = None) -> None:
        """Close the channel; an error of our side's is logged, that of a remote's too."""


class OpenLog:
    """A log with its sessions, its channels and one timer; made by the store."""

    def __init__(self, host: LogHost, core: int, auth: Auth, log: Log) -> None:
        self.host = host
        self.core = core
        self.auth = auth
        self.log = log
        self.closed = False
        self.sessions: dict[LogSession, None] = {}
        self.channels: dict[Any, LogChannel] = {}
        """By connection, from the first OPEN on."""
        self.peers: dict[ReplicationPeer, FeedPeer] = {}
        self._departed: dict[ReplicationPeer, FeedPeer] = {}
        """Peers that are gone, and whose last blocks are yet to be written."""
        self.extensions = Extensions(self, host.tasks, backlog=host.limits.extension_backlog)
        self.wanted = False
        """Whether its blocks are wanted here: a session is active, or was until lately."""
        self.searches = 0
        """How many look for peers of it now."""
        self.waiting_updates: set[Callable[[Any], None]] = set()
        """Questions for news that wait for a first peer while somebody looks."""
        self._replicator: Replicator | None = None
        self._timer: Timer | None = None
        self._timer_at = 0.0
        self.writing = LogWriting(self)
        self._leaving: Timer | None = None
        self._idle: Timer | None = None
        self._down = Meter(host.clock.time())
        self._up = Meter(host.clock.time())
        log.on_change.append(self._changed)

    def __repr__(self) -> str:
        return f"<OpenLog {self.log.key.hex()[:16]}, length {self.log.length}>"

    @property
    def replicator(self) -> Replicator:
        """Exchanges the log; made when first needed, as most logs of a large store never are."""
        if self._replicator is None:
            host = self.host
            self._replicator = Replicator(
                self.log,
                limits=host.limits,
                random=host.chance,
                now=host.clock.time(),
                on_work=self.touch,
            )
            self._replicator.on_event.append(self._told)
            self._tell_wanted(self._replicator)
        return self._replicator

    @property
    def replicator_in_use(self) -> Replicator | None:
        """The replicator, unless none was needed yet."""
        return self._replicator

    @property
    def progress(self) -> FeedProgress:
        """How far the log is here, and how fast blocks move."""
        now = self.host.clock.time()
        log = self.log
        have = log.bitfield.count(0, log.length)
        return FeedProgress(
            have=have,
            total=log.length,
            verified=have + log.staged_blocks + log.writing_blocks,
            contiguous=log.contiguous_length,
            byte_length=log.byte_length,
            peers=len(self.peers),
            downloaded_blocks=self._down.blocks,
            downloaded_bytes=self._down.bytes,
            uploaded_blocks=self._up.blocks,
            uploaded_bytes=self._up.bytes,
            download_rate=self._down.rate(now),
            upload_rate=self._up.rate(now),
        )

    # Sessions

    def add_session(self, session: LogSession) -> None:
        """A new session; an active one makes the log wanted on every connection."""
        self.sessions[session] = None
        self._cancel_idle()
        if session.active:
            self._want()

    def remove_session(self, session: LogSession) -> None:
        """A session is closed; after the last one the log lingers, then nothing is asked for."""
        if self.sessions.pop(session, self) is self or self.closed:
            return
        if self.wanted and self._leaving is None and not any(s.active for s in self.sessions):
            wait = self.host.chance.uniform(*LINGER) if session.lingers else 0.0
            self._leaving = self.host.clock.call_at(self.host.clock.time() + wait, self._left)
        self.look_idle()

    def _want(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        if self.wanted or self.log.frozen:
            return
        self.wanted = True
        self._tell_wanted(self._replicator)
        self.host.attach(self, again=True)

    def _left(self) -> None:
        """The time after the last session is over."""
        self._leaving = None
        self.wanted = False
        self._tell_wanted(self._replicator)
        self.look_idle()

    def _tell_wanted(self, replicator: Replicator | None) -> None:
        if replicator is not None:
            # No linger of its own: this one counts for connections that are yet to come too.
            replicator.set_downloading(self.wanted, self.host.clock.time(), linger=0)
            self.touch()

    # Tickets: each is followed by `touch`, as it may need a timer

    def ask(self, make: Callable[[Replicator], Ticket]) -> Ticket:
        """Have the replicator bring something; `make` calls one of its `want_` methods.

        Raises `FrozenError` for a log to which nothing is added any more.
        """
        if self.closed:
            raise ClosedError("this feed is closed")
        if self.log.frozen:
            raise self.frozen_error()
        ticket = make(self.replicator)
        self.touch()
        return ticket

    def check_store(self) -> None:
        """Raise `StoreError` while the store cannot keep what comes."""
        self.writing.check_store()

    def frozen_error(self) -> FrozenError:
        """Why nothing comes any more."""
        return FrozenError(
            f"the log {self.log.key.hex()} is frozen: its writer signed two histories; "
            "what is not here never comes"
        )

    def begin_search(self) -> Callable[[], None]:
        """Somebody looks for peers, until the returned function is called (more than once: once).

        When nobody looks any more, and there is no peer, there is no news either.
        """
        self.searches += 1
        over = False

        def end() -> None:
            nonlocal over
            if over:
                return
            over = True
            self.searches -= 1
            if self.searches:
                return
            waiting, self.waiting_updates = self.waiting_updates, set()
            if not self.peers:
                for done in waiting:
                    done(False)

        return end

    # The timer and the writing of what was received

    def touch(self) -> None:
        """Something was done with the replicator: see to its timer and to what is to be written.

        Nothing while the replicator is at work, as a write that ends may take away on what it
        counts: whoever called it comes here afterwards.
        """
        replicator, writing = self._replicator, self.writing
        if replicator is None or self.closed or replicator.inside:
            return
        if self.log.staged_blocks or writing.held_back:
            writing.look(soon=replicator.flush_wanted)
        due = replicator.next_timer()
        if due is not None and (self._timer is None or due < self._timer_at):
            # One that comes too early finds nothing to do: cheaper than moving it each time.
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = self.host.clock.call_at(due, self._timer_due)

    def flush(self) -> None:
        """Write the blocks that were received; those that cannot be are asked for again later."""
        self.writing.flush()

    def all_written(self) -> None:
        """All that was received is written: peers that left are done with."""
        self._departed.clear()

    def _timer_due(self) -> None:
        self._timer = None
        self.replicator.handle_timer(self.host.clock.time())
        self.touch()

    # What log and replicator tell

    def _changed(self, change: Any) -> None:
        event = feed_events.of_change(change)
        if event is not None:
            self._publish(event)

    def _told(self, event: told.Event) -> None:
        now = self.host.clock.time()
        match event:
            case told.Downloaded(peer, index, size):
                self._down.add(size, now)
                if (shown := self.peers.get(peer) or self._departed.get(peer)) is not None:
                    shown.count_down(size, now)
                    self._publish(feed_events.Downloaded(index, size, shown))
            case told.Uploaded(peer, index, size):
                self._up.add(size, now)
                if (shown := self.peers.get(peer)) is not None:
                    shown.count_up(size, now)
                    self._publish(feed_events.Uploaded(index, size, shown))
            case told.ExtensionReceived(peer, name, payload):
                if (shown := self.peers.get(peer)) is not None:
                    self.extensions.received(shown, name, payload)
            case told.PeerRemoved(peer, error):
                if (shown := self.peers.pop(peer, None)) is not None:
                    if self.log.staged_blocks or self.log.writing_blocks:
                        self._departed[peer] = shown
                    self.extensions.peer_gone(shown)
                    self._publish(feed_events.PeerRemoved(shown, error))
                self.look_idle()
            case told.ChannelDone(peer, error):
                self._close_channel(peer, error)
            case told.ChannelWanted():
                self.host.attach(self, again=False)
            case _:
                self._told_of_trouble(event)

    def _told_of_trouble(self, event: told.Event) -> None:
        match event:
            case told.InvalidData(peer, error):
                if (shown := self.peers.get(peer)) is not None:
                    self._publish(feed_events.VerificationFailed(shown, error))
            case told.InvalidRequest(peer, error):
                if (shown := self.peers.get(peer)) is not None:
                    self._publish(feed_events.RequestRefused(shown, error))
            case told.StoreFailed(error):
                logger.warning("%r: the store failed: %s", self, error)
                self._publish(feed_events.StoreFailed(error))
                self.writing.store_failed(error)
            case told.ReadFailed(error):
                logger.warning("%r: what is stored cannot be read: %s", self, error)
                self._publish(feed_events.ReadFailed(error))
            case told.Conflict(length, fork, peer):
                self._publish(feed_events.ConflictFound(length, fork, self.peers.get(peer)))
                why = FrozenError(
                    f"the log {self.log.key.hex()} is frozen: its writer signed two histories "
                    f"of {length} blocks"
                )
                self._end_sessions(why)

    def _publish(self, event: feed_events.FeedEvent) -> None:
        for session in tuple(self.sessions):
            session.publish(event)

    # Channels

    def add_peer(self, peer: ReplicationPeer, connection: Any) -> None:
        """A channel is open on both sides and the remote knows the key."""
        shown = self.peers[peer] = FeedPeer(peer, connection, self.host.clock)
        self._publish(feed_events.PeerAdded(shown))
        self.touch()

    def add_channel(self, channel: LogChannel) -> None:
        """A channel was opened here, and waits for the remote."""
        self.channels[channel.connection] = channel
        self._cancel_idle()

    def remove_channel(self, channel: LogChannel) -> None:
        """A channel is gone."""
        if self.channels.get(channel.connection) is channel:
            del self.channels[channel.connection]
            self.look_idle()

    def let_go(self, peer: FeedPeer, error: CoveyError) -> None:
        """Close the channel to a peer that broke a rule."""
        self.replicator.close_channel(peer.replication, error)

    def _close_channel(self, peer: ReplicationPeer, error: CoveyError | None) -> None:
        for channel in tuple(self.channels.values()):
            if channel.peer is peer:
                channel.close(error)

    # The end

    def look_idle(self) -> None:
        """Close the log soon when nobody uses it."""
        if not (self.closed or self.sessions or self.channels or self._idle is not None):
            when = self.host.clock.time() + self.host.chance.uniform(*IDLE)
            self._idle = self.host.clock.call_at(when, self.close)

    def _cancel_idle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def close(self, error: CoveyError | None = None) -> None:
        """Write what was received, end the sessions, close the channels. Twice is fine."""
        if self.closed:
            return
        self.flush()
        self.closed = True
        self._end_sessions(error)
        for channel in tuple(self.channels.values()):
            channel.close(error)
        self.channels.clear()
        self.writing.close()
        for timer in (self._timer, self._leaving, self._idle):
            if timer is not None:
                timer.cancel()
        if self._replicator is not None:
            self._replicator.close()
        self.host.forget(self)

    def _end_sessions(self, error: CoveyError | None) -> None:
        for session in tuple(self.sessions):
            session.end(error)
        self.sessions.clear()
