"""The signs of life of `covey pipe`: a bar on a terminal, else a line each second."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from covey.cli.output import Output, bytes_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console
    from rich.progress import Progress, TaskID

    from covey.cli.pipe_runner import PipeRunner

TICK = 1.0
"""Seconds between two signs of life."""
FRAME = 0.2
"""Seconds between two looks of the bar."""
PATIENCE = 10.0
"""Seconds after which a lone side is told what may be wrong."""
ADVICE = (
    "            nobody yet. Is the other side running with the same topic, on the same network?\n"
    "            Some networks drop multicast: then use --peer HOST:PORT on one side."
)


class Advice:
    """Told once to a side that nobody has found for `PATIENCE` seconds."""

    def __init__(self) -> None:
        self._given = False

    def due(self, runner: PipeRunner, output: Output) -> bool:
        """Whether now is the time; True only once."""
        due = not self._given and not runner.found.is_set() and output.elapsed > PATIENCE
        self._given = self._given or due
        return due


async def show_progress(runner: PipeRunner, output: Output, *, bar: bool, quiet: bool) -> None:
    """Until cancelled. `quiet`: nothing once a peer is found, for the terminal shows the data."""
    if output.quiet:
        return
    if bar and output.live:
        await _bar(runner, output)
    else:
        await _lines(runner, output, quiet=quiet)


async def ticks() -> AsyncIterator[None]:
    """One each second, the first after a second: no wait is silent for longer."""
    while True:
        await asyncio.sleep(TICK)
        yield


async def _lines(runner: PipeRunner, output: Output, *, quiet: bool) -> None:
    advice = Advice()
    async for _ in ticks():
        text = "" if quiet and runner.link is not None else state_of(runner)
        pipe = runner.pipe
        output.event(
            "progress", text, state=short_state(runner), sent=pipe.sent, received=pipe.received
        )
        if advice.due(runner, output):
            output.say(ADVICE)


def short_state(runner: PipeRunner) -> str:
    """`waiting` for a peer, `connected`, or `lost` while it may return."""
    if runner.link is not None:
        return "connected"
    return "lost" if runner.lost.is_set() else "waiting"


def state_of(runner: PipeRunner) -> str:
    """What goes on, in words."""
    pipe = runner.pipe
    if runner.lost.is_set():
        return "waiting for the other side to return …"
    if runner.link is None:
        return "still waiting for the other side …"
    parts = []
    if pipe.sent or runner.size != 0:
        parts.append(f"sent {_part(pipe.sent, runner.size)}")
        if pipe.confirmed:
            parts[-1] += " (confirmed)"
        elif pipe.ended:
            parts[-1] += " (not yet confirmed)"
    if pipe.received or runner.remote_size != 0 or not parts:
        parts.append(f"received {_part(pipe.received, runner.remote_size)}")
    return ", ".join(parts)


def _part(count: int, total: int | None) -> str:
    return bytes_text(count) + (f" of {bytes_text(total)}" if total else "")


async def _bar(runner: PipeRunner, output: Output) -> None:
    from rich.console import Console

    console = Console(file=output.stream)
    advice = Advice()
    with _progress(console) as progress:
        sending = progress.add_task("waiting", total=None)
        receiving = progress.add_task("receiving", total=None, visible=False)
        while True:
            _update(progress, sending, receiving, runner)
            if advice.due(runner, output):
                console.print(ADVICE, highlight=False)
            await asyncio.sleep(FRAME)


def _progress(console: Console) -> Progress:
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )


def _update(progress: Progress, sending: TaskID, receiving: TaskID, runner: PipeRunner) -> None:
    pipe = runner.pipe
    if runner.link is None:
        state = "waiting for its return" if runner.lost.is_set() else "waiting for the other side"
    elif pipe.ended and not pipe.confirmed:
        state = "waiting for confirmation"
    else:
        state = "sent" if pipe.confirmed else "sending"
    progress.update(
        sending,
        description=state,
        total=runner.size or None,
        completed=pipe.sent,
        visible=runner.link is None or pipe.sent > 0 or not pipe.received,
    )
    progress.update(
        receiving,
        total=runner.remote_size or None,
        completed=pipe.received,
        visible=pipe.received > 0,
    )
