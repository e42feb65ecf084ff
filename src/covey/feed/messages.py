"""What two peers say about one log: handshake and the ten messages (`hypercore.md` 6 and 7).

Source: hypercore 11.37.1, `lib/messages.js`. A codec is for the body alone, without channel and
type; `MESSAGE_CODECS` has them by type. As in the reference, unknown flags and bytes after the end
are ignored. Numbers of 2^53 and more are refused, and every count is held against the bytes left.
`data` has its own module, and its names are here too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

from covey.errors import DecodeError, EncodeError
from covey.feed.data_message import (
    MAX_BLOCK,
    MAX_NODES,
    BlockData,
    Data,
    HashData,
    SeekData,
    UpgradeData,
    data_codec,
)
from covey.wire.binary import checked_bytes
from covey.wire.codec import Codec, Reader, encode_uint, out_of_bounds, read_uint
from covey.wire.encoding import fixed32, string, uint

MAX_BITFIELD_WORDS = 1 << 16
"""Words of 32 bits in one bitfield message: 2^21 blocks, where the reference splits."""
MAX_EXTENSION_NAME = 4096
"""Bytes of the name of an extension: each channel remembers the last one that it heard."""
NOT_AVAILABLE, INVALID_REQUEST = 1, 2
"""Reasons in a `NoData`; 0 is none."""

_SEEKS = 1
_CAN_UPGRADE, _UPLOADING, _DOWNLOADING, _HAS_MANIFEST, _ALLOW_PUSH = 1, 2, 4, 8, 16
_BLOCK, _HASH, _SEEK, _UPGRADE, _MANIFEST, _PRIORITY = 1, 2, 4, 8, 16, 32
_REASON = 1
_ANY = 1
_DROP, _SINGLE = 1, 2


class Handshake(NamedTuple):
    """Opens a log's channel: proof that the sender knows the key, and whether it serves seeks."""

    seeks: bool
    capability: bytes


class HandshakeCodec(Codec[Handshake]):
    """The handshake in the OPEN of the channel: flags, 32 bytes of capability."""

    __slots__ = ()
    minimum = 33

    def encode_into(self, out: bytearray, value: Handshake) -> None:
        """Append; `EncodeError` when the capability is not 32 bytes."""
        out.append(_SEEKS if value.seeks else 0)
        fixed32.encode_into(out, value.capability)

    def decode_from(self, reader: Reader) -> Handshake:
        """Take one; `DecodeError` when it is short."""
        seeks = uint.decode_from(reader) & _SEEKS != 0
        return Handshake(seeks, bytes(fixed32.decode_from(reader)))


class Sync(NamedTuple):
    """The sender's head and state; `remote_length` is what it last heard from the receiver."""

    fork: int
    length: int
    remote_length: int
    can_upgrade: bool
    uploading: bool
    downloading: bool
    has_manifest: bool
    allow_push: bool


class SyncCodec(Codec[Sync]):
    """`sync`, type 0: flags, fork, length, remote length."""

    __slots__ = ()
    minimum = 4

    def encode_into(self, out: bytearray, value: Sync) -> None:
        """Append; `EncodeError` when a number does not fit."""
        fork, length, remote_length, can_upgrade, uploading, downloading, manifest, push = value
        out.append(
            (_CAN_UPGRADE if can_upgrade else 0)
            | (_UPLOADING if uploading else 0)
            | (_DOWNLOADING if downloading else 0)
            | (_HAS_MANIFEST if manifest else 0)
            | (_ALLOW_PUSH if push else 0)
        )
        out += encode_uint(fork)
        out += encode_uint(length)
        out += encode_uint(remote_length)

    def decode_from(self, reader: Reader) -> Sync:
        """Take one; `DecodeError` when it is short."""
        buffer, end = reader.buffer, reader.end
        flags, start = read_uint(buffer, reader.start, end)
        fork, start = read_uint(buffer, start, end)
        length, start = read_uint(buffer, start, end)
        remote_length, reader.start = read_uint(buffer, start, end)
        return Sync(
            fork,
            length,
            remote_length,
            flags & _CAN_UPGRADE != 0,
            flags & _UPLOADING != 0,
            flags & _DOWNLOADING != 0,
            flags & _HAS_MANIFEST != 0,
            flags & _ALLOW_PUSH != 0,
        )


class BlockRequest(NamedTuple):
    """Block number, or tree node number, and how many levels of nodes the asker lacks."""

    index: int  # type: ignore[assignment] # the name of the wire, not what tuples call index
    nodes: int


class SeekRequest(NamedTuple):
    """The byte offset looked for; `padding` bytes of every block do not count."""

    bytes: int
    padding: int


class UpgradeRequest(NamedTuple):
    """The head of `start + length` blocks is wanted, from the one of `start` blocks."""

    start: int
    length: int


class Request(NamedTuple):
    """What is asked for under number `id`; `block` counts blocks, `hash` tree nodes."""

    id: int
    fork: int
    block: BlockRequest | None = None
    hash: BlockRequest | None = None
    seek: SeekRequest | None = None
    upgrade: UpgradeRequest | None = None
    manifest: bool = False
    priority: int = 0


