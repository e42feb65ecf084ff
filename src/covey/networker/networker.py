"""`Networker`: replicate a store with everybody who joined its logs' topics.

Source: `@basestore/networker` 1.0.0; `networker.md`. What is decided is decided in `policy` and
`opening`; connections live in `Streams`, topics in `Topics`, messages in `Extensions`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final, Literal, Self, TypeAlias, TypedDict, Unpack, cast

from covey.closing import Closing
from covey.conn.hub import Hub
from covey.conn.staging import Staging
from covey.discovery.channel import Channel
from covey.discovery.names import Hash
from covey.errors import ClosedError, UsageError
from covey.events import EventStream, Subscription
from covey.flock.clock import Clock
from covey.flock.events import FlockEvent
from covey.flock.flock import DEFAULT_LIMITS, Flock
from covey.host_port import HostPort
from covey.keys import KEY_SIZE, KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.extensions import OnError
from covey.networker.events import NetworkerEvent, NetworkerFailed, Peer
from covey.networker.extensions import (
    Extension,
    ExtensionHandlers,
    Extensions,
    MakeHandlers,
    OnMessage,
)
from covey.networker.group import GroupOptions, GroupStore, WakeupGroup, can_group
from covey.networker.policy import topic_bytes
from covey.networker.stream import PeerStream
from covey.networker.streams import Store, Streams, StreamsOptions, info_of
from covey.networker.topics import Topics, TopicStatus
from covey.owned_tasks import OwnedTasks
from covey.wakeup import Wakeup
from covey.wire.named_encodings import Encoding

logger = logging.getLogger("covey.networker")

CLOSE_TIME: Final = 10.0
"""Seconds that `close` takes at most (row 31)."""
FLUSH_PATIENCE: Final = 10.0
"""Seconds that a flush waits for handshakes that do not end (section 6)."""
NETWORKER_LIMITS: Final = replace(DEFAULT_LIMITS, keep_alive=5.0, idle_timeout=20.0)
"""What bounds a networker that is given no `Limits`: keep-alives as often as the original's, and
its 20 s of silence, in which also a remote with covey's usual 15 s between keep-alives speaks."""

TopicName: TypeAlias = bytes | bytearray | memoryview | str
"""A discovery key: 32 bytes, or 64 hexadecimal digits."""


class FlockOptions(TypedDict, total=False):
    """Options of the flock that a networker makes; see `Flock`."""

    hub: Hub | None
    staging: Staging | None
    channel: Channel | None
    discovery: bool
    whitelist: Iterable[str]
    max_connections: int
    hash: Hash | Literal[False] | None
    host: str | None
    public_sources: Collection[str]
    clock: Clock | None


