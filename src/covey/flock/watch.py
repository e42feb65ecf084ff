"""Turns what the endpoint tells of handshakes into the flock's events."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from covey.errors import ConnectError, ConnectionAborted, HandshakeTimeout, SelfConnection
from covey.flock.candidates import Candidate
from covey.flock.context import Context
from covey.flock.events import (
    ConnectionClosed,
    ConnectionInfo,
    HandshakeTimedOut,
    Handshaking,
)
from covey.flock.policy import Kind
from covey.net.attempt import Attempt
from covey.net.close_reason import CloseReason, reason_of
from covey.net.connection import Connection


def _info(attempt: Attempt, candidate: Candidate | None) -> ConnectionInfo:
    return ConnectionInfo(
        attempt=attempt.id,
        type=cast("Kind", attempt.type),
        initiator=attempt.initiator,
        host=candidate.host if candidate else attempt.host,
        port=candidate.port if candidate else attempt.port,
        channel=candidate.name if candidate else None,
    )


def info_of(connection: Connection, candidate: Candidate | None) -> ConnectionInfo:
    """The information of a connection whose id is not known yet."""
    return _info(connection.attempt, candidate)


def _unfinished(info: ConnectionInfo, error: ConnectError) -> ConnectionClosed:
    """The end of a raw connection whose handshake was never completed."""
    reason = reason_of(error)
    if reason is CloseReason.ABORTED and not isinstance(error, ConnectionAborted):
        reason = CloseReason.HANDSHAKE
    return ConnectionClosed(info, None, error, reason, str(error))


class OutgoingWatch:
    """Observes the dial of one candidate; `reached` tells whether a raw connection was up.

    `release` is called before `connection-closed` is published, so that the counts are right, and
    `met_self` where the remote turned out to be this node.
    """

    def __init__(
        self,
        context: Context,
        candidate: Candidate,
        release: Callable[[Candidate], object],
        met_self: Callable[[Candidate], object],
    ) -> None:
        self.reached = False
        self.is_self = False
        self._met_self = met_self
        self._context = context
        self._candidate = candidate
        self._release = release

    def handshaking(self, attempt: Attempt) -> None:
        """The raw connection is up."""
        self.reached = True
        self._context.tell(self._candidate, "handshaking", "reached, shaking hands")
        self._context.publish(Handshaking(_info(attempt, self._candidate)))

    def handshake_failed(self, attempt: Attempt, error: ConnectError) -> None:
        """The raw connection is closed again."""
        info = _info(attempt, self._candidate)
        self._release(self._candidate)
        if isinstance(error, SelfConnection):
            self.is_self = True
            self._met_self(self._candidate)
            self._context.selves.dialled(_unfinished(info, error))
            return
        if isinstance(error, HandshakeTimeout):
            self._context.publish(HandshakeTimedOut(info))
        self._context.publish(_unfinished(info, error))


class IncomingWatch:
    """Observes the handshakes of accepted connections; `Context.handshakes` are those under way."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def handshaking(self, attempt: Attempt) -> None:
        """Somebody connected."""
        self._context.handshakes.add(attempt.id)
        self._context.publish(Handshaking(_info(attempt, None)))

    def done(self, attempt: Attempt) -> None:
        """The handshake is over, the connection has been handed on."""
        self._context.handshakes.discard(attempt.id)

    def handshake_failed(self, attempt: Attempt, error: ConnectError) -> None:
        """The raw connection is closed again."""
        context, info = self._context, _info(attempt, None)
        context.handshakes.discard(attempt.id)
        text, reason = f"its handshake failed: {error}", error.code or type(error).__name__
        context.tell_host(info.host, "handshake-failed", text, reason=reason, error=error)
        if isinstance(error, SelfConnection):  # nobody could dial where it came from: no ban
            context.selves.accepted(_unfinished(info, error))
            return
        if isinstance(error, HandshakeTimeout):
            context.publish(HandshakeTimedOut(info))
        context.publish(_unfinished(info, error))
