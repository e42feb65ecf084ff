"""The lines that a hub writes into the stories of its peers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from covey.conn.hub_entry import Entry, EntryTable, was_found
from covey.conn.hub_events import SessionEnd
from covey.conn.sessions import HubSession, Link, SessionTable
from covey.conn.story import History, Story, host_story
from covey.errors import ConnectError, HandshakeError, Refused

if TYPE_CHECKING:
    from covey.net.attempt import Attempt, AttemptObserver


class HubStory:
    """Writes `History`; also the observer of accepted connections, which it passes on."""

    def __init__(self, history: History, observer: AttemptObserver | None) -> None:
        self._history = history
        self._observer = observer

    def dialling(self, entry: Entry) -> None:
        """A dial begins."""
        self._history.tell(
            entry.address,
            "dialling",
            "dialling",
            key=entry.key,
            stranger=was_found(entry.data.get("source")),
        )

    def not_dialled(
        self, address: str, key: bytes | None, error: Exception, data: Mapping[str, Any]
    ) -> None:
        """A dial was refused before it began; `data` is what its caller said of the peer."""
        self._history.tell(
            address,
            "refused",
            f"not dialled: {error}",
            key=key,
            reason=getattr(error, "reason", type(error).__name__),
            error=error,
            stranger=was_found(data.get("source")),
        )

    def failed(self, entry: Entry, error: Exception) -> None:
        """A dial failed."""
        step = "handshake" if isinstance(error, HandshakeError) else "dial"
        reason = (error.code if isinstance(error, ConnectError) else None) or type(error).__name__
        text = f"failed at the {step}: {error}"
        self._history.tell(
            entry.address,
            f"{step}-failed",
            text,
            key=entry.key,
            reason=reason,
            error=error,
            stranger=was_found(entry.data.get("source")),
        )

    def called_off(self, entry: Entry, end: SessionEnd) -> None:
        """A dial was ended by `disconnect`."""
        text = f"dial called off: {end.text}"
        self._history.tell(
            entry.address,
            "aborted",
            text,
            key=entry.key,
            reason=str(end.reason),
            error=end.error,
            stranger=was_found(entry.data.get("source")),
        )

    def opened(self, session: HubSession, others: int) -> None:
        """A session was filed."""
        how = {"dial": "connected", "incoming": "it connected to us", "external": "adopted"}
        text = how[session.via] + (f" (session {others + 1} with this key)" if others else "")
        self._history.tell(
            session.address,
            "connected",
            text,
            key=session.key,
            stranger=session.stranger,
            session_id=session.id,
            via=session.via,
        )

    def ended(self, session: HubSession, end: SessionEnd) -> None:
        """A session ended."""
        text = f"disconnected after {end.seconds:.1f} s: {end.text}"
        self._history.tell(
            session.address,
            "disconnected",
            text,
            key=session.key,
            reason=str(end.reason),
            error=end.error,
            stranger=session.stranger,
            session_id=session.id,
            via=session.via,
        )

    def not_closed(self, entry: Entry, error: Exception) -> None:
        """A session could not be closed."""
        text = f"could not be closed: {error}"
        self._history.tell(
            entry.address,
            "disconnecting-failed",
            text,
            key=entry.key,
            error=error,
            stranger=was_found(entry.data.get("source")),
        )

    def refused(self, address: str, link: Link, error: ConnectError) -> None:
        """A connection was cut instead of filed."""
        reason = error.reason if isinstance(error, Refused) else type(error).__name__
        self._history.tell(
            address,
            "refused",
            f"refused: {error}",
            key=link.remote_key,
            reason=reason,
            error=error,
            stranger=not link.initiator,
            via="external" if link.initiator else "incoming",
        )

    def not_admitted(self, host: str, reason: str, error: Refused | None) -> None:
        """A raw connection was refused before its handshake: only its host is known."""
        text = f"refused before the handshake: {reason}"
        self._history.tell(
            host_story(host),
            "refused",
            text,
            reason=reason,
            error=error,
            stranger=True,
            via="incoming",
        )

    def handshaking(self, attempt: Attempt) -> None:
        """Pass on: an accepted raw connection begins its handshake."""
        if self._observer is not None:
            self._observer.handshaking(attempt)

    def handshake_failed(self, attempt: Attempt, error: ConnectError) -> None:
        """An accepted raw connection did not pass its handshake."""
        reason = error.code or type(error).__name__
        self._history.tell(
            host_story(attempt.host),
            "handshake-failed",
            f"its handshake failed: {error}",
            reason=reason,
            error=error,
            stranger=True,
            via="incoming",
        )
        if self._observer is not None:
            self._observer.handshake_failed(attempt, error)

    def explain(self, peer: str | bytes, entries: EntryTable, sessions: SessionTable) -> Story:
        """The story of an address or key, with its present state and what comes next."""
        if isinstance(peer, bytes):
            count = len(sessions.of_key(peer))
            state = "connected" if count else None
        else:
            entry = entries.get(peer)
            state = entry.state if entry is not None else None
            count = len(entry.sessions) if entry is not None else 0
        following = {
            "connecting": "the dial succeeds, fails or runs out of time",
            "connected": f"nothing: {count} session{'s' * (count != 1)} open",
            "disconnecting": "its sessions close",
            None: "nothing by itself: somebody has to call connect",
        }
        return self._history.story(peer, state=state, next_step=following[state])
