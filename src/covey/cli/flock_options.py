"""Options of the commands that join a topic, and the flock they make of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from covey.flock.flock import Flock
    from covey.flock.topic import Topic
    from covey.net.connection import Connection

Command = TypeVar("Command", bound=Callable[..., Any])
MULTICAST_PORT = 5353


@dataclass(frozen=True, slots=True, kw_only=True)
class FlockOptions:
    """Where to look for peers and where to listen."""

    peers: tuple[str, ...] = ()
    host: str | None = None
    port: int = 0
    multicast: bool = True
    multicast_port: int = MULTICAST_PORT
    interface: str | None = None
    key_file: Path | None = None


def flock_options(command: Command) -> Command:
    """Add the options; `take_options` turns them into `FlockOptions`."""
    options = (
        click.option(
            "--peer",
            "peers",
            multiple=True,
            metavar="HOST:PORT",
            help="A peer to try besides those that are found (repeatable).",
        ),
        click.option("--host", help="Address to listen on; default: every interface."),
        click.option("--port", default=0, show_default="any free", help="TCP port to listen on."),
        click.option(
            "--multicast/--no-multicast", default=True, help="Look for peers on the local network."
        ),
        click.option(
            "--multicast-port",
            default=MULTICAST_PORT,
            show_default=True,
            help="UDP port of multicast discovery.",
        ),
        click.option("--interface", metavar="IP", help="Multicast on this interface only."),
        click.option(
            "--key",
            "key_file",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Prove the key pair of this file (see `covey id`); default: a new one each time.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def take_options(values: dict[str, Any]) -> FlockOptions:
    """Take the values of `flock_options` out of a command's arguments."""
    names = FlockOptions.__dataclass_fields__
    options = FlockOptions(**{name: values.pop(name) for name in names})
    for peer in options.peers:
        split_peer(peer)
    return options


def split_peer(text: str) -> tuple[str, int]:
    """`host:port`, with brackets around an IPv6 host; raises `click.UsageError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or not 0 < int(port) < 65536 or not host:
        raise click.UsageError(f"a peer is given as HOST:PORT, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


@asynccontextmanager
async def open_flock(
    options: FlockOptions, handler: Callable[[Connection], Awaitable[None]]
) -> AsyncIterator[Flock]:
    """A flock that will look where `options` say; closed at the end."""
    from covey.cli.identity import load_identity
    from covey.discovery.channel import Channel
    from covey.discovery.dns import DnsDiscovery
    from covey.flock.flock import Flock
    from covey.keys import KeyPair

    sources = []
    if options.multicast:
        sources.append(DnsDiscovery(port=options.multicast_port, interface=options.interface))
    key_pair = load_identity(options.key_file) if options.key_file else KeyPair.generate()
    async with (
        Channel(sources) as channel,
        Flock(handler, key_pair=key_pair, channel=channel, host=options.host) as flock,
    ):
        yield flock


async def join(
    flock: Flock, name: bytes | str, options: FlockOptions, *, announce: bool = True
) -> Topic:
    """Listen and join as `options` say, and try the peers that they name."""
    await flock.listen_on(port=options.port)
    topic = await flock.join(name, announce=announce)
    for peer in options.peers:
        flock.add_peer(name, split_peer(peer))
    return topic
