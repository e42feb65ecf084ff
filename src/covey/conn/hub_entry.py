"""The entries of a hub: one per address that is dialled or has sessions, and their data."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from covey.address import Address
from covey.conn.hub_events import EntryState
from covey.conn.sessions import HubSession, Link
from covey.errors import CoveyError
from covey.events import LiveView

if TYPE_CHECKING:
    from covey.net.attempt import AttemptObserver

RESERVED = frozenset({"state", "key", "hub_birth", "hub_updated", "inferred_type", "disconnect"})
"""Fields that only the hub writes (`disconnect` was one of the reference's)."""

TYPE_TIMEOUTS = {"lan": 30.0, "bt": 60.0, "dht": 300.0}
"""Seconds for a dial by type of the peer: the scheduler's own limits (ssb-conn-hub section 6)."""
OTHER_TIMEOUT = 10.0

HubEntry = tuple[str, Mapping[str, Any]]
"""One entry: the exact address text and a read-only view of its data."""


APPLICATION = "application"
"""The source of peers that the user named."""


def was_found(source: object) -> bool:
    """Whether others told of a peer with this `source`: it is given, and not the application."""
    return source not in (None, APPLICATION)


@dataclass(frozen=True, slots=True)
class Cut:
    """How an entry ended when `reset` or `close` ended it; `error` is for those who wait."""

    error: CoveyError


class Dial:
    """One dial under way and everybody who waits for it.

    `decided` is set, once, by whoever ends it: from then on what the dialler does is ignored.
    """

    __slots__ = (
        "decided",
        "entry",
        "future",
        "observer",
        "target",
        "task",
        "timeout",
        "timer",
        "waiters",
    )

    def __init__(
        self, entry: Entry, target: Address, timeout: float, observer: AttemptObserver | None
    ) -> None:
        self.entry = entry
        self.target = target
        self.timeout = timeout
        self.observer = observer
        self.future: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.decided = False
        self.waiters = 0

    def decide(self) -> None:
        """Whatever comes from the dialler now is too late; stop it if it still runs."""
        self.decided = True
        if self.timer is not None:
            self.timer.cancel()
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()

    def fail(self, error: Exception) -> None:
        """Give `error` to all who wait."""
        if not self.future.done():
            self.future.set_exception(error)
            self.future.exception()  # perhaps nobody waits: then this is not a lost error


class Entry:
    """One address: its data, and either the dial or the sessions filed under it."""

    __slots__ = ("address", "data", "dial", "ending", "key", "sessions", "state")

    def __init__(self, address: str, key: bytes | None, state: EntryState) -> None:
        self.address = address
        self.key = key
        self.state = state
        self.data: Mapping[str, Any] = MappingProxyType({})
        self.dial: Dial | None = None
        self.sessions: dict[int, HubSession] = {}
        self.ending: asyncio.Future[Cut | Exception | None] | None = None

    def ended(self) -> asyncio.Future[Cut | Exception | None]:
        """Resolves when the entry is gone (None), or an error keeps or ends it."""
        if self.ending is None:
            self.ending = asyncio.get_running_loop().create_future()
        return self.ending

    def settle(self, outcome: Cut | Exception | None) -> None:
        """Tell those who wait for the end."""
        if self.ending is not None and not self.ending.done():
            self.ending.set_result(outcome)
        self.ending = None

    def usable(self) -> HubSession | None:
        """The oldest session that is still open."""
        for session in self.sessions.values():
            if not session.connection.closed:
                return session
        return None


class EntryTable:
    """Entries in order of insertion, with the write rule of ssb-conn-hub section 2."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self.live: LiveView[tuple[HubEntry, ...]] = LiveView(self.snapshot)

    def snapshot(self) -> tuple[HubEntry, ...]:
        """All entries with the data of this moment."""
        return tuple((text, entry.data) for text, entry in self._entries.items())

    def get(self, address: str) -> Entry | None:
        """The entry of `address`."""
        return self._entries.get(address)

    def all(self) -> tuple[Entry, ...]:
        """Every entry there is now."""
        return tuple(self._entries.values())

    def insert(self, entry: Entry, data: Mapping[str, Any]) -> None:
        """Add an entry with the caller's `data`, reserved fields left out."""
        now = self._clock()
        given = {name: value for name, value in data.items() if name not in RESERVED}
        own = {"state": entry.state, "key": entry.key, "hub_birth": now, "hub_updated": now}
        entry.data = MappingProxyType(given | own)
        self._entries[entry.address] = entry

    def write(self, entry: Entry, fields: Mapping[str, Any]) -> None:
        """Merge fields over what is there."""
        entry.data = MappingProxyType({**entry.data, "hub_updated": self._clock(), **fields})

    def move(self, entry: Entry, state: EntryState, **fields: Any) -> None:
        """Put an entry into `state`."""
        entry.state = state
        self.write(entry, {"state": state, **fields})

    def remove(self, entry: Entry) -> None:
        """Drop an entry; its address is disconnected."""
        if self._entries.get(entry.address) is entry:
            del self._entries[entry.address]
