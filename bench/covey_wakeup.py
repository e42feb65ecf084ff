"""A group of logs on two peers, in sync, of which a few changed while they were apart.

    python -m bench.covey_wakeup --n 10000 --changed 10               hints find what changed
    python -m bench.covey_wakeup --n 10000 --changed 10 --without     every log is exchanged

Both print {"bytes": ..., "channels": ..., "sec": ...}: what went over the connection in both
directions and which logs had a channel until nothing more came. The time runs from before the
connect until those that changed are replicated; opening the logs, or reading their heads, is over
by then.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shutil
import time
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

from bench.covey_log import directory
from bench.covey_peer import HOST, resident_bytes, say
from bench.loops import loop_factory
from covey.discovery.channel import Channel
from covey.discovery.static_peers import StaticPeers
from covey.networker import Networker
from covey.networker.group_events import CaughtUp
from covey.networker.networker import NETWORKER_LIMITS
from covey.store.basestore import Basestore

CAPABILITY = b"benchmark of a group of many log"
TOPIC = b"topic of the two peers of it all"
LIMITS = replace(NETWORKER_LIMITS, max_channels=1 << 20)


async def make(path: Path, count: int) -> list[bytes]:
    """Logs of one block; their keys."""
    keys = []
    async with Basestore(path) as store:
        for number in range(count):
            async with await store.get(f"feed {number}", active=False) as feed:
                await feed.append(b"block 0" * 16)
                keys.append(feed.key)
            if number % 512 == 511:
                for log in tuple(store._root.logs.values()):
                    log.close()
    return keys


async def change(path: Path, keys: list[bytes]) -> None:
    """One more block in each."""
    async with Basestore(path) as store:
        for key in keys:
            async with await store.get(key, active=False) as feed:
                await feed.append(b"block 1" * 16)


class Side:
    """A store with its networker, and with every log in a group or open."""

    def __init__(self, store: Basestore, networker: Networker) -> None:
        self.store = store
        self.networker = networker
        self.caught_up: set[bytes] = set()
        self.all_caught_up = asyncio.Event()

    async def begin(self, keys: list[bytes], options: argparse.Namespace) -> None:
        """Have all logs be kept alike with the other side."""
        if options.without:
            self.feeds = {key: await self.store.get(key) for key in keys}
            return
        group = self.networker.group(CAPABILITY, keys)

        def told(event: object) -> None:
            if isinstance(event, CaughtUp):
                self.caught_up.add(event.key)
                if len(self.caught_up) == options.changed:
                    self.all_caught_up.set()

        group.subscribe(told)
        await group.ready()

    async def has(self, keys: list[bytes], options: argparse.Namespace) -> None:
        """Wait until the second blocks of these logs are here."""
        if not options.without:
            await self.all_caught_up.wait()
            return
        for key in keys:
            assert len(await self.feeds[key].get(1)) == 112


async def measure(options: argparse.Namespace) -> dict[str, object]:
    """Make both stores, connect them, and wait until what changed is on both sides."""
    async with AsyncExitStack() as stack:
        path = stack.enter_context(directory())
        keys = await make(path / "one", options.n)
        shutil.copytree(path / "one", path / "two")
        changed = keys[:: max(1, options.n // options.changed)][: options.changed]
        await change(path / "one", changed)
        sides = []
        before = resident_bytes()
        places: list[tuple[str, int]] = []
        for name in ("one", "two"):
            store = await stack.enter_async_context(Basestore(path / name, limits=LIMITS))
            channel = await stack.enter_async_context(Channel([StaticPeers(places)]))
            networker = Networker(store, host=HOST, channel=channel, limits=LIMITS)
            await stack.enter_async_context(networker)
            sides.append(Side(store, networker))
            await sides[-1].begin(keys, options)
            places = [await networker.listen_on()]
        first, second = sides
        await first.networker.configure(TOPIC)
        gc.collect()
        held = resident_bytes() - before
        start = time.perf_counter()
        await second.networker.configure(TOPIC)
        await second.has(changed, options)
        seconds = time.perf_counter() - start
        for key in changed:
            async with await second.store.get(key, active=False) as feed:
                assert await feed.get(1, wait=False) == b"block 1" * 16
        await _settled(second)
        (stream,) = second.networker.streams
        connection = stream.connection
        assert connection is not None
        channels = {key for one in second.store.streams for key in one.discovery_keys}
        return {
            "n": options.n,
            "changed": options.changed,
            "bytes": connection.bytes_read + connection.bytes_written,
            "channels": len(channels),
            "sec": seconds,
            "heldBytes": held,
        }


async def _settled(side: Side) -> None:
    """Wait until nothing more comes; without hints every log is compared first."""
    (stream,) = side.networker.streams
    connection = stream.connection
    assert connection is not None
    before = -1
    while connection.bytes_read != before:
        before = connection.bytes_read
        await asyncio.sleep(0.5)


def main() -> None:
    """Measure once, on the fastest loop there is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=10_000)
    parser.add_argument("--changed", type=int, default=10)
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--loop", choices=["best", "asyncio"], default="best")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory(options.loop)) as runner:
        say(**runner.run(measure(options)))


if __name__ == "__main__":
    main()
