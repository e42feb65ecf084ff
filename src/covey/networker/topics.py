"""The topics of a networker: joined, flushed, left (`networker.md` rows 3 to 13, section 5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from covey.errors import ClosedError, CoveyError, DiscoveryError
from covey.events import LiveSubscription
from covey.flock.view import FlockEntry
from covey.host_port import HostPort
from covey.networker.events import Flushed, Joined, NetworkerEvent
from covey.networker.opening import Opening
from covey.owned_tasks import OwnedTasks

logger = logging.getLogger("covey.networker")

UNDER_WAY = frozenset({"queued", "connecting"})
"""States of a candidate that is being tried for the first time, or again right now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatus:
    """How a topic was configured last."""

    topic: bytes
    announce: bool = True
    lookup: bool = True
    flush: bool = True
    rejoin: bool = True


class SwarmTopic(Protocol):
    """What `join` gives: a `flock.Topic`."""

    async def flushed(self) -> object:
        """Wait until the first round of discovery is over."""


class TopicSwarm(Protocol):
    """What topics need of the flock."""

    async def join(self, name: bytes, *, announce: bool, lookup: bool) -> SwarmTopic:
        """Join a topic, or change how it is joined."""

    def leave(self, name: bytes) -> bool:
        """Leave it."""

    def live_entries(self) -> LiveSubscription[tuple[FlockEntry, ...]]:
        """Snapshots of the candidates: one now, one after each burst of changes."""


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False)
class Topic:
    """A joined topic. `entered` is done when the flock has joined it, `done` when it is flushed.

    A later configure takes over both from one that still waits, so that nobody waits in vain.
    """

    status: TopicStatus
    flushed: bool = False
    task: asyncio.Task[None] | None = None
    entered: asyncio.Future[None] = field(default_factory=_future)
    done: asyncio.Future[None] = field(default_factory=_future)

    def restart(self) -> None:
        """It is joined again: flushed no more."""
        self.flushed = False
        if self.task is not None:
            self.task.cancel()
        if self.entered.done():
            self.entered = _future()
        if self.done.done():
            self.done = _future()

    def settle(self, error: Exception | None = None) -> None:
        """It was left, or could not be joined: let those go who wait."""
        if self.task is not None and self.task is not asyncio.current_task():
            self.task.cancel()
        for future in (self.entered, self.done):
            if future.done():
                continue
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)
                future.exception()  # perhaps nobody waits: then this is no lost error


class Topics:
    """Joins topics on a flock, and waits until the peers that were found first are connected.

    `patience` is how long a flush waits for dials and for handshakes at most, in seconds.
    """

    def __init__(
        self,
        swarm: TopicSwarm,
        opening: Opening,
        tasks: OwnedTasks,
        *,
        publish: Callable[[NetworkerEvent], object],
        patience: float,
    ) -> None:
        self._swarm = swarm
        self._opening = opening
        self._tasks = tasks
        self._publish = publish
        self._patience = patience
        self._topics: dict[bytes, Topic] = {}

    def get(self, name: bytes) -> Topic | None:
        """A topic that is joined."""
        return self._topics.get(name)

    def statuses(self) -> list[TopicStatus]:
        """How each joined topic was configured."""
        return [topic.status for topic in self._topics.values()]

    async def configure(self, status: TopicStatus) -> None:
        """Join a topic, or leave it when it is neither announced nor looked up."""
        name = status.topic
        topic = self._topics.get(name)
        if not (status.announce or status.lookup):
            self.leave(name)
            return
        if topic is None:
            topic = self._topics[name] = Topic(status)
        else:
            earlier, topic.status = topic.status, status
            same = (earlier.announce, earlier.lookup) == (status.announce, status.lookup)
            if same and not status.rejoin:
                return
            topic.restart()
        self._publish(Joined(name))
        if self._topics.get(name) is not topic:  # a listener left it
            return
        entered, done = topic.entered, topic.done
        topic.task = self._tasks.spawn(self._run(topic), f"covey networker join {name.hex()[:8]}")
        await asyncio.shield(done if status.flush else entered)

    def leave(self, name: bytes) -> None:
        """Leave a topic; connections stay. Whoever waits for its flush goes on."""
        topic = self._topics.pop(name, None)
        if topic is not None:
            topic.settle()
            self._swarm.leave(name)

    def close(self, *, leave: bool) -> None:
        """Forget every topic, and leave it if the flock goes on without this networker."""
        for name, topic in tuple(self._topics.items()):
            topic.settle(ClosedError("the networker was closed"))
            if leave:
                with suppress(ClosedError):
                    self._swarm.leave(name)
        self._topics.clear()

    # One topic

    async def _run(self, topic: Topic) -> None:
        """Join and flush; a later configure, a leave and the end cancel this."""
        status = topic.status
        try:
            joined = await self._swarm.join(
                status.topic, announce=status.announce, lookup=status.lookup
            )
            _settle(topic.entered)
            with suppress(DiscoveryError):  # nobody could be asked: that is flushed, too
                await joined.flushed()
            await self._wait_for_peers(status.topic)
        except Exception as error:
            if not isinstance(error, (CoveyError, OSError)):
                logger.exception("joining %s failed", status.topic.hex())
            if self._topics.get(status.topic) is topic:
                del self._topics[status.topic]
            topic.settle(error)
            return
        topic.flushed = True
        self._publish(Flushed(status.topic))
        _settle(topic.done)

    async def _wait_for_peers(self, name: bytes) -> None:
        """Wait for the dials to whom discovery found, then for all handshakes under way then."""
        try:
            async with asyncio.timeout(self._patience):
                await self._dials_over(name)
                await self._handshakes_over()
        except TimeoutError:
            logger.info("topic %s: not every peer answered in time", name.hex())

    async def _dials_over(self, name: bytes) -> None:
        waiting: set[HostPort] | None = None
        with self._swarm.live_entries() as snapshots:
            async for entries in snapshots:
                busy = _under_way(entries, name)
                waiting = busy if waiting is None else waiting & busy
                if not waiting:
                    return

    async def _handshakes_over(self) -> None:
        passed = _future()
        barrier = self._opening.barrier(lambda: _settle(passed))
        try:
            await passed
        finally:
            barrier.cancel()


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _under_way(entries: tuple[FlockEntry, ...], name: bytes) -> set[HostPort]:
    """The candidates of a topic that are being tried."""
    return {
        (entry.peer.host, entry.peer.port)
        for entry in entries
        if entry.peer.channel == name and str(entry.state) in UNDER_WAY
    }
