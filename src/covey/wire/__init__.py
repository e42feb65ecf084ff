"""Every protocol as a plain object: bytes in, events and bytes out. No socket, clock or task.

The codecs are in `covey.wire.encoding`, structs in `covey.wire.structs`, DNS-discovery's messages
in `covey.wire.dns_messages`, `dns_discovery` and `dns_answers`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.wire.codec import Codec, Reader, decode, encode
    from covey.wire.dns_multicast import Answer, Arrival, MulticastNode, PeerHeard
    from covey.wire.identity import PlainSession
    from covey.wire.noise import HandshakeResult, HandshakeState
    from covey.wire.protomux import Protomux
    from covey.wire.protomux_channel import (
        BatchBegun,
        ChannelClosed,
        ChannelMessages,
        ChannelOpened,
        MuxEvent,
        PairRequested,
        PairTimedOut,
    )
    from covey.wire.secret_stream import SecretStream
    from covey.wire.session import (
        Buffer,
        Ended,
        MessagesReceived,
        Opened,
        Session,
        SessionEvent,
        TimedOut,
    )
    from covey.wire.topic_pipe import TopicPipe
    from covey.wire.topic_proof import TopicSecret

_HOMES: Final = {
    "covey.wire.codec": (
        "Codec",
        "Reader",
        "decode",
        "encode",
    ),
    "covey.wire.dns_multicast": (
        "Answer",
        "Arrival",
        "MulticastNode",
        "PeerHeard",
    ),
    "covey.wire.identity": ("PlainSession",),
    "covey.wire.noise": (
        "HandshakeResult",
        "HandshakeState",
    ),
    "covey.wire.protomux": ("Protomux",),
    "covey.wire.protomux_channel": (
        "BatchBegun",
        "ChannelClosed",
        "ChannelMessages",
        "ChannelOpened",
        "MuxEvent",
        "PairRequested",
        "PairTimedOut",
    ),
    "covey.wire.secret_stream": ("SecretStream",),
    "covey.wire.session": (
        "Buffer",
        "Ended",
        "MessagesReceived",
        "Opened",
        "Session",
        "SessionEvent",
        "TimedOut",
    ),
    "covey.wire.topic_pipe": ("TopicPipe",),
    "covey.wire.topic_proof": ("TopicSecret",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Answer",
    "Arrival",
    "BatchBegun",
    "Buffer",
    "ChannelClosed",
    "ChannelMessages",
    "ChannelOpened",
    "Codec",
    "Ended",
    "HandshakeResult",
    "HandshakeState",
    "MessagesReceived",
    "MulticastNode",
    "MuxEvent",
    "Opened",
    "PairRequested",
    "PairTimedOut",
    "PeerHeard",
    "PlainSession",
    "Protomux",
    "Reader",
    "SecretStream",
    "Session",
    "SessionEvent",
    "TimedOut",
    "TopicPipe",
    "TopicSecret",
    "decode",
    "encode",
]
