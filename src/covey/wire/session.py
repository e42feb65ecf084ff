"""What every handshake looks like from outside: bytes and time in, events and bytes out.

A session turns one reliable byte stream into messages. `SecretStream` (noise) and `PlainSession`
(the discovery swarm's clear-text id exchange) are sessions; the shell in `net/` drives any of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Opened:
    """The handshake is over; messages may flow.

    `remote_key` is the remote's proven 32-byte public key (None where the handshake proves none),
    `remote_id` the id it claims without proof (plain), `handshake_hash` the 64 bytes that both
    ends share and nobody else (None where there is no such thing).
    """

    remote_key: bytes | None
    remote_id: bytes | None
    handshake_hash: bytes | None


@dataclass(frozen=True, slots=True)
class MessagesReceived:
    """Messages completed by one call, in order. Empty messages are kept out (keep-alives)."""

    messages: list[bytes]


@dataclass(frozen=True, slots=True)
class Ended:
    """The remote ended its half; `truncated` when that cut a frame."""

    truncated: bool


@dataclass(frozen=True, slots=True)
class TimedOut:
    """A deadline passed: the handshake's, that of a silent remote, or a frame's whose rest is late.

    The second and the third come after the opening.
    """

    phase: Literal["handshake", "idle", "frame"]


@dataclass(frozen=True, slots=True)
class WorkLeft:
    """Write `data_to_send`, then call `work`: it does what is slow, or can wait.

    Only sessions that were asked to work ahead report it.
    """


SessionEvent: TypeAlias = Opened | MessagesReceived | Ended | TimedOut | WorkLeft


class Session(Protocol):
    """A sans-I/O handshake and what follows it. `now` is monotonic seconds."""

    @property
    def opened(self) -> bool:
        """Whether the handshake is over."""

    def receive_data(self, data: Buffer, now: float) -> list[SessionEvent]:
        """Events completed by `data`, which is read before this returns and not kept.

        Raises `HandshakeError` before the session is open and `ProtocolError` after, and nothing
        else. A session that raised must not be fed again. Events that the same bytes completed
        before the fault are left for `take_events`.
        """

    def take_events(self) -> list[SessionEvent]:
        """Events not handed out yet: after a call that raised, or after construction."""

    def receive_eof(self, now: float) -> list[SessionEvent]:
        """The remote ended its half."""

    def send_messages(self, messages: list[Buffer]) -> None:
        """Queue messages; before the session is open up to `Limits.max_queued` bytes are kept."""

    def data_to_send(self) -> list[Buffer]:
        """Take the bytes that are ready to leave, in order."""

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called, or None."""

    def handle_timer(self, now: float) -> list[SessionEvent]:
        """What the clock brings: a keep-alive in `data_to_send`, or `TimedOut`."""
