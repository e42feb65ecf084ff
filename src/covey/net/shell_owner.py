"""What a `StreamShell` asks of its two neighbours: its owner, and the session that it drives."""

from __future__ import annotations

from typing import Protocol

from covey.errors import CoveyError
from covey.net.close_reason import CloseReason
from covey.wire.session import Opened, Session


class ShellOwner(Protocol):
    """Who gets what a shell delivers. No call may raise."""

    def shell_started(self) -> None:
        """The raw connection is up."""

    def shell_opened(self, opened: Opened) -> None:
        """The handshake is over. The owner may hand the shell on by setting `shell.owner`."""

    def messages_received(self, messages: list[bytes]) -> None:
        """Messages in the order in which they were sent."""

    def shell_ended(self) -> None:
        """The remote ended its half."""

    def shell_writable(self) -> None:
        """The write backlog drained."""

    def shell_closed(self, reason: CloseReason, error: CoveyError | None) -> None:
        """The transport is gone. Called exactly once, and last."""


class WatchedSession(Session, Protocol):
    """A session that watches for a dead remote."""

    def set_reading(self, reading: bool, now: float) -> None:
        """Nothing is read from now on, or it is again: the remote is not late in between."""
