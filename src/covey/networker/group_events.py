"""What a group of logs tells its listeners: hints, and what became of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from covey.events import EventStream
    from covey.wakeup import WakeupPeer, WriterHead


@dataclass(frozen=True, slots=True)
class HintReceived:
    """`peer` has more of `count` logs than is here; `heads` are what it has of the first 64."""

    heads: tuple[WriterHead, ...]
    count: int
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


class Heard:
    """What one announce of `peer` tells, for the events about it; `most` logs of each kind."""

    __slots__ = ("_most", "_news", "_news_count", "_unknown", "_unknown_count", "peer")

    def __init__(self, peer: WakeupPeer, most: int) -> None:
        self.peer = peer
        self._most = most
        self._news: list[WriterHead] = []
        self._news_count = 0
        self._unknown: list[WriterHead] = []
        self._unknown_count = 0

    def news(self, head: WriterHead) -> None:
        """It has more of a log than is here."""
        self._news_count += 1
        if self._news_count <= self._most:
            self._news.append(head)

    def unknown(self, head: WriterHead) -> None:
        """It has a log that is not in the group."""
        self._unknown_count += 1
        if self._unknown_count <= self._most:
            self._unknown.append(head)

    def publish(self, events: EventStream[GroupEvent]) -> None:
        """Tell of it: an event for each kind of which there is something."""
        if self._news:
            events.publish(HintReceived(tuple(self._news), self._news_count, self.peer))
        if self._unknown:
            events.publish(UnknownWriters(tuple(self._unknown), self._unknown_count, self.peer))
