"""A remote with which one log is exchanged, as the users of a feed see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from covey.store.clock import Clock
from covey.store.progress import Meter, PeerProgress

if TYPE_CHECKING:
    from covey.feed.replication_peer import ReplicationPeer


class FeedPeer:
    """One remote of one feed. `connection` is the one that replicates, `remote_key` its key."""

    __slots__ = ("_clock", "_down", "_replication", "_up", "connection", "remote_key")

    def __init__(self, replication: ReplicationPeer, connection: Any, clock: Clock) -> None:
        self._replication = replication
        self._clock = clock
        self._down = Meter(clock.time())
        self._up = Meter(clock.time())
        self.connection = connection
        self.remote_key: bytes | None = replication.remote_key

    def __repr__(self) -> str:
        key = self.remote_key.hex()[:16] if self.remote_key else "unknown"
        return f"<FeedPeer {key}, length {self.length}>"

    @property
    def replication(self) -> ReplicationPeer:
        """What the exchange knows of it, every figure."""
        return self._replication

    @property
    def length(self) -> int:
        """Blocks of its log, as it tells."""
        return self._replication.length

    @property
    def fork(self) -> int:
        """How often its history was rewritten, as it tells."""
        return self._replication.remote.fork

    @property
    def paused(self) -> str | None:
        """Why it is asked for nothing; None when it is asked."""
        return self._replication.paused

    @property
    def progress(self) -> PeerProgress:
        """How far it is and how fast blocks move, at this moment."""
        now = self._clock.time()
        remote = self._replication
        return PeerProgress(
            have=min(remote.have, remote.length),
            total=remote.length,
            verified=self._down.blocks,
            in_flight=remote.in_flight,
            downloaded_bytes=self._down.bytes,
            uploaded_blocks=self._up.blocks,
            uploaded_bytes=self._up.bytes,
            download_rate=self._down.rate(now),
            upload_rate=self._up.rate(now),
        )

    def count_down(self, size: int, now: float) -> None:
        """A block came from it. For the feed."""
        self._down.add(size, now)

    def count_up(self, size: int, now: float) -> None:
        """A block went to it. For the feed."""
        self._up.add(size, now)
