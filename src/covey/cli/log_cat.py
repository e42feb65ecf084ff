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
from covey.cli.log_printer import Printer
from covey.cli.log_progress import State, blocks_text, peers_text, show_progress
from covey.cli.log_store import FROZEN, KEY, find_log, key_or_name, open_store, store_option
from covey.cli.output import Output, bytes_text
from covey.cli.runtime import CommandError, Exit, common_options, end_tasks, run, start_telling
from covey.cli.stdio import DescriptorWriter, widen
from covey.errors import BlockNotAvailable, ClosedError, CoveyError, FeedTimeout, FrozenError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from covey.store.feed import Feed

NEWS: Final = 5.0
"""Seconds for which peers are looked for when everything that is known of is here."""
KEPT: Final = "what came before is kept: `covey log cat KEY --offline` prints it"
STAYS: Final = "nothing is added any more; with --offline what is here is all that is asked for"


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
    fetch = not order.offline
    wanted = None if fetch and KEY.fullmatch(order.which) else order.which
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            open_store(order.folder, active=True, wanted=wanted)
        )
        feed = await find_log(store, order.which, fetch=fetch)
        stdout = sys.stdout.fileno()
        widen(stdout)
        printer = Printer(
            feed,
            DescriptorWriter(stdout),
            start=order.start,
            lines=order.lines,
            follow=order.follow,
        )
        stack.callback(feed.subscribe(printer.hear))
        presence = stack.enter_context(Presence(feed, output))
        shown = os.isatty(stdout)
        reader = Reader(feed, printer, presence, order)
        showing = start_telling(
            show_progress(reader.state, output, bar=not shown, words=not shown),
            "covey log cat show",
        )
        stack.push_async_callback(end_tasks, showing)
        if order.offline or feed.frozen or (_is_whole(feed) and feed.writable and not order.follow):
            await _print_stored(feed, printer, order)
        else:
            network = await stack.enter_async_context(open_network(store, order.options, output))
            await _print_all(reader, network, output)
    _tell_done(feed, printer, order, output)


async def _print_stored(feed: Feed, printer: Printer, order: Order) -> None:
    """What is here, when nobody is to be asked or nobody can bring more."""
    try:
        await printer.print(_stored(feed, order.start))
    except BlockNotAvailable as error:
        if feed.frozen:
            why = f"{error}, and will not come: the log is frozen, {FROZEN}"
            raise CommandError(why, hint="--from N begins after it") from error
        raise CommandError(str(error), hint="without --offline its peers are asked") from error
    if feed.frozen and not order.offline:
        raise CommandError(f"the log {feed.key.hex()} is frozen: {FROZEN}", hint=STAYS)


async def _print_all(reader: Reader, network: LogNetwork, output: Output) -> None:
    """What is here and what peers have; the log may turn out to have two histories."""
    try:
        await reader.run(network, output)
    except FrozenError as error:
        raise CommandError(str(error), hint=KEPT) from error
    except ClosedError as error:
        if isinstance(cause := error.__cause__, CoveyError):
            raise CommandError(str(cause), hint=KEPT) from cause
        raise


def _tell_done(feed: Feed, printer: Printer, order: Order, output: Output) -> None:
    fetched, length = feed.progress.downloaded_blocks, feed.length
    text = f"{blocks_text(printer.blocks)}, {bytes_text(printer.bytes)}, all verified"
    if fetched < printer.blocks:
        text += f"; {fetched:,} fetched, the rest was here"
    if order.start > length:
        text += f"; the log has only {blocks_text(length)}, none number {order.start:,}"
    output.event(
        "done",
        text,
        log=feed.key,
        start=order.start,
        blocks=printer.blocks,
        bytes=printer.bytes,
        fetched=fetched,
        length=length,
    )


async def _stored(feed: Feed, start: int) -> AsyncIterator[bytes]:
    """The blocks from `start` on; raises `BlockNotAvailable` for one that is not here."""
    for index in range(start, feed.length):
        yield await feed.get(index, wait=False)


def _is_whole(feed: Feed) -> bool:
    return feed.contiguous_length == feed.length


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
        printer, presence, limit = self._printer, self._presence, self._order.timeout
        tasks = [
            asyncio.create_task(part, name=f"covey log cat {name}")
            for name, part in (
                ("read", work),
                ("watch", presence.keep(limit, network.brief)),
                ("store", presence.until_broken()),
                ("cut", printer.until_cut()),
            )
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            printer.check()  # first: it is also why reading failed
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
                end = feed.length
                await printer.print(feed.read(printer.position, end), end=end)
            try:
                newer = await feed.update(wait=True, timeout=NEWS if feed.length else None)
            except FeedTimeout:
                silent = "its peers do not answer" if feed.peers else "no peer came"
                text = f"{silent}: the log may have more than {blocks_text(feed.length)} by now"
                output.event("no-news", text, length=feed.length)
                return
            printer.check()
            if not newer and feed.length <= printer.position and feed.length:
                return
            if not newer and not feed.length:
                await self._first_block()

    async def _first_block(self) -> None:
        """Wait for the beginning: peers are there, and have nothing yet."""
        await self._feed.get(0)
