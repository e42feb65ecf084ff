"""`covey hello`: two peers in one process, the whole pipeline narrated with times."""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from covey.cli.flock_options import FlockOptions, Seconds, flock_options, open_flock, take_options
from covey.cli.narrator import narrate, tell_staging
from covey.cli.output import Output
from covey.cli.progress import ticks
from covey.cli.runtime import (
    CommandError,
    Exit,
    common_options,
    end_tasks,
    let_end,
    run,
    start_telling,
)
from covey.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from covey.net.connection import Connection

NAMES = ("ada", "bob")
PROTOCOL = "covey/hello"


@click.command("hello")
@click.option(
    "--timeout",
    type=Seconds(),
    default=15.0,
    show_default=True,
    metavar="SECONDS",
    help="How long the two may take to find each other.",
)
@flock_options
@common_options
def command(timeout: float, as_json: bool, debug: bool, **values: Any) -> None:
    """Let two peers in this process find each other, connect and say hello.

    Everything that a real pair of machines does happens here: discovery by topic, staging,
    dialling, the encrypted handshake, a channel, messages, an orderly end.
    """
    options = take_options(values)

    async def work() -> Exit:
        output = Output(as_json=as_json, stream=sys.stdout)
        with output.needed():
            return await hello(options, output, timeout)

    run(work, debug=debug, as_json=as_json, events=sys.stdout)


async def hello(options: FlockOptions, output: Output, timeout: float) -> Exit:
    """Run both peers to the end; see `command`."""
    topic = f"covey hello {secrets.token_hex(4)}"
    output.event("topic", f"both  join the topic {topic!r}", topic=topic)
    loop = asyncio.get_running_loop()
    greeted: dict[str, asyncio.Future[None]] = {name: loop.create_future() for name in NAMES}
    telling: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_finish, telling)  # the last to be called: all is closed then
        flocks = []
        for name, own in zip(NAMES, _apart(options), strict=True):
            handler = _greeter(name, output, greeted[name])
            opened = await stack.enter_async_context(open_flock(own, handler))
            flock = opened.flock
            tellers = (
                narrate(flock.listen(), output, who=name),
                tell_staging(flock.staging.listen(), output, who=name),
            )
            telling += [start_telling(teller, "covey hello tell") for teller in tellers]
            flocks.append(opened)
        for opened in flocks:
            await opened.join(topic)
        if not options.multicast and (places := flocks[1].flock.addresses):
            flocks[0].flock.add_peer(topic, (options.host or "127.0.0.1", places[0][1]))
        await _all_greeted(greeted, output, timeout)
        output.event("greeted", "both  have heard each other: closing")
    output.event("done", f"both  done in {output.elapsed:.3f} s, nothing left open")
    return Exit.OK


def _apart(options: FlockOptions) -> tuple[FlockOptions, FlockOptions]:
    """Two peers cannot share a port, and with one key they would be the same peer."""
    return options, replace(options, port=0, key_file=None)


async def _all_greeted(
    greeted: dict[str, asyncio.Future[None]], output: Output, timeout: float
) -> None:
    waiting = asyncio.create_task(_tell_waiting(output), name="covey hello wait")
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(*greeted.values())
    except TimeoutError:
        raise CommandError(
            f"the two did not find each other within {timeout:g} s",
            hint="does a firewall drop multicast? `covey hello --interface lo` stays on this "
            "machine, `covey hello --no-multicast` does without",
            code=Exit.NOBODY,
        ) from None
    finally:
        await end_tasks(waiting)


async def _tell_waiting(output: Output) -> None:
    async for _ in ticks():
        output.event("progress", "both  still looking for each other …")


def _greeter(
    name: str, output: Output, greeted: asyncio.Future[None]
) -> Callable[[Connection], Awaitable[None]]:
    async def greet(connection: Connection) -> None:
        try:
            await _greet(name, connection, output)
        except ClosedError:
            return  # a second connection was kept instead, or the other side is through
        except Exception as error:
            if not greeted.done():
                greeted.set_exception(error)
            raise
        if not greeted.done():
            greeted.set_result(None)
        await connection.wait_closed()

    return greet


async def _greet(name: str, connection: Connection, output: Output) -> None:
    """Open a channel, say hello and hear the other's; raises `ClosedError`."""
    from covey.wire.encoding import string

    heard: asyncio.Queue[str] = asyncio.Queue()
    channel = connection.mux.create_channel(PROTOCOL)
    message = channel.add_message(string, heard.put_nowait)
    channel.open()
    message.send(f"hello from {name}")
    if not await channel.fully_opened():
        raise ClosedError("the channel was not opened by the other side")
    output.event("channel-open", f"{name:<5} channel {PROTOCOL!r} is open", who=name)
    text = await heard.get()
    output.event("message", f"{name:<5} heard {text!r}", who=name, said=text)


async def _finish(tasks: list[asyncio.Task[None]]) -> None:
    await let_end(*tasks)
