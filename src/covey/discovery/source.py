"""What a channel asks of a place where peers can be found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias

Report: TypeAlias = Callable[[bytes, str, int], None]
"""`report(hash, host, port)`: somebody says that a peer of the topic with that hash is there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """One membership as a source sees it.

    `name` is what was joined, `hash` the up to 20 bytes announced for it; `port` None only looks
    up.
    """

    name: bytes
    hash: bytes
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """When rounds follow each other, in seconds.

    The first is at once, the next ones `early` seconds after the first, then one each `interval`
    plus a random part of up to `jitter`, so that peers started together do not ask together.
    """

    early: tuple[float, ...] = ()
    interval: float = 60.0
    jitter: float = 10.0

    def pauses(self, random: Callable[[], float]) -> Iterator[float]:
        """Pauses between rounds, without end; `random` gives numbers from 0 to 1."""
        last = 0.0
        for moment in self.early:
            yield moment - last
            last = moment
        while True:
            yield self.interval + self.jitter * random()


class Source(Protocol):
    """A network, server or list that knows peers.

    The channel opens a source before its first round and closes it after its last; it may be
    opened again. Rounds of different topics run at the same time.
    """

    @property
    def name(self) -> str:
        """Short name, unique in a channel: the `source` of what it finds."""

    @property
    def timing(self) -> Timing:
        """How often to ask."""

    async def open(self, report: Report) -> None:
        """Take what is needed. Raises `CoveyError` or `OSError`, and then holds nothing."""

    async def round(self, wanted: Wanted) -> None:
        """Announce and look up once. Raises `CoveyError` or `OSError` when nobody could be asked.

        What is found goes to `report`, during the call or at any time after it.
        """

    def leave(self, wanted: Wanted) -> None:
        """Withdraw what rounds of exactly this membership announced."""

    async def close(self) -> None:
        """Give everything back. Never raises; may be called again."""
