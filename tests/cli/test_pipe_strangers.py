"""Who connects to a running pipe without being its partner: learns nothing, takes nothing away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cached_property

from covey.address import Address
from covey.cli.pipe_link import Link
from covey.keys import KeyPair
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.wire.encoding import encode_uint, raw
from covey.wire.topic_pipe import (
    CREDIT_STEP,
    DATA,
    PROTOCOL,
    SIZE,
    WINDOW,
    Hello,
)
from covey.wire.topic_proof import TopicSecret
from tests.cli.support import HOST, PATIENCE, Feed, Kept, Side, a_side
from tests.waiting import until

SECRET = TopicSecret.from_text("orchard")


async def hello_for_a_stranger(port: int) -> Hello:
    """What `port` tells somebody new who proves nothing; it is gone again then."""
    told: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    async with Endpoint() as stranger:
        connection = await stranger.dial(Address.net(HOST, port))
        channel = connection.mux.create_channel(
            PROTOCOL, handshake=raw, on_open=lambda data, _: told.set_result(bytes(data))
        )
        channel.open(bytes(32) + b"\0\0\0")
        return Hello.decode(await told)


class Remote:
    """The other end of a link, moved by hand: it keeps what it gets."""

    secret = SECRET

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.got: list[tuple[int, bytes]] = []
        self.hello: Hello | None = None

    @cached_property
    def link(self) -> Link:
        """Made late: what has come until then waits, nothing is answered."""
        assert self.connection.handshake_hash is not None
        proof = SECRET.prove(self.connection.handshake_hash, is_initiator=True)
        return Link(self, self.connection, Hello(proof), 0)

    def proven(self, link: Link, hello: Hello) -> None:
        self.hello = hello

    def refused(self, connection: Connection, why: str, advice: str = "") -> None:
        raise AssertionError(why)

    def received(self, link: Link, kind: int, payload: bytes) -> None:
        self.got.append((kind, payload))

    async def prove(self) -> Hello:
        """Say hello, and hear the other's."""
        self.link.say_hello()
        assert await self.link.until_proven(PATIENCE)
        assert self.hello is not None
        return self.hello


@asynccontextmanager
async def one_remote(side: Side) -> AsyncIterator[Callable[[], Awaitable[Remote]]]:
    """Dials the runner of `side` with one key, as often as it is called; nothing is proven yet."""
    handling: list[asyncio.Task[None]] = []

    def handle(connection: Connection) -> None:
        handling.append(asyncio.create_task(side.runner.handle(connection)))

    async with (
        Endpoint(on_connection=handle) as accepting,
        Endpoint(key_pair=KeyPair.generate()) as dialling,
        asyncio.timeout(PATIENCE),
    ):
        _, port = await accepting.listen_on(HOST)

        async def dial() -> Remote:
            before = len(handling)
            remote = Remote(await dialling.dial(Address.net(HOST, port)))
            await until(lambda: len(handling) > before)
            return remote

        yield dial
    for task in handling:
        task.cancel()
    await asyncio.gather(*handling, return_exceptions=True)


async def test_strangers_take_no_credit_from_a_running_pipe() -> None:
    """Each hello once counted as credit that the partner had been told."""
    feed, kept, total = Feed(), Kept(), 0
    async with (
        a_side(feed, Kept()) as here,
        a_side(Feed(b""), kept) as there,
        asyncio.timeout(PATIENCE),
    ):
        here.dial(there.port)
        both = asyncio.ensure_future(asyncio.gather(here.runner.run(), there.runner.run()))
        for _ in range(2 * WINDOW // CREDIT_STEP):
            feed.queue.put_nowait(bytes(CREDIT_STEP - 1))
            total += CREDIT_STEP - 1
            await kept.until(total)
            await hello_for_a_stranger(there.port)
        feed.queue.put_nowait(b"")
        await both
        assert len(kept.data) == total


async def test_a_stranger_hears_the_same_before_and_during_a_pipe() -> None:
    feed, kept = Feed(b"some bytes"), Kept()
    async with (
        a_side(feed, Kept(), size=10) as here,
        a_side(Feed(b""), kept, size=0) as there,
        asyncio.timeout(PATIENCE),
    ):
        before = [await hello_for_a_stranger(side.port) for side in (here, there)]
        here.dial(there.port)
        both = asyncio.ensure_future(asyncio.gather(here.runner.run(), there.runner.run()))
        await kept.until(10)
        during = [await hello_for_a_stranger(side.port) for side in (here, there)]
        for hello in (*before, *during):
            assert hello == Hello(hello.proof, None, 0, WINDOW)
        feed.queue.put_nowait(b"")
        await both


async def test_the_partner_is_told_the_size_once_it_has_proved_the_topic() -> None:
    async with a_side(Feed(), Kept(), size=1234) as here, one_remote(here) as dial:
        remote = await dial()
        assert (await remote.prove()).size is None
        await until(lambda: (SIZE, encode_uint(1234)) in remote.got)
        remote.link.send([(SIZE, encode_uint(77))])
        await until(lambda: here.runner.remote_size == 77)


async def test_a_link_that_waited_while_another_was_the_pipe_is_not_gone_on_with() -> None:
    """Its hello tells of a time before: the bytes of the other link would come twice."""
    kept = Kept()
    async with a_side(Feed(), kept) as here, one_remote(here) as dial:
        first, second = await dial(), await dial()
        running = asyncio.ensure_future(here.runner.run())
        await first.prove()
        first.link.send([(DATA, b"once")])
        await kept.until(4)
        first.connection.abort()
        await here.runner.lost.wait()
        second.link.say_hello()
        await second.connection.wait_closed()
        assert here.runner.lost.is_set()
        assert here.events("resumed") == []
        assert not running.done()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_the_partner_that_returns_is_told_how_far_this_side_is() -> None:
    kept = Kept()
    async with a_side(Feed(), kept, size=5) as here, one_remote(here) as dial:
        running = asyncio.ensure_future(here.runner.run())
        first = await dial()
        await first.prove()
        first.link.send([(DATA, b"once")])
        await until(lambda: here.runner.pipe.written_bytes == 4)
        first.connection.abort()
        await here.runner.lost.wait()
        second = await dial()
        hello = await second.prove()
        assert hello == Hello(hello.proof, 5, 4, WINDOW + 4)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_partner_that_sends_bytes_one_by_one_fills_no_more_memory_than_they_are() -> None:
    stalled = Kept()
    stalled.gate.clear()
    async with a_side(Feed(), stalled) as here, one_remote(here) as dial:
        running = asyncio.ensure_future(here.runner.run())
        remote = await dial()
        await remote.prove()
        for _ in range(1000):
            remote.link.send([(DATA, b"x")])
        await until(lambda: here.runner.pipe.received == 1000)
        assert len(here.runner._unwritten) <= 1
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
