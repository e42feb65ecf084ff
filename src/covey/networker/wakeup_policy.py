"""What a group does with hints, as plain objects and functions: whom to tell, what to open. Pure.

`now` is monotonic seconds everywhere. A source is whoever gave a hint: one peer.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from covey.networker.head_table import EMPTY, Head

T = TypeVar("T")

MOST_ENTRIES: Final = 4096
"""Heads in one announce: 140 KB."""
FULL_PAUSE: Final = 30.0
"""Seconds in which one peer may ask for all heads of the group once."""
PATIENCE: Final = 30.0
"""Seconds without anything new after which a log that was hinted at is given up."""
IMPATIENCE: Final = 3.0
"""The same while others wait for their turn."""
MOST_TRIES: Final = 3
"""Turns of a log that others wait for; it is given up after the last one."""
LONGEST_REST: Final = 60.0
"""Seconds at most that a peer whose hints led nowhere waits before the next one is followed."""
MOST_SOURCES: Final = 8
"""Peers that are remembered as having hinted at one log."""
ITEMS_PER_UNIT: Final = 256
"""Heads that are hashed for what one lookup costs otherwise."""
HERE: Final = "here"
"""The source of what is opened without a hint, since blocks of it are lacking; no failure of its
makes it rest, `Lacks` does."""


# Whom to tell


def is_news(head: Head | None, length: int) -> bool:
    """Whether somebody who has `length` blocks of a log has more than is here."""
    return length > (head or EMPTY).length


def may_ask(members: int, *, accepts: bool) -> bool:
    """Whether a new peer is asked at all: not when nothing that it tells would be of use."""
    return members > 0 or accepts


def batches(items: Sequence[T], most: int = MOST_ENTRIES) -> Iterator[Sequence[T]]:
    """`items` in announces of at most `most`; none for none."""
    for start in range(0, len(items), most):
        yield items[start : start + most]


def lookup_cost(items: int) -> float:
    """What it costs to compare a range of so many logs."""
    return 1 + items / ITEMS_PER_UNIT


class Budget:
    """What one peer may cost: `rate` a second, `burst` saved up; full at the start."""

    __slots__ = ("_at", "_saved")

    def __init__(self, burst: float, now: float) -> None:
        self._saved = burst
        self._at = now

    def spend(self, cost: float, now: float, *, rate: float, burst: float) -> bool:
        """Whether it may cost so much now; a refusal costs nothing."""
        self._saved = min(burst, self._saved + (now - self._at) * rate)
        self._at = now
        if cost > self._saved:
            return False
        self._saved -= cost
        return True


class RootLookups:
    """Which side's lookup of everything is answered: the initiator's, so that one is enough.

    The initiator takes the other's for one that its own has answered, once, while its heads are
    what they were; otherwise it asks again.
    """

    __slots__ = ("_asked", "_covers")

    def __init__(self) -> None:
        self._asked: int | None = None
        self._covers = False

    def sent(self, revision: int) -> None:
        """Ours was sent, at this revision of the heads."""
        self._asked = revision
        self._covers = True

    def heard(self, revision: int) -> bool:
        """The other's came, with another digest: whether ours is to be sent again."""
        covered = self._covers and self._asked == revision
        self._covers = False
        return not covered


# What to open


class Fate(StrEnum):
    """Why a log that a hint opened is closed."""

    IDLE = "idle"
    """It is caught up, and nothing happened for a while, or others wait."""
    GIVEN_UP = "given-up"
    """What was hinted at did not come."""
    POSTPONED = "postponed"
    """It did not come yet, and others wait: it waits again, behind them."""


@dataclass(slots=True, eq=False)
class Wake:
    """One log that a hint is about, waiting or open."""

    key: bytes
    forked: bool = False
    """Whether histories differ: then the number of blocks says nothing."""
    sources: dict[Hashable, int] = field(default_factory=dict)
    """Who hinted at it and is still here, and at how many blocks."""
    dropped: bool = False
    """Whether more hinted at it than are remembered."""
    line: Hashable = None
    """Whose turn it takes."""
    moved_at: float = 0.0
    """When anything happened to it last."""
    caught_up: bool = False
    tries: int = 0
    """How many turns it had."""
    closing: bool = False
    """It is being closed, and its place is not free yet."""
    again: bool = False
    """A hint came while it was being closed."""

    def knows(self, source: Hashable, length: int) -> bool:
        """Whether `source` need not be told that the log has so many blocks here: it said so."""
        return not self.forked and self.sources.get(source, -1) >= length

    @property
    def goal(self) -> int:
        """The most blocks that somebody has, as they say."""
        return max(self.sources.values(), default=0)

    def heard(self, goal: int, source: Hashable, *, forked: bool) -> bool:
        """One more hint; whether it tells more than those before."""
        more = goal > self.goal or (forked and not self.forked)
        self.forked = self.forked or forked
        if source not in self.sources and len(self.sources) >= MOST_SOURCES:
            self.dropped = True
            others = [one for one in self.sources if one != self.line]
            lowest = min(others, key=self.sources.__getitem__)
            if self.sources[lowest] >= goal:
                return more
            del self.sources[lowest]
        self.sources[source] = max(goal, self.sources.get(source, 0))
        return more


