"""`covey log info`: what is known here of one log."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from covey.cli.log_progress import blocks_text
from covey.cli.log_store import (
    FROZEN,
    find_log,
    key_or_name,
    names_by_key,
    open_store,
    store_option,
)
from covey.cli.output import Output, bytes_text, printable
from covey.cli.runtime import Exit, common_options, run

if TYPE_CHECKING:
    from covey.store.feed import Feed


@click.command("info")
@key_or_name
@store_option
@common_options
def command(*, which: str, folder: Path | None, as_json: bool, debug: bool) -> None:
    """Show what is known here of a log: keys, length, what is here, who may write. Asks nobody."""

    async def work() -> Exit:
        output = Output(as_json=as_json, stream=sys.stdout)
        with output.needed():
            await show(which, folder, output)
        return Exit.OK

    run(work, debug=debug, as_json=as_json, events=sys.stdout)


async def show(which: str, folder: Path | None, output: Output) -> None:
    """Show it; see `command`."""
    async with open_store(folder, wanted=which) as store:
        feed = await find_log(store, which)
        name = (await names_by_key(store)).get(feed.discovery_key)
        tree_hash = await feed.tree_hash()
        now = feed.progress
        if output.as_json:
            output.event(
                "info",
                key=feed.key,
                discovery_key=feed.discovery_key,
                name=name,
                length=now.total,
                byte_length=feed.byte_length,
                have=now.have,
                contiguous=now.contiguous,
                fork=feed.fork,
                tree_hash=tree_hash,
                writable=feed.writable,
                frozen=feed.frozen,
                encrypted=feed.encryption_key is not None,
                manifest=feed.manifest,
            )
        for title, text in _lines(feed, name, tree_hash):
            output.say(f"{title:<14} {printable(text)}")


def _lines(feed: Feed, name: str | None, tree_hash: bytes) -> list[tuple[str, str]]:
    now = feed.progress
    lines = [
        ("name", name or "(none: not one of your own)"),
        ("key", feed.key.hex()),
        ("discovery key", feed.discovery_key.hex()),
        ("length", f"{blocks_text(now.total)}, {bytes_text(feed.byte_length)}"),
        ("here", f"{blocks_text(now.have)}, the first {now.contiguous:,} without a gap"),
        ("fork", str(feed.fork)),
        ("tree hash", tree_hash.hex()),
        ("writer", _writer(feed)),
    ]
    if feed.encryption_key is not None:
        lines.append(("encrypted", "yes"))
    if feed.frozen:
        lines.append(("frozen", f"{FROZEN}; nothing is added any more"))
    return lines


def _writer(feed: Feed) -> str:
    if feed.writable:
        return "you, from this store"
    manifest = feed.manifest
    if manifest is None:
        return "not known before a peer has told"
    signers = len(manifest.signers)
    if signers == 1:
        return f"whoever has the secret half of {manifest.signers[0].public_key.hex()}"
    return f"{manifest.quorum} of {signers} signers" if signers else "nobody: the log is fixed"
