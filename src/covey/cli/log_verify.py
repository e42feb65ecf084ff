"""`covey log verify`: a whole log against its signature."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from covey.cli.flock_options import quiet_option
from covey.cli.log_progress import State, blocks_text, show_progress
from covey.cli.log_store import find_log, key_or_name, open_store, store_option, two_outputs
from covey.cli.output import Output, bytes_text
from covey.cli.runtime import CommandError, Exit, common_options, end_tasks, run, start_telling
from covey.errors import StoreError, VerifyError

DAMAGED = (
    "this copy is not to be trusted; a store in another --store DIR can fetch the log anew from "
    "its peers"
)


@click.command("verify")
@key_or_name
@store_option
@quiet_option
@common_options
def command(*, which: str, folder: Path | None, quiet: bool, as_json: bool, debug: bool) -> None:
    """Rehash every block that is here against the writer's signature. Asks nobody.

    Exit code 0: all of it is right; 1: something is damaged, and the message says what.
    """

    async def work() -> Exit:
        output, news = two_outputs(as_json=as_json, quiet=quiet)
        with output.needed():
            await verify(which, folder, output, news)
        return Exit.OK

    run(work, debug=debug, as_json=as_json, events=sys.stdout)


async def verify(which: str, folder: Path | None, output: Output, news: Output) -> None:
    """Verify it; see `command`."""
    async with open_store(folder, wanted=which) as store:
        feed = await find_log(store, which)
        verification = feed.verify()

        def look() -> State:
            now = verification.progress
            return State(
                text=f"verified {now.checked:,} of {blocks_text(now.length)}, "
                f"{bytes_text(now.bytes)}",
                done=now.checked,
                total=now.length or None,
                fields={"checked": now.checked, "length": now.length, "bytes": now.bytes},
            )

        showing = start_telling(show_progress(look, news), "covey log verify")
        try:
            report = await verification
        except (VerifyError, StoreError) as error:
            raise CommandError(f"the log is damaged: {error}", hint=DAMAGED) from error
        finally:
            await end_tasks(showing)
        gap = "" if report.held == report.length else f", {report.length - report.held:,} not here"
        output.event(
            "verified",
            f"the signature holds, and so do {blocks_text(report.held)}, "
            f"{bytes_text(report.bytes)}{gap}",
            log=feed.key,
            length=report.length,
            fork=report.fork,
            held=report.held,
            bytes=report.bytes,
            tree_hash=await feed.tree_hash(),
        )
