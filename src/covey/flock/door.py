"""Where a flock's connections come from: its hub, and its endpoint unless the hub was given."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from covey.address import Address
from covey.conn.hub import Hub
from covey.conn.hub_events import Connected, HubEvent
from covey.errors import ClosedError, UsageError
from covey.flock.admission import canonical_host
from covey.flock.candidates import Candidate
from covey.flock.context import Context
from covey.flock.events import FlockError, Listening, Peer, PeerRejected
from covey.flock.own_addresses import OwnAddresses
from covey.flock.policy import Reason
from covey.flock.roster import Roster
from covey.flock.watch import IncomingWatch, OutgoingWatch, info_of
from covey.host_port import HostPort, check_port
from covey.keys import KeyPair
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.net.handshakes import RawHandshake, default_handshakes
from covey.owned_tasks import OwnedTasks

logger = logging.getLogger("covey.flock")


class Door:
    """Listens, admits, accepts and dials; what comes in is brought to `roster`.

    Without `hub` it makes one, and an endpoint for it.
    """

    def __init__(
        self,
        context: Context,
        roster: Roster,
        hub: Hub | None,
        *,
        key_pair: KeyPair | None,
        id: bytes,  # noqa: A002 - the original's option
        host: str | None,
    ) -> None:
        self.own = OwnAddresses()
        self._context = context
        self._roster = roster
        self._incoming = IncomingWatch(context)
        self._host = host
        self._asked: str | None = None
        self._listening: asyncio.Future[HostPort] | None = None
        self._tasks = OwnedTasks(logger)
        self._endpoint: Endpoint | None = None
        self._unsubscribe: Callable[[], None] | None = None
        limits = context.limits
        self._timeout = limits.connect_timeout + limits.handshake_timeout
        if hub is None:
            self._endpoint = Endpoint(
                key_pair=key_pair,
                limits=limits,
                id=id,
                handshake=context.handshake,
                handshakes={**default_handshakes(), "raw": RawHandshake()},
                on_connection=self._accepted,
                admit=self._admit,
                observer=self._incoming,
                owns_connections=False,
            )
            hub = Hub(
                key_pair=key_pair, limits=limits, dialler=self._endpoint, history=context.history
            )
        else:
            self._unsubscribe = hub.subscribe(self._hub_told)
        self.hub = hub

    # Listening

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Host and port at which it listens, nothing before."""
        place = self._listening
        done = place is not None and place.done() and place.exception() is None
        return (place.result(),) if place is not None and done else ()

    async def listen_on(self, host: str | None, port: int) -> HostPort:
        """Listen unless that was done already; see `Flock.listen_on`."""
        check_port(port, or_any=True)
        if self._listening is None:
            self._asked = host or self._host
            self._listening = asyncio.get_running_loop().create_future()
            work = self._listen(self._listening, self._asked, port)
            self._tasks.spawn(work, "covey flock listen")
        place = await asyncio.shield(self._listening)
        if port not in (0, place[1]):
            raise UsageError(f"this flock listens at port {place[1]} already")
        known = {canonical_host(name) for name in (self._asked, place[0]) if name}
        if host is not None and canonical_host(host) not in known:
            raise UsageError(f"this flock listens at {self._asked or place[0]} already")
        return place

    async def _listen(self, told: asyncio.Future[HostPort], host: str | None, port: int) -> None:
        """Listen and tell all who wait for it, of a failure too."""
        listener = self._endpoint or self.hub
        try:
            place = await listener.listen_on(host, port)
        except Exception as error:  # noqa: BLE001 - who waits gets it, and the event tells it
            self._listening = None  # another port may do
            self._context.publish(FlockError(error))
            _fail(told, error)
        else:
            self.own.add(*place)
            told.set_result(place)
            self._context.publish(Listening(*place))

    # Accepting

    def _admit(self, host: str, port: int) -> str | None:
        """Why a raw connection from `host` is refused, or None."""
        # A given hub has been asked by its own endpoint.
        limit = self.hub.admit(host, port) if self._endpoint is not None else None
        if limit is not None:
            reason, text = Reason.LIMIT, f"the limit {limit} is reached"
        elif not self._context.whitelist.allows(host):
            reason, text = Reason.WHITELIST, f"{host} is not on the whitelist"
        elif self._roster.full:
            reason, text = Reason.MAX_CONNECTIONS, "enough peers are connected"
        else:
            return None
        if limit is None:  # else the hub told it
            self._context.tell_host(host, "rejected", f"not accepted: {text}", reason=str(reason))
        self._context.publish(PeerRejected(Peer(canonical_host(host), port, None), reason, text))
        return text

    def _accepted(self, connection: Connection) -> None:
        """The own endpoint completed the handshake of an accepted connection."""
        self._incoming.done(connection.attempt)
        self.hub.accept(connection)  # a refusal of the hub cuts it, and the roster tells its end
        self._roster.arrive_later(connection, info_of(connection, None))

    def _hub_told(self, event: HubEvent) -> None:
        """A given hub accepted a connection: what its endpoint did not ask is asked here."""
        if not isinstance(event, Connected) or event.details.via != "incoming":
            return
        connection = event.details.connection
        if self._admit(*connection.remote_address) is not None:
            connection.start_close(CloseReason.REFUSED)
        else:
            self._roster.arrive_later(connection, info_of(connection, None))

    # Dialling

    async def dial(self, candidate: Candidate, watch: OutgoingWatch) -> Connection:
        """Through the hub, which shares a dial or a connection that it has."""
        address = self._context.address(candidate)
        data = {"source": candidate.source, "topic": candidate.name}
        return await self.hub.connect(address, data, observer=watch, timeout=self._timeout)

    async def dial_apart(self, candidate: Candidate, watch: OutgoingWatch) -> Connection:
        """A connection of its own, also beside another to the same address (`stream` hook)."""
        if self._endpoint is None:
            return await self.dial(candidate, watch)
        address = Address.parse(self._context.address(candidate))
        connection = await self._endpoint.dial(address, observer=watch)
        self.hub.accept(connection)
        return connection

    # The end

    async def close(self) -> None:
        """Listen no more, end the handshakes of accepted connections. The hub stays as it is."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        await self._tasks.end()
        if self._listening is not None:
            _fail(self._listening, ClosedError("the flock was closed"))
        if self._endpoint is not None:
            await self._endpoint.close()


def _fail(future: asyncio.Future[HostPort], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # perhaps nobody waits: then this is not a lost error
