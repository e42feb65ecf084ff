"""What goes over the channel `covey/networker` (`networker.md` section 4). Pure.

Every name is 1 to 255 bytes, a payload 8 MiB at most, a list of names 1,024 long.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from covey.errors import DecodeError, EncodeError
from covey.wire.binary import checked_bytes
from covey.wire.encoding import Codec, Reader, encode_uint, string, uint

PROTOCOL: Final = "covey/networker"
"""The name of the channel; it has no id."""
VERSION: Final = 1
MAX_NAME: Final = 255
"""Bytes of an extension's name."""
MAX_NAMES: Final = 1024
"""Extensions of one side."""
MAX_PAYLOAD: Final = 8 << 20
"""Bytes of one message."""
WITHDRAWN: Final = 1
"""Bit of `Names.flags`: these extensions are not registered any more."""


class Version(NamedTuple):
    """The handshake of the channel. Of two versions the smaller one is spoken."""

    version: int = VERSION
    flags: int = 0


class Sent(NamedTuple):
    """Message 0, `ext`: one message of the extension `name`."""

    name: str
    payload: bytes


class Names(NamedTuple):
    """Message 1, `names`: extensions that the sender registered, or withdrew."""

    flags: int
    names: Sequence[str]

    @property
    def withdrawn(self) -> bool:
        """Whether they are not registered any more."""
        return bool(self.flags & WITHDRAWN)


def name_bytes(name: str) -> bytes:
    """The name of an extension as it goes on the wire; `EncodeError` unless 1 to 255 bytes."""
    raw = string.text_to_bytes(name)
    if not 1 <= len(raw) <= MAX_NAME:
        raise EncodeError(f"the name of an extension has 1 to {MAX_NAME} bytes, not {len(raw)}")
    return raw


def _write_name(out: bytearray, name: str) -> None:
    raw = name_bytes(name)
    out += encode_uint(len(raw))
    out += raw


def _read_name(reader: Reader) -> str:
    size = uint.decode_from(reader)
    if not 1 <= size <= MAX_NAME:
        raise DecodeError(f"the name of an extension has 1 to {MAX_NAME} bytes, not {size}")
    return string.bytes_to_text(reader.take(size))


class VersionCodec(Codec[Version]):
    """Version and flags; what follows is for later versions."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Version) -> None:
        """Append both."""
        uint.encode_into(out, value.version)
        uint.encode_into(out, value.flags)

    def decode_from(self, reader: Reader) -> Version:
        """Take both; `DecodeError` for version 0, which nobody speaks."""
        version = Version(uint.decode_from(reader), uint.decode_from(reader))
        if version.version < 1:
            raise DecodeError(f"{PROTOCOL} has no version {version.version}")
        return version


class SentCodec(Codec[Sent]):
    """The name, and all the rest as payload."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Sent) -> None:
        """Append; `EncodeError` for a name or a payload that is too long."""
        check_payload(value.payload)
        _write_name(out, value.name)
        out += checked_bytes(value.payload)

    def decode_from(self, reader: Reader) -> Sent:
        """Take one; `DecodeError` for a name or a payload that is too long, or no name."""
        name = _read_name(reader)
        if reader.remaining > MAX_PAYLOAD:
            raise DecodeError(f"a message has at most {MAX_PAYLOAD} bytes, not {reader.remaining}")
        return Sent(name, bytes(reader.take(reader.remaining)))


class NamesCodec(Codec[Names]):
    """Flags, a count, the names."""

    __slots__ = ()

    def encode_into(self, out: bytearray, value: Names) -> None:
        """Append; `EncodeError` for too many names, or one that is too long."""
        if len(value.names) > MAX_NAMES:
            raise EncodeError(f"at most {MAX_NAMES} names are told, not {len(value.names)}")
        uint.encode_into(out, value.flags)
        uint.encode_into(out, len(value.names))
        for name in value.names:
            _write_name(out, name)

    def decode_from(self, reader: Reader) -> Names:
        """Take them; `DecodeError` for too many names, or one that is too long or empty."""
        flags = uint.decode_from(reader)
        count = reader.take_count(2)
        if count > MAX_NAMES:
            raise DecodeError(f"at most {MAX_NAMES} names are told, not {count}")
        return Names(flags, [_read_name(reader) for _ in range(count)])


def check_payload(payload: bytes) -> None:
    """`EncodeError` for what is too long for one message."""
    if len(payload) > MAX_PAYLOAD:
        raise EncodeError(f"a message has at most {MAX_PAYLOAD} bytes, not {len(payload)}")


version_codec: Final = VersionCodec()
sent_codec: Final = SentCodec()
names_codec: Final = NamesCodec()
