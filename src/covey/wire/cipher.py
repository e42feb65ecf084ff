"""Data frames of the secret stream, sealed and opened (secret-stream.md sections 2 and 5).

A frame is a 3-byte little-endian length, then one message of libsodium's
`crypto_secretstream_xchacha20poly1305` without associated data. Whole batches are handled at once:
`seal` writes its frames into few large buffers, `open_frames` reads every whole frame of a chunk.

Two implementations make the same bytes. `FastSealer` and `FastOpener` give libsodium pointers into
our buffers (`sodium`), so nothing is copied, and hand large messages to OpenSSL (`bulk_cipher`).
`PlainSealer` and `PlainOpener` use only PyNaCl's public bindings, for when there are no pointers.

One small frame by itself is what a request and its answer are. `seal_lone` and `open_lone` do the
same to it with a third of the steps (1.2 and 1.1 µs instead of 2.0 and 2.4); whatever is not plain
sailing they leave to `seal` and `open_frames`, and then nothing has happened yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from hmac import compare_digest
from struct import Struct
from typing import Any, Protocol

import nacl.bindings
import nacl.exceptions

from covey.errors import ProtocolError
from covey.keys import KEY_SIZE
from covey.limits import MAX_FRAME
from covey.wire import sodium
from covey.wire.bulk_cipher import BULK_SIZE, BulkCipher, bulk_engine
from covey.wire.session import Buffer

HEADER_SIZE = 24
PREFIX_SIZE = 3
OVERHEAD = 17
"""The encrypted tag byte and the Poly1305 authenticator."""
FRAME_OVERHEAD = PREFIX_SIZE + OVERHEAD
MAX_BODY = MAX_FRAME
MAX_MESSAGE = MAX_BODY - OVERHEAD
"""Largest plaintext of one frame: 16,777,198 bytes."""
GROUP_SIZE = 1 << 17
"""Frames are gathered into buffers of about this many bytes."""
LONE_SIZE = 1024
"""The largest message that counts as small: what a lone frame may carry on the short way."""

TAG_MESSAGE = 0
TAG_REKEY = 2

_STATE_SIZE = nacl.bindings.crypto_secretstream_xchacha20poly1305_STATEBYTES
_NULL: Any = None
_push: Any = None
_pull: Any = None
if sodium.lib is not None:
    _NULL, _push, _pull = sodium.ffi.NULL, sodium.secretstream_push, sodium.secretstream_pull
_put_prefix = Struct("<I").pack_into  # the fourth byte is overwritten by the frame's body


class Sealer(Protocol):
    """One direction of a stream, the sender's end."""

    def seal(self, messages: Sequence[Buffer], *, tag: int = TAG_MESSAGE) -> list[bytearray]:
        """The frames of `messages`, in order, in few buffers. None may pass `MAX_MESSAGE`."""

    def seal_lone(self, message: Buffer) -> bytes | None:
        """The frame of one small message; None: `seal` has to do it."""


class Opener(Protocol):
    """One direction of a stream, the receiver's end."""

    def open_frames(
        self, view: memoryview, start: int, messages: list[bytes], max_body: int = MAX_BODY
    ) -> int:
        """Append the messages of every whole frame from `start` on; returns where the rest begins.

        Raises `ProtocolError` for a length below 17 or above `max_body`, even when only the length
        is there, and for a frame that fails authentication. Then `messages` holds those before it.
        """

    def open_lone(self, view: memoryview) -> bytes | None:
        """The small message of `view` when that is exactly its frame; None: ask `open_frames`."""


def _groups(messages: Sequence[Buffer]) -> list[tuple[list[bytes | memoryview], int]]:
    """`messages` as byte strings in groups of about `GROUP_SIZE`, each with its size in frames."""
    groups: list[tuple[list[bytes | memoryview], int]] = []
    group: list[bytes | memoryview] = []
    size = 0
    for message in messages:
        part = message if isinstance(message, bytes) else memoryview(message).cast("B")
        group.append(part)
        size += len(part) + FRAME_OVERHEAD
        if size >= GROUP_SIZE:
            groups.append((group, size))
            group, size = [], 0
    if group:
        groups.append((group, size))
    return groups


def _check_length(length: int, max_body: int) -> None:
    if length < OVERHEAD:
        raise ProtocolError(f"a data frame of {length} bytes, the least is {OVERHEAD}")
    if length > max_body:
        raise ProtocolError(f"a data frame of {length} bytes, the limit is {max_body}")


def _forged() -> ProtocolError:
    return ProtocolError("a data frame failed authentication: damaged, forged, lost or repeated")


_spares: list[tuple[Any, Any, Any]] = []
"""Buffers for one small frame, each as a pointer, a pointer behind the prefix, and a view.

Taken and put back by whoever works on a frame, so there are as many as threads that do, and an
idle connection keeps none. The third byte, the highest of the prefix, is never written to: 0.
"""


