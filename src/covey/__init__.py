"""Peer-to-peer connections for Python.

A program names a topic; covey discovers who else is there, stages them as candidates, keeps good
encrypted connections and multiplexes protocols over them. Names are imported when they are first
used, so `import covey` stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names
from covey._version import __version__

if TYPE_CHECKING:
    from covey.address import Address
    from covey.conn.hub import Hub
    from covey.conn.staging import Staging
    from covey.conn.story import Story
    from covey.discovery.channel import Channel, PeerFound
    from covey.discovery.dns import DnsDiscovery
    from covey.discovery.static_peers import StaticPeers
    from covey.errors import (
        AddressError,
        BlockNotAvailable,
        ClosedError,
        ConnectError,
        ConnectionAborted,
        ConnectTimeout,
        CoveyError,
        DecodeError,
        DialFailed,
        DiscoveryError,
        EncodeError,
        FeedTimeout,
        FrozenError,
        HandshakeError,
        HandshakeTimeout,
        HubClosed,
        KeyFileError,
        LimitError,
        ProtocolError,
        Refused,
        SelfConnection,
        StoreError,
        UsageError,
        VerifyError,
    )
    from covey.events import Lagged
    from covey.flock.flock import Flock
    from covey.flock.topic import Topic
    from covey.keys import KeyPair
    from covey.limits import Limits
    from covey.net.close_reason import CloseReason
    from covey.net.connection import Connection
    from covey.net.endpoint import Endpoint
    from covey.networker.networker import Networker
    from covey.store.basestore import Basestore
    from covey.store.feed import Feed
    from covey.wakeup import Wakeup
    from covey.wire.wakeup_messages import Lookup, WriterHead
    from covey.wire.wakeup_session import WakeupHandlers, WakeupSession
    from covey.wire.wakeup_topic import WakeupPeer, WakeupTopic

_HOMES: Final = {
    "covey.address": ("Address",),
    "covey.conn.hub": ("Hub",),
    "covey.conn.staging": ("Staging",),
    "covey.conn.story": ("Story",),
    "covey.discovery.channel": (
        "Channel",
        "PeerFound",
    ),
    "covey.discovery.dns": ("DnsDiscovery",),
    "covey.discovery.static_peers": ("StaticPeers",),
    "covey.errors": (
        "AddressError",
        "BlockNotAvailable",
        "ClosedError",
        "ConnectError",
        "ConnectTimeout",
        "ConnectionAborted",
        "CoveyError",
        "DecodeError",
        "DialFailed",
        "DiscoveryError",
        "EncodeError",
        "FeedTimeout",
        "FrozenError",
        "HandshakeError",
        "HandshakeTimeout",
        "HubClosed",
        "KeyFileError",
        "LimitError",
        "ProtocolError",
        "Refused",
        "SelfConnection",
        "StoreError",
        "UsageError",
        "VerifyError",
    ),
    "covey.events": ("Lagged",),
    "covey.flock.flock": ("Flock",),
    "covey.flock.topic": ("Topic",),
    "covey.keys": ("KeyPair",),
    "covey.limits": ("Limits",),
    "covey.net.close_reason": ("CloseReason",),
    "covey.net.connection": ("Connection",),
    "covey.net.endpoint": ("Endpoint",),
    "covey.networker.networker": ("Networker",),
    "covey.store.basestore": ("Basestore",),
    "covey.store.feed": ("Feed",),
    "covey.wakeup": ("Wakeup",),
    "covey.wire.wakeup_messages": (
        "Lookup",
        "WriterHead",
    ),
    "covey.wire.wakeup_session": (
        "WakeupHandlers",
        "WakeupSession",
    ),
    "covey.wire.wakeup_topic": (
        "WakeupPeer",
        "WakeupTopic",
    ),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES, also=("__version__",))

__all__ = [
    "Address",
    "AddressError",
    "Basestore",
    "BlockNotAvailable",
    "Channel",
    "CloseReason",
    "ClosedError",
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionAborted",
    "CoveyError",
    "DecodeError",
    "DialFailed",
    "DiscoveryError",
    "DnsDiscovery",
    "EncodeError",
    "Endpoint",
    "Feed",
    "FeedTimeout",
    "Flock",
    "FrozenError",
    "HandshakeError",
    "HandshakeTimeout",
    "Hub",
    "HubClosed",
    "KeyFileError",
    "KeyPair",
    "Lagged",
    "LimitError",
    "Limits",
    "Lookup",
    "Networker",
    "PeerFound",
    "ProtocolError",
    "Refused",
    "SelfConnection",
    "Staging",
    "StaticPeers",
    "StoreError",
    "Story",
    "Topic",
    "UsageError",
    "VerifyError",
    "Wakeup",
    "WakeupHandlers",
    "WakeupPeer",
    "WakeupSession",
    "WakeupTopic",
    "WriterHead",
    "__version__",
]
