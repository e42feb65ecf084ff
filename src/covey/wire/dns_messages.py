"""DNS messages as DNS-discovery writes and reads them: one datagram to one `Message` and back.

A parser of our own and not dnspython's, for three things the wire needs and that one refuses:
records stay as they came, in order and repeated (dnspython merges them into sets), TXT data may
hold no string at all, and a TTL of 2^31 keeps its value. It also takes a tenth of a second to
import. Names are written without compression and read with it.

Source: `dns-discovery.md` section 3; dns-packet 4.2.0 and 5.6.1.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import TypeAlias

from covey.errors import DecodeError, EncodeError
from covey.wire.session import Buffer

TYPE_A = 1
TYPE_TXT = 16
TYPE_SRV = 33
CLASS_IN = 1
TYPE_NAMES = {TYPE_A: "A", TYPE_TXT: "TXT", TYPE_SRV: "SRV"}

FLAG_RESPONSE = 0x8000
FLAG_AUTHORITATIVE = 0x0400
FLAG_RECURSION_DESIRED = 0x0100

MAX_RECORDS = 256
"""Questions and records in one message; ordinary multicast DNS stays well below."""
MAX_POINTERS = 128
"""Pointers followed in one name: as many as it can have labels."""
MAX_STEPS = 2048
"""Labels and pointers read in one message: short names that lead to long ones cost us no time."""
MAX_NAME = 255
MAX_LABEL = 63
_HEADER = 12


@dataclass(frozen=True, slots=True)
class Service:
    """Data of an SRV record: `target` is a host name or an IPv4 address as text."""

    port: int
    target: str
    priority: int = 0
    weight: int = 0


RecordData: TypeAlias = tuple[bytes, ...] | Service | str | bytes
"""TXT: its strings; SRV: a `Service`; A: the address as text; any other type: the bare bytes."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: a name without the last dot, and a type."""

    name: str
    type: int = TYPE_TXT
    record_class: int = CLASS_IN


