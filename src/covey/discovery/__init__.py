"""Finding peers by name: a `Channel` and the sources it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.discovery.channel import Channel, PeerFound
    from covey.discovery.dns import DnsDiscovery
    from covey.discovery.membership import FirstRound, Membership
    from covey.discovery.names import topic_hash
    from covey.discovery.source import Report, Source, Timing, Wanted
    from covey.discovery.static_peers import StaticPeers

_HOMES: Final = {
    "covey.discovery.channel": (
        "Channel",
        "PeerFound",
    ),
    "covey.discovery.dns": ("DnsDiscovery",),
    "covey.discovery.membership": (
        "FirstRound",
        "Membership",
    ),
    "covey.discovery.names": ("topic_hash",),
    "covey.discovery.source": (
        "Report",
        "Source",
        "Timing",
        "Wanted",
    ),
    "covey.discovery.static_peers": ("StaticPeers",),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "Channel",
    "DnsDiscovery",
    "FirstRound",
    "Membership",
    "PeerFound",
    "Report",
    "Source",
    "StaticPeers",
    "Timing",
    "Wanted",
    "topic_hash",
]
