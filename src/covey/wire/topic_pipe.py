"""The protocol of `covey pipe`: bytes both ways over one channel, with credit and a confirmed end.

Seven message types on the channel `covey/pipe`, whose handshake is a `Hello`:

====  =========  ===============================================================
type  name       payload
====  =========  ===============================================================
0     data       bytes, at most `MAX_CHUNK`
1     credit     uint: so many bytes may be sent in all
2     end        uint bytes sent in all, 32 bytes SHA-256 of them
3     received   the same two values, as the receiver wrote them out
4     stop       why this side gives up, UTF-8, at most `MAX_REASON` bytes
5     busy       empty: this side is in a pipe with another peer already
6     size       uint: how many bytes this side will send in all
====  =========  ===============================================================

A side may be `WINDOW` bytes ahead of what the other has written out, so a slow writer holds back
its sender and nothing else on the connection. What was not written out yet is kept: when the
connection is lost, the next one goes on where the hello of each side says. A side is done when its
own end was confirmed and it confirmed the other's.

A hello is read before anything is proved. So only the partner of before is told how far this side
is; everybody else gets `Hello(proof)`, the same whatever goes on, and the size after the proof.

Sans-I/O: the caller moves bytes and tells when they are written.
"""

from __future__ import annotations

import hashlib
import hmac
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self, TypeAlias

from covey.errors import DecodeError, ProtocolError, UsageError
from covey.wire.encoding import encode_uint, read_uint
from covey.wire.session import Buffer
from covey.wire.topic_proof import PROOF_SIZE

PROTOCOL: Final = "covey/pipe"
MAX_CHUNK: Final = 1 << 18
"""Bytes of one data message: large enough for the cipher's full speed, small beside the window."""
WINDOW: Final = 1 << 23
"""Bytes that may be under way without credit: what a receiver keeps for a slow writer."""
CREDIT_STEP: Final = WINDOW // 8
"""Credit is given in steps, so that it costs one small message for many large ones."""

MAX_REASON: Final = 256
"""Bytes of the reason in a stop."""

DATA, CREDIT, END, RECEIVED, STOP, BUSY, SIZE = range(7)
KINDS: Final = 7
_DIGEST_SIZE = hashlib.sha256().digest_size  # the quickest that hashlib has on common processors

Message: TypeAlias = tuple[int, Buffer]


