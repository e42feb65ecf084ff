"""The muxer of a connection: protomux channels with callbacks, on asyncio.

Everything that one turn of the event loop sends leaves as one batch: callers need not cork. A
handler that fails ends this stream and nothing else.

Source: protomux 3.12.1; `protomux.md`.
"""

# `id` and `type` are the names that protomux uses.
# ruff: noqa: A002

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, assert_never

from covey.errors import ClosedError, CoveyError, ProtocolError
from covey.limits import Limits
from covey.net.mux_channel import (
    Channel,
    MessageSpec,
    OnChannel,
    OnClose,
    OnOpen,
    owners,
)
from covey.net.mux_handlers import MuxerHandlers
from covey.net.mux_intake import Intake, Outflow
from covey.net.mux_message import Message
from covey.net.mux_pairing import AlreadyOpen, PairCallback, PairCallbacks
from covey.net.mux_queue import Backlog, Hold
from covey.net.mux_tasks import HandlerTasks
from covey.net.pipe import MessagePipe
from covey.wire.encoding import Codec
from covey.wire.protomux import Protomux
from covey.wire.protomux_channel import (
    BatchBegun,
    ChannelClosed,
    ChannelMessages,
    ChannelOpened,
    MoreLeft,
    MuxEvent,
    PairRequested,
    PairTimedOut,
    RemoteOpen,
)

__all__ = ["Channel", "Message", "Muxer"]

logger = logging.getLogger("covey.net.mux")


