"""How a muxer uses a connection: messages in, messages out, back-pressure both ways.

`Connection` is the pipe of real life; tests join two pipes in memory. Exactly one consumer is
attached to a pipe, and it gets every message from the first one on.
"""

from __future__ import annotations

from typing import Protocol

from covey.errors import CoveyError
from covey.wire.session import Buffer


class MessageConsumer(Protocol):
    """Who takes the messages of a pipe. No call may raise."""

    def messages_received(self, messages: list[bytes]) -> None:
        """Take messages in the order in which the remote sent them."""

    def writable(self) -> None:
        """The write backlog drained: `write_messages` may be used freely again."""

    def pipe_ended(self) -> None:
        """The remote ended its half; no more messages come."""

    def pipe_closed(self, error: CoveyError | None) -> None:
        """The pipe is gone, `error` says why. Called exactly once, and last."""


class MessagePipe(Protocol):
    """A stream that keeps message boundaries, seen from its one consumer."""

    def attach(self, consumer: MessageConsumer) -> None:
        """Deliver to `consumer` what is buffered, then everything that follows."""

    def write_messages(self, messages: list[Buffer]) -> bool:
        """Hand over and write now. False: the backlog is high, wait for `writable`."""

    @property
    def drained(self) -> bool:
        """Whether the write backlog is low."""

    @property
    def unsent(self) -> int:
        """Bytes that wait for the remote."""

    def pause_reading(self) -> None:
        """Deliver nothing until `resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver again, beginning with what was kept."""

    def abort(self, error: CoveyError) -> None:
        """Cut the stream now and keep `error` as the reason."""

    def end(self) -> object:
        """Write what is queued, then end the write half. What it returns may be dropped."""
