"""Older ways to write a peer, and invites (ssb-ref 2.16.0; `multiserver-address.md` section 3.4).

What users paste is read here and turned into an `Address`; nothing of covey writes these forms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from covey.address import MAX_ADDRESS, Address, Step, decode_key, encode_key
from covey.errors import AddressError

_KEY = r"@?(?P<key>[A-Za-z0-9+/]{43}=)(?:\.ed25519)?"
_LEGACY_PATTERN = re.compile(rf"(?P<host>[^~#]+):(?P<port>[0-9]{{1,5}}):{_KEY}")
_ID_PATTERN = re.compile(_KEY)
_TRANSFORM_PATTERN = re.compile("(?<!!)~")


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite: the address of the peer that gave it, and the seed that opens its door.

    `seed` is a secret and stays out of `repr`; `redirect` is the text after `#`, None without one.
    """

    address: Address
    seed: bytes = field(repr=False)
    redirect: str | None = None


def is_address(text: str) -> bool:
    """Whether ssb-ref takes `text` for an address: a multiserver one with a `~`, or a legacy one.

    Raises `TypeError` when `text` is not a str.
    """
    if Address.check(text) and _TRANSFORM_PATTERN.search(text) is not None:
        return True
    try:
        from_legacy(text)
    except AddressError:
        return False
    return True


def from_legacy(text: str) -> Address:
    """`HOST:PORT:@KEY.ed25519` as `net:HOST:PORT~shs:KEY`; `AddressError` for anything else.

    Hosts that end in `.onion` become `onion:`, a `ws://` or `wss://` in front stays the transport.
    """
    match = _LEGACY_PATTERN.fullmatch(text) if len(text) <= MAX_ADDRESS else None
    if match is None:
        raise AddressError(f"not of the form HOST:PORT:@KEY.ed25519: {text[:100]!r}")
    return _assemble(match["host"], int(match["port"]), match["key"])


def from_parts(parts: Mapping[str, object]) -> Address:
    """The address that `{host, port, key}` means; `AddressError` when a part is missing or wrong.

    `host` and `key` are str, `port` an int; the key is base64, with or without `@` and `.ed25519`.
    """
    host, port, key = parts.get("host"), parts.get("port"), parts.get("key")
    if not isinstance(host, str) or not isinstance(port, int) or not isinstance(key, str):
        raise AddressError("an address in parts needs the texts host and key, and the number port")
    match = _ID_PATTERN.fullmatch(key)
    if match is None:
        raise AddressError("the key of an address in parts is base64 of 32 bytes")
    return _assemble(host, port, match["key"])


def parse_invite(text: str) -> Invite:
    """The invite in `text`, modern or legacy; `AddressError` when it is none, or has no seed.

    Modern is `net:HOST:PORT~shs:KEY:SEED`, legacy `HOST:PORT:@KEY.ed25519~SEED`; KEY and SEED are
    base64 of 32 bytes. Errors never quote the text: it may hold a seed.
    """
    body, mark, redirect = text.partition("#")
    address, seed_text = _split_invite(body)
    seed = decode_key(seed_text)
    if address.key is None or seed is None:
        raise AddressError("an invite needs a key and a seed, each base64 of 32 bytes")
    return Invite(address, seed, redirect if mark else None)


def _split_invite(body: str) -> tuple[Address, str]:
    """The address without the seed, and the seed's text ('' when there is none)."""
    try:
        whole = Address.parse(body)
    except AddressError:
        legacy, _, seed_text = body.rpartition("~")
        try:
            return from_legacy(legacy), seed_text
        except AddressError:
            raise AddressError("not an invite") from None
    steps = whole.alternatives[0]
    if len(steps) != 2 or steps[1].name != "shs" or len(steps[1].data) != 2:
        return whole, ""
    key_text, seed_text = steps[1].data
    return Address.of([(steps[0], Step("shs", (key_text,)))]), seed_text


def _assemble(host: str, port: int, key_text: str) -> Address:
    key = decode_key(key_text)
    if key is None:
        raise AddressError("the key of an address is canonical base64 of 32 bytes")
    scheme, separator, rest = host.partition("://")
    if separator:
        if scheme not in ("ws", "wss") or not 1 <= port <= 0xFFFF:
            raise AddressError(f"no address of a WebSocket: {host[:100]!r}, port {port}")
        target = Step(scheme, (f"//{rest}", str(port)))
        return Address.of([(target, Step("shs", (encode_key(key),)))])
    transport = "onion" if host.endswith(".onion") else "net"
    return Address.net(host, port, "shs", key, transport=transport)


__all__ = [
    "Invite",
    "from_legacy",
    "from_parts",
    "is_address",
    "parse_invite",
]
