"""A muxer on a real connection that ends: nothing that was sent is lost, nothing is left."""

from __future__ import annotations

import asyncio

import pytest

from covey.address import Address
from covey.keys import KeyPair
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.wire.encoding import uint


@pytest.mark.parametrize("how", ["close", "end"])
async def test_what_a_channel_sent_in_the_turn_of_the_close_arrives(how: str) -> None:
    heard: list[int] = []
    over = asyncio.Event()

    def serve(connection: Connection) -> None:
        channel = connection.mux.create_channel("last", messages=[(uint, heard.append)])
        assert channel is not None
        channel.open()
        connection.on_close(lambda _: over.set())

    async with (
        Endpoint(key_pair=KeyPair.generate(), on_connection=serve, owns_connections=True) as server,
        Endpoint(key_pair=KeyPair.generate(), owns_connections=True) as client,
    ):
        host, port = await server.listen("127.0.0.1")
        connection = await client.dial(Address.net(host, port))
        channel = connection.mux.create_channel("last")
        assert channel is not None
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
        assert channel is not None
        channel.open()

    async with (
        Endpoint(key_pair=KeyPair.generate(), on_connection=serve, owns_connections=True) as server,
        Endpoint(key_pair=KeyPair.generate(), owns_connections=True) as client,
    ):
        host, port = await server.listen("127.0.0.1")
        connection = await client.dial(Address.net(host, port))
        channel = connection.mux.create_channel("last")
        assert channel is not None
        message = channel.add_message(uint)
        channel.open()
        message.send(7)
        async with asyncio.timeout(10):
            await closing.wait()
            await connection.wait_closed()
