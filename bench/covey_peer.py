"""covey's side of the benchmarks: the roles and the wire of the programs in `bench/node`.

    python -m bench.covey_peer --mode server --what blast        prints {"port": ...}
    python -m bench.covey_peer --mode client --what blast --port PORT

Either end also talks to the Node program of the same name, which tells whose side a limit is on.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from bench.loops import loop_factory
from covey.address import Address
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.wire.encoding import buffer

HOST = "127.0.0.1"
MANY = 1 << 20
LIMITS = Limits(
    max_connections=MANY, max_incoming=MANY, max_per_ip=MANY, max_per_key=MANY, max_handshakes=MANY
)
DIALS_AT_ONCE = 8

Serve = Callable[[Connection], Awaitable[None]]


def say(**fields: object) -> None:
    """One JSON object per line, as the Node programs do."""
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def resident_bytes() -> int:
    """Memory of this process that is in RAM now (Linux)."""
    fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    return int(fields[1]) * 4096


# -- server ------------------------------------------------------------------------------------


async def serve_blast(connection: Connection, options: argparse.Namespace) -> None:
    """Count bytes, answer `done` when all came."""
    got = 0
    async for message in connection:
        got += len(message)
        if got >= options.bytes:
            await connection.send(b"done")


async def serve_small(connection: Connection, options: argparse.Namespace) -> None:
    """Count messages of one channel, answer `done` when all came."""
    got = 0

    def count(_value: bytes) -> None:
        nonlocal got
        got += 1
        if got == options.count:
            message.send(b"done")

    channel = connection.mux.create_channel("bench")
    message = channel.add_message(buffer, count)
    channel.open()
    await connection.wait_closed()


async def serve_round_trip(connection: Connection, _options: argparse.Namespace) -> None:
    """Send every request back."""
    channel = connection.mux.create_channel("bench")

    def answer(value: bytes) -> None:
        message.send(value)

    message = channel.add_message(buffer, answer)
    channel.open()
    await connection.wait_closed()


async def serve_shake(connection: Connection, _options: argparse.Namespace) -> None:
    """Send every message back."""
    async for message in connection:
        await connection.send(message)


SERVERS: dict[str, Callable[[Connection, argparse.Namespace], Awaitable[None]]] = {
    "blast": serve_blast,
    "small": serve_small,
    "round-trip": serve_round_trip,
    "shake": serve_shake,
}


async def serve(options: argparse.Namespace) -> None:
    """Listen and serve until the process is ended."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(connection: Connection) -> None:
        with contextlib.suppress(Exception):  # the client leaves when it has measured
            await SERVERS[options.what](connection, options)

    def start(connection: Connection) -> None:
        task = asyncio.create_task(run(connection), name="bench.serve")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with Endpoint(key_pair=KeyPair.generate(), limits=LIMITS, on_connection=start) as node:
        _, port = await node.listen_on(HOST, 0)
        say(port=port)
        await asyncio.get_running_loop().create_future()


async def serve_idle(options: argparse.Namespace) -> None:
    """Hold `n` idle connections with a muxer each; tell the memory each of them costs."""
    everybody = asyncio.get_running_loop().create_future()
    kept: list[Any] = []

    def keep(connection: Connection) -> None:
        kept.append(connection.mux)
        if len(kept) == options.n:
            everybody.set_result(None)

    async with Endpoint(key_pair=KeyPair.generate(), limits=LIMITS, on_connection=keep) as node:
        _, port = await node.listen_on(HOST, 0)
        gc.collect()
        before = resident_bytes()
        say(port=port)
        await everybody
        await asyncio.sleep(0.5)  # as the Node program: let the last ones settle
        gc.collect()
        each = round((resident_bytes() - before) / options.n)
        say(what="connections", n=options.n, bytesPerConnection=each)


# -- client ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def dialled(port: int) -> AsyncIterator[Callable[[], Awaitable[Connection]]]:
    """Gives the function that opens one more connection to the server."""
    address = Address.net(HOST, port)
    async with Endpoint(
        key_pair=KeyPair.generate(), limits=LIMITS, on_connection=lambda _connection: None
    ) as node:
        yield lambda: node.dial(address)


