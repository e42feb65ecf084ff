from __future__ import annotations

import asyncio
import contextlib
import logging

import pytest

from covey.errors import ClosedError
from covey.owned_tasks import OwnedTasks

logger = logging.getLogger("covey.tests")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def broken() -> None:
    raise ValueError("a mistake of ours")


async def test_the_tasks_have_their_names_and_none_is_left_at_the_end() -> None:
    tasks = OwnedTasks(logger)
    running = [tasks.spawn(for_ever(), f"covey test {number}") for number in range(3)]
    assert running[2].get_name() == "covey test 2"
    assert len(tasks) == 3
    await tasks.end(1.0)
    assert all(task.cancelled() for task in running)
    assert len(tasks) == 0


async def test_the_end_of_no_tasks_is_at_once() -> None:
    await OwnedTasks(logger).end()


async def test_a_crash_is_logged_with_its_traceback_and_handed_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = OwnedTasks(logger)
    failures: list[Exception] = []
    task = tasks.spawn(broken(), "covey test", on_failure=failures.append)
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert [str(error) for error in failures] == ["a mistake of ours"]
    (record,) = caplog.records
    assert (record.name, record.getMessage()) == ("covey.tests", "covey test failed")
    assert "in broken" in caplog.text
    assert len(tasks) == 0


async def test_a_task_that_will_not_end_is_named_and_not_waited_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    free = asyncio.Event()

    async def stubborn() -> None:
        while not free.is_set():
            try:
                await free.wait()
            except asyncio.CancelledError:
                continue

    tasks = OwnedTasks(logger)
    task = tasks.spawn(stubborn(), "covey test")
    await asyncio.sleep(0)
    await tasks.end(0.01)
    assert "covey test does not end when cancelled" in caplog.text
    free.set()
    await task


async def test_a_task_may_end_its_owner_and_so_all_but_itself() -> None:
    tasks = OwnedTasks(logger)
    other = tasks.spawn(for_ever(), "other")
    async with asyncio.timeout(5):
        await tasks.spawn(tasks.end(), "the end")
    assert other.cancelled()


async def test_tasks_that_are_spawned_while_others_end_are_ended_too() -> None:
    tasks = OwnedTasks(logger)
    late: list[asyncio.Task[None]] = []

    async def spawner() -> None:
        try:
            await for_ever()
        finally:
            late.append(tasks.spawn(for_ever(), "late"))
            with contextlib.suppress(asyncio.CancelledError):
                await late[0]  # its end is no reason for ours to hang

    tasks.spawn(spawner(), "first")
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await tasks.end()
    assert late[0].cancelled()
    assert len(tasks) == 0


async def test_nothing_is_spawned_after_the_end() -> None:
    tasks = OwnedTasks(logger)
    await tasks.end()
    with pytest.raises(ClosedError, match="too late: its owner has ended"):
        tasks.spawn(for_ever(), "too late")
    assert len(tasks) == 0
