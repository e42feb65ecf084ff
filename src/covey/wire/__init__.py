"""Every protocol as a plain object: bytes in, events and bytes out. No socket, clock or task.

The codecs are in `covey.wire.encoding`, structs in `covey.wire.structs`; the events of the muxer,
whose names other layers use too, in `covey.wire.protomux_channel`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.wire.codec import Codec, Reader, decode, encode
    from covey.wire.dns_multicast import MulticastNode
    from covey.wire.identity import PlainSession
    from covey.wire.noise import HandshakeResult, NoiseHandshake
    from covey.wire.protomux import Protomux
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
    "covey.wire.dns_multicast": ("MulticastNode",),
    "covey.wire.identity": ("PlainSession",),
    "covey.wire.noise": (
        "HandshakeResult",
        "NoiseHandshake",
    ),
    "covey.wire.protomux": ("Protomux",),
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
    "Buffer",
    "Codec",
    "Ended",
    "HandshakeResult",
    "MessagesReceived",
    "MulticastNode",
    "NoiseHandshake",
    "Opened",
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
