"""A dialler and connections that do what a test says, without a socket."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from covey.address import Address
from covey.errors import CoveyError
from covey.net.close_reason import CloseReason

_ids = itertools.count(1)


class ScriptedLink:
    """A connection whose ends the test decides; `closes` holds the closings that wait."""

    def __init__(
        self,
        address: Address,
        *,
        initiator: bool = True,
        remote_key: bytes | None = None,
        host: str | None = None,
    ) -> None:
        self.id = next(_ids)
        self.address = address
        self.initiator = initiator
        self.remote_key = remote_key if remote_key is not None else address.key
        self.remote_address = (host or address.host or "127.0.0.1", address.port or 1)
        self.closed = False
        self.close_error: CoveyError | None = None
        self.close_reason: CloseReason | None = None
        self.close_text = ""
        self.hold = False
        self.closes: list[asyncio.Future[None]] = []
        self.unused = True
        self._end_callbacks: list[Callable[[Any], object]] = []
        self._callbacks: list[Callable[[Any], object]] = []

    def on_remote_end(self, callback: Callable[[Any], object]) -> None:
        self._end_callbacks.append(callback)

    def half_end(self) -> None:
        """The remote ends its half."""
        for callback in self._end_callbacks:
            callback(self)

    def on_close(self, callback: Callable[[Any], object]) -> None:
        self._callbacks.append(callback)

    async def close(self, reason: CloseReason | str | None = None) -> None:
        if self.hold and not self.closed:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.closes.append(future)
            await future
        code = reason if isinstance(reason, CloseReason) else CloseReason.LOCAL
        self.end(code, str(reason or code))

    def abort(self, error: CoveyError) -> None:
        self.close_error = error
        self.end(CloseReason.ABORTED, str(error))

    def end(self, reason: CloseReason = CloseReason.REMOTE_END, text: str = "") -> None:
        if self.closed:
            return
        self.closed = True
        self.close_reason, self.close_text = reason, text or str(reason)
        callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback(self)


class ScriptedDialler:
    """Keeps every dial waiting until the test completes it; `links` are all it ever gave."""

    def __init__(self, *, stubborn: bool = False) -> None:
        self.stubborn = stubborn
        self.pending: list[tuple[Address, asyncio.Future[ScriptedLink]]] = []
        self.links: list[ScriptedLink] = []
        self.dialled: list[str] = []
        self.options: list[dict[str, Any]] = []
        self.cancelled = 0
        self.started = asyncio.Event()

    async def dial(self, address: Address, **options: Any) -> ScriptedLink:
        self.dialled.append(str(address))
        self.options.append(options)
        future: asyncio.Future[ScriptedLink] = asyncio.get_running_loop().create_future()
        self.pending.append((address, future))
        self.started.set()
        try:
            while True:
                try:
                    return await asyncio.shield(future)
                except asyncio.CancelledError:
                    self.cancelled += 1
                    if not self.stubborn:  # else it swallows every cancellation and answers
                        if future.done() and future.exception() is None:
                            future.result().end()  # nobody else will: it was never given out
                        raise
        finally:
            self.pending = [entry for entry in self.pending if entry[1] is not future]

    def take(self, address: Address | None = None) -> tuple[Address, asyncio.Future[ScriptedLink]]:
        """The oldest dial that waits (to `address`)."""
        for entry in self.pending:
            if not entry[1].done() and address in (None, entry[0]):
                return entry
        raise LookupError("no dial waits")

    def succeed(self, address: Address | None = None, **options: Any) -> ScriptedLink:
        target, future = self.take(address)
        link = ScriptedLink(target, **options)
        self.links.append(link)
        future.set_result(link)
        return link

    def fail(self, error: Exception, address: Address | None = None) -> None:
        self.take(address)[1].set_exception(error)


async def turns(count: int = 12) -> None:
    """Let everything that can happen without time passing happen."""
    for _ in range(count):
        await asyncio.sleep(0)
