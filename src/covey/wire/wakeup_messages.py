"""What two peers that share a capability say to each other: the handshake and three messages.

Also the id of a topic and the proof of knowing its capability. Source: protomux-wakeup 2.9.0;
`wakeup.md` section 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from covey.errors import DecodeError, EncodeError, UsageError
from covey.keys import KEY_SIZE, discovery_key, namespace
from covey.wire.binary import checked_bytes
from covey.wire.codec import Codec, Reader, encode_uint, read_uint
from covey.wire.encoding import fixed32, uint

PROTOCOL: Final = "wakeup"
"""The name of the channels; their id is the topic's."""
VERSION: Final = 0
"""What is written; nobody looks at what the other side wrote."""
HASH_SIZE: Final = 32
"""Bytes of the hash of a lookup, of a proof, and of a topic's id."""
HEAD_MINIMUM: Final = KEY_SIZE + 1
"""Bytes that an announced head takes at least."""

_ACTIVE: Final = 1
_HAS_HASH: Final = 1
_INITIATOR: Final = namespace(PROTOCOL, 0)
_RESPONDER: Final = namespace(PROTOCOL, 1)


class WriterHead(NamedTuple):
    """A log that has news: the 32-byte key of its writer, and its length in blocks."""

    key: bytes
    length: int


class Lookup(NamedTuple):
    """Asks what there is; the meaning of `hash` (32 bytes or None) is the application's."""

    hash: bytes | None = None


class Info(NamedTuple):
    """Whether the sender's topic is active from now on."""

    active: bool


class Handshake(NamedTuple):
    """Opens a topic's channel: the sender's proof, and whether its topic is active."""

    capability: bytes
    active: bool
    version: int = VERSION


class EncodedHeads(bytes):
    """An announce that is encoded already, to be sent to many peers. Made by `encoded_heads`."""

    __slots__ = ()


class HandshakeCodec(Codec[Handshake]):
    """The handshake: version, 32 bytes of proof, flags."""

    __slots__ = ()
    minimum = 2 + HASH_SIZE

    def encode_into(self, out: bytearray, value: Handshake) -> None:
        """Append; `EncodeError` when the proof is not 32 bytes."""
        uint.encode_into(out, value.version)
        fixed32.encode_into(out, value.capability)
        out.append(_ACTIVE if value.active else 0)

    def decode_from(self, reader: Reader) -> Handshake:
        """Take one, of any version; `DecodeError` when it is short."""
        version = uint.decode_from(reader)
        proof = bytes(fixed32.decode_from(reader))
        return Handshake(proof, uint.decode_from(reader) & _ACTIVE != 0, version)


class LookupCodec(Codec[Lookup]):
    """`lookup`, type 0: flags, and a hash where they say so."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Lookup) -> None:
        """Append; `EncodeError` when the hash is not 32 bytes."""
        if value.hash is None:
            out.append(0)
            return
        out.append(_HAS_HASH)
        fixed32.encode_into(out, value.hash)

    def decode_from(self, reader: Reader) -> Lookup:
        """Take one; `DecodeError` when it is short."""
        if uint.decode_from(reader) & _HAS_HASH:
            return Lookup(bytes(fixed32.decode_from(reader)))
        return Lookup()


class AnnounceCodec(Codec["Sequence[WriterHead] | EncodedHeads"]):
    """`announce`, type 1: a count, then 32-byte key and length of each.

    Counts above `most`, and those that cannot fit the bytes that are left, are refused before
    anything is made of them.
    """

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        self._most = most

    def encode_into(
        self, out: bytearray, value: Sequence[WriterHead | tuple[bytes, int]] | EncodedHeads
    ) -> None:
        """Append; `EncodeError` for too many heads, a key of another size, a bad length."""
        if isinstance(value, EncodedHeads):
            out += value
            return
        if len(value) > self._most:
            raise EncodeError(f"at most {self._most} heads are announced, not {len(value)}")
        out += encode_uint(len(value))
        for key, length in value:
            if len(checked_bytes(key)) != KEY_SIZE:
                raise EncodeError(f"the key of a writer has {KEY_SIZE} bytes, not {len(key)}")
            out += key
            out += encode_uint(length)

    def decode_from(self, reader: Reader) -> list[WriterHead]:
        """Take them; `DecodeError` for too many, or when they are cut."""
        count = uint.decode_from(reader)
        if count > self._most:
            raise DecodeError(f"at most {self._most} heads are announced, not {count}")
        left = reader.remaining
        if count * HEAD_MINIMUM > left:
            raise DecodeError(f"out of bounds: {count} heads claimed, {left} bytes left")
        buffer, start, end = reader.buffer, reader.start, reader.end
        heads: list[WriterHead] = []
        for _ in range(count):
            stop = start + KEY_SIZE
            length, after = read_uint(buffer, stop, end)
            heads.append(WriterHead(bytes(buffer[start:stop]), length))
            start = after
        reader.start = start
        return heads


class InfoCodec(Codec[Info]):
    """`info`, type 2: flags."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Info) -> None:
        """Append."""
        out.append(_ACTIVE if value.active else 0)

    def decode_from(self, reader: Reader) -> Info:
        """Take one; `DecodeError` when it is empty."""
        return Info(uint.decode_from(reader) & _ACTIVE != 0)


handshake_codec: Final = HandshakeCodec()
lookup_codec: Final = LookupCodec()
info_codec: Final = InfoCodec()


def encoded_heads(codec: AnnounceCodec, heads: Sequence[WriterHead]) -> EncodedHeads:
    """`heads` as `codec` writes them, once for many peers; `EncodeError` as it says."""
    out = bytearray()
    codec.encode_into(out, heads)
    return EncodedHeads(out)


def check_capability(capability: bytes) -> None:
    """`TypeError` for what is no bytes, `UsageError` for none: everybody would know that."""
    if not isinstance(capability, bytes | bytearray | memoryview):
        raise TypeError(f"a capability is bytes, not {type(capability).__name__}")
    if not len(capability):
        raise UsageError("a capability is a secret, and must not be empty")


def lookup_of(hash: bytes | None) -> Lookup:  # noqa: A002
    """A lookup that can be sent; `EncodeError` for a hash that is not 32 bytes."""
    if hash is None:
        return Lookup()
    if len(checked_bytes(hash)) != HASH_SIZE:
        raise EncodeError(f"the hash of a lookup has {HASH_SIZE} bytes, not {len(hash)}")
    return Lookup(bytes(hash))


def topic_id(capability: bytes) -> bytes:
    """The 32 bytes that name the topic of a 32-byte `capability`; they do not tell it.

    `UsageError` for a capability of another size: such a topic needs an id of its own.
    """
    check_capability(capability)
    if len(capability) != KEY_SIZE:
        raise UsageError(
            f"a capability has {KEY_SIZE} bytes, not {len(capability)}; "
            "one of another size needs a discovery_key"
        )
    return discovery_key(bytes(capability))


def capability_proof(capability: bytes, handshake_hash: bytes, *, is_initiator: bool) -> bytes:
    """The 32 bytes by which a side of one connection shows that it knows `capability`.

    `handshake_hash` is the 64-byte hash of the connection's handshake, `is_initiator` the role of
    the side that shows it: a reflected proof does not fit. Compare with `hmac.compare_digest`.
    """
    role = _INITIATOR if is_initiator else _RESPONDER
    return blake2b(role + capability + handshake_hash, digest_size=HASH_SIZE).digest()