class Lacks:
    """The logs whose blocks are not all here, and when those are looked for: in rounds.

    A round comes with each new peer, and otherwise again and again while there are peers: soon
    where the one before brought something, else after a pause that doubles up to `LONGEST_REST`.
    """

    __slots__ = ("_due", "_rounds", "keys")

    def __init__(self) -> None:
        self.keys: dict[bytes, None] = {}
        self._rounds = 0
        self._due = 0.0

    def met(self, now: float) -> None:
        """There is another peer."""
        self._rounds = 0
        self._due = now

    def note(self, key: bytes, *, lacking: bool) -> None:
        """Whether blocks of a log are lacking."""
        if lacking:
            self.keys[key] = None
        else:
            self.keys.pop(key, None)

    def due(self) -> float | None:
        """When the next round is; None while nothing is lacking."""
        return self._due if self.keys else None

    def round(self, now: float, busy: Container[bytes]) -> list[bytes]:
        """Begin a round where one is due: what to look for, beside those that are looked for."""
        if not self.keys or now < self._due:
            return []
        self._due = now + 1.0
        found = [key for key in self.keys if key not in busy]
        if found:
            self._rounds = min(self._rounds + 1, 30)
        return found

    def closed(self, key: bytes, now: float, *, gained: bool) -> None:
        """A log is closed again; `gained`: something came, so that the next pause is short."""
        if gained:
            self._rounds = 0
        elif key in self.keys:
            pause = min(2.0 ** max(self._rounds - 1, 0), LONGEST_REST)
            self._due = max(self._due, now + pause)


def ends_at(wake: Wake, *, linger: float, crowded: bool) -> float:
    """When an open log is to be closed if nothing happens; `crowded`: others wait for its place."""
    if wake.caught_up:
        return wake.moved_at if crowded else wake.moved_at + linger
    return wake.moved_at + (IMPATIENCE if crowded else PATIENCE)


def fate_of(wake: Wake, now: float, *, linger: float, crowded: bool) -> Fate | None:
    """Whether an open log is closed now, and why."""
    if ends_at(wake, linger=linger, crowded=crowded) > now:
        return None
    if wake.caught_up:
        return Fate.IDLE
    late = now - wake.moved_at >= PATIENCE or wake.tries >= MOST_TRIES
    return Fate.GIVEN_UP if late else Fate.POSTPONED


@dataclass(slots=True)
class _Line:
    """The hints of one source that wait, and how it did so far."""

    keys: dict[bytes, None] = field(default_factory=dict)
    open: int = 0
    failures: int = 0
    rests_until: float = 0.0


