"""`stream` and `connect`: an application's own handshake on each connection (section 6).

The reference hands a raw duplex over and pipes; here a function, usually a coroutine function,
speaks over the connection and returns what it learned. Over the handshake `raw` it has the socket's
bytes to itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from covey.flock.events import ConnectionInfo
from covey.net.connection import Connection

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamIdentity:
    """What a `stream` hook learned of the remote.

    `remote_id` None keeps what the connection's own handshake proved or claimed; a given one is
    a claim. `own_id` is compared in place of the flock's. With `topic` duplicates are judged
    per topic, so that one pair of peers can share several.
    """

    remote_id: bytes | None = None
    own_id: bytes | None = None
    topic: bytes | None = None


Told: TypeAlias = bytes | StreamIdentity | None
StreamHook: TypeAlias = Callable[[Connection, ConnectionInfo], Awaitable[Told] | Told]
"""Runs once per connection, before anybody else reads it; returns the remote's id."""
ConnectHook: TypeAlias = Callable[[Connection, ConnectionInfo], Awaitable[Any] | Any]
"""Runs after `stream`; what it returns is `info.stream`, and is what the handler gets."""


async def outcome(result: Awaitable[T] | T) -> T:
    """What a hook returns: awaited where it is a coroutine function's, as it is otherwise."""
    if inspect.isawaitable(result):
        return await result
    return result
