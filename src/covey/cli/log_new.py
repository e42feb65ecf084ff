"""`covey log new`: a log of one's own."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from covey.cli.log_store import log_name, open_store, store_option, two_outputs
from covey.cli.output import Output
from covey.cli.runtime import CommandError, Exit, common_options, run


@click.command("new")
@click.argument("name", callback=log_name)
@store_option
@common_options
def command(*, name: str, folder: Path | None, as_json: bool, debug: bool) -> None:
    """Make the log NAME, which only you can append to, and print its key.

    Give the key to those who shall read it. The secret half stays in the store.
    """

    async def work() -> Exit:
        output, news = two_outputs(as_json=as_json)
        with output.needed():
            await make(name, folder, output, news)
        return Exit.OK

    run(work, debug=debug, as_json=as_json, events=sys.stdout)


async def make(name: str, folder: Path | None, output: Output, news: Output) -> None:
    """Make the log; see `command`. Raises `CommandError` when there is one with that name."""
    async with open_store(folder) as store:
        known = (await store.names()).get(name)
        if known is not None:
            feed = await store.get(discovery_key=known)
            raise CommandError(
                f"there is a log called {name!r} already, with key {feed.key.hex()}",
                hint="`covey log append NAME` adds to it",
            )
        feed = await store.get(name)
        output.event(
            "created", name=name, key=feed.key, discovery_key=feed.discovery_key, store=store.path
        )
        output.say(feed.key.hex())
        if news is not output:
            news.say(f"made the log {name!r} in {store.path}; readers need the key above")
