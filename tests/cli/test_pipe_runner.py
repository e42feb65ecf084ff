"""Two runners over real connections: proof first, resume after a cut, every way to fail."""

from __future__ import annotations

import asyncio
import errno
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from covey.cli import pipe_runner
from covey.cli.runtime import CommandError, Exit
from covey.cli.stdio import Nothing
from covey.net.connection import Connection
from covey.wire.encoding import raw
from covey.wire.topic_pipe import KINDS, PROTOCOL, RECEIVED, TopicPipe
from tests.cli.support import PATIENCE, CuttingProxy, Feed, Kept, Side, a_side
from tests.waiting import until


@asynccontextmanager
async def two_sides(
    here: tuple[Feed | Nothing, Kept], there: tuple[Feed | Nothing, Kept]
) -> AsyncIterator[tuple[Side, Side]]:
    """Two sides of one topic, the first dials the second."""
    async with a_side(*here) as first, a_side(*there) as second, asyncio.timeout(PATIENCE):
        first.dial(second.port)
        yield first, second


async def run(*sides: Side) -> None:
    await asyncio.gather(*(side.runner.run() for side in sides))


async def test_bytes_go_both_ways_and_are_confirmed() -> None:
    kept = Kept(), Kept()
    feeds = Feed(b"from here", b""), Feed(b"from", b" there", b"")
    async with two_sides((feeds[0], kept[0]), (feeds[1], kept[1])) as sides:
        await run(*sides)
        assert (bytes(kept[0].data), bytes(kept[1].data)) == (b"from there", b"from here")
        assert [side.runner.pipe.done for side in sides] == [True, True]
        assert [len(side.events("proven")) for side in sides] == [1, 1]
        (path,) = sides[0].events("path")
        assert (path["place"], path["initiator"]) == ("this machine", True)
        assert path["key"] == sides[1].events("path")[0]["key"] or path["key"]


@pytest.mark.parametrize("reset", [True, False])
async def test_after_a_cut_no_byte_is_lost_and_none_comes_twice(reset: bool) -> None:
    rng = random.Random(1)
    wanted = [rng.randbytes(3_000_000) for _ in range(2)]
    pieces = [
        [data[at : at + 100_000] for at in range(0, len(data), 100_000)] + [b""] for data in wanted
    ]
    kept = Kept(), Kept()
    async with (
        a_side(Feed(*pieces[0]), kept[0]) as here,
        a_side(Feed(*pieces[1]), kept[1]) as there,
        CuttingProxy(there.port) as proxy,
        asyncio.timeout(PATIENCE),
    ):
        here.dial(proxy.port)
        both = asyncio.ensure_future(run(here, there))
        await proxy.until_passed(1_500_000)
        proxy.cut(reset=reset)
        await both
        assert bytes(kept[0].data) == wanted[1]
        assert bytes(kept[1].data) == wanted[0]
        assert proxy.connections == 2
        assert len(here.events("lost")) == len(here.events("resumed")) == 1


