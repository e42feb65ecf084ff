"""What a handshake leads to: an encrypted stream of messages to one peer."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Self

from covey.address import Address
from covey.errors import ClosedError, CoveyError, UsageError
from covey.limits import Limits
from covey.net.attempt import Attempt
from covey.net.close_reason import CloseReason
from covey.net.pipe import MessageConsumer
from covey.net.stream_shell import StreamShell
from covey.net.waiters import Eventually, Waiters
from covey.wall_clock import wall_clock
from covey.wire.session import Buffer, Opened

if TYPE_CHECKING:
    from covey.net.mux import Muxer

logger = logging.getLogger("covey.net.connection")

MESSAGE_OVERHEAD = 64
"""Bytes that a kept message costs beyond its own, so that tiny ones fill the backlog too."""
SEND_COST = 4096
"""What one message costs of `SEND_BURST` at least: about the time of a small write."""
SEND_BURST = 512 * 1024
"""After so much sent without having to wait, `send` lets the rest of the process run."""

_ids = itertools.count(1)


class Connection:
    """Messages to and from one peer, in order, encrypted where the handshake encrypts.

    Read it in one of two ways: `async for message in connection` or through `connection.mux`.
    Until the first use messages are kept, and above `Limits.read_backlog` bytes the socket is
    paused, so that the remote waits. After the end every method raises `ClosedError`, whose
    `__cause__` is `close_error`.

    `async with` closes it. `id` is unique in the process; `type` is `tcp`; `handshake` is `noise`,
    `plain`, `raw`, or what was registered; `opened_at` is in milliseconds since 1970; `bytes_read`
    and `bytes_written` count what went over the socket, handshake and framing included.
    """

    __slots__ = (
        "__weakref__", "_address", "_callbacks", "_closed_here", "_closers", "_consumer",
        "_delivery", "_end_callbacks", "_gone", "_held", "_holding", "_inbox", "_iterated",
        "_limits", "_loop", "_mux", "_mux_allowed", "_paused_by_consumer", "_reader",
        "_reading_paused", "_remote_ended", "_sent_in_burst", "_shell", "_write_ended", "_writers",
        "attempt", "close_error", "close_reason", "close_text", "handshake_hash", "id",
        "messages_read", "messages_written", "opened_at", "remote_address", "remote_id",
        "remote_key",
    )  # fmt: skip

    def __init__(
        self,
        shell: StreamShell,
        opened: Opened,
        *,
        attempt: Attempt,
        remote_address: tuple[str, int],
        limits: Limits,
        multiplexed: bool = True,
    ) -> None:
        self.id = next(_ids)
        self.attempt = attempt
        self.remote_key = opened.remote_key
        self.remote_id = opened.remote_id
        self.handshake_hash = opened.handshake_hash
        self.remote_address = remote_address
        self.opened_at = wall_clock()
        self.messages_read = 0
        self.messages_written = 0
        self.close_reason: CloseReason | None = None
        self.close_text = ""
        self.close_error: CoveyError | None = None
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._shell = shell
        self._address = attempt.address
        self._mux: Muxer | None = None
        self._mux_allowed = multiplexed
        self._consumer: MessageConsumer | None = None
        self._inbox: deque[bytes] | None = None
        self._iterated = False
        self._held = 0
        self._holding = True
        self._delivery: asyncio.Handle | None = None
        self._reading_paused = False
        self._paused_by_consumer = False
        self._remote_ended = False
        self._write_ended = False
        self._closed_here = False
        self._gone = False
        self._sent_in_burst = 0
        self._reader: asyncio.Future[None] | None = None
        self._writers = Waiters()
        self._closers = Waiters()
        self._callbacks: list[Callable[[Connection], object]] = []
        self._end_callbacks: list[Callable[[Connection], object]] = []
        shell.owner = self

    def __repr__(self) -> str:
        state = f"closed: {self.close_reason}" if self.closed else "open"
        return f"<Connection {self.id} {self.address} {state}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    # What it is

    @property
    def address(self) -> Address:
        """The dialled address; for an accepted one, where it came from and the key it proved."""
        if self._address is None:
            self._address = self.attempt.address_from(self.remote_address, self.remote_key)
        return self._address

    @property
    def type(self) -> str:
        """The transport's name: `tcp`."""
        return self.attempt.type

    @property
    def initiator(self) -> bool:
        """Whether this side dialled."""
        return self.attempt.initiator

    @property
    def handshake(self) -> str:
        """The name of its handshake: `noise`, `plain`, `raw`, or what was registered."""
        return self.attempt.handshake

    @property
    def bytes_read(self) -> int:
        """Bytes that came from the socket."""
        return self._shell.bytes_read

    @property
    def bytes_written(self) -> int:
        """Bytes that were handed to the socket."""
        return self._shell.bytes_written

    @property
    def closed(self) -> bool:
        """Whether it can be used no more; what `wait_closed` waits for may still be under way."""
        return self._shell.closing

    @property
    def mux(self) -> Muxer:
        """The muxer of this connection, made on first use; then the muxer reads it.

        Raises `UsageError` on a connection that is iterated or whose handshake carries no muxer.
        """
        if self._mux is None:
            if not self._mux_allowed:
                raise UsageError(f"a connection with the {self.handshake} handshake has no muxer")
            from covey.net.mux import Muxer

            self._check_open()
            self._check_unread("mux")
            self._mux = Muxer(self, self._limits)
        return self._mux

    # Sending

    async def send(self, data: Buffer) -> None:
        """Send one message; waits while more than `Limits.write_backlog` bytes are unsent.

        When cancelled before it could be handed over, nothing of it is sent. Raises `ClosedError`.
        """
        if isinstance(data, str):
            raise TypeError("send takes bytes, bytearray or memoryview, not str: encode it")
        while self._shell.write_paused and not self.closed:
            await self._writers.wait()
        self._check_writable()
        self._shell.send([data])
        self.messages_written += 1
        size = len(data)
        self._sent_in_burst += max(SEND_COST, size)
        if self._sent_in_burst >= SEND_BURST:
            self._sent_in_burst = 0
            await asyncio.sleep(0)

    def write_messages(self, messages: list[Buffer]) -> bool:
        """Encrypt and hand over messages now; False: wait for `writable` before the next ones.

        Raises `ClosedError`.
        """
        shell = self._shell
        if self._write_ended or shell.closing:
            raise self._closed_error()
        shell.send(messages)
        self.messages_written += len(messages)
        return not shell.write_paused

    @property
    def drained(self) -> bool:
        """Whether the write backlog is low."""
        return not self._shell.write_paused

    @property
    def unsent(self) -> int:
        """Bytes in the write backlog."""
        return self._shell.unsent

    def end(self) -> Awaitable[None]:
        """End the write half after what was sent; reading goes on until the remote ends its own.

        Takes effect at once. Await the result to wait until everything has left this process.
        """
        self._check_open()
        self._flush_mux()
        self._write_ended = True
        self._shell.end()
        return Eventually(self.flushed)

    async def flushed(self) -> None:
        """Wait until the write backlog is low; after `end`, until all bytes have left."""
        while self._shell.write_paused and not self._gone:
            await self._writers.wait()
        if self._gone and self.close_error is not None:
            raise self._closed_error()

    # Receiving

    def __aiter__(self) -> Self:
        """Messages until the remote ends its half or this side closes.

        Raises `UsageError` when the muxer reads, and `ClosedError` where the connection was cut.
        """
        if self._closed_here:
            raise self._closed_error()
        if self._consumer is not None:
            raise UsageError("this connection is read by its muxer")
        self._iterated = True
        if self._inbox is None:
            self._inbox = deque()
        return self

    async def __anext__(self) -> bytes:
        inbox = self._inbox
        if inbox is None or self._consumer is not None:
            self._check_open()
            raise UsageError("iterate with `async for`, and not beside a consumer")
        while not inbox:
            if self._remote_ended or self.closed:
                self._learn_outcome()
                if self.close_error is not None:
                    raise self._closed_error()
                raise StopAsyncIteration
            if self._reader is not None:
                raise UsageError("one reader at a time")
            self._reader = self._loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        message = inbox.popleft()
        self._held -= len(message) + MESSAGE_OVERHEAD
        self._maybe_resume()
        return message

    def attach(self, consumer: MessageConsumer) -> None:
        """Give every message, those kept so far first, to `consumer`, from the next turn on."""
        self._check_open()
        self._check_unread("attach")
        self._consumer = consumer
        self._schedule_delivery()

    def pause_reading(self) -> None:
        """Keep messages from the consumer and stop reading the socket."""
        self._paused_by_consumer = True
        self._holding = True
        if not self._reading_paused:
            self._reading_paused = True
            self._shell.pause_reading()

    def resume_reading(self) -> None:
        """Deliver again from the next turn on, beginning with what was kept."""
        if self._paused_by_consumer:
            self._paused_by_consumer = False
            self._schedule_delivery()

    # Closing

    async def close(self, reason: CloseReason | str | None = None) -> None:
        """Send what is pending, at most for `Limits.close_timeout`, and close. May be repeated.

        `reason` is kept in `close_reason` (an own text: `close_text`); the remote is not told.
        """
        self.start_close(reason)
        await self.wait_closed()

    def start_close(self, reason: CloseReason | str | None = None) -> None:
        """`close` without waiting for its end."""
        if self.closed:
            return
        code = reason if isinstance(reason, CloseReason) else CloseReason.LOCAL
        if reason is None and self._remote_ended:
            code = CloseReason.REMOTE_END
        self._flush_mux()
        self.close_reason, self.close_text = code, str(reason or code)
        self._shell.close(code)
        self._forget_kept()
        self._wake_all()

    def abort(self, error: CoveyError | None = None, reason: CloseReason | None = None) -> None:
        """Cut at once, also when a `close` is under way; `error` is kept in `close_error`.

        After the end: cancel the channel handlers that still run.
        """
        if self._gone:
            if self._mux is not None:
                self._mux.cancel_handlers()
            return
        self._shell.abort(error, reason)
        self._learn_outcome()
        self._forget_kept()
        self._wake_all()

    async def wait_closed(self) -> None:
        """Return when the socket is closed, close callbacks have run and channel handlers ended.

        A handler of a channel that waits here does not wait for the handlers.
        """
        if not self._gone:
            await self._closers.wait()
        if self._mux is not None:
            await self._mux.wait_closed()

    def on_close(self, callback: Callable[[Connection], object]) -> None:
        """Call `callback(connection)` once, after the socket is closed; in the next turn if it is.

        A callback that fails is logged.
        """
        if self._gone:
            self._loop.call_soon(self._run_callback, callback)
        else:
            self._callbacks.append(callback)

    @property
    def unused(self) -> bool:
        """Whether nobody has read, written or multiplexed it so far, and nothing is kept."""
        return self._consumer is None and self._inbox is None and not self.messages_written

    def on_remote_end(self, callback: Callable[[Connection], object]) -> None:
        """Call `callback(connection)` when the remote ends its half; next turn if it has."""
        if self._remote_ended:
            self._loop.call_soon(self._run_callback, callback)
        else:
            self._end_callbacks.append(callback)

    @property
    def remote_ended(self) -> bool:
        """Whether the remote ended its half: what it sent before can still be read."""
        return self._remote_ended

    def probe(self, *, urgent: bool = True) -> None:
        """Have the system cut it in seconds if the remote is gone; not `urgent`: as usual again."""
        self._shell.probe(urgent=urgent)

    # What the shell calls

    def messages_received(self, messages: list[bytes]) -> None:
        """Pass messages to the consumer, or keep them for the reader."""
        self.messages_read += len(messages)
        if not self._holding and self._consumer is not None:
            self._consumer.messages_received(messages)
            return
        if self._inbox is None:
            self._inbox = deque()
        self._inbox.extend(messages)
        self._held += sum(map(len, messages)) + MESSAGE_OVERHEAD * len(messages)
        if self._held > self._limits.read_backlog and not self._reading_paused:
            self._reading_paused = True
            self._shell.pause_reading()
        self._wake_reader()

    def shell_ended(self) -> None:
        """The remote ended its half."""
        self._remote_ended = True
        if not self._holding and self._consumer is not None:
            self._consumer.pipe_ended()
        self._wake_reader()
        for callback in self._end_callbacks:
            self._run_callback(callback)

    def shell_writable(self) -> None:
        """The write backlog drained."""
        self._writers.wake()
        if self._consumer is not None:
            self._consumer.writable()

    def shell_closed(self, reason: CloseReason, error: CoveyError | None) -> None:  # noqa: ARG002
        """The socket is closed: tell everybody, once."""
        self._learn_outcome()
        self._gone = True
        consumer = self._consumer
        if consumer is not None:
            if self._holding and not self._paused_by_consumer:
                self._deliver_kept()
            self._consumer = None
            consumer.pipe_closed(self.close_error)
        if self._delivery is not None:
            self._delivery.cancel()
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            self._run_callback(callback)
        self._wake_all()

    # Inside

    def _check_open(self) -> None:
        if self.closed:
            raise self._closed_error()

    def _check_writable(self) -> None:
        if self._write_ended or self.closed:
            raise self._closed_error()

    def _check_unread(self, what: str) -> None:
        if self._consumer is not None:
            raise UsageError(f"{what}: this connection has a consumer already")
        if self._iterated:
            raise UsageError(f"{what}: this connection is read by iteration")

    def _closed_error(self) -> ClosedError:
        if not self.closed:
            return ClosedError(f"connection {self.id}: this side has ended its half")
        self._learn_outcome()
        error = ClosedError(f"connection {self.id} is closed: {self.close_text}")
        error.__cause__ = self.close_error
        return error

    def _learn_outcome(self) -> None:
        if self.close_reason is None and self.closed:
            self.close_reason, self.close_error = self._shell.outcome
            self.close_text = str(self.close_error or self.close_reason)

    def _flush_mux(self) -> None:
        """Let what this turn sent on channels leave before the end."""
        if self._mux is not None and not self._write_ended:
            self._mux.flush()

    def _forget_kept(self) -> None:
        self._closed_here = True
        if self._inbox is not None:
            self._inbox.clear()
        self._held = 0

    def _schedule_delivery(self) -> None:
        if self._delivery is None:
            self._delivery = self._loop.call_soon(self._deliver_kept)

    def _deliver_kept(self) -> None:
        self._delivery = None
        consumer = self._consumer
        if consumer is None or self._paused_by_consumer:
            return
        self._holding = False
        if self._inbox:
            messages, self._inbox, self._held = list(self._inbox), None, 0
            consumer.messages_received(messages)
        self._maybe_resume()
        if self._remote_ended and not self._holding and not self.closed:
            consumer.pipe_ended()

    def _maybe_resume(self) -> None:
        if not self._reading_paused or self._paused_by_consumer:
            return
        if self._held <= self._limits.read_backlog // 2:
            self._reading_paused = False
            self._shell.resume_reading()

    def _wake_reader(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def _wake_all(self) -> None:
        self._wake_reader()
        self._writers.wake()
        if self._gone:
            self._closers.wake()

    def _run_callback(self, callback: Callable[[Connection], object]) -> None:
        try:
            callback(self)
        except Exception:
            logger.exception("a callback of connection %d failed", self.id)
