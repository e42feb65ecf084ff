"""The transports that a node speaks: one entry per name left of `~` in an address.

A new transport is one module and one line in `default_transports`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from covey.address import Step
from covey.limits import Limits
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

    def place(self, step: Step) -> tuple[str, int]:
        """Host and port of `step`, the part of an address that carries this transport's name.

        What stands for them elsewhere will do: a path and 0. It names the place in errors, events
        and `Attempt`. Raises `AddressError` for a step that cannot be dialled.
        """

    async def dial(
        self, step: Step, make_shell: Callable[[tuple[str, int]], StreamShell]
    ) -> StreamShell:
        """Connect, then run the shell that `make_shell(remote_address)` gives.

        Raises `ConnectError`, or `DialFailed` when several addresses of a host failed. When
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
        `ConnectError` when the port cannot be had, `UsageError` for one that there is not and for
        an empty host.
        """


def default_transports(limits: Limits = Limits()) -> Mapping[str, Transport]:  # noqa: B008
    """The registry of a node that was given no other: TCP as `net`."""
    return {transport.name: transport for transport in (TcpTransport(limits),)}


__all__ = ["Listener", "Transport", "default_transports"]