async def test_a_stranger_gets_no_byte() -> None:
    feed, kept = Feed(b"secret", b""), Kept()
    async with (
        a_side(feed, kept) as here,
        a_side(Feed(b"garbage", b""), Kept(), topic="weeds") as stranger,
        asyncio.timeout(PATIENCE),
    ):
        running = [asyncio.ensure_future(side.runner.run()) for side in (here, stranger)]
        stranger.dial(here.port)
        await until(lambda: here.events("refused") and stranger.events("refused"))
        assert here.events("refused")[0]["reason"] == "it does not know the topic"
        assert (here.runner.pipe.received, here.runner.partner) == (0, None)
        assert feed.queue.qsize() <= 2
        assert stranger.runner.pipe.received == here.runner.pipe.sent == 0
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def test_nothing_is_sent_before_the_proof_of_the_other_side() -> None:
    """A peer that opens the channel and proves nothing sees the hello and no data."""
    got: list[bytes] = []
    told = asyncio.Event()

    async def lurk(connection: Connection) -> None:
        channel = connection.mux.create_channel(
            PROTOCOL,
            handshake=raw,
            on_close=lambda *_: told.set(),
            messages=[(raw, lambda data: got.append(bytes(data))) for _ in range(KINDS)],
        )
        channel.open(bytes(32) + b"\0\0\0")
        await connection.wait_closed()

    from covey.flock.flock import Flock

    async with (
        a_side(Feed(b"secret", b""), Kept()) as here,
        Flock(lurk, discovery=False) as lurker,
        asyncio.timeout(PATIENCE),
    ):
        running = asyncio.ensure_future(here.runner.run())
        lurker.add_peer(b"pipe", ("127.0.0.1", here.port))
        await told.wait()
        assert got == []
        assert here.events("refused")[0]["reason"] == "it does not know the topic"
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_strangers_without_number_are_not_all_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipe_runner, "REFUSALS_TOLD", 2)
    async with a_side(Feed(), Kept()) as here, asyncio.timeout(PATIENCE):
        for count in range(1, 4):
            async with a_side(Feed(), Kept(), topic="weeds") as stranger:
                stranger.dial(here.port)
                await until(lambda n=count: len(here.events("refused")) == n)  # type: ignore[misc]
        assert len(here.runner._refused) == 2


@pytest.mark.parametrize("in_the_middle", [False, True])
async def test_a_third_is_told_that_the_pipe_has_its_two_ends(in_the_middle: bool) -> None:
    feeds = Feed(b"a"), Feed(b"b")
    kept = Kept(), Kept()
    async with (
        two_sides((feeds[0], kept[0]), (feeds[1], kept[1])) as (here, there),
        a_side(Feed(b"c"), Kept()) as third,
    ):
        running = [asyncio.ensure_future(side.runner.run()) for side in (here, there, third)]
        await here.runner.found.wait()
        await there.runner.found.wait()
        if in_the_middle:
            await asyncio.gather(kept[0].until(1), kept[1].until(1))
        third.dial(there.port)
        await until(lambda: third.events("busy"))
        assert not third.runner.found.is_set()
        assert third.runner.pipe.received == 0
        for feed in feeds:
            feed.queue.put_nowait(b"")
        await asyncio.gather(*running[:2])
        assert (bytes(kept[0].data), bytes(kept[1].data)) == (b"b", b"a")
        running[2].cancel()
        await asyncio.gather(running[2], return_exceptions=True)


async def test_a_sink_that_fails_ends_both_sides_with_the_reason() -> None:
    full = Kept()
    full.failure = OSError(errno.ENOSPC, "No space left on device")
    async with two_sides((Feed(b"x" * 1000), Kept()), (Feed(), full)) as sides:
        outcomes = await asyncio.gather(
            *(side.runner.run() for side in sides), return_exceptions=True
        )
    first, second = outcomes
    assert isinstance(second, CommandError)
    assert str(second) == "cannot write the output: No space left on device"
    assert isinstance(first, CommandError)
    assert first.code is Exit.LOST
    assert "gave up: cannot write the output: No space left on device" in str(first)


async def test_a_source_that_fails_ends_both_sides_with_the_reason() -> None:
    broken = Feed(b"x")
    broken.queue.put_nowait(OSError(errno.EIO, "Input/output error"))
    async with two_sides((broken, Kept()), (Feed(), Kept())) as sides:
        outcomes = await asyncio.gather(
            *(side.runner.run() for side in sides), return_exceptions=True
        )
    assert "cannot read the input: Input/output error" in str(outcomes[0])
    assert "gave up: cannot read the input" in str(outcomes[1])


async def test_a_side_that_is_interrupted_tells_the_other() -> None:
    kept = Kept()
    async with two_sides((Feed(b"x"), Kept()), (Feed(), kept)) as (here, there):
        running = asyncio.ensure_future(here.runner.run())
        other = asyncio.ensure_future(there.runner.run())
        await kept.until(1)
        running.cancel()
        with pytest.raises(CommandError, match="gave up: it was interrupted"):
            await other
        await asyncio.gather(running, return_exceptions=True)
        assert here.events("lost") == []


