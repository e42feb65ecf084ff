"""Finding peers by name: a `Channel` and the sources it asks."""

from __future__ import annotations

from covey.discovery.channel import Channel, FirstRound, Membership, PeerFound, topic_of
from covey.discovery.dns import DnsDiscovery
from covey.discovery.source import Source, Timing, Wanted
from covey.discovery.static_peers import StaticPeers

__all__ = [
    "Channel",
    "DnsDiscovery",
    "FirstRound",
    "Membership",
    "PeerFound",
    "Source",
    "StaticPeers",
    "Timing",
    "Wanted",
    "topic_of",
]
