"""Handlers that end in every way: the messages after them are handled all the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

import pytest

from covey.net.inbox import OVERHEAD, Inbox
from covey.owned_tasks import OwnedTasks
from tests.waiting import until

Handler = Callable[[str], Awaitable[object]]


@pytest.fixture
async def tasks() -> AsyncIterator[OwnedTasks]:
    owner = OwnedTasks(logging.getLogger("covey.test"))
    yield owner
    await owner.end()


def inbox_of(tasks: OwnedTasks, handler: Handler, backlog: int = 1 << 20) -> Inbox[str]:
    def deliver(message: str) -> Sequence[Awaitable[object]]:
        return [handler(message)]

    return Inbox(tasks, deliver, backlog=backlog, name="test inbox")


async def test_what_a_handler_waited_for_is_cancelled_and_the_next_messages_are_handled(
    tasks: OwnedTasks, caplog: pytest.LogCaptureFixture
) -> None:
    handled: list[str] = []

    async def handle(message: str) -> None:
        if message == "wait":
            inner = asyncio.create_task(asyncio.sleep(60))
            asyncio.get_running_loop().call_soon(inner.cancel)
            await inner
        handled.append(message)

    inbox = inbox_of(tasks, handle)
    for message in ("a", "wait", "b", "c"):
        assert inbox.take(message, 1)
    await until(lambda: len(handled) == 3)
    assert handled == ["a", "b", "c"]
    assert "was cancelled" in caplog.text
    inbox.take("d", 1)
    await until(lambda: len(handled) == 4)


async def test_a_handler_that_cancels_its_own_task_loses_what_waits_and_no_more(
    tasks: OwnedTasks,
) -> None:
    handled: list[str] = []

    async def handle(message: str) -> None:
        if message == "cancel":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(60)
        handled.append(message)

    inbox = inbox_of(tasks, handle, backlog=OVERHEAD * 3)
    for message in ("cancel", "lost", "lost"):
        assert inbox.take(message, 1)
    await until(lambda: not tasks)
    for message in ("a", "b", "c"):
        assert inbox.take(message, 1)
    await until(lambda: len(handled) == 3)
    assert handled == ["a", "b", "c"]


async def test_close_cancels_the_handler_that_runs(tasks: OwnedTasks) -> None:
    ended: list[str] = []
    started = asyncio.Event()

    async def handle(message: str) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(message)

    inbox = inbox_of(tasks, handle)
    inbox.take("a", 1)
    inbox.take("never", 1)
    await started.wait()
    inbox.close()
    await until(lambda: not tasks)
    assert ended == ["a"]
