"""A session of a wakeup topic: what the application holds, and its handlers. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from covey.errors import UsageError
from covey.wire.wakeup_messages import HASH_SIZE, Lookup, WriterHead, lookup_of
from covey.wire.wakeup_topic import WakeupPeer, WakeupTopic

Result: TypeAlias = Awaitable[object] | object
PeerHandler: TypeAlias = "Callable[[WakeupPeer, WakeupSession], Result]"
AnnounceHandler: TypeAlias = "Callable[[list[WriterHead], WakeupPeer, WakeupSession], Result]"
LookupHandler: TypeAlias = "Callable[[Lookup, WakeupPeer, WakeupSession], Result]"
DestroyHandler: TypeAlias = "Callable[[WakeupSession], Result]"


@dataclass(frozen=True, slots=True, kw_only=True)
class WakeupHandlers:
    """What a session wants to be told; each may be a plain function or a coroutine function.

    They get `(heads, peer, session)`, `(lookup, peer, session)`, `(session)` for `on_destroy`, and
    else `(peer, session)`. The calls for one peer keep their order: a coroutine makes the next call
    for that peer wait. One that fails is logged and published, and ends the stream of its peer,
    nothing else; so does one that lets out the `CancelledError` of something else. After the close
    of its peer's channel, or the end of the wakeup, a coroutine has `Limits.close_timeout` s. It
    must not await the end of its own channel or connection, which waits for it in turn
    (`Connection.start_close` does not). `on_destroy` is called when the whole wakeup ends, not by
    `WakeupSession.destroy`.

    `active`: whether the session begins active. `discovery_key`: the 32-byte id of the topic, where
    it is not to follow from the capability.
    """

    on_peer_add: PeerHandler | None = None
    on_peer_remove: PeerHandler | None = None
    on_peer_active: PeerHandler | None = None
    on_peer_inactive: PeerHandler | None = None
    on_announce: AnnounceHandler | None = None
    on_lookup: LookupHandler | None = None
    on_destroy: DestroyHandler | None = None
    active: bool = True
    discovery_key: bytes | None = None

    def __post_init__(self) -> None:
        """`TypeError` when `discovery_key` is no bytes, `UsageError` when it is not 32."""
        key = self.discovery_key
        if key is None:
            return
        if not isinstance(key, bytes | bytearray | memoryview):
            raise TypeError(f"a discovery_key is bytes, not {type(key).__name__}")
        if len(key) != HASH_SIZE:
            raise UsageError(f"a discovery_key has {HASH_SIZE} bytes, not {len(key)}")


class WakeupSession:
    """One user of a topic; made by `Wakeup.session`.

    `topic` and `handlers` are for reading. After `destroy`, and after the end of the wakeup, every
    method does nothing, lists are empty, and no handler is called any more.
    """

    __slots__ = ("__weakref__", "destroyed", "handlers", "index", "is_active", "muted", "topic")

    def __init__(self, topic: WakeupTopic, handlers: WakeupHandlers) -> None:
        self.topic = topic
        self.handlers = handlers
        self.is_active = handlers.active
        self.destroyed = False
        self.muted = False
        self.index = 0

    def __repr__(self) -> str:
        state = "destroyed" if self.destroyed else "active" if self.is_active else "inactive"
        return f"<WakeupSession {state} of {self.topic!r}>"

    @property
    def peers(self) -> list[WakeupPeer]:
        """The peers that have shown that they know the capability, unordered; a copy."""
        return [] if self.destroyed else self.topic.peers

    def get_peer(self, stream: Any) -> WakeupPeer | None:
        """The peer on `stream`, also while it is pending."""
        return None if self.destroyed else self.topic.peer_on(stream)

    def has_stream(self, stream: Any) -> bool:
        """Whether there is a peer on `stream`, also while it is pending."""
        return self.get_peer(stream) is not None

    def add_stream(self, stream: Any) -> None:
        """Open this topic on `stream`, active or not, and on no other.

        The stream is not added to the wakeup. `ClosedError` when it is closed.
        """
        if not self.destroyed:
            self.topic.add_stream(stream)

    def lookup(self, peer: WakeupPeer, hash: bytes | None = None) -> bool:  # noqa: A002
        """Ask `peer` what there is; one that is pending hears it once it has paired.

        `hash`: 32 bytes whose meaning is the application's. False: the channel is closed, or so
        much waits for the stream that one should `await peer.channel.drain()`. `UsageError` for a
        peer of another topic, `EncodeError` for a hash of another size.
        """
        self._check(peer)
        return not self.destroyed and self.topic.send_lookup(peer, lookup_of(hash))

    def broadcast_lookup(self, hash: bytes | None = None) -> None:  # noqa: A002
        """Ask every peer, those that are pending first; `EncodeError` as `lookup`."""
        if not self.destroyed:
            self.topic.broadcast_lookup(lookup_of(hash))

    def lookup_by_stream(self, stream: Any, hash: bytes | None = None) -> bool:  # noqa: A002
        """Ask the peer on `stream`, also while it is pending; without one nothing happens."""
        lookup = lookup_of(hash)
        peer = self.get_peer(stream)
        return peer is not None and self.topic.send_lookup(peer, lookup)

    def announce(self, peer: WakeupPeer, heads: Sequence[WriterHead]) -> bool:
        """Tell `peer` of logs that have news; gives what `lookup` gives.

        A peer that is pending hears it too, once it has paired: it need not know the capability.
        `EncodeError` for more than `Limits.wakeup_announced` heads.
        """
        self._check(peer)
        return not self.destroyed and self.topic.send_announce(peer, heads)

    def announce_by_stream(self, stream: Any, heads: Sequence[WriterHead]) -> bool:
        """Tell the peer on `stream`; without one, and while it is pending, nothing happens."""
        peer = self.get_peer(stream)
        return peer is not None and not peer.pending and self.announce(peer, heads)

    def broadcast_announce(self, heads: Sequence[WriterHead]) -> int:
        """Tell every peer that is not pending; how many those are. Encodes `heads` once."""
        return 0 if self.destroyed else self.topic.broadcast_announce(heads)

    def active(self) -> None:
        """Be active: the peers are told when the topic was not, and it is opened everywhere."""
        self._set_active(active=True)

    def inactive(self) -> None:
        """Be inactive: the peers are told when no other session is active."""
        self._set_active(active=False)

    def destroy(self) -> None:
        """Leave the topic, whose channels stay for a while. May be called again.

        No handler of this session is called any more, `on_destroy` neither.
        """
        if self.destroyed:
            return
        self.destroyed = self.muted = True
        self.topic.remove_session(self)

    def _set_active(self, *, active: bool) -> None:
        if not self.destroyed:
            self.is_active = active
            self.topic.update_activity()

    def _check(self, peer: WakeupPeer) -> None:
        if not isinstance(peer, WakeupPeer):
            raise TypeError(f"a peer is wanted, not {type(peer).__name__}")
        if peer.topic is not self.topic:
            raise UsageError("that peer is of another topic")
