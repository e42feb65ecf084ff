"""What a feed and a store tell of their own accord; `type` is the name of the original's event.

Source: hypercore 11.37.1 and corestore 7.9.2, their emitters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from covey.errors import CoveyError
from covey.feed import log_events
from covey.feed.manifest import Manifest

if TYPE_CHECKING:
    from covey.store.feed_peer import FeedPeer


@dataclass(frozen=True, slots=True)
class Appended:
    """The log has `length` blocks now; those from `start` on are new."""

    length: int
    fork: int
    start: int
    type: Literal["append"] = "append"


@dataclass(frozen=True, slots=True)
class Truncated:
    """The log was cut to `length` blocks, of `old_length`, and goes on as `fork`."""

    length: int
    fork: int
    old_length: int
    type: Literal["truncate"] = "truncate"


@dataclass(frozen=True, slots=True)
class Cleared:
    """The blocks `start` to before `end` are no longer kept here."""

    start: int
    end: int
    type: Literal["clear"] = "clear"


@dataclass(frozen=True, slots=True)
class Downloaded:
    """Block `index`, of `size` stored bytes, came from `peer`, was verified and is kept."""

    index: int
    size: int
    peer: FeedPeer
    type: Literal["download"] = "download"


@dataclass(frozen=True, slots=True)
class Uploaded:
    """Block `index`, of `size` stored bytes, went to `peer`."""

    index: int
    size: int
    peer: FeedPeer
    type: Literal["upload"] = "upload"


@dataclass(frozen=True, slots=True)
class PeerAdded:
    """`peer` proved that it knows the key; the log is exchanged with it."""

    peer: FeedPeer
    type: Literal["peer-add"] = "peer-add"


@dataclass(frozen=True, slots=True)
class PeerRemoved:
    """`peer` is gone; `error` is set when we gave it up."""

    peer: FeedPeer
    error: CoveyError | None = None
    type: Literal["peer-remove"] = "peer-remove"


@dataclass(frozen=True, slots=True)
class VerificationFailed:
    """An answer of `peer` does not fit the signature; nothing of it was kept."""

    peer: FeedPeer
    error: CoveyError
    type: Literal["verification-error"] = "verification-error"


@dataclass(frozen=True, slots=True)
class RequestRefused:
    """`peer` asked for what makes no sense."""

    peer: FeedPeer
    error: CoveyError
    type: Literal["invalid-request"] = "invalid-request"


@dataclass(frozen=True, slots=True)
class ConflictFound:
    """The writer signed two histories of `length` blocks on one fork: the log is frozen.

    `peer` showed the second one; None when it is gone already.
    """

    length: int
    fork: int
    peer: FeedPeer | None
    type: Literal["conflict"] = "conflict"


@dataclass(frozen=True, slots=True)
class ManifestLearned:
    """It is known now who may sign the log."""

    manifest: Manifest
    type: Literal["manifest"] = "manifest"


@dataclass(frozen=True, slots=True)
class StoreFailed:
    """The store could not keep what was received; it is asked for again when it can be written.

    What waits for blocks at this moment raises the `error`.
    """

    error: CoveyError
    type: Literal["store-error"] = "store-error"


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """What a peer asked for, or an answer builds on, is stored and cannot be read; told once.

    Peers are told that it is not here, and nothing ends: what else is wanted goes on.
    """

    error: CoveyError
    type: Literal["read-error"] = "read-error"


@dataclass(frozen=True, slots=True)
class FeedClosed:
    """The session is closed; `error` is set when that was not its owner's wish. The last event."""

    error: CoveyError | None = None
    type: Literal["close"] = "close"


FeedEvent: TypeAlias = (
    Appended
    | Truncated
    | Cleared
    | Downloaded
    | Uploaded
    | PeerAdded
    | PeerRemoved
    | VerificationFailed
    | RequestRefused
    | ConflictFound
    | ManifestLearned
    | StoreFailed
    | ReadFailed
    | FeedClosed
)


@dataclass(frozen=True, slots=True)
class FeedOpened:
    """A log was opened in the store, by a `get` or because a remote asked for it."""

    key: bytes
    discovery_key: bytes
    type: Literal["feed-open"] = "feed-open"


@dataclass(frozen=True, slots=True)
class FeedLeft:
    """A log that nobody used any more was closed in the store."""

    key: bytes
    discovery_key: bytes
    type: Literal["feed-close"] = "feed-close"


@dataclass(frozen=True, slots=True)
class FeedMissed:
    """A remote asked for a log that is not here, by its discovery key."""

    discovery_key: bytes
    remote_key: bytes | None
    type: Literal["feed-missed"] = "feed-missed"


class StoredHead(NamedTuple):
    """Where a log stands in the store; `lacking`: not all of its blocks are here."""

    fork: int
    length: int
    lacking: bool = False


@dataclass(frozen=True, slots=True)
class HeadChanged:
    """A log that is open has another head now, by a write here or one that was replicated.

    `lacking`: not all of its blocks are here.
    """

    key: bytes
    fork: int
    length: int
    lacking: bool = False
    type: Literal["head-changed"] = "head-changed"


StoreEvent: TypeAlias = FeedOpened | FeedLeft | FeedMissed


def of_change(change: Any) -> FeedEvent | None:
    """What a feed tells of a change of its log; None for one that is told in another way."""
    match change:
        case log_events.Appended(length, fork, start):
            return Appended(length, fork, start)
        case log_events.Truncated(length, fork, old_length):
            return Truncated(length, fork, old_length)
        case log_events.Cleared(start, end):
            return Cleared(start, end)
        case log_events.ManifestLearned(manifest):
            return ManifestLearned(manifest)
        case _:
            return None
