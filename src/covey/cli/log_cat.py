"""`covey log cat`: the blocks of a log on stdout, from here and from its peers."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from covey.cli.flock_options import (
    FlockOptions,
    Seconds,
    flock_options,
    quiet_option,
    take_options,
)
from covey.cli.log_network import LogNetwork, open_network
from covey.cli.log_presence import Presence
from covey.cli.log_progress import State, blocks_text, peers_text, show_progress
from covey.cli.log_store import find_log, key_or_name, open_store, store_option
from covey.cli.output import Output, bytes_text
from covey.cli.runtime import CommandError, Exit, common_options, end_tasks, run, start_telling
from covey.cli.stdio import DescriptorWriter, Sink, widen
from covey.errors import BlockNotAvailable, ClosedError, CoveyError, FeedTimeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from covey.store.feed import Feed

NEWS: Final = 5.0
"""Seconds for which peers are looked for when everything that is known of is here."""
FROZEN: Final = "what came before is kept: `covey log cat KEY --offline` prints it"
WRITE: Final = 1 << 18
"""Bytes that are written at once, when so many are at hand."""


@click.command("cat")
@key_or_name
@click.option(
    "--follow", "-f", is_flag=True, help="Go on with what is appended, until interrupted."
)
@click.option(
    "--from",
    "start",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Begin with block N; the first one is 0.",
)
@click.option("--lines", is_flag=True, help="End each block with a newline if it has none.")
@click.option("--offline", is_flag=True, help="Only what is here; ask nobody.")
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="Give up when there is no peer for so many seconds.",
)
@store_option
@flock_options
@quiet_option
@common_options
def command(
    *,
    which: str,
    folder: Path | None,
    quiet: bool,
    as_json: bool,
    debug: bool,
    **values: Any,
) -> None:
    """Print a log: its blocks one after the other, each verified.

    What is here comes from here, the rest from its peers; it is kept, so that an interrupted
    command fetches nothing twice. Ends when a peer says that there is no more. Everything but
    the blocks goes to stderr.
    """
    options = take_options(values)
    order = Order(which=which, folder=folder, options=options, **values)
    if order.offline and (order.follow or options != FlockOptions()):
        raise click.UsageError("--offline asks nobody: there is nothing to follow or to look for")

    async def work() -> Exit:
        await cat(order, Output(as_json=as_json, quiet=quiet))
        return Exit.OK

    run(work, debug=debug, as_json=as_json)


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be printed, and how."""

    which: str
    folder: Path | None
    options: FlockOptions
    follow: bool
    start: int
    lines: bool
    offline: bool
    timeout: float | None


async def cat(order: Order, output: Output) -> None:
    """Print a log; see `command`."""
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(order.folder, active=True))
        feed = await find_log(store, order.which, fetch=not order.offline)
        stdout = sys.stdout.fileno()
        widen(stdout)
        printer = Printer(feed, DescriptorWriter(stdout), start=order.start, lines=order.lines)
        presence = stack.enter_context(Presence(feed, output))
        shown = os.isatty(stdout)
        reader = Reader(feed, printer, presence, order)
        showing = start_telling(
            show_progress(reader.state, output, bar=not shown, words=not shown),
            "covey log cat show",
        )
        stack.push_async_callback(end_tasks, showing)
        try:
            if order.offline or (_is_whole(feed) and feed.writable and not order.follow):
                await printer.print(_stored(feed, order.start))
            else:
                network = await stack.enter_async_context(
                    open_network(store, order.options, output)
                )
                await reader.run(network, output)
        except BlockNotAvailable as error:
            raise CommandError(str(error), hint="without --offline its peers are asked") from error
        except ClosedError as error:
            if isinstance(cause := error.__cause__, CoveyError):
                raise CommandError(str(cause), hint=FROZEN) from cause
            raise
    fetched = feed.progress.downloaded_blocks
    output.event(
        "done",
        f"{blocks_text(printer.blocks)}, {bytes_text(printer.bytes)}, all verified"
        + (f"; {fetched:,} fetched, the rest was here" if fetched < printer.blocks else ""),
        log=feed.key,
        start=order.start,
        blocks=printer.blocks,
        bytes=printer.bytes,
        fetched=fetched,
        length=printer.position,
    )


