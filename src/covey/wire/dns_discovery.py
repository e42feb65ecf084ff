"""DNS-discovery on top of DNS messages: names, tokens, peer lists, and every message it sends.

Pure codecs, shared by the multicast role and by the client and server of the unicast one. What
arrives is checked by `read_text`, `topic_of_name`, `decode_peers`, `parse_port` and `is_dialable`.

Source: `dns-discovery.md` sections 2, 3 and 7; dns-discovery 6.2.3.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

from covey.errors import EncodeError
from covey.host_port import show
from covey.wire.dns_messages import (
    FLAG_AUTHORITATIVE,
    FLAG_RECURSION_DESIRED,
    TYPE_A,
    TYPE_SRV,
    TYPE_TXT,
    Message,
    Question,
    Record,
    Service,
)

DEFAULT_DOMAIN = "dns-discovery.local"
MULTICAST_PORT = 5353
"""UDP port of the group, the one of ordinary multicast DNS."""
ANY_HOST = "0.0.0.0"
"""In a peer list: the sender of the datagram."""
MAX_PEERS = 31
"""Peers one TXT string can hold: `peers=` and 31 x 8 base64 characters are 254 bytes."""
MAX_TOPIC = 20
"""Bytes of a topic: a SHA-1."""

Peer: TypeAlias = tuple[str, int]
"""IPv4 address as text, and port."""
TextValues: TypeAlias = dict[str, str | bool]

_PORT = re.compile(r"[1-9][0-9]{0,4}")
_TOPIC = re.compile(rf"(?:[0-9a-f]{{2}}){{1,{MAX_TOPIC}}}")
_NOT_BASE64 = re.compile(r"[^A-Za-z0-9+/]")
# A datagram with one of these ids looks like uTP to a peer that shares its socket with it.
_UTP_LOOKALIKES = frozenset((kind << 12) | 0x100 | low for kind in range(5) for low in range(3))


# Names


def name_of_topic(topic: bytes, domain: str = DEFAULT_DOMAIN) -> str:
    """`<lower case hex>.<domain>` of a topic of 1 to 20 bytes."""
    if not 1 <= len(topic) <= MAX_TOPIC:
        raise EncodeError(f"a topic of {len(topic)} bytes, 1 to {MAX_TOPIC} are possible")
    return f"{topic.hex()}.{domain}"


def topic_of_name(name: str, domain: str = DEFAULT_DOMAIN) -> bytes | None:
    """The topic that a name asks for, or None for any other name.

    Stricter than the reference, which takes the last two labels of any name as its domain: the
    domain must be ours and one label of hex digits stands before it. ASCII case is ignored.
    """
    topic, _, rest = _lower(name).partition(".")
    if not is_same_name(rest, domain) or not _TOPIC.fullmatch(topic):
        return None
    return bytes.fromhex(topic)


def is_same_name(one: str, other: str) -> bool:
    """Whether two names are equal but for the case of ASCII letters."""
    return _lower(one) == _lower(other)


def _lower(text: str) -> str:
    """Lower case of ASCII letters only: `str.lower` would let a Kelvin sign pass for a k."""
    return text.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")


# TXT strings


def write_text(values: Mapping[str, str]) -> tuple[bytes, ...]:
    """`key=value` strings in order. Raises `EncodeError` above 255 bytes each."""
    strings = tuple(f"{key}={value}".encode() for key, value in values.items())
    for string in strings:
        if len(string) > 255:
            raise EncodeError(f"a TXT string of {len(string)} bytes, at most 255")
    return strings


def read_text(strings: Iterable[bytes]) -> TextValues:
    """The values by key: without `=` the value is True; of a repeated key the last one counts."""
    values: TextValues = {}
    for string in strings:
        key, equals, value = string.decode("utf-8", "replace").partition("=")
        values[key] = value if equals else True
    return values


# Tokens, ports, peers


def token_for(secret: bytes, host: str) -> str:
    """The token a holder of `secret` (32 bytes) gives to `host` (IPv4 as text): 44 characters."""
    return base64.b64encode(hashlib.sha256(secret + host.encode("ascii")).digest()).decode("ascii")


def parse_port(text: object) -> int | None:
    """A port from 1 to 65535 in plain decimal, or None: stricter than the reference's 5 digits."""
    if not isinstance(text, str) or not _PORT.fullmatch(text):
        return None
    port = int(text)
    return port if port <= 65535 else None


def encode_peers(peers: Sequence[Peer]) -> str:
    """Base64 of 6 bytes per peer. Raises `EncodeError` for more than 31, which no string holds."""
    if len(peers) > MAX_PEERS:
        raise EncodeError(f"{len(peers)} peers in one TXT string, at most {MAX_PEERS}")
    out = bytearray()
    for host, port in peers:
        try:
            out += ipaddress.IPv4Address(host).packed + port.to_bytes(2, "big")
        except (ValueError, OverflowError) as error:
            raise EncodeError(f"{show(host, port)} is not an IPv4 address and port") from error
    return base64.b64encode(out).decode("ascii")


