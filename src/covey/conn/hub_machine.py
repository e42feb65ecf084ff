"""The state machine of the hub: every transition of an entry, with its events in order.

For each change: the entry is written, the event told, the live view marked; then those who wait
are woken. Nothing in here waits before a transition is complete, so listeners and callers that call
back find whole entries.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, cast

from covey.address import Address
from covey.conn.hub_entry import (
    OTHER_TIMEOUT,
    TYPE_TIMEOUTS,
    Cut,
    Dial,
    Entry,
    EntryTable,
    was_found,
)
from covey.conn.hub_events import (
    Connected,
    Connecting,
    ConnectingFailed,
    Disconnected,
    Disconnecting,
    DisconnectingFailed,
    HubEvent,
    SessionEnd,
    SessionStart,
    Via,
)
from covey.conn.hub_story import HubStory
from covey.conn.sessions import (
    CheckingDialler,
    Dialler,
    HubSession,
    Link,
    SessionTable,
    TieBreak,
    end_of,
)
from covey.errors import (
    AddressError,
    ConnectError,
    ConnectionAborted,
    ConnectTimeout,
    CoveyError,
    Refused,
    SelfConnection,
)
from covey.events import EventStream
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.owned_tasks import OwnedTasks
from covey.peer_type import peer_type

if TYPE_CHECKING:
    from covey.net.attempt import AttemptObserver
    from covey.net.connection import Connection

logger = logging.getLogger("covey.conn.hub")

EXPECTED: Final = (CoveyError, OSError)
"""What diallers and connections raise of remotes and networks; all else is somebody's bug."""
GRACE = 0.25
"""Seconds that a dialler gets beyond the timeout to report it itself, with more detail."""
UNUSED = 1.0
"""Seconds that a connection's user gets to begin after the remote has ended its half."""


