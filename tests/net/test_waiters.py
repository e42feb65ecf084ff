"""Waiting together, being cancelled alone."""

from __future__ import annotations

import asyncio

from covey.net.waiters import Waiters


async def test_wake_lets_everybody_go_and_nobody_who_comes_later() -> None:
    waiters = Waiters()
    first = [asyncio.create_task(waiters.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiters.wake()
    later = asyncio.create_task(waiters.wait())
    await asyncio.gather(*first)
    assert not later.done()
    waiters.wake()
    await later


async def test_a_cancelled_waiter_takes_nobody_along() -> None:
    waiters = Waiters()
    one, other = (asyncio.create_task(waiters.wait()) for _ in range(2))
    await asyncio.sleep(0)
    one.cancel()
    await asyncio.wait([one])
    waiters.wake()
    await other
    assert one.cancelled()
