"""`Staging`: the bounded pool of candidates that could be dialled (ssb-conn-staging 1.0.0).

Nothing here opens a connection. Discovery stages what it finds, policy reads the pool, and a
candidate leaves it when a connection starts. Keys are the exact address texts as they were given:
two spellings of one place are two candidates.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self

from covey.address import Address
from covey.conn.groups import Groups
from covey.errors import AddressError, ClosedError
from covey.events import EventStream, LiveSubscription, LiveView, Subscription
from covey.limits import Limits
from covey.wall_clock import wall_clock

CLOSED = "This ConnStaging instance is closed, create a new one."
BAD_ADDRESS = "The given address is not a valid multiserver-address"
"""Both in the words of the original, by which its users know them."""

StagedEntry = tuple[str, Mapping[str, Any]]
"""One candidate: the exact address text and a read-only view of its data."""

UnstageReason = Literal["unstaged", "pool-full", "key-full", "source-full"]

_STAMPS = ("staging_birth", "staging_updated")
_KEY = re.compile(r"~(?:shs|noise):([A-Za-z0-9+/]{43}=)")
_NOTHING: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Staged:
    """A new address entered the pool."""

    address: str
    type: Literal["staged"] = "staged"


@dataclass(frozen=True, slots=True)
class Unstaged:
    """An address left the pool; `reason` tells whether `unstage` or which bound did it."""

    address: str
    reason: UnstageReason = "unstaged"
    type: Literal["unstaged"] = "unstaged"


StagingEvent = Staged | Unstaged


class Staging:
    """The candidate pool; addresses may be given as text or `Address`, and come back as text.

    `limits.max_staged` bounds the pool: a new address pushes out the one with the oldest
    `staging_updated`. `limits.max_staged_per_key` bounds the addresses of one key, and
    `max_per_source` (None: unbounded) those of one `source`: there the least recently staged of
    the same key or source goes. `wall_clock` gives milliseconds since
    1970.

    After `close` (`len` is 0 then, nothing is `in` it) every other method raises `ClosedError`, and
    then `AddressError` for a text that is no multiserver address (`TypeError` for what is no
    text), in this order.
    """

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        wall_clock: Callable[[], float] = wall_clock,
        max_per_source: int | None = None,
    ) -> None:
        limits = limits or Limits()
        self._limit = max(1, limits.max_staged)
        self._per_key = max(1, limits.max_staged_per_key)
        self._per_source = max_per_source
        self._wall_clock = wall_clock
        self._closed = False
        # Plain dictionaries of plain values cost the garbage collector nothing; views come late.
        self._entries: dict[str, dict[str, Any]] = {}
        self._groups: dict[str, tuple[str | None, str | None]] = {}
        self._keys = Groups()
        self._sources = Groups()
        self._ages: list[tuple[float, str]] = []
        self._events: EventStream[StagingEvent] = EventStream(backlog=limits.event_backlog)
        self._live: LiveView[tuple[StagedEntry, ...]] = LiveView(self._snapshot)

    def stage(
        self,
        address: str | Address,
        data: Mapping[str, Any] | None = None,
        *,
        from_network: bool = False,
        source: str | None = None,
    ) -> bool:
        """Add or refresh a candidate; True when it is new, which alone is an event.

        `data` is merged over what is known: fields never disappear, None is a value. The
        application may set `staging_birth` and `staging_updated` (milliseconds since 1970);
        `from_network=True` drops these two, so that no stranger can outlive the expiry.
        `source` names who found it, for the limit per source (first one to stage counts).
        """
        text = self._check(address)
        given = data or _NOTHING
        if from_network:
            given = {name: value for name, value in given.items() if name not in _STAMPS}
        now = self._wall_clock()
        known = self._entries.get(text)
        if known is not None:
            self._store(text, {**known, "staging_updated": now, **given})
            self._touch(text)
            self._live.changed()
            return False
        key, source = _key_of(text, given), source or None
        evicted = self._make_room(key, source)
        self._store(text, {"staging_birth": now, "staging_updated": now, **given})
        self._join(text, key, source)
        # Only now: a listener may call back, and must find the pool whole.
        for event in evicted:
            self._events.publish(event)
        self._events.publish(Staged(text))
        self._live.changed()
        return True

    def unstage(self, address: str | Address) -> bool:
        """Take a candidate out; False when it is not there."""
        text = self._check(address)
        if text not in self._entries:
            return False
        self._events.publish(self._take_out(text, "unstaged"))
        self._live.changed()
        return True

    def get(self, address: str | Address) -> Mapping[str, Any] | None:
        """A read-only view of a candidate's data as it is now, or None."""
        data = self._entries.get(self._check(address))
        return MappingProxyType(data) if data is not None else None

    def entries(self) -> tuple[StagedEntry, ...]:
        """All candidates in the order of first staging.

        The data is that of this moment: a later merge replaces it and does not show here.
        """
        self._check_open()
        return self._snapshot()

    def live_entries(self) -> LiveSubscription[tuple[StagedEntry, ...]]:
        """`entries()` as of this call, then once more after each burst of changes."""
        self._check_open()
        return self._live.listen()

    def listen(self) -> Subscription[StagingEvent]:
        """`Staged` and `Unstaged` from now on, bounded by `limits.event_backlog`."""
        self._check_open()
        return self._events.listen()

    def subscribe(self, callback: Callable[[StagingEvent], object]) -> Callable[[], None]:
        """Call `callback` inside `stage` and `unstage`, before they return; gives the way out."""
        self._check_open()
        return self._events.subscribe(callback)

    async def close(self) -> None:
        """Empty the pool without events and end every stream, at once. May be called again."""
        self._closed = True
        self._entries.clear()
        self._groups.clear()
        self._keys.clear()
        self._sources.clear()
        self._ages.clear()
        self._events.close()
        self._live.close()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{len(self._entries)} of {self._limit} candidates"
        return f"<Staging {state}>"

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, address: object) -> bool:
        return str(address) in self._entries

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def _snapshot(self) -> tuple[StagedEntry, ...]:
        return tuple((text, MappingProxyType(data)) for text, data in self._entries.items())

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(CLOSED)

    def _check(self, address: str | Address) -> str:
        if self._closed:
            raise ClosedError(CLOSED)
        if isinstance(address, str):
            if address not in self._entries and not Address.check(address):
                raise AddressError(BAD_ADDRESS)
            return address
        if isinstance(address, Address):
            return str(address)
        raise TypeError(f"an address is a str or an Address, not {type(address).__name__}")

    def _store(self, text: str, data: dict[str, Any]) -> None:
        self._entries[text] = data
        if len(self._ages) > 2 * len(self._entries) + 64:
            # Refreshing leaves stale rows behind; rebuilding when half are stale costs O(1) each.
            self._ages = [(_age(entry), name) for name, entry in self._entries.items()]
            heapq.heapify(self._ages)
        else:
            heapq.heappush(self._ages, (_age(data), text))

    def _join(self, text: str, key: str | None, source: str | None) -> None:
        self._groups[text] = (key, source)
        if key is not None:
            self._keys.add(key, text)
        if source is not None:
            self._sources.add(source, text)

    def _touch(self, text: str) -> None:
        key, source = self._groups[text]
        if key is not None:
            self._keys.touch(key, text)
        if source is not None:
            self._sources.touch(source, text)

    def _make_room(self, key: str | None, source: str | None) -> list[Unstaged]:
        evicted = []
        if key is not None and (text := self._keys.oldest_if_full(key, self._per_key)):
            evicted.append(self._take_out(text, "key-full"))
        per_source = self._per_source
        if source is not None and per_source is not None:
            text = self._sources.oldest_if_full(source, per_source)
            if text:
                evicted.append(self._take_out(text, "source-full"))
        if len(self._entries) >= self._limit:
            evicted.append(self._take_out(self._oldest(), "pool-full"))
        return evicted

    def _oldest(self) -> str:
        while True:
            age, text = heapq.heappop(self._ages)
            entry = self._entries.get(text)
            if entry is not None and _age(entry) == age:
                return text

    def _take_out(self, text: str, reason: UnstageReason) -> Unstaged:
        del self._entries[text]
        key, source = self._groups.pop(text)
        if key is not None:
            self._keys.remove(key, text)
        if source is not None:
            self._sources.remove(source, text)
        return Unstaged(text, reason)


def _age(data: Mapping[str, Any]) -> float:
    """`staging_updated` for comparing; what an application stored there need not be a number."""
    stamp = data["staging_updated"]
    return stamp if type(stamp) in (int, float) and stamp == stamp else 0  # noqa: PLR0124 (NaN)


def _key_of(text: str, data: Mapping[str, Any]) -> str | None:
    """What to count under for the limit per key: the key in the address, or the caller's."""
    found = _KEY.search(text)
    if found is not None:
        return found.group(1)
    if "!" in text and (key := Address.parse(text).key) is not None:
        return key.hex()
    given = data.get("key")
    return given if isinstance(given, str) else None
