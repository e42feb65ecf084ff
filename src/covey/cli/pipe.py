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
    Seconds,
    flock_options,
    named_topic,
    open_flock,
    quiet_option,
    report_discovery,
    take_options,
)
from covey.cli.narrator import Brief, narrate, tell_staging
from covey.cli.output import Output, bytes_text
from covey.cli.runtime import (
    CommandError,
    Exit,
    common_options,
    end_tasks,
    let_end,
    run,
    start_telling,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from covey.cli.pipe_runner import PipeRunner
    from covey.cli.stdio import Source
    from covey.wire.topic_pipe import TopicPipe
    from covey.wire.topic_proof import TopicSecret

ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"
"""Letters and digits that are not mistaken for each other when read aloud."""

NOBODY_THERE = (
    "is `covey pipe` with the same topic running on the other side, in the same network? "
    "`--peer HOST:PORT` reaches it where multicast does not"
)


def new_topic() -> str:
    """Sixteen random letters in four groups: 79 bits, more than anybody can guess."""
    letters = [secrets.choice(ALPHABET) for _ in range(16)]
    return "-".join("".join(letters[start : start + 4]) for start in range(0, 16, 4))


@click.command("pipe")
@click.argument("topic", required=False, callback=named_topic)
@click.option(
    "--timeout",
    type=Seconds(),
    metavar="SECONDS",
    help="Give up when no peer came within so many seconds.",
)
@click.option(
    "--reconnect",
    type=Seconds(),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for a peer that was lost on the way.",
)
@flock_options
@quiet_option
@common_options
def command(
    *,
    topic: str | None,
    timeout: float | None,
    reconnect: float,
    quiet: bool,
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
        output = Output(as_json=as_json, quiet=quiet)
        return await pipe(topic, options, output, timeout=timeout, reconnect=reconnect)

    run(work, debug=debug, as_json=as_json)


async def pipe(
    topic: str | None,
    options: FlockOptions,
    output: Output,
    *,
    timeout: float | None,
    reconnect: float,
) -> Exit:
    """Run one side; see `command`."""
    from covey.wire.topic_proof import TopicSecret

    made = topic is None
    topic = new_topic() if topic is None else topic
    output.event("topic", topic=topic, made=made)
    if made:
        output.say(f"On the other side type:\n\n    covey pipe {topic}\n")
    secret = await asyncio.to_thread(TopicSecret.from_text, topic)
    runner, show = _prepare(secret, output)
    brief = Brief(own_key=options.key_file is not None)
    tellers: list[asyncio.Task[None]] = []
    try:
        async with open_flock(options, runner.handle) as opened:
            flock = opened.flock
            progress = start_telling(show, "covey pipe progress")
            tellers += (
                start_telling(narrate(flock.listen(), output, brief=brief), "covey pipe tell"),
                start_telling(
                    tell_staging(flock.staging.listen(), output, brief=True), "covey pipe tell"
                ),
            )
            try:
                joined = await opened.join(secret.discovery_name)
                host, port = next(iter(flock.addresses), ("", 0))
                output.event("waiting", f"{_search(options)} … (port {port})", host=host, port=port)
                tellers.append(start_telling(report_discovery(joined, output), "covey pipe tell"))
                await _run(runner, brief, timeout, reconnect)
            finally:
                await end_tasks(progress)
    finally:
        await let_end(*tellers)
    _tell_end(runner.pipe, output)
    return Exit.OK


def _prepare(secret: TopicSecret, output: Output) -> tuple[PipeRunner, Coroutine[Any, Any, None]]:
    """The runner over stdin and stdout as they are, and what shows its progress."""
    from covey.cli.pipe_runner import PipeRunner
    from covey.cli.progress import show_progress
    from covey.cli.stdio import DescriptorReader, DescriptorWriter, Nothing, size_of, widen
    from covey.wire.topic_pipe import MAX_CHUNK

    stdin, stdout = sys.stdin.fileno(), sys.stdout.fileno()
    typed, shown = os.isatty(stdin), os.isatty(stdout)
    for descriptor in (stdin, stdout):
        widen(descriptor)
    source: Source
    size: int | None
    if typed and not shown:
        source, typed, size = Nothing(), False, 0
        output.say("the input is a terminal and the output is not: only receiving")
    else:
        size = size_of(stdin)  # before anything is read ahead
        source = DescriptorReader(stdin, chunk=MAX_CHUNK)
    if typed:
        output.say("what you type is sent line by line; Ctrl-D ends it")
    runner = PipeRunner(
        secret,
        source,
        DescriptorWriter(stdout),
        output=output,
        size=size,
        stop_at_remote_end=typed,
    )
    return runner, show_progress(runner, output, bar=not shown, quiet=shown)


def _search(options: FlockOptions) -> str:
    """How the other side is looked for."""
    if options.peers or options.multicast:
        return "looking for the other side"
    return "waiting for the other side to name this one with --peer"


def _tell_end(done: TopicPipe, output: Output) -> None:
    output.event(
        "done",
        f"done: sent {bytes_text(done.sent)}, confirmed by the other side; "
        f"received {bytes_text(done.received)}, written out",
        sent=done.sent,
        received=done.received,
    )


async def _run(runner: PipeRunner, brief: Brief, timeout: float | None, reconnect: float) -> None:
    """Run to the end, or until the partner does not come, or does not come back."""
    running = asyncio.create_task(runner.run(), name="covey pipe run")
    watching = asyncio.create_task(
        _watch(runner, brief, timeout, reconnect), name="covey pipe watch"
    )
    try:
        await asyncio.wait((running, watching), return_when=asyncio.FIRST_COMPLETED)
        await (running if running.done() else watching)
    finally:
        await end_tasks(running, watching)


async def _watch(runner: PipeRunner, brief: Brief, timeout: float | None, reconnect: float) -> None:
    """Raise when nobody comes within `timeout`, or the partner stays away for `reconnect`."""
    while True:
        try:
            async with asyncio.timeout(timeout):
                await runner.found.wait()
        except TimeoutError:
            last = runner if runner.trouble else brief
            raise CommandError(
                f"no peer came within {timeout:g} s"
                + (f"; last: {last.trouble}" if last.trouble else ""),
                hint=last.advice or NOBODY_THERE,
                code=Exit.NOBODY,
            ) from None
        await runner.parted()
        if not runner.lost.is_set():
            continue
        try:
            async with asyncio.timeout(reconnect):
                await runner.returned()
        except TimeoutError:
            raise CommandError(
                f"the peer was lost and did not return within {reconnect:g} s; "
                f"{_moved(runner.pipe)}",
                hint="start both sides again; `--reconnect SECONDS` waits longer",
                code=Exit.LOST,
            ) from None


def _moved(done: TopicPipe) -> str:
    confirmed = "confirmed" if done.confirmed else "not confirmed"
    return f"sent {bytes_text(done.sent)} ({confirmed}), received {bytes_text(done.received)}"
