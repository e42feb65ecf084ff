"""The transports that a node speaks: one entry per name left of `~` in an address.

A new transport is one module and one line in `default_transports`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from covey.net.stream_shell import StreamShell
from covey.net.tcp import TcpTransport


class Listener(Protocol):
    """An open listening socket."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it is bound to."""

    async def close(self) -> None:
        """Stop listening, end what accepting had under way. May be called again."""


class Transport(Protocol):
    """One entry of the registry."""

    @property
    def name(self) -> str:
        """The name in addresses (`net`)."""

    @property
    def type(self) -> str:
        """The name in `Connection.type` (`tcp`)."""

    async def dial(
        self, host: str, port: int, make_shell: Callable[[tuple[str, int]], StreamShell]
    ) -> StreamShell:
        """Connect, then run the shell that `make_shell(remote_address)` gives.

        Raises `ConnectError`, or `DialFailed` when several addresses of `host` failed. When
        cancelled, everything opened is closed.
        """

    async def listen(
        self,
        host: str | None,
        port: int,
        accept: Callable[[tuple[str, int]], StreamShell | None],
    ) -> Listener:
        """Accept on `port` (0: any) of `host` (None: all interfaces, both families).

        `accept(remote_address)` gives the shell for a new connection, None refuses it. Raises
        `ConnectError` when the port cannot be had.
        """


def default_transports() -> Mapping[str, Transport]:
    """The registry of a node that was given no other: TCP as `net`."""
    return {transport.name: transport for transport in (TcpTransport(),)}


__all__ = ["Listener", "Transport", "default_transports"]
