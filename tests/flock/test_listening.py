from __future__ import annotations

import asyncio
from typing import Any

import pytest

from covey.discovery.channel import Channel
from covey.errors import ClosedError, ConnectError, UsageError
from covey.flock.flock import Flock
from tests.flock.support import HOST, quiet_flock, refused_port


@pytest.mark.parametrize("port", [70_000, -1, 65_536])
async def test_what_is_no_port_is_refused_and_another_may_be_listened_at(port: int) -> None:
    async with quiet_flock() as (flock, _):
        with pytest.raises(UsageError, match="from 0 to 65535"):
            await flock.listen_on(port=port)
        assert flock.addresses == ()
        assert (await flock.listen_on())[1] > 0
        await flock.join("x")


@pytest.mark.parametrize("port", ["80", True, 1.5, None])
async def test_a_port_of_another_type_is_a_mistake(port: Any) -> None:
    async with quiet_flock() as (flock, _):
        with pytest.raises(TypeError, match="a port is a number"):
            await flock.listen_on(port=port)


async def test_whatever_listening_raises_leaves_the_flock_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(*_: object) -> tuple[str, int]:
        raise LookupError("a transport of somebody else's")

    async with quiet_flock() as (flock, events):
        endpoint: Any = flock._door._endpoint
        with monkeypatch.context() as patch:
            patch.setattr(type(endpoint), "listen_on", broken)
            async with asyncio.timeout(5):
                for work in (flock.listen_on(), flock.join("x")):
                    with pytest.raises(LookupError):
                        await work
        assert flock.topics == ()
        assert [type(event.error) for event in events.named("error")] == [LookupError] * 2
        async with asyncio.timeout(5):
            assert not (await flock.join("x")).left


async def test_whatever_a_channel_raises_ends_the_join(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise LookupError("no such source")

    async with Channel() as channel, quiet_flock(channel=channel) as (flock, _):
        with monkeypatch.context() as patch:
            patch.setattr(channel, "join", broken)
            async with asyncio.timeout(5):
                waiting = [asyncio.create_task(flock.join("x")) for _ in range(2)]
                results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [LookupError] * 2
        assert "Traceback" in caplog.text
        assert flock.topics == ()
        async with asyncio.timeout(5):
            await flock.join("x")


async def test_another_host_is_refused_as_another_port_is() -> None:
    async with quiet_flock() as (flock, _):
        host, port = await flock.listen_on("localhost")
        assert await flock.listen_on() == (host, port)
        assert await flock.listen_on("localhost") == (host, port)
        assert await flock.listen_on(host, port) == (host, port)
        with pytest.raises(UsageError, match="already"):
            await flock.listen_on("127.0.0.2")
        with pytest.raises(UsageError, match="already"):
            await flock.listen_on(port=port - 1)


async def test_a_port_in_use_is_told_and_another_may_do() -> None:
    async with refused_port() as port, quiet_flock() as (flock, events):
        with pytest.raises(ConnectError):
            await flock.listen_on(port=port)
        assert len(events.named("error")) == 1
        assert (await flock.listen_on())[1] != port


async def test_who_waits_to_listen_when_the_flock_is_closed_is_told_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def never(*_: object) -> tuple[str, int]:
        await asyncio.Event().wait()
        raise AssertionError

    flock = Flock(discovery=False, host=HOST)
    monkeypatch.setattr(type(flock._door._endpoint), "listen_on", never)
    waiting = asyncio.create_task(flock.listen_on())
    joining = asyncio.create_task(flock.join("x"))
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await flock.close()
        for task in (waiting, joining):
            with pytest.raises(ClosedError):
                await task
