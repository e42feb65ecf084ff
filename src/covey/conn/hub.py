"""`Hub`: starts, accepts and ends connections, one entry per address (ssb-conn-hub 1.2.1).

It chooses no peers and never retries. Section 6 of the document is followed where the reference
has defects: one dial is shared by all callers, every end is told once, nothing is left behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from covey.address import Address
from covey.closing import Closing
from covey.conn.arguments import check_data, check_seconds
from covey.conn.hub_entry import RESERVED, Cut, HubEntry
from covey.conn.hub_events import EntryState, HubEvent, Via
from covey.conn.hub_machine import HubMachine
from covey.conn.hub_story import HubStory
from covey.conn.sessions import Dialler, HubSession, Link, ListeningDialler, TieBreak
from covey.conn.staging import BAD_ADDRESS
from covey.conn.story import History, Peer, Story
from covey.errors import AddressError, ConnectError, ConnectionAborted, HubClosed, UsageError
from covey.events import LiveSubscription, Subscription
from covey.host_port import HostPort
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.wall_clock import wall_clock

if TYPE_CHECKING:
    from covey.net.attempt import AttemptObserver
    from covey.net.connection import Connection
    from covey.net.endpoint import Endpoint
    from covey.net.handshakes import Handshake
    from covey.net.transports import Transport

logger = logging.getLogger("covey.conn.hub")

CLOSED = "This ConnHub instance is closed, create a new one."
"""In the original's words, by which its users may know it."""


