"""Multiserver addresses: what names a peer, and how to reach it.

One linear parser serves checking, decoding, key extraction and dialling, which the originals do
with four that disagree. Source: multiserver-address 1.0.1, multiserver 3.8.2, ssb-ref 2.16.0;
`multiserver-address.md` names the sections meant below.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self, TypeAlias

from covey.errors import AddressError
from covey.host_port import is_port
from covey.peer_type import PeerType, peer_type

MAX_ALTERNATIVE = 2048
"""Characters of one alternative; longer text is refused before it is looked at (section 2.3)."""
MAX_ADDRESS = 8192
"""Characters of a whole address."""

_NAME = "[a-z][a-z0-9-]++"
_PROTOCOL = f'{_NAME}(?::(?:["-9<-}}]++|![!~:;])*+)*+'
_ALTERNATIVE = f"{_PROTOCOL}(?:~{_PROTOCOL})*+"
_ADDRESS_PATTERN = re.compile(f"{_ALTERNATIVE}(?:;{_ALTERNATIVE})*+")
_PORT_PATTERN = re.compile("[1-9][0-9]{0,4}")
_SPECIAL_PATTERN = re.compile("[!~:;]")
# While text is split, escaped characters hide behind controls, which no valid text contains.
_HIDDEN = {"!!": "\x01", "!~": "\x02", "!:": "\x03", "!;": "\x04"}
_SHOWN = str.maketrans({hidden: pair[1] for pair, hidden in _HIDDEN.items()})

_KEY_SIZE = 32  # not that of `keys`: to read an address loads no cryptography
_CACHED_LENGTH = 256  # longer texts are rare, and strangers shall not fill the cache with them
_INTERNET_TRANSPORTS = frozenset({"net", "utp"})
_KEYED = ("shs", "noise")
_NAMED_TYPES: dict[str, PeerType] = {"bt": "bt", "dht": "dht", "tunnel": "tunnel"}


@dataclass(frozen=True, slots=True)
class Step:
    """One step of an alternative: a name and its data fields, without escapes."""

    name: str
    data: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The text of it, with `! ~ : ;` in the data escaped."""
        return ":".join((self.name, *(_SPECIAL_PATTERN.sub(r"!\g<0>", d) for d in self.data)))

    @property
    def key(self) -> bytes | None:
        """The 32-byte key in the first field of `shs` or `noise`, None when there is none."""
        if self.name not in _KEYED or not self.data:
            return None
        return decode_key(self.data[0])


_set = object.__setattr__
Alternative: TypeAlias = tuple[Step, ...]


def decode_key(text: str) -> bytes | None:
    """The 32 bytes that `text` is canonical standard base64 of, otherwise None (section 3.2)."""
    if len(text) != 44:
        return None
    try:
        key = binascii.a2b_base64(text)
    except (binascii.Error, ValueError):
        return None
    if len(key) != _KEY_SIZE or binascii.b2a_base64(key, newline=False) != text.encode():
        return None
    return key


def encode_key(key: bytes) -> str:
    """32 bytes as the text that addresses carry; `AddressError` for another size."""
    if len(key) != _KEY_SIZE:
        raise AddressError(f"a key has {_KEY_SIZE} bytes, not {len(key)}")
    return base64.b64encode(key).decode("ascii")