def _new_spare() -> tuple[Any, Any, Any]:
    size = LONE_SIZE + FRAME_OVERHEAD
    memory = sodium.ffi.new("unsigned char[]", size)
    return memory, sodium.ffi.addressof(memory, PREFIX_SIZE), sodium.ffi.buffer(memory, size)


class _FastState:
    """libsodium's state: key (32), counter (4, little endian), inonce (8), padding (8)."""

    __slots__ = ("_bulk", "_state")

    def __init__(self, key: bytes, header: bytes) -> None:
        if len(key) != KEY_SIZE or len(header) != HEADER_SIZE:
            raise ValueError("a secretstream takes a key of 32 bytes and a header of 24")
        self._state = sodium.ffi.new("unsigned char[]", _STATE_SIZE)
        self._bulk: BulkCipher | None = None
        sodium.secretstream_init_pull(
            self._state, header, key
        )  # init_push would draw the header itself

    def _bulk_cipher(self) -> BulkCipher | None:
        """The OpenSSL cipher for the present key, or None without OpenSSL."""
        engine = bulk_engine()
        if engine is None:
            return None
        key = bytes(sodium.ffi.buffer(self._state, 32))
        if self._bulk is None or self._bulk.key != key:
            self._bulk = BulkCipher(key, engine)
        return self._bulk

    def _nonce(self) -> bytes:
        return bytes(sodium.ffi.buffer(self._state + 32, 12))

    def _advance(self, nonce: bytes, authenticator: bytes, tag: int) -> None:
        """Do to the state what libsodium does after each message."""
        counter = (int.from_bytes(nonce[:4], "little") + 1) & 0xFFFFFFFF
        mixed = int.from_bytes(nonce[4:], "little") ^ int.from_bytes(authenticator[:8], "little")
        sodium.ffi.buffer(self._state + 32, 12)[:] = counter.to_bytes(4, "little") + mixed.to_bytes(
            8, "little"
        )
        if counter == 0 or tag & TAG_REKEY:
            sodium.secretstream_rekey(self._state)


class FastSealer(_FastState):
    """`Sealer` through libsodium's own functions, and OpenSSL for large messages."""

    __slots__ = ()

    def seal(self, messages: Sequence[Buffer], *, tag: int = TAG_MESSAGE) -> list[bytearray]:
        """See `Sealer`."""
        return [self._seal_group(group, size, tag) for group, size in _groups(messages)]

    def seal_lone(self, message: Buffer) -> bytes | None:
        """See `Sealer`."""
        if type(message) is not bytes and type(message) is not bytearray:
            return None
        length = len(message)
        if length > LONE_SIZE:
            return None
        spare = _spares.pop() if _spares else _new_spare()
        memory, body, view = spare
        size = length + OVERHEAD
        memory[0] = size & 0xFF
        memory[1] = size >> 8
        null = _NULL
        # a copy is cheaper than a pointer into a bytearray
        _push(self._state, body, null, bytes(message), length, null, 0, TAG_MESSAGE)
        frame: bytes = view[: size + PREFIX_SIZE]
        _spares.append(spare)
        return frame

    def _seal_group(self, group: list[bytes | memoryview], size: int, tag: int) -> bytearray:
        out = bytearray(size)
        target = sodium.ffi.from_buffer(out)
        state, push, null = self._state, sodium.secretstream_push, sodium.ffi.NULL
        offset = 0
        for message in group:
            length = len(message)
            _put_prefix(out, offset, length + OVERHEAD)
            offset += PREFIX_SIZE
            if length >= BULK_SIZE and self._seal_bulk(message, out, offset, tag):
                pass
            elif type(message) is bytes:
                push(state, target + offset, null, message, length, null, 0, tag)
            else:
                push(
                    state,
                    target + offset,
                    null,
                    sodium.ffi.from_buffer(message),
                    length,
                    null,
                    0,
                    tag,
                )
            offset += length + OVERHEAD
        return out

    def _seal_bulk(
        self, message: bytes | memoryview, out: bytearray, offset: int, tag: int
    ) -> bool:
        cipher = self._bulk_cipher()
        if cipher is None:
            return False
        nonce = self._nonce()
        with memoryview(out) as view, view[offset : offset + len(message) + OVERHEAD] as body:
            self._advance(nonce, cipher.seal_into(nonce, message, body, tag), tag)
        return True


