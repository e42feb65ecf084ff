"""Keys that a handshake may begin with in mind: bounded, and a caller's serves once."""

from __future__ import annotations

import asyncio

import pytest

from covey.keys import KeyPair
from covey.net.connection import Connection
from covey.net.endpoint import Endpoint
from covey.net.likely_keys import REMEMBERED_KEYS, LikelyKeys
from covey.wire import noise

KEY, OTHER = b"k" * 32, b"o" * 32


def test_the_key_of_a_dialled_place_is_kept_and_replaced() -> None:
    keys = LikelyKeys()
    keys.proven("192.0.2.1", KEY, port=7)
    assert keys.dialled("192.0.2.1", 7) == keys.dialled("192.0.2.1", 7) == KEY
    assert keys.dialled("192.0.2.1", 8) is None
    keys.proven("192.0.2.1", OTHER, port=7)
    assert keys.dialled("192.0.2.1", 7) == OTHER


def test_the_key_of_a_caller_serves_once_until_it_is_proven_again() -> None:
    keys = LikelyKeys()
    keys.proven("192.0.2.1", KEY)
    assert [keys.calling("192.0.2.1") for _ in range(3)] == [KEY, None, None]
    keys.proven("192.0.2.1", KEY)
    assert keys.calling("192.0.2.1") == KEY


def test_the_oldest_place_is_forgotten() -> None:
    keys = LikelyKeys()
    for number in range(REMEMBERED_KEYS):
        keys.proven("192.0.2.1", KEY, port=number + 1)
    keys.proven("192.0.2.1", KEY, port=1)  # now the newest
    keys.proven("192.0.2.2", KEY)
    assert keys.dialled("192.0.2.1", 1) == KEY
    assert keys.dialled("192.0.2.1", 2) is None
    assert keys.dialled("192.0.2.1", 3) == KEY


async def test_who_comes_again_waits_for_no_multiplication(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ahead: list[bytes] = []
    real = noise.HandshakeState.multiply_ahead

    def multiply_ahead(self: noise.HandshakeState, public_key: bytes) -> None:
        ahead.append(public_key)
        real(self, public_key)

    monkeypatch.setattr(noise.HandshakeState, "multiply_ahead", multiply_ahead)
    accepted: asyncio.Queue[Connection] = asyncio.Queue()
    one, two, server = KeyPair.generate(), KeyPair.generate(), KeyPair.generate()
    async with (
        Endpoint(key_pair=server, on_connection=accepted.put_nowait) as node,
        Endpoint(key_pair=one) as first,
        Endpoint(key_pair=two) as second,
        asyncio.timeout(20),
    ):
        host, port = await node.listen_on("127.0.0.1")
        address = f"net:{host}:{port}~noise"
        for caller, guesses in (
            (first, []),
            (first, [server.public_key, one.public_key]),
            (second, [one.public_key]),  # wrong, and harmless
            (second, [server.public_key, two.public_key]),
        ):
            connection = await caller.dial(address)
            met = await accepted.get()
            assert met.remote_key == caller.key_pair.public_key
            await connection.close()
            await met.close()
            assert sorted(ahead) == sorted(guesses)
            ahead.clear()
