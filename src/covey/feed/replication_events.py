"""What a replicator tells of its own accord, and the error by which it gives up a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from covey.errors import CoveyError, ProtocolError, StoreError

if TYPE_CHECKING:
    from covey.feed.replication_peer import ReplicationPeer


class ReplicationError(ProtocolError):
    """A peer of a log broke its rules; `scope` says what is to end: its channel or all it has.

    `shun`: it is to be kept away for a while, by its key.
    """

    def __init__(
        self,
        message: str,
        *,
        scope: Literal["channel", "connection"] = "channel",
        shun: bool = False,
    ) -> None:
        super().__init__(message)
        self.scope = scope
        self.shun = shun


class PeerAdded(NamedTuple):
    """A channel for the log is open."""

    peer: ReplicationPeer


class PeerRemoved(NamedTuple):
    """A channel for the log is gone; `error` is set when we gave it up."""

    peer: ReplicationPeer
    error: CoveyError | None


class Downloaded(NamedTuple):
    """A block of `size` bytes came from `peer` and is stored."""

    peer: ReplicationPeer
    index: int  # type: ignore[assignment] # the name of the wire, not what tuples call index
    size: int


class Uploaded(NamedTuple):
    """A block of `size` bytes was handed to the channel of `peer`."""

    peer: ReplicationPeer
    index: int  # type: ignore[assignment]
    size: int


class InvalidData(NamedTuple):
    """An answer of `peer` does not verify; nothing of it was stored."""

    peer: ReplicationPeer
    error: CoveyError


class InvalidRequest(NamedTuple):
    """`peer` asked for what makes no sense."""

    peer: ReplicationPeer
    error: CoveyError


class Conflict(NamedTuple):
    """`peer` has another log of `length` blocks, signed for the same fork: ours is frozen."""

    length: int
    fork: int
    peer: ReplicationPeer


class StoreFailed(NamedTuple):
    """The store could not write: no more requests until `Replicator.resume`."""

    error: StoreError


class ReadFailed(NamedTuple):
    """A record could not be read that a peer asked for, or an answer builds on; told once.

    It counts as not here: everything else goes on.
    """

    error: StoreError


class ChannelDone(NamedTuple):
    """The channel of `peer`, which is no peer any more, is to be closed.

    `error` is None where neither side downloads.
    """

    peer: ReplicationPeer
    error: CoveyError | None


class ChannelWanted(NamedTuple):
    """Channels are to be opened: again on the connection of `peer`, or where there is none."""

    peer: ReplicationPeer | None


class ExtensionReceived(NamedTuple):
    """`peer` sent `payload` for the extension `name`."""

    peer: ReplicationPeer
    name: str
    payload: bytes


Event: TypeAlias = (
    PeerAdded
    | PeerRemoved
    | Downloaded
    | Uploaded
    | InvalidData
    | InvalidRequest
    | Conflict
    | StoreFailed
    | ReadFailed
    | ChannelDone
    | ChannelWanted
    | ExtensionReceived
)
