"""covey's side of the log benchmarks: the roles and figures of `bench/node/node-replicate.cjs`.

    python -m bench.covey_log --mode server --what replicate     prints {"port": ..., "key": ...}
    python -m bench.covey_log --mode client --what replicate --port PORT

Either end also talks to the Node program.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from bench.covey_peer import HOST, resident_bytes, say
from bench.loops import loop_factory
from bench.processes import python
from covey.address import Address
from covey.feed.manifest import default_manifest
from covey.keys import KeyPair
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.store.basestore import Basestore

WRITER = KeyPair.from_seed(bytes([7]) * 32)
KEY = default_manifest(WRITER.public_key).key


def block(index: int, size: int) -> bytes:
    """What the Node program puts at `index`."""
    head = index.to_bytes(4, "little") if size >= 4 else b""
    return head + bytes([index & 255]) * (size - len(head))


@contextlib.contextmanager
def directory() -> Iterator[Path]:
    """A folder on disk that is gone afterwards."""
    path = Path(tempfile.mkdtemp(prefix="covey-log-"))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def rates(options: argparse.Namespace, seconds: float) -> dict[str, object]:
    """The figures of a run that handled every block."""
    return {
        "what": options.what,
        "blocks": options.blocks,
        "size": options.size,
        "blocksPerSec": options.blocks / seconds,
        "MBps": options.blocks * options.size / 1e6 / seconds,
        "sec": seconds,
        "residentBytes": resident_bytes(),
        "peakBytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


async def serve(options: argparse.Namespace) -> dict[str, object] | None:
    """Append everything, then serve one caller."""
    gone = asyncio.Event()
    with directory() as path:
        async with Basestore(path) as store:
            feed = await store.get(key_pair=WRITER)
            for start in range(0, options.blocks, 256):
                stop = min(start + 256, options.blocks)
                await feed.append([block(i, options.size) for i in range(start, stop)])

            def exchange(connection: Connection) -> None:
                connection.on_close(lambda _connection: gone.set())
                store.replicate(connection)

            async with Endpoint(on_connection=exchange) as node:
                _, port = await node.listen_on(HOST, 0)
                say(port=port, key=feed.key.hex())
                await gone.wait()
    return None


async def fetch(options: argparse.Namespace) -> dict[str, object]:
    """Fetch everything into an empty store; the clock runs from before the connect."""
    with directory() as path:
        async with Basestore(path) as store, Endpoint() as node:
            feed = await store.get(key=KEY)
            start = time.perf_counter()
            connection = await node.dial(Address.net(HOST, options.port))
            store.replicate(connection)
            while feed.length < options.blocks:
                await feed.update(wait=True)
            await feed.download(0, options.blocks).done()
            figures = rates(options, time.perf_counter() - start)
            last = await feed.get(options.blocks - 1, wait=False)
            assert feed.contiguous_length == options.blocks
            assert last == block(options.blocks - 1, options.size)
    return figures


async def append(options: argparse.Namespace) -> dict[str, object]:
    """Append one block after the other, or `batch` at a time, each awaited."""
    step = 1 if options.what == "append" else options.batch
    with directory() as path:
        async with Basestore(path) as store:
            feed = await store.get(key_pair=WRITER)
            start = time.perf_counter()
            for index in range(0, options.blocks, step):
                stop = min(index + step, options.blocks)
                await feed.append([block(i, options.size) for i in range(index, stop)])
            return rates(options, time.perf_counter() - start)


async def make_feeds(options: argparse.Namespace) -> None:
    """Make `n` named logs of one block in the store at `dir`."""
    async with Basestore(options.dir) as store:
        for number in range(options.n):
            async with await store.get(f"feed {number}") as feed:
                await feed.append(block(0, 100))


async def feeds(options: argparse.Namespace) -> dict[str, object]:
    """Open a store of `n` named logs that another process made, and the first; then `open` more."""
    with directory() as path:
        made = [*python("bench.covey_log", "--what", "feeds-make"), "--n", str(options.n)]
        process = await asyncio.create_subprocess_exec(*made, "--dir", str(path))
        if await process.wait():
            raise RuntimeError("the store was not made")
        gc.collect()
        before = resident_bytes()
        start = time.perf_counter()
        async with Basestore(path) as store:
            first = await store.get("feed 0")
            opened = time.perf_counter() - start
            assert first.length == 1
            figures: dict[str, object] = {
                "what": options.what,
                "n": options.n,
            }
            figures["firstCoreMs"] = opened * 1e3
            figures["storeBytes"] = resident_bytes() - before
            before = resident_bytes()
            begun = time.perf_counter()
            kept = [await store.get(f"feed {number}") for number in range(options.open)]
            if kept:
                figures["openAllSec"] = time.perf_counter() - begun
                gc.collect()
                figures["bytesPerFeed"] = round((resident_bytes() - before) / len(kept))
            return figures


ROLES: dict[str, Callable[[argparse.Namespace], Awaitable[dict[str, object] | None]]] = {
    "replicate": fetch,
    "append": append,
    "append-batch": append,
    "feeds": feeds,
    "feeds-make": make_feeds,
}


def main() -> None:
    """Parse the arguments of the Node program, and run one role on the fastest loop there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", choices=["server", "client"], default="client")
    parser.add_argument("--what", choices=list(ROLES), default="replicate")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--blocks", type=int, default=20_000)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--open", type=int, default=0)
    parser.add_argument("--dir")
    parser.add_argument("--loop", choices=["best", "asyncio"], default="best")
    options = parser.parse_args()
    role = serve if options.mode == "server" else ROLES[options.what]
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        figures = runner.run(_run(role, options))
    if figures is not None:
        say(**figures)


async def _run(
    role: Callable[[argparse.Namespace], Awaitable[dict[str, object] | None]],
    options: argparse.Namespace,
) -> dict[str, object] | None:
    return await role(options)


if __name__ == "__main__":
    main()
