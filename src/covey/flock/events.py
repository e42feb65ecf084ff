"""What a flock tells its listeners: the events of discovery-swarm under their original names.

`type` is the original's name, the other fields are its arguments. Every event about a candidate
carries `peer`, every event about a connection carries `info`; both are snapshots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from covey.flock.policy import Cause, Kind, Reason
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection


@dataclass(frozen=True, slots=True)
class Peer:
    """A candidate: where it is, for which topic, how often it failed in a row, who told.

    `channel` is the topic, as given to `join` (None for an incoming connection), `address` the
    multiserver address it is staged and dialled under.
    """

    host: str
    port: int
    channel: bytes | None
    retries: int = 0
    source: str = ""
    address: str = ""

    @property
    def id(self) -> str:
        """The original's identifier: `host:port@channel`, the topic in hexadecimal."""
        return f"{self.host}:{self.port}@{(self.channel or b'').hex()}"


@dataclass(frozen=True, slots=True)
class ConnectionInfo:
    """A connection or attempt: `id` is None until the remote told it.

    `host` and `port` are the discovered address when `initiator`, else the remote socket's.
    `channel`, the topic, is set only when `initiator`. `key` is the remote's proven public key.
    `stream` is what the `connect` hook made of the connection.
    """

    attempt: int
    type: Kind
    initiator: bool
    host: str
    port: int
    channel: bytes | None = None
    id: bytes | None = None
    key: bytes | None = None
    stream: Any = None


@dataclass(frozen=True, slots=True)
class PeerDiscovered:
    """A new candidate, before any attempt."""

    peer: Peer
    type: Literal["peer"] = "peer"


@dataclass(frozen=True, slots=True)
class PeerRejected:
    """A candidate or an incoming connection was refused; `text` says it in words."""

    peer: Peer
    reason: Reason
    text: str = ""
    type: Literal["peer-rejected"] = "peer-rejected"

    @property
    def details(self) -> Mapping[str, object]:
        """The original's second argument."""
        return {"reason": str(self.reason)}


@dataclass(frozen=True, slots=True)
class PeerBanned:
    """An address will not be dialled any more: `application` or `detected-self`."""

    peer: Peer
    reason: Reason
    type: Literal["peer-banned"] = "peer-banned"

    @property
    def details(self) -> Mapping[str, object]:
        """The original's second argument."""
        return {"reason": str(self.reason)}


@dataclass(frozen=True, slots=True)
class PeerConnecting:
    """An attempt begins; `peer.retries` failures went before it."""

    peer: Peer
    type: Literal["connecting"] = "connecting"


@dataclass(frozen=True, slots=True)
class PeerConnectFailed:
    """An attempt did not lead to a raw connection."""

    peer: Peer
    timedout: bool
    error: Exception
    type: Literal["connect-failed"] = "connect-failed"

    @property
    def details(self) -> Mapping[str, object]:
        """The original's second argument."""
        return {"timedout": self.timedout}


@dataclass(frozen=True, slots=True)
class Handshaking:
    """A raw connection is up, in either direction."""

    info: ConnectionInfo
    type: Literal["handshaking"] = "handshaking"


@dataclass(frozen=True, slots=True)
class HandshakeTimedOut:
    """The remote did not complete the handshake in time; `connection-closed` follows."""

    info: ConnectionInfo
    type: Literal["handshake-timeout"] = "handshake-timeout"


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A peer is connected; this is its one connection from now on."""

    connection: Connection
    info: ConnectionInfo
    type: Literal["connection"] = "connection"


@dataclass(frozen=True, slots=True)
class RedundantConnection:
    """A second connection of one peer was resolved: `connection` and `info` are the dropped one's.

    `cause` names the rule that decided.
    """

    connection: Connection
    info: ConnectionInfo
    cause: Cause
    type: Literal["redundant-connection"] = "redundant-connection"


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """A raw connection ended; `connection` is None when its handshake was never completed.

    `error` is what ended it, or None for an orderly end. `reason` says who ended it, or what did,
    `text` the same in words: of the error, of who closed it, or else the reason's name.
    """

    info: ConnectionInfo
    connection: Connection | None = None
    error: Exception | None = None
    reason: CloseReason | None = None
    text: str = ""
    type: Literal["connection-closed"] = "connection-closed"


@dataclass(frozen=True, slots=True)
class PeerDropped:
    """A candidate failed too often and is forgotten; found again it starts anew.

    `error` is that of the last attempt, or what its connection was lost by.
    """

    peer: Peer
    error: Exception | None = None
    type: Literal["drop"] = "drop"


@dataclass(frozen=True, slots=True)
class HandlerFailed:
    """The application's handler of a connection raised; only that connection ends."""

    connection: Connection
    info: ConnectionInfo
    error: Exception
    type: Literal["handler-failed"] = "handler-failed"


@dataclass(frozen=True, slots=True)
class Listening:
    """Connections are accepted at `host`, `port`."""

    host: str
    port: int
    type: Literal["listening"] = "listening"


@dataclass(frozen=True, slots=True)
class FlockError:
    """Listening failed."""

    error: Exception
    type: Literal["error"] = "error"


@dataclass(frozen=True, slots=True)
class FlockClosed:
    """The flock is closed; always the last event."""

    type: Literal["close"] = "close"


FlockEvent: TypeAlias = (
    PeerDiscovered
    | PeerRejected
    | PeerBanned
    | PeerConnecting
    | PeerConnectFailed
    | Handshaking
    | HandshakeTimedOut
    | PeerConnected
    | RedundantConnection
    | ConnectionClosed
    | PeerDropped
    | HandlerFailed
    | Listening
    | FlockError
    | FlockClosed
)
