"""A flock's limits, its hub and what others do through that hub."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from covey.address import Address
from covey.conn.hub import Hub
from covey.errors import ConnectError, ConnectTimeout, HandshakeTimeout, UsageError
from covey.flock import policy
from covey.flock.flock import Flock
from covey.flock.policy import Reason
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.endpoint import Endpoint
from covey.net.tcp import TcpTransport
from tests.flock.support import HOST, mute_listener, quiet_flock


async def test_given_limits_bound_the_handshake_of_a_stranger() -> None:
    async with quiet_flock(limits=Limits(handshake_timeout=0.05)) as (flock, events):
        reader, writer = await asyncio.open_connection(*await flock.listen_on())
        async with asyncio.timeout(policy.HANDSHAKE_TIMEOUT - 1):
            await events.seen("handshake-timeout")
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


async def test_given_limits_bound_the_raw_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(TcpTransport, "dial", never)
    async with quiet_flock(limits=Limits(connect_timeout=0.05)) as (flock, events):
        flock.add_peer("x", 1)
        async with asyncio.timeout(policy.CONNECTION_TIMEOUT - 1):
            failed = await events.seen("connect-failed")
        assert failed.timedout is True
        assert isinstance(failed.error, ConnectTimeout)


async def test_a_flock_without_limits_has_the_times_of_the_original() -> None:
    async with quiet_flock() as (flock, _):
        limits = flock.hub.limits
        assert (limits.connect_timeout, limits.handshake_timeout) == (3.0, 5.0)


async def test_a_dial_of_the_application_through_the_hub_is_no_handshake_of_a_stranger() -> None:
    async with (
        Endpoint(on_connection=lambda _: None) as there,
        quiet_flock() as (flock, events),
    ):
        address = Address.net(*await there.listen_on(HOST))
        connection = await flock.hub.connect(address)
        assert flock.connecting == 0
        assert len(flock._context.handshakes) == 0
        await connection.close()
        assert flock.connecting == 0
        assert events.types == []


async def test_a_dial_that_fails_through_the_hub_is_told_once() -> None:
    async with mute_listener() as port, Hub(limits=Limits(handshake_timeout=0.05)) as hub:
        address = str(Address.net(HOST, port))
        with pytest.raises(HandshakeTimeout):
            await hub.connect(address)
        assert [line.step for line in hub.explain(address).lines] == [
            "dialling",
            "handshake-failed",
        ]


@pytest.mark.parametrize("limit", ["max_incoming", "max_connections", "max_per_ip"])
async def test_a_limit_of_the_hub_keeps_strangers_out_before_their_handshake(limit: str) -> None:
    limits = replace(Limits(), **{limit: 1})
    async with quiet_flock(limits=limits) as (flock, events), Endpoint() as a, Endpoint() as b:
        address = Address.net(*await flock.listen_on())
        await a.dial(address)
        await events.seen("connection")
        with pytest.raises(ConnectError):
            await b.dial(address)
        rejected = await events.seen("peer-rejected")
        assert (rejected.reason, limit in rejected.text) == (Reason.LIMIT, True)
        assert events.types.count("handshaking") == flock.total_connections == 1
        story = flock.explain(rejected.peer)
        assert [line.reason for line in story.lines] == [limit]
        assert "raise the limit" in (story.advice or "")


async def test_a_key_pair_beside_a_hub_is_refused_and_not_ignored() -> None:
    async with Hub() as hub:
        with pytest.raises(UsageError, match="key_pair cannot be given beside hub"):
            Flock(hub=hub, key_pair=KeyPair.generate(), discovery=False)


async def test_the_hub_of_a_flock_says_where_it_listens() -> None:
    async with quiet_flock() as (flock, _):
        assert flock.hub.addresses == flock.addresses == ()
        place = await flock.listen_on()
        assert list(flock.hub.addresses) == list(flock.addresses) == [place]
