"""What the roster keeps of a connection, and what roster and pursuit need of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from covey.errors import UsageError
from covey.flock.candidates import Candidate
from covey.flock.clock import Timer
from covey.flock.events import ConnectionInfo
from covey.flock.hooks import ConnectHook, StreamHook
from covey.flock.policy import Contender
from covey.net.connection import Connection

Handler = Callable[[Any], Awaitable[object] | object]
"""What runs on a connection: a coroutine function for as long as it lasts, or a plain function."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What the application runs on connections, and how long `stream` and `connect` may take."""

    handler: Handler | None
    stream: StreamHook | None
    connect: ConnectHook | None
    timeout: float

    def __post_init__(self) -> None:
        if self.connect is not None and self.stream is None:
            raise UsageError("connect joins what stream made: it needs a stream hook")


class Stage(StrEnum):
    """How far a connection is."""

    IDENTIFYING = "identifying"
    HELD = "held"
    SETTLING = "settling"
    """Its peer's, but a crossing connection may still replace it: its user is not told yet."""
    REGISTERED = "registered"
    ENDING = "ending"


@dataclass(slots=True, eq=False)
class Record:
    """One connection. `origin` is the candidate that was dialled, `candidates` all that led here.

    `seen` is the count of bytes read when somebody last looked, and when it had last changed.
    `probing` runs while it is found out whether the remote is alive.
    """

    connection: Connection
    info: ConnectionInfo
    origin: Candidate | None
    stage: Stage = Stage.IDENTIFYING
    link: Contender | None = None
    candidates: list[Candidate] = field(default_factory=list)
    handler: asyncio.Task[None] | None = None
    timer: Timer | None = None
    probing: Timer | None = None
    seen: tuple[int, float] = (0, 0.0)
    finished: bool = False


class RosterOwner(Protocol):
    """Who is told what becomes of candidates."""

    def peer_connected(self, record: Record) -> None:
        """The record's peer is connected, by the registered connection `record`."""

    def peer_lost(self, record: Record) -> None:
        """The registered connection of a peer ended and none took its place."""

    def met_self(self, record: Record) -> None:
        """The connection leads back to this node; it is being closed."""

    def attempt_failed(self, record: Record, error: Exception) -> None:
        """The connection ended before its remote was known."""

    def no_room(self, record: Record) -> None:
        """The connection is complete, but there are enough."""

    def is_dialling(self, host: str, key: bytes | None) -> bool:
        """Whether a dial is under way that may lead to the peer with `key` on `host`."""

    def slot_free(self) -> None:
        """A connection ended: somebody may be dialled now."""


class RosterView(Protocol):
    """What a pursuit needs to know of the connections there are."""

    @property
    def connected(self) -> int:
        """Connected peers."""

    @property
    def pending_outgoing(self) -> int:
        """Dialled connections that are not their peer's yet."""

    def settle(self) -> None:
        """A dial is over: what waited for its outcome may be decided now."""

    async def arrive(
        self, connection: Connection, info: ConnectionInfo, origin: Candidate | None
    ) -> None:
        """Take a connection whose handshake is over."""
