"""`Flock`: join a topic, find its peers, keep one connection to each (discovery-swarm 6.1.0).

What is decided is decided in `policy`; the candidates live in `Pursuit`, the connections in
`Roster`. This file holds them together: listening, topics, the public face and the end.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable
from typing import Final, Literal, Self

from covey.closing import Closing
from covey.conn.hub import Hub
from covey.conn.hub_entry import APPLICATION
from covey.conn.staging import Staging
from covey.conn.story import History, Story
from covey.discovery.channel import Channel, PeerFound
from covey.discovery.dns import DnsDiscovery
from covey.discovery.names import Hash, Name, name_bytes, topic_hash
from covey.errors import ClosedError, CoveyError, UsageError
from covey.events import LiveSubscription, LiveView, Subscription
from covey.flock import policy
from covey.flock.admission import Bans, Screen, Whitelist
from covey.flock.clock import Clock, LoopClock
from covey.flock.context import Context
from covey.flock.door import Door
from covey.flock.events import (
    FlockClosed,
    FlockEvent,
    Peer,
)
from covey.flock.hooks import ConnectHook, StreamHook
from covey.flock.outcomes import Outcomes
from covey.flock.places import PeerPlace, check_kinds, check_options, place_of
from covey.flock.pursuit import Pursuit
from covey.flock.records import Handler, Hooks
from covey.flock.roster import Roster
from covey.flock.topic import Topic
from covey.flock.view import FlockEntry, View
from covey.host_port import HostPort, show
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.connection import Connection
from covey.owned_tasks import OwnedTasks
from covey.wall_clock import wall_clock

logger = logging.getLogger("covey.flock")

DEFAULT_LIMITS: Final = Limits(
    connect_timeout=policy.CONNECTION_TIMEOUT, handshake_timeout=policy.HANDSHAKE_TIMEOUT
)
"""What bounds a flock that is given no `Limits`: the original's times, else the defaults."""


