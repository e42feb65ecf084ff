"""The asyncio shell of a session: moves bytes and time, decides nothing.

It has one step: feed, write, re-arm the timer, deliver. Nothing else touches the transport.
"""

from __future__ import annotations

import asyncio
from typing import assert_never, cast
from weakref import WeakKeyDictionary

from covey.errors import ClosedError, CoveyError, HandshakeError, HandshakeTimeout, ProtocolError
from covey.limits import Limits
from covey.net.close_reason import CloseReason, loss_error, reason_of, reason_of_loss
from covey.net.partial_frames import PartialFrames
from covey.net.shell_owner import QuickSession, ShellOpening, ShellOwner
from covey.net.sockets import failure_of, probe, unacknowledged
from covey.wire.cipher import FRAME_OVERHEAD, LONE_SIZE
from covey.wire.session import (
    Buffer,
    Ended,
    MessagesReceived,
    Opened,
    Session,
    SessionEvent,
    TimedOut,
    WorkLeft,
)

SCRATCH_SIZE = 256 * 1024
"""Bytes of one read: enough for several 64 KiB messages, small enough to stay in the L2 cache."""
LONE_READ = LONE_SIZE + FRAME_OVERHEAD
"""Bytes of a read that may be one small frame."""
FIRST_LINGER = 0.005
"""Seconds until a closing shell looks again whether everything has left; doubled each time."""

_scratches: WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = WeakKeyDictionary()


def _scratch_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    """The receive buffer that all connections of `loop` share.

    A loop asks for the buffer, fills it and tells so without running anything in between, and a
    session keeps nothing of what it is fed, so one is enough however many connections there are.
    """
    scratch = _scratches.get(loop)
    if scratch is None:
        scratch = _scratches[loop] = memoryview(bytearray(SCRATCH_SIZE))
    return scratch


