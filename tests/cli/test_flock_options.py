"""The peers that a user names: tried, named again when they are given up; no timer is left."""

from __future__ import annotations

import asyncio

import click
import pytest

from covey.cli import flock_options
from covey.cli.flock_options import FlockOptions, NamedPeers, open_flock, split_peer
from covey.flock import policy
from covey.net.connection import Connection
from tests.cli.support import HOST
from tests.flock.support import HandClock, Recorder, quiet_flock, refused_port


async def stay(connection: Connection) -> None:
    await connection.wait_closed()


async def give_up(events: Recorder, clock: HandClock) -> None:
    """Let every attempt fail until the one candidate is dropped."""
    for attempt, wait in enumerate(policy.RETRY_WAITS, 1):
        await events.seen("connect-failed", attempt)
        clock.turn(wait)
    await events.seen("drop")


async def test_a_named_peer_that_was_given_up_is_named_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flock_options, "NAMED_AGAIN", 0.0)
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        with NamedPeers(flock, [(HOST, port)]) as named:
            named.seek("x")
            await give_up(events, clock)
            assert named.waiting == 1
            assert (await events.seen("peer", 2)).peer.port == port
            assert named.waiting == 0


async def test_no_timer_of_a_named_peer_is_left() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        with NamedPeers(flock, [(HOST, port)]) as named:
            named.seek("x")
            await give_up(events, clock)
            (timer,) = named._timers.values()
        assert named.waiting == 0
        assert timer.cancelled()


async def test_a_peer_that_nobody_named_is_not_named_again() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        with NamedPeers(flock, [(HOST, 1)]) as named:
            named.seek("y")
            flock.remove_peer("y", (HOST, 1))
            flock.add_peer("x", (HOST, port))
            async with asyncio.timeout(10):
                for attempt, wait in enumerate(policy.RETRY_WAITS, 1):
                    await events.until(
                        lambda n=attempt: (  # type: ignore[misc]
                            sum(e.peer.port == port for e in events.named("connect-failed")) == n
                        )
                    )
                    clock.turn(wait)
            await events.until(lambda: any(e.peer.port == port for e in events.named("drop")))
            assert named.waiting == 0


async def test_the_flock_of_the_options_holds_the_named_peers() -> None:
    async with refused_port() as port:
        options = FlockOptions(peers=(f"{HOST}:{port}",), host=HOST, multicast=False)
        async with open_flock(options, stay) as opened:
            events = Recorder(opened.flock)
            await opened.join("x")
            assert (await events.seen("connecting")).peer.port == port
        assert opened.flock.closed
        assert opened.named.waiting == 0


@pytest.mark.parametrize(
    ("text", "peer"),
    [("a.example:5", ("a.example", 5)), ("[::1]:65535", ("::1", 65535)), ("1.2.3.4:1", None)],
)
def test_a_peer_is_given_as_host_and_port(text: str, peer: tuple[str, int] | None) -> None:
    assert split_peer(text) == (peer or ("1.2.3.4", 1))


@pytest.mark.parametrize("text", ["", "a", "a:", ":5", "a:0", "a:65536", "a:-1", "a:x"])
def test_anything_else_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.UsageError, match="HOST:PORT"):
        split_peer(text)
