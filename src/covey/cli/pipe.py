"""`covey pipe`: stdin of one side to stdout of the other, both ways."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from typing import TYPE_CHECKING, Any

import click

from covey.cli.flock_options import (
    FlockOptions,
    flock_options,
    join,
    open_flock,
    take_options,
)
from covey.cli.narrator import narrate
from covey.cli.output import Output, bytes_text
from covey.cli.runtime import CommandError, Exit, common_options, run

if TYPE_CHECKING:
    from covey.cli.pipe_runner import PipeRunner, Source

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters and digits that are not mistaken for each other when read aloud."""
TICK = 1.0
"""Seconds between two signs of life."""
PATIENCE = 10.0
"""Seconds after which a lone side is told what may be wrong."""


def new_topic() -> str:
    """Sixteen random letters in four groups: 79 bits, more than anybody can guess."""
    letters = [secrets.choice(ALPHABET) for _ in range(16)]
    return "-".join("".join(letters[start : start + 4]) for start in range(0, 16, 4))


@click.command("pipe")
@click.argument("topic", required=False)
@click.option("--timeout", type=float, help="Give up when no peer came within so many seconds.")
@click.option(
    "--reconnect",
    type=float,
    default=30.0,
    show_default=True,
    help="Seconds to wait for a peer that was lost on the way.",
)
@flock_options
@common_options
def command(
    topic: str | None,
    timeout: float | None,
    reconnect: float,
    as_json: bool,
    debug: bool,
    **values: Any,
) -> None:
    """Send stdin to a peer's stdout, and the peer's stdin to ours.

    Both sides name the same TOPIC; without one a topic is made and the line for the other side is
    printed. Only a peer that knows the topic gets a byte, and everything is encrypted. Ends when
    both sides reached the end of their input and confirmed what they got. Everything but the
    piped bytes goes to stderr.
    """
    options = take_options(values)

    async def work() -> Exit:
        return await pipe(topic, options, timeout=timeout, reconnect=reconnect, as_json=as_json)

    run(work, debug=debug)


async def pipe(
    topic: str | None,
    options: FlockOptions,
    *,
    timeout: float | None,
    reconnect: float,
    as_json: bool,
) -> Exit:
    """Run one side; see `command`."""
    from covey.cli.pipe_runner import Nothing, PipeRunner
    from covey.cli.stdio import DescriptorReader, DescriptorWriter, size_of
    from covey.wire.topic_pipe import MAX_CHUNK
    from covey.wire.topic_proof import TopicSecret

    output = Output(as_json=as_json)
    if topic is None:
        topic = new_topic()
        output.event("topic", topic=topic)
        output.say(f"On the other side type:\n\n    covey pipe {topic}\n")
    secret = await asyncio.to_thread(TopicSecret.from_text, topic)
    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    typed = os.isatty(stdin)
    source: Source
    if typed and not os.isatty(stdout):
        source, typed = Nothing(), False
        output.say("input is a terminal and output is not: only receiving")
    else:
        source = DescriptorReader(stdin, chunk=MAX_CHUNK)
    runner = PipeRunner(
        secret,
        source,
        DescriptorWriter(stdout),
        output=output,
        size=None if typed else size_of(stdin),
        stop_at_remote_end=typed,
    )
    async with open_flock(options, runner.handle) as flock:
        narrator = asyncio.create_task(
            narrate(flock.listen(), output, brief=True), name="covey.pipe.narrate"
        )
        ticker = asyncio.create_task(_tick(runner, output), name="covey.pipe.tick")
        try:
            await join(flock, secret.discovery_name, options)
            output.event(
                "waiting", "looking for the other side …", port=(flock.address or (0, 0))[1]
            )
            await _run(runner, timeout, reconnect)
        finally:
            for task in (narrator, ticker):
                task.cancel()
            await asyncio.gather(narrator, ticker, return_exceptions=True)
    pipe_ = runner.pipe
    output.event(
        "done",
        f"done: sent {bytes_text(pipe_.sent)}, confirmed by the other side; "
        f"received {bytes_text(pipe_.received)}, written out",
        sent=pipe_.sent,
        received=pipe_.received,
        rate=(pipe_.sent + pipe_.received) / max(output.elapsed, 1e-9),
    )
    return Exit.OK