class Flock:
    """Peers by topic: discovered, staged, dialled, one connection each, retried when lost.

    `handler(connection)` runs once per connected peer; the connection is closed when it returns.
    What it raises is logged and published, and ends that connection only. A plain function, whose
    result cannot be awaited, takes the connection over: it stays open when the function returns.

    Without a handler it stays open as well, for whoever takes it from the `connection` event or
    from `connections`, until that user or the remote ends it. What nobody reads waits in it, at
    most `Limits.read_backlog` bytes; then the remote has to wait.

    `hub`, `staging`, `channel` that are given are used and left open; others are made and closed
    by the flock; a given hub proves its own key, so `key_pair` beside it is a `UsageError`.
    `handshake` is `noise` (default) or `plain` (old swarms; its ids are claims).
    `stream` and `connect`: see `hooks`; with them the handshake is `raw` unless one is named.
    `whitelist` holds addresses, networks in CIDR form and host names, for both directions.
    `max_connections` (0: only `Limits`) counts both directions. `hash` makes topics of names
    (False: the name itself). `limits` None means the original's times: 3 s to connect, 5 s to shake
    hands. `discovery` False asks nobody: peers come by `add_peer`. `host` is
    where to listen (None: everywhere). No private addresses are taken from `public_sources`.

    After `close` every method but `close` raises `ClosedError`; properties stay readable.
    """

    def __init__(
        self,
        handler: Handler | None = None,
        *,
        key_pair: KeyPair | None = None,
        id: bytes | None = None,  # noqa: A002 - the original's option
        handshake: str | None = None,
        hub: Hub | None = None,
        staging: Staging | None = None,
        channel: Channel | None = None,
        discovery: bool = True,
        limits: Limits | None = None,
        whitelist: Iterable[str] = (),
        max_connections: int = 0,
        hash: Hash | Literal[False] | None = None,  # noqa: A002 - the original's option
        host: str | None = None,
        stream: StreamHook | None = None,
        connect: ConnectHook | None = None,
        public_sources: Collection[str] = (),
        clock: Clock | None = None,
    ) -> None:
        limits = DEFAULT_LIMITS if limits is None else limits
        handshake = handshake or ("raw" if stream is not None else "noise")
        check_kinds(limits, handshake, host, public_sources)
        check_options(
            id=id, handshake=handshake, max_connections=max_connections, hub=hub, key_pair=key_pair
        )
        self.id = os.urandom(32) if id is None else bytes(id)
        self._hash = hash
        self._topics: dict[bytes, Topic] = {}
        self._tasks = OwnedTasks(logger)
        self._closing = Closing()
        self.staging = Staging(limits=limits) if staging is None else staging
        self.channel = _own_channel(discovery, limits) if channel is None else channel
        self._context = Context(
            staging=self.staging,
            history=History(wall_clock=wall_clock, limits=limits) if hub is None else hub.history,
            clock=clock or LoopClock(),
            limits=limits,
            live=LiveView(self._entries),
            whitelist=Whitelist(whitelist),
            handshake=handshake,
            max_connections=max_connections,
        )
        hooks = Hooks(handler, stream, connect, limits.handshake_timeout)
        self._join_parts(hooks, hub, key_pair, host=host, public_sources=frozenset(public_sources))
        made = ((self.hub, hub), (self.staging, staging), (self.channel, channel))
        self._owned = [part for part, given in made if given is None]

    def _join_parts(
        self,
        hooks: Hooks,
        hub: Hub | None,
        key_pair: KeyPair | None,
        *,
        host: str | None,
        public_sources: frozenset[str],
    ) -> None:
        """Join the parts that decide and the parts that act."""
        context = self._context
        key_pair = hub.key_pair if hub is not None else key_pair or KeyPair.generate()
        own_key = key_pair.public_key if key_pair is not None else b""
        self._roster = Roster(context, own_id=self.id, own_key=own_key, hooks=hooks)
        self._door = Door(context, self._roster, hub, key_pair=key_pair, id=self.id, host=host)
        self.hub = self._door.hub
        self._pursuit = Pursuit(
            context,
            self._roster,
            dial=self._door.dial if hooks.stream is None else self._door.dial_apart,
            screen=Screen(
                whitelist=context.whitelist,
                bans=Bans(),
                is_own=self._door.own.has,
                public_sources=public_sources,
            ),
            share=hooks.stream is None,
        )
        self._roster.report_to(Outcomes(self._pursuit))
        self._view = View(context, self.hub, self._pursuit, self._roster)
        self._unsubscribe = self.channel.subscribe(self._peer_found)

    def __repr__(self) -> str:
        if self.closed:
            return "<Flock closed>"
        places = ", ".join(show(*place) for place in self.addresses)
        at = f"at {places}" if places else "not listening"
        return f"<Flock {at}, {len(self._topics)} topics, {self.connected} connected>"

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
    def key_pair(self) -> KeyPair | None:
        """The key pair that this flock proves; None when the given hub has none."""
        return self.hub.key_pair

    @property
    def queued(self) -> int:
        """Candidates that wait to be dialled."""
        return self._pursuit.queued

    @property
    def connecting(self) -> int:
        """Attempts under way and connections in their handshake, both directions."""
        return self._pursuit.attempts + len(self._context.handshakes) + self._roster.pending

    @property
    def connected(self) -> int:
        """Connected peers."""
        return self._roster.connected

    @property
    def total_connections(self) -> int:
        """`connecting` and `connected` together."""
        return self.connecting + self.connected

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The connections of the connected peers, oldest first."""
        return tuple(record.connection for record in self._roster.registered())

    @property
    def topics(self) -> tuple[Topic, ...]:
        """The joined topics."""
        return tuple(self._topics.values())

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Host and port at which it listens; nothing before."""
        return self._door.addresses

    # Joining

    async def listen_on(self, host: str | None = None, port: int = 0) -> HostPort:
        """Accept connections: the original's `listen(port)`. Returns host and port.

        The first `join` does it if nobody did. `port` 0 is any free one, `host` None the one given
        to the flock. Raises `ConnectError` when it fails, which is also told as an `error` event,
        and `UsageError` for what is no port, or when it listens at another port or host already.
        """
        self._check_open()
        return await self._door.listen_on(host, port)

    async def join(self, name: Name, *, announce: bool = True, lookup: bool = True) -> Topic:
        """Join a topic: announce this flock under `name`, look for others, or both.

        Listens first if nobody called `listen_on`. Joining again returns the same `Topic`, and
        changes how it is joined if that differs. Returns when the first round has begun;
        `await topic.flushed()` waits for its end. Raises `UsageError` for an empty name,
        `TypeError` for one that is neither `str` nor `bytes`, `ConnectError` when listening fails
        and `ClosedError` when the topic is left, or the flock closed, meanwhile.
        """
        self._check_open()
        if not (announce or lookup):
            raise UsageError("join announces, looks up, or both")
        raw = name_bytes(name)
        topic = self._topics.get(raw)
        if topic is None:
            topic = Topic(self, raw, topic_hash(raw, self._hash))
            self._topics[raw] = topic
        if topic.change(announce=announce, lookup=lookup):
            self._tasks.spawn(self._start(topic), f"covey flock join {raw!r}")
        await topic.started()
        return topic

    async def _start(self, topic: Topic) -> None:
        """Have a topic joined as it says it should be."""
        try:
            _, port = await self.listen_on()
            if not topic.left:
                topic.enter(
                    self.channel.join(
                        topic.name,
                        port=port if topic.announce else None,
                        announce=topic.announce,
                        hash=self._hash,
                    )
                )
        except Exception as error:
            if not isinstance(error, (CoveyError, OSError)):
                logger.exception("joining %r failed", topic.name)
            if self._topics.get(topic.name) is topic:
                del self._topics[topic.name]
            topic.end(error)

    def leave(self, name: Name) -> bool:
        """Leave a topic, however it was joined; False when it was not.

        Its queue, retries and dials are cancelled; connections stay. A `join` or `flushed` that
        still waits gets `ClosedError`.
        """
        self._check_open()
        raw = name_bytes(name)
        topic = self._topics.pop(raw, None)
        if topic is not None:
            topic.end(ClosedError(f"left {raw!r}"))
        self._pursuit.leave(raw)
        return topic is not None

    # Peers

    def add_peer(self, name: Name, peer: PeerPlace) -> bool:
        """Dial a peer for a topic, which need not be joined; False when that is refused.

        An address names this flock's own handshake, and with a key that key must be proven: by a
        connection of its own where the place is connected and proved another one. Raises
        `AddressError` for an address that asks for anything else.

        A ban by `remove_peer` is lifted; one because it is this node itself is not. A refusal is
        told as `peer-rejected`: whitelist, banned, duplicate, and what `Reason` lists.
        """
        self._check_open()
        raw, (host, port, key) = name_bytes(name), place_of(peer, self._context.handshake)
        self._pursuit.lift(raw, host, port)
        return self._pursuit.found(raw, host, port, APPLICATION, key)

    def remove_peer(self, name: Name, peer: PeerPlace) -> None:
        """Never dial this address for the topic again, until `add_peer` names it.

        A connection that is open stays, and the peer may still connect to us: an address says
        nothing about where a peer comes from. Use the whitelist to keep hosts out.
        """
        self._check_open()
        host, port, _ = place_of(peer, self._context.handshake)
        self._pursuit.ban(name_bytes(name), host, port)

    def explain(self, peer: PeerPlace | bytes | Peer) -> Story:
        """What is remembered of a peer (place, address or key), and what comes next."""
        self._check_open()
        return self._view.explain(peer)

    def entries(self) -> tuple[FlockEntry, ...]:
        """Every candidate, then the peers that connected to us from elsewhere."""
        self._check_open()
        return self._entries()

    def _entries(self) -> tuple[FlockEntry, ...]:
        return self._view.entries()

    def live_entries(self) -> LiveSubscription[tuple[FlockEntry, ...]]:
        """`entries` now, then once after each burst of changes."""
        self._check_open()
        return self._context.live.listen()

    # Events

    def listen(self) -> Subscription[FlockEvent]:
        """Events from now on, bounded by `limits.event_backlog`."""
        self._check_open()
        return self._context.events.listen()

    def subscribe(self, callback: Callable[[FlockEvent], object]) -> Callable[[], None]:
        """Call `callback` with each event as it happens; returns the function that stops it."""
        self._check_open()
        return self._context.events.subscribe(callback)

    def _publish(self, event: FlockEvent) -> None:
        self._context.publish(event)

    def _peer_found(self, found: PeerFound) -> None:
        topic = self._topics.get(found.name)
        if topic is not None and topic.lookup:
            self._pursuit.found(found.name, found.host, found.port, found.source)

    # The end

    async def close(self) -> None:
        """Leave every topic and close what the flock made. May be called again.

        Tells the end of every connection, then `close`; returns when no task, timer or socket of
        the flock is left. What was given at the start stays open.
        """
        await self._closing.run(self._close, "covey flock close")

    async def _close(self) -> None:
        self._context.closing = True
        self._unsubscribe()
        for topic in tuple(self._topics.values()):
            topic.end(ClosedError("the flock was closed"))
        self._topics.clear()
        await self._tasks.end()
        await self._pursuit.close()
        await self._door.close()
        await self._roster.close()
        for owned in reversed(self._owned):
            await owned.close()
        self._context.selves.flush()
        self._publish(FlockClosed())
        self._context.events.close()
        self._context.live.close()

    def _check_open(self) -> None:
        if self._closing.begun:
            raise ClosedError("this flock is closed")


def _own_channel(discovery: bool, limits: Limits) -> Channel:
    """Multicast on the local network, or nothing at all."""
    return Channel((DnsDiscovery(limits=limits),) if discovery else (), limits=limits)
