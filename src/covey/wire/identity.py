"""The discovery swarm's own handshake (discovery-swarm.md section 5; discovery-swarm 6.1.0).

Both sides at once send a LEB128 length and their id, then raw application bytes follow. Nothing is
encrypted and nothing is proven: whoever listens reads along, and anybody can claim any id.
"""

from __future__ import annotations

from collections.abc import Sequence

from covey.errors import HandshakeError, LimitError, UsageError
from covey.limits import Limits
from covey.wire.session import (
    Buffer,
    Ended,
    MessagesReceived,
    Opened,
    SessionEvent,
    TimedOut,
)

ID_SIZE = 32
"""Bytes of the id that the reference draws; others are allowed."""
MAX_ID_SIZE = 64
"""Longest id accepted unless told otherwise."""
MAX_LENGTH = (1 << 14) - 1
"""What two length bytes can say; more are refused."""


def encode_identity(identity: bytes) -> bytes:
    """Length and id as they go out; `UsageError` for an id that no remote would take."""
    size = len(identity)
    if not 1 <= size <= MAX_LENGTH:
        raise UsageError(f"an id has 1 to {MAX_LENGTH} bytes, not {size}")
    prefix = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
    return prefix + identity


def read_identity(data: bytes | bytearray, sizes: tuple[int, int]) -> tuple[bytes, int] | None:
    """The id at the start of `data` and where it ends, or None when bytes are missing.

    Raises `HandshakeError` as soon as the length is too long, not minimal, or outside `sizes`.
    """
    if not data:
        return None
    size, start = data[0], 1
    if size & 0x80:
        if len(data) < 2:
            return None
        if data[1] & 0x80:
            raise HandshakeError("the remote's id has a length of more than two bytes")
        if data[1] == 0:
            raise HandshakeError("the remote's id has a length that is not in its shortest form")
        size, start = size & 0x7F | data[1] << 7, 2
    least, most = sizes
    if not least <= size <= most:
        wanted = f"{least} to {most}" if least < most else f"{least}"
        raise HandshakeError(f"the remote's id has {size} bytes, {wanted} are accepted")
    if len(data) < start + size:
        return None
    return bytes(data[start : start + size]), start + size


class PlainSession:
    """One side of the clear-text id exchange, without I/O: a `Session`.

    `id` is ours. `id_sizes` is the least and the most bytes accepted for the remote's; (32, 32)
    takes only what the reference draws. Messages are raw chunks: their boundaries mean nothing.
    There is no keep-alive in this protocol, so there is no idle timeout either.
    """

    __slots__ = (
        "_deadline", "_events", "_failure", "_id_sizes", "_limits", "_out", "_partial", "_queue",
        "_queued", "_timed_out", "bytes_read", "bytes_written", "is_initiator", "messages_read",
        "messages_written", "remote_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        is_initiator: bool,
        id: bytes,  # noqa: A002  the protocol's own word
        now: float,
        limits: Limits = Limits(),  # noqa: B008  frozen
        id_sizes: tuple[int, int] = (1, MAX_ID_SIZE),
    ) -> None:
        self.is_initiator = is_initiator
        self.remote_id: bytes | None = None
        self.bytes_read = self.messages_read = self.messages_written = 0
        self._limits = limits
        self._id_sizes = id_sizes
        self._deadline: float | None = now + limits.handshake_timeout
        self._failure: str | None = None
        self._events: list[SessionEvent] = []
        self._out: list[Buffer] = [encode_identity(id)]
        self.bytes_written = len(self._out[0])
        self._partial = bytearray()
        self._queue: list[Buffer] = []
        self._queued = 0
        self._timed_out = False

    @property
    def opened(self) -> bool:
        """Whether the remote's id is known."""
        return self.remote_id is not None

    def receive_data(self, data: Buffer, now: float) -> list[SessionEvent]:
        """Events completed by `data`; see `Session`. Raises `HandshakeError` only."""
        del now
        if self._failure is not None:
            raise HandshakeError(self._failure)
        rest = bytes(data)
        self.bytes_read += len(rest)
        if self.remote_id is None:
            rest = self._receive_identity(rest)
        if rest:
            self.messages_read += 1
            self._events.append(MessagesReceived([rest]))
        return self.take_events()

    def _receive_identity(self, data: bytes) -> bytes:
        """Read on in the remote's id; returns what follows it."""
        self._partial += data[: self._id_sizes[1] + 2]
        kept = len(self._partial) - len(data[: self._id_sizes[1] + 2])
        try:
            found = read_identity(self._partial, self._id_sizes)
        except HandshakeError as error:
            self._failure = str(error)  # the error itself would lead back here, a cycle
            raise
        if found is None:
            return b""
        self.remote_id, end = found
        self._partial = bytearray()
        self._deadline = None
        self._events.append(Opened(None, self.remote_id, None))
        self._out += self._queue
        self._queue, self._queued = [], 0
        return data[end - kept :]

    def receive_eof(self, now: float) -> list[SessionEvent]:
        """The remote ended its half: `Ended`, truncated while its id is not complete."""
        del now
        self._deadline = None
        self._events.append(Ended(self.remote_id is None))
        return self.take_events()

    def take_events(self) -> list[SessionEvent]:
        """Events not handed out yet."""
        events, self._events = self._events, []
        return events

    def send_messages(self, messages: Sequence[Buffer], now: float | None = None) -> None:
        """Queue raw chunks, empty ones left out; see `Session`.

        Raises `LimitError` when more than `Limits.max_queued` bytes wait for the remote's id.
        """
        del now
        # copied: they may wait in the transport while the caller fills a bytearray anew
        chunks = [chunk if type(chunk) is bytes else bytes(memoryview(chunk)) for chunk in messages]
        chunks = [chunk for chunk in chunks if chunk]
        size = sum(map(len, chunks))
        if self.remote_id is not None:
            self._out += chunks
        elif self._queued + size > self._limits.max_queued:
            raise LimitError(
                f"more than {self._limits.max_queued} bytes queued before the handshake is over",
                limit="max_queued",
                allowed=self._limits.max_queued,
            )
        else:
            self._queued += size
            self._queue += chunks
        self.bytes_written += size
        self.messages_written += len(chunks)

    def data_to_send(self) -> list[Buffer]:
        """Take the bytes that are ready to leave, in order."""
        out, self._out = self._out, []
        return out

    def next_timer(self) -> float | None:
        """The end of the handshake's budget, while the remote's id is not there."""
        return None if self._timed_out or self._failure is not None else self._deadline

    def handle_timer(self, now: float) -> list[SessionEvent]:
        """`TimedOut` when the remote's id did not come in time."""
        if self._deadline is not None and not self._timed_out and now >= self._deadline:
            self._timed_out = True
            self._events.append(TimedOut("handshake"))
        return self.take_events()