class WakeQueue:
    """Which logs are open because of hints, and which wait: `most` at once.

    A log is there once, however many hints there are, with the newest of each. Sources take turns:
    first those whose hints led nowhere least often, then those with the fewest logs open; one that
    failed rests, longer each time.
    """

    def __init__(self, most: int) -> None:
        self.most = max(1, most)
        self.waiting: dict[bytes, Wake] = {}
        self.open: dict[bytes, Wake] = {}
        self._lines: dict[Hashable, _Line] = {}

    def __contains__(self, key: object) -> bool:
        return key in self.open or key in self.waiting

    @property
    def crowded(self) -> bool:
        """Whether somebody waits for the place of one that is open."""
        return bool(self.waiting) and len(self.open) >= self.most

    def hint(
        self, key: bytes, goal: int, source: Hashable, now: float, *, forked: bool = False
    ) -> Wake | None:
        """A hint that is news; gives the log when it is open already and this says more."""
        wake = self.open.get(key)
        if wake is not None:
            more = wake.heard(goal, source, forked=forked)
            wake.again = wake.closing
            if more:
                wake.moved_at = now
            return wake if more else None
        wake = self.waiting.get(key)
        if wake is None:
            wake = self.waiting[key] = Wake(key, line=source)
            self._lines.setdefault(source, _Line()).keys[key] = None
        wake.heard(goal, source, forked=forked)
        return None

    def next(self, now: float) -> Wake | None:
        """The log to open now; None when there is none, or no place."""
        if not self.waiting or len(self.open) >= self.most:
            return None
        ready = [
            (line.failures, line.open, number, source)
            for number, (source, line) in enumerate(self._lines.items())
            if line.keys and line.rests_until <= now
        ]
        if not ready:
            return None
        *_, source = min(ready, key=lambda one: one[:3])
        line = self._lines.pop(source)
        self._lines[source] = line  # to the end of its equals
        key = next(iter(line.keys))
        del line.keys[key]
        line.open += 1
        wake = self.open[key] = self.waiting.pop(key)
        wake.moved_at = now
        wake.tries += 1
        return wake

    def rests_until(self) -> float | None:
        """When the first of those who rest may go on; None when nobody rests for that alone."""
        times = [line.rests_until for line in self._lines.values() if line.keys]
        return min(times, default=None)

    def closed(
        self,
        wake: Wake,
        now: float,
        *,
        failed: bool | None,
        unmet: Collection[Hashable] = (),
    ) -> None:
        """A log that was open is not any more; `failed`: its hints led nowhere. None: who knows.

        `unmet`: those whose hints did so in any case. Where the others' did not, theirs have
        another turn.
        """
        if not self._vacate(wake):
            return
        if failed is not None:
            for source in wake.sources:
                told = self._lines.get(source)
                if told is not None and source != HERE:
                    self._judge(told, now, failed=failed or source in unmet)
        if wake.again:
            self._wait_again(wake)
        elif unmet and failed is False and wake.tries < MOST_TRIES:
            wake.sources = {source: wake.sources[source] for source in unmet}
            self._wait_again(wake)

    def _judge(self, line: _Line, now: float, *, failed: bool) -> None:
        if not failed:
            line.failures = 0
            line.rests_until = 0.0
            return
        line.failures = min(line.failures + 1, 30)
        line.rests_until = now + min(2.0 ** (line.failures - 1), LONGEST_REST)

    def postpone(self, wake: Wake) -> None:
        """What is open waits again, behind all others of its source; forgotten without sources."""
        if self._vacate(wake):
            self._wait_again(wake)

    def _vacate(self, wake: Wake) -> bool:
        if self.open.get(wake.key) is not wake:
            return False
        del self.open[wake.key]
        if (line := self._lines.get(wake.line)) is not None:
            line.open -= 1
        return True

    def _wait_again(self, wake: Wake) -> None:
        wake.closing = wake.again = wake.caught_up = False
        if wake.sources:
            wake.line = next(iter(wake.sources))
            self.waiting[wake.key] = wake
            self._lines.setdefault(wake.line, _Line()).keys[wake.key] = None

    def withdraw(self, key: bytes) -> Wake | None:
        """Nobody wants this log any more: what waits is forgotten, what is open is given back."""
        wake = self.waiting.pop(key, None)
        if wake is not None:
            self._lines[wake.line].keys.pop(key, None)
            return None
        return self.open.get(key)

    def gone(self, source: Hashable) -> bool:
        """A source left: its hints that wait are others' or forgotten.

        Whether others' may have been lost with them, which were too many to be remembered.
        """
        line = self._lines.pop(source, None)
        lost = False
        for wake in (*self.waiting.values(), *self.open.values()):
            if wake.sources.pop(source, None) is not None and not wake.sources:
                lost = lost or wake.dropped
        for key in () if line is None else tuple(line.keys):
            wake = self.waiting[key]
            if not wake.sources:
                del self.waiting[key]
                continue
            wake.line = next(iter(wake.sources))
            self._lines.setdefault(wake.line, _Line()).keys[key] = None
        return lost

    def due(self, now: float, *, linger: float) -> list[tuple[Wake, Fate]]:
        """What is to be closed now, those that did nothing for longest first.

        Where others wait only as many of those that are caught up as there are others.
        """
        found: list[tuple[Wake, Fate]] = []
        closing = len(self.open) - len(self._lively())
        for wake in sorted(self._lively(), key=lambda wake: wake.moved_at):
            crowded = self.crowded and closing + len(found) < len(self.waiting)
            fate = fate_of(wake, now, linger=linger, crowded=crowded)
            if fate is not None:
                found.append((wake, fate))
        return found

    def next_due(self, *, linger: float) -> float | None:
        """When `due` or `next` has something to say; None: not before something happens."""
        crowded = self.crowded and len(self.open) - len(self._lively()) < len(self.waiting)
        times = [ends_at(one, linger=linger, crowded=crowded) for one in self._lively()]
        if len(self.open) < self.most and (rest := self.rests_until()) is not None:
            times.append(rest)
        return min(times, default=None)

    def _lively(self) -> list[Wake]:
        return [wake for wake in self.open.values() if not wake.closing]
