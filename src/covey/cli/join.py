"""`covey join`: who is there under a topic, as a table that updates in place."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click

from covey.cli.flock_options import (
    FlockOptions,
    Seconds,
    flock_options,
    named_topic,
    open_flock,
    quiet_option,
    report_discovery,
    take_options,
)
from covey.cli.narrator import narrate, tell_staging
from covey.cli.output import Output, bytes_text, key_text
from covey.cli.progress import ticks
from covey.cli.runtime import Exit, common_options, end_tasks, let_end, run, start_telling
from covey.host_port import show

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from rich.table import Table

    from covey.flock.flock import Flock
    from covey.flock.view import FlockEntry
    from covey.net.connection import Connection

LOOKING = "nobody found yet; asking at 0, 1 and 3 s, then once a minute; always listening"
REFRESH = 0.5
"""Seconds between two looks at the byte counters; states change at once."""


@click.command("join")
@click.argument("topic", callback=named_topic)
@click.option(
    "--for",
    "duration",
    type=Seconds(),
    metavar="SECONDS",
    help="Leave after so long.",
)
@click.option("--look-only", is_flag=True, help="Find others without being found.")
@flock_options
@quiet_option
@common_options
def command(
    *,
    topic: str,
    duration: float | None,
    look_only: bool,
    quiet: bool,
    as_json: bool,
    debug: bool,
    **values: Any,
) -> None:
    """Join TOPIC and watch: discovered, staged, connecting, connected, and why not.

    Interrupt to leave. Where the output is no terminal, each event is a line.
    """
    options = take_options(values)

    async def work() -> Exit:
        output = Output(as_json=as_json, stream=sys.stdout, quiet=quiet)
        with output.needed():
            await watch(topic, options, output, duration, announce=not look_only)
        return Exit.OK

    run(work, debug=debug, as_json=as_json, events=sys.stdout)


async def watch(
    topic: str,
    options: FlockOptions,
    output: Output,
    duration: float | None = None,
    *,
    announce: bool = True,
) -> None:
    """Join and show what happens until `duration` is over; see `command`."""
    async with AsyncExitStack() as stack:
        tellers: list[asyncio.Task[None]] = []
        stack.push_async_callback(_tell_rest, tellers)  # the last to be called: all is closed then
        opened = await stack.enter_async_context(open_flock(options, _stay))
        flock = opened.flock
        tellers += (start_telling(work, "covey join tell") for work in _tells(flock, output))
        showing = start_telling(_show(flock, topic, output), "covey join show")
        stack.push_async_callback(end_tasks, showing)
        joined = await opened.join(topic, announce=announce)
        host, port = next(iter(flock.addresses), ("", 0))
        text = f"joined {topic!r} at port {port}; looking for others"
        output.event("joined", "" if output.live else text, topic=topic, host=host, port=port)
        tellers.append(start_telling(report_discovery(joined, output), "covey join round"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(duration):
                await asyncio.get_running_loop().create_future()
    output.event("left", f"left {topic!r}", topic=topic)


async def _stay(connection: Connection) -> None:
    """Keep a connection, and its muxer ready, until the peer ends it."""
    connection.mux  # noqa: B018 - made here: it answers what the peer opens
    await connection.wait_closed()


async def _tell_rest(tellers: list[asyncio.Task[None]]) -> None:
    await let_end(*tellers)


def _tells(flock: Flock, output: Output) -> list[Coroutine[Any, Any, None]]:
    """Who tells each event, to the last one; the table shows states instead."""
    if output.live:
        return []
    return [narrate(flock.listen(), output), tell_staging(flock.staging.listen(), output)]


def _show(flock: Flock, topic: str, output: Output) -> Coroutine[Any, Any, None]:
    """How things stand, until cancelled."""
    return _show_table(flock, topic, output) if output.live else _tell_counts(flock, output)


async def _tell_counts(flock: Flock, output: Output) -> None:
    if output.quiet:
        return
    async for _ in ticks():
        counts = {
            "staged": len(flock.staging),
            "queued": flock.queued,
            "connecting": flock.connecting,
            "connected": flock.connected,
        }
        text = ", ".join(f"{count} {what}" for what, count in counts.items())
        output.event("status", text, **counts)


async def _show_table(flock: Flock, topic: str, output: Output) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console(file=output.stream)
    with (
        Live(_table(flock, topic), console=console, auto_refresh=False) as live,
        flock.live_entries() as states,
    ):
        while not flock.closed:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REFRESH):
                    await anext(states, None)
            live.update(_table(flock, topic), refresh=True)


def _table(flock: Flock, topic: str) -> Table:
    from rich.markup import escape
    from rich.table import Table

    entries = flock.entries()
    port = flock.addresses[0][1] if flock.addresses else "…"
    table = Table(
        title=f"{escape(topic)} · port {port} · {len(flock.staging)} staged · "
        f"{flock.queued} queued · {flock.connecting} connecting · {flock.connected} connected",
        title_justify="left",
        caption=None if entries else LOOKING,
        caption_justify="left",
    )
    for heading in ("peer", "found by", "state", "key", "in", "out", "what happened"):
        table.add_column(heading, overflow="fold")
    for entry in entries:
        connection = entry.connection
        table.add_row(
            show(entry.peer.host, entry.peer.port),
            entry.peer.source or "it called us",
            str(entry.state),
            key_text(connection.remote_key) if connection else "",
            bytes_text(connection.bytes_read) if connection else "",
            bytes_text(connection.bytes_written) if connection else "",
            escape(_what_happened(flock, entry)),
        )
    return table


def _what_happened(flock: Flock, entry: FlockEntry) -> str:
    """The last step; with the failure before it, where one is waited out."""
    from covey.conn.story import Failure

    if entry.connection is None:
        last = flock.explain(entry.peer).lines[-1:]
        failure = last[0].fields.get("error") if last else None
        if isinstance(failure, Failure):
            return f"{failure.text}; {entry.text}"
    return entry.text
