"""One peer of a group: what it is told, what it asks, and what both may cost.

What a lookup means and what follows is in `reconcile`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from covey.errors import ClosedError
from covey.limits import Limits
from covey.networker.head_table import ROOT, HeadTable, KeyRange
from covey.networker.reconcile import Probe, judge, leaf_of, read_probe, reply_to
from covey.networker.wakeup_policy import (
    FULL_PAUSE,
    MOST_ENTRIES,
    Budget,
    RootLookups,
    batches,
    lookup_cost,
    may_ask,
)
from covey.owned_tasks import OwnedTasks
from covey.wakeup import WriterHead

if TYPE_CHECKING:
    from covey.net.mux import Channel
    from covey.wakeup import WakeupPeer, WakeupSession

logger = logging.getLogger("covey.networker")

SAVED_UP: Final = 16
"""Seconds' worth of lookups that a peer may ask at once."""
MOST_PROBES: Final = 4096
"""Lookups that wait for a peer that is slow; with more of them it is asked anew later."""
MOST_TOLD: Final = 1024
"""Announced lengths that are kept until the digest of their range comes."""
OWED_PAUSE: Final = 5.0
"""Seconds until a peer is asked anew, where something between us was left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupPeerOptions:
    """What the peers of one group share."""

    table: HeadTable
    accepts: bool
    """Whether logs that are not in the group are of use."""
    limits: Limits
    tasks: OwnedTasks
    suspect: Callable[[WakeupPeer, Sequence[tuple[bytes, int]]], object]
    """Gets logs whose history may be another one at this peer, with its lengths of them."""


class GroupPeer:
    """The exchange of heads with one paired peer. `close` when it is gone."""

    def __init__(self, peer: WakeupPeer, session: WakeupSession, options: GroupPeerOptions) -> None:
        self.peer = peer
        self._session = session
        self._options = options
        self._table = options.table
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        self._lookups = Budget(self._lookup_burst, now)
        self._entries = Budget(self._entry_burst, now)
        self._roots = RootLookups()
        self._all_told_at: float | None = None
        self._told: dict[bytes, int] = {}
        self._keys: dict[bytes, None] = {}
        self._probes: list[Probe] = []
        self._drain: asyncio.Task[None] | None = None
        self._owed: asyncio.TimerHandle | None = None
        self._closed = False

    def close(self) -> None:
        """Tell and ask no more. Twice is fine."""
        self._closed = True
        if self._drain is not None:
            self._drain.cancel()
        if self._owed is not None:
            self._owed.cancel()

    # What we tell and ask

    def ask(self) -> None:
        """Ask for everything that differs; nothing where no answer is of use."""
        if not may_ask(len(self._table), accepts=self._options.accepts):
            return
        self._roots.sent(self._table.revision)
        self._probes.append(Probe(ROOT, self._table.summary()))
        self.flush()

    def tell(self, keys: Iterable[bytes], forked: Iterable[bytes]) -> None:
        """Announce heads that changed; those whose fork did are followed by their digest."""
        self._keys.update(dict.fromkeys(keys))
        for key in forked:
            if key in self._keys:
                self._probe(leaf_of(key, self._table))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it; the rest when it does."""
        if self._drain is not None or self._closed:
            return
        for some in batches([*self._keys]):
            if not self._drained:
                break
            self._announce(some)
        if not self._keys:
            self._send_probes()
        if self._keys or self._probes:
            self._drain = self._options.tasks.spawn(self._drain_and_flush(), "covey wakeup drain")

    def _announce(self, keys: Sequence[bytes]) -> None:
        heads = []
        for key in keys:
            del self._keys[key]
            head = self._table.get(key)
            if head is not None:
                heads.append(WriterHead(key, head.length))
        if heads:
            self._session.announce(self.peer, heads)

    def _send_probes(self) -> None:
        for number, probe in enumerate(self._probes):
            if number % 256 == 255 and not self._drained:
                del self._probes[:number]
                return
            self._session.lookup(self.peer, probe.encode())
        self._probes.clear()

    def channel_of(self) -> Channel | None:
        """The channel to the peer; its backlog decides what waits here."""
        channel: Channel | None = self.peer.channel
        return channel

    @property
    def _drained(self) -> bool:
        channel = self.channel_of()
        return channel is None or channel.closed or channel.drained

    async def _drain_and_flush(self) -> None:
        try:
            channel = self.channel_of()
            if channel is not None:
                await channel.drain()
        except ClosedError:
            return
        self._drain = None
        self.flush()

    def _probe(self, probe: Probe) -> None:
        if len(self._probes) < MOST_PROBES:
            self._probes.append(probe)
        else:
            self._owe()

    # What it tells and asks

    def announced(self, heads: Sequence[WriterHead]) -> None:
        """It told heads: their lengths are kept for the digest that may follow."""
        if len(heads) + len(self._told) > MOST_TOLD:
            self._told.clear()
        if len(heads) <= MOST_TOLD:
            self._told.update((head.key, head.length) for head in heads)

    def looked_up(self, given: bytes | None) -> None:
        """It asks: answer what its lookup means."""
        if not may_ask(len(self._table), accepts=self._options.accepts):
            return  # nothing to tell, and nothing to learn
        probe = read_probe(given)
        now = self._loop.time()
        rate, burst = self._options.limits.lookups_per_second, self._lookup_burst
        cost = max(1.0, min(burst, self._cost(probe)))
        if not self._lookups.spend(cost, now, rate=rate, burst=burst):
            if probe is not None:
                self._owe()
            return
        if probe is None:
            self._tell_all(now)
            return
        if probe.flags:
            self._judge(probe)
        if probe.is_root and self.peer.stream.initiator:
            self._answer_root(probe)
            return
        reply = reply_to(probe, self._table)
        if reply.announce is not None and not self._tell_range(reply.announce, now):
            return
        for one in reply.probes:
            self._probe(one)
        self.flush()

    def _cost(self, probe: Probe | None) -> float:
        if probe is None:
            return lookup_cost(0)
        return lookup_cost(self._table.count(probe.where) + (len(self._told) if probe.flags else 0))

    def _answer_root(self, probe: Probe) -> None:
        revision = self._table.revision
        if probe.summary != self._table.summary() and self._roots.heard(revision):
            self._roots.sent(revision)
            self._probe(Probe(ROOT, self._table.summary()))
            self.flush()

    def _judge(self, probe: Probe) -> None:
        found = judge(probe, self._told, self._table)
        if found.wake:
            self._options.suspect(self.peer, [(key, self._told[key]) for key in found.wake])
        for key in [key for key in self._told if key in probe.where]:
            del self._told[key]
        for one in found.probes:
            self._probe(one)

    def _tell_range(self, where: KeyRange, now: float) -> bool:
        """Announce a range, unless it had the whole group told too often already."""
        keys = [key for key, _ in self._table.items(where)]
        burst = self._entry_burst
        if not self._entries.spend(len(keys), now, rate=burst / FULL_PAUSE, burst=burst):
            self._owe()
            return False
        self._keys.update(dict.fromkeys(keys))
        return True

    def _tell_all(self, now: float) -> None:
        """A lookup whose meaning is not ours: all heads, and then what changes, for a while."""
        if self._all_told_at is None or now - self._all_told_at >= FULL_PAUSE:
            self._all_told_at = now
            self._keys.update(dict.fromkeys([key for key, _ in self._table.items()]))
            self.flush()

    def _owe(self) -> None:
        """Something was left out: ask again from the beginning, when it may cost something."""
        if self._owed is None and not self._closed:
            self._owed = self._loop.call_later(OWED_PAUSE, self._pay)

    def _pay(self) -> None:
        self._owed = None
        self.ask()

    @property
    def _lookup_burst(self) -> float:
        return SAVED_UP * self._options.limits.lookups_per_second

    @property
    def _entry_burst(self) -> float:
        return len(self._table) + MOST_ENTRIES