class RequestCodec(Codec[Request]):
    """`request`, type 1: flags, id, fork, and the parts the flags tell, two numbers each."""

    __slots__ = ()
    minimum = 3

    def encode_into(self, out: bytearray, value: Request) -> None:
        """Append; `EncodeError` when a number does not fit."""
        number, fork, block, hashed, seek, upgrade, manifest, priority = value
        out.append(
            (_BLOCK if block is not None else 0)
            | (_HASH if hashed is not None else 0)
            | (_SEEK if seek is not None else 0)
            | (_UPGRADE if upgrade is not None else 0)
            | (_MANIFEST if manifest else 0)
            | (_PRIORITY if priority else 0)
        )
        out += encode_uint(number)
        out += encode_uint(fork)
        for part in (block, hashed, seek, upgrade):
            if part is not None:
                out += encode_uint(part[0])
                out += encode_uint(part[1])
        if priority:
            out += encode_uint(priority)

    def decode_from(self, reader: Reader) -> Request:
        """Take one; `DecodeError` when it is short."""
        buffer, end = reader.buffer, reader.end
        flags, start = read_uint(buffer, reader.start, end)
        number, start = read_uint(buffer, start, end)
        fork, start = read_uint(buffer, start, end)
        block = hashed = seek = upgrade = None
        priority = 0
        if flags & _BLOCK:
            first, start = read_uint(buffer, start, end)
            second, start = read_uint(buffer, start, end)
            block = BlockRequest(first, second)
        if flags & _HASH:
            first, start = read_uint(buffer, start, end)
            second, start = read_uint(buffer, start, end)
            hashed = BlockRequest(first, second)
        if flags & _SEEK:
            first, start = read_uint(buffer, start, end)
            second, start = read_uint(buffer, start, end)
            seek = SeekRequest(first, second)
        if flags & _UPGRADE:
            first, start = read_uint(buffer, start, end)
            second, start = read_uint(buffer, start, end)
            upgrade = UpgradeRequest(first, second)
        if flags & _PRIORITY:
            priority, start = read_uint(buffer, start, end)
        reader.start = start
        manifest = flags & _MANIFEST != 0
        return Request(number, fork, block, hashed, seek, upgrade, manifest, priority)


class Cancel(NamedTuple):
    """The request of that number is no longer wanted."""

    request: int


class CancelCodec(Codec[Cancel]):
    """`cancel`, type 2: the number."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Cancel) -> None:
        """Append; `EncodeError` when the number does not fit."""
        out += encode_uint(value.request)

    def decode_from(self, reader: Reader) -> Cancel:
        """Take one; `DecodeError` when it is short."""
        return Cancel(uint.decode_from(reader))


class NoData(NamedTuple):
    """That request gets no data; `reason` is `NOT_AVAILABLE`, `INVALID_REQUEST`, or 0: untold."""

    request: int
    reason: int


class NoDataCodec(Codec[NoData]):
    """`noData`, type 4: the number, flags, the reason; old peers leave the flags out."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: NoData) -> None:
        """Append; `EncodeError` when a number does not fit."""
        out += encode_uint(value.request)
        if value.reason:
            out.append(_REASON)
            out += encode_uint(value.reason)
        else:
            out.append(0)

    def decode_from(self, reader: Reader) -> NoData:
        """Take one; `DecodeError` when it is short."""
        request = uint.decode_from(reader)
        flags = uint.decode_from(reader) if reader.remaining else 0
        return NoData(request, uint.decode_from(reader) if flags & _REASON else 0)


class Want(NamedTuple):
    """Tell me what you hold of these blocks, or with `any` one that you hold."""

    start: int
    length: int
    any: bool


class Unwant(NamedTuple):
    """Takes back the same `Want`."""

    start: int
    length: int
    any: bool


W = TypeVar("W", Want, Unwant)


class WantCodec(Codec[W], Generic[W]):
    """`want` and `unwant`, types 5 and 6: start, length, and flags unless they are 0."""

    __slots__ = ("_kind",)
    _kind: Callable[[int, int, bool], W]
    minimum = 2

    def __init__(self, kind: Callable[[int, int, bool], W]) -> None:
        self._kind = kind

    def encode_into(self, out: bytearray, value: W) -> None:
        """Append; `EncodeError` when a number does not fit."""
        out += encode_uint(value.start)
        out += encode_uint(value.length)
        if value.any:
            out.append(_ANY)

    def decode_from(self, reader: Reader) -> W:
        """Take one; `DecodeError` when it is short."""
        start = uint.decode_from(reader)
        length = uint.decode_from(reader)
        flags = uint.decode_from(reader) if reader.remaining else 0
        return self._kind(start, length, flags & _ANY != 0)


class BitfieldWords(NamedTuple):
    """Which blocks from `start` on are held: 32-bit words, little endian, lowest bit first."""

    start: int
    words: bytes


