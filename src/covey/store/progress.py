"""How far a log has come here, and how fast it moves: per feed and per peer."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW = 5
"""Seconds over which a rate is taken: short enough to show a stall, long enough not to flicker."""


class Meter:
    """Counts blocks and bytes of one direction; `now` is monotonic seconds."""

    __slots__ = ("_from", "_recent", "_second", "blocks", "bytes")

    def __init__(self, now: float) -> None:
        self.blocks = 0
        self.bytes = 0
        self._from = now
        self._second = int(now)
        self._recent = [0] * (WINDOW + 1)

    def add(self, size: int, now: float) -> None:
        """Count one block of `size` bytes."""
        second = int(now)
        if second != self._second:
            self._roll(second)
        self.blocks += 1
        self.bytes += size
        self._recent[0] += size

    def rate(self, now: float) -> float:
        """Bytes per second over the last `WINDOW` seconds, or since the start when that is less."""
        second = int(now)
        if second != self._second:
            self._roll(second)
        window = min(WINDOW + now - second, now - self._from)
        return sum(self._recent) / window if window > 0 else 0.0

    def _roll(self, second: int) -> None:
        passed = min(second - self._second, WINDOW + 1)
        self._recent = [0] * passed + self._recent[: WINDOW + 1 - passed]
        self._second = second


@dataclass(frozen=True, slots=True)
class FeedProgress:
    """A feed at this moment; sizes in stored bytes, rates in bytes per second.

    `have` blocks of `total` are kept here. `verified` of them were checked against the signature:
    a block is kept only after that, so it is ahead of `have` by what is about to be written.
    Counts of transfer begin when the log was opened.
    """

    have: int
    total: int
    verified: int
    contiguous: int
    byte_length: int
    peers: int
    downloaded_blocks: int = 0
    downloaded_bytes: int = 0
    uploaded_blocks: int = 0
    uploaded_bytes: int = 0
    download_rate: float = 0.0
    upload_rate: float = 0.0


@dataclass(frozen=True, slots=True)
class PeerProgress:
    """One peer of a feed at this moment; rates in bytes per second.

    It claims to hold `have` blocks of its `total`; `verified` blocks came from it and were proven.
    """

    have: int
    total: int
    verified: int
    in_flight: int
    downloaded_bytes: int = 0
    uploaded_blocks: int = 0
    uploaded_bytes: int = 0
    download_rate: float = 0.0
    upload_rate: float = 0.0