def decode_peers(text: object, sender: str | None = None) -> list[Peer]:
    """The peers of a `peers` value; never raises.

    Characters outside base64 and an incomplete last entry are ignored, as the reference does;
    0.0.0.0 becomes `sender` when that is given. Nothing is filtered: see `is_dialable`.
    """
    if not isinstance(text, str):
        return []
    digits = text.partition("=")[0].replace("-", "+").replace("_", "/")
    digits = _NOT_BASE64.sub("", digits)
    digits = digits[: len(digits) // 8 * 8]  # 8 characters are one entry
    raw = base64.b64decode(digits)
    peers = []
    for start in range(0, len(raw), 6):
        host = str(ipaddress.IPv4Address(raw[start : start + 4]))
        if host == ANY_HOST and sender is not None:
            host = sender
        peers.append((host, int.from_bytes(raw[start + 4 : start + 6], "big")))
    return peers


def is_dialable(host: str, port: int) -> bool:
    """Whether a peer heard of may be passed on: strict IPv4 of one host, and a port.

    Refused: anything but four decimal numbers, 0.0.0.0/8, multicast, the broadcast address and
    the reserved block it is in, and port 0.
    """
    try:
        address = ipaddress.IPv4Address(host)
    except ValueError:
        return False
    this_network = address.packed[0] == 0
    return 0 < port <= 65535 and not (this_network or address.is_multicast or address.is_reserved)


def query_id(random_number: int) -> int:
    """A query id from 1 to 65535 out of any number, never one that a peer would read as uTP."""
    candidate = random_number % 65535 + 1
    while candidate in _UTP_LOOKALIKES:
        candidate += 3
    return candidate


# Unicast messages: section 3, one function for each row of its table


def probe(message_id: int, domain: str = DEFAULT_DOMAIN) -> Message:
    """Asks a server for a token and for our own address."""
    return _query(message_id, domain, None)


def lookup(message_id: int, name: str, token: str, *, ttl: int = 0) -> Message:
    """Asks for the peers of `name` and for pushes of new ones."""
    return _query(message_id, name, {"subscribe": "true", "token": token}, ttl)


def announce(message_id: int, name: str, token: str, port: int, *, ttl: int = 0) -> Message:
    """Announces `port`; 0 stands for the source port of the datagram."""
    values = {"subscribe": "true", "token": token, "announce": str(port)}
    return _query(message_id, name, values, ttl)


def unannounce(message_id: int, name: str, token: str, port: int, *, ttl: int = 0) -> Message:
    """Withdraws `port` and, because `subscribe` is missing, the subscription to pushes."""
    return _query(message_id, name, {"token": token, "unannounce": str(port)}, ttl)


def push(message_id: int, name: str, peer: Peer, *, ttl: int = 0) -> Message:
    """Tells a subscriber of a new peer: a query without a question."""
    record = Record(name, TYPE_SRV, Service(peer[1], peer[0]), ttl)
    return Message(id=message_id, flags=FLAG_RECURSION_DESIRED, additionals=(record,))


def response(query: Message, answers: Iterable[Record] = ()) -> Message:
    """The unicast response to `query`, also the acknowledgement of a push (without answers)."""
    return Message(id=query.id, response=True, questions=query.questions, answers=tuple(answers))


def _query(message_id: int, name: str, values: dict[str, str] | None, ttl: int = 0) -> Message:
    additionals = () if values is None else (text_record(name, values, ttl=ttl),)
    return Message(
        id=message_id,
        flags=FLAG_RECURSION_DESIRED,
        questions=(Question(name),),
        additionals=additionals,
    )


# Answers


def text_record(name: str, values: Mapping[str, str], *, ttl: int = 0) -> Record:
    """A TXT record of `key=value` strings."""
    return Record(name, TYPE_TXT, write_text(values), ttl)


def probe_answer(name: str, token: str, asker: Peer, *, ttl: int = 0) -> Record:
    """What a probe is answered: the token, and the asker as the server sees it."""
    values = {"token": token, "host": asker[0], "port": str(asker[1])}
    return text_record(name, values, ttl=ttl)


def peers_answer(name: str, token: str, peers: Sequence[Peer], *, ttl: int = 0) -> Record:
    """What a lookup is answered: the token, and `peers` when any are known (at most 31)."""
    values = {"token": token}
    if peers:
        values["peers"] = encode_peers(peers)
    return text_record(name, values, ttl=ttl)


def address_answer(name: str, host: str, *, ttl: int = 0) -> Record:
    """What a question of type A is answered."""
    return Record(name, TYPE_A, host, ttl)


def service_answer(name: str, peer: Peer, *, ttl: int = 0) -> Record:
    """What a question of type SRV is answered."""
    return Record(name, TYPE_SRV, Service(peer[1], peer[0]), ttl)


# Multicast messages: id 0


def multicast_query(name: str) -> Message:
    """Asks everybody on the link for the peers of `name`."""
    return Message(questions=(Question(name),))


def multicast_response(questions: Iterable[Question], answers: Iterable[Record]) -> Message:
    """Answers to everybody on the link; the questions are copied into it."""
    return Message(
        response=True,
        flags=FLAG_AUTHORITATIVE,
        questions=tuple(questions),
        answers=tuple(answers),
    )


__all__ = [
    "ANY_HOST",
    "DEFAULT_DOMAIN",
    "MAX_PEERS",
    "MAX_TOPIC",
    "MULTICAST_PORT",
    "Peer",
    "TextValues",
    "address_answer",
    "announce",
    "decode_peers",
    "encode_peers",
    "is_dialable",
    "is_same_name",
    "lookup",
    "multicast_query",
    "multicast_response",
    "name_of_topic",
    "parse_port",
    "peers_answer",
    "probe",
    "probe_answer",
    "push",
    "query_id",
    "read_text",
    "response",
    "service_answer",
    "text_record",
    "token_for",
    "topic_of_name",
    "unannounce",
    "write_text",
]