async def _stored(feed: Feed, start: int) -> AsyncIterator[bytes]:
    """The blocks from `start` on; raises `BlockNotAvailable` for one that is not here."""
    for index in range(start, feed.length):
        yield await feed.get(index, wait=False)


def _is_whole(feed: Feed) -> bool:
    return feed.contiguous_length == feed.length


class Printer:
    """Writes blocks, as many at once as are at hand, and counts them."""

    def __init__(self, feed: Feed, sink: Sink, *, start: int, lines: bool) -> None:
        self.position = start
        self.blocks = 0
        self.bytes = 0
        self._feed = feed
        self._sink = sink
        self._lines = lines
        self._waiting: list[bytes] = []
        self._size = 0

    async def print(self, blocks: AsyncIterator[bytes]) -> None:
        """Print the blocks that follow those printed before."""
        try:
            async for block in blocks:
                self._add(block)
                if self._size >= WRITE or not await self._feed.has(self.position):
                    await self._write()
        finally:
            await self._write()

    def _add(self, block: bytes) -> None:
        self.position += 1
        self.blocks += 1
        self.bytes += len(block)
        self._waiting.append(block)
        if self._lines and not block.endswith(b"\n"):
            self._waiting.append(b"\n")
        self._size += len(block)

    async def _write(self) -> None:
        if self._waiting:
            data = b"".join(self._waiting)
            self._waiting.clear()
            self._size = 0
            await self._sink.write(data)


class Reader:
    """Reads a log to its end, or for ever, while its peers come and go."""

    def __init__(self, feed: Feed, printer: Printer, presence: Presence, order: Order) -> None:
        self._feed = feed
        self._printer = printer
        self._presence = presence
        self._order = order

    async def run(self, network: LogNetwork, output: Output) -> None:
        """Until the end; raises `CommandError` when nobody is there for too long."""
        host, port = network.listening
        await network.join(self._feed)
        text = f"looking for peers of the log … (port {port})"
        output.event("waiting", text, log=self._feed.key, host=host, port=port)
        work = self._follow() if self._order.follow else self._catch_up(output)
        presence, limit = self._presence, self._order.timeout
        tasks = [
            asyncio.create_task(part, name=f"covey log cat {name}")
            for name, part in (
                ("read", work),
                ("watch", presence.keep(limit, network.brief)),
                ("store", presence.until_broken()),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                await task
        finally:
            await end_tasks(*tasks)

    def state(self) -> State:
        """How far it is."""
        now, printer = self._feed.progress, self._printer
        end = max(now.total, printer.position)
        if now.peers:
            state = f"{peers_text(now.peers)}, {bytes_text(now.download_rate)}/s"
        else:
            state = "waiting for a peer"
        return State(
            text=f"{printer.position:,} of {blocks_text(end)}, "
            f"{bytes_text(printer.bytes)}; {state}",
            done=printer.position,
            total=end or None,
            lonely=not self._presence.found.is_set(),
            fields={
                "position": printer.position,
                "length": now.total,
                "have": now.have,
                "bytes": printer.bytes,
                "peers": now.peers,
                "downloaded_bytes": now.downloaded_bytes,
                "download_rate": round(now.download_rate),
            },
        )

    async def _follow(self) -> None:
        await self._printer.print(self._feed.live(self._order.start))

    async def _catch_up(self, output: Output) -> None:
        """Print what is known of, ask for more, until there is no more.

        An empty log that nobody can add to is waited for: a log whose key is given has blocks.
        """
        feed, printer = self._feed, self._printer
        while True:
            if feed.length > printer.position:
                await printer.print(feed.read(printer.position, feed.length))
            try:
                newer = await feed.update(wait=True, timeout=NEWS if feed.length else None)
            except FeedTimeout:
                silent = "its peers do not answer" if feed.peers else "no peer came"
                text = f"{silent}: the log may have more than {blocks_text(feed.length)} by now"
                output.event("no-news", text, length=feed.length)
                return
            if not newer and feed.length <= printer.position and feed.length:
                return
            if not newer and not feed.length:
                await self._first_block()

    async def _first_block(self) -> None:
        """Wait for the beginning: peers are there, and have nothing yet."""
        await self._feed.get(0)
