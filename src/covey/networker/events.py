"""What a networker tells its listeners: the events of `@basestore/networker` by their names.

`type` is the original's name, the other fields are its arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from covey.flock.events import ConnectionInfo

if TYPE_CHECKING:
    from covey.networker.stream import PeerStream


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """Somebody whose store replicates with ours: one object per connection, in every event.

    `remote_address` is host and port, `type` the transport: `tcp`.
    """

    remote_public_key: bytes
    remote_address: tuple[str, int]
    type: str
    stream: PeerStream

    def __repr__(self) -> str:
        return f"<Peer {self.remote_public_key.hex()[:8]} at {self.remote_address}>"


@dataclass(frozen=True, slots=True)
class Joined:
    """`configure` joins a topic; told again each time that it joins."""

    topic: bytes
    type: Literal["joined"] = "joined"


@dataclass(frozen=True, slots=True)
class Flushed:
    """The peers that discovery found at first are connected, or could not be."""

    topic: bytes
    type: Literal["flushed"] = "flushed"


@dataclass(frozen=True, slots=True)
class StreamOpened:
    """A connection is up, in either direction; its handshake begins."""

    stream: PeerStream
    info: ConnectionInfo
    type: Literal["stream-opened"] = "stream-opened"


@dataclass(frozen=True, slots=True)
class HandshakeDone:
    """The handshake of a connection is done and its store replicates; after `peer-add`."""

    stream: PeerStream
    info: ConnectionInfo
    type: Literal["handshake"] = "handshake"


@dataclass(frozen=True, slots=True)
class StreamProcessed:
    """The handshake of a connection is done, or it was closed before: once for each."""

    stream: PeerStream
    info: ConnectionInfo
    type: Literal["stream-processed"] = "stream-processed"


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """A connection is closed; `finished_handshake` tells whether it got beyond its handshake."""

    stream: PeerStream
    info: ConnectionInfo
    finished_handshake: bool
    type: Literal["stream-closed"] = "stream-closed"


@dataclass(frozen=True, slots=True)
class PeerAdded:
    """A peer is connected; never twice for one key without `peer-remove` between."""

    peer: Peer
    type: Literal["peer-add"] = "peer-add"


@dataclass(frozen=True, slots=True)
class PeerRemoved:
    """The connection of a peer ended; its extensions do not reach it any more."""

    peer: Peer
    type: Literal["peer-remove"] = "peer-remove"


@dataclass(frozen=True, slots=True)
class ReplicationFailed:
    """Replication could not begin, or a broken rule ended it; an ordinary end is none."""

    error: Exception
    stream: PeerStream
    type: Literal["replication-error"] = "replication-error"


@dataclass(frozen=True, slots=True)
class NetworkerFailed:
    """The flock told an error: it cannot listen."""

    error: Exception
    type: Literal["error"] = "error"


NetworkerEvent: TypeAlias = (
    Joined
    | Flushed
    | StreamOpened
    | HandshakeDone
    | StreamProcessed
    | StreamClosed
    | PeerAdded
    | PeerRemoved
    | ReplicationFailed
    | NetworkerFailed
)
