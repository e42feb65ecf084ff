"""What a wakeup counts; `wakeup.stats` is its `WakeupStats`."""

from __future__ import annotations

from dataclasses import dataclass, fields

__all__ = ["WakeupCounts", "WakeupStats"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeupCounts:
    """The counters of one moment; see `WakeupStats`."""

    sessions_opened: int = 0
    sessions_closed: int = 0
    topics_added: int = 0
    topics_gcd: int = 0
    peers_added: int = 0
    peers_removed: int = 0
    wire_announce_rx: int = 0
    wire_announce_tx: int = 0
    wire_lookup_rx: int = 0
    wire_lookup_tx: int = 0
    wire_info_rx: int = 0
    wire_info_tx: int = 0


COUNTERS = tuple(field.name for field in fields(WakeupCounts))
"""The names of the counters, in the order of the reference."""


class WakeupStats:
    """Counters that go up as things happen; `snapshot` gives those of this moment.

    `peers_added` counts channels that this side opened, `peers_removed` their ends, also of those
    that were rejected: handlers hear of fewer. `topics_gcd` counts every topic that is gone. `tx`
    counts calls, also those to a peer whose channel is closed; the flag of the handshake is no
    info. A session counts as closed once.
    """

    __slots__ = COUNTERS

    def __init__(self) -> None:
        self.sessions_opened = 0
        self.sessions_closed = 0
        self.topics_added = 0
        self.topics_gcd = 0
        self.peers_added = 0
        self.peers_removed = 0
        self.wire_announce_rx = 0
        self.wire_announce_tx = 0
        self.wire_lookup_rx = 0
        self.wire_lookup_tx = 0
        self.wire_info_rx = 0
        self.wire_info_tx = 0

    def __repr__(self) -> str:
        told = ", ".join(f"{name}={value}" for name in COUNTERS if (value := getattr(self, name)))
        return f"<WakeupStats {told or 'nothing yet'}>"

    def snapshot(self) -> WakeupCounts:
        """The counters of this moment."""
        return WakeupCounts(**{name: getattr(self, name) for name in COUNTERS})
