"""One log on one connection: a protomux channel between the muxer and the replicator.

`hypercore.md` section 6; hypercore 11.37.1, `lib/replicator.js`.
"""

from __future__ import annotations

import logging
from functools import partial
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Final

from covey.errors import CoveyError, ProtocolError
from covey.feed.capability import capability
from covey.feed.messages import MESSAGE_CODECS, Handshake, handshake_codec
from covey.feed.replication_events import ReplicationError
from covey.feed.replication_peer import ReplicationPeer

if TYPE_CHECKING:
    from covey.net.mux import Channel
    from covey.store.open_log import OpenLog
    from covey.store.replication import StoreStream

logger = logging.getLogger("covey.store.replication")

PROTOCOL: Final = "hypercore/alpha"
PROTOCOL_ALIAS: Final = "hypercore"
"""Accepted of remotes, never sent."""
LEAVE_TOGETHER: Final = 16
"""Messages after which what was collected leaves, also within a turn of the event loop.

A third of the requests that are under way: while one side works on a part of them the other has
the next, else they would wait for each other by turns.
"""


class FeedChannel:
    """Opens the channel of `log` on `stream`, and runs it until one side closes it.

    Nothing but our OPEN leaves before the remote has shown that it knows the log's key.
    """

    __slots__ = (
        "_answered",
        "_channel",
        "_send",
        "_stream",
        "_time",
        "_told",
        "connection",
        "log",
        "peer",
    )

    def __init__(self, stream: StoreStream, log: OpenLog) -> None:
        self._stream = stream
        self._time = log.host.clock.time
        self.log = log
        self.connection = stream.connection
        self.peer: ReplicationPeer | None = None
        self._answered = False
        self._told = 0
        self._channel = stream.mux.create_channel(
            PROTOCOL,
            id=log.log.discovery_key,
            aliases=(PROTOCOL_ALIAS,),
            handshake=handshake_codec,
            messages=[
                (codec, partial(self._received, kind)) for kind, codec in enumerate(MESSAGE_CODECS)
            ],
            on_open=self._opened,
            on_close=self._closed,
            on_drain=self._drained,
        )
        self._send = [message.send for message in self._channel.messages if message is not None]
        log.add_channel(self)
        self._channel.open(Handshake(True, self._capability(ours=True)))

    def __repr__(self) -> str:
        return f"<FeedChannel {self.log!r} to {self._stream.remote_name}>"

    def close(self, error: CoveyError | None = None) -> None:
        """Close the channel; `error` is why, when that was not the plan. Twice is fine."""
        if error is not None and self._stream.may_tell():
            logger.warning("%r is closed: %s", self, error)
        self._channel.close()

    def _capability(self, *, ours: bool) -> bytes:
        initiator = self.connection.initiator
        return capability(
            self._stream.handshake_hash,
            self.log.log.key,
            is_initiator=initiator if ours else not initiator,
        )

    def _opened(self, handshake: Handshake, _channel: Channel) -> None:
        self._answered = True
        if self.log.closed:
            return
        if not compare_digest(handshake.capability, self._capability(ours=False)):
            self._stream.false_capability(self)
            return
        try:
            peer = self.log.replicator.add_peer(
                self._tell,
                remote_key=self.connection.remote_key,
                seeks=handshake.seeks,
                now=self._time(),
            )
        except ReplicationError as error:
            self._stream.kept_away(self, error)
            return
        self.peer = peer
        self.log.add_peer(peer, self.connection)

    def _tell(self, kind: int, message: Any) -> bool:
        writable = self._send[kind](message)
        self._told += 1
        if self._told < LEAVE_TOGETHER:
            return writable
        self._told = 0
        return self._channel.flush()

    def _received(self, kind: int, message: Any) -> None:
        peer = self.peer
        if peer is None:
            return
        try:
            peer.receive(kind, message, self._time())
        except ReplicationError as error:
            if error.scope == "channel":
                self.close(error)
            else:
                self._stream.cut(error)
        except ProtocolError as error:
            self._stream.cut(error)
        except CoveyError as error:
            self.close(error)
        self.log.touch()

    def _drained(self, _channel: Channel) -> None:
        if self.peer is not None:
            self.peer.drained(self._time())
            self.log.touch()

    def _closed(self, remote: bool, _channel: Channel) -> None:
        self._stream.channel_gone(self, rejected=remote and not self._answered)
        self.log.remove_channel(self)
        if self.peer is not None:
            alone = remote and not self._stream.mux.destroyed
            self.peer.closed(self._time(), remote=alone)
            self.log.touch()