class Hub:
    """Connections by address, with their states and events.

    Without `dialler` the hub makes its own `Endpoint` (from `key_pair`, `id`, `handshake` (None:
    `noise`) and the registries `handshakes` and `transports`) and can listen; then `observer` hears
    of handshakes of accepted connections, and `admit(host, port)` may give the reason to refuse one
    before its handshake. With a `dialler` only `key_pair` of these can be given: else `UsageError`.

    `connect_timeout` in seconds overrides the default by type of the peer (lan 30, bt 60, dht 300,
    others 10). `tie_break` chooses between sessions with the same key (None keeps all; see
    `keep_smaller_dialler`). `history` is where the stories go (None: a new one). `wall_clock` gives
    milliseconds since 1970.

    After `close` every method but `close` and `reset` raises `HubClosed`, properties stay
    readable; closing it also closes its connections.
    """

    def __init__(
        self,
        *,
        key_pair: KeyPair | None = None,
        limits: Limits | None = None,
        dialler: Dialler | None = None,
        id: bytes | None = None,  # noqa: A002 (the name in discovery-swarm)
        handshake: str | None = None,
        admit: Callable[[str, int], str | None] | None = None,
        observer: AttemptObserver | None = None,
        tie_break: TieBreak | None = None,
        connect_timeout: float | None = None,
        history: History | None = None,
        wall_clock: Callable[[], float] = wall_clock,
        handshakes: Mapping[str, Handshake] | None = None,
        transports: Mapping[str, Transport] | None = None,
    ) -> None:
        check_seconds("connect_timeout", connect_timeout)
        self.limits = limits or Limits()
        if history is None:
            history = History(wall_clock=wall_clock, limits=self.limits)
        self.history = history
        self._story = HubStory(history, observer)
        self._admit_too = admit
        self._closing = Closing()
        self._ended: list[Link] = []  # told as ended by `close`, which closes them
        self._endpoint: Endpoint | None = None
        own = {"id": id, "handshake": handshake, "handshakes": handshakes, "transports": transports}
        if dialler is None:
            key_pair = key_pair or KeyPair.generate()
            dialler = self._endpoint = self._make_endpoint(key_pair, own)
        else:
            _check_unused(**own, admit=admit, observer=observer)
        self.key_pair = key_pair
        self._machine = HubMachine(
            dialler=dialler,
            own_key=self.public_key,
            limits=self.limits,
            clock=wall_clock,
            story=self._story,
            tie_break=tie_break,
            connect_timeout=connect_timeout,
        )

    def _make_endpoint(self, key_pair: KeyPair, options: Mapping[str, Any]) -> Endpoint:
        """The hub's own endpoint; what `options` leaves out is as `Endpoint` has it."""
        from covey.net.endpoint import Endpoint

        return Endpoint(
            key_pair=key_pair,
            limits=self.limits,
            on_connection=self._came_in,
            admit=self.admit,
            observer=self._story,
            owns_connections=False,
            **{name: value for name, value in options.items() if value is not None},
        )

    # Calls

    async def connect(
        self,
        address: str | Address,
        data: Mapping[str, Any] | None = None,
        *,
        observer: AttemptObserver | None = None,
        timeout: float | None = None,
    ) -> Connection:
        """The open connection to `address`: dialled, or the one that is there, or being made.

        `data` goes into a new entry (reserved fields are ignored). All callers of one dial get the
        same connection or the same exception: `ConnectError` and its kinds, `ConnectionAborted`
        after `disconnect` or `reset`, `HubClosed`. During a disconnect it waits for its end, then
        dials. `SelfConnection`, `Refused` (a limit), `AddressError` and `UsageError` (a `timeout`
        that is not finite, or negative) come before any event. When all callers of a dial are
        cancelled, it is called off.
        """
        text, target = self._parse(address)
        if data is not None:
            check_data(data)
        check_seconds("timeout", timeout)
        machine = self._machine
        while True:
            self._check_open()
            entry = machine.table.get(text)
            if entry is None:
                key = machine.check_dial(text, target, data)
                dial = machine.start_dial(text, target, data, observer, timeout, key=key)
                return cast("Connection", await machine.wait_for_dial(dial))
            if entry.dial is not None:
                return cast("Connection", await machine.wait_for_dial(entry.dial))
            session = entry.usable()
            if entry.state == "connected" and session is not None:
                return cast("Connection", session.connection)
            end = await asyncio.shield(entry.ended())
            if isinstance(end, Cut):
                raise end.error

    async def connect_or_false(
        self,
        address: str | Address,
        data: Mapping[str, Any] | None = None,
        *,
        observer: AttemptObserver | None = None,
        timeout: float | None = None,
    ) -> Connection | Literal[False]:
        """As `connect`, but during a disconnect False at once, as the reference answers.

        The dial that follows is nobody's: its failure is told by `connecting-failed` alone.
        """
        text, target = self._parse(address)
        if data is not None:
            check_data(data)
        check_seconds("timeout", timeout)
        machine = self._machine
        entry = machine.table.get(text)
        if entry is not None and entry.state == "disconnecting":
            machine.tasks.spawn(machine.retry(entry, target, data), f"covey hub retry {text}")
            return False
        return await self.connect(address, data, observer=observer, timeout=timeout)

    async def disconnect(
        self, address: str | Address, reason: CloseReason | str | None = None
    ) -> bool:
        """End the dial or every session of `address`; False when there is no entry.

        `reason` shows up in the details of `Disconnected`. Raises what a connection's `close`
        raised: then the entry is connected as before.
        """
        text, _ = self._parse(address)
        entry = self._machine.table.get(text)
        if entry is None:
            return False
        if entry.dial is not None:
            self._machine.abort_dial(entry.dial, reason)
            return True
        return await self._machine.disconnect(entry, reason)

    async def disconnect_session(
        self, connection: object, reason: CloseReason | str | None = None
    ) -> bool:
        """End one session and leave others of its address; False when it is not (or no more) ours.

        `reason` shows up in the details of `Disconnected` if it was the last of its address.
        """
        self._check_open()
        session = self._machine.sessions.of(connection)
        return session is not None and await self._machine.end_session(session, reason)

    def update(self, address: str | Address, data: Mapping[str, Any]) -> bool:
        """Merge the application's fields into an entry; False when there is none. No event.

        Raises `UsageError` for a field that only the hub writes (`RESERVED`).
        """
        text, _ = self._parse(address)
        check_data(data)
        if reserved := RESERVED & data.keys():
            raise UsageError(f"the hub alone writes {', '.join(sorted(reserved))}")
        entry = self._machine.table.get(text)
        if entry is None:
            return False
        self._machine.table.write(entry, data)
        self._machine.table.live.changed()
        return True

    def get_state(self, address: str | Address) -> EntryState | None:
        """`connecting`, `connected`, `disconnecting`, or None when disconnected."""
        text, _ = self._parse(address)
        entry = self._machine.table.get(text)
        return entry.state if entry is not None else None

    def entries(self) -> tuple[HubEntry, ...]:
        """All entries (address text, read-only data) in order of insertion, as of this moment."""
        self._check_open()
        return self._machine.table.snapshot()

    def live_entries(self) -> LiveSubscription[tuple[HubEntry, ...]]:
        """`entries()` as of this call, then once more after each burst of changes."""
        self._check_open()
        return self._machine.table.live.listen()

    def listen(self) -> Subscription[HubEvent]:
        """Events from now on, bounded by `limits.event_backlog`."""
        self._check_open()
        return self._machine.events.listen()

    def subscribe(self, callback: Callable[[HubEvent], object]) -> Callable[[], None]:
        """Call `callback` with each event as it happens; returns the function that stops it."""
        self._check_open()
        return self._machine.events.subscribe(callback)

    def accept(self, connection: Link) -> bool:
        """File a connection that this hub did not dial: accepted, or dialled by somebody else.

        False when policy refuses it (own key, limits, tie-break): then it is cut, and the reason is
        told by `explain`.
        """
        self._check_open()
        if self._machine.sessions.of(connection) is not None:
            return True
        if connection.closed:
            return False
        via: Via = "external" if connection.initiator else "incoming"
        text = str(connection.address)
        refusal = self._machine.refusal(text, connection, via)
        if refusal is not None:
            self._story.refused(text, connection, refusal)
            connection.abort(refusal)
            return False
        self._machine.file(text, connection, via)
        return True

    def admit(self, host: str, port: int) -> str | None:
        """Why a raw connection from there may not come in now, or None; `explain` knows it then.

        For who accepts connections himself and brings them by `accept`. A hub that listens asks it
        itself.
        """
        refusal = self._machine.sessions.refuse_host(host, self._machine.dialling)
        reason = refusal.reason if refusal is not None else None
        if reason is None and self._admit_too is not None:
            reason = self._admit_too(host, port)
        if reason is not None:
            self._story.not_admitted(host, reason, refusal)
        return reason

    async def listen_on(self, host: str | None = None, port: int = 0) -> HostPort:
        """Accept connections at `host` (None: everywhere) and `port` (0: any); gives what it got.

        Raises `UsageError` for a hub with a dialler of its own.
        """
        self._check_open()
        if self._endpoint is None:
            raise UsageError("a hub with its own dialler listens nowhere: use accept()")
        return await self._endpoint.listen_on(host, port)

    def explain(self, peer: Peer) -> Story:
        """The story of an address or key: what was tried, what came of it, what can be done."""
        self._check_open()
        if not isinstance(peer, bytes):
            peer, _ = self._parse(peer)
        return self._story.explain(peer, self._machine.table, self._machine.sessions)

    async def reset(self) -> None:
        """End every dial (its callers get `ConnectionAborted("reset")`) and every session.

        The events have happened when this first waits; it returns when all is closed. Silent on a
        closed hub.
        """
        if not self.closed:
            links = self._machine.end_everything(_reset, CloseReason.LOCAL)
            await self._machine.cut(links, ConnectionAborted("reset"), CloseReason.LOCAL)

    async def close(self) -> None:
        """End everything as `reset` does (callers get `HubClosed`) and all streams, stop listening.

        Returns when no task, timer or socket of the hub is left. May be called again.
        """
        if not self.closed:
            self._machine.closed = True
            self._ended = self._machine.end_everything(_closed, CloseReason.SHUTDOWN)
            self._machine.events.close()
            self._machine.table.live.close()
        await self._closing.run(self._shut_down, "covey hub close")

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # What it is

    def __repr__(self) -> str:
        if self.closed:
            return "<Hub closed>"
        return f"<Hub {len(self._machine.sessions)} sessions, {self.dialling} dials under way>"

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._machine.closed

    @property
    def sessions(self) -> tuple[HubSession, ...]:
        """Every open session, oldest first; several may have one key or one address."""
        return tuple(self._machine.sessions)

    @property
    def dialling(self) -> int:
        """How many dials are under way."""
        return self._machine.dialling

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Where this hub, or its dialler, listens."""
        dialler = self._machine.dialler
        return dialler.addresses if isinstance(dialler, ListeningDialler) else ()

    @property
    def public_key(self) -> bytes | None:
        """The own key, by which a dial to ourselves is noticed."""
        return self.key_pair.public_key if self.key_pair is not None else None

    # Inside

    def _parse(self, address: str | Address) -> tuple[str, Address]:
        self._check_open()
        if isinstance(address, Address):
            return str(address), address
        try:
            return address, Address.parse(address)
        except AddressError as error:
            raise AddressError(BAD_ADDRESS) from error

    def _check_open(self) -> None:
        if self.closed:
            raise HubClosed(CLOSED)

    async def _shut_down(self) -> None:
        if self._endpoint is not None:
            await self._endpoint.close()
        await self._machine.cut(self._ended, HubClosed(CLOSED), CloseReason.SHUTDOWN)
        await self._machine.tasks.end(self.limits.close_timeout)

    def _came_in(self, connection: Connection) -> None:
        if self.closed:
            connection.abort(HubClosed(CLOSED))
            return
        try:
            self.accept(connection)
        except Exception as error:  # a tie-break of the application's, say
            logger.exception("%r could not be taken over", connection)
            connection.abort(ConnectError(f"it could not be taken over: {error}"))


def _check_unused(**options: object) -> None:
    """Refuse what only the hub's own endpoint would use."""
    for name, value in options.items():
        if value is not None:
            raise UsageError(
                f"{name} is for the hub's own endpoint: give it to the dialler instead"
            )


def _reset(address: str) -> ConnectionAborted:
    return ConnectionAborted("reset", address=address)


def _closed(address: str) -> HubClosed:
    return HubClosed(f"{CLOSED} ({address})")
