"""Opens the logs that hints are about, follows them to their heads, and closes them again.

What is opened when, and for how long, is decided in `wakeup_policy`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias

from covey.errors import ClosedError, CoveyError, FeedTimeout
from covey.networker import wakeup_policy
from covey.networker.group_events import (
    CaughtUp,
    GivenUp,
    GroupEvent,
    GroupFailed,
    IdleClosed,
    Woken,
)
from covey.networker.head_table import Head
from covey.networker.wakeup_policy import (
    HERE,
    MOST_TRIES,
    Fate,
    Lacks,
    Wake,
    WakeQueue,
    is_news,
)
from covey.owned_tasks import OwnedTasks
from covey.store.feed_events import FeedEvent, StoredHead

if TYPE_CHECKING:
    from covey.store.feed import Feed
    from covey.wakeup import WakeupPeer

logger = logging.getLogger("covey.networker")

Reason: TypeAlias = Literal["late", "not-so", "removed"]
ASK_AGAIN: Final = 1.0
"""Seconds after which those who hinted are asked again, where the answer is open."""
_NEWS = frozenset({"append", "truncate", "peer-add", "peer-remove"})
_GAINS = frozenset({"append", "truncate", "download"})
_USES = _GAINS | {"upload"}


class FeedSource(Protocol):
    """What a waker needs of the store: a `Basestore`."""

    async def get(self, *, key: bytes, linger: bool) -> Feed:
        """A session of the log with this key."""

    async def heads(self, keys: Iterable[bytes]) -> dict[bytes, StoredHead]:
        """Where logs stand, without opening any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WakerOptions:
    """What a `Waker` works with. `linger`: seconds that a caught-up log stays open."""

    store: FeedSource
    most: int
    linger: float
    download: bool
    publish: Callable[[GroupEvent], object]
    head: Callable[[bytes], Head | None]
    """The head of a log here, without opening it."""


class _Running:
    """One log that is open: its task, its feed once there is one, and what stirs it."""

    __slots__ = ("fate", "feed", "gained", "news", "reason", "task", "unmet")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.feed: Feed | None = None
        self.news = asyncio.Event()
        self.fate: Fate | None = None
        self.reason: Reason = "late"
        self.gained = False
        """Whether anything came that was not here."""
        self.unmet: list[Hashable] = []
        """Those whose hints did not lead to anything yet."""


class _NotSoError(CoveyError):
    """None of those who hinted has what they hinted at."""


