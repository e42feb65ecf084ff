"""Hints between peers that share a capability: what has news, before anything is replicated.

`lookup` asks, `announce` answers with keys and lengths, and a side that has never heard of a topic
can be woken up by it. `Wakeup` is the asyncio shell of `covey.wire.wakeup`.
Source: protomux-wakeup 2.9.0; `wakeup.md`.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

from covey.closing import Closing
from covey.errors import ClosedError, CoveyError
from covey.events import EventStream, Subscription
from covey.limits import Limits
from covey.net.mux_tasks import GRACE
from covey.net.ordered_calls import Call, OrderedCalls, as_failure, is_cancelled
from covey.net.wakeup_port import WakeupPort
from covey.owned_tasks import OwnedTasks
from covey.wire.wakeup import GC_TICK, WakeupMachine
from covey.wire.wakeup_messages import (
    HASH_SIZE,
    Lookup,
    WriterHead,
    capability_proof,
    topic_id,
)
from covey.wire.wakeup_session import WakeupHandlers, WakeupSession
from covey.wire.wakeup_stats import WakeupCounts, WakeupStats
from covey.wire.wakeup_topic import HandlerCall, WakeupPeer, WakeupTopic

if TYPE_CHECKING:
    from covey.net.connection import Connection

__all__ = [
    "Lookup",
    "OpensLimited",
    "TopicCollected",
    "Wakeup",
    "WakeupCounts",
    "WakeupEvent",
    "WakeupFailed",
    "WakeupHandlers",
    "WakeupPeer",
    "WakeupSession",
    "WakeupStats",
    "WakeupTopic",
    "WriterHead",
    "WrongCapability",
    "capability_proof",
    "topic_id",
]

logger = logging.getLogger("covey.wakeup")

OnWakeup: TypeAlias = "Callable[[bytes, Connection], Awaitable[object] | object]"
"""Gets the id of a topic that a remote opened, and the connection on which it did."""

ALL_CALLBACKS = 8
"""Times `Limits.wakeup_callbacks` that `on_wakeup` may be under way on all connections."""


@dataclass(frozen=True, slots=True)
class WakeupFailed:
    """A handler of `session` failed, or `on_wakeup` (no session); `where` is its name.

    Its `stream` was ended; None where a handler that is for no stream failed.
    """

    error: Exception
    session: WakeupSession | None
    stream: Connection | None
    where: str
    type: Literal["wakeup-failed"] = "wakeup-failed"


@dataclass(frozen=True, slots=True)
class WrongCapability:
    """The remote on `stream` opened this topic and does not know its capability."""

    topic: bytes
    stream: Connection
    type: Literal["wrong-capability"] = "wrong-capability"


@dataclass(frozen=True, slots=True)
class OpensLimited:
    """The remote on `stream` opens too many topics: it is refused some. Told once per stream."""

    stream: Connection
    type: Literal["opens-limited"] = "opens-limited"


@dataclass(frozen=True, slots=True)
class TopicCollected:
    """A topic that nobody needed any more is gone, its channels are closed."""

    topic: bytes
    type: Literal["topic-collected"] = "topic-collected"


WakeupEvent: TypeAlias = WakeupFailed | WrongCapability | OpensLimited | TopicCollected
"""What `Wakeup.listen` gives."""


class Wakeup:
    """Topics, sessions, and the connections on which they meet their peers.

    `on_wakeup(topic_id, stream)` is called when a remote opens a topic that is unknown here or has
    no sessions; a session that it makes answers, else the remote is rejected. It may be a coroutine
    function; what the remote says meanwhile is kept. `Limits.wakeups_per_second`, `wakeup_burst`
    and `wakeup_callbacks` bound what one connection can bring about.

    `gc_tick`: seconds; a topic without sessions and without active peers goes after 5 ticks.
    `clock` gives seconds and is the loop's without one.

    `async with Wakeup() as wakeup`, or `close`. After the end `session` and `add_stream` raise
    `ClosedError`; there are no topics, and sessions do nothing any more.
    """

    __slots__ = (
        "__weakref__", "_all_slots", "_answers", "_calls", "_clock", "_closing", "_events",
        "_machine", "_on_wakeup", "_ports", "_tasks", "_timer", "_timer_at", "limits",
    )  # fmt: skip

    def __init__(
        self,
        on_wakeup: OnWakeup | None = None,
        *,
        gc_tick: float = GC_TICK,
        limits: Limits | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._on_wakeup = on_wakeup
        self._clock = clock or _loop_time
        self._events: EventStream[WakeupEvent] = EventStream(backlog=self.limits.event_backlog)
        self._tasks = OwnedTasks(logger)
        self._calls = OrderedCalls(
            self._tasks,
            failed=self._handler_failed,
            cancelled=self._handler_cancelled,
            wanted=lambda call: not call.owner.muted,
            grace=self.limits.close_timeout,
            name="covey wakeup handlers",
        )
        self._machine = WakeupMachine(
            self, clock=self._clock, gc_tick=gc_tick, announced=self.limits.wakeup_announced
        )
        self._ports: dict[Connection, WakeupPort] = {}
        self._answers: dict[asyncio.Task[Any], asyncio.Timeout] = {}
        self._all_slots = asyncio.Semaphore(ALL_CALLBACKS * self.limits.wakeup_callbacks)
        self._closing = Closing()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self.topics)} topics"
        return f"<Wakeup {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # What there is

    @property
    def topics(self) -> Mapping[bytes, WakeupTopic]:
        """The topics by their 32-byte id; a view."""
        return MappingProxyType(self._machine.topics)

    @property
    def stats(self) -> WakeupStats:
        """The counters; `stats.snapshot()` keeps those of one moment."""
        return self._machine.stats

    @property
    def closed(self) -> bool:
        """Whether `destroy` or `close` was called."""
        return self._machine.destroyed

    def get_sessions(
        self, capability: bytes, handlers: WakeupHandlers | None = None
    ) -> list[WakeupSession]:
        """The sessions of a capability now; a copy.

        A topic with a `discovery_key` of its own is found by `handlers` that give it again.
        """
        topic = self._machine.topics.get(self._machine.id_of(capability, handlers))
        return [] if topic is None else topic.sessions

    def has_stream(
        self,
        stream: Connection,
        capability: bytes | None = None,
        handlers: WakeupHandlers | None = None,
    ) -> bool:
        """Whether `stream` was added; with a capability, whether that has a peer on it."""
        if capability is None:
            return self._machine.has(stream)
        topic = self._machine.topics.get(self._machine.id_of(capability, handlers))
        return topic is not None and topic.peer_on(stream) is not None

    def listen(self) -> Subscription[WakeupEvent]:
        """Events from now on."""
        return self._events.listen()

    def subscribe(self, callback: Callable[[WakeupEvent], object]) -> Callable[[], None]:
        """Call `callback` with each event, at once; returns the function that stops it."""
        return self._events.subscribe(callback)

    # What one does with it

    def session(self, capability: bytes, handlers: WakeupHandlers | None = None) -> WakeupSession:
        """A new session on a topic; any number may share one.

        The first session of a topic fixes its capability, and opens it on every stream that was
        added, also when it is not active. `capability`: a 32-byte key with much entropy, since a
        peer can try guesses; of another size only with `handlers.discovery_key`. Peers that are
        there already are in `session.peers`, they are not told again.

        Raises `UsageError` for a capability of another size or of none, `TypeError` for one that is
        no bytes, `ClosedError` after the end.
        """
        return self._machine.session(capability, handlers or WakeupHandlers())

    def add_stream(self, stream: Connection) -> None:
        """Meet peers on `stream`: open the active topics there, and let its remote wake us.

        A second time only opens what is not open. `ClosedError` for a stream that is closed, and
        after the end; `UsageError` for one without a muxer, and for one that another wakeup has: a
        connection can have one. Those of a `Networker` are added to its `Networker.wakeup`.
        """
        if self.closed:
            raise ClosedError("this wakeup is closed")
        port = self._ports.get(stream)
        added = port is not None
        port = port or self.port_for(stream)
        port.pair(partial(self._asked, port))
        if not added:
            self._ports[stream] = port
            stream.on_close(_told_weakly(self))
        self._machine.add(port)

    def destroy(self) -> None:
        """Close every channel, destroy every session and tell it; nothing more is answered.

        Does not wait: handlers that are coroutines end within `Limits.close_timeout`. `listen` goes
        on, for those that fail, until `close`. May be called again.
        """
        if self.closed:
            return
        for port in self._ports.values():
            port.unpair()
        self._ports.clear()
        until = asyncio.get_running_loop().time() + self.limits.close_timeout
        for scope in self._answers.values():
            scope.reschedule(until)
        self._machine.destroy()
        self._calls.all_over()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def close(self) -> None:
        """`destroy`, and wait for the handlers that still run. May be called again.

        In one of its own handlers it waits for nothing.
        """
        inside = self._calls.inside() or asyncio.current_task() in self._answers
        closing = self._closing.start(self._close, "covey wakeup close")
        if not inside:
            await asyncio.shield(closing)

    # The machine calls these

    def call(self, key: WakeupPeer | WakeupSession, calls: list[HandlerCall]) -> None:
        """Call handlers, after those of the same `key` that were called before."""
        self._calls.run(
            key,
            [
                Call(getattr(session.handlers, handler), (*arguments, session), session, handler)
                for session, handler, arguments in calls
                if getattr(session.handlers, handler) is not None
            ],
        )
        if isinstance(key, WakeupSession):  # it was told of its end
            self._calls.over(key)

    def port_for(self, stream: Any) -> WakeupPort:
        """A port of a stream; `ClosedError` when it is over."""
        if not hasattr(stream, "closed"):
            raise TypeError(f"a connection is wanted, not {type(stream).__name__}")
        if stream.closed:
            raise ClosedError(f"{stream!r} is closed")
        return WakeupPort(stream, self._machine, self._calls)

    def wrong_proof(self, peer: WakeupPeer) -> None:
        """The remote on the stream of `peer` does not know the capability."""
        logger.debug("%r has shown a wrong proof for %r", peer.stream, peer.topic)
        peer.port.count_wrong_proof(self.limits)
        self._events.publish(WrongCapability(peer.topic.id, peer.stream))

    def collected(self, topic: WakeupTopic) -> None:
        """A topic was collected."""
        self._events.publish(TopicCollected(topic.id))

    def rearm(self) -> None:
        """See that the timer goes off no later than the machine wants."""
        at = self._machine.next_timer()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer_at = at
        self._timer = loop.call_later(max(0.0, at - self._clock()), self._on_timer)

    # Inside

    def _on_timer(self) -> None:
        self._timer = None
        self._machine.handle_timer(self._clock())
        self.rearm()

    def _stream_closed(self, stream: Connection) -> None:
        self._ports.pop(stream, None)
        self._machine.remove(stream)

    def _asked(self, port: WakeupPort, key: bytes | None) -> Awaitable[None] | None:
        """The remote opens a topic that is not open on this stream: answer, or ask the user.

        When nothing was opened until this, or what it returns, is over, the remote is rejected.
        """
        if key is None or len(key) != HASH_SIZE or self.closed:
            return None
        if self._machine.answers(key):
            if port.may_be_answered():
                self._machine.asked(key, port)
            else:
                self._limited(port)
            return None
        if self._on_wakeup is None:
            return None
        if not port.may_wake(self.limits):
            self._limited(port)
            return None
        try:
            result = self._on_wakeup(key, port.stream)
        except asyncio.CancelledError as error:  # no task is cancelled within a plain call
            self._failed(as_failure(error), None, port, "on_wakeup")
            return None
        except Exception as error:  # noqa: BLE001  the edge of a user callback
            self._failed(error, None, port, "on_wakeup")
            return None
        if result is not None and inspect.isawaitable(result):
            return self._answer(port, key, result)
        self._machine.asked(key, port)
        return None

    async def _answer(self, port: WakeupPort, key: bytes, result: Awaitable[object]) -> None:
        """Wait for `on_wakeup`, in a task of the muxer; after the end it has some time left."""
        if port.slots is None:
            port.slots = asyncio.Semaphore(self.limits.wakeup_callbacks)
        task = asyncio.current_task()
        try:
            async with asyncio.timeout(None) as scope:
                if task is not None:
                    self._answers[task] = scope
                async with port.slots, self._all_slots:
                    if self.closed:
                        return
                    await result
        except asyncio.CancelledError as error:
            if is_cancelled():
                raise
            self._failed(as_failure(error), None, port, "on_wakeup")
            return
        except Exception as error:  # noqa: BLE001  the edge of a user callback
            if scope.expired():
                port.mux.warn("on_wakeup was cancelled: its wakeup is closed")
            else:
                self._failed(error, None, port, "on_wakeup")
            return
        finally:
            if task is not None:
                self._answers.pop(task, None)
            if inspect.iscoroutine(result):
                result.close()  # where it never began; else it has ended
        self._machine.asked(key, port)

    def _limited(self, port: WakeupPort) -> None:
        logger.debug("%r opens too many topics", port.stream)
        if port.first_limited():
            self._events.publish(OpensLimited(port.stream))

    def _handler_failed(self, key: Any, call: Call, error: Exception) -> None:
        if not isinstance(key, WakeupPeer):
            self._failed(error, call.owner, None, call.name)
        elif key.removed and isinstance(error, ClosedError):
            logger.debug("%s of %r used what is over: %s", call.name, call.owner, error)
        else:
            self._failed(error, call.owner, key.port, call.name)

    def _handler_cancelled(self, key: Any, call: Call) -> None:
        if isinstance(key, WakeupPeer):
            key.port.mux.warn("%s of a wakeup was cancelled: its peer is gone", call.name)
        else:
            logger.warning("%s was cancelled: it took too long", call.name)

    def _failed(
        self, error: Exception, session: WakeupSession | None, port: WakeupPort | None, where: str
    ) -> None:
        """A handler failed: say so, and end its stream."""
        if self.closed and isinstance(error, ClosedError):
            return
        logger.error("%s of a wakeup failed", where, exc_info=error)
        stream = None if port is None else port.stream
        self._events.publish(WakeupFailed(error, session, stream, where))
        if port is not None:
            reason = CoveyError(f"{where} of a wakeup failed: {error}")
            reason.__cause__ = error
            port.mux.destroy(reason)

    async def _close(self) -> None:
        self.destroy()
        if self._answers:
            seconds = self.limits.close_timeout + GRACE
            _, stuck = await asyncio.wait(set(self._answers), timeout=seconds)
            for task in stuck:
                logger.warning("%s does not end when cancelled", task.get_name())
        await self._calls.finish()
        await self._tasks.end(self.limits.close_timeout)
        self._events.close()


def _told_weakly(wakeup: Wakeup) -> Callable[[Connection], None]:
    """Tells a wakeup that a connection is closed, and keeps none that is over alive."""
    told = weakref.ref(wakeup)

    def closed(stream: Connection) -> None:
        if (alive := told()) is not None:
            alive._stream_closed(stream)

    return closed


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
