"""Options of the commands that join a topic, and the flock they make of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import click

from covey.cli.runtime import CommandError
from covey.errors import ClosedError, CoveyError
from covey.flock.admission import canonical_host
from covey.host_port import is_port
from covey.wire.dns_discovery import MULTICAST_PORT

if TYPE_CHECKING:
    from covey.cli.output import Output
    from covey.flock.events import FlockEvent
    from covey.flock.flock import Flock
    from covey.flock.topic import Topic
    from covey.net.connection import Connection

Command = TypeVar("Command", bound=Callable[..., Any])
Given = TypeVar("Given", bound=str | tuple[str, ...] | None)
NAMED_AGAIN = 5.0
"""Seconds after which a named peer that was given up is tried again."""


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
            callback=some_text,
            help="A peer to try besides those that are found (repeatable).",
        ),
        click.option(
            "--host",
            callback=some_text,
            help="Address to listen on; default: every interface.",
        ),
        click.option(
            "--port",
            type=click.IntRange(0, 65535),
            default=0,
            show_default="any free",
            help="TCP port to listen on.",
        ),
        click.option(
            "--multicast/--no-multicast", default=True, help="Look for peers on the local network."
        ),
        click.option(
            "--multicast-port",
            type=click.IntRange(1, 65535),
            default=MULTICAST_PORT,
            show_default=True,
            help="UDP port of multicast discovery.",
        ),
        click.option(
            "--interface",
            metavar="NAME|IP",
            callback=some_text,
            help="Multicast on this network interface only (`lo` or 127.0.0.1: this machine).",
        ),
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


class Seconds(click.FloatRange):
    """A time of 0 or more; a number that is none (`nan`) and one without end are wrong usage."""

    def __init__(self) -> None:
        super().__init__(min=0)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; raises `click.BadParameter`."""
        seconds = float(super().convert(value, param, ctx))
        if not math.isfinite(seconds):
            self.fail(f"{value!r} is not a number of seconds.", param, ctx)
        return seconds


quiet_option: Final = click.option(
    "--quiet", is_flag=True, help="No sign of life each second of a wait."
)


def named_topic(ctx: click.Context, parameter: click.Parameter, topic: str | None) -> str | None:
    """The topic as it was given; raises `click.BadParameter` for an empty one, or no text."""
    if topic == "":
        raise click.BadParameter("a topic needs at least one character", ctx, parameter)
    return some_text(ctx, parameter, topic)


def some_text(ctx: click.Context, parameter: click.Parameter, given: Given) -> Given:
    """What was given, one or several; raises `click.BadParameter` where bytes are no UTF-8.

    Such bytes come as half characters, which no name and no address can have.
    """
    for text in () if given is None else (given,) if isinstance(given, str) else tuple(given):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise click.BadParameter(f"{text!r} is no valid UTF-8", ctx, parameter) from None
    return given


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
    if not colon or not port.isdecimal() or not is_port(int(port)) or not host:
        raise click.UsageError(f"a peer is given as HOST:PORT, not {text!r}")
    return host.removeprefix("[").removesuffix("]"), int(port)


@asynccontextmanager
async def open_flock(
    options: FlockOptions, handler: Callable[[Connection], Awaitable[None]] | None
) -> AsyncIterator[OpenFlock]:
    """A flock that will look where `options` say; closed at the end.

    Without a `handler` connections stay open for whoever takes them from the flock's events.

    Raises `CommandError` when the key file cannot be used, or the one interface is missing.
    """
    from covey.cli.identity import load_identity
    from covey.discovery.channel import Channel
    from covey.discovery.dns import DnsDiscovery
    from covey.flock.flock import Flock
    from covey.keys import KeyPair

    sources = []
    if options.multicast:
        _check_interface(options)
        sources.append(DnsDiscovery(port=options.multicast_port, interface=options.interface))
    key_pair = load_identity(options.key_file) if options.key_file else KeyPair.generate()
    async with (
        Channel(sources) as channel,
        Flock(handler, key_pair=key_pair, channel=channel, host=options.host) as flock,
    ):
        with NamedPeers(flock, [split_peer(peer) for peer in options.peers]) as named:
            yield OpenFlock(flock, named, options.port)


def _check_interface(options: FlockOptions) -> None:
    """Without its only way to others a command would wait for nothing: say so at once."""
    from covey.discovery.interfaces import ipv4_interfaces, named_interface

    wanted = options.interface
    if wanted is None or options.peers or named_interface(wanted) is not None:
        return
    there = ", ".join(one.name for one in ipv4_interfaces()) or "none that the system tells of"
    raise CommandError(
        f"there is no network interface {wanted} with an IPv4 address",
        hint=f"`--interface` may name: {there}; `--peer HOST:PORT` does without multicast",
    )


@dataclass(frozen=True, slots=True)
class OpenFlock:
    """A flock made of options, and the peers that they name."""

    flock: Flock
    named: NamedPeers
    port: int

    async def join(self, name: bytes | str, *, announce: bool = True) -> Topic:
        """Listen and join as the options say, and try the peers that they name, again and again."""
        await self.flock.listen_on(port=self.port)
        topic = await self.flock.join(name, announce=announce)
        self.named.seek(name)
        return topic


class NamedPeers:
    """Has a flock try the peers that the user named: those that it gives up are named again.

    A context manager; after it no timer is left.
    """

    def __init__(self, flock: Flock, peers: Sequence[tuple[str, int]]) -> None:
        self._flock = flock
        self._peers = {(canonical_host(host), port): (host, port) for host, port in peers}
        self._name: bytes | str = b""
        self._timers: dict[tuple[str, int], asyncio.TimerHandle] = {}
        self._unsubscribe: Callable[[], None] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    @property
    def waiting(self) -> int:
        """How many will be named again."""
        return len(self._timers)

    def seek(self, name: bytes | str) -> None:
        """Try all of them for the topic `name`, from now on."""
        self._name = name
        self._unsubscribe = self._flock.subscribe(self._look)
        for peer in self._peers.values():
            self._flock.add_peer(name, peer)

    def _look(self, event: FlockEvent) -> None:
        if event.type != "drop":
            return
        place = canonical_host(event.peer.host), event.peer.port
        if place in self._peers and place not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[place] = loop.call_later(NAMED_AGAIN, self._again, place)

    def _again(self, place: tuple[str, int]) -> None:
        del self._timers[place]
        self._flock.add_peer(self._name, self._peers[place])


async def report_discovery(topic: Topic, output: Output) -> None:
    """Say when the first round of discovery is over, and what failed in it."""
    try:
        first = await topic.flushed()
    except ClosedError:
        return
    except (CoveyError, OSError) as error:
        text = f"cannot look for peers on the local network: {error}"
        output.event("discovery-failed", text, error=error)
        return
    output.event("flushed", failed=first.failed, succeeded=first.succeeded)