class Waker:
    """The logs of one group that hints opened. `end` closes them all."""

    def __init__(self, options: WakerOptions) -> None:
        self._options = options
        self._publish = options.publish
        self.queue = WakeQueue(options.most)
        self._lacking = Lacks()
        self._peers: set[WakeupPeer] = set()
        self._tasks = OwnedTasks(logger)
        self._running: dict[Wake, _Running] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._ended = False

    @property
    def woken(self) -> frozenset[bytes]:
        """The logs that are open because of hints."""
        return frozenset(self.queue.open)

    def hint(self, key: bytes, length: int, peer: WakeupPeer, *, forked: bool = False) -> None:
        """`peer` has more of a log, or another history: opened soon, if it can be."""
        self.queue.hint(key, length, peer, self._loop.time(), forked=forked)
        wake = self.queue.open.get(key)
        if wake is not None and (running := self._running.get(wake)) is not None:
            running.news.set()
        self._pump_soon()

    def note(self, key: bytes, *, lacking: bool) -> None:
        """Whether blocks of a log of the group are not here: they are wanted, where any are."""
        if self._options.download and lacking is not (key in self._lacking.keys):
            self._lacking.note(key, lacking=lacking)
            self._pump_soon()

    def met(self, peer: WakeupPeer) -> None:
        """There is another peer: it may have the blocks that are lacking."""
        self._peers.add(peer)
        self._lacking.met(self._loop.time())
        self._pump_soon()

    def _pump_soon(self) -> None:
        if self._soon is None:  # once for all that arrives together
            self._soon = self._loop.call_soon(self.pump)

    def pump(self) -> None:
        """Open what may be opened now, close what is to be closed, and see to the timer."""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        if self._ended:
            return
        now = self._loop.time()
        for wake, fate in self.queue.due(now, linger=self._options.linger):
            self._stop(wake, fate)
        for key in self._lacking.round(now, self.queue) if self._peers else ():
            self.queue.hint(key, 0, HERE, now)
        while (chosen := self.queue.next(now)) is not None:
            if self._is_wanted(chosen):
                self._start(chosen)
            else:
                self.queue.closed(chosen, now, failed=None)  # it came by itself meanwhile
        self._arm()

    def _is_wanted(self, wake: Wake) -> bool:
        if wake.forked or wake.key in self._lacking.keys:
            return True
        return is_news(self._options.head(wake.key), wake.goal)

    def _start(self, wake: Wake) -> None:
        running = self._running[wake] = _Running()
        name = f"covey wake {wake.key.hex()[:8]}"
        running.task = self._tasks.spawn(self._run(wake, running), name)
        # Not by the task itself: one that is cancelled before its first step does nothing.
        running.task.add_done_callback(lambda _task: self._closed(wake, running))

    def withdraw(self, key: bytes) -> None:
        """The log is no longer in the group."""
        self._lacking.note(key, lacking=False)
        wake = self.queue.withdraw(key)
        if wake is not None:
            self._stop(wake, Fate.GIVEN_UP, "removed")

    def gone(self, peer: WakeupPeer) -> bool:
        """A peer left: its hints count no more; whether the others have to be asked anew."""
        self._peers.discard(peer)
        lost = self.queue.gone(peer)
        if not self._peers:
            self.queue.gone(HERE)
        for running in self._running.values():
            running.news.set()
        self.pump()
        return lost

    async def end(self) -> None:
        """Close every log; nothing is told of it. Twice is fine."""
        self._ended = True
        for handle in (self._timer, self._soon):
            if handle is not None:
                handle.cancel()
        await self._tasks.end()

    # One log

    async def _run(self, wake: Wake, running: _Running) -> None:
        try:
            if not await self._wanted(wake):
                return
            running.feed = feed = await self._options.store.get(key=wake.key, linger=False)
            feed.subscribe(lambda event: self._heard(wake, running, event))
            self._publish(Woken(wake.key, wake.goal, wake.forked))
            await self._follow(wake, running, feed)
        except _NotSoError:
            running.fate, running.reason = Fate.GIVEN_UP, "not-so"
        except ClosedError:
            running.fate = running.fate or Fate.GIVEN_UP
        except CoveyError as error:
            running.fate = Fate.GIVEN_UP
            logger.warning("the log %s cannot be followed: %s", wake.key.hex(), error)
            self._publish(GroupFailed(error, wake.key))
        finally:
            if running.feed is not None:
                await running.feed.close()

    async def _wanted(self, wake: Wake) -> bool:
        """Whether it is to be opened: not where blocks alone were lacking, and have come."""
        if [*wake.sources] != [HERE]:
            return True
        head = (await self._options.store.heads([wake.key]))[wake.key]
        self.note(wake.key, lacking=head.lacking)
        return head.lacking

    async def _follow(self, wake: Wake, running: _Running, feed: Feed) -> None:
        """Catch up each time that there is news; until it is cancelled, or nobody has the news.

        Blocks are fetched all the while. Sources that say nothing of what they hinted at are waited
        for a little longer than those that do.
        """
        if self._options.download:
            feed.download(0, -1)
        told: tuple[int, int] | None = None
        since = here = None
        while not feed.closed:
            running.news.clear()
            if _unmet(wake, feed) and await _grows(feed):
                continue
            unmet = running.unmet = _unmet(wake, feed)
            if here != (feed.fork, feed.length) or since is None or self._lacks(feed):
                since, here = self._loop.time(), (feed.fork, feed.length)
            left = since + wakeup_policy.IMPATIENCE - self._loop.time()
            nothing = len(unmet) == len(wake.sources) and not running.gained
            open_yet = bool(unmet) and (left > 0 or nothing)
            if open_yet or self._lacks(feed):
                wake.caught_up = False
                await _wait(running.news, min(left, ASK_AGAIN) if left > 0 else ASK_AGAIN)
                continue
            if told is None and not (running.gained or _came(wake, feed)):
                raise _NotSoError
            _settle(wake, feed, unmet)
            wake.caught_up = True
            self.note(wake.key, lacking=False)
            if told != here:
                told, wake.moved_at = here, self._loop.time()
                self._publish(CaughtUp(wake.key, feed.fork, feed.length))
                self.pump()
            await running.news.wait()

    def _lacks(self, feed: Feed) -> bool:
        return self._options.download and feed.contiguous_length < feed.length

    def _heard(self, wake: Wake, running: _Running, event: FeedEvent) -> None:
        # Until it is caught up only what came counts: reading from us must not keep its place.
        if event.type in (_USES if wake.caught_up else _GAINS):
            wake.moved_at = self._loop.time()
        if event.type in _GAINS:
            running.gained = True
        feed = running.feed
        whole = event.type == "download" and feed is not None and not self._lacks(feed)
        if whole or event.type in _NEWS or event.type == "close":
            running.news.set()

    # The end of one log

    def _stop(self, wake: Wake, fate: Fate, reason: Reason = "late") -> None:
        running = self._running.get(wake)
        if running is None or running.fate is not None or running.task is None:
            return
        wake.closing = True
        running.fate, running.reason = fate, reason
        running.task.cancel()

    def _closed(self, wake: Wake, running: _Running) -> None:
        """It is closed: the next one may have its place."""
        del self._running[wake]
        fate = running.fate
        now = self._loop.time()
        self._lacking.closed(wake.key, now, gained=running.gained)
        if fate is Fate.POSTPONED:
            self.queue.postpone(wake)
        else:
            failed = None if fate is None or running.reason == "removed" else not running.gained
            unmet = [source for source in running.unmet if source in wake.sources]
            if fate is not Fate.IDLE:
                wake.tries = MOST_TRIES
            self.queue.closed(wake, now, failed=failed, unmet=unmet)
        if self._ended:
            return
        if fate is Fate.IDLE:
            self._publish(IdleClosed(wake.key))
        elif fate is Fate.GIVEN_UP:
            self._publish(GivenUp(wake.key, wake.goal, running.reason))
        self.pump()

    # Time

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self.queue.next_due(linger=self._options.linger)
        round_due = self._lacking.due() if self._peers else None
        if round_due is not None:
            due = round_due if due is None else min(due, round_due)
        if due is not None:
            self._timer = self._loop.call_at(due, self.pump)


