"""What protomux keeps per channel, per name and per remote open, and the events it tells.

Source: protomux 3.12.1; `protomux.md` section 3.
"""

# `id` and `type` are the names that protomux uses.
# ruff: noqa: A002

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, TypeAlias

from covey.wire.encoding import encode_uint, optional_buffer, string
from covey.wire.protomux_frames import SILENT

Name: TypeAlias = tuple[str, bytes]
"""Protocol and id of a channel; an id of zero bytes is the same as none."""


class ChannelCore:
    """One channel of ours. Read it; only `Protomux` changes it.

    `wire_id` is our number for it while messages may be sent, else `SILENT`. `owner` belongs to the
    shell.
    """

    __slots__ = (
        "aliases",
        "closed",
        "id",
        "local_id",
        "name",
        "opened",
        "owner",
        "protocol",
        "remote",
        "status",
        "unique",
        "wire_id",
    )

    def __init__(
        self, protocol: str, id: bytes | None, aliases: tuple[str, ...], *, unique: bool
    ) -> None:
        self.protocol = protocol
        self.id = id or None
        self.name: Name = (protocol, id or b"")
        self.aliases = aliases
        self.unique = unique
        self.owner: Any = None
        self.local_id = 0
        self.wire_id = SILENT
        self.opened = False
        self.closed = False
        self.remote: RemoteOpen | None = None
        self.status: NameStatus | None = None

    def open_body(self) -> bytes:
        """What our open of it says: number, protocol, id. The handshake follows."""
        body = bytearray(encode_uint(self.local_id))
        string.encode_into(body, self.protocol)
        optional_buffer.encode_into(body, self.id)
        return bytes(body)


class RemoteOpen:
    """An open of the remote, from its arrival until its close.

    While nobody here has opened its partner, `kept` holds the entries that came for it, exactly as
    they stand in a batch; `cost` is what they count against the pairing backlog.
    """

    __slots__ = (
        "callback_runs",
        "channel",
        "closed",
        "cost",
        "flowing",
        "handshake",
        "kept",
        "remote_id",
        "status",
    )

    def __init__(self, remote_id: int, handshake: bytes, status: NameStatus) -> None:
        self.remote_id = remote_id
        self.handshake = handshake
        self.status = status
        self.channel: ChannelCore | None = None
        self.flowing = False
        self.closed = False
        self.callback_runs = False
        self.kept = bytearray()
        self.cost = 0

    def take_handshake(self) -> bytes:
        """The handshake, which is not kept any longer."""
        handshake, self.handshake = self.handshake, b""
        return handshake


class NameStatus:
    """Everything about one name, and about the aliases that lead to it."""

    __slots__ = ("incoming", "last", "names", "opened", "outgoing", "pairing")

    def __init__(self) -> None:
        self.names: list[Name] = []
        self.opened = 0
        self.pairing = 0
        self.incoming: deque[RemoteOpen] = deque()
        self.outgoing: deque[ChannelCore] = deque()
        self.last: ChannelCore | None = None

    @property
    def unused(self) -> bool:
        """Whether nothing is left to be known of this name."""
        return not (self.opened or self.pairing or self.incoming or self.outgoing)


# The events are not frozen: a frozen dataclass takes three times as long to make.


@dataclass(slots=True)
class PairRequested:
    """The remote opens a channel that nobody here has opened, and `callback` was given for it.

    Call it, create and open the channel or not, then tell `Protomux.pairing_done(request)`.
    """

    protocol: str
    id: bytes | None
    request: RemoteOpen
    callback: Any


@dataclass(slots=True)
class PairTimedOut:
    """The callback of `request` took too long: the open was rejected."""

    request: RemoteOpen


@dataclass(slots=True)
class ChannelOpened:
    """Both sides have opened. `handshake` is the remote's, not decoded yet."""

    channel: ChannelCore
    handshake: bytes


@dataclass(slots=True)
class ChannelMessages:
    """Consecutive messages of one channel and one type, not decoded yet."""

    channel: ChannelCore
    type: int
    payloads: list[bytes]


@dataclass(slots=True)
class ChannelClosed:
    """The remote closed or rejected the channel (`remote`), or we gave it up (a time limit)."""

    channel: ChannelCore
    remote: bool
    reason: str


@dataclass(slots=True)
class BatchBegun:
    """A batch of more than one entry follows: replies to it may leave as one batch."""


@dataclass(slots=True)
class MoreLeft:
    """Nothing happened, but many entries were read: a good place to let others have a turn."""


MuxEvent: TypeAlias = (
    PairRequested
    | PairTimedOut
    | ChannelOpened
    | ChannelMessages
    | ChannelClosed
    | BatchBegun
    | MoreLeft
)
