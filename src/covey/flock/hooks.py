"""`stream` and `connect`: an application's own handshake on each connection (section 6).

The reference hands a raw duplex over and pipes; here a function, usually a coroutine function,
speaks over the connection and returns what it learned. Over the handshake `raw` it has the socket's
bytes to itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from covey import address
from covey.errors import AddressError
from covey.flock.events import ConnectionInfo
from covey.limits import Limits
from covey.net.connection import Connection
from covey.net.handshakes import Identity
from covey.wire.session import Buffer, Ended, MessagesReceived, Opened, SessionEvent

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamIdentity:
    """What a `stream` hook learned of the remote.

    `remote_id` None keeps what the connection's own handshake proved or claimed; a given one is
    a claim. `own_id` is compared in place of the flock's. With `topic` duplicates are judged
    per topic, so that one pair of peers can share several.
    """

    remote_id: bytes | None = None
    own_id: bytes | None = None
    topic: bytes | None = None


Told: TypeAlias = bytes | StreamIdentity | None
StreamHook: TypeAlias = Callable[[Connection, ConnectionInfo], Awaitable[Told] | Told]
"""Runs once per connection, before anybody else reads it; returns the remote's id."""
ConnectHook: TypeAlias = Callable[[Connection, ConnectionInfo], Awaitable[Any] | Any]
"""Runs after `stream`; what it returns is `info.stream`, and is what the handler gets."""


async def outcome(result: Awaitable[T] | T) -> T:
    """What a hook returns: awaited where it is a coroutine function's, as it is otherwise."""
    if inspect.isawaitable(result):
        return await result
    return result


class RawSession:
    """No handshake at all: open from the start, each chunk from the socket is a message."""

    __slots__ = ("_out", "_start", "opened")

    def __init__(self, *, now: float) -> None:
        self.opened = False
        self._start: float | None = now
        self._out: list[Buffer] = []

    def take_events(self) -> list[SessionEvent]:
        """`Opened`, the first time."""
        if self.opened:
            return []
        self.opened = True
        self._start = None
        return [Opened(remote_key=None, remote_id=None, handshake_hash=None)]

    def receive_data(self, data: Buffer, now: float) -> list[SessionEvent]:  # noqa: ARG002
        """One message of `data`."""
        return [*self.take_events(), MessagesReceived([bytes(data)])]

    def receive_eof(self, now: float) -> list[SessionEvent]:  # noqa: ARG002
        """The remote ended its half."""
        return [*self.take_events(), Ended(truncated=False)]

    def send_messages(self, messages: list[Buffer]) -> None:
        """Queue bytes as they are."""
        self._out += messages

    def data_to_send(self) -> list[Buffer]:
        """Take what is queued."""
        taken, self._out = self._out, []
        return taken

    def next_timer(self) -> float | None:
        """At once, to tell that it is open."""
        return self._start

    def handle_timer(self, now: float) -> list[SessionEvent]:  # noqa: ARG002
        """`Opened`, if nothing told it before."""
        return self.take_events()


class RawHandshake:
    """The registry entry `raw`, for `stream` hooks that bring their whole handshake."""

    name = "raw"
    multiplexed = False
    keeps_alive = False

    def check(self, step: address.Protocol, identity: Identity) -> bool:  # noqa: ARG002
        """`raw` takes no data."""
        if step.data:
            raise AddressError(f"raw takes no data, not {step}")
        return False

    def session(
        self,
        identity: Identity,  # noqa: ARG002
        *,
        is_initiator: bool,  # noqa: ARG002
        step: address.Protocol | None,  # noqa: ARG002
        now: float,
        limits: Limits,  # noqa: ARG002
    ) -> RawSession:
        """A session that is open from the start."""
        return RawSession(now=now)

    def is_self(self, opened: Opened, identity: Identity) -> bool:  # noqa: ARG002
        """The hook has to find out."""
        return False
