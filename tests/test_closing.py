from __future__ import annotations

import asyncio

import pytest

from covey.closing import Closing


class Owner:
    def __init__(self) -> None:
        self.closing = Closing()
        self.may_end = asyncio.Event()
        self.begun = 0
        self.ended = 0

    async def close(self) -> None:
        await self.closing.run(self._close, "covey test close")

    async def _close(self) -> None:
        self.begun += 1
        await self.may_end.wait()
        self.ended += 1


async def test_all_who_close_wait_for_the_one_close() -> None:
    owner = Owner()
    assert not owner.closing.begun
    callers = [asyncio.create_task(owner.close()) for _ in range(3)]
    await asyncio.sleep(0)
    assert owner.closing.begun
    assert not any(caller.done() for caller in callers)
    owner.may_end.set()
    async with asyncio.timeout(5):
        await asyncio.gather(*callers)
        await owner.close()
    assert (owner.begun, owner.ended) == (1, 1)


async def test_a_cancelled_caller_leaves_the_close_to_those_who_come_after() -> None:
    owner = Owner()
    caller = asyncio.create_task(owner.close())
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    owner.may_end.set()
    async with asyncio.timeout(5):
        await owner.close()
    assert (owner.begun, owner.ended) == (1, 1)


async def test_the_error_of_a_close_is_told_to_every_caller() -> None:
    closing = Closing()

    async def fail() -> None:
        raise OSError("the disk is gone")

    for _ in range(2):
        with pytest.raises(OSError, match="the disk is gone"):
            await closing.run(fail, "covey test close")


async def test_the_task_of_a_close_has_the_name_that_was_given() -> None:
    names = []

    async def tell() -> None:
        task = asyncio.current_task()
        names.append(task.get_name() if task else None)

    await Closing().run(tell, "covey test close")
    assert names == ["covey test close"]
