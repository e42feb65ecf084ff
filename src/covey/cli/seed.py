"""`covey seed`: keep logs available, and show who has what of them."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from covey.cli.log_progress import blocks_text
from covey.cli.log_store import (
    KEY,
    default_store,
    find_log,
    is_store,
    log_named,
    names_by_key,
    open_store,
    store_option,
)
from covey.cli.output import Output
from covey.cli.progress import ticks
from covey.cli.runtime import CommandError, Exit, common_options, end_tasks, run, start_telling
from covey.cli.seed_table import Seeded, counts_text, show_table

if TYPE_CHECKING:
    from covey.store.basestore import Basestore
    from covey.store.feed import Feed


def _logs_named(
    ctx: click.Context, parameter: click.Parameter, logs: tuple[str, ...]
) -> tuple[str, ...]:
    return tuple(log_named(ctx, parameter, which) for which in logs)


@click.command("seed")
@click.argument("logs", metavar="[KEY|NAME]...", nargs=-1, callback=_logs_named)
@click.option("--for", "duration", type=Seconds(), metavar="SECONDS", help="Stop after so long.")
@store_option
@flock_options
@quiet_option
@common_options
def command(
    *,
    logs: tuple[str, ...],
    duration: float | None,
    folder: Path | None,
    quiet: bool,
    as_json: bool,
    debug: bool,
    **values: Any,
) -> None:
    """Keep the logs with these KEYs available: bring them here, follow them, serve them.

    Without a KEY every log of the store. Interrupt to stop; what came is kept. Where the output is
    no terminal, each event is a line.
    """
    options = take_options(values)

    async def work() -> Exit:
        output = Output(as_json=as_json, stream=sys.stdout, quiet=quiet)
        with output.needed():
            await seed(logs, folder, options, output, duration)
        return Exit.OK

    run(work, debug=debug, as_json=as_json, events=sys.stdout)


async def seed(
    logs: Sequence[str],
    folder: Path | None,
    options: FlockOptions,
    output: Output,
    duration: float | None = None,
) -> None:
    """Seed until `duration` is over; see `command`."""
    path = folder or default_store()
    if not logs and not is_store(path):
        raise _no_log(path)
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(
            open_store(folder, active=True, wanted=_first_named(logs))
        )
        seeded = await _find_all(store, logs)
        feeds = [one.feed for one in seeded]
        network = await stack.enter_async_context(serve(store, feeds, options, output))
        for feed in feeds:
            if not feed.writable and not feed.frozen:
                feed.download(0, -1)
        showing = start_telling(_show(seeded, network, output), "covey seed show")
        stack.push_async_callback(end_tasks, showing)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(duration):
                await asyncio.get_running_loop().create_future()
    output.event("left", f"stopped seeding {_logs_text(len(seeded))}")


def _no_log(path: object) -> CommandError:
    return CommandError(
        f"there is no log in {path}",
        hint="`covey seed KEY` brings one from its peers; `covey log new NAME` makes one",
    )


def _first_named(logs: Sequence[str]) -> str | None:
    """A log that must be here already, if all are such: for them no store is made."""
    if any(KEY.fullmatch(which) for which in logs):
        return None
    return next(iter(logs), None)


async def _find_all(store: Basestore, logs: Sequence[str]) -> list[Seeded]:
    names = await names_by_key(store)
    found: dict[bytes, Feed] = {}
    for which in logs:
        feed = await find_log(store, which, fetch=True)
        found[feed.discovery_key] = feed
    if not logs:
        for discovery_key in await store.list():
            found[discovery_key] = await store.get(discovery_key=discovery_key)
    if not found:
        raise _no_log(store.path)
    return [Seeded(feed, names.get(discovery_key, "")) for discovery_key, feed in found.items()]


@asynccontextmanager
async def serve(
    store: Basestore, feeds: Sequence[Feed], options: FlockOptions, output: Output
) -> AsyncIterator[LogNetwork]:
    """Join the topics of `feeds` and exchange them with whoever comes; tells what happens."""
    several = len(feeds) > 1
    with ExitStack() as stack:
        for feed in feeds:
            name = feed.key.hex()[:8] if several else ""
            stack.enter_context(Presence(feed, output, name=name))
        async with open_network(store, options, output, tell=not output.live) as network:
            for feed in feeds:
                await network.join(feed)
            host, port = network.listening
            text = f"seeding {_logs_text(len(feeds))} at port {port}; looking for peers"
            output.event(
                "seeding",
                "" if output.live else text,
                logs=[feed.key for feed in feeds],
                host=host,
                port=port,
            )
            yield network


async def _show(seeded: Sequence[Seeded], network: LogNetwork, output: Output) -> None:
    """How things stand, until cancelled: a table, or the sums in a line each second."""
    if output.live:
        await show_table(seeded, network, output)
        return
    complete: set[bytes] = set()
    async for _ in ticks():
        for one in seeded:
            now = one.feed.progress
            if now.total and now.have == now.total and one.feed.key not in complete:
                complete.add(one.feed.key)
                text = f"all {blocks_text(now.total)} of {one.label} are here"
                output.event("complete", text, log=one.feed.key, length=now.total)
            elif now.have < now.total:
                complete.discard(one.feed.key)
        if not output.quiet:
            output.event(
                "status", counts_text(seeded, network), logs=[one.fields() for one in seeded]
            )


def _logs_text(count: int) -> str:
    return "1 log" if count == 1 else f"{count:,} logs"
