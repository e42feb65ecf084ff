"""A store that downloads from a peer and appends while it is killed; run as `... MODE FOLDER`.

For each line that comes in a child is forked; it tells every append of its own log that was
acknowledged: `did LENGTH`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

from covey.feed.manifest import default_manifest
from covey.keys import KeyPair
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from tests.store.children import fork_for_each_line, tell
from tests.store.meeting import met

SIZES = {"small": (1500, 300), "large": (60, 70_000), "huge": (20, 400_000)}
"""The logs of the peer: how many blocks, and of how many bytes. Large ones go by the thread."""
CUT = 5
"""Blocks that every new history replaces."""


def pair_of(name: str) -> KeyPair:
    """The key pair of one of the peer's logs."""
    return KeyPair.from_seed(name.encode().ljust(32, b"."))


def key_of(name: str) -> bytes:
    """The key of one of the peer's logs."""
    return default_manifest(pair_of(name).public_key).key


def own_block(index: int) -> bytes:
    """What the own log says there."""
    return b"own %d" % index


def block_of(name: str, index: int, fork: int = 0) -> bytes:
    """What block `index` of a log of the peer says, when it was written on `fork`."""
    text = b"%s %d %d;" % (name.encode(), fork, index)
    size = SIZES[name][1]
    return (text * (size // len(text) + 1))[:size]


def history(name: str, fork: int) -> list[bytes]:
    """All blocks of a log on one fork, the same in every process."""
    count = SIZES[name][0]
    kept = count if fork == 0 else count - CUT
    blocks = [block_of(name, index) for index in range(kept)]
    return [*blocks, *(block_of(name, kept + index, fork) for index in range(fork % 9))]


async def go_on(feed: Feed, name: str, fork: int) -> None:
    """Take a log of the peer to its history of a later fork."""
    kept = SIZES[name][0] - CUT
    await feed.truncate(kept, fork=fork)
    await feed.append(history(name, fork)[kept:])


async def live(folder: Path) -> None:
    """Download, follow new histories, clear, and append, for ever."""
    chance = random.Random()
    source, store = Basestore(), Basestore(folder)
    own = await store.get("own")
    writers: dict[str, Feed] = {}
    readers: dict[str, Feed] = {}
    for name in SIZES:
        writer = writers[name] = await source.get(key_pair=pair_of(name))
        await writer.append(history(name, 0))
        reader = readers[name] = await store.get(key_of(name))
        if reader.fork:
            await go_on(writer, name, reader.fork)
    async with met(source, store):
        for reader in readers.values():
            reader.download(0, -1)
        while True:
            count = chance.choice([1, 1, 5])
            await own.append([own_block(own.length + index) for index in range(count)])
            tell("did", own.length)
            name = chance.choice(list(SIZES))
            writer, reader = writers[name], readers[name]
            await asyncio.sleep(0.002)
            if chance.random() < 0.05 and reader.fork == writer.fork:
                await go_on(writer, name, writer.fork + 1)
            if chance.random() < 0.05:
                start = chance.randrange(reader.length + 1)
                await reader.clear(start, reader.length)
                reader.download(0, -1)


def main(_mode: str, folder: Path) -> None:
    """Fork a child for each line of input."""
    fork_for_each_line(lambda: asyncio.run(live(folder)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
