"""The signs of life of the commands for logs: a bar on a terminal, else a line each second."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from covey.cli.output import Output
from covey.cli.progress import FRAME, PATIENCE, ticks

ADVICE = (
    "            nobody yet. Does anybody keep this log: `covey seed KEY`, or its writer with\n"
    "            `covey log append NAME --seed`? Some networks drop multicast: then use\n"
    "            --peer HOST:PORT on one side."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """How far a command is: in words, as a part of a whole (None: unknown), and as data.

    `lonely`: it waits for a peer and never had one.
    """

    text: str
    done: int = 0
    total: int | None = None
    lonely: bool = False
    fields: dict[str, object] = field(default_factory=dict)


async def show_progress(
    look: Callable[[], State], output: Output, *, bar: bool = True, words: bool = True
) -> None:
    """Show what `look` sees, until cancelled.

    `bar`: one may be drawn. Without `words` there is none of it for people, except that nobody is
    found: the terminal shows something else.
    """
    if output.quiet:
        return
    if bar and words and output.live:
        await _draw(look, output)
        return
    advised = False
    async for _ in ticks():
        state = look()
        output.event("progress", state.text if words or state.lonely else "", **state.fields)
        if state.lonely and output.elapsed > PATIENCE and not advised:
            advised = True
            output.say(ADVICE)


async def _draw(look: Callable[[], State], output: Output) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(file=output.stream)
    columns = (
        SpinnerColumn(),
        BarColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
    )
    advised = False
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        while True:
            state = look()
            progress.update(
                task, description=escape(state.text), total=state.total, completed=state.done
            )
            if state.lonely and output.elapsed > PATIENCE and not advised:
                advised = True
                console.print(ADVICE, highlight=False)
            await asyncio.sleep(FRAME)


def blocks_text(count: int) -> str:
    """`1 block`, `1,234 blocks`."""
    return "1 block" if count == 1 else f"{count:,} blocks"


def peers_text(count: int) -> str:
    """`no peer`, `1 peer`, `2 peers`."""
    return "no peer" if count == 0 else "1 peer" if count == 1 else f"{count:,} peers"