class Networker:
    """Replicates `store` with every peer of the topics that are configured.

    A topic is the discovery key of a log; one connection to a peer carries every log that both have
    and one wants, whatever topic led to it. The flock is made with `key_pair` (a new one by
    default) and `flock_options`, or it is given: then it is left open, but the connections that
    were replicated are closed with the networker. The store is never closed.

    Topics are joined under their 32 bytes as the name, which the flock hashes (SHA-1, as every
    discovery swarm does with a name) unless its option `hash` says otherwise.

    With `ignore_loopback` connections from and to this machine are dropped, as the original does.
    `limits` None means those of a flock, with a keep-alive every 5 s. `wakeup` has every connection
    carry hints of `group`s; one that is given is left open at the end. Nothing listens before
    `listen_on` or `configure`. `store`, `flock` and `limits` are what it works with.

    After `close` every method but `close` raises `ClosedError`; `peers`, `streams`, `joined`,
    `flushed` and the statuses stay readable.
    """

    def __init__(
        self,
        store: Store,
        *,
        flock: Flock | None = None,
        key_pair: KeyPair | None = None,
        ignore_loopback: bool = False,
        limits: Limits | None = None,
        wakeup: bool | Wakeup = True,
        **flock_options: Unpack[FlockOptions],
    ) -> None:
        if flock is not None and (key_pair is not None or flock_options):
            raise UsageError("key_pair and options are for a flock of one's own, not a given one")
        self.limits = limits or NETWORKER_LIMITS
        self._owned = flock is None
        if flock is None:
            if flock_options.get("hub") is None and key_pair is None:
                key_pair = KeyPair.generate()
            flock = Flock(key_pair=key_pair, limits=self.limits, **flock_options)
        if flock.key_pair is None:
            raise UsageError("a networker proves a key: the given hub or flock has none")
        self.store = store
        self.flock = flock
        self._key_pair = flock.key_pair
        self._closing, self._tasks = Closing(), OwnedTasks(logger)
        self._events: EventStream[NetworkerEvent] = EventStream(backlog=self.limits.event_backlog)
        self._unsubscribe: Callable[[], None] | None = None
        self._extensions = Extensions(self._tasks, backlog=self.limits.extension_backlog)
        self._own_wakeup = Wakeup(limits=self.limits) if wakeup is True else None
        self._wakeup = wakeup if isinstance(wakeup, Wakeup) else self._own_wakeup
        self._groups: dict[bytes, WakeupGroup] = {}
        options = StreamsOptions(
            store=store,
            own_key=self._key_pair.public_key,
            ignore_loopback=ignore_loopback,
            limits=self.limits,
            publish=self._events.publish,
            wakeup=self._wakeup,
        )
        self._streams = Streams(options, self._extensions)
        self._topics = Topics(
            flock,
            self._streams.opening,
            self._tasks,
            publish=self._events.publish,
            patience=FLUSH_PATIENCE,
        )

    def __repr__(self) -> str:
        if self.closed:
            return "<Networker closed>"
        return f"<Networker {len(self._topics.statuses())} topics, {len(self.peers)} peers>"

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # What it is

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing.begun

    @property
    def key_pair(self) -> KeyPair:
        """The key pair that it proves on every connection."""
        return self._key_pair

    @property
    def public_key(self) -> bytes:
        """The public key of `key_pair`."""
        return self._key_pair.public_key

    @property
    def peers(self) -> frozenset[Peer]:
        """The connected peers: one object per connection, the one that the events carry."""
        return self._streams.peers

    @property
    def streams(self) -> frozenset[PeerStream]:
        """The connections over which the store replicates."""
        return self._streams.active

    # Topics

    async def listen_on(self, host: str | None = None, port: int = 0) -> HostPort:
        """Accept connections: the original's `listen()`. Returns host and port.

        The first `configure` does it if nobody did; again it has no effect. Peers that a given
        flock has are replicated with from now on. Raises `ConnectError` when it fails.
        """
        self._check_open()
        self._begin()
        return await self.flock.listen_on(host, port)

    async def configure(
        self,
        topic: TopicName,
        *,
        announce: bool = True,
        lookup: bool = True,
        flush: bool = True,
        rejoin: bool = True,
    ) -> None:
        """Join `topic`: announce it, look it up, or both; with neither, leave it.

        With `flush` it returns when the peers that discovery found at first are connected or could
        not be, and when every handshake then under way is over, ten seconds after discovery's first
        round at the latest; or when the topic is left meanwhile. That nobody could be asked is no
        error. Without `rejoin` nothing happens when the topic is joined in the same way already.
        Leaving closes no connection.

        Raises `ValueError` unless `topic` has 32 bytes, `ConnectError` when listening fails, and
        `ClosedError` when the networker is closed, also meanwhile.
        """
        name = topic_bytes(topic)
        self._check_open()
        self._begin()
        await self._topics.configure(
            TopicStatus(topic=name, announce=announce, lookup=lookup, flush=flush, rejoin=rejoin)
        )

    def joined(self, topic: TopicName) -> bool:
        """Whether `topic` is joined: from `configure` on until it is left."""
        return self._topics.get(topic_bytes(topic)) is not None

    def flushed(self, topic: TopicName) -> bool:
        """Whether the peers of `topic` that were found first are connected, or could not be.

        False again once it is left or configured anew.
        """
        known = self._topics.get(topic_bytes(topic))
        return known is not None and known.flushed

    def status(self, topic: TopicName) -> TopicStatus | None:
        """How `topic` was configured last; None when it is not joined."""
        known = self._topics.get(topic_bytes(topic))
        return None if known is None else known.status

    def all_statuses(self) -> list[TopicStatus]:
        """How each joined topic was configured last."""
        return self._topics.statuses()

    # Extensions

    def register_extension(
        self,
        name: str | ExtensionHandlers | MakeHandlers,
        handlers: ExtensionHandlers | MakeHandlers | None = None,
        *,
        encoding: Encoding = "binary",
        on_message: OnMessage | None = None,
        on_error: OnError | None = None,
    ) -> Extension:
        """Exchange messages called `name` with the networkers of all present and future peers.

        `encoding` is `binary`, `utf-8`, `json` or a codec. `on_message(message, peer)` gets what
        arrives; when it is a coroutine function the next message of that peer waits for it.
        `on_error(error)` gets what does not decode, which is dropped otherwise. All of that may
        come in one object, `ExtensionHandlers`, alone if it has the name, or be made by a function
        of the extension. The same name may be registered again: each gets every message.

        Raises `EncodeError` unless the name has 1 to 255 bytes, `LimitError` above 1,024 names.
        """
        self._check_open()
        if isinstance(name, str) and handlers is None:
            handlers = ExtensionHandlers(
                encoding=encoding, on_message=on_message, on_error=on_error
            )
        elif encoding != "binary" or on_message is not None or on_error is not None:
            raise UsageError("encoding and handlers are given one by one, or in one object")
        return self._extensions.register(name, handlers)

    # Hints

    @property
    def wakeup(self) -> Wakeup | None:
        """What carries the hints; None when it was switched off.

        It is on every connection, which can have one: for hints of one's own make sessions of it.
        """
        return self._wakeup

    @property
    def groups(self) -> list[WakeupGroup]:
        """The groups that are open."""
        return list(self._groups.values())

    def group(
        self,
        capability: bytes,
        feeds: Iterable[bytes] = (),
        *,
        discovery_key: bytes | None = None,
        accept: Callable[[bytes], bool] | bool = False,
        linger: float = 5.0,
        download: bool = True,
    ) -> WakeupGroup:
        """Keep the logs with the keys `feeds` alike with every peer who knows `capability`.

        `capability` is a secret of 32 bytes that all of them have: the key of a group, or of a log.
        Logs are opened only where a peer has news of them, brought up to date, and closed `linger`
        seconds after the last thing that happened. `download`: they are kept whole; blocks that are
        lacking, also those that were cleared, are fetched when a peer comes, and tried again.
        `accept`: whether a log that a peer tells of and that is not in the group is taken in, up to
        `Limits.accepted_logs`. `discovery_key`: 32 bytes by which peers find the group on a
        connection; they follow from the capability when it is None.

        Raises `UsageError` when the networker has no wakeup, its store no heads to read, the group
        is open already, another capability has the `discovery_key`, or something is not of its
        size; `ClosedError` when its wakeup is closed.
        """
        self._check_open()
        if self._wakeup is None:
            raise UsageError("a group needs a networker with wakeup")
        if not can_group(self.store):
            raise UsageError("a group needs a store that tells heads, as a Basestore does")
        if not isinstance(capability, bytes) or len(capability) != KEY_SIZE:
            raise UsageError(f"a capability has {KEY_SIZE} bytes")
        if capability in self._groups:
            raise UsageError("this group is open already")
        if not linger >= 0:
            raise UsageError(f"a group lingers 0 seconds or more, not {linger!r}")
        options = GroupOptions(
            store=cast("GroupStore", self.store),
            wakeup=self._wakeup,
            limits=self.limits,
            accept=accept,
            linger=linger,
            download=download,
            discovery_key=discovery_key,
            on_close=lambda closed: self._groups.pop(closed, None),
        )
        made = self._groups[capability] = WakeupGroup(capability, feeds, options)
        return made

    # Events

    def listen(self) -> Subscription[NetworkerEvent]:
        """Events from now on, bounded by `Limits.event_backlog`."""
        self._check_open()
        return self._events.listen()

    def subscribe(self, callback: Callable[[NetworkerEvent], object]) -> Callable[[], None]:
        """Call `callback` with each event as it happens; returns the function that stops it."""
        self._check_open()
        return self._events.subscribe(callback)

    def _begin(self) -> None:
        """Hear of connections from now on, first of those that there are."""
        if self._unsubscribe is not None:
            return
        self._unsubscribe = self.flock.subscribe(self._flock_told)
        for connection in self.flock.connections:
            self._streams.connected(connection, info_of(connection))

    def _flock_told(self, event: FlockEvent) -> None:
        match event.type:
            case "handshaking":
                self._streams.opened(event.info)
            case "connection":
                self._streams.connected(event.connection, event.info)
            case "redundant-connection":
                self._streams.redundant(event.connection, event.info)
            case "connection-closed":
                self._streams.ended(event.info, event.connection, event.error)
            case "error":
                self._events.publish(NetworkerFailed(event.error))

    # The end

    async def close(self) -> None:
        """Withdraw the extensions, leave the topics, end every connection. May be called again.

        Takes 10 s at most. Tells `peer-remove` for each peer, then nothing more. The store, and a
        flock that was given, stay open.
        """
        await self._closing.run(self._close, "covey networker close")

    async def _close(self) -> None:
        self._extensions.destroy()
        self._topics.close(leave=not self._owned)
        for group in tuple(self._groups.values()):
            await group.close()
        if self._own_wakeup is not None:
            await self._own_wakeup.close()
        connections = self._streams.connections()
        for connection in connections:
            connection.start_close(CloseReason.SHUTDOWN)
        work = [self._tasks.end(), *(connection.wait_closed() for connection in connections)]
        if self._owned:
            work.append(self.flock.close())
        try:
            async with asyncio.timeout(CLOSE_TIME):
                await asyncio.gather(*work)
        except TimeoutError:
            logger.warning("closing takes longer than %g s: what is left is cut", CLOSE_TIME)
            for connection in connections:
                connection.abort(None, CloseReason.SHUTDOWN)
        finally:
            if self._unsubscribe is not None:
                self._unsubscribe()
            self._streams.end()
            self._events.close()

    def _check_open(self) -> None:
        if self._closing.begun:
            raise ClosedError("this networker is closed")
