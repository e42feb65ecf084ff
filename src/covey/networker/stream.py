"""One connection as a networker sees it: from the raw connection to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from covey.flock.events import ConnectionInfo
from covey.networker.policy import StreamInput, StreamState, next_state

if TYPE_CHECKING:
    from covey.net.connection import Connection
    from covey.networker.channel import ExtensionChannel
    from covey.networker.events import Peer


class PeerStream:
    """A connection of the flock: one object from `stream-opened` to `stream-closed`.

    `connection` is None until the handshake is done, `peer` until `peer-add`; both stay set after
    the end. `replication` is what the store's `replicate` gave. `info` tells where it came from
    and, once known, who it is.
    """

    __slots__ = (
        "__weakref__",
        "channel",
        "connection",
        "info",
        "peer",
        "public_key",
        "replication",
        "state",
    )

    def __init__(self, info: ConnectionInfo, public_key: bytes) -> None:
        self.info = info
        self.public_key = public_key
        self.state = StreamState.OPENING
        self.connection: Connection | None = None
        self.peer: Peer | None = None
        self.replication: Any = None
        self.channel: ExtensionChannel | None = None

    def __repr__(self) -> str:
        return f"<PeerStream {self.info.host}:{self.info.port} {self.state}>"

    @property
    def remote_public_key(self) -> bytes | None:
        """The key that the remote proved; None before."""
        return None if self.connection is None else self.connection.remote_key

    @property
    def finished_handshake(self) -> bool:
        """Whether the handshake of the connection was completed."""
        return self.connection is not None

    @property
    def active(self) -> bool:
        """Whether it replicates."""
        return self.state is StreamState.ACTIVE

    @property
    def extensions(self) -> frozenset[str]:
        """The names of the extensions that the remote has told of."""
        return frozenset() if self.channel is None else self.channel.remote_names

    def move(self, given: StreamInput) -> None:
        """Go to the next state. For the networker."""
        self.state = next_state(self.state, given)
