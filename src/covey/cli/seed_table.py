"""What `covey seed` shows of each log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from covey.cli.log_network import LogNetwork
from covey.cli.log_progress import blocks_text, peers_text
from covey.cli.output import Output, bytes_text, key_text

if TYPE_CHECKING:
    from rich.table import Table

    from covey.store.feed import Feed

REFRESH = 0.5
"""Seconds between two looks."""
MOST_ROWS = 40
"""Logs that a table shows: those with the most traffic."""


@dataclass(frozen=True, slots=True)
class Seeded:
    """A log that is seeded; `name` is empty for one that is not one's own."""

    feed: Feed
    name: str

    @property
    def label(self) -> str:
        """What to call it."""
        return self.name or key_text(self.feed.key)

    @property
    def state(self) -> str:
        """In a word or two."""
        now = self.feed.progress
        if self.feed.frozen:
            return "frozen: its writer signed two histories"
        if not now.total:
            return "empty" if now.peers or self.feed.writable else "nobody has it yet"
        if now.have == now.total:
            return "complete"
        return "fetching" if now.peers else "waiting for a peer"

    def fields(self) -> dict[str, object]:
        """It as data."""
        now = self.feed.progress
        return {
            "log": self.feed.key,
            "name": self.name,
            "length": now.total,
            "have": now.have,
            "byte_length": now.byte_length,
            "peers": now.peers,
            "downloaded_bytes": now.downloaded_bytes,
            "uploaded_bytes": now.uploaded_bytes,
            "download_rate": round(now.download_rate),
            "upload_rate": round(now.upload_rate),
            "state": self.state,
        }


def counts_text(seeded: Sequence[Seeded], network: LogNetwork) -> str:
    """The sums in a line."""
    states = [one.feed.progress for one in seeded]
    have, total = sum(now.have for now in states), sum(now.total for now in states)
    return (
        f"{have:,} of {blocks_text(total)}, {peers_text(network.peers)}, "
        f"in {bytes_text(sum(now.download_rate for now in states))}/s, "
        f"out {bytes_text(sum(now.upload_rate for now in states))}/s"
    )


async def show_table(seeded: Sequence[Seeded], network: LogNetwork, output: Output) -> None:
    """A table that is redrawn until this is cancelled."""
    from rich.console import Console
    from rich.live import Live

    console = Console(file=output.stream)
    with Live(table_of(seeded, network), console=console, auto_refresh=False) as live:
        while True:
            await asyncio.sleep(REFRESH)
            live.update(table_of(seeded, network), refresh=True)


def table_of(seeded: Sequence[Seeded], network: LogNetwork) -> Table:
    """How things stand."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(
        title=f"port {network.listening[1]} · {counts_text(seeded, network)}",
        title_justify="left",
        caption=f"and {len(seeded) - MOST_ROWS:,} more" if len(seeded) > MOST_ROWS else None,
        caption_justify="left",
    )
    for heading in ("log", "length", "have", "peers", "in", "out", "state"):
        table.add_column(heading, justify="left" if heading in {"log", "state"} else "right")
    rows = [(one, one.feed.progress) for one in seeded]
    if len(rows) > MOST_ROWS:
        rows.sort(key=lambda row: -(row[1].download_rate + row[1].upload_rate + row[1].peers))
    for one, now in rows[:MOST_ROWS]:
        share = f" ({now.have * 100 // now.total} %)" if now.total else ""
        table.add_row(
            escape(one.label),
            f"{now.total:,}",
            f"{now.have:,}{share}",
            str(now.peers),
            f"{bytes_text(now.download_rate)}/s",
            f"{bytes_text(now.upload_rate)}/s",
            one.state,
        )
    return table
