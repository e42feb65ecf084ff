"""What the tests of the command line share: fake ends of a pipe, a proxy that cuts, processes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from covey.cli.output import Output
from covey.cli.pipe_runner import PipeRunner
from covey.cli.stdio import Sink, Source
from covey.flock.flock import Flock
from covey.keys import KeyPair
from covey.wire.topic_proof import TopicSecret
from tests.waiting import until

HOST = "127.0.0.1"
PATIENCE = 25.0
"""Seconds after which a test gives up; nothing waits so long when all is well."""
LOCAL = ("--no-multicast", "--host", HOST)


class Feed:
    """A source that gives what the test feeds; `b""` is the end."""

    def __init__(self, *chunks: bytes) -> None:
        self.queue: asyncio.Queue[bytes | OSError] = asyncio.Queue()
        for chunk in chunks:
            self.queue.put_nowait(chunk)

    async def read(self) -> bytes:
        item = await self.queue.get()
        if isinstance(item, OSError):
            raise item
        return item


class Kept:
    """A sink that keeps what it gets, waits while `gate` is shut, and fails with `failure`."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.gate = asyncio.Event()
        self.gate.set()
        self.failure: OSError | None = None

    async def write(self, data: bytes) -> None:
        await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        self.data += data

    async def until(self, count: int) -> None:
        await until(lambda: len(self.data) >= count, PATIENCE)


class Side:
    """A runner over a flock of its own, and every event that it told."""

    def __init__(self, runner: PipeRunner, flock: Flock, stream: io.StringIO, port: int) -> None:
        self.runner = runner
        self.flock = flock
        self.port = port
        self._stream = stream

    def events(self, *types: str) -> list[dict[str, Any]]:
        """What was told so far, of these types."""
        told = [json.loads(line) for line in self._stream.getvalue().splitlines()]
        return [event for event in told if event["type"] in types]

    def dial(self, port: int) -> None:
        self.flock.add_peer(b"pipe", (HOST, port))


@asynccontextmanager
async def a_side(
    source: Source,
    sink: Sink,
    *,
    topic: str = "orchard",
    key_pair: KeyPair | None = None,
    **options: Any,
) -> AsyncIterator[Side]:
    """One side of a pipe in this process, listening."""
    stream = io.StringIO()
    output = Output(as_json=True, stream=stream)
    secret = TopicSecret.from_text(topic)
    runner = PipeRunner(secret, source, sink, output=output, **options)
    async with Flock(
        runner.handle, host=HOST, discovery=False, key_pair=key_pair or KeyPair.generate()
    ) as flock:
        _, port = await flock.listen_on()
        yield Side(runner, flock, stream, port)


class CuttingProxy:
    """A TCP proxy to one port; `cut` ends every connection through it, by reset or in order."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.passed = 0
        self.connections = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut(reset=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def until_passed(self, count: int) -> None:
        """Wait until so many bytes went through since the start."""
        await until(lambda: self.passed >= count, PATIENCE)

    def cut(self, *, reset: bool) -> None:
        """End everything that goes through now."""
        for writer in tuple(self._writers):
            if reset:
                writer.transport.abort()
            else:
                writer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        back, forth = await asyncio.open_connection(HOST, self.target)
        self._writers |= {writer, forth}
        try:
            await asyncio.gather(self._copy(reader, forth), self._copy(back, writer))
        finally:
            for one in (writer, forth):
                one.close()
                self._writers.discard(one)
                with contextlib.suppress(OSError):
                    await one.wait_closed()
            self._tasks.discard(task)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
                self.passed += len(data)
        writer.close()


class Process:
    """A `covey` process; what it says on stderr is read as it comes."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.said: list[str] = []
        self._ended = False
        self.output = b""
        self._readers = [asyncio.create_task(self._read_errors())]
        if process.stdout is not None:
            self._readers.append(asyncio.create_task(self._read_output(process.stdout)))

    async def _read_errors(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.said.append(line.decode().rstrip("\n"))
        self._ended = True

    async def _read_output(self, stream: asyncio.StreamReader) -> None:
        while data := await stream.read(1 << 16):
            self.output += data

    async def until_said(self, text: str) -> str:
        """The first line with `text`; fails when the process ended without it."""
        await until(lambda: self._ended or any(text in line for line in self.said), PATIENCE)
        lines = [line for line in self.said if text in line]
        assert lines, f"{text!r} was never said: {self.said}"
        return lines[0]

    async def until_output(self, data: bytes) -> None:
        await until(lambda: data in self.output, PATIENCE)

    async def end(self) -> int:
        """Wait for the end; gives the exit code."""
        code = await self.process.wait()
        await asyncio.gather(*self._readers)
        return code

    def write(self, data: bytes, *, end: bool = False) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        if end:
            self.process.stdin.close()

    def events(self, *types: str) -> list[dict[str, Any]]:
        """The JSON events said so far (all lines must be such), of these types."""
        told = [json.loads(line) for line in self.said if line]
        return [event for event in told if not types or event["type"] in types]

    async def port(self) -> int:
        """Where a `covey pipe --json` listens."""
        event = json.loads(await self.until_said('"type":"waiting"'))
        return int(event["port"])


PIPE = asyncio.subprocess.PIPE
NULL = asyncio.subprocess.DEVNULL


@asynccontextmanager
async def covey(
    *arguments: str, stdin: Any = NULL, stdout: Any = PIPE, module: str = "covey.cli", **rest: Any
) -> AsyncIterator[Process]:
    """A `covey` command in a process of its own, killed at the end if it still runs."""
    started = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-m", module, *arguments),
        stdin=stdin,
        stdout=stdout,
        stderr=PIPE,
        cwd=Path(__file__).parents[2],
        **rest,
    )
    process = Process(started)
    try:
        async with asyncio.timeout(PATIENCE):
            yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            started.kill()
        await process.end()
        if started.stdin is not None:
            started.stdin.close()
            with contextlib.suppress(OSError):
                await started.stdin.wait_closed()


@asynccontextmanager
async def connected_pipes(
    *options: str, topic: str = "orchard", **streams: Any
) -> AsyncIterator[tuple[Process, Process]]:
    """Two `covey pipe --json` of one topic; `streams`: stdin, stdout of the second one."""
    common = ("pipe", topic, "--json", *LOCAL, *options)
    async with covey(*common, stdin=PIPE) as here:
        port = await here.port()
        async with covey(*common, "--peer", f"{HOST}:{port}", **streams) as there:
            yield here, there
