"""A channel of a muxer: its callbacks, and the queue of its asynchronous handlers.

Plain handlers run at once. From the first handler on that returns something to await, what follows
on the same channel waits in its queue, in order, and other channels go on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

from covey.errors import ClosedError, CoveyError, LimitError, UsageError
from covey.net.mux_host import ChannelHost
from covey.net.mux_message import Handler, Message, decoder_of, new_message
from covey.net.mux_queue import RUNNING_OVERHEAD, HandlerQueue, Hold, Job, outcome
from covey.wire.encoding import Codec, encode, raw
from covey.wire.protomux_channel import ChannelCore
from covey.wire.protomux_frames import Outbox

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("covey.net.mux")

T = TypeVar("T")


OnOpen = Callable[[Any, "Channel"], Awaitable[Any] | Any]
OnClose = Callable[[bool, "Channel"], Awaitable[Any] | Any]
OnChannel = Callable[["Channel"], Awaitable[Any] | Any]
MessageSpec = Codec[Any] | tuple[Any, ...] | None
"""A codec, `(codec, on_message)`, `(codec, on_message, auto_batch)`; None reserves a number."""


class Channel:
    """One channel of a `Muxer`; made by `Muxer.create_channel`.

    Attributes: `protocol`, `id`, `handshake` (the remote's, decoded, once opened), `user_data` (the
    application's own), `messages` (by type; None where a number is reserved), `error` (why it was
    closed, where this side or the stream had a reason).
    """

    __slots__ = (
        "__weakref__", "_closing", "_codec", "_deadline", "_destroyed", "_host", "_on_close",
        "_on_destroy", "_on_drain", "_on_open", "_ordered", "_queue", "_running", "_stopped",
        "_tasks", "_told", "_waiters", "core", "error", "handshake", "messages", "outbox",
        "user_data",
    )  # fmt: skip

    def __init__(
        self,
        host: ChannelHost,
        core: ChannelCore,
        *,
        handshake: Codec[Any] | None,
        messages: Sequence[MessageSpec],
        user_data: Any,
        on_open: OnOpen | None,
        on_close: OnClose | None,
        on_destroy: OnChannel | None,
        on_drain: OnChannel | None,
        backpressure: bool,
        ordered: bool,
    ) -> None:
        self._host = host
        self.core = core
        core.owner = self
        self.outbox: Outbox = host.core.outbox
        self._codec = handshake
        self.user_data = user_data
        self.handshake: Any = None
        self.error: CoveyError | None = None
        self.messages: list[Message[Any] | None] = []
        self._on_open = on_open
        self._on_close = on_close
        self._on_destroy = on_destroy
        self._on_drain = on_drain
        self._ordered = ordered
        self._stopped = False
        self._closing: bool | None = None
        self._told = False
        self._destroyed = False
        self._running = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._deadline: asyncio.TimerHandle | None = None
        self._queue = HandlerQueue(
            host.limits,
            host.backlog,
            pause=(lambda wait: host.set_reading(self, wanted=not wait)) if backpressure else None,
        )
        self._waiters: list[tuple[str, asyncio.Future[bool]]] = []
        for spec in messages:
            self._add_spec(spec)

    # What it is

    @property
    def protocol(self) -> str:
        """The name that goes on the wire."""
        return self.core.protocol

    @property
    def id(self) -> bytes | None:
        """The binary id, None when there is none."""
        return self.core.id

    @property
    def opened(self) -> bool:
        """Whether both sides have opened it and nobody has closed it."""
        return self.core.opened and not self.core.closed

    @property
    def closed(self) -> bool:
        """Whether one side, or the end of the stream, has closed it."""
        return self.core.closed

    @property
    def destroyed(self) -> bool:
        """Whether it is closed and its last handler has ended."""
        return self._destroyed

    @property
    def drained(self) -> bool:
        """Whether the stream takes more without queueing too much."""
        return self.outbox.accepting

    # What one does with it

    def open(self, handshake: Any = None) -> None:
        """Open it, without waiting for the remote. Messages may be sent from now on.

        `handshake` is encoded with the channel's handshake codec. `UsageError` when it was opened
        before, `EncodeError` for the handshake; nothing happens on a channel that is closed.
        """
        if self.core.closed:
            return
        payload = b"" if self._codec is None else encode(self._codec, handshake)
        if self._host.core.open(self.core, payload):
            self._host.deliver_soon(self)
        self._host.flush_soon()

    def close(self) -> None:
        """Close it: nothing is delivered any more, what was sent before still leaves."""
        if not self.core.closed:
            self._host.core.close(self.core)
            self._stop(remote=False)
            self._host.flush_soon()

    def add_message(
        self,
        codec: Codec[T] = raw,  # type: ignore[assignment]
        on_message: Handler | None = None,
        *,
        auto_batch: bool = True,
    ) -> Message[T]:
        """Add the next message type; both sides must add theirs in the same order."""
        message = new_message(self, len(self.messages), codec, on_message, auto_batch=auto_batch)
        self.messages.append(message)
        return message

    def reserve_message(self) -> None:
        """Leave out one type number: what arrives under it is ignored."""
        self.messages.append(None)

    def cork(self) -> None:
        """Collect what the whole muxer sends until `uncork`; calls count."""
        self._host.core.outbox.cork()

    def uncork(self) -> None:
        """Undo one `cork`; `UsageError` without one."""
        self._host.core.outbox.uncork()
        self._host.flush_soon()

    def flush(self) -> bool:
        """Write what was collected now, not with the end of this turn; gives `drained`.

        For long answers to what one turn received, so that the remote begins on the first of them.
        Nothing is written while corked.
        """
        self._host.flush()
        return self.outbox.accepting

    async def fully_opened(self) -> bool:
        """Wait for the remote's answer: True when it opened too, False when closed before."""
        if self.core.opened or self.core.closed:
            return self.core.opened
        return await self._wait_for("opened")

    async def fully_closed(self) -> None:
        """Wait until it is closed and its last handler has ended."""
        if not self._destroyed:
            await self._wait_for("destroyed")

    async def drain(self) -> None:
        """Wait until the stream takes more; `ClosedError` when it is, or gets, closed."""
        self.check_open()
        self._host.flush()
        if not self.outbox.accepting:
            await self._host.wait_writable(self)

    async def aclose(self) -> None:
        """Close it and wait until its last handler has ended."""
        self.close()
        await self.fully_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open" if self.opened else "pending"
        return f"<Channel {self.protocol!r} {'' if self.id is None else self.id.hex()} {state}>"

    # For messages and the muxer

    def check_open(self) -> None:
        """Raise `ClosedError` when closed."""
        if self.core.closed:
            raise self.closed_error()

    def closed_error(self) -> ClosedError:
        """The error for a use after the end, with its cause."""
        closed = ClosedError(f"channel {self.protocol!r} is closed")
        closed.__cause__ = self.error
        return closed

    def start_entries(self) -> bool:
        """Make the outbox ready for messages of this channel. False: closed."""
        core = self.core
        if core.closed:
            return False
        if core.local_id == 0:
            raise UsageError(f"open channel {core.protocol!r} before you send on it")
        self.outbox.start(core.wire_id)
        self._host.entries_begun()
        return True

    def outbox_full(self) -> None:
        """The outbox reached its limit."""
        self.outbox.full()
        self._host.flush()

    def receive_open(self, handshake: bytes) -> None:
        """The remote opened it too; a handshake that does not decode ends the stream."""
        if self._codec is not None:
            decode = decoder_of(self._codec)
            try:
                self.handshake = handshake if decode is None else decode(handshake)
            except Exception as error:  # noqa: BLE001  the edge of a codec
                self._host.failed(self, "the handshake", error)
                return
        self._settle("opened", value=True)
        self._call("on_open", self._on_open, self.handshake, self)

    def receive_messages(self, kind: int, payloads: list[bytes]) -> None:
        """Decode and hand over messages of one type; what that raises ends the stream."""
        if self._stopped or kind >= len(self.messages):
            return
        message = self.messages[kind]
        if message is None:
            return
        if self._queue.active:
            self._enqueue(message, payloads)
            return
        decode = message.decode
        position = 0
        for payload in payloads:
            position += 1
            handler = message.on_message
            if handler is None:
                continue
            try:
                result = handler(payload if decode is None else decode(payload))
            except Exception as error:  # noqa: BLE001  the edge of a codec and a user callback
                self._host.failed(self, f"the handler of message type {kind}", error)
                return
            if result is not None and hasattr(result, "__await__"):
                self._start_waiting(message, result, len(payload))
                if self._queue.active:
                    if position < len(payloads):
                        self._enqueue(message, payloads[position:])
                    return
            if self._stopped:
                return

    def receive_close(self, *, remote: bool, error: CoveyError | None) -> None:
        """It was closed, not by `close`: what was received before is still delivered."""
        self.error = self.error or error
        self._settle("opened", value=self.core.opened)
        self._host.wake_writers(self, self.closed_error())
        if not self._queue.active:
            self._stop(remote=remote)
        else:
            self._closing = remote
            self._linger()

    def stream_closed(self, error: CoveyError | None) -> None:
        """The stream is gone. With an error the queue is dropped, without it is still delivered."""
        if self._told:
            return
        self.core.closed = True
        if error is None:
            self.receive_close(remote=True, error=None)
        else:
            self.error = self.error or error
            self._stop(remote=True)

    def writable(self) -> None:
        """The stream takes more."""
        if not self.core.closed:
            self._call("on_drain", self._on_drain, self)

    @property
    def kept(self) -> int:
        """Bytes that its handlers keep, waiting and running."""
        return self._queue.kept

    def shed(self) -> None:
        """All handlers of the muxer keep too much, and those of this channel most of it."""
        if not self._queue.pause():
            self._give_up("mux_backlog", self._host.limits.mux_backlog)

    def expire(self) -> None:
        """It is closed and its handlers had their time: cancel them."""
        self._stop(remote=bool(self._closing))
        self._host.cancel(self._tasks)

    def task_done(self) -> None:
        """One task of this channel has ended."""
        self._running -= 1
        self._destroy_when_done()

    # Inside

    def _add_spec(self, spec: MessageSpec) -> None:
        if spec is None:
            self.reserve_message()
        elif isinstance(spec, tuple):
            codec, handler, *rest = (*spec, None) if len(spec) == 1 else spec
            self.add_message(codec, handler, auto_batch=rest[0] if rest else True)
        else:
            self.add_message(spec)

    def _call(self, what: str, callback: Callable[..., Any] | None, *values: Any) -> None:
        if callback is None:
            return
        try:
            result = callback(*values)
        except Exception as error:  # noqa: BLE001  the edge of a user callback
            self._host.failed(self, what, error)
            return
        if result is not None and hasattr(result, "__await__"):
            if what == "on_open" and self._ordered and not self._stopped:
                self._start_queue(result, what, None, RUNNING_OVERHEAD)
            else:
                self._run(result, what, None)

    def _start_waiting(self, message: Message[Any], result: Awaitable[Any], size: int) -> None:
        hold = self._host.reply_hold() if message.auto_batch else None
        if hold is not None:
            hold.wait()
        what = f"the handler of message type {message.type}"
        cost = RUNNING_OVERHEAD + size
        if self._ordered and not self._stopped:
            self._start_queue(result, what, hold, cost)
            return
        self._run(result, what, hold, cost)
        if not self._queue.charge(cost):
            self._fell_behind()

    def _run(self, result: Awaitable[Any], what: str, hold: Hold | None, cost: int = 0) -> None:
        self._start(self._finish(result, what, hold, cost), what)

    def _start(self, work: Awaitable[Any], what: str) -> None:
        self._running += 1
        task = self._host.run(work, f"covey {self.protocol} {what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self.core.closed:
            self._linger()

    async def _finish(
        self, result: Awaitable[Any], what: str, hold: Hold | None, cost: int
    ) -> None:
        error: Exception | None = None
        try:
            error = await outcome(result, hold)
        finally:
            self._queue.discharge(cost)
            self.task_done()
        if error is not None:
            self._host.failed(self, what, error)

    def _start_queue(self, first: Awaitable[Any], what: str, hold: Hold | None, cost: int) -> None:
        self._queue.start()
        self._start(self._work(first, what, hold, cost), "handlers")
        self._queue.hold(cost)

    async def _work(self, first: Awaitable[Any], what: str, hold: Hold | None, cost: int) -> None:
        """Wait for `first`, then hand over what was queued meanwhile, in order."""
        try:
            try:
                error = await outcome(first, hold)
            finally:
                self._queue.release(cost)
            while error is None and (job := self._queue.first) is not None:
                await self._host.wait_unheld(self)
                what = f"the handler of message type {job.message.type}"
                error = await job.run(lambda: self._stopped)
                self._queue.done(job)
        finally:
            self._queue.stop()
            if self._closing is not None:
                self._stop(remote=self._closing)
            self.task_done()
        if error is not None:
            self._host.failed(self, what, error)

    def _enqueue(self, message: Message[Any], payloads: list[bytes]) -> None:
        hold = self._host.reply_hold() if message.auto_batch else None
        if not self._queue.push(Job(message, payloads, hold)):
            self._fell_behind()

    def _fell_behind(self) -> None:
        self._give_up("channel_backlog", self._host.limits.channel_backlog)

    def _give_up(self, limit: str, allowed: int) -> None:
        """The handlers fell too far behind: close, and say why."""
        if self.core.closed:
            return
        self.error = LimitError(
            f"channel {self.protocol!r}: handlers fell {allowed} bytes behind ({limit})",
            limit=limit,
            allowed=allowed,
        )
        self._host.warn("%s; it is closed", self.error)
        self.close()

    def _linger(self) -> None:
        """It is closed while handlers run: they have `Limits.close_timeout` from now on."""
        if self._deadline is None and self._running:
            self._deadline = self._host.cancel_later(self)
            self._host.core.lingering += 1

    def _stop(self, *, remote: bool) -> None:
        """Nothing is delivered from now on; tell that it is closed."""
        if self._told:
            return
        self._stopped = self._told = True
        self._queue.drop()
        self._settle("opened", value=self.core.opened)
        self._host.wake_writers(self, self.closed_error())
        self._call("on_close", self._on_close, remote, self)
        self._linger()
        self._destroy_when_done()

    def _destroy_when_done(self) -> None:
        if self._told and self._running == 0 and not self._destroyed:
            self._destroyed = True
            if self._deadline is not None:
                self._deadline.cancel()
                self._host.core.lingering -= 1
            self._host.forget(self)
            self._call("on_destroy", self._on_destroy, self)
            # The muxer may keep it until the remote answers, but not what its application made.
            self._on_open = self._on_close = self._on_destroy = self._on_drain = None
            for message in filter(None, self.messages):
                message.on_message = None
            self._settle("destroyed", value=True)

    async def _wait_for(self, what: str) -> bool:
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiters.append((what, waiter))
        try:
            return await waiter
        finally:
            self._waiters = [entry for entry in self._waiters if entry[1] is not waiter]

    def _settle(self, what: str, *, value: bool) -> None:
        for wanted, waiter in self._waiters:
            if wanted == what and not waiter.done():
                waiter.set_result(value)


def owners(cores: Sequence[ChannelCore]) -> Iterator[Channel]:
    """The channels of these cores."""
    for core in cores:
        yield core.owner
