"""`covey log ls`: the logs that are kept here."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.log_progress import State, show_progress
from covey.cli.log_store import (
    default_store,
    is_store,
    names_by_key,
    open_store,
    store_option,
    two_outputs,
)
from covey.cli.output import Output, bytes_text
from covey.cli.runtime import Exit, common_options, end_tasks, run, start_telling

if TYPE_CHECKING:
    from covey.store.basestore import Basestore


@click.command("ls")
@store_option
@common_options
def command(*, folder: Path | None, as_json: bool, debug: bool) -> None:
    """List the logs of the store: key, blocks (those that are here, if not all), bytes, name."""

    async def work() -> Exit:
        output, news = two_outputs(as_json=as_json)
        with output.needed():
            await list_logs(folder, output, news)
        return Exit.OK

    run(work, debug=debug, as_json=as_json, events=sys.stdout)


async def list_logs(folder: Path | None, output: Output, news: Output) -> None:
    """One line for each log, own ones first, by name; see `command`."""
    path = folder or default_store()
    if not is_store(path):  # to look makes none
        news.say(f"no logs: there is no store in {path}; `covey log new NAME` makes one")
        return
    async with open_store(folder) as store:
        names = await names_by_key(store)
        stored = sorted(await store.list(), key=lambda key: (key not in names, names.get(key, "")))
        told = 0

        def look() -> State:
            text = f"listed {told:,} of {len(stored):,} logs"
            return State(
                text=text,
                done=told,
                total=len(stored),
                fields={"listed": told, "logs": len(stored)},
            )

        showing = start_telling(show_progress(look, news, bar=False), "covey log ls")
        try:
            for told, discovery_key in enumerate(stored):  # noqa: B007 - `look` reads it
                await _list(store, discovery_key, names.get(discovery_key, ""), output)
                await asyncio.sleep(0)
        finally:
            await end_tasks(showing)
        if not stored:
            news.say(f"no logs in {store.path}; `covey log new NAME` makes one")


async def _list(store: Basestore, discovery_key: bytes, name: str, output: Output) -> None:
    async with await store.get(discovery_key=discovery_key) as feed:
        now = feed.progress
        blocks = f"{now.total:,}" if now.have == now.total else f"{now.have:,}/{now.total:,}"
        output.say(f"{feed.key.hex()}  {blocks:>12}  {bytes_text(feed.byte_length):>8}  {name}")
        if output.as_json:
            output.event(
                "log",
                key=feed.key,
                name=name or None,
                length=now.total,
                have=now.have,
                byte_length=feed.byte_length,
                fork=feed.fork,
                writable=feed.writable,
                frozen=feed.frozen,
            )
