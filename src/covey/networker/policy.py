"""What a networker decides, as functions over data: which connection of a peer, which state next.

Pure. Sources: `networker.md` sections 3 and 5; dswarm, as `@basestore/networker` 1.0.0 uses it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

from covey.errors import UsageError
from covey.host_port import parse_ip

Loser: TypeAlias = Literal["existing", "new"]


@dataclass(frozen=True, slots=True)
class Link:
    """What the rule needs to know of a connection: its transport, and whether this side dialled."""

    type: str
    initiator: bool


def is_self(own_key: bytes, remote_key: bytes) -> bool:
    """Whether a connection leads back to this very node."""
    return own_key == remote_key


def dropped_of_two(existing: Link, new: Link, *, own_key: bytes, remote_key: bytes) -> Loser:
    """Which of two live connections to one key goes: dswarm's rule, the same on both sides.

    TCP beats every other transport. Of two alike the newer one stays if the side with the smaller
    key dialled it, else the older. `UsageError` for equal keys: that is oneself.
    """
    if is_self(own_key, remote_key):
        raise UsageError("a connection to oneself is dropped, whatever else there is")
    if existing.type != new.type:
        if new.type == "tcp":
            return "existing"
        if existing.type == "tcp":
            return "new"
    smaller = own_key < remote_key
    return "existing" if smaller is new.initiator else "new"


class StreamState(StrEnum):
    """Where one connection stands (section 5)."""

    OPENING = "opening"
    """Its handshake is under way: a flush waits for it."""
    ACTIVE = "active"
    """It replicates, and its peer was told of."""
    DUPLICATE = "duplicate"
    """It is being closed: redundant, to oneself, or refused. Nobody was, or is any more, told."""
    CLOSED = "closed"


class StreamInput(StrEnum):
    """What can happen to a connection."""

    ACCEPTED = "accepted"
    """Its handshake is done and it is its peer's one connection."""
    DROPPED = "dropped"
    """It is not, or not any more."""
    ENDED = "ended"
    """It is closed."""


_NEXT: dict[tuple[StreamState, StreamInput], StreamState] = {
    (StreamState.OPENING, StreamInput.ACCEPTED): StreamState.ACTIVE,
    (StreamState.OPENING, StreamInput.DROPPED): StreamState.DUPLICATE,
    (StreamState.OPENING, StreamInput.ENDED): StreamState.CLOSED,
    (StreamState.ACTIVE, StreamInput.DROPPED): StreamState.DUPLICATE,
    (StreamState.ACTIVE, StreamInput.ENDED): StreamState.CLOSED,
    (StreamState.DUPLICATE, StreamInput.DROPPED): StreamState.DUPLICATE,  # told twice: by us too
    (StreamState.DUPLICATE, StreamInput.ENDED): StreamState.CLOSED,
}


def next_state(state: StreamState, given: StreamInput) -> StreamState:
    """The state after `given`; `UsageError` where that cannot happen."""
    following = _NEXT.get((state, given))
    if following is None:
        raise UsageError(f"a stream that is {state} cannot be {given}")
    return following


def is_loopback(host: str) -> bool:
    """Whether `host` is an address of this machine's loopback, or its usual name."""
    address = parse_ip(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def topic_bytes(topic: bytes | bytearray | memoryview | str) -> bytes:
    """A topic given as 32 bytes or as 64 hexadecimal digits.

    `ValueError` for anything else of these types, `TypeError` for other types.
    """
    if isinstance(topic, str):
        try:
            raw = bytes.fromhex(topic)
        except ValueError:
            raise ValueError(
                f"a topic is 32 bytes or 64 hexadecimal digits, not {topic!r}"
            ) from None
    elif isinstance(topic, (bytes, bytearray, memoryview)):
        raw = bytes(topic)
    else:
        raise TypeError(f"a topic is bytes or hexadecimal text, not {type(topic).__name__}")
    if len(raw) != 32 or (isinstance(topic, str) and len(topic) != 64):
        raise ValueError(f"a topic has 32 bytes, not {len(raw)}: it is a discovery key")
    return raw
