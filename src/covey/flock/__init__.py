"""Everybody who joined a topic: found, dialled, kept, one connection for each peer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.flock.candidates import CandidateState
    from covey.flock.events import (
        ConnectionClosed,
        ConnectionInfo,
        FlockClosed,
        FlockError,
        FlockEvent,
        HandlerFailed,
        HandshakeTimedOut,
        Handshaking,
        Listening,
        Peer,
        PeerBanned,
        PeerConnected,
        PeerConnectFailed,
        PeerConnecting,
        PeerDiscovered,
        PeerDropped,
        PeerRejected,
        RedundantConnection,
    )
    from covey.flock.flock import Flock
    from covey.flock.hooks import ConnectHook, StreamHook, StreamIdentity
    from covey.flock.places import PeerPlace
    from covey.flock.policy import Cause, Reason
    from covey.flock.topic import Topic
    from covey.flock.view import FlockEntry

_HOMES: Final = {
    "covey.flock.candidates": ("CandidateState",),
    "covey.flock.events": (
        "PeerConnectFailed",
        "PeerConnected",
        "PeerConnecting",
        "ConnectionClosed",
        "ConnectionInfo",
        "FlockClosed",
        "FlockError",
        "FlockEvent",
        "HandlerFailed",
        "HandshakeTimedOut",
        "Handshaking",
        "Listening",
        "Peer",
        "PeerBanned",
        "PeerDiscovered",
        "PeerDropped",
        "PeerRejected",
        "RedundantConnection",
    ),
    "covey.flock.flock": ("Flock",),
    "covey.flock.hooks": (
        "ConnectHook",
        "StreamHook",
        "StreamIdentity",
    ),
    "covey.flock.places": ("PeerPlace",),
    "covey.flock.policy": (
        "Cause",
        "Reason",
    ),
    "covey.flock.topic": ("Topic",),
    "covey.flock.view": ("FlockEntry",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "CandidateState",
    "Cause",
    "ConnectHook",
    "ConnectionClosed",
    "ConnectionInfo",
    "Flock",
    "FlockClosed",
    "FlockEntry",
    "FlockError",
    "FlockEvent",
    "HandlerFailed",
    "HandshakeTimedOut",
    "Handshaking",
    "Listening",
    "Peer",
    "PeerBanned",
    "PeerConnectFailed",
    "PeerConnected",
    "PeerConnecting",
    "PeerDiscovered",
    "PeerDropped",
    "PeerPlace",
    "PeerRejected",
    "Reason",
    "RedundantConnection",
    "StreamHook",
    "StreamIdentity",
    "Topic",
]