async def test_a_peer_that_breaks_a_rule_is_given_up() -> None:
    async with two_sides((Feed(), Kept()), (Feed(), Kept())) as (here, there):
        running = asyncio.ensure_future(here.runner.run())
        other = asyncio.ensure_future(there.runner.run())
        await here.runner.found.wait()
        await there.runner.found.wait()
        assert here.runner.link is not None
        here.runner.link.send([(RECEIVED, b"nonsense")])
        with pytest.raises(CommandError, match="broke the rules"):
            await other
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_links_that_move_nothing_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe_runner, "MAX_FRUITLESS", 2)
    gate = Kept()
    gate.gate.clear()  # nothing is written, so nothing is credited
    async with (
        a_side(Feed(b"x"), Kept()) as here,
        a_side(Feed(), gate) as there,
        CuttingProxy(there.port) as proxy,
        asyncio.timeout(PATIENCE),
    ):
        here.dial(proxy.port)
        outcomes = [asyncio.ensure_future(side.runner.run()) for side in (here, there)]
        for _ in range(2):
            await until(lambda: here.runner.link is not None)
            await until(lambda: there.runner.pipe.received > 0)
            proxy.cut(reset=True)
            await until(lambda: here.runner.link is None or outcomes[0].done())
        with pytest.raises(CommandError, match="2 connections in a row"):
            await outcomes[0]
        for task in outcomes:
            task.cancel()
        await asyncio.gather(*outcomes, return_exceptions=True)


async def test_a_partner_lost_before_a_byte_moved_may_be_another() -> None:
    kept = Kept()
    feed = Feed()
    async with a_side(feed, kept) as here, asyncio.timeout(PATIENCE):
        running = asyncio.ensure_future(here.runner.run())
        async with a_side(Feed(), Kept()) as first:
            first.dial(here.port)
            await here.runner.found.wait()
            # Its runner never runs: nothing is said when its flock is closed.
        await here.runner.parted()
        assert not here.runner.lost.is_set()
        async with a_side(Feed(b"mine", b""), Kept()) as second:
            second.dial(here.port)
            feed.queue.put_nowait(b"")
            await asyncio.gather(second.runner.run(), running)
        assert bytes(kept.data) == b"mine"


async def test_typed_input_ends_with_the_remotes_but_not_for_one_that_only_listens() -> None:
    kept = Kept()
    typed = Feed(b"one ")
    async with (
        a_side(typed, Kept(), stop_at_remote_end=True) as here,
        a_side(Nothing(), kept, size=0) as there,
        asyncio.timeout(PATIENCE),
    ):
        here.dial(there.port)
        both = asyncio.ensure_future(run(here, there))
        await kept.until(4)
        await until(lambda: here.runner.pipe.remote_confirmed)
        typed.queue.put_nowait(b"two")
        typed.queue.put_nowait(b"")
        await both
        assert bytes(kept.data) == b"one two"
    async with (
        a_side(Feed(b"typed"), Kept(), stop_at_remote_end=True) as here,
        a_side(Feed(b"all", b""), Kept()) as there,
        asyncio.timeout(PATIENCE),
    ):
        here.dial(there.port)
        await run(here, there)
        assert there.runner.pipe.received in (0, 5)


async def test_nothing_is_confirmed_into_a_link_that_is_gone() -> None:
    gate = Kept()
    gate.gate.clear()
    async with (
        a_side(Feed(b"x", b""), Kept()) as here,
        a_side(Feed(b""), gate) as there,
        CuttingProxy(there.port) as proxy,
        asyncio.timeout(PATIENCE),
    ):
        here.dial(proxy.port)
        both = asyncio.ensure_future(run(here, there))
        await until(lambda: there.runner.pipe.confirmed and there.runner.pipe.received)
        proxy.cut(reset=True)
        await there.runner.lost.wait()
        gate.gate.set()
        await gate.until(1)
        assert not there.runner.pipe.done
        await both
        assert here.events("resumed")


def test_the_state_of_a_new_pipe_is_untouched() -> None:
    assert TopicPipe().untouched
