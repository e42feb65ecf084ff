"""The candidates of a flock: found, queued, dialled, tried again, dropped."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from covey.conn.hub_entry import APPLICATION
from covey.errors import (
    AddressError,
    ConnectTimeout,
    CoveyError,
    SelfConnection,
)
from covey.flock import policy
from covey.flock.admission import Screen, canonical_host
from covey.flock.candidates import Candidate, CandidateState, CandidateTable, DialQueue
from covey.flock.clock import Timer
from covey.flock.context import Context
from covey.flock.events import (
    PeerBanned,
    PeerConnectFailed,
    PeerConnecting,
    PeerDiscovered,
    PeerDropped,
    PeerRejected,
)
from covey.flock.gate import DialGate
from covey.flock.policy import Reason
from covey.flock.records import RosterView
from covey.flock.watch import OutgoingWatch, info_of
from covey.host_port import parse_ip, show
from covey.net.connection import Connection
from covey.owned_tasks import OwnedTasks

logger = logging.getLogger("covey.flock")


class Pursuit:
    """Decides whom to dial when, by the rules in `policy`, `admission` and `candidates`.

    `dial(candidate, watch)` makes the connection; with `share` one connection to an address
    serves all topics that know it.
    """

    def __init__(
        self,
        context: Context,
        roster: RosterView,
        *,
        dial: Callable[[Candidate, OutgoingWatch], Awaitable[Connection]],
        screen: Screen,
        share: bool,
    ) -> None:
        limits = context.limits
        self._context = context
        self._roster = roster
        self._dial = dial
        self._screen = screen
        self._bans = screen.bans
        self._share = share
        self._table = CandidateTable(
            per_topic=limits.max_candidates, ports_per_host=limits.max_ports_per_host
        )
        self._queue = DialQueue()
        self._gate = DialGate(context, self.kick)
        self._attempts = context.attempts
        self._timers: dict[Candidate, Timer] = {}
        self._kicking = False
        self._kick_again = False
        self._tasks = OwnedTasks(logger)
        self._dials: dict[Candidate, asyncio.Task[None]] = {}

    @property
    def queued(self) -> int:
        """Candidates that wait to be dialled; those that wait for a retry are not among them."""
        return len(self._queue)

    @property
    def attempts(self) -> int:
        """Dials and handshakes under way."""
        return len(self._attempts)

    def is_dialling(self, host: str, key: bytes | None) -> bool:
        """Whether an attempt is under way that may lead to the peer with `key` on `host`.

        Where a host name leads is not known here.
        """
        return any(
            one.key in (None, key) and (one.host == host or parse_ip(one.host) is None)
            for one in self._attempts
        )

    def candidates(self) -> list[Candidate]:
        """All candidates of all topics."""
        return list(self._table)

    def at(self, host: str, port: int) -> list[Candidate]:
        """The candidates of all topics with that address."""
        return self._table.at(host, port)

    # Found, banned, left

    def found(
        self, name: bytes, host: str, port: int, source: str, key: bytes | None = None
    ) -> bool:
        """A source, or the application, names a peer; True when it is (again) to be dialled.

        `key` is the one it must prove, if the caller knows it. Where that is another one than
        before, what goes on there without it no longer counts: the place is found anew.
        """
        host = canonical_host(host)
        refusal = self._refusal(name, host, port, source, key)
        candidate = self._table.get(name, host, port)
        fresh = candidate is None
        if candidate is None:
            candidate = Candidate(host=host, port=port, name=name, source=source)
        if refusal is not None:
            if refusal[0] is Reason.DUPLICATE:
                candidate.key = key or candidate.key  # for when its connection is lost
            self._reject(candidate, *refusal)
            return False
        if key is not None and key != candidate.key:
            if not fresh:
                self._forget(candidate)
                candidate = Candidate(host=host, port=port, name=name, source=source)
                fresh = True
            candidate.key = key
        if source == APPLICATION:
            candidate.source = source  # from now on it is one that the user chose
        if fresh:
            self._take_in(candidate)
        if self._is_served(candidate):
            return False
        text = f"found by {source}"
        self._context.tell(candidate, "found", text, source=source, topic=name)
        self._context.stage(candidate, self._named_alike(candidate))
        candidate.state = CandidateState.QUEUED
        self._queue.push(candidate)
        self._context.publish(PeerDiscovered(self._context.peer(candidate)))
        self.kick()
        return True

    def ban(self, name: bytes, host: str, port: int) -> None:
        """Dial it no more for this topic; a connection that is open stays."""
        host = canonical_host(host)
        self._bans.add(host, port, name, Reason.APPLICATION)
        candidate = self._table.get(name, host, port)
        shown = candidate or Candidate(host=host, port=port, name=name, source=APPLICATION)
        if candidate is not None and candidate.state is not CandidateState.CONNECTED:
            self._forget(candidate)
        self._context.tell(
            shown, "banned", "banned by the application", reason=str(Reason.APPLICATION)
        )
        self._context.publish(PeerBanned(self._context.peer(shown), Reason.APPLICATION))

    def lift(self, name: bytes, host: str, port: int) -> bool:
        """Take back the application's ban."""
        return self._bans.lift(canonical_host(host), port, name)

    def leave(self, name: bytes) -> None:
        """Cancel the queue, the retries and the dials of a topic; connections stay."""
        for candidate in self._table.of(name):
            if candidate.state is CandidateState.CONNECTED:
                candidate.left = True
            else:
                self._forget(candidate)
                self._context.tell(candidate, "left", "its topic was left")
        self.kick()

    def _refusal(
        self, name: bytes, host: str, port: int, source: str, key: bytes | None
    ) -> tuple[Reason, str] | None:
        """Why an address is not taken into the topic now."""
        if (refusal := self._screen.refusal(name, host, port, source)) is not None:
            return refusal
        if not self._context.address_of(host, port):
            return Reason.UNDIALABLE, f"no address names {host!r}"
        candidate = self._table.get(name, host, port)
        if candidate is not None:
            candidate.left = False  # a topic that was left can only be told of when joined again
            if not candidate.pending or not _is_pursued(candidate, key):
                return None
            return Reason.DUPLICATE, f"it is {candidate.state} already"
        full = self._table.refusal(name, host)
        return None if full is None else (full, "enough candidates are known")

    def _reject(self, candidate: Candidate, reason: Reason, text: str) -> None:
        if reason is not Reason.DUPLICATE:
            self._context.tell(candidate, "rejected", f"not dialled: {text}", reason=str(reason))
        self._context.publish(PeerRejected(self._context.peer(candidate), reason, text))

    def _take_in(self, candidate: Candidate) -> None:
        pushed = self._table.add(candidate)
        if pushed is not None:
            self._forget(pushed)
            self._context.tell(pushed, "pushed-out", "newer candidates took its place")

    def _forget(self, candidate: Candidate) -> None:
        """Drop every plan that involves a candidate."""
        self._table.remove(candidate)
        self._queue.remove(candidate)
        self._cancel_retry(candidate)
        task = self._dials.get(candidate)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        if not self._named_alike(candidate):
            self._context.unstage(candidate)
        candidate.state = CandidateState.IDLE

    # The queue

    def kick(self) -> None:
        """Dial as many as the limits allow; called on every release."""
        self._kick_again = True
        if self._kicking:
            return  # a listener called back in: the loop below goes round once more
        self._kicking = True
        try:
            while self._kick_again:
                self._kick_again = False
                self._dial_queued()
        finally:
            self._kicking = False

    def _dial_queued(self) -> None:
        for _ in range(len(self._queue)):
            busy = len(self._attempts)
            if not self._gate.open(
                busy, busy + self._roster.connected + self._roster.pending_outgoing
            ):
                return
            candidate = self._queue.pop()
            if candidate is None or self._is_served(candidate):
                continue
            if self._is_tried(candidate):
                self._queue.push(candidate)  # its turn comes when that attempt is over
            else:
                self._start(candidate)

    def _is_served(self, candidate: Candidate) -> bool:
        """Whether its address is connected already, for another topic, and proved its key."""
        serving = (
            one
            for one in self._alike(candidate)
            if one.state is CandidateState.CONNECTED and candidate.suits(one.proven)
        )
        found = next((one for one in serving if one is not candidate), None)
        if found is None:
            return False
        candidate.state, candidate.proven = CandidateState.CONNECTED, found.proven
        self._reject(candidate, Reason.DUPLICATE, "connected already, for another topic")
        return True

    def _is_tried(self, candidate: Candidate) -> bool:
        """Whether an attempt for another topic is under way to its place."""
        return any(
            one.state is CandidateState.CONNECTING
            for one in self._alike(candidate)
            if one is not candidate
        )

    def _named_alike(self, candidate: Candidate) -> list[Candidate]:
        """Those with the same place and the same key to prove: one address in the pool."""
        others = self._table.at(candidate.host, candidate.port)
        return [one for one in others if one.key == candidate.key]

    def _alike(self, candidate: Candidate) -> list[Candidate]:
        """The candidates at this one's place, itself included: one connection may serve them."""
        if not self._share:
            return [candidate]
        others = self._table.at(candidate.host, candidate.port)
        return others if candidate in others else [candidate, *others]

    def _start(self, candidate: Candidate) -> None:
        self._gate.passed()
        candidate.state = CandidateState.CONNECTING
        candidate.due = None
        self._attempts.add(candidate)
        candidate.last = f"attempt {candidate.retries + 1}"  # the hub tells the story of the dial
        self._context.publish(PeerConnecting(self._context.peer(candidate)))
        name = f"covey flock dial {show(candidate.host, candidate.port)}"
        task = self._tasks.spawn(self._attempt(candidate), name)
        self._dials[candidate] = task
        task.add_done_callback(lambda ended: self._task_ended(candidate, ended))

    def _task_ended(self, candidate: Candidate, ended: asyncio.Task[None]) -> None:
        if self._dials.get(candidate) is ended:
            del self._dials[candidate]

    async def _attempt(self, candidate: Candidate) -> None:
        watch = OutgoingWatch(self._context, candidate, self._attempt_over, self.met_self)
        try:
            connection = await self._dial(candidate, watch)
        except SelfConnection:
            self._attempt_over(candidate)
            if not watch.is_self:  # known before anything was dialled
                self.met_self(candidate)
            self.kick()
        except asyncio.CancelledError:
            self._attempt_over(candidate)
            self.kick()
            raise
        except CoveyError as error:
            self._end_attempt(candidate, watch, error)
        except Exception as error:  # the edge of the task: a hub may be given
            logger.exception("dialling %s:%d failed", candidate.host, candidate.port)
            self._end_attempt(candidate, watch, error)
        else:
            self._attempts.discard(candidate)
            await self._roster.arrive(connection, info_of(connection, candidate), candidate)
            self._roster.settle()

    def _attempt_over(self, candidate: Candidate) -> None:
        """It brought no connection."""
        self._attempts.discard(candidate)
        self._roster.settle()

    def _end_attempt(self, candidate: Candidate, watch: OutgoingWatch, error: Exception) -> None:
        self._attempt_over(candidate)
        if self._context.closing:
            return
        if not watch.reached:
            timedout = isinstance(error, ConnectTimeout)
            peer = self._context.peer(candidate)
            self._context.publish(PeerConnectFailed(peer, timedout, error))
        self.failed(candidate, error)
        self.kick()

    # What becomes of a candidate

    def failed(self, candidate: Candidate, error: Exception | None) -> None:
        """An attempt failed, or the connection was lost: plan the next one, or drop the peer."""
        banned = self._bans.reason(candidate.host, candidate.port, candidate.name)
        if self._context.closing or banned or not self._table.knows(candidate):
            candidate.state = CandidateState.IDLE
            return
        candidate.retries += 1
        wait = policy.retry_wait(candidate.retries)
        if isinstance(error, AddressError):
            wait = None  # the same address will not become valid
        self._tell_failure(candidate, error)
        if wait is None:
            self._context.tell(
                candidate, "dropped", f"given up after {candidate.retries} failures", error=error
            )
            peer = self._context.peer(candidate)
            candidate.state = CandidateState.IDLE
            self._forget(candidate)
            self._context.publish(PeerDropped(peer, error))
            return
        candidate.state = CandidateState.WAITING
        candidate.due = self._context.clock.now() + wait
        self._context.stage(candidate, self._named_alike(candidate))
        self._context.tell(
            candidate, "retry", f"next attempt in {wait:g} s", wait=wait, error=error
        )
        due = candidate.due
        self._timers[candidate] = self._context.clock.call_at(due, lambda: self._retry(candidate))

    def _tell_failure(self, candidate: Candidate, error: Exception | None) -> None:
        """Tell what the hub did not see; it tells its own dials and the end of its sessions."""
        address = self._context.address(candidate)
        if error is not None and not self._context.history.has_told(address, error):
            self._context.tell(candidate, "failed", str(error), error=error)

    def connected(self, candidates: list[Candidate], key: bytes | None = None) -> None:
        """A peer that proved `key` is connected, and these led to it.

        So do others at the same places, but for those that must prove another key, or are served
        by another connection.
        """
        alike = [one for led in candidates for one in self._alike(led) if one.suits(key)]
        free = [one for one in alike if one.state is not CandidateState.CONNECTED]
        for candidate in dict.fromkeys((*candidates, *free)):
            self._queue.remove(candidate)
            self._cancel_retry(candidate)
            candidate.state, candidate.proven = CandidateState.CONNECTED, key
            candidate.retries = 0
            candidate.last = "connected"
            self._context.unstage(candidate)

    def lost(
        self,
        candidates: list[Candidate],
        origin: Candidate | None,
        error: Exception | None,
        key: bytes | None = None,
    ) -> None:
        """The connection that proved `key` ended; with `origin`, which we dialled, try again.

        When its topic was left, another topic that knows the address takes over.
        """
        for candidate in [one for led in candidates for one in self._alike(led)]:
            if candidate.state is CandidateState.CONNECTED:
                if candidate.proven != key:
                    continue
                candidate.state, candidate.proven = CandidateState.IDLE, None
            if candidate.left:
                self._forget(candidate)
        if origin is None:
            return
        heirs = [origin, *(one for one in self._alike(origin) if one.suits(key))]
        chosen = next((one for one in heirs if self._table.knows(one)), None)
        if chosen is not None and chosen.state is CandidateState.IDLE:
            self.failed(chosen, error)

    def requeue(self, candidate: Candidate) -> None:
        """There was no room for its connection: wait for the next release."""
        if self._table.knows(candidate):
            candidate.state = CandidateState.QUEUED
            self._queue.push(candidate)

    def met_self(self, candidate: Candidate) -> None:
        """The address leads back to this node: never dial it again."""
        key = candidate.host, candidate.port
        self._bans.add(*key, candidate.name, Reason.DETECTED_SELF)
        candidate.state = CandidateState.IDLE
        candidate.retries = 0
        self._dials.pop(candidate, None)  # it is ending already, with the error that told us
        self._forget(candidate)
        self._context.tell(candidate, "banned", "it is this very node", reason="detected-self")
        self._context.publish(PeerBanned(self._context.peer(candidate), Reason.DETECTED_SELF))

    def _retry(self, candidate: Candidate) -> None:
        self._timers.pop(candidate, None)
        candidate.due = None
        candidate.state = CandidateState.QUEUED
        self._queue.push(candidate)
        self.kick()

    def _cancel_retry(self, candidate: Candidate) -> None:
        timer = self._timers.pop(candidate, None)
        candidate.due = None
        if timer is not None:
            timer.cancel()

    async def close(self) -> None:
        """Cancel every plan and wait for the dials to be over."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._gate.close()
        await self._tasks.end()
        self._attempts.clear()
        while self._queue.pop() is not None:
            pass


def _is_pursued(candidate: Candidate, key: bytes | None) -> bool:
    """Whether what goes on with a candidate is what somebody wants who names `key`, or no key."""
    if key is None or key == candidate.key:
        return True
    return candidate.state is CandidateState.CONNECTED and candidate.proven == key