@dataclass(frozen=True, slots=True)
class Hello:
    """What a side tells with its open.

    `proof` that it knows the topic; `size`: how many bytes it will send in all (None: unknown);
    `received`: how many it has, so where to go on; `limit`: how many it would take in all.
    """

    proof: bytes
    size: int | None = None
    received: int = 0
    limit: int = WINDOW

    def encode(self) -> bytes:
        """The handshake payload: proof, uint size + 1 (0: unknown), uint received, uint limit."""
        size = encode_uint(0 if self.size is None else self.size + 1)
        return self.proof + size + encode_uint(self.received) + encode_uint(self.limit)

    @classmethod
    def decode(cls, data: Buffer) -> Self:
        """Read a remote's payload; raises `DecodeError`."""
        end = len(data)
        if end <= PROOF_SIZE:
            raise DecodeError(f"a pipe hello of {end} bytes is too short")
        size, position = read_uint(data, PROOF_SIZE, end)
        received, position = read_uint(data, position, end)
        limit, _ = read_uint(data, position, end)
        return cls(bytes(data[:PROOF_SIZE]), size - 1 if size else None, received, limit)


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Bytes to write out; tell `written` when that is done."""

    data: bytes


@dataclass(frozen=True, slots=True)
class CreditReceived:
    """`room` grew."""


@dataclass(frozen=True, slots=True)
class RemoteEnded:
    """The remote sent all it had: `total` bytes."""

    total: int


@dataclass(frozen=True, slots=True)
class Confirmed:
    """The remote wrote out all `total` bytes that we sent."""

    total: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """The remote gives up; `reason` is its own word, printable."""

    reason: str


@dataclass(frozen=True, slots=True)
class Busy:
    """The remote is in a pipe with another peer."""


@dataclass(frozen=True, slots=True)
class SizeTold:
    """The remote will send `size` bytes in all."""

    size: int


PipeEvent: TypeAlias = (
    DataReceived | CreditReceived | RemoteEnded | Confirmed | Stopped | Busy | SizeTold
)


def stop_message(reason: str) -> Message:
    """What a side sends that gives up; a long reason is cut."""
    return STOP, reason.encode(errors="replace")[:MAX_REASON]


def size_message(size: int) -> Message:
    """What tells a proven remote how much is to come: its hello did not."""
    return SIZE, encode_uint(size)


class TopicPipe:
    """One side of the pipe, over one or more connections with the same peer."""

    __slots__ = (
        "_confirmed",
        "_end",
        "_kept",
        "_kept_from",
        "_limit",
        "_received_hash",
        "_remote_end",
        "_sent_hash",
        "_told",
        "_told_limit",
        "received",
        "sent",
        "written_bytes",
    )

    def __init__(self) -> None:
        self.sent = 0
        self.received = 0
        self.written_bytes = 0
        self._limit = WINDOW  # bytes we may send in all
        self._told_limit = WINDOW  # bytes the remote may send in all
        self._kept: deque[bytes] = deque()  # sent, not yet known to be written out
        self._kept_from = 0  # where they begin
        self._sent_hash = hashlib.sha256()
        self._received_hash = hashlib.sha256()
        self._end: bytes | None = None
        self._confirmed = False
        self._remote_end: bytes | None = None
        self._told = False

    @property
    def room(self) -> int:
        """Bytes that may be sent now."""
        return self._limit - self.sent

    @property
    def ended(self) -> bool:
        """Whether this side told its end."""
        return self._end is not None

    @property
    def confirmed(self) -> bool:
        """Whether the remote confirmed all that this side sent."""
        return self._confirmed

    @property
    def remote_confirmed(self) -> bool:
        """Whether this side wrote out, and confirmed, all that the remote sent."""
        return self._told

    @property
    def done(self) -> bool:
        """Whether both directions ended and were confirmed."""
        return self._confirmed and self._told

    @property
    def progress(self) -> int:
        """Grows with whatever the two sides have behind them, and with nothing else."""
        return self.received + self._kept_from + self._confirmed + (self._remote_end is not None)

    @property
    def untouched(self) -> bool:
        """Whether no byte, end or confirmation passed, so that any peer could still take part."""
        return not (self.sent or self.received or self._confirmed or self._remote_end)

    def hello(self, proof: bytes, *, size: int | None = None) -> Hello:
        """What to tell the partner on a new connection. Changes nothing: it may come to nothing."""
        return Hello(proof, size, self.received, self.written_bytes + WINDOW)

    def resume(self, remote: Hello, own: Hello) -> Sequence[Message]:
        """Both said hello, `own` is ours: messages to send again, none on the first connection.

        What was written out since our hello is told too: until now there was no way to tell.

        Raises `ProtocolError` when the remote's hello does not fit what was sent.
        """
        if not self._kept_from <= remote.received <= self.sent:
            raise ProtocolError(
                f"the remote would go on at byte {remote.received}, "
                f"{self._kept_from} to {self.sent} are kept"
            )
        self._take_limit(remote.limit)
        again: list[Message] = []
        position = self._kept_from
        for chunk in self._kept:
            rest = chunk[max(0, remote.received - position) :]
            position += len(chunk)
            if rest:
                again.append((DATA, rest))
        if self._end is not None and not self._confirmed:
            again.append((END, self._end))
        self._told_limit = own.limit
        limit = self.written_bytes + WINDOW
        if limit > own.limit and self._remote_end is None:
            self._told_limit = limit
            again.append((CREDIT, encode_uint(limit)))
        return again

    def send_data(self, data: Buffer) -> Message:
        """The message for a chunk of at most `min(room, MAX_CHUNK)` bytes."""
        if self._end is not None:
            raise UsageError("the pipe has told its end")
        if not 0 < len(data) <= min(self.room, MAX_CHUNK):
            raise UsageError(f"a chunk of {len(data)} bytes does not fit into {self.room}")
        chunk = bytes(data)
        self.sent += len(chunk)
        self._sent_hash.update(chunk)
        self._kept.append(chunk)
        return DATA, chunk

    def send_end(self) -> Message:
        """The message that ends this side."""
        if self._end is not None:
            raise UsageError("the pipe has told its end")
        self._end = encode_uint(self.sent) + self._sent_hash.digest()
        return END, self._end

    def receive(self, kind: int, payload: bytes) -> PipeEvent:
        """What a message of the remote means; raises `ProtocolError`."""
        match kind:
            case 0:
                return self._receive_data(payload)
            case 1:
                self._take_limit(read_uint(payload, 0, len(payload))[0])
                return CreditReceived()
            case 2:
                return self._receive_end(payload)
            case 3:
                return self._receive_confirmation(payload)
            case 4:
                return Stopped(_reason(payload))
            case 5:
                return Busy()
            case 6:
                return SizeTold(read_uint(payload, 0, len(payload))[0])
            case _:
                raise ProtocolError(f"a pipe has no message of type {kind}")

    def written(self, count: int) -> Sequence[Message]:
        """`count` received bytes were written out: messages to send for that."""
        self.written_bytes += count
        limit = self.written_bytes + WINDOW
        if limit - self._told_limit < CREDIT_STEP or self._remote_end is not None:
            return ()
        self._told_limit = limit
        return ((CREDIT, encode_uint(limit)),)

    def confirm(self) -> Sequence[Message]:
        """The confirmation, once the remote has ended and all of it is written; else nothing."""
        if self._remote_end is None or self._told or self.written_bytes != self.received:
            return ()
        self._told = True
        return ((RECEIVED, self._remote_end),)

    def _receive_data(self, payload: bytes) -> PipeEvent:
        if self._remote_end is not None:
            raise ProtocolError("data after the remote's end")
        if not 0 < len(payload) <= MAX_CHUNK:
            raise ProtocolError(f"a data message of {len(payload)} bytes, the limit is {MAX_CHUNK}")
        if self.received + len(payload) > self._told_limit:
            raise ProtocolError(
                f"the remote sent {self.received + len(payload)} bytes, "
                f"its credit was {self._told_limit}"
            )
        self.received += len(payload)
        self._received_hash.update(payload)
        return DataReceived(payload)

    def _take_limit(self, limit: int) -> None:
        """The remote takes `limit` bytes in all, so all but the last `WINDOW` are written out."""
        written = limit - WINDOW
        if not self._kept_from <= written <= self.sent:
            raise ProtocolError(f"credit up to byte {limit}, {self.sent} were sent")
        self._limit = limit
        while self._kept and self._kept_from + len(self._kept[0]) <= written:
            self._kept_from += len(self._kept.popleft())

    def _receive_end(self, payload: bytes) -> PipeEvent:
        if self._remote_end is not None and payload != self._remote_end:
            raise ProtocolError("a second, different end")
        total, digest = _read_summary(payload)
        if total != self.received or not hmac.compare_digest(digest, self._received_hash.digest()):
            raise ProtocolError(
                f"the remote ended after {total} bytes, {self.received} arrived, or they differ"
            )
        self._remote_end = bytes(payload)
        self._told = False  # told again: our confirmation went down with a connection
        return RemoteEnded(total)

    def _receive_confirmation(self, payload: bytes) -> PipeEvent:
        if self._end is None or self._confirmed:
            raise ProtocolError("a confirmation that nobody waits for")
        if payload != self._end:
            total, _ = _read_summary(payload)
            raise ProtocolError(f"the remote confirmed {total} bytes, {self.sent} were sent")
        self._confirmed = True
        self._kept_from = self.sent
        self._kept.clear()
        return Confirmed(self.sent)


def _reason(payload: bytes) -> str:
    """A reason as it may be shown: the remote's word, so nothing that a terminal would obey."""
    if len(payload) > MAX_REASON:
        raise DecodeError(f"a reason of {len(payload)} bytes, the limit is {MAX_REASON}")
    text = payload.decode(errors="replace")
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def _read_summary(payload: bytes) -> tuple[int, bytes]:
    total, position = read_uint(payload, 0, len(payload))
    digest = payload[position:]
    if len(digest) != _DIGEST_SIZE:
        raise DecodeError(f"a digest of {len(digest)} bytes, {_DIGEST_SIZE} are needed")
    return total, digest
