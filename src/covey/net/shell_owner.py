"""What a `StreamShell` asks of its neighbours: who opens it, who owns it, and what it drives."""

from __future__ import annotations

from typing import Protocol

from covey.errors import CoveyError
from covey.net.close_reason import CloseReason
from covey.wire.session import Buffer, Opened, Session, SessionEvent


class ShellOpening(Protocol):
    """Who hears of the beginning of a shell. No call may raise."""

    def shell_started(self) -> None:
        """The raw connection is up."""

    def shell_opened(self, opened: Opened) -> None:
        """The handshake is over; the last call. It may hand the shell on by `shell.owner`."""


class ShellOwner(Protocol):
    """Who gets what a shell delivers. No call may raise."""

    def messages_received(self, messages: list[bytes]) -> None:
        """Messages in the order in which they were sent."""

    def shell_ended(self) -> None:
        """The remote ended its half."""

    def shell_writable(self) -> None:
        """The write backlog drained."""

    def shell_closed(self, reason: CloseReason, error: CoveyError | None) -> None:
        """The transport is gone. Called exactly once, and last."""


class QuickSession(Session, Protocol):
    """A session with short ways for lone messages, that also watches for a dead remote."""

    @property
    def held(self) -> int:
        """Bytes kept of a frame that is not whole."""

    @property
    def keeps_alive(self) -> bool:
        """Whether the remote sends keep-alives, so that its silence counts."""

    def seal_lone(self, message: Buffer) -> bytes | None:
        """The frame of one small message, to be written at once. None: send it the general way."""

    def receive_lone(self, data: memoryview, now: float) -> bytes | None:
        """The message of `data` when that is one small frame. None: `receive_data` has to judge."""

    def work(self) -> list[SessionEvent]:
        """Do what was put off; see `WorkLeft`. Raises `HandshakeError`."""

    def set_reading(self, reading: bool, now: float) -> None:
        """Nothing is read from now on, or it is again: the remote is not late in between."""

    def discard(self) -> None:
        """Let go of a frame that is not whole: the rest will not come."""
