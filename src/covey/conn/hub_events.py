"""What a `Hub` tells: one frozen dataclass per event, with the original's names as `type`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from covey.net.connection import Connection

EntryState = Literal["connecting", "connected", "disconnecting"]
"""State of an entry; an address without entry is disconnected."""

Via = Literal["dial", "incoming", "external"]
"""How a session came: dialled by this hub, accepted, or dialled by others and handed over."""


@dataclass(frozen=True, slots=True)
class SessionStart:
    """Details of `Connected`. `duplicates` are the ids of other open sessions with the same key."""

    connection: Connection
    session_id: int
    via: Via
    duplicates: tuple[int, ...] = ()

    @property
    def is_client(self) -> bool:
        """Whether this side dialled: `via` in the original's words."""
        return self.via != "incoming"


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """Details of `Disconnected`: why the last session of the address ended.

    `reason` is a `CloseReason` or what the caller of `disconnect` gave, `text` says it in words,
    `error` is what cut the connection. `connection` and `session_id` are None when the dial was
    called off before there was one. `seconds` is how long the session was open.
    """

    reason: str
    text: str
    error: Exception | None = None
    connection: Connection | None = None
    session_id: int | None = None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Connecting:
    """A dial begins; the entry is there."""

    address: str
    key: bytes | None
    details: None = None
    type: Literal["connecting"] = "connecting"


@dataclass(frozen=True, slots=True)
class ConnectingFailed:
    """The dial failed or was called off; the entry is gone."""

    address: str
    key: bytes | None
    details: Exception
    type: Literal["connecting-failed"] = "connecting-failed"


@dataclass(frozen=True, slots=True)
class Connected:
    """The address has its first open session."""

    address: str
    key: bytes | None
    details: SessionStart
    type: Literal["connected"] = "connected"


@dataclass(frozen=True, slots=True)
class Disconnecting:
    """The sessions of the address are being closed, or its dial called off, by this side."""

    address: str
    key: bytes | None
    details: None = None
    type: Literal["disconnecting"] = "disconnecting"


@dataclass(frozen=True, slots=True)
class DisconnectingFailed:
    """A session could not be closed: the entry is connected as before."""

    address: str
    key: bytes | None
    details: Exception
    type: Literal["disconnecting-failed"] = "disconnecting-failed"


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The last session of the address ended; the entry is gone."""

    address: str
    key: bytes | None
    details: SessionEnd
    type: Literal["disconnected"] = "disconnected"


HubEvent: TypeAlias = (
    Connecting | ConnectingFailed | Connected | Disconnecting | DisconnectingFailed | Disconnected
)
"""Per address: `connecting (connecting-failed | connected [disconnecting [disconnecting-failed …]]
disconnected | disconnecting disconnected)`; a session that was not dialled starts at `connected`.
"""
