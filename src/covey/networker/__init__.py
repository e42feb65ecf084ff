"""A store replicated with every peer of its topics, and messages between those peers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.networker.events import (
        Flushed,
        HandshakeDone,
        Joined,
        NetworkerEvent,
        NetworkerFailed,
        Peer,
        PeerAdded,
        PeerRemoved,
        ReplicationFailed,
        StreamClosed,
        StreamOpened,
        StreamProcessed,
    )
    from covey.networker.extensions import Extension, ExtensionHandlers
    from covey.networker.group import GroupFeeds, WakeupGroup
    from covey.networker.group_events import (
        CaughtUp,
        GivenUp,
        GroupEvent,
        GroupFailed,
        GroupPeerAdded,
        GroupPeerRemoved,
        HintReceived,
        IdleClosed,
        UnknownWriters,
        Woken,
    )
    from covey.networker.head_table import Head
    from covey.networker.networker import FlockOptions, Networker
    from covey.networker.stream import PeerStream
    from covey.networker.topics import TopicStatus

_HOMES: Final = {
    "covey.networker.events": (
        "Flushed",
        "HandshakeDone",
        "Joined",
        "NetworkerEvent",
        "NetworkerFailed",
        "Peer",
        "PeerAdded",
        "PeerRemoved",
        "ReplicationFailed",
        "StreamClosed",
        "StreamOpened",
        "StreamProcessed",
    ),
    "covey.networker.extensions": (
        "Extension",
        "ExtensionHandlers",
    ),
    "covey.networker.group": ("GroupFeeds", "WakeupGroup"),
    "covey.networker.group_events": (
        "CaughtUp",
        "GivenUp",
        "GroupEvent",
        "GroupFailed",
        "GroupPeerAdded",
        "GroupPeerRemoved",
        "HintReceived",
        "IdleClosed",
        "UnknownWriters",
        "Woken",
    ),
    "covey.networker.head_table": ("Head",),
    "covey.networker.networker": (
        "FlockOptions",
        "Networker",
    ),
    "covey.networker.stream": ("PeerStream",),
    "covey.networker.topics": ("TopicStatus",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "CaughtUp",
    "Extension",
    "ExtensionHandlers",
    "FlockOptions",
    "Flushed",
    "GivenUp",
    "GroupEvent",
    "GroupFailed",
    "GroupFeeds",
    "GroupPeerAdded",
    "GroupPeerRemoved",
    "HandshakeDone",
    "Head",
    "HintReceived",
    "IdleClosed",
    "Joined",
    "Networker",
    "NetworkerEvent",
    "NetworkerFailed",
    "Peer",
    "PeerAdded",
    "PeerRemoved",
    "PeerStream",
    "ReplicationFailed",
    "StreamClosed",
    "StreamOpened",
    "StreamProcessed",
    "TopicStatus",
    "UnknownWriters",
    "WakeupGroup",
    "Woken",
]