class HubMachine:
    """Entries, dials and sessions of one hub, and the tasks that work on them."""

    def __init__(
        self,
        *,
        dialler: Dialler,
        own_key: bytes | None,
        limits: Limits,
        clock: Callable[[], float],
        story: HubStory,
        tie_break: TieBreak | None,
        connect_timeout: float | None,
    ) -> None:
        self.limits = limits
        self._clock = clock
        self.table = EntryTable(clock)
        self.sessions = SessionTable(limits)
        self.events: EventStream[HubEvent] = EventStream(backlog=limits.event_backlog)
        self.dialling = 0
        self.closed = False
        self.dialler = dialler
        self._own_key = own_key
        self._story = story
        self._tie_break = tie_break
        self._connect_timeout = connect_timeout
        self.tasks = OwnedTasks(logger)

    # Dialling

    def check_dial(
        self, text: str, target: Address, data: Mapping[str, Any] | None
    ) -> bytes | None:
        """The key that the other end will have to prove, None where it need not.

        Raises, before anything changes, why `target` may not be dialled now.
        """
        key: bytes | None = None
        error: CoveyError | None
        try:
            key = self._key_to_prove(text, target)
        except (AddressError, SelfConnection) as unfit:
            error = unfit
        else:
            own = key is not None and key == self._own_key
            error = SelfConnection("this address has our own key", address=text) if own else None
            error = error or self.sessions.refuse_dial(key, self.dialling)
        if error is not None:
            self._story.not_dialled(text, key, error, data or {})
            raise error
        return key

    def _key_to_prove(self, text: str, target: Address) -> bytes | None:
        """That of the alternative which is dialled; raises where none can be."""
        if isinstance(self.dialler, CheckingDialler):
            return self.dialler.check(target)
        steps = target.alternatives[0]
        if len(steps) > 2:
            names = ", ".join(step.name for step in steps[2:])
            raise AddressError(f"unsupported transform in {text}: {names}")
        return next((step.key for step in steps if step.key is not None), None)

    def start_dial(
        self,
        text: str,
        target: Address,
        data: Mapping[str, Any] | None,
        observer: AttemptObserver | None,
        timeout: float | None,
        *,
        key: bytes | None,
    ) -> Dial:
        """Put a new entry for `text` into `connecting` and start its dial.

        What cannot be started is a failed dial: it leaves no entry.
        """
        data = data or {}
        entry = Entry(text, key, "connecting")
        seconds = self._connect_timeout if timeout is None else timeout
        if seconds is None:
            seconds = _timeout_of(data.get("type"), target)
        dial = entry.dial = Dial(entry, target, seconds, observer)
        self.dialling += 1
        self.table.insert(entry, data)
        self._story.dialling(entry)
        self._tell(Connecting(text, entry.key))
        if not dial.decided:  # a listener may have brought a session
            loop = asyncio.get_running_loop()
            try:  # there are loops whose timers cannot be set as late as others'
                dial.timer = loop.call_later(seconds + GRACE, self._dial_timed_out, dial)
            except Exception as error:  # noqa: BLE001 - the callers get it
                self._dial_failed(dial, error)
            else:
                dial.task = self.tasks.spawn(self._run_dial(dial), f"covey hub dial {text}")
        return dial

    async def wait_for_dial(self, dial: Dial) -> Link:
        """The connection that the dial brings, or its error; the last to leave calls it off."""
        dial.waiters += 1
        try:
            return await asyncio.shield(dial.future)
        finally:
            dial.waiters -= 1
            if dial.waiters == 0 and not dial.future.done():
                address = dial.entry.address
                error = ConnectionAborted("nobody waits for it any more", address=address)
                self._dial_failed(dial, error)

    async def _run_dial(self, dial: Dial) -> None:
        address = dial.entry.address
        try:
            link = await self.dialler.dial(
                dial.target, observer=dial.observer, timeout=dial.timeout
            )
        except asyncio.CancelledError:
            self._dial_failed(dial, ConnectionAborted("cancelled", address=address))
            raise
        except Exception as error:  # whatever a dialler raises is a failed dial
            if not isinstance(error, EXPECTED):
                logger.exception("the dialler failed on %s", address)
            self._dial_failed(dial, error)
            return
        if dial.decided:
            link.abort(ConnectionAborted("answered too late", address=address))
            return
        try:
            self._dial_succeeded(dial, link)
        except Exception as error:
            logger.exception("the connection to %s could not be taken over", address)
            self._not_taken_over(dial, link, error)

    def _not_taken_over(self, dial: Dial, link: Link, error: Exception) -> None:
        """The dialler's connection is no link, or what the application gave us broke on it."""
        address = dial.entry.address
        failure = ConnectError(f"it could not be taken over: {error}", address=address)
        failure.__cause__ = error
        session = self.sessions.of(link)
        if session is not None:
            session.reason = CloseReason.ABORTED
            self.session_ended(session)
        self._dial_failed(dial, failure)
        dial.fail(failure)
        if callable(abort := getattr(link, "abort", None)):  # it may be anything
            abort(failure)

    def _dial_timed_out(self, dial: Dial) -> None:
        address = dial.entry.address
        text = f"no connection to {address} within {dial.timeout:g} s"
        self._dial_failed(dial, ConnectTimeout(text, address=address, code="ETIMEDOUT"))

    def _dial_succeeded(self, dial: Dial, link: Link) -> None:
        address = dial.entry.address
        if link.closed:
            error = ConnectError("closed before it could be used", address=address)
            error.__cause__ = link.close_error
            self._dial_failed(dial, error)
        elif (refusal := self.refusal(address, link, "dial")) is not None:
            link.abort(refusal)
            self._dial_failed(dial, refusal)
        else:
            self.file(address, link, "dial")

    def _dial_failed(self, dial: Dial, error: Exception) -> None:
        if dial.decided:
            return
        entry = dial.entry
        self._decide(dial)
        self.table.remove(entry)
        self._story.failed(entry, error)
        self._tell(ConnectingFailed(entry.address, entry.key, error))
        dial.fail(error)

    def abort_dial(self, dial: Dial, reason: CloseReason | str | None) -> None:
        """End a dial on request: `disconnecting`, `disconnected`, and its callers are told."""
        entry = dial.entry
        error = ConnectionAborted("called off by disconnect", address=entry.address)
        end = SessionEnd(reason or CloseReason.ABORTED, str(reason or error), error)
        self._decide(dial)
        self.table.move(entry, "disconnecting")
        self._story.called_off(entry, end)
        self._tell(Disconnecting(entry.address, entry.key))
        self._gone(entry, end)
        dial.fail(error)

    def _decide(self, dial: Dial) -> None:
        dial.decide()
        dial.entry.dial = None
        self.dialling -= 1

    async def retry(self, entry: Entry, target: Address, data: Mapping[str, Any] | None) -> None:
        """Dial again when `entry` is gone, for nobody (compatibility, section 4.3)."""
        end = await asyncio.shield(entry.ended())
        if end is None and not self.closed and self.table.get(entry.address) is None:
            try:
                key = self.check_dial(entry.address, target, data)
            except CoveyError:
                return  # told by the story
            self.start_dial(entry.address, target, data, None, None, key=key)

    # Sessions

    def refusal(self, text: str, link: Link, via: Via) -> Refused | SelfConnection | None:
        """Why this connection may not be filed, or None."""
        key = link.remote_key
        if key is not None and key == self._own_key:
            return SelfConnection("the other end has our own key", address=text)
        entry = self.table.get(text)
        if self.closed or (entry is not None and entry.state == "disconnecting"):
            return Refused("it is being disconnected", reason="disconnecting", address=text)
        refused = None
        if via == "incoming":
            refused = self.sessions.refuse_host(link.remote_address[0], self.dialling)
        elif via == "external" and (entry is None or entry.dial is None):
            refused = self.sessions.refuse_dial(None, self.dialling)
        refused = refused or self.sessions.refuse_key(key)
        if refused is None and not self._wins(link, text, via):
            text = "another connection to the same key is kept"
            refused = Refused(text, reason=CloseReason.REDUNDANT)
        return refused

    def _wins(self, link: Link, text: str, via: Via) -> bool:
        """Whether the tie-break lets this connection stay beside those that are open."""
        key = link.remote_key
        if self._tie_break is None or self._own_key is None or key is None:
            return True
        others = [other for other in self.sessions.of_key(key) if not other.connection.closed]
        candidate = HubSession(link, address=text, via=via, opened_at=self._clock())
        contenders = [*others, candidate]
        return not others or self._tie_break(self._own_key, key, contenders) is candidate

    def file(self, text: str, link: Link, via: Via) -> None:
        """Take an open connection over, under the address `text`."""
        session = HubSession(link, address=text, via=via, opened_at=self._clock())
        # What is no link fails here, before anything is written down.
        link.on_close(lambda _: self.session_ended(session))
        link.on_remote_end(lambda _: self._remote_ended(session))
        others = self.sessions.of_key(session.key)
        self.sessions.add(session)
        entry = self.table.get(text)
        if entry is None:
            entry = Entry(text, session.key, "connected")
            self.table.insert(entry, {})
        session.stranger = via == "incoming" or was_found(entry.data.get("source"))
        dial = entry.dial
        if dial is not None:
            self._decide(dial)
        entry.sessions[session.id] = session
        self._story.opened(session, len(others))
        if len(entry.sessions) == 1:
            self._connected(entry, session, tuple(other.id for other in others))
        else:
            self.table.live.changed()
        if dial is not None and not dial.future.done():
            dial.future.set_result(link)
        if self._tie_break is not None and self._own_key is not None:
            for other in others:  # `refusal` found that the new one is the one to keep
                name = f"covey hub drops session {other.id} for {session.id}"
                self.tasks.spawn(self.end_session(other, CloseReason.REDUNDANT), name)

    def _connected(self, entry: Entry, session: HubSession, duplicates: tuple[int, ...]) -> None:
        link = session.connection
        entry.key = session.key  # the proven one: the address of a dial only claims it
        fields: dict[str, Any] = {"key": entry.key}
        if entry.data.get("type") is None:
            fields["inferred_type"] = _inferred_type(link)
        self.table.move(entry, "connected", **fields)
        details = SessionStart(
            connection=cast("Connection", link),
            session_id=session.id,
            via=session.via,
            duplicates=duplicates,
        )
        self._tell(Connected(entry.address, entry.key, details))

    async def end_session(self, session: HubSession, reason: CloseReason | str | None) -> bool:
        """Close one session; False when it is over already."""
        entry = self.table.get(session.address)
        if entry is None or session.id not in entry.sessions:
            return False
        if len(entry.sessions) == 1:
            return await self.disconnect(entry, reason)
        await self._close(session, reason)
        return True

    async def disconnect(self, entry: Entry, reason: CloseReason | str | None) -> bool:
        """Close every session of an entry, or wait for who is doing that."""
        ended = entry.ended()
        if entry.state != "disconnecting":
            self.table.move(entry, "disconnecting")
            self._tell(Disconnecting(entry.address, entry.key))
            if not ended.done():  # a listener may have ended it
                self.tasks.spawn(
                    self._close_all(entry, reason), f"covey hub disconnect {entry.address}"
                )
        end = await asyncio.shield(ended)
        if end is not None and not isinstance(end, Cut):
            raise end
        return True

    async def _close_all(self, entry: Entry, reason: CloseReason | str | None) -> None:
        sessions = tuple(entry.sessions.values())
        results = await asyncio.gather(
            *(self._close(session, reason) for session in sessions), return_exceptions=True
        )
        errors = [result for result in results if isinstance(result, BaseException)]
        for error in errors:
            if isinstance(error, Exception) and not isinstance(error, EXPECTED):
                logger.error("closing %s failed", entry.address, exc_info=error)
        if entry.sessions and errors and self.table.get(entry.address) is entry:
            error = errors[0]
            if not isinstance(error, Exception):
                error = ConnectionAborted("its closing was cancelled", address=entry.address)
            self.table.move(entry, "connected")
            self._story.not_closed(entry, error)
            self._tell(DisconnectingFailed(entry.address, entry.key, error))
            entry.settle(error)

    async def _close(self, session: HubSession, reason: CloseReason | str | None) -> None:
        session.reason = reason or CloseReason.LOCAL
        try:
            await session.connection.close(session.reason)
        except EXPECTED:
            if not session.connection.closed:
                session.reason = None
                raise
        self.session_ended(session)

    def session_ended(self, session: HubSession) -> None:
        """A connection is over, whoever ended it."""
        if not self.sessions.remove(session):
            return
        end = end_of(session)
        self._story.ended(session, end)
        entry = self.table.get(session.address)
        if entry is None or entry.sessions.pop(session.id, None) is None:
            return
        if entry.sessions:
            self.table.live.changed()
        else:
            self._gone(entry, end)

    def _remote_ended(self, session: HubSession) -> None:
        """The remote sends no more: what nobody uses is over, the rest is up to its user."""
        if self.sessions.of(session.connection) is session and session.timer is None:
            loop = asyncio.get_running_loop()
            session.timer = loop.call_later(UNUSED, self._close_unused, session)

    def _close_unused(self, session: HubSession) -> None:
        if session.connection.unused and not session.connection.closed:
            self.tasks.spawn(session.connection.close(), f"covey hub ends session {session.id}")

    def _gone(self, entry: Entry, end: SessionEnd, outcome: Cut | None = None) -> None:
        self.table.remove(entry)
        self._tell(Disconnected(entry.address, entry.key, end))
        entry.settle(outcome)

    # Ending everything

    def end_everything(
        self, error_for: Callable[[str], CoveyError], reason: CloseReason
    ) -> list[Link]:
        """Tell the end of every entry at once; gives the connections that must now be closed."""
        links: list[Link] = []
        for entry in self.table.all():
            if entry.dial is not None:
                self._dial_failed(entry.dial, error_for(entry.address))
                continue
            sessions = tuple(entry.sessions.values())
            entry.sessions.clear()
            for session in sessions:
                session.reason = session.reason or reason
                self.sessions.remove(session)
                self._story.ended(session, end_of(session))
                links.append(session.connection)
            if sessions:
                self._gone(entry, end_of(sessions[-1]), Cut(error_for(entry.address)))
        return links

    async def cut(self, links: list[Link], error: CoveyError, reason: CloseReason) -> None:
        """Close connections side by side; cut those that take longer than `close_timeout`.

        What a cut one still runs is seen out, for as long again.
        """
        closing = [self.tasks.spawn(link.close(reason), "covey hub close") for link in links]
        try:
            if closing:
                await asyncio.wait(closing, timeout=self.limits.close_timeout)
                for link, task in zip(links, closing, strict=True):
                    if not task.done():
                        link.abort(error)
                await asyncio.wait(closing, timeout=self.limits.close_timeout)
        finally:
            for link, task in zip(links, closing, strict=True):
                if not task.done() or task.cancelled() or task.exception() is not None:
                    task.cancel()
                    link.abort(error)

    # Inside

    def _tell(self, event: HubEvent) -> None:
        self.events.publish(event)
        self.table.live.changed()


def _timeout_of(told_type: Any, target: Address) -> float:
    kind = told_type if isinstance(told_type, str) else target.type
    return TYPE_TIMEOUTS.get(kind or "", OTHER_TIMEOUT)


def _inferred_type(link: Link) -> str | None:
    """The type of a live peer: by its address, for `net` by where its socket really is."""
    kind = link.address.type
    return peer_type(link.remote_address[0]) if kind in ("lan", "internet") else kind
