"""The sessions of a hub: one object per connection, their bounds, and the choice between two."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast, runtime_checkable

from covey.address import Address
from covey.conn.hub_events import SessionEnd, Via
from covey.errors import CoveyError, Refused
from covey.host_port import HostPort
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.peer_type import network_of

if TYPE_CHECKING:
    from covey.net.attempt import AttemptObserver
    from covey.net.connection import Connection

_ids = itertools.count(1)


class Link(Protocol):
    """What the hub needs of a connection; `covey.net.connection.Connection` is one."""

    @property
    def address(self) -> Address:
        """Where it leads; for an accepted one, where it came from."""

    @property
    def remote_key(self) -> bytes | None:
        """The proven key of the other end, if the handshake proves one."""

    @property
    def remote_address(self) -> HostPort:
        """Host and port of the other end's socket."""

    @property
    def initiator(self) -> bool:
        """Whether this side dialled."""

    @property
    def closed(self) -> bool:
        """Whether it is over."""

    @property
    def close_error(self) -> CoveyError | None:
        """What cut it, None for a clean end."""

    @property
    def close_reason(self) -> CloseReason | None:
        """Why it is over, None while it is open."""

    @property
    def close_text(self) -> str:
        """Why it is over, in words."""

    async def close(self, reason: CloseReason | str | None = None) -> None:
        """End it cleanly; returns when it is over."""

    def abort(self, error: CoveyError) -> None:
        """Cut it now."""

    @property
    def unused(self) -> bool:
        """Whether nobody has read or written it so far."""

    def on_remote_end(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(connection)` once when the remote ends its half."""

    def on_close(self, callback: Callable[[Any], object]) -> None:
        """Call `callback(connection)` once when it is over; later, never inside this call."""


class Dialler(Protocol):
    """Who makes connections for a hub; `covey.net.endpoint.Endpoint` is one."""

    async def dial(
        self,
        address: Address,
        *,
        observer: AttemptObserver | None = None,
        timeout: float | None = None,
    ) -> Link:
        """An open connection to `address`, or an exception; cancelling calls the dial off."""


@runtime_checkable
class CheckingDialler(Dialler, Protocol):
    """A dialler that knows beforehand which addresses it cannot dial."""

    def check(self, address: Address) -> bytes | None:
        """The key that the other end of a dial will have to prove, None where it need not.

        Of several alternatives the dialler takes one: that one's key, whatever the others name.
        Raises `AddressError` or `SelfConnection` for what can never be dialled.
        """


@runtime_checkable
class ListeningDialler(Dialler, Protocol):
    """A dialler that accepts connections as well, and brings them by `Hub.accept`."""

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Host and port of every listening socket."""


class HubSession:
    """One connection of the hub, filed under the text of an address.

    `id` is unique in the process, `via` says how it came, `opened_at` is in milliseconds since
    1970. `stranger`: the user did not name it, it came or was found. `reason` is set by who closes
    it from this side.
    """

    __slots__ = (
        "address",
        "connection",
        "host",
        "id",
        "key",
        "opened_at",
        "reason",
        "started",
        "stranger",
        "timer",
        "via",
    )

    def __init__(self, connection: Link, *, address: str, via: Via, opened_at: float) -> None:
        self.id = next(_ids)
        self.connection = connection
        self.address = address
        self.key = connection.remote_key
        self.host = connection.remote_address[0]
        self.via = via
        self.opened_at = opened_at
        self.started = asyncio.get_running_loop().time()  # a wall clock may be set meanwhile
        self.reason: str | None = None
        self.stranger = via == "incoming"
        self.timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<HubSession {self.id} {self.via} {self.address}>"


def end_of(session: HubSession) -> SessionEnd:
    """What the `Disconnected` event of a session that is over says."""
    link = session.connection
    reason = session.reason or link.close_reason or CloseReason.REMOTE_END
    return SessionEnd(
        reason=reason,
        text=str(session.reason or link.close_text or reason),
        error=link.close_error,
        connection=cast("Connection", link),
        session_id=session.id,
        seconds=max(0.0, asyncio.get_running_loop().time() - session.started),
    )


TieBreak: TypeAlias = Callable[[bytes, bytes, Sequence[HubSession]], HubSession]
"""Own key, remote key, the open sessions of that key (oldest first) to the one to keep."""


def keep_smaller_dialler(
    own_key: bytes, remote_key: bytes, sessions: Sequence[HubSession]
) -> HubSession:
    """The session whose dialler has the smaller key, the oldest of several; both ends agree.

    When that side dialled none of them the oldest stays: there is no second one to choose.
    """
    we_dial = own_key < remote_key
    for session in sessions:
        if (session.via != "incoming") == we_dial:
            return session
    return sessions[0]


class SessionTable:
    """All open sessions, found by id, connection, key and remote network, each in one step."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._all: dict[int, HubSession] = {}
        self._by_connection: dict[int, HubSession] = {}
        self._by_key: dict[bytes, dict[int, HubSession]] = {}
        self._incoming_by_network: dict[str, int] = {}
        self._incoming = 0

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[HubSession]:
        return iter(tuple(self._all.values()))

    def of(self, connection: object) -> HubSession | None:
        """The session of `connection`, if it is one of ours and open."""
        return self._by_connection.get(id(connection))

    def of_key(self, key: bytes | None) -> tuple[HubSession, ...]:
        """Open sessions with `key`, oldest first."""
        return tuple(self._by_key.get(key, {}).values()) if key is not None else ()

    def add(self, session: HubSession) -> None:
        """File an open session."""
        self._all[session.id] = session
        # The session holds its connection, so the id of that object stays its own until `remove`.
        self._by_connection[id(session.connection)] = session
        if session.key is not None:
            self._by_key.setdefault(session.key, {})[session.id] = session
        if session.via == "incoming":
            self._incoming += 1
            network = network_of(session.host)
            self._incoming_by_network[network] = self._incoming_by_network.get(network, 0) + 1

    def remove(self, session: HubSession) -> bool:
        """Forget a session; False when that was done before."""
        if self._all.pop(session.id, None) is None:
            return False
        if session.timer is not None:
            session.timer.cancel()
        del self._by_connection[id(session.connection)]
        if session.key is not None:
            same = self._by_key[session.key]
            del same[session.id]
            if not same:
                del self._by_key[session.key]
        if session.via == "incoming":
            self._incoming -= 1
            network = network_of(session.host)
            count = self._incoming_by_network[network] - 1
            if count:
                self._incoming_by_network[network] = count
            else:
                del self._incoming_by_network[network]
        return True

    def refuse_host(self, host: str, pending: int = 0) -> Refused | None:
        """Why nothing more may come in from `host` now; `pending` dials count as connections."""
        limits = self._limits
        if len(self._all) + pending >= limits.max_connections:
            return _full("max_connections", limits.max_connections, "connections are open")
        if self._incoming >= limits.max_incoming:
            return _full("max_incoming", limits.max_incoming, "accepted connections are open")
        network = network_of(host)
        if self._incoming_by_network.get(network, 0) >= limits.max_per_ip:
            return _full("max_per_ip", limits.max_per_ip, f"connections from {network} are open")
        return None

    def refuse_key(self, key: bytes | None, pending: int = 0) -> Refused | None:
        """Why there may be no further connection to `key` now."""
        if key is not None and len(self._by_key.get(key, ())) + pending >= self._limits.max_per_key:
            return _full("max_per_key", self._limits.max_per_key, "connections to this key exist")
        return None

    def refuse_dial(self, key: bytes | None, pending: int) -> Refused | None:
        """Why no dial to `key` may start while `pending` others are under way."""
        if len(self._all) + pending >= self._limits.max_connections:
            return _full(
                "max_connections", self._limits.max_connections, "connections are open or dialled"
            )
        return self.refuse_key(key)


def _full(limit: str, allowed: int, what: str) -> Refused:
    return Refused(f"{allowed} {what} ({limit})", reason=limit)