@dataclass(frozen=True, slots=True)
class Record:
    """One resource record; `ttl` in seconds. `data` fits `type`, see `RecordData`."""

    name: str
    type: int
    data: RecordData
    ttl: int = 0
    record_class: int = CLASS_IN


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One DNS message; `flags` leaves the response bit out, which is `response`."""

    id: int = 0
    response: bool = False
    flags: int = 0
    questions: tuple[Question, ...] = ()
    answers: tuple[Record, ...] = ()
    authorities: tuple[Record, ...] = ()
    additionals: tuple[Record, ...] = ()


def type_name(record_type: int) -> str:
    """The usual name of a record type, `UNKNOWN_<number>` for those not used here."""
    return TYPE_NAMES.get(record_type, f"UNKNOWN_{record_type}")


def encode_message(message: Message) -> bytes:
    """The datagram of `message`. Raises `EncodeError` when something does not fit its field."""
    out = bytearray()
    flags = (message.flags & ~FLAG_RESPONSE) | (FLAG_RESPONSE if message.response else 0)
    sections = (message.answers, message.authorities, message.additionals)
    for value in (message.id, flags, len(message.questions), *map(len, sections)):
        out += _unsigned(value, 2)
    for question in message.questions:
        out += _encode_name(question.name)
        out += _unsigned(question.type, 2) + _unsigned(question.record_class, 2)
    for section in sections:
        for record in section:
            out += _encode_record(record)
    return bytes(out)


def decode_message(data: Buffer) -> Message:
    """The message in one datagram. Raises `DecodeError` and nothing else.

    Bytes after the last record are ignored, as the reference does. Record data that overruns the
    datagram or its own length refuses the whole message, as do forward pointers, more than
    `MAX_RECORDS` entries, and more than `MAX_STEPS` labels.
    """
    reader = _Reader(bytes(data))
    if len(reader.data) < _HEADER:
        raise DecodeError(f"a DNS message of {len(reader.data)} bytes has no full header")
    message_id, flags, *counts = (reader.unsigned(2) for _ in range(6))
    if sum(counts) > MAX_RECORDS:
        raise DecodeError(f"{sum(counts)} DNS records in one message, at most {MAX_RECORDS}")
    questions = tuple(
        Question(reader.name(), reader.unsigned(2), reader.unsigned(2)) for _ in range(counts[0])
    )
    answers, authorities, additionals = (
        tuple(_decode_record(reader) for _ in range(count)) for count in counts[1:]
    )
    return Message(
        id=message_id,
        response=bool(flags & FLAG_RESPONSE),
        flags=flags & ~FLAG_RESPONSE,
        questions=questions,
        answers=answers,
        authorities=authorities,
        additionals=additionals,
    )


def _unsigned(value: int, size: int) -> bytes:
    if not 0 <= value < 1 << (8 * size):
        raise EncodeError(f"{value} does not fit a DNS field of {size} bytes")
    return value.to_bytes(size, "big")


def _encode_name(name: str) -> bytes:
    out = bytearray()
    for label in name.split(".") if name else ():
        encoded = label.encode("utf-8", "surrogateescape")
        if not 0 < len(encoded) <= MAX_LABEL or "\\" in label:
            raise EncodeError(f"{label!r} is not a DNS label of 1 to {MAX_LABEL} bytes")
        out.append(len(encoded))
        out += encoded
    out.append(0)
    if len(out) > MAX_NAME:
        raise EncodeError(f"a DNS name of {len(out)} bytes, at most {MAX_NAME}")
    return bytes(out)


def _encode_record(record: Record) -> bytes:
    data = _encode_data(record)
    return b"".join(
        (
            _encode_name(record.name),
            _unsigned(record.type, 2),
            _unsigned(record.record_class, 2),
            _unsigned(record.ttl, 4),
            _unsigned(len(data), 2),
            data,
        )
    )


def _encode_data(record: Record) -> bytes:
    data = record.data
    if isinstance(data, bytes):
        return data
    if record.type == TYPE_TXT and isinstance(data, tuple):
        return b"".join(_unsigned(len(text), 1) + text for text in data)
    if record.type == TYPE_SRV and isinstance(data, Service):
        fields = (data.priority, data.weight, data.port)
        return b"".join(_unsigned(field, 2) for field in fields) + _encode_name(data.target)
    if record.type == TYPE_A and isinstance(data, str):
        try:
            return ipaddress.IPv4Address(data).packed
        except ValueError as error:
            raise EncodeError(f"{data!r} is not an IPv4 address") from error
    raise EncodeError(f"{type_name(record.type)} record with data of another type")


def _decode_record(reader: _Reader) -> Record:
    name = reader.name()
    record_type, record_class = reader.unsigned(2), reader.unsigned(2)
    ttl, length = reader.unsigned(4), reader.unsigned(2)
    end = reader.position + length
    if end > len(reader.data):
        raise DecodeError("DNS record data beyond the end of the datagram")
    data = _decode_data(reader, record_type, end)
    if reader.position != end:
        raise DecodeError(f"{type_name(record_type)} data does not fill its length")
    return Record(name, record_type, data, ttl, record_class)


def _decode_data(reader: _Reader, record_type: int, end: int) -> RecordData:
    if record_type == TYPE_TXT:
        strings = []
        while reader.position < end:
            strings.append(reader.take(reader.unsigned(1)))
        return tuple(strings)
    if record_type == TYPE_SRV:
        priority, weight, port = (reader.unsigned(2) for _ in range(3))
        return Service(port, reader.name(), priority, weight)
    if record_type == TYPE_A:
        return str(ipaddress.IPv4Address(reader.take(4)))
    return reader.take(end - reader.position)


class _Reader:
    """A cursor over one datagram."""

    __slots__ = ("_steps", "data", "position")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0
        self._steps = 0

    def take(self, size: int) -> bytes:
        end = self.position + size
        if end > len(self.data):
            raise DecodeError("DNS message ends in the middle of a field")
        taken = self.data[self.position : end]
        self.position = end
        return taken

    def unsigned(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def name(self) -> str:
        """A name, pointers followed. Each pointer leads strictly further back than the last."""
        labels: list[str] = []
        size = 1
        resume: int | None = None
        barrier = self.position
        pointers = 0
        while length := self.unsigned(1):
            self._steps += 1
            if self._steps > MAX_STEPS:
                raise DecodeError(f"more than {MAX_STEPS} labels in one DNS message")
            if length >= 0xC0:
                target = (length & 0x3F) << 8 | self.unsigned(1)
                pointers += 1
                if target >= barrier or pointers > MAX_POINTERS:
                    raise DecodeError("a DNS name pointer that does not lead back")
                resume = self.position if resume is None else resume
                self.position = barrier = target
                continue
            if length > MAX_LABEL:
                raise DecodeError(f"a DNS label of reserved kind {length:#x}")
            size += length + 1
            if size > MAX_NAME:
                raise DecodeError(f"a DNS name of more than {MAX_NAME} bytes")
            labels.append(_label_text(self.take(length)))
        if resume is not None:
            self.position = resume
        return ".".join(labels)


def _label_text(label: bytes) -> str:
    """A label as text; a dot inside it is escaped, so that no label can pass for two."""
    text = label.decode("utf-8", "surrogateescape")
    return text.replace("\\", "\\\\").replace(".", "\\.")


__all__ = [
    "CLASS_IN",
    "TYPE_A",
    "TYPE_SRV",
    "TYPE_TXT",
    "Message",
    "Question",
    "Record",
    "RecordData",
    "Service",
    "decode_message",
    "encode_message",
    "type_name",
]
