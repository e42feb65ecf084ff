"""What a channel needs of its muxer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

from covey.errors import ClosedError
from covey.limits import Limits
from covey.net.mux_queue import Backlog, Hold
from covey.wire.protomux import Protomux

if TYPE_CHECKING:
    from covey.net.mux_channel import Channel


class ChannelHost(Protocol):
    """What a channel needs of its muxer."""

    core: Protomux
    limits: Limits
    backlog: Backlog

    def flush_soon(self) -> None:
        """Write what was collected, at the latest with the end of this turn."""

    def entries_begun(self) -> None:
        """Entries are about to be added to the outbox."""

    def flush(self) -> None:
        """Write what may leave."""

    def deliver_soon(self, channel: Channel) -> None:
        """Deliver what was kept for `channel` in the next turn."""

    def run(self, awaitable: Awaitable[Any], name: str) -> asyncio.Task[Any]:
        """Run `awaitable` in a task of the muxer."""

    def cancel_later(self, channel: Channel) -> asyncio.TimerHandle:
        """Expire `channel` when its handlers have had their time after its close."""

    def cancel(self, tasks: Iterable[asyncio.Task[Any]]) -> None:
        """Cancel tasks of the muxer."""

    def warn(self, text: str, *values: object) -> None:
        """Log what a remote may bring about again and again: a warning once."""

    def failed(self, channel: Channel, what: str, error: Exception) -> None:
        """A callback of `channel` raised: the stream ends, or, when it is closed, a warning."""

    def reply_hold(self) -> Hold | None:
        """The hold of the batch that is being received, if there is one."""

    def set_reading(self, channel: Channel, *, wanted: bool) -> None:
        """Pause the stream for `channel`, or end that."""

    def forget(self, channel: Channel) -> None:
        """`channel` is destroyed."""

    async def wait_unheld(self, channel: Channel) -> None:
        """Wait for the remote to read, when far too much waits for that."""

    async def wait_writable(self, channel: Channel) -> None:
        """Wait until the pipe takes more."""

    def wake_writers(self, channel: Channel, error: ClosedError) -> None:
        """End the waits of `channel`."""