async def _run(runner: PipeRunner, timeout: float | None, reconnect: float) -> None:
    """Run to the end, or until the partner does not come, or does not come back."""
    running = asyncio.create_task(runner.run(), name="covey.pipe.run")
    watching = asyncio.create_task(_watch(runner, timeout, reconnect), name="covey.pipe.watch")
    try:
        await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
        await (running if running.done() else watching)
    finally:
        for task in (running, watching):
            task.cancel()
        await asyncio.gather(running, watching, return_exceptions=True)


async def _watch(runner: PipeRunner, timeout: float | None, reconnect: float) -> None:
    """Raise when nobody comes within `timeout`, or the partner stays away for `reconnect`."""
    try:
        async with asyncio.timeout(timeout):
            await runner.found.wait()
    except TimeoutError:
        raise CommandError(
            f"no peer came within {timeout:g} s",
            hint="is `covey pipe` with the same topic running on the other side, in the same "
            "network? `--peer HOST:PORT` reaches it where multicast does not",
            code=Exit.NOBODY,
        ) from None
    while True:
        await runner.lost.wait()
        try:
            async with asyncio.timeout(reconnect):
                await runner.returned()
        except TimeoutError:
            sent, received = runner.pipe.sent, runner.pipe.received
            raise CommandError(
                f"the peer was lost and did not return within {reconnect:g} s; "
                f"sent {bytes_text(sent)} (not confirmed), received {bytes_text(received)}",
                hint="start both sides again; `--reconnect SECONDS` waits longer",
                code=Exit.LOST,
            ) from None


async def _tick(runner: PipeRunner, output: Output) -> None:
    """A sign of life at least every second: a bar on a terminal, else lines that thin out."""
    if output.as_json or not output.stream.isatty():
        await _tick_lines(runner, output)
    else:
        await _tick_bar(runner, output)


async def _tick_lines(runner: PipeRunner, output: Output) -> None:
    pause = TICK
    advised = False
    moved = -1
    while True:
        await asyncio.sleep(pause)
        pipe = runner.pipe
        if pipe.sent + pipe.received != moved or output.as_json:
            moved, pause = pipe.sent + pipe.received, TICK
        else:
            pause = min(pause * 2, PATIENCE)
        text = (
            f"sent {bytes_text(pipe.sent)}, received {bytes_text(pipe.received)}"
            if runner.link is not None
            else "still waiting for the other side …"
        )
        output.event("progress", text, sent=pipe.sent, received=pipe.received)
        if not runner.found.is_set() and output.elapsed > PATIENCE and not advised:
            advised = True
            output.say(ADVICE)


ADVICE = (
    "            nobody yet. Is the other side running with the same topic, on the same network?\n"
    "            Some networks drop multicast: then use --peer HOST:PORT on one side."
)


async def _tick_bar(runner: PipeRunner, output: Output) -> None:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    console = Console(file=output.stream)
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    advised = False
    with progress:
        sending = progress.add_task("waiting", total=None)
        receiving = progress.add_task("receiving", total=None, visible=False)
        while True:
            pipe = runner.pipe
            state = "sending" if runner.link is not None else "waiting for the other side"
            progress.update(
                sending, description=state, total=runner.size or None, completed=pipe.sent
            )
            progress.update(
                receiving,
                total=runner.remote_size or None,
                completed=pipe.received,
                visible=pipe.received > 0,
            )
            if not runner.found.is_set() and output.elapsed > PATIENCE and not advised:
                advised = True
                console.print(ADVICE, highlight=False)
            await asyncio.sleep(TICK / 5)
