"""covey's ends of the interop tests: an endpoint that keeps what it accepts, and a bare session."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from covey.address import Address
from covey.errors import HandshakeError
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.wire.secret_stream import SecretStream
from covey.wire.session import Buffer, Ended, MessagesReceived, Opened, SessionEvent

HOST = "127.0.0.1"
PATIENCE = 30.0


class Accepting:
    """An endpoint on a free port of the loopback, and the connections that came in."""

    def __init__(self, endpoint: Endpoint, port: int, accepted: asyncio.Queue[Connection]) -> None:
        self.endpoint = endpoint
        self.port = port
        self._accepted = accepted

    async def connection(self) -> Connection:
        """The next connection that came in."""
        async with asyncio.timeout(PATIENCE):
            return await self._accepted.get()


@asynccontextmanager
async def accepting(
    seed: bytes | None = None, limits: Limits | None = None
) -> AsyncIterator[Accepting]:
    """Listen with the key of `seed`, a random one without it."""
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    async with _endpoint(seed, limits, accepted) as endpoint:
        _, port = await endpoint.listen_on(HOST, 0)
        yield Accepting(endpoint, port, accepted)


@asynccontextmanager
async def dialled(
    port: int, *, key: bytes | None = None, seed: bytes | None = None, limits: Limits | None = None
) -> AsyncIterator[Connection]:
    """One outgoing connection; with `key` the remote has to prove that one."""
    async with _endpoint(seed, limits, asyncio.Queue()) as endpoint:
        connection = await endpoint.dial(Address.net(HOST, port, key=key), timeout=PATIENCE)
        yield connection


def _endpoint(
    seed: bytes | None, limits: Limits | None, accepted: asyncio.Queue[Connection]
) -> Endpoint:
    return Endpoint(
        key_pair=KeyPair.from_seed(seed) if seed else KeyPair.generate(),
        limits=limits,
        on_connection=accepted.put_nowait,
        owns_connections=True,
    )


async def received(connection: Connection, count: int) -> list[bytes]:
    """The next `count` messages; fails when the connection ends before."""
    messages: list[bytes] = []
    async with asyncio.timeout(PATIENCE):
        while len(messages) < count:
            messages.append(await anext(aiter(connection)))
    return messages


class BareStream:
    """A `SecretStream` on a plain socket, for IK, XK and fixed keys.

    Every frame that arrives is visible: `raw_read` counts bytes, `events` keeps the order.
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, session: SecretStream
    ) -> None:
        self.session = session
        self.raw_read = 0
        self.events: list[SessionEvent] = []
        self.messages: list[bytes] = []
        self._reader = reader
        self._writer = writer
        self._flush()

    async def read_once(self) -> None:
        """One read of the socket: feed, write, keep the events."""
        async with asyncio.timeout(PATIENCE):
            data = await self._reader.read(65536)
        now = asyncio.get_running_loop().time()
        self.raw_read += len(data)
        events = self.session.receive_data(data, now) if data else self.session.receive_eof(now)
        self.events += events
        for event in events:
            if isinstance(event, MessagesReceived):
                self.messages += event.messages
        self._flush()

    async def opened(self) -> Opened:
        """Read until the handshake is over."""
        while True:
            for event in self.events:
                if isinstance(event, Opened):
                    return event
                if isinstance(event, Ended):
                    raise HandshakeError("the remote ended the connection during the handshake")
            await self.read_once()

    async def message(self) -> bytes:
        """Read until there is a message, and take it."""
        while not self.messages:
            await self.read_once()
        return self.messages.pop(0)

    async def ended(self) -> Ended:
        """Read until the remote has ended its half."""
        while not isinstance(self.events[-1] if self.events else None, Ended):
            await self.read_once()
        event = self.events[-1]
        assert isinstance(event, Ended)
        return event

    def send(self, *messages: Buffer) -> None:
        """Send messages."""
        self.session.send_messages(list(messages))
        self._flush()

    def end(self) -> None:
        """End the write half."""
        self._writer.write_eof()

    def _flush(self) -> None:
        if pending := self.session.data_to_send():
            self._writer.writelines(pending)


@asynccontextmanager
async def bare_client(port: int, session: SecretStream) -> AsyncIterator[BareStream]:
    """A session that dials."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        yield BareStream(reader, writer, session)
    finally:
        writer.transport.abort()
        await _gone(writer)


@asynccontextmanager
async def bare_server(
    session: SecretStream,
) -> AsyncIterator[tuple[int, asyncio.Future[BareStream]]]:
    """A port, and the session on the first connection to it once that has come."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[BareStream] = loop.create_future()
    writers: list[asyncio.StreamWriter] = []

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        first.set_result(BareStream(reader, writer, session))

    server = await asyncio.start_server(connected, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1], first
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
            await _gone(writer)
        await server.wait_closed()


async def _gone(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):  # cut by the remote is one way to be gone
        await writer.wait_closed()
