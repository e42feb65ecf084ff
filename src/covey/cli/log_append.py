"""`covey log append`: lines of stdin, or a file in chunks, as blocks of a log."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from covey.cli.flock_options import FlockOptions, flock_options, quiet_option, take_options
from covey.cli.log_blocks import chunks_of, lines_of
from covey.cli.log_presence import ROOM
from covey.cli.log_progress import State, blocks_text, peers_text, show_progress
from covey.cli.log_store import (
    FROZEN,
    find_log,
    log_named,
    open_store,
    store_option,
    two_outputs,
)
from covey.cli.output import Output, bytes_text
from covey.cli.runtime import CommandError, Exit, common_options, end_tasks, run, start_telling
from covey.cli.stdio import DescriptorReader, size_of
from covey.errors import ClosedError, FrozenError, StoreError

if TYPE_CHECKING:
    from covey.store.feed import Feed

CHUNK: Final = 1 << 16
MOST_CHUNK: Final = 15 << 20
"""Bytes of the largest block."""
READ: Final = 1 << 20
"""Bytes that are read, appended and written to disk together, at least."""


@click.command("append")
@click.argument("name", callback=log_named)
@click.option(
    "--file",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Append this file in chunks, not the lines of stdin; an interrupted one is continued.",
)
@click.option(
    "--chunk",
    type=click.IntRange(1, MOST_CHUNK),
    default=CHUNK,
    show_default=True,
    metavar="BYTES",
    help="Size of the blocks that a file is cut into.",
)
@click.option("--seed", is_flag=True, help="Serve the log meanwhile and afterwards.")
@store_option
@flock_options
@quiet_option
@common_options
def command(
    *,
    name: str,
    file: Path | None,
    chunk: int,
    seed: bool,
    folder: Path | None,
    quiet: bool,
    as_json: bool,
    debug: bool,
    **values: Any,
) -> None:
    """Append to the log NAME: each line of stdin, with its newline, is a block.

    What was appended is on disk, signed and complete whatever happens afterwards. With --seed
    readers get it at once, and until you interrupt; the options of the network are for that.
    """
    options = take_options(values)
    if not seed and options != FlockOptions():
        raise click.UsageError("options of the network go with --seed")

    async def work() -> Exit:
        output, news = two_outputs(as_json=as_json, quiet=quiet)
        with output.needed():
            order = Order(name, folder, file, chunk, options if seed else None)
            await append(order, output, news)
        return Exit.OK

    run(work, debug=debug, as_json=as_json, events=sys.stdout)


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be appended to what; `network` None: without one."""

    name: str
    folder: Path | None
    file: Path | None
    chunk: int
    network: FlockOptions | None


async def append(order: Order, output: Output, news: Output) -> None:
    """Append it all, and serve it when that is wanted; see `command`."""
    from covey.cli.seed import serve

    async with open_store(
        order.folder, active=order.network is not None, wanted=order.name
    ) as store:
        feed = await find_log(store, order.name)
        if feed.frozen:
            raise _frozen(feed)
        if not feed.writable:
            raise CommandError(
                f"the log {order.name} can only be read here: its secret key is somewhere else",
                hint="`covey log new NAME` makes a log of your own",
            )
        async with AsyncExitStack() as stack:
            if order.network is not None:
                await stack.enter_async_context(serve(store, [feed], order.network, news))
            await _append(feed, order, output, news)
            if order.network is not None:
                text = f"serving the log {feed.key.hex()} until you interrupt"
                news.event("serving", text, log=feed.key)
                await _serve_on(feed, news)


