"""A key pair that has to be awaited: everybody waits for the one that comes, or hears why not."""

from __future__ import annotations

import asyncio

import pytest

from covey.errors import ClosedError, ConnectError, UsageError
from covey.keys import KeyPair
from covey.net.endpoint import Endpoint

PAIR = KeyPair.from_seed(b"w" * 32)


async def test_a_key_pair_may_be_awaited_by_both_ends() -> None:
    vault: asyncio.Future[KeyPair] = asyncio.get_running_loop().create_future()

    async def unlock() -> KeyPair:
        return await vault

    async with Endpoint(key_pair=unlock()) as node, Endpoint(key_pair=vault) as other:
        with pytest.raises(UsageError, match="awaited"):
            _ = node.key_pair
        assert "awaited" in repr(node)
        listening = [asyncio.create_task(node.listen_on("127.0.0.1")) for _ in range(2)]
        await asyncio.sleep(0)
        listening[0].cancel()  # whoever goes, the key pair still comes for the others
        await asyncio.sleep(0)
        vault.set_result(PAIR)
        host, port = await listening[1]
        assert listening[0].cancelled()
        assert node.key_pair == PAIR
        await other.listen_on("127.0.0.1")
        assert other.key_pair == PAIR
        async with Endpoint() as caller:
            connection = await caller.dial(f"net:{host}:{port}~noise")
            assert connection.remote_key == PAIR.public_key


async def test_a_key_pair_that_fails_fails_every_listen_and_dial() -> None:
    async def locked() -> KeyPair:
        raise PermissionError("the vault, and a secret")

    async with Endpoint(key_pair=locked()) as node:
        for call in (node.listen_on("127.0.0.1"), node.dial("net:127.0.0.1:1~noise")):
            with pytest.raises(ConnectError, match="PermissionError") as caught:
                await call
            assert isinstance(caught.value.__cause__, PermissionError)
            assert "secret" not in str(caught.value)


async def test_what_is_awaited_must_be_a_key_pair() -> None:
    async def wrong() -> KeyPair:
        return b"seed"  # type: ignore[return-value]

    async with Endpoint(key_pair=wrong()) as node:
        with pytest.raises(ConnectError, match="not bytes"):
            await node.listen_on("127.0.0.1")


@pytest.mark.parametrize("asked", [False, True])
async def test_close_calls_off_a_key_pair_that_does_not_come(asked: bool) -> None:
    async def never() -> KeyPair:
        await asyncio.Event().wait()
        return PAIR

    node = Endpoint(key_pair=never())
    waiting = asyncio.create_task(node.dial("net:127.0.0.1:1~noise")) if asked else None
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await node.close()
    if waiting is not None:
        with pytest.raises(ClosedError):
            await waiting