async def blast(options: argparse.Namespace) -> None:
    """Send `bytes` in messages of `chunk`, until the server confirms."""
    async with dialled(options.port) as dial:
        connection = await dial()
        piece = bytes([1]) * options.chunk
        start = time.perf_counter()
        for _ in range(-(-options.bytes // options.chunk)):
            await connection.send(piece)
        assert await anext(aiter(connection)) == b"done"
        seconds = time.perf_counter() - start
        say(what="blast", chunk=options.chunk, MBps=options.bytes / 1e6 / seconds, sec=seconds)


async def small(options: argparse.Namespace) -> None:
    """Send `count` messages of `size` on one channel, corked in `batch`es or not at all."""
    async with dialled(options.port) as dial:
        connection = await dial()
        confirmed = asyncio.get_running_loop().create_future()
        mux = connection.mux
        channel = mux.create_channel("bench")
        message = channel.add_message(buffer, confirmed.set_result)
        start = time.perf_counter()
        channel.open()
        body = bytes([1]) * options.size
        if options.batch > 1:
            for sent in range(0, options.count, options.batch):
                mux.cork()
                for _ in range(min(options.batch, options.count - sent)):
                    message.send(body)
                mux.uncork()
                if not channel.drained:
                    await channel.drain()
        else:
            for _ in range(options.count):
                if not message.send(body):
                    await channel.drain()
        await confirmed
        seconds = time.perf_counter() - start
        say(what="small", count=options.count, perSec=options.count / seconds, sec=seconds)


async def round_trip(options: argparse.Namespace) -> None:
    """Ask `count` times, one at a time."""
    async with dialled(options.port) as dial:
        connection = await dial()
        over = asyncio.get_running_loop().create_future()
        body = bytes([1]) * options.size
        answered = 0
        start = 0.0

        def answer(_value: bytes) -> None:
            nonlocal answered, start
            if answered == 0:  # the first answer also waited for the channel to open
                start = time.perf_counter()
            answered += 1
            if answered <= options.count:
                message.send(body)
            else:
                over.set_result(time.perf_counter() - start)

        channel = connection.mux.create_channel("bench")
        message = channel.add_message(buffer, answer)
        channel.open()
        message.send(body)
        seconds = await over
        say(what="round-trip", count=options.count, perSec=options.count / seconds, sec=seconds)


async def shake(options: argparse.Namespace) -> None:
    """Open `n` connections in a row, one message each way."""
    async with dialled(options.port) as dial:
        start = time.perf_counter()
        for _ in range(options.n):
            connection = await dial()
            await connection.send(b"x")
            assert await anext(aiter(connection)) == b"x"
            connection.start_close()  # the Node program does not wait either
        say(what="shake", n=options.n, perSec=options.n / (time.perf_counter() - start))


async def hold_idle(options: argparse.Namespace) -> None:
    """Open `n` connections and keep them until the server is gone."""
    async with dialled(options.port) as dial:
        kept: list[Connection] = []
        left = iter(range(options.n))

        async def open_more() -> None:
            for _ in left:
                connection = await dial()
                kept.append(connection)

        async with asyncio.TaskGroup() as group:
            for _ in range(DIALS_AT_ONCE):
                group.create_task(open_more())
        await kept[0].wait_closed()


CLIENTS: dict[str, Callable[[argparse.Namespace], Awaitable[None]]] = {
    "blast": blast,
    "small": small,
    "round-trip": round_trip,
    "shake": shake,
    "connections": hold_idle,
}


def main() -> None:
    """Parse the arguments of the Node programs, and run one role on the fastest loop there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=["server", "client"], required=True)
    parser.add_argument("--what", choices=[*CLIENTS], default="blast")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--bytes", type=int, default=512 << 20)
    parser.add_argument("--chunk", type=int, default=65536)
    parser.add_argument("--count", type=int, default=200_000)
    parser.add_argument("--size", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--loop", choices=["best", "asyncio"], default="best")
    options = parser.parse_args()
    if options.mode == "client":
        role = CLIENTS[options.what]
    else:
        role = serve_idle if options.what == "connections" else serve
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        runner.run(_run(role, options))


async def _run(
    role: Callable[[argparse.Namespace], Awaitable[None]], options: argparse.Namespace
) -> None:
    await role(options)


if __name__ == "__main__":
    main()
