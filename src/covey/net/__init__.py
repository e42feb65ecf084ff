"""Sockets, connections and channels on asyncio: the shells around `covey.wire`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.net.attempt import Attempt, AttemptObserver
    from covey.net.close_reason import CloseReason
    from covey.net.connection import Connection
    from covey.net.endpoint import Endpoint
    from covey.net.handshakes import (
        Handshake,
        Identity,
        NoiseHandshake,
        PlainHandshake,
        RawHandshake,
        default_handshakes,
    )
    from covey.net.mux import Muxer
    from covey.net.mux_channel import Channel
    from covey.net.mux_message import Message
    from covey.net.pipe import MessageConsumer, MessagePipe
    from covey.net.stream_shell import StreamShell
    from covey.net.tcp import TcpTransport
    from covey.net.transports import Listener, Transport, default_transports

_HOMES: Final = {
    "covey.net.attempt": (
        "Attempt",
        "AttemptObserver",
    ),
    "covey.net.close_reason": ("CloseReason",),
    "covey.net.connection": ("Connection",),
    "covey.net.endpoint": ("Endpoint",),
    "covey.net.handshakes": (
        "Handshake",
        "Identity",
        "NoiseHandshake",
        "PlainHandshake",
        "RawHandshake",
        "default_handshakes",
    ),
    "covey.net.mux": ("Muxer",),
    "covey.net.mux_channel": ("Channel",),
    "covey.net.mux_message": ("Message",),
    "covey.net.pipe": (
        "MessageConsumer",
        "MessagePipe",
    ),
    "covey.net.stream_shell": ("StreamShell",),
    "covey.net.tcp": ("TcpTransport",),
    "covey.net.transports": (
        "Listener",
        "Transport",
        "default_transports",
    ),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Attempt",
    "AttemptObserver",
    "Channel",
    "CloseReason",
    "Connection",
    "Endpoint",
    "Handshake",
    "Identity",
    "Listener",
    "Message",
    "MessageConsumer",
    "MessagePipe",
    "Muxer",
    "NoiseHandshake",
    "PlainHandshake",
    "RawHandshake",
    "StreamShell",
    "TcpTransport",
    "Transport",
    "default_handshakes",
    "default_transports",
]
