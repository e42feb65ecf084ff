"""What becomes of candidates when something happened to a connection."""

from __future__ import annotations

from covey.flock.pursuit import Pursuit
from covey.flock.records import Record


class Outcomes:
    """Passes what the roster tells on to the pursuit; a `RosterOwner`."""

    def __init__(self, pursuit: Pursuit) -> None:
        self._pursuit = pursuit

    def peer_connected(self, record: Record) -> None:
        """All that led to this peer is connected now."""
        self._pursuit.connected(record.candidates, record.connection.remote_key)

    def peer_lost(self, record: Record) -> None:
        """Try again if this side had dialled."""
        key, error = record.connection.remote_key, record.connection.close_error
        self._pursuit.lost(record.candidates, record.origin, error, key)

    def met_self(self, record: Record) -> None:
        """Ban the address; an accepted connection has none that could be dialled, so no ban."""
        if record.origin is not None:
            self._pursuit.met_self(record.origin)

    def attempt_failed(self, record: Record, error: Exception) -> None:
        """Treat a `stream` hook that failed like a failed attempt."""
        if record.origin is not None:
            self._pursuit.failed(record.origin, error)

    def no_room(self, record: Record) -> None:
        """Wait for the next release."""
        if record.origin is not None:
            self._pursuit.requeue(record.origin)

    def is_dialling(self, host: str, key: bytes | None) -> bool:
        """Ask who dials."""
        return self._pursuit.is_dialling(host, key)

    def slot_free(self) -> None:
        """Somebody may be dialled."""
        self._pursuit.kick()