class Muxer(MuxerHandlers):
    """Runs many channels over one pipe, which it attaches itself to.

    `auto_batch=False` writes every frame by itself unless corked, exactly as the reference does.
    `on_warning` gets the errors that end nothing: those of handlers whose channel is closed.
    """

    __slots__ = (
        "__weakref__", "_auto_batch", "_ended", "_flush_handle",
        "_handling", "_hold", "_in_batch", "_intake", "_on_warning",
        "_pairing", "_paused", "_pipe", "_proceeding", "_timer", "_timer_at", "destroyed",
    )  # fmt: skip

    def __init__(
        self,
        pipe: MessagePipe,
        limits: Limits | None = None,
        *,
        auto_batch: bool = True,
        on_warning: Callable[[Exception], None] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.core = Protomux(limits=self.limits, gather=auto_batch)
        self.destroyed = False
        self._pipe = pipe
        self._loop = asyncio.get_running_loop()
        self._auto_batch = auto_batch
        self._on_warning = on_warning
        self._channels: dict[Channel, None] = {}
        self._tasks = HandlerTasks(self.limits.close_timeout)
        self.backlog = Backlog(self.limits.mux_backlog, self._backlog_exceeded)
        self._warned: set[str] = set()
        self._pairing = PairCallbacks(self)
        self._intake = Intake(self)
        self._outflow = Outflow(pipe, self.limits, self._update_reading)
        self._writers: dict[Channel, dict[asyncio.Future[None], None]] = {}
        self._slow: set[Channel] = set()
        self._spared: Channel | None = None
        self._hold: Hold | None = None
        self._in_batch = False
        self._handling = False
        self._paused = False
        self._proceeding: asyncio.Handle | None = None
        self._ended = False
        self._error: CoveyError | None = None
        self._flush_handle: asyncio.Handle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at: float | None = None
        self.core.outbox.accepting = pipe.drained
        pipe.attach(self)

    # Channels

    def create_channel(
        self,
        protocol: str,
        *,
        id: bytes | None = None,
        aliases: Sequence[str] = (),
        unique: bool = True,
        handshake: Codec[Any] | None = None,
        messages: Sequence[MessageSpec] = (),
        user_data: Any = None,
        on_open: OnOpen | None = None,
        on_close: OnClose | None = None,
        on_destroy: OnChannel | None = None,
        on_drain: OnChannel | None = None,
        backpressure: bool = False,
        ordered: bool = True,
    ) -> Channel:
        """Make a channel named by `protocol` and `id`; nothing is sent before `Channel.open`.

        Raises `ClosedError` when the stream is gone or the remote that asked for the channel has
        already withdrawn, `UsageError` when `unique` and a channel of that name is open here:
        protomux gives null for each. A pair callback may let both through: the open is rejected.

        Callbacks may be plain functions or coroutine functions: `on_open(handshake, channel)`,
        `on_close(remote, channel)`, `on_destroy(channel)` after the last handler ended, and
        `on_drain(channel)`. `messages` are codecs, or `(codec, on_message, auto_batch)`;
        `on_message(value)`. `aliases` are further names under which the remote's open is accepted.

        With `ordered` (the default) asynchronous handlers run one after the other; without, each
        starts when its message arrives, as in the reference. When handlers fall behind by more than
        `Limits.channel_backlog` the channel is closed; with `backpressure` the whole stream is
        paused instead, and the other channels with it.
        """
        if self.destroyed or self._ended:
            raise ClosedError("the stream is gone")
        core = self.core.create_channel(protocol, id=id, aliases=tuple(aliases), unique=unique)
        if core is None:
            self.flush_soon()
            if unique and self.core.opened(protocol, id):
                raise AlreadyOpen(f"channel {protocol!r} of that id is open already")
            raise ClosedError(f"the remote does not want channel {protocol!r} any more")
        channel = Channel(
            self,
            core,
            handshake=handshake,
            messages=messages,
            user_data=user_data,
            on_open=on_open,
            on_close=on_close,
            on_destroy=on_destroy,
            on_drain=on_drain,
            backpressure=backpressure,
            ordered=ordered,
        )
        self._channels[channel] = None
        return channel

    def pair(self, protocol: str, callback: PairCallback, id: bytes | None = None) -> None:
        """Call `callback(id)` when the remote opens a channel that is not open here.

        Without `id` for every id of the protocol; the exact name goes first. The callback may be a
        coroutine function, ended after `Limits.pair_timeout`. When it is done and has not opened
        the channel, the remote's open is rejected.
        """
        self.core.pair(protocol, callback, id)

    def unpair(self, protocol: str, id: bytes | None = None) -> None:
        """Forget the callback of that name."""
        self.core.unpair(protocol, id)

    def paired(self, protocol: str, id: bytes | None = None) -> PairCallback | None:
        """The callback of exactly that name."""
        callback: PairCallback | None = self.core.paired(protocol, id)
        return callback

    def opened(self, protocol: str, id: bytes | None = None) -> bool:
        """Whether a channel of that name was opened here, answered or not."""
        return self.core.opened(protocol, id)

    def get_last_channel(self, protocol: str, id: bytes | None = None) -> Channel | None:
        """The channel of that name which was opened last, while the name is in use."""
        core = self.core.get_last_channel(protocol, id)
        return None if core is None else core.owner

    def __iter__(self) -> Iterator[Channel]:
        return owners(self.core.channels)

    @property
    def is_idle(self) -> bool:
        """Whether no channel is open, opening, or closed but not yet answered."""
        return self.core.is_idle

    @property
    def drained(self) -> bool:
        """Whether the stream takes more without queueing too much."""
        return self.core.outbox.accepting

    def cork(self) -> None:
        """Collect what is sent until `uncork`; calls count. Not needed within one turn."""
        self.core.outbox.cork()

    def uncork(self) -> None:
        """Undo one `cork`; `UsageError` without one."""
        self.core.outbox.uncork()
        self.flush_soon()

    def destroy(self, error: CoveyError | None = None) -> None:
        """Cut the stream; `error` is kept as the reason. May be called again."""
        if self.destroyed or self._ended:
            return
        self.destroyed = True
        self._error = error
        self.core.outbox.clear()
        self._pipe.abort(error or ClosedError("the muxer was destroyed"))

    async def wait_closed(self) -> None:
        """Wait until no handler runs any more; call it after the pipe was closed.

        Handlers have `Limits.close_timeout` after that and are cancelled then. Returns at once in a
        handler of this muxer: two that wait would wait for each other.
        """
        if asyncio.current_task() not in self._tasks:
            await self._tasks.wait()

    def cancel_handlers(self) -> None:
        """Cancel what still runs after the pipe was closed, before its time is over."""
        if self._ended:
            self._tasks.end_now(self._cut_handlers)

    # The pipe calls these

    def messages_received(self, messages: list[bytes]) -> None:
        """Handle frames of the remote; what does not fit this turn of the loop comes later."""
        if self._intake.waiting:
            self._intake.add(messages)
            return
        self._handling = True
        if not self.core.outbox.accepting:
            self._outflow.handling()
        try:
            if (  # a lone message: half the steps, and nothing that the general way would add
                len(messages) == 1
                and not self.destroyed
                and (channel := self.core.lone(messages[0])) is not None
            ):
                frame = messages[0]
                channel.owner.receive_messages(frame[1], [frame[2:]])
            else:
                self._intake.receive(messages)
        except CoveyError as error:
            self.destroy(error)
        finally:
            self._handling = False
            self._step_done()

    def writable(self) -> None:
        """The write backlog drained."""
        self.core.answers_taken()
        self.core.outbox.accepting = True
        self._outflow.drained()
        for waiter in chain.from_iterable(self._writers.values()):
            if not waiter.done():
                waiter.set_result(None)
        for channel in self:
            channel.writable()

    def pipe_ended(self) -> None:
        """The remote ended its half: end ours too, there is no half-open mode."""
        self.flush()
        with contextlib.suppress(ClosedError):
            self._pipe.end()

    def pipe_closed(self, error: CoveyError | None) -> None:
        """The stream is gone: every channel closes."""
        if self._ended:
            return
        self._ended = True
        self._intake.drop()
        self._outflow.stop()
        self._error = error = self._error or error
        for handle in (self._flush_handle, self._timer, self._proceeding):
            if handle is not None:
                handle.cancel()
        running = set(self._tasks)
        self._tasks.cancel(self._pairing.tasks)
        cut = error or (ClosedError("the muxer was destroyed") if self.destroyed else None)
        self.destroyed = True
        ordered = list(owners(self.core.end()))
        for channel in dict.fromkeys([*ordered, *self._channels]):
            channel.stream_closed(cut)
        if cut is not None:
            self._tasks.cancel(running - {asyncio.current_task()})
        self._tasks.end_soon(self._cut_handlers)

    # Channels call these

    def flush_soon(self) -> None:
        """Write what was collected, at the latest with the end of this turn."""
        if self._auto_batch:
            self.entries_begun()
        else:
            self.flush()

    def entries_begun(self) -> None:
        """Entries are about to be added to the outbox: they leave with the end of this turn."""
        if self._auto_batch and self._flush_handle is None and not (self._handling or self._ended):
            self._flush_handle = self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Write what may leave."""
        if self._flush_handle is not None:
            self._flush_handle.cancel()
            self._flush_handle = None
        frames = self.core.outbox.flush()
        if not frames or self.destroyed or self._ended:
            return
        try:
            drained = self._pipe.write_messages(frames)
        except ClosedError:  # it was closed on this side, and tells us in its own time
            drained = False
        self.core.outbox.accepting = drained
        if drained:
            self.core.answers_taken()
        else:
            self._outflow.full()

    def deliver_soon(self, channel: Channel) -> None:
        """Deliver what was kept for `channel` in the next turn."""
        self._loop.call_soon(self._deliver, channel)

    def failed(self, channel: Channel, what: str, error: Exception) -> None:
        """A callback raised: the stream ends. Logged, unless the remote or an end is to blame."""
        if channel.closed:
            self.warn("%s on closed channel %r failed: %r", what, channel.protocol, error)
            if self._on_warning is not None:
                self._on_warning(error)
            return
        if not isinstance(error, ProtocolError | ClosedError):
            logger.error("%s on channel %r failed", what, channel.protocol, exc_info=error)
            wrapped = CoveyError(f"{what} on channel {channel.protocol!r} failed: {error}")
            wrapped.__cause__ = error
            error = wrapped
        channel.error = channel.error or error
        self.destroy(error)

    def reply_hold(self) -> Hold | None:
        """The hold of the batch that is being received, if there is one."""
        if self._in_batch and self._hold is None:
            token = self.core.hold(self._loop.time())
            self._hold = Hold(lambda: self._release(token))
        return self._hold

    def set_reading(self, channel: Channel, *, wanted: bool) -> None:
        """Pause the stream for `channel`, or end that."""
        if wanted:
            self._slow.discard(channel)
        else:
            self._slow.add(channel)
        self._update_reading()

    def pair_done(self, request: RemoteOpen) -> None:
        """The callback for `request` has ended."""
        if not self._ended:
            self._guarded(lambda: self.core.pairing_done(request))

    # Inside

    def _backlog_exceeded(self) -> None:
        """Handlers keep too much: the channels with the most go, then the stream."""
        if not self._shed() and not self.destroyed:
            limit = self.limits.mux_backlog
            self.destroy(ProtocolError(f"keeps handlers busy with more than {limit} bytes"))

    @property
    def held_up(self) -> bool:
        """Whether a channel, pairing or the remote's not reading keeps us from reading."""
        return self._outflow.held or self.core.paused or bool(self._slow)

    def handle(self, event: MuxEvent) -> None:
        """Act on one event of the core."""
        if self.destroyed:
            return
        if isinstance(event, ChannelMessages):
            event.channel.owner.receive_messages(event.type, event.payloads)
        elif isinstance(event, ChannelOpened):
            event.channel.owner.receive_open(event.handshake)
        elif isinstance(event, ChannelClosed):
            reason = None if event.remote else ClosedError(event.reason)
            event.channel.owner.receive_close(remote=event.remote, error=reason)
        elif isinstance(event, PairRequested):
            self._pairing.call(event)
        elif isinstance(event, BatchBegun):
            self._in_batch = True
            if not self._auto_batch:
                self.reply_hold()
        elif isinstance(event, PairTimedOut):
            self._pairing.give_up(event.request)
        elif not isinstance(event, MoreLeft):  # which is for the intake
            assert_never(event)

    def frame_done(self) -> None:
        """The frame is handled: replies leave when the handlers that it started are done."""
        if not self._in_batch:
            return
        self._in_batch = False
        hold, self._hold = self._hold, None
        if hold is not None:
            self._loop.call_soon(hold.done)

    def _release(self, token: int) -> None:
        self.core.release(token)
        self.flush()
        if self._timer_at is not None and not self._ended:
            self._arm()

    def _deliver(self, channel: Channel) -> None:
        if not self._ended:
            self._guarded(lambda: self._handle_all(self.core.deliver(channel.core)))

    def _handle_all(self, events: Iterator[MuxEvent]) -> None:
        for event in events:
            self.handle(event)

    def _guarded(self, step: Callable[[], None]) -> None:
        try:
            step()
        except CoveyError as error:
            self.destroy(error)
        self._step_done()

    def _step_done(self) -> None:
        """Write, re-arm the timer, and read or not."""
        if self._ended:
            return
        self.flush()
        if not self.core.outbox.accepting:
            self._outflow.handled()
        if self._timer_at is not None or self.core.timed:
            self._arm()
        if self._paused or self._slow or self.core.paused or self._intake.waiting:
            self._update_reading()

    def _proceed_soon(self) -> None:
        """Handle what is left of the remote's frames in the next turn."""
        if self._proceeding is None:
            self._proceeding = self._loop.call_soon(self._proceed)

    def _proceed(self) -> None:
        self._proceeding = None
        if self._ended or self.destroyed:
            return
        self._handling = True
        if not self.core.outbox.accepting:
            self._outflow.handling()
        try:
            self._intake.proceed()
        except CoveyError as error:
            self.destroy(error)
        finally:
            self._handling = False
            self._step_done()

    def _arm(self) -> None:
        at = self.core.next_timer()
        if at == self._timer_at:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = None if at is None else self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = self._timer_at = None
        self._guarded(lambda: self._handle_all(self.core.handle_timer(self._loop.time())))

    def _update_reading(self) -> None:
        held_up, waiting = self.held_up, self._intake.waiting and not self._handling
        if waiting and not held_up and not self.destroyed and not self._ended:
            self._proceed_soon()
        paused = held_up or waiting
        if paused != self._paused and not self.destroyed:
            self._paused = paused
            if paused:
                self._pipe.pause_reading()
            else:
                self._pipe.resume_reading()
