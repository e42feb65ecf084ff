"""One topic of a wakeup: its sessions, its peers, and what they tell each other. Pure.

`wakeup.md` sections 2, 4 and 8; protomux-wakeup 2.9.0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from hmac import compare_digest
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias

from covey.wire.wakeup_messages import (
    AnnounceCodec,
    EncodedHeads,
    Handshake,
    Info,
    Lookup,
    WriterHead,
    capability_proof,
    encoded_heads,
)
from covey.wire.wakeup_stats import WakeupStats

if TYPE_CHECKING:
    from covey.wire.wakeup_session import WakeupSession

HandlerName: TypeAlias = Literal[
    "on_peer_add", "on_peer_remove", "on_peer_active", "on_peer_inactive",
    "on_announce", "on_lookup", "on_destroy",
]  # fmt: skip
"""Which handler of a session is meant."""


class HandlerCall(NamedTuple):
    """A handler that is to be called, with `arguments` before the session."""

    session: WakeupSession
    handler: HandlerName
    arguments: tuple[Any, ...]


LOOKUP, ANNOUNCE, INFO = range(3)
"""The message types of a channel."""


class WakeupChannel(Protocol):
    """What a topic needs of the channel to one peer; a `Channel` of a muxer is one."""

    @property
    def closed(self) -> bool:
        """Whether one side has closed it."""

    @property
    def messages(self) -> Sequence[Any]:
        """The senders of lookup, announce and info: `send(value)`, False where that fails."""

    def open(self, handshake: Any = None) -> None:
        """Open it."""

    def close(self) -> None:
        """Close it. May be called again."""


class StreamPort(Protocol):
    """One stream, as a topic needs it."""

    @property
    def stream(self) -> Hashable:
        """What the application calls the stream."""

    @property
    def initiator(self) -> bool:
        """Whether this side began the secure stream."""

    @property
    def handshake_hash(self) -> bytes:
        """The 64-byte hash of its handshake."""

    def create_channel(self, peer: WakeupPeer) -> WakeupChannel | None:
        """A channel of the topic of `peer`, not yet open; None where there is none to be had.

        Its callbacks are `peer.topic.opened`, `received_lookup`, `received_announce`,
        `received_info` and `closed`, each with `peer`.
        """


class TopicHost(Protocol):
    """What a topic needs of the wakeup that it belongs to."""

    stats: WakeupStats

    announce_codec: AnnounceCodec

    def call(self, key: WakeupPeer | WakeupSession, calls: list[HandlerCall]) -> None:
        """Call handlers, after those of the same `key` that were called before."""

    def port_for(self, stream: Any) -> StreamPort:
        """The port of a stream that need not have been added; `ClosedError` when it is over."""

    def ports(self) -> list[StreamPort]:
        """The streams that were added, the oldest first."""

    def wrong_proof(self, peer: WakeupPeer) -> None:
        """The remote does not know the capability; its channel is closed."""

    def set_idle(self, topic: WakeupTopic, *, idle: bool) -> None:
        """Put the topic among those to be collected, or take it out."""

    def forget(self, topic: WakeupTopic) -> None:
        """The topic is gone."""


class WakeupPeer:
    """A remote on one stream, for one topic.

    `user_data` (None at first) and `clock` (0 at first) are the application's. `active` is the
    remote's flag; `pending` until it has shown that it knows the capability; `removed` once its
    channel is closed. `stream` is the connection, `channel` the channel on it.
    """

    __slots__ = (
        "__weakref__", "active", "channel", "clock", "index", "pending", "port", "removed",
        "topic", "user_data",
    )  # fmt: skip
    channel: Any
    port: Any

    def __init__(self, topic: WakeupTopic, port: StreamPort) -> None:
        self.topic = topic
        self.port = port
        self.channel = None
        self.user_data: Any = None
        self.clock: Any = 0
        self.active = False
        self.pending = True
        self.removed = False
        self.index = 0

    def __repr__(self) -> str:
        state = "removed" if self.removed else "pending" if self.pending else "paired"
        return f"<WakeupPeer {state}{', active' if self.active else ''} on {self.stream!r}>"

    @property
    def stream(self) -> Any:
        """The connection that leads to it."""
        return self.port.stream

    # For the wakeup

    def send(self, kind: int, value: object) -> bool:
        """Send one message. False: the channel is closed, or too much waits for the stream."""
        return bool(self.channel.messages[kind].send(value))


class WakeupTopic:
    """What shares a capability here: made by the first session, gone by collection or at the end.

    For reading: `id`, `is_active`, `active_peers` (a count), `idle_ticks`, `destroyed`, and copies
    of the lists `sessions`, `peers` and `pending_peers`. `capability` is a secret.
    """

    __slots__ = (
        "_by_stream", "_host", "_peers", "_pending", "_sessions", "active_peers", "capability",
        "destroyed", "id", "idle", "idle_ticks", "is_active",
    )  # fmt: skip

    def __init__(self, host: TopicHost, id: bytes, capability: bytes, *, active: bool) -> None:  # noqa: A002
        self._host = host
        self.id = id
        self.capability = capability
        self._sessions: list[WakeupSession] = []
        self._peers: list[WakeupPeer] = []
        self._pending: list[WakeupPeer] = []
        self._by_stream: dict[Hashable, WakeupPeer] = {}
        self.active_peers = 0
        self.is_active = active
        self.idle_ticks = 0
        self.idle = False
        self.destroyed = False
        host.stats.topics_added += 1

    def __repr__(self) -> str:
        state = "destroyed" if self.destroyed else "active" if self.is_active else "inactive"
        counts = f"{len(self._sessions)} sessions, {len(self._peers)} peers"
        return f"<WakeupTopic {self.id.hex()[:16]} {state}, {counts}>"

    @property
    def sessions(self) -> list[WakeupSession]:
        """Its sessions now; a copy."""
        return list(self._sessions)

    @property
    def peers(self) -> list[WakeupPeer]:
        """Its peers that are not pending, unordered; a copy."""
        return list(self._peers)

    @property
    def pending_peers(self) -> list[WakeupPeer]:
        """Its peers that have shown nothing yet; a copy."""
        return list(self._pending)

    def peer_on(self, stream: Hashable) -> WakeupPeer | None:
        """The peer on `stream`, pending or not."""
        return self._by_stream.get(stream)

    # For the wakeup

    @property
    def has_sessions(self) -> bool:
        """Whether remote opens are answered without asking anybody."""
        return bool(self._sessions)

    def add_session(self, session: WakeupSession) -> None:
        """A session begins."""
        self._host.stats.sessions_opened += 1
        session.index = len(self._sessions)
        self._sessions.append(session)
        self.update_activity()
        self._check_idle()

    def remove_session(self, session: WakeupSession) -> None:
        """A session was destroyed."""
        if self.destroyed or not _take_out(self._sessions, session):
            return
        self._host.stats.sessions_closed += 1
        self.update_activity()
        self._check_idle()

    def update_activity(self) -> None:
        """A session is active or not, or is gone: tell the peers when that changes the topic."""
        active = any(session.is_active for session in self._sessions)
        if active == self.is_active or self.destroyed:
            return
        self.is_active = active
        if active:
            self.idle_ticks = 0
        info = Info(active)
        for peer in (*self._pending, *self._peers):
            self._host.stats.wire_info_tx += 1
            peer.send(INFO, info)
        self._check_idle()
        if active:
            for port in self._host.ports():
                self.open(port)

    def open(self, port: StreamPort) -> None:
        """Open the channel on a stream, unless there is one."""
        present = self._by_stream.get(port.stream)
        if self.destroyed or (present is not None and not present.channel.closed):
            return
        peer = WakeupPeer(self, port)
        channel = port.create_channel(peer)
        if channel is None:
            return
        self._host.stats.peers_added += 1
        peer.channel = channel
        peer.index = len(self._pending)
        self._pending.append(peer)
        self._by_stream[port.stream] = peer
        proof = capability_proof(self.capability, port.handshake_hash, is_initiator=port.initiator)
        channel.open(Handshake(proof, self.is_active))

    def add_stream(self, stream: Any) -> None:
        """Open the channel on a stream that need not be among those of the wakeup."""
        self.open(self._host.port_for(stream))

    def opened(self, peer: WakeupPeer, handshake: Handshake) -> None:
        """The remote opened the channel too."""
        if peer.removed or not peer.pending:
            return
        port = peer.port
        wanted = capability_proof(
            self.capability, port.handshake_hash, is_initiator=not port.initiator
        )
        if not compare_digest(handshake.capability, wanted):
            peer.channel.close()
            self._host.wrong_proof(peer)
            return
        _take_out(self._pending, peer)
        peer.pending = False
        peer.active = handshake.active
        peer.index = len(self._peers)
        self._peers.append(peer)
        if peer.active:
            self.active_peers += 1
            self._check_idle()
        if peer.active:
            self._tell(peer, "on_peer_add", "on_peer_active")
        else:
            self._tell(peer, "on_peer_add")

    def closed(self, peer: WakeupPeer) -> None:
        """The channel was closed, by whomever."""
        if peer.removed:
            return
        self._host.stats.peers_removed += 1
        peer.removed = True
        if self._by_stream.get(peer.stream) is peer:
            del self._by_stream[peer.stream]
        if peer.pending:
            _take_out(self._pending, peer)
            return
        active, peer.active = peer.active, False
        _take_out(self._peers, peer)
        if active:
            self.active_peers -= 1
            self._check_idle()
            self._tell(peer, "on_peer_inactive", "on_peer_remove")
        else:
            self._tell(peer, "on_peer_remove")

    def received_lookup(self, peer: WakeupPeer, lookup: Lookup) -> None:
        """The remote asks what there is."""
        if self._counts(peer):
            self._host.stats.wire_lookup_rx += 1
            self._tell(peer, "on_lookup", value=lambda: lookup)

    def received_announce(self, peer: WakeupPeer, heads: list[WriterHead]) -> None:
        """The remote tells what has news."""
        if self._counts(peer):
            self._host.stats.wire_announce_rx += 1
            self._tell(peer, "on_announce", value=lambda: list(heads))

    def received_info(self, peer: WakeupPeer, info: Info) -> None:
        """The remote is active, or not, from now on."""
        if not self._counts(peer):
            return
        self._host.stats.wire_info_rx += 1
        if info.active == peer.active:
            return
        peer.active = info.active
        self.active_peers += 1 if info.active else -1
        self._check_idle()
        self._tell(peer, "on_peer_active" if info.active else "on_peer_inactive")

    def send_lookup(self, peer: WakeupPeer, lookup: Lookup) -> bool:
        """Ask one peer, pending or not."""
        sent = peer.send(LOOKUP, lookup)
        self._host.stats.wire_lookup_tx += 1
        return sent

    def broadcast_lookup(self, lookup: Lookup) -> None:
        """Ask every peer, those that are pending first."""
        for peer in (*self._pending, *self._peers):
            self.send_lookup(peer, lookup)

    def send_announce(self, peer: WakeupPeer, heads: Sequence[WriterHead] | EncodedHeads) -> bool:
        """Tell one peer."""
        sent = peer.send(ANNOUNCE, heads)
        self._host.stats.wire_announce_tx += 1
        return sent

    def broadcast_announce(self, heads: Sequence[WriterHead]) -> int:
        """Tell every peer that is not pending; how many those are."""
        encoded = encoded_heads(self._host.announce_codec, heads)
        peers = self.peers
        for peer in peers:
            self.send_announce(peer, encoded)
        return len(peers)

    def teardown(self) -> None:
        """Close every channel and be forgotten; sessions that are left are destroyed."""
        if self.destroyed:
            return
        self.destroyed = True
        self._host.stats.topics_gcd += 1
        self._check_idle()
        for peer in (*reversed(self._peers), *reversed(self._pending)):
            peer.channel.close()
            self.closed(peer)  # where its handlers still run the channel would tell it too late
        self._host.forget(self)
        sessions, self._sessions = self._sessions, []
        for session in reversed(sessions):
            session.destroyed = True
            self._host.stats.sessions_closed += 1
            self._host.call(session, [HandlerCall(session, "on_destroy", ())])

    # Inside

    def _tell(
        self, peer: WakeupPeer, *handlers: HandlerName, value: Callable[[], Any] | None = None
    ) -> None:
        """Call handlers of every session, the newest first, each with a value of its own."""
        calls = [
            HandlerCall(session, handler, (peer,) if value is None else (value(), peer))
            for session in reversed(self._sessions)
            for handler in handlers
            if getattr(session.handlers, handler) is not None
        ]
        if calls:
            self._host.call(peer, calls)

    @staticmethod
    def _counts(peer: WakeupPeer) -> bool:
        """Whether what `peer` says is of interest: it has shown its proof and is still there."""
        return not (peer.pending or peer.removed)

    def _check_idle(self) -> None:
        idle = self.active_peers == 0 and not self._sessions and not self.destroyed
        if idle != self.idle:
            self.idle = idle
            self._host.set_idle(self, idle=idle)


def _take_out(members: list[Any], member: Any) -> bool:
    """Take `member` out of the list that its `index` is for; the last one moves into the gap."""
    index = member.index
    if index >= len(members) or members[index] is not member:
        return False
    last = members.pop()
    if last is not member:
        members[index] = last
        last.index = index
    return True
