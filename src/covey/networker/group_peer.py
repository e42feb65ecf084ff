"""One peer of a group: what it is told, what it asks, and what both may cost.

What a lookup means and what follows is in `reconcile`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from covey.errors import ClosedError
from covey.limits import Limits
from covey.networker.head_table import EMPTY, ROOT, HeadTable, KeyRange, digest_of
from covey.networker.reconcile import (
    ANEW,
    ANSWER,
    FEW,
    FINAL,
    MOST_TOGETHER,
    Probe,
    Step,
    coarser,
    judge,
    leaf_of,
    read_probe,
    reply_to,
)
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
MOST_STEPS: Final = 4096
"""Lookups that wait for a peer that is slow; the ranges of more of them are asked for later."""
MOST_TOLD: Final = 2 * MOST_TOGETHER
"""Announced lengths that are kept until the digest of their range comes."""
MOST_OWED: Final = 2048
"""Ranges that are remembered to be asked for later; beyond, larger ones that they are in."""
OWED_PAUSE: Final = 5.0
"""Seconds until a peer is asked anew for what was left out between us."""
FRESH: Final = 64
"""Logs that came later and are asked for one by one; for more of them everything is compared."""


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
        self._heard = Budget(self._heard_burst, now)
        self._roots = RootLookups()
        self._all_told_at: float | None = None
        self._told: dict[bytes, int] = {}
        self._keys: dict[bytes, None] = {}
        self._steps: dict[Step, None] = {}
        self._left_out: dict[KeyRange, None] = {}
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
        """Ask for everything that differs, at the meeting; not where no answer is of use."""
        if self._of_use:
            self._roots.sent(self._table.revision)
            self._step(Step(ROOT))
            self.flush()

    def ask_anew(self, keys: Sequence[bytes] | None = None) -> None:
        """Ask later than at the meeting: for these logs, telling what is here, or for all."""
        if not self._of_use:
            return
        if keys is None or len(keys) > FRESH:
            self._keys.update(dict.fromkeys(keys or ()))
            self._step(Step(ROOT, ANEW))
        else:
            for key in keys:
                self._step(Step(leaf_of(key), ANSWER))
        self.flush()

    def tell(self, keys: Iterable[bytes], forked: Iterable[bytes]) -> None:
        """Announce heads that changed; those whose fork did are followed by their digest.

        Of a log that was cut to nothing nothing is announced: the other side's is asked for.
        """
        self._keys.update(dict.fromkeys(keys))
        for key in forked:
            if self._keys.pop(key, key) is None:
                length = (self._table.get(key) or EMPTY).length
                self._step(Step(leaf_of(key), FINAL if length else ANSWER))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the peer takes it; the rest when it does."""
        if self._drain is not None or self._closed:
            return
        for some in batches([*self._keys], self._most_entries):
            if not self._drained:
                break
            self._announce(some)
        if not self._keys:
            self._send_steps()
        if self._keys or self._steps:
            self._drain = self._options.tasks.spawn(self._drain_and_flush(), "covey wakeup drain")

    def _announce(self, keys: Sequence[bytes]) -> None:
        heads = []
        for key in keys:
            del self._keys[key]
            head = self._table.get(key)
            if head is not None and head.length:
                heads.append(WriterHead(key, head.length))
        if heads:
            self._session.announce(self.peer, heads)

    def _send_steps(self) -> None:
        for number, step in enumerate([*self._steps]):
            if (step.tells or number % 256 == 255) and not self._drained:
                return
            del self._steps[step]
            self._send(step)

    def _send(self, step: Step) -> None:
        """What is told of a range and the digest of it are of the same moment."""
        if not step.tells:
            summary = self._table.summary(step.where)
        else:
            items = self._table.items(step.where)
            summary = digest_of(items)
            heads = [WriterHead(key, head.length) for key, head in items]
            for some in batches(heads, self._most_entries):
                self._session.announce(self.peer, some)
        self._session.lookup(self.peer, Probe(step.where, summary, step.flags).encode())

    @property
    def _of_use(self) -> bool:
        return may_ask(len(self._table), accepts=self._options.accepts)

    @property
    def _most_entries(self) -> int:
        """Heads in one announce: no more than is taken here, as others will not take more."""
        return max(1, min(MOST_ENTRIES, self._options.limits.wakeup_announced))

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

    def _step(self, step: Step) -> None:
        if len(self._steps) < MOST_STEPS:
            self._steps[step] = None
        else:
            self.owe(step.where)

    # What it tells and asks

    def may_tell(self, count: int) -> bool:
        """Whether it may tell so many heads now; otherwise it is asked for everything later."""
        burst = self._heard_burst
        if self._heard.spend(count, self._loop.time(), rate=burst / FULL_PAUSE, burst=burst):
            return True
        self.owe(ROOT)
        return False

    def announced(self, heads: Sequence[WriterHead]) -> None:
        """It told heads: the lengths of the last ones are kept for the digest that may follow."""
        for key, length in heads[-MOST_TOLD:]:
            self._told.pop(key, None)
            self._told[key] = length
        for key in [*islice(self._told, max(0, len(self._told) - MOST_TOLD))]:
            del self._told[key]

    def looked_up(self, given: bytes | None) -> None:
        """It asks: answer what its lookup means."""
        if not self._of_use:
            return  # nothing to tell, and nothing to learn
        probe = read_probe(given)
        now = self._loop.time()
        rate, burst = self._options.limits.lookups_per_second, self._lookup_burst
        cost = max(1.0, min(burst, self._cost(probe)))
        if not self._lookups.spend(cost, now, rate=rate, burst=burst):
            if probe is not None:
                self.owe(probe.where)
            return
        if probe is None:
            self._tell_all(now)
            return
        if probe.judges:
            self._judge(probe)
        if probe.is_root and self.peer.stream.initiator:
            self._answer_root(probe)
        else:
            self._answer(probe, now)
        self.flush()

    def _answer(self, probe: Probe, now: float) -> None:
        burst = self._entry_burst
        for step in reply_to(probe, self._table):
            count = self._table.count(step.where) if step.tells else 0
            if self._entries.spend(count, now, rate=burst / FULL_PAUSE, burst=burst):
                self._step(step)
            else:
                self.owe(step.where)

    def _cost(self, probe: Probe | None) -> float:
        if probe is None:
            return lookup_cost(0)
        return lookup_cost(
            self._table.count(probe.where) + (len(self._told) if probe.judges else 0)
        )

    def _answer_root(self, probe: Probe) -> None:
        revision = self._table.revision
        if probe.summary != self._table.summary() and self._roots.heard(revision):
            self._roots.sent(revision)
            self._step(Step(ROOT))

    def _judge(self, probe: Probe) -> None:
        found = judge(probe, self._told, self._table)
        if found.wake:
            self._options.suspect(self.peer, [(key, self._told[key]) for key in found.wake])
        for key in [key for key in self._told if key in probe.where]:
            del self._told[key]
        for step in found.steps:
            self._step(step)

    def _tell_all(self, now: float) -> None:
        """A lookup whose meaning is not ours: all heads, and then what changes, for a while."""
        if self._all_told_at is None or now - self._all_told_at >= FULL_PAUSE:
            self._all_told_at = now
            self._keys.update(dict.fromkeys([key for key, _ in self._table.items()]))
            self.flush()

    def owe(self, where: KeyRange) -> None:
        """A range was left out: ask for it later, when it may cost something again."""
        if self._closed:
            return
        self._left_out[where] = None
        if len(self._left_out) > MOST_OWED:
            self._left_out = dict.fromkeys(coarser(self._left_out, MOST_OWED // 2))
        if self._owed is None:
            self._owed = self._loop.call_later(OWED_PAUSE, self._pay)

    def _pay(self) -> None:
        """Ask for as many of the ranges as cost half of what may be answered in the meantime."""
        self._owed = None
        room = OWED_PAUSE * self._options.limits.lookups_per_second / 2
        while self._left_out and room >= 0:
            where = next(iter(self._left_out))
            del self._left_out[where]
            count = self._table.count(where)
            room -= 1 + lookup_cost(count) + (0 if count <= FEW else 16)
            if self._of_use:
                self._step(Step(where, ANEW))
        self.flush()
        if self._left_out and self._owed is None:
            self._owed = self._loop.call_later(OWED_PAUSE, self._pay)

    @property
    def _lookup_burst(self) -> float:
        return SAVED_UP * self._options.limits.lookups_per_second

    @property
    def _heard_burst(self) -> float:
        limits = self._options.limits
        return len(self._table) + limits.accepted_logs + limits.wakeup_announced

    @property
    def _entry_burst(self) -> float:
        return len(self._table) + MOST_ENTRIES
