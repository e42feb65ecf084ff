"""`covey hello`: two peers in one process, the whole pipeline narrated with times."""

from __future__ import annotations

import asyncio
import secrets
import sys
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import click

from covey.cli.flock_options import FlockOptions, flock_options, join, open_flock, take_options
from covey.cli.narrator import narrate
from covey.cli.output import Output
from covey.cli.runtime import CommandError, Exit, common_options, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from covey.conn.staging import StagingEvent
    from covey.events import Subscription
    from covey.net.connection import Connection

NAMES = ("ada", "bob")
PROTOCOL = "covey/hello"


@click.command("hello")
@click.option(
    "--timeout", default=15.0, show_default=True, help="Seconds the two have to find each other."
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
        return await hello(options, output, timeout)

    run(work, debug=debug)


async def hello(options: FlockOptions, output: Output, timeout: float) -> Exit:
    """Run both peers to the end; see `command`."""
    topic = f"covey hello {secrets.token_hex(4)}"
    output.event("topic", f"both  join the topic {topic!r}", topic=topic)
    greeted = {name: asyncio.Event() for name in NAMES}
    telling: list[asyncio.Task[None]] = []
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_finish, telling)
        flocks = []
        for name in NAMES:
            handler = _greeter(name, output, greeted[name])
            flock = await stack.enter_async_context(open_flock(options, handler))
            tellers = (
                narrate(flock.listen(), output, who=name),
                _tell_staging(flock.staging.listen(), output, name),
            )
            telling += [asyncio.create_task(teller, name="covey.hello.tell") for teller in tellers]
            flocks.append(flock)
        for flock in flocks:
            await join(flock, topic, options)
        try:
            async with asyncio.timeout(timeout):
                for event in greeted.values():
                    await event.wait()
        except TimeoutError:
            raise CommandError(
                f"the two did not find each other within {timeout:g} s",
                hint="does a firewall drop multicast? `covey hello --interface 127.0.0.1` uses "
                "the loopback interface alone",
                code=Exit.NOBODY,
            ) from None
        output.event("greeted", "both  have heard each other: closing")
    output.event("done", f"both  done in {output.elapsed:.3f} s, nothing left open")
    return Exit.OK


def _greeter(
    name: str, output: Output, greeted: asyncio.Event
) -> Callable[[Connection], Awaitable[None]]:
    async def greet(connection: Connection) -> None:
        from covey.wire.encoding import string

        heard: asyncio.Queue[str] = asyncio.Queue()
        channel = connection.mux.create_channel(PROTOCOL)
        if channel is None:
            return
        message = channel.add_message(string, heard.put_nowait)
        channel.open()
        message.send(f"hello from {name}")
        if not await channel.fully_opened():
            return
        output.event("channel-open", f"{name:<5} channel {PROTOCOL!r} is open", who=name)
        text = await heard.get()
        output.event("message", f"{name:<5} heard {text!r}", who=name, said=text)
        greeted.set()
        await connection.wait_closed()

    return greet


async def _tell_staging(events: Subscription[StagingEvent], output: Output, who: str) -> None:
    async with events:
        async for event in events:
            if event.type != "lagged":
                address = str(event.address)
                output.event(event.type, f"{who:<5} {event.type} {address}", who=who, peer=address)


async def _finish(tasks: list[asyncio.Task[None]]) -> None:
    """Everything is closed: the narrators read what is left and end."""
    await asyncio.gather(*tasks)
