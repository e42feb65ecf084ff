"""Peer-to-peer connections for Python.

A program names a topic; covey discovers who else is there, stages them as candidates, keeps good
encrypted connections and multiplexes protocols over them. Names are imported when they are first
used, so `import covey` stays quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from covey._version import __version__

if TYPE_CHECKING:
    from covey.address import Address
    from covey.conn.hub import Hub
    from covey.conn.staging import Staging
    from covey.discovery.channel import Channel
    from covey.discovery.dns import DnsDiscovery
    from covey.discovery.static_peers import StaticPeers
    from covey.errors import (
        AddressError,
        ClosedError,
        ConnectError,
        CoveyError,
        DecodeError,
        EncodeError,
        HandshakeError,
        LimitError,
        ProtocolError,
        StoreError,
        UsageError,
        VerifyError,
    )
    from covey.events import Lagged
    from covey.flock.flock import Flock
    from covey.keys import KeyPair
    from covey.limits import Limits
    from covey.net.connection import Connection
    from covey.net.endpoint import Endpoint

_HOMES: Final = {
    "covey.address": ("Address",),
    "covey.conn.hub": ("Hub",),
    "covey.conn.staging": ("Staging",),
    "covey.discovery.channel": ("Channel",),
    "covey.discovery.dns": ("DnsDiscovery",),
    "covey.discovery.static_peers": ("StaticPeers",),
    "covey.errors": (
        "AddressError",
        "ClosedError",
        "ConnectError",
        "CoveyError",
        "DecodeError",
        "EncodeError",
        "HandshakeError",
        "LimitError",
        "ProtocolError",
        "StoreError",
        "UsageError",
        "VerifyError",
    ),
    "covey.events": ("Lagged",),
    "covey.flock.flock": ("Flock",),
    "covey.keys": ("KeyPair",),
    "covey.limits": ("Limits",),
    "covey.net.connection": ("Connection",),
    "covey.net.endpoint": ("Endpoint",),
}
_HOME_OF: Final = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Address",
    "AddressError",
    "Channel",
    "ClosedError",
    "ConnectError",
    "Connection",
    "CoveyError",
    "DecodeError",
    "DnsDiscovery",
    "EncodeError",
    "Endpoint",
    "Flock",
    "HandshakeError",
    "Hub",
    "KeyPair",
    "Lagged",
    "LimitError",
    "Limits",
    "ProtocolError",
    "Staging",
    "StaticPeers",
    "StoreError",
    "UsageError",
    "VerifyError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'covey' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
