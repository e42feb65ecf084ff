"""One connection as a wakeup needs it, and what its remote may cost.

`wakeup.md` section 7.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from covey.errors import ClosedError, UsageError
from covey.limits import Limits
from covey.net.ordered_calls import OrderedCalls
from covey.wire.rate_limit import TokenBucket
from covey.wire.wakeup import WakeupMachine
from covey.wire.wakeup_messages import PROTOCOL, handshake_codec, info_codec, lookup_codec
from covey.wire.wakeup_topic import WakeupPeer

if TYPE_CHECKING:
    from covey.net.connection import Connection
    from covey.net.mux import Channel, Muxer
    from covey.net.mux_pairing import PairCallback

logger = logging.getLogger("covey.wakeup")


class _Allowance:
    """How often a remote may have us do something for nothing; holds nothing until it does."""

    __slots__ = ("_bucket",)

    def __init__(self) -> None:
        self._bucket: TokenBucket | None = None

    def left(self) -> bool:
        """Whether one more is allowed."""
        return self._bucket is None or self._bucket.wait(asyncio.get_running_loop().time()) <= 0

    def take(self, limits: Limits) -> bool:
        """Count one; False: that is too many."""
        now = asyncio.get_running_loop().time()
        if self._bucket is None:
            rate, burst = limits.wakeups_per_second, limits.wakeup_burst
            self._bucket = TokenBucket(rate=rate, burst=burst, now=now)
        allowed = self._bucket.wait(now) <= 0
        self._bucket.take()
        return allowed


_Receiver: TypeAlias = "Callable[[WakeupPeer, Any], None]"


class WakeupPort:
    """One connection, as the machine needs it; what its remote may cost is counted here."""

    __slots__ = (
        "_asked", "_calls", "_codecs", "_limited", "_opens", "_wrong", "handshake_hash",
        "initiator", "mux", "slots", "stream",
    )  # fmt: skip

    def __init__(self, stream: Connection, machine: WakeupMachine, calls: OrderedCalls) -> None:
        self.stream = stream
        self.initiator = stream.initiator
        self.handshake_hash = stream.handshake_hash or b""
        self.mux: Muxer = stream.mux
        self._calls = calls
        self._asked: PairCallback | None = None
        self._codecs = (lookup_codec, machine.announce_codec, info_codec)
        self._opens = _Allowance()
        self._wrong = _Allowance()
        self._limited = False
        self.slots: asyncio.Semaphore | None = None

    def pair(self, asked: PairCallback) -> None:
        """Have `asked` called when the remote opens a topic; `UsageError` where another is."""
        registered = self.mux.paired(PROTOCOL)
        if registered is not None and registered is not self._asked:
            raise UsageError(
                f"{self.stream!r} has a wakeup already: use that one, which is networker.wakeup on "
                "the connections of a Networker, or close it before"
            )
        self._asked = asked
        self.mux.pair(PROTOCOL, asked)

    def unpair(self) -> None:
        """Call it no more, unless another has taken its place."""
        if self._asked is not None and self.mux.paired(PROTOCOL) is self._asked:
            self.mux.unpair(PROTOCOL)
        self._asked = None

    def create_channel(self, peer: WakeupPeer) -> Channel | None:
        """A channel of the topic of `peer`; None when the stream or the name is not to be had."""
        topic, calls = peer.topic, self._calls

        def handled(receive: _Receiver) -> Callable[[Any], Any]:
            def received(value: Any) -> Awaitable[None] | None:
                receive(peer, value)
                return calls.waiting(peer)

            return received

        def opened(handshake: Any, _channel: Channel) -> Awaitable[None] | None:
            topic.opened(peer, handshake)
            return calls.waiting(peer)

        def closed(_remote: bool, _channel: Channel) -> Awaitable[None] | None:
            topic.closed(peer)
            calls.over(peer)
            return calls.waiting(peer)  # what the close brought about counts as the channel's too

        receivers: tuple[_Receiver, ...] = (
            topic.received_lookup,
            topic.received_announce,
            topic.received_info,
        )
        specs = [
            (codec, handled(receive))
            for codec, receive in zip(self._codecs, receivers, strict=True)
        ]
        try:
            return self.mux.create_channel(
                PROTOCOL,
                id=topic.id,
                handshake=handshake_codec,
                messages=specs,
                on_open=opened,
                on_close=closed,
            )
        except (ClosedError, UsageError) as error:
            logger.debug("no channel for %r on %r: %s", topic, self.stream, error)
            return None

    def may_wake(self, limits: Limits) -> bool:
        """Whether the remote may have `on_wakeup` called once more; counts it."""
        return self._opens.take(limits)

    def count_wrong_proof(self, limits: Limits) -> None:
        """The remote has shown a wrong proof."""
        self._wrong.take(limits)

    def may_be_answered(self) -> bool:
        """Whether the remote has not shown too many wrong proofs."""
        return self._wrong.left()

    def first_limited(self) -> bool:
        """Whether the remote is limited for the first time."""
        first, self._limited = not self._limited, True
        return first
