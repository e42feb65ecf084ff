"""What a group of logs tells its listeners: hints, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from covey.wakeup import WakeupPeer, WriterHead


@dataclass(frozen=True, slots=True)
class HintReceived:
    """`peer` has `length` blocks of the log `key`, more than are here."""

    key: bytes
    length: int
    peer: WakeupPeer
    type: Literal["hint"] = "hint"


@dataclass(frozen=True, slots=True)
class Woken:
    """The log was opened because of a hint at `length` blocks; its channels open now.

    `forked`: its history may be another one than that of a peer.
    """

    key: bytes
    length: int
    forked: bool = False
    type: Literal["woken"] = "woken"


@dataclass(frozen=True, slots=True)
class CaughtUp:
    """The log is here as far as was hinted, with its blocks where they are downloaded."""

    key: bytes
    fork: int
    length: int
    type: Literal["caught-up"] = "caught-up"


@dataclass(frozen=True, slots=True)
class IdleClosed:
    """The log was closed again: it is caught up, and nothing happened or others waited."""

    key: bytes
    type: Literal["idle-closed"] = "idle-closed"


@dataclass(frozen=True, slots=True)
class GivenUp:
    """The log was closed again, and what was hinted at did not come: `reason` says how.

    `late`: nothing came in time; `not-so`: the peers do not have it; `removed`: it is no longer in
    the group.
    """

    key: bytes
    length: int
    reason: Literal["late", "not-so", "removed"]
    type: Literal["given-up"] = "given-up"


@dataclass(frozen=True, slots=True)
class UnknownWriters:
    """`peer` told of `count` logs that are not in the group; `heads` are the first 64 of them."""

    heads: tuple[WriterHead, ...]
    count: int
    peer: WakeupPeer
    type: Literal["unknown-writer"] = "unknown-writer"


@dataclass(frozen=True, slots=True)
class GroupPeerAdded:
    """`peer` proved that it knows the capability of the group."""

    peer: WakeupPeer
    type: Literal["peer-add"] = "peer-add"


@dataclass(frozen=True, slots=True)
class GroupPeerRemoved:
    """`peer` is gone."""

    peer: WakeupPeer
    type: Literal["peer-remove"] = "peer-remove"


@dataclass(frozen=True, slots=True)
class GroupFailed:
    """A log of the group could not be opened or read; `key` is None where it is about several."""

    error: Exception
    key: bytes | None = None
    type: Literal["error"] = "error"


GroupEvent: TypeAlias = (
    HintReceived
    | Woken
    | CaughtUp
    | IdleClosed
    | GivenUp
    | UnknownWriters
    | GroupPeerAdded
    | GroupPeerRemoved
    | GroupFailed
)