class FastOpener(_FastState):
    """`Opener` through libsodium's own functions, and OpenSSL for large messages."""

    __slots__ = ()

    def open_frames(
        self, view: memoryview, start: int, messages: list[bytes], max_body: int = MAX_BODY
    ) -> int:
        """See `Opener`."""
        source = sodium.ffi.from_buffer(view)
        try:
            return self._open_frames(view, source, start, messages, max_body)
        finally:
            # Python before 3.12.4 crashes when its garbage collector meets a memoryview that is
            # still exported, as one would be in the frames of a kept traceback.
            sodium.release(source)

    def open_lone(self, view: memoryview) -> bytes | None:
        """See `Opener`."""
        size = len(view) - PREFIX_SIZE
        length = size - OVERHEAD
        if not 0 < length <= LONE_SIZE or view[0] | view[1] << 8 != size or view[2]:
            return None
        spare = _spares.pop() if _spares else _new_spare()
        _, plain, room = spare
        null = _NULL
        failed = _pull(self._state, plain, null, null, bytes(view[PREFIX_SIZE:]), size, null, 0)
        message: bytes = room[PREFIX_SIZE : PREFIX_SIZE + length]
        _spares.append(spare)
        return None if failed else message  # a failure leaves the state as it was

    def _open_frames(
        self, view: memoryview, source: Any, start: int, messages: list[bytes], max_body: int
    ) -> int:
        room, scratch = 0, None
        state, pull, null = self._state, sodium.secretstream_pull, sodium.ffi.NULL
        buffer, append = sodium.ffi.buffer, messages.append
        size = len(view)
        last = size - PREFIX_SIZE
        while start <= last:
            length = view[start] | view[start + 1] << 8 | view[start + 2] << 16
            if not OVERHEAD <= length <= max_body:
                _check_length(length, max_body)
            body = start + PREFIX_SIZE
            if body + length > size:
                break
            start = body + length
            plain = length - OVERHEAD
            if plain >= BULK_SIZE and (cipher := self._bulk_cipher()) is not None:
                with view[body:start] as part:
                    append(self._open_bulk(cipher, part))
                continue
            if plain > room or scratch is None:
                # allocated anew per call: kept, it would cost every idle connection its size
                room = max(plain, min(size, BULK_SIZE))
                scratch = sodium.allocate("unsigned char[]", room)
            if pull(state, scratch, null, null, source + body, length, null, 0):
                raise _forged()
            append(buffer(scratch, plain)[:])
        return start

    def _open_bulk(self, cipher: BulkCipher, body: memoryview) -> bytes:
        nonce = self._nonce()
        context, tag, authenticator = cipher.open(nonce, body)
        if not compare_digest(authenticator, body[-16:]):
            raise _forged()
        self._advance(nonce, authenticator, tag)
        message: bytes = context.update(body[1:-16])
        return message


class PlainSealer:
    """`Sealer` through PyNaCl's public functions."""

    __slots__ = ("_state",)

    def __init__(self, key: bytes, header: bytes) -> None:
        self._state = nacl.bindings.crypto_secretstream_xchacha20poly1305_state()
        nacl.bindings.crypto_secretstream_xchacha20poly1305_init_pull(self._state, header, key)

    def seal(self, messages: Sequence[Buffer], *, tag: int = TAG_MESSAGE) -> list[bytearray]:
        """See `Sealer`."""
        push = nacl.bindings.crypto_secretstream_xchacha20poly1305_push
        buffers = []
        for group, _ in _groups(messages):
            out = bytearray()
            for message in group:
                out += (len(message) + OVERHEAD).to_bytes(PREFIX_SIZE, "little")
                out += push(self._state, bytes(message), None, tag)
            buffers.append(out)
        return buffers

    def seal_lone(self, message: Buffer) -> None:
        """See `Sealer`: there is no shorter way here."""


class PlainOpener:
    """`Opener` through PyNaCl's public functions."""

    __slots__ = ("_state",)

    def __init__(self, key: bytes, header: bytes) -> None:
        self._state = nacl.bindings.crypto_secretstream_xchacha20poly1305_state()
        nacl.bindings.crypto_secretstream_xchacha20poly1305_init_pull(self._state, header, key)

    def open_frames(
        self, view: memoryview, start: int, messages: list[bytes], max_body: int = MAX_BODY
    ) -> int:
        """See `Opener`."""
        pull = nacl.bindings.crypto_secretstream_xchacha20poly1305_pull
        while start + PREFIX_SIZE <= len(view):
            body = start + PREFIX_SIZE
            length = int.from_bytes(view[start:body], "little")
            _check_length(length, max_body)
            if body + length > len(view):
                break
            try:
                message, _ = pull(self._state, bytes(view[body : body + length]))
            except nacl.exceptions.CryptoError as error:
                raise _forged() from error
            messages.append(message)
            start = body + length
        return start

    def open_lone(self, view: memoryview) -> None:
        """See `Opener`: there is no shorter way here."""


def make_sealer(key: bytes, header: bytes) -> Sealer:
    """The fastest `Sealer` there is, for a key of 32 bytes and the header that we send (24)."""
    return FastSealer(key, header) if sodium.lib is not None else PlainSealer(key, header)


def make_opener(key: bytes, header: bytes) -> Opener:
    """The fastest `Opener` there is, for a key of 32 bytes and the remote's header (24)."""
    return FastOpener(key, header) if sodium.lib is not None else PlainOpener(key, header)
