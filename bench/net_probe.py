"""Measures the net layer alone: two processes over loopback, one JSON line per run.

python bench/net_probe.py bulk|small|shake|idle [--uvloop] [--bytes N] [--chunk K] [--count N]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Coroutine
from multiprocessing.connection import Connection as Wire
from pathlib import Path
from typing import Any

from covey.address import Address
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint

Options = argparse.Namespace
LIMITS = Limits(max_handshakes=5000, max_per_ip=5000)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def answer(connection: Connection, options: Options) -> None:
    """The server's side of every probe."""
    if options.what == "shake":
        async for message in connection:
            await connection.send(message)
        await connection.close()
        return
    got, wanted = 0, options.bytes if options.what == "bulk" else options.count
    async for message in connection:
        got += len(message) if options.what == "bulk" else 1
        if got >= wanted:
            await connection.send(b"done")
            got = 0


async def serve(wire: Wire, options: Options) -> None:
    """Accept until the parent says stop."""
    tasks = set()
    key_pair = KeyPair.generate()
    connections: list[Connection] = []

    def accept(connection: Connection) -> None:
        if options.what == "idle":
            connections.append(connection)
            return
        task = asyncio.create_task(answer(connection, options))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async with Endpoint(key_pair=key_pair, on_connection=accept, limits=LIMITS) as endpoint:
        _, port = await endpoint.listen_on("127.0.0.1")
        before = resident()
        wire.send(port)
        await asyncio.get_running_loop().run_in_executor(None, wire.recv)
        wire.send((resident() - before) / max(1, len(connections)))
        await asyncio.get_running_loop().run_in_executor(None, wire.recv)
    for task in tasks:
        task.cancel()


async def client(port: int, options: Options) -> dict[str, float]:
    """The measuring side."""
    async with Endpoint(key_pair=KeyPair.generate(), limits=LIMITS) as endpoint:
        address = Address.net("127.0.0.1", port)
        start = time.perf_counter()
        if options.what == "shake":
            for _ in range(options.count):
                connection = await endpoint.dial(address)
                await connection.send(b"x")
                async for _message in connection:
                    break
                await connection.close()
            return {"per_second": options.count / (time.perf_counter() - start)}
        if options.what == "idle":
            before = resident()
            kept = [await endpoint.dial(address) for _ in range(options.count)]
            return {"bytes_each": (resident() - before) / len(kept)}
        connection = await endpoint.dial(address)
        start = time.perf_counter()
        if options.what == "bulk":
            data = bytes(options.chunk)
            for _ in range(options.bytes // options.chunk):
                await connection.send(data)
        else:
            data = bytes(100)
            for _ in range(options.count):
                await connection.send(data)
        async for _message in connection:
            break
        seconds = time.perf_counter() - start
        await connection.close()
        if options.what == "bulk":
            return {"megabytes_per_second": options.bytes / 1e6 / seconds}
        return {"per_second": options.count / seconds}


def runner(options: Options) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """asyncio's or uvloop's way to run."""
    if options.uvloop:
        import uvloop

        return uvloop.run
    return asyncio.run


def child(wire: Wire, options: Options) -> None:
    """The other process."""
    runner(options)(serve(wire, options))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["bulk", "small", "shake", "idle"])
    parser.add_argument("--uvloop", action="store_true")
    parser.add_argument("--bytes", type=int, default=512 << 20)
    parser.add_argument("--chunk", type=int, default=65536)
    parser.add_argument("--count", type=int, default=500)
    options = parser.parse_args()
    here, there = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=child, args=(there, options))
    process.start()
    result = runner(options)(client(here.recv(), options))
    here.send("stop")
    result["server_bytes_each"] = here.recv()
    here.send("stop")
    process.join()
    print(json.dumps({"what": options.what, "uvloop": options.uvloop, **result}))


if __name__ == "__main__":
    main()
