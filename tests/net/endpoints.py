"""Endpoints on loopback for tests: joined pairs, raw sockets, a count of what is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from covey.address import Address
from covey.errors import ConnectError
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.attempt import Attempt
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.wire.secret_stream import SecretStream

HOST = "127.0.0.1"


class Observed:
    """An observer that keeps what it is told and can be waited for."""

    def __init__(self) -> None:
        self.begun: list[Attempt] = []
        self.failed: list[tuple[Attempt, ConnectError]] = []
        self._changed = asyncio.Event()

    def handshaking(self, attempt: Attempt) -> None:
        self.begun.append(attempt)
        self._changed.set()

    def handshake_failed(self, attempt: Attempt, error: ConnectError) -> None:
        self.failed.append((attempt, error))
        self._changed.set()

    async def until(self, done: Callable[[Observed], bool]) -> None:
        async with asyncio.timeout(20):
            while not done(self):
                self._changed.clear()
                await self._changed.wait()

    async def failure(self) -> ConnectError:
        await self.until(lambda seen: bool(seen.failed))
        return self.failed[0][1]


@dataclass
class Side:
    """An accepting endpoint with what it accepted."""

    endpoint: Endpoint
    port: int
    observed: Observed
    accepted: asyncio.Queue[Connection] = field(default_factory=asyncio.Queue)

    @property
    def key(self) -> bytes:
        return self.endpoint.key_pair.public_key

    def address(self, *, pinned: bool = False, handshake: str = "noise") -> Address:
        return Address.net(HOST, self.port, handshake, self.key if pinned else None)

    async def next(self) -> Connection:
        async with asyncio.timeout(10):
            return await self.accepted.get()


@asynccontextmanager
async def listening(host: str | None = HOST, **options: Any) -> AsyncIterator[Side]:
    """An endpoint that accepts on `host` and closes everything it had at the end."""
    observed = Observed()
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    options.setdefault("key_pair", KeyPair.generate())
    options.setdefault("observer", observed)
    options.setdefault("on_connection", accepted.put_nowait)
    async with Endpoint(owns_connections=True, **options) as endpoint:
        _, port = await endpoint.listen_on(host)
        yield Side(endpoint, port, observed, accepted)


@asynccontextmanager
async def dialling(**options: Any) -> AsyncIterator[Endpoint]:
    """An endpoint that only dials."""
    options.setdefault("key_pair", KeyPair.generate())
    async with Endpoint(owns_connections=True, **options) as endpoint:
        yield endpoint


@asynccontextmanager
async def joined(
    *, handshake: str = "noise", limits: Limits | None = None, accepting: Limits | None = None
) -> AsyncIterator[tuple[Connection, Connection]]:
    """A dialled connection and its accepted counterpart."""
    async with (
        listening(handshake=handshake, limits=accepting or limits) as side,
        dialling(limits=limits) as dialler,
    ):
        ours = await dialler.dial(side.address(handshake=handshake))
        yield ours, await side.next()


class RawPeer:
    """The other end as a bare socket that holds a secret stream in its hand."""

    def __init__(self, sock: socket.socket, *, is_initiator: bool, **options: Any) -> None:
        self.sock = sock
        self.loop = asyncio.get_running_loop()
        options.setdefault("key_pair", KeyPair.generate())
        self.stream = SecretStream(
            is_initiator=is_initiator, now=0.0, random_bytes=os.urandom, **options
        )

    @classmethod
    async def connect(cls, port: int, **options: Any) -> RawPeer:
        return cls(await raw_socket(port), is_initiator=True, **options)

    async def flush(self) -> None:
        for data in self.stream.data_to_send():
            await self.loop.sock_sendall(self.sock, data)

    async def shake(self) -> None:
        """Run the handshake to its end, the remote's header included."""
        await self.flush()
        while not (self.stream.opened and self.stream._opener is not None):
            data = await self.loop.sock_recv(self.sock, 65536)
            assert data, "the other end hung up"
            self.stream.receive_data(data, 0.0)
            await self.flush()

    async def send(self, message: bytes) -> None:
        self.stream.send_messages([message])
        await self.flush()

    async def until_end(self) -> bytes:
        """Everything until the other end hangs up."""
        return await read_to_end(self.sock)

    def close(self) -> None:
        self.sock.close()


async def raw_socket(port: int, source: str | None = None) -> socket.socket:
    """A connected non-blocking socket, bound to `source` when that is given."""
    sock = socket.socket()
    sock.setblocking(False)
    if source is not None:
        sock.bind((source, 0))
    await asyncio.get_running_loop().sock_connect(sock, (HOST, port))
    return sock


async def read_to_end(sock: socket.socket) -> bytes:
    """What the remote sends until it ends or resets."""
    got = bytearray()
    async with asyncio.timeout(20):
        while True:
            try:
                data = await asyncio.get_running_loop().sock_recv(sock, 65536)
            except ConnectionError:
                return bytes(got)
            if not data:
                return bytes(got)
            got += data


@contextmanager
def nothing_left() -> Iterator[None]:
    """Fails when a task, a timer or a descriptor is left that was not there before."""
    loop = asyncio.get_running_loop()
    gc.collect()
    tasks, files = asyncio.all_tasks(), open_files()
    yield
    gc.collect()
    assert asyncio.all_tasks() == tasks
    scheduled: list[asyncio.TimerHandle] = getattr(loop, "_scheduled", [])
    timers = [timer for timer in scheduled if not timer.cancelled()]
    assert [timer for timer in timers if "covey" in repr(timer)] == []
    assert open_files() <= files


def open_files() -> int:
    """Descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def collect(connection: Connection) -> list[bytes]:
    """Every message until the remote ends."""
    async with asyncio.timeout(30):
        return [message async for message in connection]


async def receive(connection: Connection) -> bytes:
    """The next message."""
    async with asyncio.timeout(30):
        return await anext(aiter(connection))


async def turns(count: int) -> None:
    """Let the loop go round `count` times."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop go round until `condition()` holds."""
    async with asyncio.timeout(20):
        while not condition():
            await turns(1)
