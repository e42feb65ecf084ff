"""A muxer on a real connection that ends: nothing that was sent is lost, nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from covey.address import Address
from covey.conn.hub import Hub
from covey.conn.hub_events import Connected
from covey.errors import CoveyError
from covey.flock.flock import Flock
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.wire.encoding import uint
from tests.net.mux_pipes import FOO, create, recorded


@pytest.mark.parametrize("how", ["close", "end"])
async def test_what_a_channel_sent_in_the_turn_of_the_close_arrives(how: str) -> None:
    heard: list[int] = []
    over = asyncio.Event()

    def serve(connection: Connection) -> None:
        channel = connection.mux.create_channel("last", messages=[(uint, heard.append)])
        channel.open()
        connection.on_close(lambda _: over.set())

    async with (
        Endpoint(key_pair=KeyPair.generate(), on_connection=serve, owns_connections=True) as server,
        Endpoint(key_pair=KeyPair.generate(), owns_connections=True) as client,
    ):
        host, port = await server.listen_on("127.0.0.1")
        connection = await client.dial(Address.net(host, port))
        channel = connection.mux.create_channel("last")
        message = channel.add_message(uint)
        channel.open()
        message.send(7)
        if how == "close":
            await connection.close()
        else:
            await connection.end()
        async with asyncio.timeout(10):
            await over.wait()
    assert heard == [7]


async def test_a_handler_may_wait_for_the_end_of_its_own_connection() -> None:
    closing = asyncio.Event()

    def serve(connection: Connection) -> None:
        async def close(_: int) -> None:
            await connection.close()
            closing.set()

        channel = connection.mux.create_channel("last", messages=[(uint, close)])
        channel.open()

    async with (
        Endpoint(key_pair=KeyPair.generate(), on_connection=serve, owns_connections=True) as server,
        Endpoint(key_pair=KeyPair.generate(), owns_connections=True) as client,
    ):
        host, port = await server.listen_on("127.0.0.1")
        connection = await client.dial(Address.net(host, port))
        channel = connection.mux.create_channel("last")
        message = channel.add_message(uint)
        channel.open()
        message.send(7)
        async with asyncio.timeout(10):
            await closing.wait()
            await connection.wait_closed()


Closing = tuple[Callable[[], Awaitable[object]], int]


async def _endpoint(serve: Callable[[Connection], None], limits: Limits) -> Closing:
    endpoint = Endpoint(
        key_pair=KeyPair.generate(), on_connection=serve, owns_connections=True, limits=limits
    )
    return endpoint.close, (await endpoint.listen_on("127.0.0.1"))[1]


async def _hub(serve: Callable[[Connection], None], limits: Limits) -> Closing:
    hub = Hub(limits=limits)

    def heard(event: object) -> None:
        if isinstance(event, Connected):
            serve(event.details.connection)

    hub.subscribe(heard)
    return hub.close, (await hub.listen_on("127.0.0.1"))[1]


async def _flock(serve: Callable[[Connection], None], limits: Limits) -> Closing:
    flock = Flock(serve, discovery=False, host="127.0.0.1", limits=limits)
    return flock.close, (await flock.listen_on())[1]


async def _flock_that_waits(serve: Callable[[Connection], None], limits: Limits) -> Closing:
    async def handler(connection: Connection) -> None:
        serve(connection)
        await connection.wait_closed()

    flock = Flock(handler, discovery=False, host="127.0.0.1", limits=limits)
    return flock.close, (await flock.listen_on())[1]


@pytest.mark.parametrize("make", [_endpoint, _hub, _flock, _flock_that_waits])
async def test_a_close_ends_channel_handlers_that_wait_for_ever(
    make: Callable[[Callable[[Connection], None], Limits], Awaitable[Closing]],
) -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def stuck(_: int) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    def serve(connection: Connection) -> None:
        connection.mux.create_channel("ask", messages=[(uint, stuck)]).open()

    close, port = await make(serve, Limits(close_timeout=0.05))
    async with Endpoint(key_pair=KeyPair.generate(), owns_connections=True) as client:
        connection = await client.dial(Address.net("127.0.0.1", port))
        channel = connection.mux.create_channel("ask")
        message = channel.add_message(uint)
        channel.open()
        message.send(1)
        async with asyncio.timeout(10):
            await begun.wait()
            await close()
            assert cancelled.is_set()
            assert not [task for task in asyncio.all_tasks() if "handlers" in task.get_name()]


async def test_handlers_have_close_timeout_in_all_after_a_clean_end() -> None:
    mux, pipe = recorded(Limits(close_timeout=0.05))
    seen: list[object] = []

    async def slow(value: int) -> None:
        seen.append(value)
        if value:
            await asyncio.Event().wait()

    channel = create(
        mux, messages=[(uint, slow)], on_close=lambda remote, _: seen.append(("close", remote))
    )
    channel.open()
    pipe.receive(FOO, b"\1\0\0", b"\1\0\1", b"\1\0\2")
    pipe.close()
    async with asyncio.timeout(10):
        await mux.wait_closed()
    assert seen == [0, 1, ("close", True)]  # the third was never begun
    assert channel.destroyed


@pytest.mark.parametrize("which", ["on_close", "on_destroy"])
async def test_callbacks_that_begin_at_the_end_are_cancelled_in_time_too(which: str) -> None:
    for error in (None, CoveyError("cut")):
        mux, pipe = recorded(Limits(close_timeout=0.01))
        begun = asyncio.Event()

        async def stuck(*_: object, begun: asyncio.Event = begun) -> None:
            begun.set()
            await asyncio.Event().wait()

        options: dict[str, Any] = {which: stuck}
        create(mux, **options).open()
        pipe.close(error)
        async with asyncio.timeout(10):
            await mux.wait_closed()
        assert begun.is_set()
        assert not mux._tasks


async def test_a_handler_that_will_not_be_cancelled_does_not_keep_a_close_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    mux, pipe = recorded(Limits(close_timeout=0.01))
    free = asyncio.Event()

    async def stubborn(_: int) -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    channel = create(mux, messages=[(uint, stubborn)])
    channel.open()
    pipe.receive(FOO, b"\1\0\1")
    pipe.close()
    async with asyncio.timeout(10):
        await mux.wait_closed()
    assert "does not end when cancelled" in caplog.text
    free.set()
    async with asyncio.timeout(10):
        await channel.fully_closed()
        await mux.wait_closed()
