"""A source, pauses and a clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import socket

from covey.discovery import Timing, Wanted
from covey.discovery.source import Report


class ListedSource:
    """A source that keeps a diary and does what the test says."""

    def __init__(self, name: str = "listed", *, failure: Exception | None = None) -> None:
        self.name = name
        self.timing = Timing(early=(1.0, 3.0), interval=60.0, jitter=10.0)
        self.failure = failure
        self.open_failure: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.diary: list[tuple[str, int | None]] = []
        self.report: Report | None = None

    async def open(self, report: Report) -> None:
        self.diary.append(("open", None))
        if self.open_failure is not None:
            raise self.open_failure
        self.report = report

    async def round(self, wanted: Wanted) -> None:
        self.diary.append(("round", wanted.port))
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure

    def leave(self, wanted: Wanted) -> None:
        self.diary.append(("leave", wanted.port))

    async def close(self) -> None:
        self.diary.append(("close", None))

    def find(self, topic: bytes, host: str = "10.0.0.1", port: int = 80) -> None:
        assert self.report is not None
        self.report(topic, host, port)


class Pauses:
    """A `sleep` that lasts until the test lets it pass."""

    def __init__(self) -> None:
        self.asked: list[float] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._arrived = asyncio.Event()

    async def __call__(self, seconds: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append(seconds)
        self._waiting.append(waiter)
        self._arrived.set()
        await waiter

    async def arrived(self, count: int) -> None:
        """Wait until so many pauses began in all."""
        async with asyncio.timeout(5):
            while len(self.asked) < count:
                self._arrived.clear()
                await self._arrived.wait()

    def over(self) -> None:
        """End all pauses."""
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()


def free_udp_port() -> int:
    """A UDP port nobody uses now; a group of listeners needs the same number."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
