"""The protocol of `covey pipe`: bytes both ways over one channel, with credit and a confirmed end.

Five message types on the channel `covey/pipe`, whose handshake is `hello()`:

====  =========  ===============================================================
type  name       payload
====  =========  ===============================================================
0     data       bytes, at most `MAX_CHUNK`
1     credit     uint: so many more bytes may be sent
2     end        uint bytes sent in all, 32 bytes BLAKE2b-256 of them
3     received   the same two values, as the receiver wrote them out
====  =========  ===============================================================

A side may send `WINDOW` bytes before the first credit, so a slow writer holds back its sender and
nothing else on the connection. A side is done when its own end was confirmed and it confirmed the
other's. Sans-I/O: the caller moves bytes and tells when they are written.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from covey.errors import DecodeError, ProtocolError, UsageError
from covey.wire.encoding import encode_uint, read_uint
from covey.wire.session import Buffer
from covey.wire.topic_proof import PROOF_SIZE, TopicSecret

PROTOCOL: Final = "covey/pipe"
MAX_CHUNK: Final = 1 << 18
"""Bytes of one data message: large enough for the cipher's full speed, small beside the window."""
WINDOW: Final = 1 << 23
"""Bytes that may be under way without credit: what a receiver keeps for a slow writer."""
CREDIT_STEP: Final = WINDOW // 8
"""Credit is given in steps, so that it costs one small message for many large ones."""

DATA, CREDIT, END, RECEIVED = range(4)
_DIGEST_SIZE = 32

Message: TypeAlias = tuple[int, Buffer]


@dataclass(frozen=True, slots=True)
class Hello:
    """What a side tells with its open: its proof, and how many bytes will come (None: unknown)."""

    proof: bytes
    size: int | None


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


PipeEvent: TypeAlias = DataReceived | CreditReceived | RemoteEnded | Confirmed


def encode_hello(hello: Hello) -> bytes:
    """The handshake payload of the channel: proof, then uint size + 1, or 0 when unknown."""
    return hello.proof + encode_uint(0 if hello.size is None else hello.size + 1)


def decode_hello(data: Buffer) -> Hello:
    """Read a remote's handshake payload; raises `DecodeError`."""
    if len(data) <= PROOF_SIZE:
        raise DecodeError(f"a pipe hello of {len(data)} bytes is too short")
    size, _ = read_uint(data, PROOF_SIZE, len(data))
    return Hello(bytes(data[:PROOF_SIZE]), size - 1 if size else None)


def hello(
    secret: TopicSecret, handshake_hash: bytes, *, is_initiator: bool, size: int | None = None
) -> bytes:
    """What this side puts into its open."""
    return encode_hello(Hello(secret.prove(handshake_hash, is_initiator=is_initiator), size))


class TopicPipe:
    """One side of the pipe, after both proofs were accepted."""

    __slots__ = (
        "_confirmed",
        "_ended",
        "_granted",
        "_received_hash",
        "_remote_end",
        "_sent_hash",
        "_told",
        "_unacknowledged",
        "received",
        "room",
        "sent",
        "written_bytes",
    )

    def __init__(self) -> None:
        self.room = WINDOW
        """Bytes that may be sent now."""
        self.sent = 0
        self.received = 0
        self.written_bytes = 0
        self._granted = WINDOW
        self._unacknowledged = 0
        self._sent_hash = hashlib.blake2b(digest_size=_DIGEST_SIZE)
        self._received_hash = hashlib.blake2b(digest_size=_DIGEST_SIZE)
        self._ended = False
        self._confirmed = False
        self._remote_end: bytes | None = None
        self._told = False

    @property
    def ended(self) -> bool:
        """Whether this side told its end."""
        return self._ended

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

    def send_data(self, data: Buffer) -> Message:
        """The message for a chunk of at most `min(room, MAX_CHUNK)` bytes."""
        if self._ended:
            raise UsageError("the pipe has told its end")
        if not 0 < len(data) <= min(self.room, MAX_CHUNK):
            raise UsageError(f"a chunk of {len(data)} bytes does not fit into {self.room}")
        self.room -= len(data)
        self.sent += len(data)
        self._sent_hash.update(data)
        return DATA, data

    def send_end(self) -> Message:
        """The message that ends this side."""
        if self._ended:
            raise UsageError("the pipe has told its end")
        self._ended = True
        return END, encode_uint(self.sent) + self._sent_hash.digest()

    def receive(self, kind: int, payload: bytes) -> PipeEvent:
        """What a message of the remote means; raises `ProtocolError`."""
        match kind:
            case 0:
                return self._receive_data(payload)
            case 1:
                return self._receive_credit(payload)
            case 2:
                return self._receive_end(payload)
            case 3:
                return self._receive_confirmation(payload)
            case _:
                raise ProtocolError(f"a pipe has no message of type {kind}")

    def written(self, count: int) -> Sequence[Message]:
        """`count` received bytes were written out: messages to send for that."""
        self.written_bytes += count
        self._unacknowledged += count
        messages: list[Message] = []
        if self._unacknowledged >= CREDIT_STEP and self._remote_end is None:
            messages.append((CREDIT, encode_uint(self._unacknowledged)))
            self._granted += self._unacknowledged
            self._unacknowledged = 0
        return messages

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
        self.received += len(payload)
        if self.received > self._granted:
            raise ProtocolError(
                f"the remote sent {self.received} bytes, credit was {self._granted}"
            )
        self._received_hash.update(payload)
        return DataReceived(payload)

    def _receive_credit(self, payload: bytes) -> PipeEvent:
        more, _ = read_uint(payload, 0, len(payload))
        if self.room + more > WINDOW:
            raise ProtocolError(f"credit of {more} bytes goes past the window")
        self.room += more
        return CreditReceived()

    def _receive_end(self, payload: bytes) -> PipeEvent:
        if self._remote_end is not None:
            raise ProtocolError("a second end")
        total, digest = _read_summary(payload)
        if total != self.received or not hmac.compare_digest(digest, self._received_hash.digest()):
            raise ProtocolError(
                f"the remote ended after {total} bytes, {self.received} arrived, or they differ"
            )
        self._remote_end = bytes(payload)
        return RemoteEnded(total)

    def _receive_confirmation(self, payload: bytes) -> PipeEvent:
        if not self._ended or self._confirmed:
            raise ProtocolError("a confirmation that nobody waits for")
        total, digest = _read_summary(payload)
        if total != self.sent or not hmac.compare_digest(digest, self._sent_hash.digest()):
            raise ProtocolError(f"the remote confirmed {total} bytes, {self.sent} were sent")
        self._confirmed = True
        return Confirmed(total)


def _read_summary(payload: bytes) -> tuple[int, bytes]:
    total, position = read_uint(payload, 0, len(payload))
    digest = payload[position:]
    if len(digest) != _DIGEST_SIZE:
        raise DecodeError(f"a digest of {len(digest)} bytes, {_DIGEST_SIZE} are needed")
    return total, digest
