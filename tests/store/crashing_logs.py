"""Loops that are killed at random moments; run as a program: `... MODE FOLDER`.

For each line that comes in a child is forked, which tells its process number, and what it is about
to do and has done, each in one line. When it is gone, `end` is told.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from covey.feed.log import Log
from covey.store.lmdb_storage import LmdbStorage
from covey.store.log_records import open_log
from covey.store.memory_storage import MemoryStorage
from tests.feed.exchange import fetch, upgrade
from tests.store.children import fork_for_each_line, tell
from tests.store.stored_logs import CORE, make

LENGTH = 3000
"""Blocks of the log that is downloaded."""


def block(fork: int, index: int) -> bytes:
    """What block `index` written on `fork` says: small ones, and some of several pages."""
    text = b"fork %d block %d;" % (fork, index)
    return text * (400 if index % 17 == 0 else 1 + index % 60)


def source_log() -> Log:
    """The log that is downloaded, the same in every process."""
    log = make(MemoryStorage(), own=True)
    log.append([block(0, index) for index in range(LENGTH)])
    return log


def append(log: Log, _: Log) -> None:
    """Append for ever; everything acknowledged must be there."""
    chance = random.Random(os.getpid())
    while True:
        count = chance.choice([1, 1, 2, 9, 30])
        log.append([block(log.fork, index) for index in range(log.length, log.length + count)])
        tell("did", log.length)


def truncate(log: Log, _: Log) -> None:
    """Append and truncate for ever; the head is that of the last step, or of the one begun."""
    chance = random.Random(os.getpid())
    while True:
        if log.length > chance.randrange(60):
            length = chance.randrange(log.length)
            tell("try", log.fork + 1, length)
            log.truncate(length)
        else:
            length = log.length + chance.choice([1, 5, 40])
            tell("try", log.fork, length)
            log.append([block(log.fork, index) for index in range(log.length, length)])
        tell("did", log.fork, log.length)


def take_heads(log: Log, source: Log) -> None:
    """The head of `source`, by way of an earlier one."""
    if not log.length:
        short = make(MemoryStorage(), own=True)
        short.append([block(0, index) for index in range(700)])
        upgrade(log, short, block=699)
        tell("did", 699)
    if log.length < source.length:
        upgrade(log, source, block=source.length - 1)
        tell("did", source.length - 1)


def accept(log: Log, source: Log) -> None:
    """Download in random order, with several upgrades; clear and begin anew when all is there."""
    chance = random.Random(os.getpid())
    take_heads(log, source)
    while True:
        missing = [index for index in range(log.length) if not log.has(index)]
        chance.shuffle(missing)
        while missing:
            some = [missing.pop() for _ in range(min(chance.randrange(1, 40), len(missing)))]
            fetch(log, source, some)
            log.flush()
            tell("did", *some)
        start = chance.randrange(log.length)
        tell("clear", start, log.length)
        log.clear(start, log.length)


def aside(log: Log, source: Log) -> None:
    """As `accept`, but what came is written in a thread while more comes."""
    chance = random.Random(os.getpid())
    pool = ThreadPoolExecutor(1)
    take_heads(log, source)
    while True:
        missing = [index for index in range(log.length) if not log.has(index)]
        chance.shuffle(missing)
        while missing:
            some = [missing.pop() for _ in range(min(chance.randrange(1, 40), len(missing)))]
            fetch(log, source, some)
            begin(log, pool, some)
        log.flush()
        start = chance.randrange(log.length)
        tell("clear", start, log.length)
        log.clear(start, log.length)


def begin(log: Log, pool: ThreadPoolExecutor, blocks: list[int]) -> None:
    """Have `blocks` written; told when that ended, by the next change at the latest."""
    futures: list[Future[None]] = []

    def settle() -> None:
        log.end_flush(futures[0].exception())
        tell("did", *blocks)

    work = log.begin_flush(settle)
    assert work is not None
    futures.append(pool.submit(work))


LOOPS: dict[str, Callable[[Log, Log], None]] = {
    "append": append,
    "truncate": truncate,
    "accept": accept,
    "aside": aside,
}


def main(mode: str, folder: Path) -> None:
    """Fork a child for each line of input."""
    source = source_log()
    fork_for_each_line(lambda: LOOPS[mode](open_log(LmdbStorage(folder), CORE), source))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