class BitfieldCodec(Codec[BitfieldWords]):
    """`bitfield`, type 7: start, the number of words, the words.

    A start off the word boundary is for the receiver to refuse (`Availability.bitfield`).
    """

    __slots__ = ()
    minimum = 2

    def encode_into(self, out: bytearray, value: BitfieldWords) -> None:
        """Append; `EncodeError` when these are not whole words, or more than 2^16."""
        start, words = value
        count, rest = divmod(len(checked_bytes(words)), 4)
        if rest or count > MAX_BITFIELD_WORDS:
            raise EncodeError(f"{len(words)} bytes are not 0 to {MAX_BITFIELD_WORDS} words")
        out += encode_uint(start)
        out += encode_uint(count)
        out += words

    def decode_from(self, reader: Reader) -> BitfieldWords:
        """Take one; `DecodeError` when it is short or has more than 2^16 words."""
        start = uint.decode_from(reader)
        count = reader.take_count(4)
        if count > MAX_BITFIELD_WORDS:
            raise DecodeError(f"a bitfield has at most {MAX_BITFIELD_WORDS} words, not {count}")
        return BitfieldWords(start, bytes(reader.take(4 * count)))


class Range(NamedTuple):
    """The `length` blocks from `start` on are held now, or with `drop` no longer."""

    drop: bool
    start: int
    length: int


class RangeCodec(Codec[Range]):
    """`range`, type 8: flags, start, and the length unless it is 1."""

    __slots__ = ()
    minimum = 2

    def encode_into(self, out: bytearray, value: Range) -> None:
        """Append; `EncodeError` when a number does not fit."""
        drop, start, length = value
        out.append((_DROP if drop else 0) | (_SINGLE if length == 1 else 0))
        out += encode_uint(start)
        if length != 1:
            out += encode_uint(length)

    def decode_from(self, reader: Reader) -> Range:
        """Take one; `DecodeError` when it is short."""
        buffer, end = reader.buffer, reader.end
        flags, position = read_uint(buffer, reader.start, end)
        start, position = read_uint(buffer, position, end)
        length = 1
        if not flags & _SINGLE:
            length, position = read_uint(buffer, position, end)
        reader.start = position
        return Range(flags & _DROP != 0, start, length)


class ExtensionMessage(NamedTuple):
    """For the extension `name`; "" is the name of the sender's extension message before it."""

    name: str
    payload: bytes


class ExtensionCodec(Codec[ExtensionMessage]):
    """`extension`, type 9: the name, and everything after it as payload."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: ExtensionMessage) -> None:
        """Append; `EncodeError` when the name is longer than 4,096 bytes."""
        name = string.text_to_bytes(value.name)
        if len(name) > MAX_EXTENSION_NAME:
            raise EncodeError(f"a name has at most {MAX_EXTENSION_NAME} bytes, not {len(name)}")
        out += encode_uint(len(name))
        out += name
        out += checked_bytes(value.payload)

    def decode_from(self, reader: Reader) -> ExtensionMessage:
        """Take one, up to the limit; `DecodeError` when the name is cut short or too long."""
        size = uint.decode_from(reader)
        if size > reader.remaining:
            raise out_of_bounds(size, reader.remaining)
        if size > MAX_EXTENSION_NAME:
            raise DecodeError(f"a name has at most {MAX_EXTENSION_NAME} bytes, not {size}")
        name = string.bytes_to_text(reader.take(size))
        return ExtensionMessage(name, bytes(reader.take(reader.remaining)))


handshake_codec = HandshakeCodec()
sync_codec = SyncCodec()
request_codec = RequestCodec()
cancel_codec = CancelCodec()
no_data_codec = NoDataCodec()
want_codec: WantCodec[Want] = WantCodec(Want)
unwant_codec: WantCodec[Unwant] = WantCodec(Unwant)
bitfield_codec = BitfieldCodec()
range_codec = RangeCodec()
extension_codec = ExtensionCodec()

MESSAGE_CODECS: list[Codec[Any]] = [
    *(sync_codec, request_codec, cancel_codec, data_codec, no_data_codec),
    *(want_codec, unwant_codec, bitfield_codec, range_codec, extension_codec),
]
"""The codec of each message by its type number."""

__all__ = [
    "INVALID_REQUEST",
    "MAX_BITFIELD_WORDS",
    "MAX_BLOCK",
    "MAX_EXTENSION_NAME",
    "MAX_NODES",
    "MESSAGE_CODECS",
    "NOT_AVAILABLE",
    "BitfieldWords",
    "BlockData",
    "BlockRequest",
    "Cancel",
    "Data",
    "ExtensionMessage",
    "Handshake",
    "HashData",
    "NoData",
    "Range",
    "Request",
    "SeekData",
    "SeekRequest",
    "Sync",
    "Unwant",
    "UpgradeData",
    "UpgradeRequest",
    "Want",
    "bitfield_codec",
    "cancel_codec",
    "data_codec",
    "extension_codec",
    "handshake_codec",
    "no_data_codec",
    "range_codec",
    "request_codec",
    "sync_codec",
    "unwant_codec",
    "want_codec",
]
