"""Discovery by name: rounds of every source for every joined name, and what they find.

A name becomes a hash of 20 bytes, the hash is announced and looked up by each source that is
switched on, round after round, and each peer found is told once per while.

Source: `discovery-swarm.md` sections 1, 10 and 11; discovery-channel 5.5.1.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_module
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Literal, Self

from covey.closing import Closing
from covey.discovery.membership import FirstRound, Membership
from covey.discovery.names import Hash, Name, name_bytes, topic_hash
from covey.discovery.source import Source, Wanted
from covey.errors import ClosedError, CoveyError, DiscoveryError, UsageError
from covey.events import EventStream, Subscription
from covey.host_port import HostPort, is_port
from covey.limits import Limits
from covey.owned_tasks import OwnedTasks

logger = logging.getLogger("covey.discovery.channel")

REPEAT_AFTER: Final = 45.0
"""Seconds before a peer is told again: shorter than a round, so that each round may renew it."""

__all__ = ["REPEAT_AFTER", "Channel", "FirstRound", "Membership", "PeerFound"]


@dataclass(frozen=True, slots=True)
class PeerFound:
    """`source` says that a peer of a topic listens at `host`:`port`. Not verified.

    `name` is what was joined, `hash` the up to 20 bytes announced for it.
    """

    name: bytes
    hash: bytes
    host: str
    port: int
    source: str
    type: Literal["peer"] = "peer"


class _Entry:
    """A source and what the channel knows of it; `rounds` are the tasks that use it."""

    __slots__ = ("closing", "lock", "on", "opened", "rounds", "seeking", "source")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.on = True
        self.opened = False
        self.lock = asyncio.Lock()
        self.seeking: dict[Membership, asyncio.Task[None]] = {}
        self.rounds = OwnedTasks(logger)
        self.closing: asyncio.Task[None] | None = None


class Channel:
    """Joins names and tells the peers that its sources find for them.

    `random` (0 to 1), `clock` (monotonic seconds) and `sleep` can be replaced. A peer is told
    again by the same or another source only after `repeat_after` seconds.

    After `close` every method but `close` raises `ClosedError`; `sources` stays readable.
    """

    def __init__(
        self,
        sources: Iterable[Source] = (),
        *,
        limits: Limits | None = None,
        repeat_after: float = REPEAT_AFTER,
        random: Callable[[], float] = random_module.random,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._limits = limits or Limits()
        self._repeat_after = repeat_after
        self._random = random
        self._clock = clock
        self._sleep = sleep
        self._members: dict[tuple[bytes, int], Membership] = {}
        self._told: dict[bytes, OrderedDict[HostPort, float]] = {}
        self._events = EventStream[PeerFound](backlog=self._limits.event_backlog)
        self._closing = Closing()
        self._shutting = OwnedTasks(logger)
        self._entries: dict[str, _Entry] = {}
        for source in sources:
            if source.name in self._entries:
                raise UsageError(f"two sources are called {source.name!r}")
            self._entries[source.name] = _Entry(source)

    def __repr__(self) -> str:
        sources = ", ".join(name for name, on in self.sources.items() if on) or "no source"
        state = "closed" if self._closing.begun else f"{len(self._members)} joined"
        return f"<discovery.Channel {state}, {sources}>"

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # Names

    def join(
        self,
        name: Name,
        *,
        port: int | None = None,
        announce: bool = True,
        hash: Hash | Literal[False] | None = None,  # noqa: A002
    ) -> Membership:
        """Announce `port` under `name` and look it up, or only look it up (`announce=False`).

        The first round starts at once. Joining the same name with the same port again gives the
        same membership and so the same first round. Raises `UsageError` when there is no port to
        announce or no name, `TypeError` for a name that is neither `str` nor `bytes`, `ClosedError`
        after `close()`.
        """
        self._check_open()
        if announce and (port is None or not is_port(port)):
            raise UsageError(f"a port from 1 to 65535 is needed to announce, not {port}")
        raw = name_bytes(name)
        key = (raw, (port or 0) if announce else 0)
        member = self._members.get(key)
        if member is None:
            wanted = Wanted(raw, topic_hash(raw, hash), key[1] or None)
            asked = [entry.source.name for entry in self._entries.values() if entry.on]
            member = Membership(wanted, asked, self._leave_member)
            self._members[key] = member
            for source in asked:
                self._start(self._entries[source], member)
        return member

    def leave(self, name: Name, *, port: int | None = None) -> bool:
        """Stop announcing and looking up; False when there was nothing to stop.

        Without `port` every membership of the name ends, however it was joined. With one, only
        the one that announces it; 0 is the one that only looks up.
        """
        self._check_open()
        raw = name_bytes(name)
        leaving = [
            member
            for (at, key), member in self._members.items()
            if at == raw and port in (None, key)
        ]
        for member in leaving:
            self._leave_member(member)
        return bool(leaving)

    def list(self) -> list[tuple[bytes, int]]:
        """The memberships: name and announced port, 0 for those that only look up."""
        self._check_open()
        return list(self._members)

    # Sources

    @property
    def sources(self) -> dict[str, bool]:
        """Every source by name: whether it is switched on."""
        return {name: entry.on for name, entry in self._entries.items()}

    def set_source(self, name: str, on: bool) -> None:
        """Switch one source on or off, now and for later joins; names stay joined.

        Switched on, it starts rounds for every joined name. Switched off, it withdraws what it
        announced and is closed. Raises `UsageError` for a source that there is not.
        """
        self._check_open()
        entry = self._entries.get(name)
        if entry is None:
            raise UsageError(f"no source {name!r}, there are: {', '.join(self._entries) or 'none'}")
        if entry.on == on:
            return
        entry.on = on
        if on:
            for member in self._members.values():
                self._start(entry, member)
        else:
            for member in tuple(entry.seeking):
                self._stop(entry, member)
                member._dropped(name)
            self._shut(entry)

    # What was found

    def subscribe(self, callback: Callable[[PeerFound], object]) -> Callable[[], None]:
        """Call `callback` synchronously with each peer found; returns what stops it."""
        self._check_open()
        return self._events.subscribe(callback)

    def listen(self) -> Subscription[PeerFound]:
        """Peers found from now on, bounded by `limits.event_backlog`."""
        self._check_open()
        return self._events.listen()

    async def close(self) -> None:
        """Leave every name and close every source. May be called again."""
        await self._closing.run(self._close, "covey discovery close")

    async def _close(self) -> None:
        for member in tuple(self._members.values()):
            self._leave_member(member)
        for entry in self._entries.values():
            self._shut(entry)
        closing = [entry.closing for entry in self._entries.values() if entry.closing]
        await asyncio.gather(*closing)
        await self._shutting.end()
        self._events.close()

    def _check_open(self) -> None:
        if self._closing.begun:
            raise ClosedError("the discovery channel is closed")

    # Rounds

    def _start(self, entry: _Entry, member: Membership) -> None:
        name = f"covey discovery {entry.source.name} {member.name!r}"
        entry.seeking[member] = entry.rounds.spawn(self._seek(entry, member), name)

    async def _seek(self, entry: _Entry, member: Membership) -> None:
        """The rounds of one source for one membership, until cancelled.

        Nobody waits for a round that will not come: what ends them else settles the membership.
        """
        name = entry.source.name
        ended: Exception = DiscoveryError(f"the source {name} has no more rounds")
        try:
            for pause in entry.source.timing.pauses(self._random):
                member._settled(name, await self._round(entry, member.wanted))
                await self._sleep(pause)
        except Exception as error:  # the edge of the task: the timing is the caller's code
            logger.exception("the rounds of source %s ended", name)
            ended = error
        member._settled(name, ended)

    async def _round(self, entry: _Entry, wanted: Wanted) -> Exception | None:
        """One round, the source opened first if need be; what went wrong, or None."""
        try:
            await self._ready(entry)
            await entry.source.round(wanted)
        except (CoveyError, OSError) as error:
            logger.info("source %s: %s", entry.source.name, error)
            return error
        except Exception as error:  # the edge of the task: a source is the caller's code
            logger.exception("source %s failed", entry.source.name)
            return error
        return None

    async def _ready(self, entry: _Entry) -> None:
        while (closing := entry.closing) is not None and not closing.done():
            await asyncio.shield(closing)
        async with entry.lock:
            if not entry.opened:
                await entry.source.open(self._reporter(entry.source.name))
                entry.opened = True

    def _stop(self, entry: _Entry, member: Membership) -> None:
        """End the rounds of one membership."""
        task = entry.seeking.pop(member, None)
        if task is None:
            return
        task.cancel()
        try:
            entry.source.leave(member.wanted)
        except Exception:  # a source is the caller's code
            logger.exception("source %s failed to leave", entry.source.name)

    def _leave_member(self, member: Membership) -> None:
        key = (member.name, member.port or 0)
        if self._members.get(key) is not member:
            return
        del self._members[key]
        for entry in self._entries.values():
            self._stop(entry, member)
        if not any(other.hash == member.hash for other in self._members.values()):
            self._told.pop(member.hash, None)
        member._ended()

    def _shut(self, entry: _Entry) -> None:
        """Close a source when the tasks that use it have ended."""
        rounds, entry.rounds = entry.rounds, OwnedTasks(logger)  # later rounds wait for this
        entry.closing = self._shutting.spawn(
            self._shut_source(entry, rounds, entry.closing),
            f"covey discovery close {entry.source.name}",
        )

    async def _shut_source(
        self, entry: _Entry, rounds: OwnedTasks, earlier: asyncio.Task[None] | None
    ) -> None:
        if earlier is not None:
            await earlier
        await rounds.end()
        async with entry.lock:
            if entry.opened:
                entry.opened = False
                try:
                    await entry.source.close()
                except Exception:  # the edge of the task: a source is the caller's code
                    logger.exception("source %s failed to close", entry.source.name)

    # Results

    def _reporter(self, source: str) -> Callable[[bytes, str, int], None]:
        def report(hashed: bytes, host: str, port: int) -> None:
            self._report(source, hashed, host, port)

        return report

    def _report(self, source: str, hashed: bytes, host: str, port: int) -> None:
        names = {member.name: None for member in self._members.values() if member.hash == hashed}
        if not names or not self._entries[source].on or not self._is_news(hashed, (host, port)):
            return
        for name in names:
            self._events.publish(PeerFound(name, hashed, host, port, source))

    def _is_news(self, hashed: bytes, peer: HostPort) -> bool:
        """Whether the peer was not told lately; remembers it, of each hash a bounded number."""
        told = self._told.setdefault(hashed, OrderedDict())
        now = self._clock()
        last = told.get(peer)
        if last is not None and now - last < self._repeat_after:
            return False
        told[peer] = now
        told.move_to_end(peer)
        if len(told) > self._limits.max_candidates:
            told.popitem(last=False)
        return True
