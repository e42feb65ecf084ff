"""A flock's limits, its hub and what others do through that hub."""

from __future__ import annotations

import asyncio

import pytest

from covey.errors import ConnectTimeout
from covey.flock import policy
from covey.limits import Limits
from covey.net.tcp import TcpTransport
from tests.flock.support import quiet_flock


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
