"""Why a connection is over, as data."""

from __future__ import annotations

import enum
import errno
import os

from covey.errors import (
    ClosedError,
    ConnectionAborted,
    CoveyError,
    HandshakeError,
    LimitError,
    ProtocolError,
    Refused,
    SelfConnection,
)


class CloseReason(enum.StrEnum):
    """Who ended a connection, or what did; `Connection.close_text` says it in words."""

    LOCAL = "local"
    """This side closed it."""
    REMOTE_END = "remote-end"
    """The remote ended its half first."""
    RESET = "reset"
    """The network or the remote's system cut it."""
    PROTOCOL = "protocol"
    """The remote broke a rule."""
    TIMEOUT = "timeout"
    """The remote was silent, did not read or was slow with a frame for too long."""
    HANDSHAKE = "handshake"
    """The handshake failed."""
    REFUSED = "refused"
    """Policy of this side: ban, whitelist."""
    LIMIT = "limit"
    """A bound of `Limits` was reached."""
    REDUNDANT = "redundant"
    """Another connection to the same peer was kept."""
    SELF = "self"
    """It led back to this very node."""
    SHUTDOWN = "shutdown"
    """Its owner (endpoint, hub, flock) closed."""
    ABORTED = "aborted"
    """Called off by this side with an error."""


_REASONS: tuple[tuple[type[CoveyError], CloseReason], ...] = (
    (SelfConnection, CloseReason.SELF),
    (Refused, CloseReason.REFUSED),
    (HandshakeError, CloseReason.HANDSHAKE),
    (ProtocolError, CloseReason.PROTOCOL),
    (LimitError, CloseReason.LIMIT),
    (ClosedError, CloseReason.SHUTDOWN),
    (ConnectionAborted, CloseReason.ABORTED),
)


def reason_of(error: CoveyError) -> CloseReason:
    """The reason that an abort with `error` has when its caller names none."""
    for kind, reason in _REASONS:
        if isinstance(error, kind):
            return reason
    return CloseReason.ABORTED


def reason_of_loss(exc: Exception | None) -> CloseReason:
    """The reason of an end that came from the network; None: the remote ended it properly."""
    if exc is None:
        return CloseReason.REMOTE_END
    if isinstance(exc, OSError) and exc.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH):
        return CloseReason.TIMEOUT
    return CloseReason.RESET


def loss_error(exc: Exception) -> ClosedError:
    """What `close_error` says of a connection that the network cut."""
    number = exc.errno if isinstance(exc, OSError) else None
    told = os.strerror(number) if number else exc.args[-1] if exc.args else exc
    error = ClosedError(f"the connection was cut: {told}")
    error.__cause__ = exc
    return error
