"""The encrypted stream of the Hypercore family (secret-stream.md; @hyperswarm/secret-stream 6.9.2).

Raw bytes -> 3-byte length frames -> Noise messages, one header frame each way, then data frames.
Mutual authentication with Ed25519 keys, message boundaries kept, no padding. The end of the stream
is not authenticated: a protocol above that cares needs its own end marker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hmac import compare_digest

from covey.errors import HandshakeError, LimitError, ProtocolError, UsageError
from covey.keys import KEY_SIZE, KeyPair
from covey.limits import Limits
from covey.wire.cipher import (
    FRAME_OVERHEAD,
    HEADER_SIZE,
    LONE_SIZE,
    MAX_MESSAGE,
    PREFIX_SIZE,
    Opener,
    Sealer,
    make_opener,
    make_sealer,
)
from covey.wire.noise import HandshakeResult, HandshakeState
from covey.wire.session import (
    Buffer,
    Ended,
    MessagesReceived,
    Opened,
    SessionEvent,
    TimedOut,
    WorkLeft,
)
from covey.wire.stream_clock import StreamClock
from covey.wire.stream_opening import (
    EPHEMERAL_SEED_SIZE,
    ID_SIZE,
    Ahead,
    check_result,
    stream_id,
)

HEADER_BODY = ID_SIZE + HEADER_SIZE


class SecretStream:
    """One side of an encrypted stream, without I/O: a `Session`.

    `pattern` is XX, IK or XK. `remote_public_key` is the key the remote must prove, in every
    pattern (IK and XK need it on the initiator's side). `handshake` skips the handshake with values
    taken from elsewhere. `deliver_empty` hands out empty messages, which otherwise count as
    keep-alives and are swallowed. `random_bytes(n)` is called with 32 at construction (the
    ephemeral seed; not with `handshake`), then with 24 when the stream opens (our header).

    With `ahead` both ends multiply at the same time instead of one after the other: the stream
    reports `WorkLeft`, so that its ephemeral key leaves before the multiplications that the rest of
    that message takes, and a remote that does the same is met halfway. The bytes are the same.
    `pattern` and `prologue` are then those of `ahead.handshake`. Either multiplies by `likely_key`
    (first the pinned one) while the other works; who has another key is no less welcome, where none
    is pinned, but costs that time again.

    The handshake, up to the remote's header frame, has the fixed budget `Limits.handshake_timeout`
    from `now` on. Keep-alive and idle timeout begin as `Limits` has them; see `StreamClock`.

    Raises `UsageError` for options that do not fit each other. `HandshakeError` before and
    `ProtocolError` after the opening come out of `receive_data` only; events that were complete
    before the fault are then left for `take_events`.
    """

    __slots__ = (
        "_ahead", "_clock", "_events", "_failure", "_handshake", "_is_initiator", "_limits",
        "_max_message", "_opener", "_out", "_partial", "_queue", "_queued", "_random_bytes",
        "_result_keys", "_sealer", "_unfinished", "bytes_read", "bytes_written", "deliver_empty",
        "handshake_hash", "likely_key", "messages_read", "messages_written", "public_key",
        "remote_public_key",
    )  # fmt: skip

    def __init__(
        self,
        *,
        is_initiator: bool,
        key_pair: KeyPair,
        now: float,
        random_bytes: Callable[[int], bytes],
        pattern: str = "XX",
        remote_public_key: bytes | None = None,
        prologue: bytes = b"",
        handshake: HandshakeResult | None = None,
        ahead: Ahead | None = None,
        limits: Limits = Limits(),  # noqa: B008  frozen
        deliver_empty: bool = False,
    ) -> None:
        if pattern == "NN":
            raise UsageError("the Noise pattern NN proves no key: a secret stream cannot use it")
        self._is_initiator = is_initiator
        self._limits = limits
        self._random_bytes = random_bytes
        self.deliver_empty = deliver_empty
        self.public_key = key_pair.public_key
        self.remote_public_key: bytes | None = None
        self.handshake_hash: bytes | None = None
        self.bytes_read = self.bytes_written = self.messages_read = self.messages_written = 0
        self._failure: tuple[type[HandshakeError | ProtocolError], str] | None = None
        self._events: list[SessionEvent] = []
        self._out: list[Buffer] = []
        self._queue: list[bytes] = []
        self._queued = 0
        self._partial: bytearray | None = None
        self._sealer: Sealer | None = None
        self._opener: Opener | None = None
        self._result_keys: HandshakeResult | None = None
        self._handshake: HandshakeState | None = None
        self._clock = StreamClock(limits, now)
        self._max_message = min(MAX_MESSAGE, limits.max_frame - FRAME_OVERHEAD + PREFIX_SIZE)
        self._ahead = ahead
        self.likely_key = remote_public_key
        self._unfinished = False
        if handshake is not None:
            check_result(handshake, remote_public_key)
            self._open(handshake)
            return
        if ahead is not None:
            self._handshake = ahead.handshake
            self._handshake.begin(is_initiator=is_initiator, remote_public_key=remote_public_key)
        else:
            self._handshake = HandshakeState(
                pattern,
                is_initiator=is_initiator,
                key_pair=key_pair,
                ephemeral_seed=random_bytes(EPHEMERAL_SEED_SIZE),
                prologue=prologue,
                remote_public_key=remote_public_key,
            )
        if is_initiator:
            self._write_frame(self._handshake.send())
            if ahead is not None:
                self._events.append(WorkLeft())

    # What the owner may ask

    @property
    def opened(self) -> bool:
        """Whether the handshake is over; `remote_public_key` and `handshake_hash` are known then.

        The remote's header frame may still be on its way.
        """
        return self._sealer is not None

    @property
    def is_initiator(self) -> bool:
        """Which role this side has."""
        return self._is_initiator

    # Receiving

    def receive_data(self, data: Buffer, now: float) -> list[SessionEvent]:
        """Events completed by `data`; see `Session`. What must be kept of `data` is copied."""
        if self._failure is not None:
            fault, message = self._failure
            raise fault(message)
        messages: list[bytes] = []
        try:
            with memoryview(data) as view:
                self._read(view if view.format == "B" else view.cast("B"), now, messages)
            if self._partial is not None and self._handshake is not None:
                self._handshake.receive_ahead(bytes(self._partial[PREFIX_SIZE:]))
        except (HandshakeError, ProtocolError) as error:
            self._fail(error)
            self._deliver(messages)
            raise
        self._deliver(messages)
        return self.take_events()

    def _fail(self, error: HandshakeError | ProtocolError) -> None:
        # not the error itself: its traceback leads back here, a cycle for every lost peer
        self._failure = type(error), str(error)
        self._partial = None

    def receive_lone(self, data: memoryview, now: float) -> bytes | None:
        """The message of `data` when that is one small frame, whole and alone: the common read.

        None: nothing has happened, `receive_data` has to judge. Never raises.
        """
        opener = self._opener
        if opener is None or self._partial is not None or self._events or self._failure is not None:
            return None
        size = len(data)
        if size > self._limits.max_frame:
            return None
        message = opener.open_lone(data)
        if message is not None:
            self._clock.read_at = now
            self.bytes_read += size
            self.messages_read += 1
        return message

    def _read(self, view: memoryview, now: float, messages: list[bytes]) -> None:
        size = len(view)
        if not size:
            return
        clock = self._clock
        clock.read_at = now
        self.bytes_read += size
        offset = 0
        if self._partial is not None:
            offset = self._finish_partial(self._partial, view, messages)
            if self._partial is None:
                clock.frame_at = None
        if offset < size:
            offset = self._receive_frames(view, offset, messages)
            if offset < size:
                self._partial = bytearray(view[offset:])
                clock.frame_at = now

    def receive_eof(self, now: float) -> list[SessionEvent]:
        """The remote ended its half: `Ended`, truncated inside a frame or before its header."""
        del now
        truncated = self._partial is not None or self._opener is None
        self._partial = None
        self._clock.stop_reading()
        self._events.append(Ended(truncated))
        return self.take_events()

    def take_events(self) -> list[SessionEvent]:
        """Events not handed out yet.

        There are some before the first call when the handshake was done elsewhere, and after a call
        that raised when the same bytes completed something before the fault.
        """
        events, self._events = self._events, []
        return events

    def _deliver(self, messages: list[bytes]) -> None:
        if messages and not all(messages):
            self._clock.keeps_alive = True
            if not self.deliver_empty:
                messages = [message for message in messages if message]
        if messages:
            self.messages_read += len(messages)
            self._events.append(MessagesReceived(messages))

    def _finish_partial(self, partial: bytearray, view: memoryview, messages: list[bytes]) -> int:
        """Complete the frame kept from earlier calls; returns how much of `view` that took."""
        start = 0
        if len(partial) < PREFIX_SIZE:
            start = PREFIX_SIZE - len(partial)
            partial += view[:start]
            if len(partial) < PREFIX_SIZE:
                return len(view)
            self._receive_frames(memoryview(bytes(partial)), 0, messages)  # judges the length
        need = PREFIX_SIZE + int.from_bytes(partial[:PREFIX_SIZE], "little")
        end = start + need - len(partial)
        partial += view[start:end]  # grows as bytes arrive, whatever length was announced
        if len(partial) < need:
            return len(view)
        self._partial = None
        with memoryview(partial) as frame:
            self._receive_frames(frame, 0, messages)
        return end

    def _receive_frames(self, view: memoryview, offset: int, messages: list[bytes]) -> int:
        """Process every whole frame from `offset` on; returns where the rest begins."""
        while self._opener is None:
            if self._unfinished and offset < len(view):
                self._finish_sending()
            body = offset + PREFIX_SIZE
            if body > len(view):
                return offset
            length = int.from_bytes(view[offset:body], "little")
            self._check_length(length)
            if body + length > len(view):
                return offset
            offset = body + length
            self._receive_opening(bytes(view[body:offset]))
        return self._opener.open_frames(view, offset, messages, self._limits.max_frame)

    # The handshake and the header frame

    def _check_length(self, length: int) -> None:
        """Refuse what cannot be the next frame before any byte of it is kept (section 10)."""
        handshake = self._handshake
        if handshake is None:
            if length != HEADER_BODY:
                raise ProtocolError(f"the header frame has {length} bytes, it takes {HEADER_BODY}")
            return
        least = handshake.next_size
        most = least + self._limits.max_handshake_payload
        if not least <= length <= most:
            raise HandshakeError(
                f"a handshake frame of {length} bytes where {least} to {most} belong: "
                "the remote speaks another protocol or another handshake"
            )

    def _receive_opening(self, body: bytes) -> None:
        handshake = self._handshake
        if handshake is None:
            self._receive_header(body)
            return
        handshake.receive(body)
        self._go_on(handshake)

    def _go_on(self, handshake: HandshakeState) -> None:
        """Send our next message, or its beginning and a note that the rest is to be done."""
        if handshake.sends_next and self._ahead is not None:
            size = handshake.next_size
            if beginning := handshake.send_ahead():
                self._write(size.to_bytes(PREFIX_SIZE, "little") + beginning)
                self._unfinished = True
                self._events.append(WorkLeft())
                return
        if handshake.sends_next:
            self._write_frame(handshake.send())
        if handshake.complete:
            self._open(handshake.result())

    def work(self) -> list[SessionEvent]:
        """Do what was put off; see `WorkLeft`. Raises `HandshakeError` as `receive_data` does."""
        ahead, handshake = self._ahead, self._handshake
        if self._unfinished and self._failure is None:
            try:
                self._finish_sending()
            except HandshakeError as error:
                self._fail(error)
                raise
            self._events.append(WorkLeft())
            return self.take_events()
        if handshake is not None and self.likely_key is not None:
            handshake.multiply_ahead(self.likely_key)
        if ahead is not None and (handshake is None or not self._is_initiator):
            self._ahead = None
            ahead.idle()
        return self.take_events()

    def _finish_sending(self) -> None:
        self._unfinished = False
        if self._handshake is not None:
            self._write(self._handshake.send())
            self._go_on(self._handshake)

    def _write_frame(self, body: bytes) -> None:
        self._write(len(body).to_bytes(PREFIX_SIZE, "little") + body)

    def _write(self, data: bytes) -> None:
        self.bytes_written += len(data)
        self._out.append(data)

    def _open(self, result: HandshakeResult) -> None:
        """The keys are there: send our header and what was queued, and wait for theirs."""
        self._handshake = None
        self._result_keys = result
        self.remote_public_key = result.remote_public_key
        self.handshake_hash = result.hash
        header = self._random_bytes(HEADER_SIZE)
        self._write_frame(stream_id(result.hash, is_initiator=self._is_initiator) + header)
        self._sealer = make_sealer(result.tx[:KEY_SIZE], header)
        self._clock.opened = True
        self._events.append(Opened(result.remote_public_key, None, result.hash))
        if self._ahead is not None and self._is_initiator:  # it waits now, for the header
            self._events.append(WorkLeft())
        if self._queue:
            self._seal(self._sealer, self._queue)
            self._queue, self._queued = [], 0

    def _receive_header(self, body: bytes) -> None:
        result = self._result_keys
        if result is None:
            raise ProtocolError("a header frame before the stream is open")
        expected = stream_id(result.hash, is_initiator=not self._is_initiator)
        if not compare_digest(body[:ID_SIZE], expected):
            raise ProtocolError("the header frame names another stream: reflected or damaged")
        self._opener = make_opener(result.rx[:KEY_SIZE], body[ID_SIZE:])
        self._result_keys = None
        self._clock.handshake_deadline = None

    # Sending

    def send_messages(self, messages: Sequence[Buffer], now: float | None = None) -> None:
        """Seal messages, or keep them until the stream opens; see `Session`.

        `now` restarts the keep-alive interval; without it the interval may last up to twice as
        long. Raises `LimitError` when a message does not fit in a frame (nothing is sent then) or
        when more than `Limits.max_queued` bytes, frame overhead included, wait for the opening.
        """
        size = 0
        for message in messages:
            length = len(message) if type(message) is bytes else memoryview(message).nbytes
            if length > self._max_message:
                raise self._too_large(length)
            size += length + FRAME_OVERHEAD
        if now is None:
            self._clock.sent = True
        else:
            self._clock.written_at = now
        self.messages_written += len(messages)
        if self._sealer is None:
            self._keep_until_open(messages, size)
        else:
            self._seal(self._sealer, messages)

    def seal_lone(self, message: Buffer) -> bytes | None:
        """The frame of one small message, to be written at once: a `send_messages` and its data.

        None: nothing has happened, the message has to go through `send_messages`.
        """
        sealer = self._sealer
        if sealer is None or self._out or self._max_message < LONE_SIZE:
            return None
        frame = sealer.seal_lone(message)
        if frame is not None:
            self._clock.sent = True
            self.messages_written += 1
            self.bytes_written += len(frame)
        return frame

    def _too_large(self, length: int) -> LimitError:
        most = self._max_message
        return LimitError(
            f"a message of {length} bytes, one frame carries {most}",
            limit="max_frame",
            allowed=most,
        )

    def _keep_until_open(self, messages: Sequence[Buffer], size: int) -> None:
        if self._queued + size > self._limits.max_queued:
            raise LimitError(
                f"more than {self._limits.max_queued} bytes queued before the handshake is over",
                limit="max_queued",
                allowed=self._limits.max_queued,
            )
        self._queued += size
        self._queue.extend(bytes(message) for message in messages)

    def _seal(self, sealer: Sealer, messages: Sequence[Buffer]) -> None:
        frames = sealer.seal(messages)
        self.bytes_written += sum(map(len, frames))
        self._out += frames

    def data_to_send(self) -> list[Buffer]:
        """Take the bytes that are ready to leave, in order, in few buffers."""
        out, self._out = self._out, []
        return out

    # Time

    def set_keep_alive(self, seconds: float, now: float) -> None:
        """Send an empty frame after so long without a write; 0 stops that."""
        self._clock.set_keep_alive(seconds, now)

    def set_timeout(self, seconds: float, now: float) -> None:
        """Report `TimedOut` after so long, from `now` on, without a byte from the remote; 0: never.

        `Limits.idle_timeout`, which holds until then, counts only for a remote that `keeps_alive`.
        """
        self._clock.set_timeout(seconds, now)

    def set_reading(self, reading: bool, now: float) -> None:
        """Say that nothing is read from now on, or that it is again: no time counts in between."""
        self._clock.set_reading(reading, now)

    @property
    def keeps_alive(self) -> bool:
        """Whether the remote has sent an empty frame, so that its silence counts."""
        return self._clock.keeps_alive

    @property
    def held(self) -> int:
        """Bytes kept of a frame that is not whole."""
        return len(self._partial) if self._partial is not None else 0

    def discard(self) -> None:
        """Let go of a frame that is not whole: the stream is over."""
        self._partial = self._clock.frame_at = None

    def next_timer(self) -> float | None:
        """When `handle_timer` is due; a moment in the past while events wait to be taken."""
        if self._events:
            return self._clock.read_at
        if self._clock.timed_out or self._failure is not None:
            return None
        return self._clock.next_timer(self.held)

    def handle_timer(self, now: float) -> list[SessionEvent]:
        """Time out, or put an empty frame in `data_to_send`; does nothing before it is due."""
        clock = self._clock
        if clock.timed_out or self._failure is not None:
            return self.take_events()
        due = clock.due(self.held, now)
        if due == "keep-alive":
            clock.written_at = now
            if self._sealer is not None and not clock.sent:
                self._seal(self._sealer, [b""])
            clock.sent = False
        elif due is not None:
            clock.timed_out = True
            self._events.append(TimedOut(due))
        return self.take_events()
