"""What `covey pipe` does on the connections that a flock gives it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from covey.cli.output import Output, key_text
from covey.errors import ClosedError, CoveyError, DecodeError, ProtocolError
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.net.mux import Channel
from covey.wire.encoding import raw
from covey.wire.topic_pipe import (
    MAX_CHUNK,
    PROTOCOL,
    Confirmed,
    DataReceived,
    Hello,
    Message,
    RemoteEnded,
    TopicPipe,
)
from covey.wire.topic_proof import TopicSecret

PROOF_TIMEOUT = 10.0
"""Seconds a peer may take to prove that it knows the topic."""
FAREWELL = 2.0
"""Seconds given to a peer to close first, so that our last message is sure to arrive."""


class Source(Protocol):
    """Where the bytes come from."""

    async def read(self) -> bytes:
        """The next bytes; empty at the end."""


class Sink(Protocol):
    """Where the bytes go."""

    async def write(self, data: bytes) -> None:
        """Return when `data` was taken."""


class Link:
    """One connection with the partner, from our open of the channel to its end."""

    def __init__(self, runner: PipeRunner, connection: Connection) -> None:
        self.connection = connection
        self.opened: asyncio.Future[Hello] = asyncio.get_running_loop().create_future()
        self.ended = asyncio.Event()
        self.heard = False
        channel = connection.mux.create_channel(
            PROTOCOL,
            handshake=raw,
            on_open=self._on_open,
            on_close=self._on_close,
            messages=[(raw, self._receiver(kind)) for kind in range(4)],
        )
        if channel is None:
            raise ClosedError("the connection ended before the channel was made")
        self.channel: Channel = channel
        self._runner = runner

    def open(self, hello: bytes) -> None:
        """Say hello."""
        self.channel.open(hello)

    def send(self, messages: Sequence[Message]) -> None:
        """Send, if this link still lives; the pipe keeps what is lost with it."""
        if self.ended.is_set() or not self.opened.done():
            return
        for kind, payload in messages:
            message = self.channel.messages[kind]
            assert message is not None  # noqa: S101 - made in __init__
            message.send(payload)

    def _on_open(self, handshake: bytes, channel: Channel) -> None:
        try:
            hello = Hello.decode(handshake)
        except DecodeError as error:
            self._refuse(channel, f"it does not speak {PROTOCOL}: {error}")
            return
        connection = self.connection
        proven = connection.handshake_hash is not None and self._runner.secret.accepts(
            hello.proof, connection.handshake_hash, is_initiator=connection.initiator
        )
        if not proven:
            self._refuse(channel, "it does not know the topic")
            return
        if not self.opened.done():
            self.opened.set_result(hello)
            self._runner.proven(self, hello)

    def _refuse(self, channel: Channel, why: str) -> None:
        self._runner.refused(self.connection, why)
        channel.close()

    def _on_close(self, remote: bool, channel: Channel) -> None:  # noqa: ARG002
        self.ended.set()
        if not self.opened.done():
            self.opened.cancel()

    def _receiver(self, kind: int) -> Any:
        def receive(payload: bytes) -> None:
            self.heard = True
            self._runner.received(self, kind, bytes(payload))

        return receive


class PipeRunner:
    """Moves bytes between a source, one partner and a sink, over as many connections as it takes.

    `handle` is the handler of the flock. `run` returns when both directions are confirmed.
    `stop_at_remote_end` ends our direction when the remote's ends (for input typed by a person).
    """

    def __init__(
        self,
        secret: TopicSecret,
        source: Source,
        sink: Sink,
        *,
        output: Output,
        size: int | None = None,
        stop_at_remote_end: bool = False,
    ) -> None:
        self.secret = secret
        self.pipe = TopicPipe()
        self.size = size
        self.remote_size: int | None = None
        self.partner: bytes | None = None
        self.link: Link | None = None
        self.lost = asyncio.Event()
        self.found = asyncio.Event()
        self._source = source
        self._sink = sink
        self._output = output
        self._stop_at_remote_end = stop_at_remote_end
        self._unwritten: asyncio.Queue[bytes] = asyncio.Queue()  # bounded by the pipe's window
        self._changed = asyncio.Event()
        self._remote_ended = asyncio.Event()
        self._done = asyncio.Event()
        self._failure: CoveyError | None = None

    async def run(self) -> None:
        """Until all is sent, written and confirmed; raises what went wrong on this side."""
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(self._send_all(), name="covey.pipe.send")
            writing = tasks.create_task(self._write_all(), name="covey.pipe.write")
            await self._done.wait()
            sending.cancel()
            writing.cancel()
        if self._failure is not None:
            raise self._failure

    async def handle(self, connection: Connection) -> None:
        """Take a connection: prove, check the proof, and be the pipe's link until it ends."""
        if (link := self.link) is not None:
            if connection.remote_key != self.partner:
                self.refused(connection, "the pipe has its two ends")
                return
            await link.ended.wait()  # the flock keeps one connection for each peer
            self._detach(link)
        if self.partner not in (None, connection.remote_key) or self._done.is_set():
            return
        link = Link(self, connection)
        hash_ = connection.handshake_hash
        if hash_ is None:
            raise ProtocolError("a connection without a handshake hash cannot prove anything")
        proof = self.secret.prove(hash_, is_initiator=connection.initiator)
        link.open(self.pipe.hello(proof, size=self.size))
        try:
            async with asyncio.timeout(PROOF_TIMEOUT):
                await asyncio.wait((link.opened,))
        except TimeoutError:
            self.refused(connection, f"no proof within {PROOF_TIMEOUT:g} s")
            return
        if link.opened.cancelled():
            return
        await self._until_over(link)
        self._detach(link)

    async def _until_over(self, link: Link) -> None:
        over = [asyncio.ensure_future(event.wait()) for event in (link.ended, self._done)]
        try:
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for waiting in over:
                waiting.cancel()
        if self._done.is_set() and not link.ended.is_set() and self._failure is None:
            link.channel.close()
            connection = link.connection
            try:
                async with asyncio.timeout(FAREWELL):
                    if not connection.closed:
                        await connection.end()
                    await connection.wait_closed()
            except (TimeoutError, ClosedError):
                pass  # it has everything, or will find out

    async def returned(self) -> None:
        """Wait until the partner that was lost is back."""
        while self.lost.is_set():
            await self._change()

    # What a link tells

    def proven(self, link: Link, hello: Hello) -> None:
        """The remote of `link` knows the topic: it is the partner, if there is none yet."""
        key = link.connection.remote_key
        if self.link is not None or self.partner not in (None, key):
            link.channel.close()
            return
        again = self.partner is not None
        self.partner = key
        self.link = link
        self.remote_size = hello.size
        self.lost.clear()
        try:
            messages = self.pipe.resume(hello)
        except ProtocolError as error:
            self._fail(error)
            return
        self.found.set()
        self._output.event(
            "resumed" if again else "proven",
            f"{key_text(key)} proved that it knows the topic"
            + (f"; going on at byte {hello.received}" if again else ""),
            key=key,
            sent=hello.received,
            received=self.pipe.received,
        )
        link.send(messages)
        self._changed.set()

    def refused(self, connection: Connection, why: str) -> None:
        """The remote is not one for this pipe."""
        host, port = connection.remote_address
        self._output.event(
            "refused",
            f"refused {host}:{port}: {why}",
            key=connection.remote_key,
            host=host,
            port=port,
            reason=why,
        )

    def received(self, link: Link, kind: int, payload: bytes) -> None:
        """A message of the partner."""
        if link is not self.link:
            return
        try:
            event = self.pipe.receive(kind, payload)
        except ProtocolError as error:
            link.connection.abort(error)
            self._fail(error)
            return
        if isinstance(event, DataReceived):
            self._unwritten.put_nowait(event.data)
        elif isinstance(event, RemoteEnded):
            self._remote_ended.set()
            self._confirm()
        elif isinstance(event, Confirmed):
            self._check_done()
        self._changed.set()

    # Inside

    def _detach(self, link: Link) -> None:
        if self.link is not link:
            return
        self.link = None
        if self._done.is_set():
            return
        if not link.heard and not self.pipe.received:
            self.partner = None  # it took another partner: look on
            self.found.clear()
        elif link.connection.close_reason is not CloseReason.REDUNDANT:
            self.lost.set()
            self._output.event("lost", f"lost {key_text(self.partner)}; waiting for it to return")

    async def _send_all(self) -> None:
        while True:
            try:
                chunk = await self._next_chunk()
            except OSError as error:
                self._fail(_local_failure("cannot read the input", error))
                return
            if not chunk:
                break
            view = memoryview(chunk)
            while view:
                room = await self._room()
                count = min(room, len(view), MAX_CHUNK)
                self._send([self.pipe.send_data(view[:count])])
                view = view[count:]
                link = self.link
                if link is not None and not link.ended.is_set():
                    try:
                        await link.channel.drain()
                    except ClosedError:
                        continue  # the next link sends it again
        self._send([self.pipe.send_end()])

    async def _next_chunk(self) -> bytes:
        if not self._stop_at_remote_end:
            return await self._source.read()
        reading = asyncio.ensure_future(self._source.read())
        ended = asyncio.ensure_future(self._remote_ended.wait())
        try:
            await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else b""
        finally:
            reading.cancel()
            ended.cancel()

    async def _room(self) -> int:
        while (room := self.pipe.room) <= 0 or self.link is None:
            await self._change()
        return room

    async def _change(self) -> None:
        """Wait for credit, or for a link."""
        self._changed.clear()
        await self._changed.wait()

    async def _write_all(self) -> None:
        while True:
            data = await self._unwritten.get()
            try:
                await self._sink.write(data)
            except OSError as error:
                self._fail(_local_failure("cannot write the output", error))
                return
            self._send(self.pipe.written(len(data)))
            self._confirm()

    def _confirm(self) -> None:
        self._send(self.pipe.confirm())
        self._check_done()

    def _send(self, messages: Sequence[Message]) -> None:
        if messages and self.link is not None:
            try:
                self.link.send(messages)
            except ClosedError:
                return  # the pipe keeps them for the next link

    def _check_done(self) -> None:
        if self.pipe.done:
            self._done.set()

    def _fail(self, error: CoveyError) -> None:
        self._failure = error
        self._done.set()


def _local_failure(what: str, error: OSError) -> CoveyError:
    failure = CoveyError(f"{what}: {error.strerror or error}")
    failure.__cause__ = error
    return failure


class Nothing:
    """A source that has nothing."""

    async def read(self) -> bytes:
        """Be at the end."""
        return b""
