"""What a client reads in the datagrams of a DNS-discovery server: answers, probe answers, pushes.

Each function looks only at records of the name asked for and never raises on a decoded message.
Who sent it (address, port, id) is the caller's to check: the wire proves nothing.

Source: `dns-discovery.md` sections 3, 5 and 7; dns-discovery 6.2.3.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from covey.wire.dns_discovery import (
    ANY_HOST,
    DEFAULT_DOMAIN,
    Peer,
    TextValues,
    decode_peers,
    is_dialable,
    is_same_name,
    parse_port,
    read_text,
    topic_of_name,
)
from covey.wire.dns_messages import CLASS_IN, TYPE_SRV, TYPE_TXT, Message, Record, Service

CLASS_MASK = 0x7FFF
"""The top bit of a class is multicast DNS' cache flush or wish for unicast."""


@dataclass(frozen=True, slots=True)
class LookupAnswer:
    """A server's answer for one topic; `token` is None when it gave none that can be returned."""

    token: str | None
    peers: tuple[Peer, ...]


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """A server's answer to a probe: a token, and how it sees us (None when it does not say)."""

    token: str | None
    host: str | None
    port: int | None


def read_lookup_answer(
    message: Message, topic: bytes, sender: str, domain: str = DEFAULT_DOMAIN
) -> LookupAnswer | None:
    """Token and dialable peers of `topic`, each once; None when the answer is not for it.

    0.0.0.0 among the peers is `sender`.
    """
    if not message.response:
        return None
    token: str | None = None
    peers: dict[Peer, None] = {}
    found = False
    for record in message.answers + message.additionals:
        values = text_values(record)
        if values is None or topic_of_name(record.name, domain) != topic:
            continue
        found = True
        token = _token(values) or token
        heard = decode_peers(values.get("peers"), sender)
        peers |= dict.fromkeys(peer for peer in heard if is_dialable(*peer))
    return LookupAnswer(token, tuple(peers)) if found else None


def read_probe_answer(message: Message, domain: str = DEFAULT_DOMAIN) -> ProbeAnswer | None:
    """Token and our own address as the server sees it; None when this is no probe answer."""
    for record in message.answers if message.response else ():
        values = text_values(record)
        if values is None or not is_same_name(record.name, domain):
            continue
        host, port = values.get("host"), parse_port(values.get("port"))
        seen = host if isinstance(host, str) and is_dialable(host, 1) else None
        return ProbeAnswer(_token(values), seen, port)
    return None


def read_push(message: Message, sender: str, domain: str = DEFAULT_DOMAIN) -> list[PushedPeer]:
    """The new peers that a server tells of. Empty for any other message."""
    return [] if message.response else list(_pushed(message, sender, domain))


@dataclass(frozen=True, slots=True)
class PushedPeer:
    """A server says that `topic` has a new peer."""

    topic: bytes
    host: str
    port: int


def _pushed(message: Message, sender: str, domain: str) -> Iterator[PushedPeer]:
    for record in message.answers + message.additionals:
        topic = topic_of_name(record.name, domain)
        if topic is not None and (peer := service_peer(record, sender)) is not None:
            yield PushedPeer(topic, *peer)


def service_peer(record: Record, sender: str) -> Peer | None:
    """The peer in an SRV record, 0.0.0.0 being `sender`; None when there is none to dial."""
    in_class = record.record_class & CLASS_MASK == CLASS_IN
    if record.type != TYPE_SRV or not isinstance(record.data, Service) or not in_class:
        return None
    host = sender if record.data.target == ANY_HOST else record.data.target
    return (host, record.data.port) if is_dialable(host, record.data.port) else None


def text_values(record: Record) -> TextValues | None:
    """The values of a TXT record, None for any other record."""
    in_class = record.record_class & CLASS_MASK == CLASS_IN
    if record.type != TYPE_TXT or not isinstance(record.data, tuple) or not in_class:
        return None
    return read_text(record.data)


def _token(values: TextValues) -> str | None:
    """The token to return; `null` is what the reference writes when it has lost its own."""
    token = values.get("token")
    return token if isinstance(token, str) and token not in ("", "null") else None


__all__ = [
    "LookupAnswer",
    "ProbeAnswer",
    "PushedPeer",
    "read_lookup_answer",
    "read_probe_answer",
    "read_push",
    "service_peer",
    "text_values",
]
