"""What `covey pipe` does on the connections that a flock gives it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from covey.cli.backlog import Backlog
from covey.cli.narrator import path_fields, path_of
from covey.cli.output import Output, bytes_text, key_text
from covey.cli.pipe_link import SAME_VERSION, Link
from covey.cli.runtime import CommandError, Exit, end_tasks
from covey.cli.stdio import Sink, Source
from covey.errors import ClosedError, ConnectionAborted, ProtocolError
from covey.host_port import show
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.wire.topic_pipe import (
    MAX_CHUNK,
    PROTOCOL,
    Busy,
    Confirmed,
    DataReceived,
    Hello,
    Message,
    RemoteEnded,
    SizeTold,
    Stopped,
    TopicPipe,
    size_message,
)
from covey.wire.topic_proof import TopicSecret

PROOF_TIMEOUT = 10.0
"""Seconds a peer may take to prove that it knows the topic."""
DISMISSED = 10.0
"""Seconds for which a peer that was turned away is held, so that it does not come back at once."""
MAX_FRUITLESS = 5
"""Links in a row, without a byte of progress, after which the partner is given up."""
REFUSALS_TOLD = 20
"""Refused keys of which each is told once; whoever comes again is not worth a line."""


class PipeRunner:
    """Moves bytes between a source, one partner and a sink, over as many connections as it takes.

    `handle` is the handler of the flock. `run` returns when both directions are confirmed.
    `size`: bytes in the source, None when unknown. `stop_at_remote_end` ends our direction when
    the remote's ends (for input typed by a person), unless the remote said that it sends nothing.
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
        self.trouble = ""
        self.advice = ""  # what to do about `trouble`
        self.lost = asyncio.Event()
        self.found = asyncio.Event()
        self._source = source
        self._sink = sink
        self._output = output
        self._stop_at_remote_end = stop_at_remote_end
        self._unwritten = Backlog(chunk=MAX_CHUNK)  # bounded by the pipe's window
        self._changed = asyncio.Event()
        self._remote_ended = asyncio.Event()
        self._done = asyncio.Event()
        self._failure: BaseException | None = None
        self._refused: set[bytes | None] = set()
        self._fruitless = 0
        self._progress = 0
        self._era = 0  # links that were the pipe's so far

    async def run(self) -> None:
        """Until all is sent, written and confirmed; raises what went wrong on either side.

        However it ends, the partner is told, so that it need not wait for our return.
        """
        farewell: str | None = "it was interrupted"
        tasks = [
            asyncio.create_task(work, name=f"covey pipe {name}")
            for name, work in (("send", self._send_all()), ("write", self._write_all()))
        ]
        for task in tasks:
            task.add_done_callback(self._worker_ended)
        try:
            await self._done.wait()
            farewell = str(self._failure) if self._failure else None
        finally:
            await end_tasks(*tasks)
            self._done.set()  # also when it was called off: the end of the link is no loss now
            if (link := self.link) is not None:
                await link.part(farewell)
        if self._failure is not None:
            raise self._failure

    async def handle(self, connection: Connection) -> None:
        """Take a connection: prove, check the proof, and be the pipe's link until it ends."""
        current = self.link
        if current is not None and connection.remote_key == self.partner:
            await current.over.wait()  # the flock keeps one connection for each peer
        if self._done.is_set() or connection.handshake_hash is None:
            return
        try:
            proof = self.secret.prove(connection.handshake_hash, is_initiator=connection.initiator)
            link = Link(self, connection, self._hello(connection, proof), self._era)
            link.say_hello()
            if await link.until_proven(PROOF_TIMEOUT):
                await link.over.wait()
        except ClosedError:
            return
        except TimeoutError:
            self.refused(connection, f"no proof within {PROOF_TIMEOUT:g} s")
            return
        if link.dismissed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DISMISSED):
                    await connection.wait_closed()
            return
        is_partner = connection.remote_key == self.partner
        if is_partner and not self._done.is_set():
            # Returning would mean that we are through with the peer: the flock would not retry.
            connection.abort(ConnectionAborted("the pipe's channel ended before the pipe"))
            self._detach(link)

    async def parted(self) -> None:
        """Wait until there is no partner, or it was lost."""
        while self.found.is_set() and not self.lost.is_set():
            await self._change()

    async def returned(self) -> None:
        """Wait until the partner that was lost is back."""
        while self.lost.is_set():
            await self._change()

    # What a link tells

    def proven(self, link: Link, hello: Hello) -> None:
        """The remote of `link` knows the topic: it is the partner, if there is none yet."""
        key = link.connection.remote_key
        if self.link is not None or self.partner not in (None, key) or self._done.is_set():
            lost = self.lost.is_set()
            why = "waiting for the peer that was lost" if lost else "the pipe has its two ends"
            self.refused(link.connection, why)
            link.turn_away()
            return
        again = self.partner is not None
        if again and link.era != self._era:
            # Another link carried bytes since: what the two said here is no place to go on.
            link.connection.abort(ConnectionAborted("another connection was the pipe meanwhile"))
            return
        try:
            messages = self.pipe.resume(hello, link.hello)
        except ProtocolError as error:
            if again:
                self._fail(_broken_rule(error))
            else:  # it is in the middle of a pipe, and so not of one with us
                self._tell_busy(link)
                link.turn_away()
            return
        self.partner = key
        self.link = link
        self._era += 1
        self.remote_size = hello.size
        self.lost.clear()
        self.found.set()
        self._output.event("path", path_of(link.connection), **path_fields(link.connection))
        text = f"channel {PROTOCOL!r} is open"
        self._output.event("channel-open", text, channel=PROTOCOL, key=key)
        self._output.event(
            "resumed" if again else "proven",
            f"{key_text(key)} proved that it knows the topic"
            + (f"; going on at byte {hello.received}" if again else ""),
            key=key,
            sent=hello.received,
            received=self.pipe.received,
        )
        if self.size is not None and link.hello.size is None:
            link.send([size_message(self.size)])
        link.send(messages)
        self._changed.set()

    def refused(self, connection: Connection, why: str, advice: str = "") -> None:
        """The remote is not one for this pipe; `advice`: what to do if it should be."""
        host, port = connection.remote_address
        key = connection.remote_key
        news = key not in self._refused and len(self._refused) < REFUSALS_TOLD
        if news:
            self._refused.add(key)
        text = f"refused {show(host, port)}: {why}"
        self.trouble, self.advice = text, advice
        self._output.event(
            "refused", text if news else "", key=key, host=host, port=port, reason=why
        )

    def received(self, link: Link, kind: int, payload: bytes) -> None:
        """A message of the partner."""
        if link is not self.link:
            return
        try:
            event = self.pipe.receive(kind, payload)
        except ProtocolError as error:
            link.connection.abort(error)
            self._fail(_broken_rule(error))
            return
        match event:
            case DataReceived():
                self._unwritten.put(event.data)
            case RemoteEnded():
                self._remote_ended.set()
                self._confirm()
            case Confirmed():
                self._check_done()
            case SizeTold():
                self.remote_size = event.size
            case Stopped():
                self._give_up(f"the other side gave up: {event.reason or 'no reason told'}")
            case Busy():
                self._turned_away(link)
            case _:
                pass  # credit: `_room` looks
        self._changed.set()

    # Inside: links

    def _hello(self, connection: Connection, proof: bytes) -> Hello:
        """What to tell a remote that proved nothing yet: how far we are only to the partner."""
        if connection.remote_key != self.partner:
            return Hello(proof)
        return self.pipe.hello(proof, size=self.size)

    def _turned_away(self, link: Link) -> None:
        """The remote took another partner."""
        link.dismissed = True
        self.link = None
        self._tell_busy(link)
        if self.pipe.progress:
            self._give_up(self.trouble)
        self._forget_partner()
        link.channel.close()

    def _tell_busy(self, link: Link) -> None:
        key = link.connection.remote_key
        self.trouble = f"{key_text(key)} is in a pipe with another peer already"
        self.advice = "wait until that pipe is over, or choose another topic for this one"
        self._output.event("busy", f"{self.trouble}; looking on", key=key)

    def _forget_partner(self) -> None:
        self.partner = None
        self.found.clear()
        self.lost.clear()
        self._changed.set()

    def _detach(self, link: Link) -> None:
        """The connection of `link` ended too early."""
        if self.link not in (link, None):
            return
        why = str(link.connection.close_error or "the connection ended")
        if link is self.link:
            self.link = None
            if self.pipe.untouched:
                text = f"lost {key_text(self.partner)} before a byte was moved; looking on"
                replaced = link.connection.close_reason is CloseReason.REDUNDANT
                self._output.event("lost", "" if replaced else text, key=self.partner, reason=why)
                self._forget_partner()
                return
            self.lost.set()
            text = f"lost {key_text(self.partner)} ({why}); waiting for it to return"
            self._output.event("lost", text, key=self.partner, reason=why)
        self._count_fruitless(why)
        self._changed.set()

    def _count_fruitless(self, why: str) -> None:
        moved = self.pipe.progress != self._progress
        self._fruitless = 1 if moved else self._fruitless + 1
        self._progress = self.pipe.progress
        if self._fruitless >= MAX_FRUITLESS:
            self._give_up(
                f"{self._fruitless} connections in a row ended before anything was moved; "
                f"the last: {why}"
            )

    # Inside: bytes

    async def _send_all(self) -> None:
        while True:
            try:
                chunk = await self._next_chunk()
            except OSError as error:
                self._fail(_local_failure("cannot read the input", error))
                return
            if not chunk:
                break
            position = 0
            while position < len(chunk):
                count = min(await self._room(), len(chunk) - position, MAX_CHUNK)
                whole = count == len(chunk)
                piece = chunk if whole else chunk[position : position + count]
                position += count
                self._send([self.pipe.send_data(piece)])
                await self._drain()
        self._send([self.pipe.send_end()])
        self._changed.set()

    async def _drain(self) -> None:
        """Let the link take what it was given; a lost one gives it to the next."""
        link = self.link
        if link is not None and link.open:
            try:
                await link.channel.drain()
            except ClosedError:
                return

    async def _next_chunk(self) -> bytes:
        if not self._stop_at_remote_end:
            return await self._source.read()
        reading = asyncio.create_task(self._source.read(), name="covey pipe read")
        ended = asyncio.create_task(self._remote_stopped(), name="covey pipe remote-end")
        try:
            await asyncio.wait((reading, ended), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else b""
        finally:
            await end_tasks(reading, ended)

    async def _remote_stopped(self) -> None:
        """Wait for the end of what the remote sends; for ever when it only listens."""
        await self._remote_ended.wait()
        while self.remote_size == 0:
            await self._change()

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
            data = await self._unwritten.take()
            try:
                await self._sink.write(data)
            except OSError as error:
                self._fail(_local_failure("cannot write the output", error))
                return
            self._send(self.pipe.written(len(data)))
            self._confirm()

    def _confirm(self) -> None:
        """Confirm what is written; without a link the remote will tell its end again."""
        if self.link is not None and self.link.open:
            self._send(self.pipe.confirm())
            self._check_done()

    def _send(self, messages: Sequence[Message]) -> None:
        if messages and self.link is not None:
            self.link.send(messages)

    # Inside: the end

    def _check_done(self) -> None:
        if self.pipe.done:
            self._done.set()

    def _worker_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _give_up(self, text: str) -> None:
        sent, received = self.pipe.sent, self.pipe.received
        confirmed = "confirmed" if self.pipe.confirmed else "not confirmed"
        self._fail(
            CommandError(
                f"{text}; sent {bytes_text(sent)} ({confirmed}), received {bytes_text(received)}",
                code=Exit.LOST,
            )
        )

    def _fail(self, error: BaseException) -> None:
        if not self._done.is_set():
            self._failure = error
            self._done.set()


def _broken_rule(error: ProtocolError) -> CommandError:
    failure = CommandError(
        f"the other side broke the rules of the pipe: {error}",
        hint=f"{SAME_VERSION} Start both again",
    )
    failure.__cause__ = error
    return failure


def _local_failure(what: str, error: OSError) -> CommandError:
    failure = CommandError(f"{what}: {error.strerror or error}")
    failure.__cause__ = error
    return failure
