"""The connections of a networker: what the flock tells of them, and what is told of it in turn.

The order of events is the seed's (`networker.md` rows 14 to 22); the states are in `policy`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from covey.errors import ClosedError, CoveyError, UsageError
from covey.flock.events import ConnectionInfo
from covey.flock.policy import Kind
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.networker import policy
from covey.networker.channel import ExtensionChannel
from covey.networker.events import (
    HandshakeDone,
    NetworkerEvent,
    Peer,
    PeerAdded,
    PeerRemoved,
    ReplicationFailed,
    StreamClosed,
    StreamOpened,
    StreamProcessed,
)
from covey.networker.extensions import Extensions
from covey.networker.opening import Opening
from covey.networker.policy import Link, StreamInput, StreamState
from covey.networker.stream import PeerStream
from covey.wakeup import Wakeup

logger = logging.getLogger("covey.networker")

BROKEN = frozenset({CloseReason.PROTOCOL, CloseReason.LIMIT, CloseReason.ABORTED})
"""Ends that say that replication went wrong; the others are ordinary, or the network's."""


class Store(Protocol):
    """What a networker needs of its store: a `Basestore`."""

    def replicate(self, connection: Connection) -> Any:
        """Exchange every log over `connection` for as long as it lasts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamsOptions:
    """What `Streams` works with."""

    store: Store
    own_key: bytes
    ignore_loopback: bool
    limits: Limits
    publish: Callable[[NetworkerEvent], object]
    wakeup: Wakeup | None = None


class Streams:
    """Every connection of the flock, from the raw connection to its end."""

    def __init__(self, options: StreamsOptions, extensions: Extensions) -> None:
        self.opening = Opening()
        self._options = options
        self._publish = options.publish
        self._extensions = extensions
        self._by_attempt: dict[int, PeerStream] = {}
        self._by_key: dict[bytes, PeerStream] = {}

    @property
    def active(self) -> frozenset[PeerStream]:
        """The streams that replicate."""
        return frozenset(self._by_key.values())

    @property
    def peers(self) -> frozenset[Peer]:
        """Their peers."""
        return frozenset(one.peer for one in self._by_key.values() if one.peer is not None)

    # What the flock tells

    def opened(self, info: ConnectionInfo) -> None:
        """A raw connection is up."""
        if not (self._options.ignore_loopback and policy.is_loopback(info.host)):
            self._open(info)

    def connected(self, connection: Connection, info: ConnectionInfo) -> None:
        """A handshake is done, and the flock has chosen this connection for its peer."""
        key = connection.remote_key
        local = policy.is_loopback(connection.remote_address[0])
        if self._options.ignore_loopback and local and info.attempt not in self._by_attempt:
            connection.start_close("connections from this machine are not wanted")
            return
        stream = self._by_attempt.get(info.attempt) or self._open(info)
        if stream.state is not StreamState.OPENING:
            return  # told of before, by a flock that knew it already
        stream.connection = connection
        stream.info = info
        if self._options.ignore_loopback and local:
            self._drop(stream, "connections from this machine are not wanted")
        elif key is None:
            self._fail(stream, ClosedError("a peer that proves no key cannot replicate"))
        elif policy.is_self(self._options.own_key, key):
            self._drop(stream, CloseReason.SELF)
        elif self._is_redundant(stream, key):
            self._drop(stream, CloseReason.REDUNDANT)
        else:
            self._activate(stream, connection, key)

    def redundant(self, connection: Connection, info: ConnectionInfo) -> None:
        """The flock closes this one of two connections."""
        stream = self._by_attempt.get(info.attempt)
        if stream is not None:
            stream.connection = connection
            self._drop(stream, CloseReason.REDUNDANT)

    def ended(
        self, info: ConnectionInfo, connection: Connection | None, error: Exception | None
    ) -> None:
        """A raw connection is closed."""
        stream = self._by_attempt.pop(info.attempt, None)
        if stream is None:
            return
        stream.connection = stream.connection or connection
        was_active = stream.active
        if was_active and error is not None and _is_broken(stream, error):
            self._publish(ReplicationFailed(error, stream))
        self._retire(stream, StreamInput.ENDED)
        self._publish(StreamClosed(stream, stream.info, stream.finished_handshake))
        self._processed(stream)

    # The end

    def connections(self) -> list[Connection]:
        """The connections of all streams that have one."""
        found = (stream.connection for stream in self._by_attempt.values())
        return [connection for connection in found if connection is not None]

    def end(self) -> None:
        """Tell the end of every stream that is left: the flock tells nothing more."""
        for stream in tuple(self._by_attempt.values()):
            error = stream.connection.close_error if stream.connection is not None else None
            self.ended(stream.info, stream.connection, error)

    # Inside

    def _open(self, info: ConnectionInfo) -> PeerStream:
        stream = PeerStream(info, self._options.own_key)
        self._by_attempt[info.attempt] = stream
        self.opening.add(info.attempt)
        self._publish(StreamOpened(stream, info))
        return stream

    def _is_redundant(self, stream: PeerStream, key: bytes) -> bool:
        """Whether it goes because of another one to the same key; or that one goes, now."""
        other = self._by_key.get(key)
        if other is None:
            return False
        lost = policy.dropped_of_two(
            Link(other.info.type, other.info.initiator),
            Link(stream.info.type, stream.info.initiator),
            own_key=self._options.own_key,
            remote_key=key,
        )
        if lost == "new":
            return True
        self._drop(other, CloseReason.REDUNDANT)
        return False

    def _activate(self, stream: PeerStream, connection: Connection, key: bytes) -> None:
        channel = ExtensionChannel(connection, self._extensions, self._options.limits)
        try:
            stream.replication = self._options.store.replicate(connection)
            channel.open()
            self._add_wakeup(connection)
        except Exception as error:  # the edge of the store, which the user gave
            if not isinstance(error, CoveyError):
                logger.exception("the store does not replicate over %r", connection)
            self._fail(stream, error)
            return
        stream.move(StreamInput.ACCEPTED)
        stream.peer = Peer(key, connection.remote_address, connection.type, stream)
        self._by_key[key] = stream
        self._extensions.attach(stream, channel)
        self._publish(PeerAdded(stream.peer))
        if stream.active:  # a listener may have closed it
            self._publish(HandshakeDone(stream, stream.info))
        self._processed(stream)

    def _add_wakeup(self, connection: Connection) -> None:
        wakeup = self._options.wakeup
        if wakeup is None or wakeup.closed:
            return
        try:
            wakeup.add_stream(connection)
        except UsageError as error:  # of another networker, or the user's own: the first one has it
            logger.warning("no hints of groups on %r: %s", connection, error)

    def _fail(self, stream: PeerStream, error: Exception) -> None:
        """It cannot replicate; a connection that ended meanwhile is no failure."""
        connection = stream.connection
        if connection is None or not (connection.closed and isinstance(error, ClosedError)):
            self._publish(ReplicationFailed(error, stream))
        self._drop(stream, f"it cannot replicate: {error}")

    def _drop(self, stream: PeerStream, reason: CloseReason | str) -> None:
        """It is not, or not any more, its peer's connection."""
        self._retire(stream, StreamInput.DROPPED)
        if stream.connection is not None:
            stream.connection.start_close(reason)
        self._processed(stream)

    def _retire(self, stream: PeerStream, given: StreamInput) -> None:
        """Leave the present state; `peer-remove` where there was a peer."""
        was_active = stream.active
        stream.move(given)
        if not was_active or stream.peer is None:
            return
        del self._by_key[stream.peer.remote_public_key]
        self._extensions.detach(stream)
        self._publish(PeerRemoved(stream.peer))

    def _processed(self, stream: PeerStream) -> None:
        """Its handshake is over, well or not: told once."""
        if self.opening.settle(stream.info.attempt):
            self._publish(StreamProcessed(stream, stream.info))


def _is_broken(stream: PeerStream, error: Exception) -> bool:
    connection = stream.connection
    return isinstance(error, CoveyError) and (
        connection is None or connection.close_reason in BROKEN
    )


def info_of(connection: Connection) -> ConnectionInfo:
    """What a flock would tell of a connection that it had before anybody listened."""
    attempt = connection.attempt
    host, port = connection.remote_address
    return ConnectionInfo(
        attempt=attempt.id,
        type=cast("Kind", attempt.type),
        initiator=attempt.initiator,
        host=host,
        port=port,
        id=connection.remote_key,
        key=connection.remote_key,
    )
