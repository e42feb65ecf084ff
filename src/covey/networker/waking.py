"""Opens the logs that hints are about, follows them to their heads, and closes them again.

What is opened when, and for how long, is decided in `wakeup_policy`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from covey.errors import ClosedError, CoveyError
from covey.networker.group_events import (
    CaughtUp,
    GivenUp,
    GroupEvent,
    GroupFailed,
    IdleClosed,
    Woken,
)
from covey.networker.head_table import Head
from covey.networker.wakeup_policy import Fate, Wake, WakeQueue, is_news
from covey.owned_tasks import OwnedTasks
from covey.store.feed_events import FeedEvent

if TYPE_CHECKING:
    from covey.store.feed import Feed
    from covey.wakeup import WakeupPeer

logger = logging.getLogger("covey.networker")

Reason: TypeAlias = Literal["late", "not-so", "removed"]
_NEWS = frozenset({"append", "truncate", "peer-add", "peer-remove"})
_GAINS = frozenset({"append", "truncate", "download"})
_USES = _GAINS | {"upload"}


class FeedSource(Protocol):
    """What a waker needs of the store: a `Basestore`."""

    async def get(self, *, key: bytes, linger: bool) -> Feed:
        """A session of the log with this key."""


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

    __slots__ = ("fate", "feed", "gained", "news", "reason", "task")

    def __init__(self) -> None:
        self.task: asyncio.Task[None] | None = None
        self.feed: Feed | None = None
        self.news = asyncio.Event()
        self.fate: Fate | None = None
        self.reason: Reason = "late"
        self.gained = False
        """Whether anything came that was not here."""


class _NotSoError(CoveyError):
    """None of those who hinted has what they hinted at."""


class Waker:
    """The logs of one group that hints opened. `end` closes them all."""

    def __init__(self, options: WakerOptions) -> None:
        self._options = options
        self._publish = options.publish
        self.queue = WakeQueue(options.most)
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
        wake = self.queue.hint(key, length, peer, self._loop.time(), forked=forked)
        if wake is not None and (running := self._running.get(wake)) is not None:
            running.news.set()
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
        while (chosen := self.queue.next(now)) is not None:
            if not (chosen.forked or is_news(self._options.head(chosen.key), chosen.goal)):
                self.queue.closed(chosen, now, failed=None)  # it came by itself meanwhile
                continue
            running = self._running[chosen] = _Running()
            name = f"covey wake {chosen.key.hex()[:8]}"
            running.task = self._tasks.spawn(self._run(chosen, running), name)
        self._arm()

    def withdraw(self, key: bytes) -> None:
        """The log is no longer in the group."""
        wake = self.queue.withdraw(key)
        if wake is not None:
            self._stop(wake, Fate.GIVEN_UP, "removed")

    def gone(self, peer: WakeupPeer) -> None:
        """A peer left: its hints count no more."""
        self.queue.gone(peer)
        for running in self._running.values():
            running.news.set()
        self.pump()

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
            self._closed(wake, running)

    async def _follow(self, wake: Wake, running: _Running, feed: Feed) -> None:
        """Catch up each time that there is news; until it is cancelled, or nobody has the news."""
        told: tuple[int, int] | None = None
        while not feed.closed:
            running.news.clear()
            await self._reach(wake, running, feed)
            if self._lacks(feed):
                await feed.download(feed.contiguous_length, feed.length).done()
            if not self._complete(wake, feed):
                continue
            if wake.forked:  # agreed on: from now on the number of blocks says it again
                wake.forked, wake.goal = False, feed.length
            if told != (feed.fork, feed.length):
                told = feed.fork, feed.length
                wake.caught_up, wake.moved_at = True, self._loop.time()
                self._publish(CaughtUp(wake.key, feed.fork, feed.length))
                self.pump()
            wake.caught_up = True
            await running.news.wait()
            wake.caught_up = self._complete(wake, feed)

    async def _reach(self, wake: Wake, running: _Running, feed: Feed) -> None:
        """Have the log grow to what was hinted at; raises when none of those who hinted has it."""
        while not self._reached(wake, feed):
            running.news.clear()
            if await feed.update(wait=True):
                continue
            if _agree(wake, feed):
                if wake.forked:
                    return
                raise _NotSoError
            await running.news.wait()
            if feed.closed:
                return

    def _complete(self, wake: Wake, feed: Feed) -> bool:
        return self._reached(wake, feed) and not self._lacks(feed)

    def _lacks(self, feed: Feed) -> bool:
        return self._options.download and feed.contiguous_length < feed.length

    @staticmethod
    def _reached(wake: Wake, feed: Feed) -> bool:
        return _agree(wake, feed) if wake.forked else feed.length >= wake.goal

    def _heard(self, wake: Wake, running: _Running, event: FeedEvent) -> None:
        # Until it is caught up only what came counts: reading from us must not keep its place.
        if event.type in (_USES if wake.caught_up else _GAINS):
            wake.moved_at = self._loop.time()
        if event.type in _GAINS:
            running.gained = True
        if event.type in _NEWS or event.type == "close":
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
        if fate is Fate.POSTPONED:
            self.queue.postpone(wake)
        else:
            failed = None if running.reason == "removed" else not running.gained
            self.queue.closed(wake, self._loop.time(), failed=failed)
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
        if due is not None:
            self._timer = self._loop.call_at(due, self.pump)


def _agree(wake: Wake, feed: Feed) -> bool:
    """Whether all who hinted at the log exchange it here, and none of them is ahead."""
    there = [peer for peer in feed.peers if peer.replication.synced]
    connections = {peer.connection: peer for peer in there}
    told = [connections.get(source.stream) for source in wake.sources]  # type: ignore[attr-defined]
    mine = feed.fork, feed.length
    return bool(told) and all(
        peer is not None and (peer.fork, peer.length) <= mine for peer in told
    )
