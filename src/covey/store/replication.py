"""A store on one connection: which channels are open, and who may open them.

`corestore.md` section 4, `hypercore.md` sections 6 and 12; corestore 7.9.2, hypercore 11.37.1.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakSet

from covey.errors import ClosedError, CoveyError, ProtocolError, StoreError, UsageError
from covey.store.feed_channel import PROTOCOL, PROTOCOL_ALIAS, FeedChannel
from covey.wire.rate_limit import TokenBucket

if TYPE_CHECKING:
    from covey.net.mux import Muxer
    from covey.store.open_log import OpenLog
    from covey.store.store_root import StoreRoot

logger = logging.getLogger("covey.store.replication")

_DISCOVERY_KEY_SIZE: Final = 32


class Replicated(Protocol):
    """What the exchange needs of a connection; `covey.Connection` has it."""

    @property
    def mux(self) -> Muxer:
        """Carries the channels."""

    @property
    def handshake_hash(self) -> bytes | None:
        """64 bytes that name this connection alone, by which capabilities are bound to it."""

    @property
    def initiator(self) -> bool:
        """Whether this side began the handshake."""

    @property
    def remote_key(self) -> bytes | None:
        """The key that the remote proved."""

    def on_close(self, callback: Callable[[Any], object], /) -> object:
        """Call `callback` once the connection is closed."""


class StoreStream:
    """The exchange of one store over one connection; made by `Basestore.replicate`.

    `misses` counts the logs that the remote opened and that are not here.
    """

    def __init__(self, root: StoreRoot, connection: Replicated) -> None:
        if not hasattr(connection, "handshake_hash"):
            raise UsageError(f"logs are exchanged over a connection, not {connection!r}")
        if not connection.handshake_hash:
            raise UsageError("logs are exchanged over noise connections only: nothing binds others")
        self.connection = connection
        self.handshake_hash: bytes = connection.handshake_hash
        self.closed = False
        self.misses = 0
        self._root = root
        self._mux = connection.mux
        self._channels: dict[OpenLog, FeedChannel] = {}
        self._rejected: WeakSet[OpenLog] = WeakSet()
        self._false_capabilities = 0
        self._told_misses = self._opens_bucket()
        self._told_closes = self._opens_bucket()
        self._kept_away = self._opens_bucket()
        for name in (PROTOCOL, PROTOCOL_ALIAS):
            self._mux.pair(name, self._paired)
        root.streams[connection] = self
        connection.on_close(self._connection_closed)
        for log in tuple(root.logs.values()):
            if log.wanted:
                self.attach(log)

    def __repr__(self) -> str:
        return f"<StoreStream {self.remote_name}, {len(self._channels)} logs>"

    @property
    def remote_name(self) -> str:
        """The beginning of the remote's key, for people."""
        key = self.connection.remote_key
        return key.hex()[:16] if key else "unknown"

    @property
    def mux(self) -> Muxer:
        """Carries the channels."""
        return self._mux

    @property
    def discovery_keys(self) -> list[bytes]:
        """The logs that have a channel here, answered by the remote or not."""
        return [log.log.discovery_key for log in self._channels]

    def attach(self, log: OpenLog, *, again: bool = True) -> None:
        """Open a channel for `log` unless there is one, or there are too many.

        Where the remote rejected one only when `again`.
        """
        if self.closed or log.closed or log.log.frozen or log in self._channels:
            return
        if again:
            self._rejected.discard(log)
        elif log in self._rejected:
            return
        most = self._root.limits.max_channels
        if len(self._channels) >= most:
            logger.debug("%r: no channel for %r, %d are open", self, log, most)
            return
        try:
            self._channels[log] = FeedChannel(self, log)
        except ClosedError:
            return  # the connection is at its end, or the remote has withdrawn its open
        except UsageError as error:
            logger.warning("%r: no channel for %r: %s", self, log, error)

    def channel_gone(self, channel: FeedChannel, *, rejected: bool) -> None:
        """A channel is closed; `rejected`: the remote does not have the log. For channels."""
        if rejected:
            self._rejected.add(channel.log)
        if self._channels.get(channel.log) is channel:
            del self._channels[channel.log]

    def may_tell(self) -> bool:
        """Whether one more channel that is closed for an error is news. For channels."""
        return self._once_more(self._told_closes)

    def kept_away(self, channel: FeedChannel, error: CoveyError) -> None:
        """The remote opened a log from which it is kept away. For channels.

        One that tries again and again, faster than logs that are not here, loses the connection.
        """
        channel.close(error)
        self._count_kept_away(error)

    def false_capability(self, channel: FeedChannel) -> None:
        """The remote opened a channel without knowing the log's key. For channels."""
        self._false_capabilities += 1
        text = f"{self.remote_name} does not know the key of a log that it opened"
        logger.warning("%s (%d times)", text, self._false_capabilities)
        channel.close()
        if self._false_capabilities >= self._root.limits.false_capabilities:
            self.cut(ProtocolError(f"{text}, {self._false_capabilities} times"))

    def cut(self, error: CoveyError) -> None:
        """End the connection: the remote broke a rule of all its logs."""
        self._mux.destroy(error)

    def detach(self) -> None:
        """Close all channels and exchange nothing any more; the connection stays. Twice is fine."""
        if self.closed:
            return
        self._end()
        for channel in tuple(self._channels.values()):
            channel.close()
        for name in (PROTOCOL, PROTOCOL_ALIAS):
            self._mux.unpair(name)

    def _connection_closed(self, _connection: Any) -> None:
        self._end()

    def _end(self) -> None:
        self.closed = True
        if self._root.streams.get(self.connection) is self:
            del self._root.streams[self.connection]

    def _paired(self, discovery_key: bytes | None) -> None:
        """The remote opens a log; what is not answered by a channel of ours is rejected."""
        if self.closed or discovery_key is None or len(discovery_key) != _DISCOVERY_KEY_SIZE:
            return
        log: OpenLog | None = None
        try:
            log = self._root.find_asked(discovery_key)
        except StoreError as error:
            self._count_kept_away(error)
            return
        if log is not None:
            self.attach(log)
            log.look_idle()
            return
        self.misses += 1
        if self._once_more(self._told_misses):
            with contextlib.suppress(ClosedError):
                self._root.missed(discovery_key, self.connection.remote_key)

    def _count_kept_away(self, error: CoveyError) -> None:
        if not self._once_more(self._kept_away):
            self.cut(ProtocolError(f"{self.remote_name} opens a log again and again: {error}"))

    def _opens_bucket(self) -> TokenBucket:
        most = self._root.limits.missed_opens_per_minute
        return TokenBucket(rate=most / 60, burst=most, now=self._root.clock.time())

    def _once_more(self, bucket: TokenBucket) -> bool:
        if bucket.wait(self._root.clock.time()) > 0:
            return False
        bucket.take()
        return True