class StreamShell(asyncio.BufferedProtocol):
    """Drives one `Session` over one asyncio transport until that is gone.

    `opening` hears of the handshake, `owner` gets everything else; with `quick` the session is a
    `QuickSession`. Once `closing` is True nothing can be sent or received any more.
    """

    __slots__ = (
        "__weakref__", "_close_at", "_counted", "_error", "_frames", "_gone", "_keeps_alive",
        "_left", "_limits", "_look_at", "_loop", "_opening", "_pause", "_quick", "_reading_paused",
        "_reason", "_remote_ended", "_scratch", "_session", "_timer", "_timer_at", "_transport",
        "_write_ended", "bytes_read", "bytes_written", "closing", "owner", "write_paused",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        owner: ShellOwner,
        *,
        opening: ShellOpening,
        limits: Limits,
        quick: bool = False,
        frames: PartialFrames | None = None,
    ) -> None:
        self.owner = owner
        self.bytes_read = self.bytes_written = 0
        self.write_paused = self.closing = False
        self._loop = asyncio.get_running_loop()
        self._scratch = _scratch_of(self._loop)
        self._session = session
        self._opening: ShellOpening | None = opening
        self._limits = limits
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._close_at: float | None = None
        self._pause = 0.0
        self._frames = frames
        self._counted = self._left = 0
        self._keeps_alive = self._reading_paused = False
        self._look_at: float | None = None
        self._quick = cast("QuickSession", session) if quick else None
        self._reason: CloseReason | None = None
        self._error: CoveyError | None = None
        self._gone = self._remote_ended = self._write_ended = False

    # What the owner calls

    @property
    def session(self) -> Session:
        """The session that this shell drives."""
        return self._session

    @property
    def outcome(self) -> tuple[CloseReason, CoveyError | None]:
        """What ended it; meaningful once `closing`."""
        return self._reason or CloseReason.LOCAL, self._error

    def send(self, messages: list[Buffer]) -> None:
        """Encrypt and hand to the system now. The caller has checked `closing`."""
        quick, transport = self._quick, self._transport
        if (
            len(messages) == 1
            and quick is not None
            and transport is not None
            and not self._write_ended
            and (frame := quick.seal_lone(messages[0])) is not None
        ):
            transport.write(frame)
            self.bytes_written += len(frame)
        else:
            self._session.send_messages(messages)
            self._write()
        if self._timer is None:
            self._arm()

    @property
    def unsent(self) -> int:
        """Bytes that wait for the socket."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def pause_reading(self) -> None:
        """Stop reading from the socket, so that the remote has to wait."""
        if self._transport is not None:
            self._transport.pause_reading()
            self._set_reading(False)  # silence is our own doing now

    def resume_reading(self) -> None:
        """Read again."""
        if self._transport is not None:
            self._transport.resume_reading()
            self._set_reading(True)

    def probe(self, *, urgent: bool) -> None:
        """Have the system look for the remote's host now, or again as usual."""
        if self._transport is not None and not self.closing:
            probe(self._transport, self._limits, urgent=urgent)

    def end(self) -> None:
        """End the write half once everything handed over has left; both halves ended: close."""
        if self._transport is None or self.closing or self._write_ended:
            return
        self._write_ended = True
        if self._remote_ended:
            self.close(CloseReason.REMOTE_END)
        else:
            self._shut_down(self._transport)

    def close(self, reason: CloseReason) -> None:
        """Let what was handed over reach the remote, for at most `Limits.close_timeout`; close.

        A system answers bytes that arrive at a closed socket with a reset, and then drops what it
        has not delivered yet. So the socket stays open until the remote's system has everything
        or the remote has ended its half; what arrives meanwhile is dropped.
        """
        if self.closing:
            return
        self._close_with(reason)
        transport = self._transport
        if transport is None:
            return
        if self._all_left(transport):
            transport.close()  # what is left to do happens in the next turn: no timer needed
            return
        if self._remote_ended:
            self._close_within(transport)
            return
        if not self._write_ended:
            self._write_ended = True
            self._shut_down(transport)
        transport.resume_reading()
        self._close_within(None)

    def abort(self, error: CoveyError | None, reason: CloseReason | None = None) -> None:
        """Cut now; what was not sent is lost. A close under way is cut short."""
        if not self.closing:
            self._close_with(reason or (reason_of(error) if error else CloseReason.LOCAL))
            self._error = error
        self._discard()
        if self._transport is not None:
            self._transport.abort()

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The raw connection is up: tell the owner, send what the session begins with."""
        self._transport = cast("asyncio.Transport", transport)
        if self.closing:
            self._transport.abort()
            return
        if self._session.opened:
            self._set_backlog()
        else:  # uvloop writes at once where nothing may be kept: before we go on and multiply
            self._transport.set_write_buffer_limits(high=0)
        if self._opening is not None:
            self._opening.shell_started()
        self._step(self._session.take_events())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Where the loop puts what it reads."""
        return self._scratch

    def buffer_updated(self, nbytes: int) -> None:
        """`nbytes` were read: one step."""
        if self.closing:
            return
        self.bytes_read += nbytes
        now = self._loop.time()
        data = self._scratch[:nbytes]
        quick = self._quick
        if (  # a request or an answer by itself: 5 µs less a turn than the general way
            nbytes <= LONE_READ
            and quick is not None
            and (message := quick.receive_lone(data, now)) is not None
        ):
            self.owner.messages_received([message])  # nothing to write, and no deadline is nearer
            return
        try:
            events = self._session.receive_data(data, now)
        except (ProtocolError, HandshakeError) as error:
            self._step(self._session.take_events())
            self.abort(error)
            return
        if quick is not None:
            if quick.held != self._counted:
                self._count(quick.held)
            if quick.keeps_alive is not self._keeps_alive:  # a deadline nearer than any so far
                self._keeps_alive = True
                self._arm()
        self._step(events)

    def eof_received(self) -> bool:
        """The remote ended its half; ours stays open until somebody ends it."""
        self._remote_ended = True
        if self.closing:
            return False
        try:
            events = self._session.receive_eof(self._loop.time())
        except (ProtocolError, HandshakeError) as error:
            self.abort(error)
            return False
        self._step(events)
        if self._write_ended and not self.closing:
            self.close(CloseReason.LOCAL)
        return not self.closing

    def pause_writing(self) -> None:
        """More than `Limits.write_backlog` bytes wait for the socket."""
        self.write_paused = True
        self._look()

    def resume_writing(self) -> None:
        """Half of that has left."""
        self.write_paused = False
        if not self.closing:
            self.owner.shell_writable()
        elif self._transport is not None and self._all_left(self._transport):
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is gone: nothing of this shell stays behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._gone:
            return
        self._gone = True
        self._discard()
        if not self.closing:
            self._lost(exc)
        self._transport = None
        self.owner.shell_closed(*self.outcome)

    # The step

    def _step(self, events: list[SessionEvent]) -> None:
        if self.closing:
            return
        self._write()
        if self._timer is None:  # messages only move deadlines away
            self._arm()
        for event in events:
            if self.closing:
                return
            if isinstance(event, MessagesReceived):
                self.owner.messages_received(event.messages)
            elif isinstance(event, Opened):
                self._opened(event)
            elif isinstance(event, WorkLeft):
                self._work()
            elif isinstance(event, Ended):
                self._ended()
            elif isinstance(event, TimedOut):
                self._timed_out(event)
            else:
                assert_never(event)

    def _opened(self, event: Opened) -> None:
        self._set_backlog()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.shell_opened(event)
        self._arm()

    def _set_backlog(self) -> None:
        if self._transport is not None and not self._write_ended:
            backlog = self._limits.write_backlog
            self._transport.set_write_buffer_limits(high=backlog, low=backlog // 2)

    def _work(self) -> None:
        """What the session put off until the bytes before it had left."""
        if self.closing or self._quick is None:
            return
        try:
            events = self._quick.work()
        except HandshakeError as error:
            self.abort(error)
            return
        self._step(events)

    def _write(self) -> None:
        pending = self._session.data_to_send()
        transport = self._transport
        if not pending or transport is None or self._write_ended:
            return
        # Not `writelines`: before CPython 3.12.9 and 3.13.2 it never pauses the writer, and 3.11
        # joins the buffers first. They are few and large.
        for data in pending:
            self.bytes_written += len(data)
            transport.write(data)

    def _arm(self) -> None:
        """See that the one timer fires in time. It is left alone when it fires too early."""
        if self.closing:
            return
        at = self._session.next_timer()
        if at is None or (self._look_at is not None and self._look_at < at):
            at = self._look_at
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._loop.time()
        if self._close_at is not None:
            self._linger(now, self._close_at)
            return
        if self._look_at is not None and self._look_at <= now:
            self._looked()
        at = self._session.next_timer()
        if not self.closing and at is not None and at <= now:
            self._step(self._session.handle_timer(now))
        if not self.closing and self._timer is None:
            self._arm()

    def _ended(self) -> None:
        if self._session.opened:
            self.owner.shell_ended()
        else:
            self.abort(HandshakeError("the remote ended the connection during the handshake"))

    def _timed_out(self, event: TimedOut) -> None:
        if event.phase == "handshake":
            seconds = self._limits.handshake_timeout
            self.abort(HandshakeTimeout(f"no complete handshake within {seconds:g} s"))
        else:
            late = "silent for too long" if event.phase == "idle" else "too slow with a frame"
            self.abort(ClosedError(f"the remote was {late}"), CloseReason.TIMEOUT)

    def _set_reading(self, reading: bool) -> None:
        self._reading_paused = not reading
        if self._quick is not None:
            self._quick.set_reading(reading, self._loop.time())
        if reading:
            self._arm()
        elif self._look_at is None:
            self._look()

    # Connections that do not move

    def _look(self) -> None:
        """Look at the socket in a while: nobody meets an error where nothing moves."""
        timeout, transport = self._limits.idle_timeout, self._transport
        if timeout > 0 and transport is not None:
            self._left = self.bytes_written - transport.get_write_buffer_size()
            self._look_at = self._loop.time() + timeout
            self._arm()

    def _looked(self) -> None:
        """Cut where nothing of a full write buffer has left in the while, or the socket failed."""
        self._look_at, transport = None, self._transport
        if transport is None or not (self.write_paused or self._reading_paused):
            return
        error = failure_of(transport)
        if error is not None:
            self._lost(error)
            transport.abort()
        elif (
            self.write_paused
            and self.bytes_written - transport.get_write_buffer_size() <= self._left
        ):
            self.abort(ClosedError("the remote did not read for too long"), CloseReason.TIMEOUT)
        else:
            self._look()

    def _lost(self, exc: Exception | None) -> None:
        """Note how the connection ended without our doing."""
        self._close_with(reason_of_loss(exc))
        self._error = loss_error(exc) if exc else None

    def _count(self, held: int) -> None:
        """Note what is held of a frame that is not whole, and how long it may take."""
        self._counted = held
        if self._frames is not None:
            self._frames.count(self, held)
        if held:
            self._arm()

    def _discard(self) -> None:
        """Let go of what is held of a frame: the rest will not come."""
        if self._quick is not None:
            self._quick.discard()
        if self._counted:
            self._count(0)

    # The end

    def _close_within(self, transport: asyncio.Transport | None) -> None:
        """Begin the time that a close may take; `transport` closes once its buffer is empty."""
        now = self._loop.time()
        self._close_at = now + self._limits.close_timeout
        self._pause = FIRST_LINGER
        if transport is not None:
            transport.close()
            self._linger_until(self._close_at)
        else:
            self._linger_until(now + self._pause)

    def _linger(self, now: float, deadline: float) -> None:
        """Look whether everything has left; cut when the time is over."""
        transport = self._transport
        if transport is None:
            return
        if now >= deadline:
            transport.abort()
            return
        if self._all_left(transport):
            transport.close()
        self._pause *= 2
        self._linger_until(min(deadline, now + self._pause))

    def _linger_until(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        self._timer = self._loop.call_at(at, self._on_timer)

    def _shut_down(self, transport: asyncio.Transport) -> None:
        """End the write half; writable means from now on that all has left."""
        transport.set_write_buffer_limits(high=0)
        try:
            transport.write_eof()
        except OSError as error:  # reset by the remote, and the loop has not looked yet
            if not self.closing:
                self._lost(error)
            self._discard()
            transport.abort()

    def _close_with(self, reason: CloseReason) -> None:
        self._reason = reason
        self.closing = True

    def _all_left(self, transport: asyncio.Transport) -> bool:
        return not transport.get_write_buffer_size() and not unacknowledged(transport)