def _unmet(wake: Wake, feed: Feed) -> list[Hashable]:
    """Those of whom it is open whether they have more than is here.

    What they hinted at has not come, and they do not exchange the log or are ahead in it.
    """
    there = {peer.connection: peer for peer in feed.peers if peer.replication.synced}
    mine = feed.fork, feed.length
    found = []
    for source, told in wake.sources.items():
        if source == HERE or (told <= feed.length and not wake.forked):
            continue
        peer = there.get(source.stream)  # type: ignore[attr-defined]
        if peer is None or (peer.fork, peer.length) > mine:
            found.append(source)
    return found


def _came(wake: Wake, feed: Feed) -> bool:
    """Whether what one of them hinted at is here."""
    return wake.forked or any(told <= feed.length for told in wake.sources.values())


def _settle(wake: Wake, feed: Feed, unmet: Collection[Hashable]) -> None:
    """What is agreed on: from now on the number of blocks says it, and only what there is."""
    there = {peer.connection: peer.length for peer in feed.peers if peer.replication.synced}
    wake.forked = wake.forked and bool(unmet)
    for source, told in wake.sources.items():
        if source != HERE and source not in unmet:
            length = there.get(source.stream)  # type: ignore[attr-defined]
            wake.sources[source] = told if length is None else min(told, length)


async def _grows(feed: Feed) -> bool:
    """Ask for a longer log, for a while; whether there is one."""
    try:
        return await feed.update(wait=True, timeout=wakeup_policy.IMPATIENCE)
    except FeedTimeout:
        return False


async def _wait(news: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        pass