class Address:
    """A multiserver address, frozen: equal and hashed by its text.

    Made by `parse`, `of` and `net`, never directly. What the text says is read when it is asked
    for: a pool of candidates holds a hundred thousand of these, and dials a few.
    """

    __slots__ = ("_alternatives", "_key", "_target", "text")
    text: str
    _alternatives: tuple[Alternative, ...] | None
    _key: tuple[bytes | None] | None
    _target: tuple[str | None, int | None] | None

    def __init__(self, text: str) -> None:
        refusal = _refusal(text)
        if refusal is not None:
            raise AddressError(refusal)
        _set(self, "text", text)
        _set(self, "_alternatives", None)
        _set(self, "_key", None)
        _set(self, "_target", None)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that `text` is; `AddressError` when it is none, `TypeError` when not str."""
        if not isinstance(text, str):
            raise TypeError(f"an address is a str, not {type(text).__name__}")
        if len(text) <= _CACHED_LENGTH and cls is Address:
            return _parse_cached(text)  # type: ignore[return-value]
        return cls(text)

    @classmethod
    def check(cls, text: str) -> bool:
        """Whether `parse` takes `text`; `TypeError` when it is not a str (section 2.2)."""
        if not isinstance(text, str):
            raise TypeError(f"an address is a str, not {type(text).__name__}")
        return _refusal(text) is None

    @classmethod
    def of(cls, alternatives: Iterable[Iterable[Step]]) -> Self:
        """The address of these alternatives; `AddressError` when they have no valid text."""
        return cls.parse(";".join("~".join(map(str, steps)) for steps in alternatives))

    @classmethod
    def net(
        cls,
        host: str,
        port: int,
        handshake: str | None = "noise",
        key: bytes | None = None,
        *,
        transport: str = "net",
    ) -> Self:
        """`net:host:port~handshake[:key]`; IPv6 hosts are written with plain colons.

        Raises `AddressError` for a port outside 1 to 65535, an empty host, characters that no
        address can hold, or a key without a handshake that carries one; `TypeError` for a host that
        is not a str or a port that is not an int.
        """
        if not isinstance(host, str) or not isinstance(port, int) or isinstance(port, bool):
            kinds = f"{type(host).__name__}, {type(port).__name__}"
            raise TypeError(f"a host is a str and a port an int, not {kinds}")
        if not host or not is_port(port):
            raise AddressError(f"no host and port to connect to: {host!r}, {port}")
        if key is not None and handshake not in _KEYED:
            raise AddressError(f"the handshake {handshake!r} carries no key")
        steps = [Step(transport, (*host.split(":"), str(port)))]
        if handshake is not None:
            steps.append(Step(handshake, () if key is None else (encode_key(key),)))
        return cls.of([steps])

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"an address is frozen: {name} cannot be set")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"an address is frozen: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Address) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"Address({self.text!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).parse, (self.text,)

    @property
    def alternatives(self) -> tuple[Alternative, ...]:
        """The ways to reach the peer in order of preference: a transport, then handshakes."""
        found = self._alternatives
        if found is None:
            found = _split(self.text)
            _set(self, "_alternatives", found)
        return found

    @property
    def host(self) -> str | None:
        """Host of the first alternative over `net` or `utp`, no brackets; empty is localhost."""
        return self._find_target()[0]

    @property
    def port(self) -> int | None:
        """Its port; None when it is not plain decimal 1 to 65535: then it cannot be dialled."""
        return self._find_target()[1]

    @property
    def key(self) -> bytes | None:
        """The first key of an `shs` over all alternatives, else that of a `noise` (3.2)."""
        found = self._key
        if found is None:
            found = (_first_key(self.alternatives),)
            _set(self, "_key", found)
        return found[0]

    def _find_target(self) -> tuple[str | None, int | None]:
        found = self._target
        if found is None:
            found = host_and_port(self.transport)
            _set(self, "_target", found)
        return found

    @property
    def transport(self) -> Step:
        """The first step of the first alternative."""
        return self.alternatives[0][0]

    @property
    def handshake(self) -> Step | None:
        """The second step of the first alternative, None when it has no other."""
        steps = self.alternatives[0]
        return steps[1] if len(steps) > 1 else None

    @property
    def type(self) -> PeerType | None:
        """What kind of peer the first alternative leads to, as far as its text tells (3.3)."""
        transport = self.transport
        if transport.name in _NAMED_TYPES:
            return _NAMED_TYPES[transport.name]
        if transport.name != "net" or self.host is None or self.port is None:
            return None
        return peer_type(self.host)

    def with_key(self, key: bytes) -> Self:
        """The first alternative alone, with `key` (32 bytes) as the one the remote must prove.

        Raises `AddressError` when its handshake carries no key.
        """
        steps = self.alternatives[0]
        handshake = self.handshake
        if handshake is None or handshake.name not in _KEYED:
            raise AddressError(f"no handshake that carries a key in {self.text}")
        changed = Step(handshake.name, (encode_key(key), *handshake.data[1:]))
        return type(self).of([(steps[0], changed, *steps[2:])])

    def for_dialling(self, transports: Collection[str], handshakes: Collection[str]) -> Self:
        """The first alternative that these transports and handshakes understand (section 3.1).

        Alternatives after it are not looked at. Raises `AddressError` when none is understood, and
        at once where the original would break: no handshake, `shs` without a key, or more steps
        than a handshake.
        """
        for steps in self.alternatives:
            if steps[0].name not in transports or not _has_target(steps[0]):
                continue
            if len(steps) == 1:
                raise AddressError(f"no handshake in {_line(steps)}")
            if steps[1].name not in handshakes or not _understood(steps[1]):
                continue
            if len(steps) > 2:
                raise AddressError(f"unsupported transform {steps[2].name} in {_line(steps)}")
            return self if len(self.alternatives) == 1 else type(self).of([steps])
        known = f"{', '.join(sorted(transports))} with {', '.join(sorted(handshakes))}"
        raise AddressError(f"cannot be dialled: {self.text}; known are {known}")


@lru_cache(maxsize=4096)
def _parse_cached(text: str) -> Address:
    return Address(text)


def _refusal(text: str) -> str | None:
    """Why `text` is not an address, None when it is one."""
    if len(text) > MAX_ADDRESS:
        return f"an address has at most {MAX_ADDRESS} characters, not {len(text)}"
    if _ADDRESS_PATTERN.fullmatch(text) is None:
        return f"not a multiserver address: {text[:100]!r}"
    if len(text) > MAX_ALTERNATIVE and any(
        len(part) + sum(map(part.count, _HIDDEN.values())) > MAX_ALTERNATIVE
        for part in _hide(text).split(";")
    ):
        return f"one alternative of an address has at most {MAX_ALTERNATIVE} characters"
    return None


def _hide(text: str) -> str:
    """Valid text with its escapes hidden: `!!` first, since a run of `!` pairs up from its left."""
    if "!" in text:
        for pair, hidden in _HIDDEN.items():
            text = text.replace(pair, hidden)
    return text


def _split(text: str) -> tuple[Alternative, ...]:
    """The parts of text that `_refusal` has passed; each character is looked at a few times."""
    protocol = _unescaped_step if "!" in text else _step
    return tuple([tuple(map(protocol, part.split("~"))) for part in _hide(text).split(";")])


def _step(step: str) -> Step:
    name, *data = step.split(":")
    return Step(name, tuple(data))


def _unescaped_step(step: str) -> Step:
    name, *data = step.split(":")
    return Step(name, tuple([item.translate(_SHOWN) for item in data]))


def _first_key(alternatives: tuple[Alternative, ...]) -> bytes | None:
    for name in _KEYED:
        for steps in alternatives:
            for step in steps:
                if step.name == name and step.key is not None:
                    return step.key
    return None


def host_and_port(transport: Step) -> tuple[str | None, int | None]:
    """The last field is the port, all before it, joined again, the host (section 3)."""
    if transport.name not in _INTERNET_TRANSPORTS or len(transport.data) < 2:
        return None, None
    host = ":".join(transport.data[:-1])
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    digits = transport.data[-1]
    port = int(digits) if _PORT_PATTERN.fullmatch(digits) else 0
    return host or "localhost", port if 1 <= port <= 0xFFFF else None


def _has_target(transport: Step) -> bool:
    if transport.name not in _INTERNET_TRANSPORTS:
        return True
    return host_and_port(transport)[1] is not None


def _understood(handshake: Step) -> bool:
    """Whether the data of a known handshake makes sense; `AddressError` for `shs` without any."""
    if handshake.name == "shs":
        if not handshake.data:
            raise AddressError("the handshake shs needs a key")
        return all(decode_key(item) is not None for item in handshake.data[:2])
    if handshake.name == "noise":
        return not handshake.data or handshake.key is not None
    return True


def _line(steps: Alternative) -> str:
    return "~".join(map(str, steps))