async def _append(feed: Feed, order: Order, output: Output, news: Output) -> None:
    appender = Appender(feed)
    progress = start_telling(
        show_progress(appender.state, news, bar=not sys.stdin.isatty() or order.file is not None),
        "covey log append progress",
    )
    try:
        if order.file is None:
            await appender.append_lines(sys.stdin.fileno(), news)
        else:
            await appender.append_file(order.file, order.chunk, news)
    except StoreError as error:
        raise CommandError(str(error), hint=ROOM) from error
    except (ClosedError, FrozenError) as error:
        if feed.frozen:  # readers that have the other history came meanwhile
            raise _frozen(feed) from error
        raise
    finally:
        await end_tasks(progress)
        output.event(
            "appended",
            f"appended {blocks_text(appender.blocks)}, {bytes_text(appender.bytes)}; "
            f"the log has {blocks_text(feed.length)}, {bytes_text(feed.byte_length)}",
            log=feed.key,
            blocks=appender.blocks,
            bytes=appender.bytes,
            length=feed.length,
            byte_length=feed.byte_length,
        )


def _frozen(feed: Feed) -> CommandError:
    return CommandError(
        f"the log {feed.key.hex()} is frozen: {FROZEN}, so nothing can be added any more",
        hint="`covey log cat KEY --offline` prints what is here; `covey log new NAME` makes a log",
    )


class Appender:
    """Appends to one log and counts; `total` is how many bytes it will be, where that is known."""

    def __init__(self, feed: Feed) -> None:
        self.blocks = 0
        self.bytes = 0
        self.skipped = 0
        self.total: int | None = None
        self._feed = feed

    def state(self) -> State:
        """How far it is."""
        done = self.skipped + self.bytes
        of = f" of {bytes_text(self.total)}" if self.total else ""
        served = self._feed.progress
        peers = f"; {peers_text(served.peers)}" if served.peers else ""
        return State(
            text=f"appended {bytes_text(done)}{of}, {blocks_text(self.blocks)}{peers}",
            done=done,
            total=self.total or None,
            fields={
                "blocks": self.blocks,
                "bytes": self.bytes,
                "total": self.total,
                "peers": served.peers,
                "uploaded_bytes": served.uploaded_bytes,
            },
        )

    async def append_lines(self, descriptor: int, news: Output) -> None:
        """Each line of an input as it comes."""
        if os.isatty(descriptor):
            news.say("each line that you type is a block; Ctrl-D ends it")
        self.total = size_of(descriptor)
        await self._append_all(lines_of(DescriptorReader(descriptor, chunk=READ)))

    async def append_file(self, file: Path, chunk: int, news: Output) -> None:
        """A file, from where an earlier attempt with it was interrupted.

        That it was is kept beside the log until the file is complete.
        """
        from covey.cli.log_resume import Mark

        descriptor = os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.total = size_of(descriptor)
        mark = Mark(self._feed, file, chunk)
        self.skipped = await mark.resume(descriptor) if self.total else 0
        if self.skipped:
            text = f"going on with {file.name} after {bytes_text(self.skipped)}"
            news.event("resumed", text, file=str(file), bytes=self.skipped)
        source = DescriptorReader(descriptor, chunk=max(READ - READ % chunk, chunk))
        await self._append_all(chunks_of(source, chunk))
        await mark.clear()
        os.close(descriptor)  # not earlier: a thread may be reading from it

    async def _append_all(self, batches: AsyncIterator[list[bytes]]) -> None:
        async for blocks in batches:
            await self._feed.append(blocks)
            self.blocks += len(blocks)
            self.bytes += sum(map(len, blocks))


async def _serve_on(feed: Feed, news: Output) -> None:
    """Show who reads, until cancelled."""

    def state() -> State:
        now = feed.progress
        return State(
            text=f"{peers_text(now.peers)}, sent {bytes_text(now.uploaded_bytes)}, "
            f"{bytes_text(now.upload_rate)}/s",
            fields={
                "peers": now.peers,
                "uploaded_bytes": now.uploaded_bytes,
                "upload_rate": round(now.upload_rate),
            },
        )

    showing = start_telling(show_progress(state, news), "covey log serve")
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await end_tasks(showing)
