"""The connections of a flock: one per peer, its handler, and what happens when it ends."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
from dataclasses import replace

from covey.errors import ClosedError, HandshakeError, HandshakeTimeout
from covey.flock import policy
from covey.flock.admission import canonical_host
from covey.flock.candidates import Candidate
from covey.flock.context import Context
from covey.flock.events import (
    ConnectionClosed,
    ConnectionInfo,
    HandlerFailed,
    HandshakeTimedOut,
    Peer,
    PeerConnected,
    PeerRejected,
    RedundantConnection,
)
from covey.flock.hooks import StreamHook, StreamIdentity, outcome
from covey.flock.policy import Cause, Contender, Reason
from covey.flock.records import Handler, Hooks, Record, RosterOwner, Stage
from covey.flock.registry import Outcome, Registry
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.owned_tasks import OwnedTasks

logger = logging.getLogger("covey.flock")


class Roster:
    """All connections of a flock from the raw handshake's end on."""

    def __init__(
        self,
        context: Context,
        *,
        own_id: bytes,
        own_key: bytes,
        hooks: Hooks,
    ) -> None:
        self._context = context
        self._own_id = own_id
        self._own_key = own_key
        self._hooks = hooks
        self._registry = Registry()
        self._records: dict[int, Record] = {}
        self._by_link: dict[int, Record] = {}
        # Who is identifying or held, and who settles: asked for before every dial.
        self._dialled: set[Record] = set()
        self._accepted: set[Record] = set()
        self._settling: set[Record] = set()
        self._tasks = OwnedTasks(logger)
        self._owner: RosterOwner  # by `report_to`: the two know each other

    def report_to(self, owner: RosterOwner) -> None:
        """Tell `owner` what becomes of candidates. Called once, before anything else."""
        self._owner = owner

    # What it is asked

    @property
    def connected(self) -> int:
        """Peers whose connection their user has been told of."""
        return len(self._registry) - len(self._settling)

    @property
    def pending(self) -> int:
        """Connections whose handshake is over, but not yet, or not any more, their peer's."""
        return len(self._dialled) + len(self._accepted) + len(self._settling)

    @property
    def pending_outgoing(self) -> int:
        """Those of `pending` that this side dialled."""
        return len(self._dialled)

    @property
    def full(self) -> bool:
        """Whether no further peer may be connected."""
        allowed = self._context.max_connections
        return 0 < allowed <= len(self._registry)

    def registered(self) -> list[Record]:
        """The connected peers, oldest first."""
        records = [self._by_link[link.id] for link in self._registry]
        return [record for record in records if record.stage is not Stage.SETTLING]

    def all(self) -> list[Record]:
        """Every connection that has not ended."""
        return list(self._records.values())

    def find(self, connection: Connection) -> Record | None:
        """The record of a connection that has not ended."""
        return self._records.get(connection.id)

    def _move(self, record: Record, stage: Stage) -> None:
        record.stage = stage
        waiting = self._dialled if record.info.initiator else self._accepted
        for group, stages in (
            (waiting, (Stage.IDENTIFYING, Stage.HELD)),
            (self._settling, (Stage.SETTLING,)),
        ):
            (group.add if stage in stages else group.discard)(record)

    # A connection arrives

    async def arrive(
        self, connection: Connection, info: ConnectionInfo, origin: Candidate | None
    ) -> None:
        """Take a connection whose handshake is over: learn its id, decide, register or close it."""
        record = self._take_in(connection, info, origin)
        if record is not None and self._hooks.stream is not None:
            await self._ask(record, self._hooks.stream)

    def arrive_later(self, connection: Connection, info: ConnectionInfo) -> None:
        """`arrive` for an accepted connection; the `stream` hook gets a task of its own."""
        record = self._take_in(connection, info, None)
        if record is not None and self._hooks.stream is not None:
            name = f"covey flock stream {connection.id}"
            self._tasks.spawn(self._ask(record, self._hooks.stream), name)

    def _take_in(
        self, connection: Connection, info: ConnectionInfo, origin: Candidate | None
    ) -> Record | None:
        """The new record; it is decided on at once where no hook has to be asked."""
        known = self._records.get(connection.id)
        if known is not None:  # a shared hub gave a connection that this flock has already
            self._lead_to(known, origin)
            return None
        record = Record(connection, info, origin)
        self._records[connection.id] = record
        self._move(record, Stage.IDENTIFYING)
        connection.on_close(lambda _: self._closed(record))
        connection.on_remote_end(lambda _: self._remote_ended(record))
        if self._hooks.stream is None:
            self._identified(record, StreamIdentity())
        return record

    async def _ask(self, record: Record, stream: StreamHook) -> None:
        """Have the application's hooks find out who it is."""
        connection, info = record.connection, record.info
        try:
            async with asyncio.timeout(self._hooks.timeout):
                told = await outcome(stream(connection, info))
                if self._hooks.connect is not None:
                    made = await outcome(self._hooks.connect(connection, info))
                    record.info = replace(record.info, stream=made)
        except TimeoutError:
            self._context.publish(HandshakeTimedOut(record.info))
            connection.abort(HandshakeTimeout("the stream hook did not finish in time"))
        except asyncio.CancelledError:
            connection.abort(None, CloseReason.SHUTDOWN)
            raise
        except Exception as error:  # the edge of the application's hook
            if not (connection.closed and isinstance(error, ClosedError)):
                logger.exception("the stream hook failed on %r", connection)
                self._context.publish(HandlerFailed(connection, record.info, error))
            connection.abort(HandshakeError(f"the stream hook failed: {error}"))
        else:
            if not isinstance(told, StreamIdentity):
                told = StreamIdentity(remote_id=told)
            self._identified(record, told)

    def _identified(self, record: Record, identity: StreamIdentity) -> None:
        if record.finished or record.connection.closed:
            return
        link = self._link(record, identity)
        record.link = link
        record.info = replace(
            record.info,
            id=identity.remote_id or record.connection.remote_id or record.connection.remote_key,
            key=record.connection.remote_key,
        )
        self._by_link[link.id] = record
        existing = self._registry.get(link.theirs)
        if existing is None and self.full and link.theirs != link.mine:
            self._refuse(record)
            return
        now = self._context.clock.now()
        silent = existing is not None and self._is_silent(self._by_link[existing.id], now)
        decision = self._registry.offer(link, now=now, silent=silent)
        other = self._by_link.get(decision.other.id) if decision.other else None
        if decision.outcome is Outcome.SELF:
            self._end(record, CloseReason.SELF)
            self._owner.met_self(record)
        elif decision.outcome is Outcome.REGISTERED:
            self._take(record, link)
        elif other is not None and decision.cause is not None:
            self._resolve(record, other, decision.outcome, decision.cause)

    def _link(self, record: Record, identity: StreamIdentity) -> Contender:
        """What the rules need: keys where they are proven, claimed ids otherwise."""
        connection = record.connection
        proven = connection.remote_key is not None and identity.remote_id is None
        if proven:
            theirs, mine = connection.remote_key or b"", self._own_key
        else:
            theirs = identity.remote_id or connection.remote_id or b""
            mine = identity.own_id or self._own_id
        return Contender(
            id=connection.id,
            type=record.info.type,
            initiator=record.info.initiator,
            mine=policy.peer_key(mine, identity.topic),
            theirs=policy.peer_key(theirs, identity.topic),
            opened_at=self._context.clock.now(),
            proven=proven,
        )

    def _is_silent(self, record: Record, now: float) -> bool:
        """Whether nothing came for longer than a living peer's keep-alives allow."""
        read = record.connection.bytes_read
        if read != record.seen[0]:
            record.seen = (read, now)
        if not record.connection.attempt.keeps_alive:
            return False
        dead_after = policy.silent_after(self._context.limits.keep_alive)
        return dead_after is not None and now - record.seen[1] >= dead_after

    def _resolve(self, new: Record, other: Record, outcome: Outcome, cause: Cause) -> None:
        """Two connections of one peer: `other` was there before."""
        if outcome is Outcome.REPLACED:
            new.candidates, other.candidates = other.candidates, []
            self._end(other, CloseReason.REDUNDANT)
            self._context.publish(RedundantConnection(other.connection, other.info, cause))
            self._register(new)
            return
        self._lead_to(other, new.origin)
        if cause is Cause.UNPROVEN:
            self._probe(other)
        if outcome is Outcome.HELD:
            self._move(new, Stage.HELD)
            when = self._context.clock.now() + policy.HOLD
            new.timer = self._context.clock.call_at(when, lambda: self._let_go(new, cause))
        else:
            self._drop(new, cause)

    def _probe(self, record: Record) -> None:
        """Its peer's id was claimed: by that peer, if its host is gone, which is seen in seconds.

        For a while only: a claim must not make a connection give way sooner than others for good.
        """
        if record.probing is None and not record.connection.closed:
            record.connection.probe()
            when = self._context.clock.now() + policy.PROBED
            record.probing = self._context.clock.call_at(when, lambda: self._probed(record))

    def _probed(self, record: Record) -> None:
        record.probing = None
        record.connection.probe(urgent=False)

    def _lead_to(self, record: Record, origin: Candidate | None) -> None:
        """A candidate turned out to be the peer of a connection that there is already."""
        if origin is not None:
            record.candidates.append(origin)
            self._owner.peer_connected(record)

    def _let_go(self, record: Record, cause: Cause) -> None:
        """The remote did not end the other connection: drop this one."""
        record.timer = None
        if record.link is None or not self._registry.is_held(record.link):
            return
        other = self._registry.get(record.link.theirs)
        if other is not None and self._by_link[other.id].connection.remote_ended:
            # It chose this one, and only our reader is not through with the other.
            self._by_link[other.id].connection.start_close(CloseReason.REDUNDANT)
            return
        self._registry.remove(record.link)
        self._drop(record, cause)
        self.settle()

    def _drop(self, record: Record, cause: Cause) -> None:
        self._end(record, CloseReason.REDUNDANT)
        self._context.publish(RedundantConnection(record.connection, record.info, cause))

    def _refuse(self, record: Record) -> None:
        host, port = record.info.host, record.info.port
        self._end(record, CloseReason.LIMIT)
        text = f"{self._context.max_connections} peers are connected already"
        peer = Peer(host, port, record.info.channel)
        self._context.publish(PeerRejected(peer, Reason.MAX_CONNECTIONS, text))
        self._owner.no_room(record)

    def _take(self, record: Record, link: Contender) -> None:
        """It is the only connection of its peer, for now or for good."""
        if policy.may_be_replaced(link, dialling=self._is_dialling(record)):
            self._move(record, Stage.SETTLING)
            when = self._context.clock.now() + policy.SETTLE
            record.timer = self._context.clock.call_at(when, lambda: self._settle_late(record))
        else:
            self._register(record)

    def _is_dialling(self, record: Record) -> bool:
        host = canonical_host(record.info.host)
        return self._owner.is_dialling(host, record.connection.remote_key)

    def settle(self) -> None:
        """Tell of every connection that nothing can replace any more."""
        for record in tuple(self._settling):
            crossing = record.timer is not None and self._is_dialling(record)
            # Where another one is held the remote is about to end one of the two.
            if not crossing and not self._holds_another(record):
                self._register(record)

    def _settle_late(self, record: Record) -> None:
        record.timer = None
        self.settle()

    def _holds_another(self, record: Record) -> bool:
        return record.link is not None and self._registry.holds(record.link.theirs)

    def _register(self, record: Record) -> None:
        if record.timer is not None:
            record.timer.cancel()
            record.timer = None
        self._move(record, Stage.REGISTERED)
        record.seen = (record.connection.bytes_read, self._context.clock.now())
        if record.origin is not None and record.origin not in record.candidates:
            record.candidates.append(record.origin)
        self._owner.peer_connected(record)
        self._context.publish(PeerConnected(record.connection, record.info))
        # A listener may have closed it; then there is nobody to handle.
        if self._hooks.handler is not None and not record.finished and not self._context.closing:
            name = f"covey flock handler {record.connection.id}"
            record.handler = self._tasks.spawn(self._handle(self._hooks.handler, record), name)

    # The application's handler

    async def _handle(self, handler: Handler, record: Record) -> None:
        connection = record.connection
        taken_over = False
        try:
            running = handler(connection if record.info.stream is None else record.info.stream)
            if inspect.isawaitable(running):
                await running
                record.origin = None  # this side is done with the peer: no retry
            else:
                taken_over = True
        except asyncio.CancelledError:
            raise
        except Exception as error:
            if not (connection.closed and isinstance(error, ClosedError)):
                logger.exception("the handler of %r failed", connection)
                self._context.publish(HandlerFailed(connection, record.info, error))
        finally:
            if taken_over:
                record.handler = None
                if connection.remote_ended:
                    self._remote_ended(record)
            else:
                connection.start_close()

    # A connection ends

    def _end(self, record: Record, reason: CloseReason) -> None:
        """Close a connection that is not, or no longer, its peer's."""
        self._move(record, Stage.ENDING)
        record.connection.start_close(reason)

    def _remote_ended(self, record: Record) -> None:
        """The remote ended its half: so does this side, unless a handler decides about that."""
        connection = record.connection
        if connection.closed:
            return
        if record.stage is Stage.SETTLING and connection.messages_read:
            self._register(record)  # what it said is for the user: the remote had chosen this one
        if record.stage is Stage.HELD:
            self._end(record, CloseReason.REMOTE_END)
        elif record.stage is Stage.SETTLING:
            connection.start_close(CloseReason.REMOTE_END)
        elif record.stage is Stage.REGISTERED and record.handler is None:
            with contextlib.suppress(ClosedError):
                connection.end()  # not `close`: what was received can still be read

    def _closed(self, record: Record) -> None:
        """The socket is closed: the lists first, then the event, then what follows."""
        record.finished = True
        stage = record.stage
        self._move(record, Stage.ENDING)
        self._records.pop(record.connection.id, None)
        for timer in (record.timer, record.probing):
            if timer is not None:
                timer.cancel()
        successor = self._forget_link(record)
        self._see_handler_out(record)
        connection, error = record.connection, record.connection.close_error
        reason, text = connection.close_reason, connection.close_text
        self._context.publish(ConnectionClosed(record.info, connection, error, reason, text))
        if stage is Stage.IDENTIFYING:
            self._owner.attempt_failed(record, error or HandshakeError("closed too early"))
        elif stage in (Stage.REGISTERED, Stage.SETTLING) and successor is not None:
            self._promote(successor, record)
        elif stage in (Stage.REGISTERED, Stage.SETTLING):
            self._owner.peer_lost(record)
        self.settle()
        self._owner.slot_free()

    def _forget_link(self, record: Record) -> Record | None:
        if record.link is None:
            return None
        successor = self._registry.remove(record.link)
        self._by_link.pop(record.link.id, None)
        return self._by_link.get(successor.id) if successor is not None else None

    def _promote(self, record: Record, ended: Record) -> None:
        """The remote ended the other connection: this one is the peer's now."""
        record.candidates, ended.candidates = ended.candidates, []
        self._register(record)

    def _see_handler_out(self, record: Record) -> None:
        """Let a handler read what is left, but not outlive its connection for long."""
        task = record.handler
        if task is not None and not task.done():
            when = self._context.clock.now() + self._context.limits.close_timeout
            timer = self._context.clock.call_at(when, task.cancel)
            task.add_done_callback(lambda _: timer.cancel())

    # The end

    async def close(self) -> None:
        """Cancel handlers and hooks, close every connection, wait for all of it."""
        for record in self.all():
            if record.timer is not None:
                record.timer.cancel()
        closing = [record.connection for record in self.all()]  # also those that end with a handler
        await self._tasks.end()
        await asyncio.gather(*(each.close(CloseReason.SHUTDOWN) for each in closing))
