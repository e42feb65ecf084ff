"""The whole wakeup protocol as a plain object: topics, streams, collection, counters. Pure.

Reads no clock and waits for nothing: `clock` tells the time when collection begins, the owner
calls `handle_timer` when `next_timer` says so. Handlers are called through its host, in the order
of the reference: at once, the newest session first. Source: protomux-wakeup 2.9.0; `wakeup.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final, Protocol

from covey.errors import ClosedError, UsageError
from covey.wire.wakeup_messages import AnnounceCodec, check_capability, topic_id
from covey.wire.wakeup_session import WakeupHandlers, WakeupSession
from covey.wire.wakeup_stats import WakeupStats
from covey.wire.wakeup_topic import HandlerCall, StreamPort, WakeupPeer, WakeupTopic

IDLE_TICKS: Final = 5
"""Ticks after which a topic that nobody needs is collected."""
GC_TICK: Final = 2.0
"""Seconds between two ticks: a topic goes 8 to 10 s after its last reason ended."""


class WakeupHost(Protocol):
    """What the machine needs of its shell. Nothing may be raised, but by `port_for`."""

    def call(self, key: WakeupPeer | WakeupSession, calls: list[HandlerCall]) -> None:
        """Call handlers, after those of the same `key` that were called before."""

    def port_for(self, stream: Any) -> StreamPort:
        """A port of a stream that was not added; `ClosedError` when it is over."""

    def wrong_proof(self, peer: WakeupPeer) -> None:
        """The remote on the stream of `peer` does not know the capability."""

    def collected(self, topic: WakeupTopic) -> None:
        """A topic was collected."""

    def rearm(self) -> None:
        """`next_timer` has changed."""


class WakeupMachine:
    """Topics and streams, and what happens between them.

    `topics` by id is for reading. The shell adds a stream once its secure handshake is over.
    """

    __slots__ = (
        "_clock", "_host", "_idle", "_ports", "_tick", "_tick_at", "announce_codec", "destroyed",
        "stats", "topics",
    )  # fmt: skip

    def __init__(
        self,
        host: WakeupHost,
        *,
        clock: Callable[[], float],
        gc_tick: float = GC_TICK,
        announced: int,
    ) -> None:
        if not gc_tick > 0:
            raise UsageError(f"gc_tick is a number of seconds above 0, not {gc_tick!r}")
        self._host = host
        self._clock = clock
        self._tick = gc_tick
        self._tick_at: float | None = None
        self._idle: dict[WakeupTopic, None] = {}
        self._ports: dict[Hashable, StreamPort] = {}
        self.topics: dict[bytes, WakeupTopic] = {}
        self.stats = WakeupStats()
        self.announce_codec = AnnounceCodec(announced)
        self.destroyed = False

    # Sessions

    def session(self, capability: bytes, handlers: WakeupHandlers) -> WakeupSession:
        """A new session; the first one of a topic fixes its capability and opens it everywhere.

        `UsageError` for a capability that is empty or needs an id of its own, `TypeError` for what
        is no bytes, `ClosedError` after `destroy`.
        """
        if self.destroyed:
            raise ClosedError("this wakeup is closed")
        key = self.id_of(capability, handlers)
        topic = self.topics.get(key)
        if topic is None:
            topic = WakeupTopic(self, key, bytes(capability), active=handlers.active)
            self.topics[key] = topic
            for port in self.ports():
                topic.open(port)
        session = WakeupSession(topic, handlers)
        topic.add_session(session)
        return session

    @staticmethod
    def id_of(capability: bytes, handlers: WakeupHandlers | None) -> bytes:
        """The id of the topic of `capability`, or the one that `handlers` give."""
        if handlers is not None and not isinstance(handlers, WakeupHandlers):
            raise TypeError(f"handlers are WakeupHandlers, not {type(handlers).__name__}")
        if handlers is None or handlers.discovery_key is None:
            return topic_id(capability)
        check_capability(capability)
        return bytes(handlers.discovery_key)

    # Streams

    def add(self, port: StreamPort) -> None:
        """Open the active topics on a stream, and from now on also those that become active."""
        self._ports[port.stream] = port
        for topic in list(self.topics.values()):
            if topic.is_active:
                topic.open(port)

    def remove(self, stream: Hashable) -> None:
        """A stream is over; its channels tell that themselves."""
        self._ports.pop(stream, None)

    def has(self, stream: Hashable) -> bool:
        """Whether the stream was added and is not over."""
        return stream in self._ports

    def answers(self, key: bytes) -> bool:
        """Whether the remote's open of a topic is answered without asking the application."""
        topic = self.topics.get(key)
        return topic is not None and topic.has_sessions

    def asked(self, key: bytes, port: StreamPort) -> None:
        """The remote opens a topic: open it too, if `answers`."""
        if self.answers(key):
            self.topics[key].open(port)

    # Time

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called; None while there is nothing to collect."""
        return self._tick_at

    def handle_timer(self, now: float) -> None:
        """One tick, when it is time."""
        if self._tick_at is None or now < self._tick_at:
            return
        self._tick_at = max(self._tick_at, now) + self._tick
        self.gc_step()

    def gc_step(self) -> None:
        """Count one tick for every topic that nobody needs, and collect those that have five."""
        for topic in self._idle:
            topic.idle_ticks += 1
        for topic in [topic for topic in self._idle if topic.idle_ticks >= IDLE_TICKS]:
            if topic.idle:  # what was told of another one may have made a session of this one
                topic.teardown()
                self._host.collected(topic)

    # The end

    def destroy(self) -> None:
        """Close every channel and tell every session. May be called again."""
        if self.destroyed:
            return
        self.destroyed = True
        for topic in list(self.topics.values()):
            topic.teardown()
        self._ports.clear()

    # Topics call these

    def call(self, key: WakeupPeer | WakeupSession, calls: list[HandlerCall]) -> None:
        """Call handlers."""
        self._host.call(key, calls)

    def port_for(self, stream: Any) -> StreamPort:
        """The port of a stream, also of one that was not added."""
        return self._ports.get(stream) or self._host.port_for(stream)

    def ports(self) -> list[StreamPort]:
        """The streams that were added."""
        return list(self._ports.values())

    def wrong_proof(self, peer: WakeupPeer) -> None:
        """The remote does not know the capability."""
        self._host.wrong_proof(peer)

    def set_idle(self, topic: WakeupTopic, *, idle: bool) -> None:
        """Put the topic among those to be collected, or take it out."""
        if idle:
            self._idle[topic] = None
            if self._tick_at is None:
                self._tick_at = self._clock() + self._tick
                self._host.rearm()
        elif topic in self._idle:
            del self._idle[topic]
            if not self._idle:
                self._tick_at = None
                self._host.rearm()

    def forget(self, topic: WakeupTopic) -> None:
        """The topic is gone."""
        self.topics.pop(topic.id, None)
