"""Where connections come from: listening sockets, dials, and the handshakes of both."""

from __future__ import annotations

import itertools
import logging
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Self

from covey.address import Address, Step
from covey.closing import Closing
from covey.errors import (
    AddressError,
    ClosedError,
    ConnectionAborted,
    Refused,
    SelfConnection,
    UsageError,
)
from covey.host_port import HostPort, show
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.attempt import Attempt, AttemptObserver
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.net.handshakes import Handshake, Identity, default_handshakes
from covey.net.likely_keys import ANY_PORT, LikelyKeys
from covey.net.partial_frames import PartialFrames
from covey.net.pending import Pending
from covey.net.stream_shell import StreamShell
from covey.net.transports import Listener, Transport, default_transports
from covey.net.waiters import Waiters
from covey.net.who import Who
from covey.peer_type import network_of

logger = logging.getLogger("covey.net.endpoint")

_attempt_ids = itertools.count(1)


class Endpoint:
    """Dials and accepts; owns its listeners and the handshakes under way.

    `close` closes the connections too that were made here, unless `owns_connections` is False:
    then they belong to whoever got them. Without `key_pair` a new one is made; where it has to be
    awaited, the first `dial` or `listen_on` does that.

    `on_connection` gets each accepted connection after its handshake, before its first message.
    `admit(host, port)` may refuse an accepted raw connection by returning the reason.
    `observer` is told of the handshakes of accepted connections; a dial brings its own. `id` is
    what the `plain` handshake claims; random when not given.
    """

    def __init__(
        self,
        *,
        key_pair: KeyPair | Awaitable[KeyPair] | None = None,
        limits: Limits | None = None,
        id: bytes | None = None,  # noqa: A002
        handshake: str = "noise",
        handshakes: Mapping[str, Handshake] | None = None,
        transports: Mapping[str, Transport] | None = None,
        on_connection: Callable[[Connection], object] | None = None,
        admit: Callable[[str, int], str | None] | None = None,
        observer: AttemptObserver | None = None,
        owns_connections: bool = True,
    ) -> None:
        self._who = Who(key_pair, os.urandom(32) if id is None else bytes(id))
        self._limits = limits or Limits()
        self._handshakes = dict(handshakes if handshakes is not None else default_handshakes())
        self._transports = dict(
            transports if transports is not None else default_transports(self._limits)
        )
        if handshake not in self._handshakes:
            raise AddressError(f"unknown handshake {handshake!r}")
        self._accepting_handshake = self._handshakes[handshake]
        self._on_connection = on_connection
        self._admit = admit
        self._observer = observer
        self._owns_connections = owns_connections
        self._listeners: list[Listener] = []
        self._dials: set[Pending] = set()
        self._accepted: dict[Pending, None] = {}  # oldest first
        self._accepted_per_network: Counter[str] = Counter()
        self._leaving: set[Pending] = set()  # dropped, their sockets about to close
        self._connections: set[Connection] = set()
        self._likely_keys = LikelyKeys()
        self._settled = Waiters()
        self._frames = PartialFrames(self._limits.partial_frames)
        self._closed = False
        self._closing = Closing()
        self._ending: list[Connection] = []  # closed by our close, which waits for them

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._connections)} connections"
        places = ", ".join(show(*place) for place in self.addresses) or "not listening"
        return f"<Endpoint {self._who} {places}, {state}>"

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    @property
    def key_pair(self) -> KeyPair:
        """The key pair that this node proves; `UsageError` while it is still awaited."""
        return self.identity.key_pair

    @property
    def identity(self) -> Identity:
        """The key pair and the id; `UsageError` while the key pair is still awaited."""
        return self._who.identity

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Host and port of every listening socket."""
        return tuple(listener.address for listener in self._listeners)

    @property
    def connections(self) -> list[Connection]:
        """The live connections that were made here."""
        return list(self._connections)

    @property
    def handshaking(self) -> int:
        """Handshakes under way, both directions."""
        return len(self._accepted) + len(self._dials)

    async def listen_on(
        self, host: str | None = None, port: int = 0, *, transport: str = "net"
    ) -> HostPort:
        """Accept on `port` (0: any free one) of `host` (None: all interfaces, both families).

        Returns the host and port that were bound. Raises `ConnectError` when that fails or the
        key pair cannot be had, `UsageError` for a port, a host or a transport that cannot be.
        """
        self._check_open()
        await self._know_who()
        chosen = self._transports.get(transport)
        if chosen is None:
            known = ", ".join(sorted(self._transports))
            raise UsageError(f"no transport {transport!r} here, there is {known}")

        def accept(remote: HostPort) -> StreamShell | None:
            return self._accept(chosen, remote)

        listener = await chosen.listen(host, port, accept)
        if self._closed:
            await listener.close()
            raise self._closed_error()
        self._listeners.append(listener)
        return listener.address

    async def dial(
        self,
        address: Address | str,
        *,
        timeout: float | None = None,
        observer: AttemptObserver | None = None,
    ) -> Connection:
        """Connect to the first alternative of `address` that is known here, and shake hands.

        `timeout` (seconds; None: no such bound) is for all of it. Within that, looking the host up
        and connecting has `Limits.connect_timeout`, the handshake `Limits.handshake_timeout`.

        Raises `AddressError` before anything is dialled, then `ConnectError`, `ConnectTimeout`,
        `DialFailed`, `HandshakeError`, `HandshakeTimeout` or `SelfConnection`; `ClosedError` when
        this endpoint closes meanwhile.
        """
        self._check_open()
        if not isinstance(address, Address):
            address = Address.parse(address)
        await self._know_who()
        transport, handshake, where, step = self._route(address)
        host, port = transport.place(where)
        attempt = _attempt(transport, handshake, (host, port), address)
        likely_key = self._likely_keys.dialled(host, port)
        pending = self._pending(attempt, handshake, observer, likely_key)
        self._dials.add(pending)
        try:
            return await pending.dial(transport, where, step, timeout)
        finally:
            if not pending.raw:
                self._settle(pending, None)

    async def _know_who(self) -> None:
        if self._who.awaited:
            await self._who.wait()
            self._check_open()

    def check(self, address: Address) -> bytes | None:
        """The key that the other end of a dial to `address` will have to prove, if there is one.

        Raises what `dial` would raise before it dials: `AddressError` or `SelfConnection`.
        """
        transport, _, where, step = self._route(address)
        transport.place(where)
        return step.key

    def _route(self, address: Address) -> tuple[Transport, Handshake, Step, Step]:
        """The way to the first alternative of `address` that is known here."""
        chosen = address.for_dialling(self._transports.keys(), self._handshakes.keys())
        transport, step = self._transports[chosen.transport.name], chosen.handshake
        if step is None:
            raise AddressError(f"no handshake to dial with in {address}")
        handshake = self._handshakes[step.name]
        if handshake.check(step, self.identity):
            raise SelfConnection(f"{address} is this very node", address=str(address))
        return transport, handshake, chosen.transport, step

    async def close(self) -> None:
        """Stop listening and end the handshakes under way. May be called again.

        It goes on when its caller is cancelled.
        """
        self._closed = True
        self._who.close()
        await self._closing.run(self._close, "covey endpoint close")
        for connection in self._ending:  # here: a channel's handler that closes waits for no other
            await connection.wait_closed()

    async def _close(self) -> None:
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            await listener.close()
        error = ConnectionAborted("the endpoint was closed")
        for pending in (*self._dials, *self._accepted):
            pending.abort(error)
        if self._owns_connections:
            self._ending = self.connections
            for connection in self._ending:
                connection.start_close(CloseReason.SHUTDOWN)
        while self._dials or self._accepted or self._leaving:
            await self._settled.wait()

    # Accepting

    def _accept(self, transport: Transport, remote: HostPort) -> StreamShell | None:
        """The shell for an accepted raw connection, None when it is refused."""
        host, port = remote
        if self._closed:
            return None
        reason = self._admit(host, port) if self._admit is not None else None
        if reason:
            logger.debug("refused a connection from %s:%d: %s", host, port, reason)
            return None
        self._make_room(host)
        handshake = self._accepting_handshake
        attempt = _attempt(transport, handshake, (host, port), None)
        likely_key = self._likely_keys.calling(host)
        pending = self._pending(attempt, handshake, self._observer, likely_key)
        shell = pending.make_shell(remote)
        self._accepted[pending] = None
        self._accepted_per_network[network_of(host)] += 1
        return shell

    def _make_room(self, host: str) -> None:
        """Drop the oldest handshake of a network where one more would be too many.

        An honest handshake takes milliseconds, so the oldest is the least likely to be one; where
        all slots are taken it is the oldest of the network that holds the most.
        """
        limits, counts, network = self._limits, self._accepted_per_network, network_of(host)
        if counts[network] >= limits.max_per_ip:
            oldest = self._oldest_of(network)
            self._drop(oldest, f"more than {limits.max_per_ip} from {network}", "max_per_ip")
        elif len(self._accepted) >= limits.max_handshakes:
            oldest = self._oldest_of(max(counts, key=counts.__getitem__))
            self._drop(oldest, f"more than {limits.max_handshakes} in all", "max_handshakes")

    def _oldest_of(self, network: str) -> Pending:
        return next(one for one in self._accepted if network_of(one.attempt.host) == network)

    def _drop(self, pending: Pending, why: str, limit: str) -> None:
        self._forget_accepted(pending)
        self._leaving.add(pending)
        pending.abort(Refused(f"too many handshakes under way: {why}", reason=limit))

    # The end of handshakes

    def _pending(
        self,
        attempt: Attempt,
        handshake: Handshake,
        observer: AttemptObserver | None,
        likely_key: bytes | None = None,
    ) -> Pending:
        return Pending(
            attempt,
            handshake,
            self.identity,
            limits=self._limits,
            observer=observer,
            settled=self._settle,
            likely_key=likely_key,
            frames=self._frames,
        )

    def _settle(self, pending: Pending, connection: Connection | None) -> None:
        self._dials.discard(pending)
        self._leaving.discard(pending)
        self._forget_accepted(pending)
        self._settled.wake()
        if connection is None:
            return
        self._connections.add(connection)
        connection.on_close(self._connections.discard)
        if connection.remote_key is not None:
            port = pending.attempt.port if connection.initiator else ANY_PORT
            self._likely_keys.proven(pending.attempt.host, connection.remote_key, port=port)
        if not connection.initiator:
            self._give_out(connection)

    def _give_out(self, connection: Connection) -> None:
        if self._on_connection is None:
            connection.abort(Refused("nobody takes connections here", reason="no handler"))
            return
        try:
            self._on_connection(connection)
        except Exception:
            logger.exception("the connection handler failed on %r", connection)
            connection.abort(None, CloseReason.ABORTED)

    def _forget_accepted(self, pending: Pending) -> None:
        if pending in self._accepted:
            del self._accepted[pending]
            network = network_of(pending.attempt.host)
            self._accepted_per_network[network] -= 1
            if not self._accepted_per_network[network]:
                del self._accepted_per_network[network]

    def _check_open(self) -> None:
        if self._closed:
            raise self._closed_error()

    def _closed_error(self) -> ClosedError:
        return ClosedError("this endpoint is closed")


def _attempt(
    transport: Transport, handshake: Handshake, place: HostPort, address: Address | None
) -> Attempt:
    """A dial of `address`, or what came in from `place` when there is none."""
    return Attempt(
        next(_attempt_ids),
        transport.type,
        address is not None,
        *place,
        address,
        handshake.name,
        transport.name,
        proves_key=handshake.proves_key,
        keeps_alive=handshake.quick,
    )
