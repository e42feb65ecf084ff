"""Handlers of one key run in order, whatever they are; those of others do not wait."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from covey.net.ordered_calls import Call, OrderedCalls
from covey.owned_tasks import OwnedTasks

logger = logging.getLogger("covey.test")


class Caller:
    """Ordered calls whose functions tell what they do."""

    def __init__(self, *, grace: float = 5.0) -> None:
        self.told: list[str] = []
        self.failures: list[tuple[Any, str, str]] = []
        self.cancelled: list[tuple[Any, str]] = []
        self.unwanted: set[str] = set()
        self.tasks = OwnedTasks(logger)
        self.calls = OrderedCalls(
            self.tasks,
            failed=lambda key, call, error: self.failures.append((key, call.name, str(error))),
            cancelled=lambda key, call: self.cancelled.append((key, call.name)),
            wanted=lambda call: call.owner not in self.unwanted,
            grace=grace,
            name="covey test calls",
        )

    def plain(self, name: str, *, owner: str = "me") -> Call:
        return Call(self.told.append, (name,), owner, name)

    def later(self, name: str, gate: asyncio.Event) -> Call:
        async def wait() -> None:
            self.told.append(f"{name} begins")
            await gate.wait()
            self.told.append(f"{name} ends")

        return Call(wait, (), "me", name)

    def failing(self, name: str) -> Call:
        def fail() -> None:
            raise ValueError(name)

        return Call(fail, (), "me", name)


async def test_plain_functions_run_at_once_and_leave_nothing() -> None:
    caller = Caller()
    caller.calls.run("a", [caller.plain("one"), caller.plain("two")])
    assert caller.told == ["one", "two"]
    assert caller.calls.waiting("a") is None
    assert len(caller.calls) == 0


async def test_a_coroutine_makes_its_own_key_wait_and_no_other() -> None:
    caller, gate = Caller(), asyncio.Event()
    caller.calls.run("a", [caller.later("one", gate), caller.plain("two")])
    caller.calls.run("a", [caller.plain("three")])
    caller.calls.run("b", [caller.plain("other")])
    waiting = caller.calls.waiting("a")
    assert waiting is not None
    assert caller.told == ["other"]
    gate.set()
    async with asyncio.timeout(5):
        await waiting
    assert caller.told == ["other", "one begins", "one ends", "two", "three"]
    assert len(caller.calls) == 0


async def test_a_call_from_within_a_call_comes_after_those_made_before() -> None:
    caller = Caller()

    def nested() -> None:
        caller.calls.run("a", [caller.plain("nested")])

    caller.calls.run("a", [Call(nested, (), "me", "nesting"), caller.plain("before")])
    assert caller.told == ["before", "nested"]


async def test_one_that_fails_is_told_and_the_next_is_made() -> None:
    caller = Caller()

    async def fail() -> None:
        raise TimeoutError("its own")

    calls = [caller.failing("one"), Call(fail, (), "me", "two"), caller.plain("three")]
    caller.calls.run("a", calls)
    async with asyncio.timeout(5):
        await caller.calls.finish()
    assert caller.told == ["three"]
    assert caller.failures == [("a", "one", "one"), ("a", "two", "its own")]


async def test_a_call_that_nobody_wants_any_more_is_left_out() -> None:
    caller, gate = Caller(), asyncio.Event()
    caller.calls.run("a", [caller.later("one", gate), caller.plain("two", owner="gone")])
    caller.unwanted.add("gone")
    gate.set()
    async with asyncio.timeout(5):
        await caller.calls.finish()
    assert caller.told == ["one begins", "one ends"]


async def test_after_its_key_is_over_a_call_has_its_time_and_the_rest_begins() -> None:
    caller, never = Caller(grace=0.01), asyncio.Event()
    calls = [caller.later("one", never), caller.later("two", never), caller.plain("three")]
    caller.calls.run("a", calls)
    await asyncio.sleep(0)
    caller.calls.over("a")
    caller.calls.over("a")
    async with asyncio.timeout(5):
        await caller.calls.finish()
    assert caller.told == ["one begins", "two begins", "three"]
    assert caller.failures == []


async def test_a_call_that_begins_after_its_key_is_over_has_the_same_time() -> None:
    caller, gate = Caller(grace=0.01), asyncio.Event()
    caller.calls.run("a", [caller.later("one", gate)])
    caller.calls.over("a")
    async with asyncio.timeout(5):
        await caller.calls.finish()
    assert caller.told == ["one begins"]


@pytest.mark.parametrize("begun", [True, False])
async def test_the_end_of_the_owner_leaves_no_coroutine(begun: bool) -> None:
    caller, never = Caller(), asyncio.Event()
    caller.calls.run("a", [caller.later("one", never), caller.plain("two")])
    waiting = caller.calls.waiting("a")
    if begun:
        await asyncio.sleep(0)
    await caller.tasks.end()
    assert waiting is not None
    async with asyncio.timeout(5):
        await waiting
    caller.calls.run("a", [caller.later("three", never)])  # would warn if it were left behind
    assert caller.told == (["one begins"] if begun else [])
    assert len(caller.calls) == 0


async def test_a_call_knows_that_it_runs_inside() -> None:
    caller = Caller()
    inside: list[bool] = []

    async def look() -> None:
        inside.append(caller.calls.inside())

    function: Callable[[], Awaitable[None]] = look
    caller.calls.run("a", [Call(function, (), "me", "look")])
    async with asyncio.timeout(5):
        await caller.calls.finish()
    assert inside == [True]
    assert not caller.calls.inside()


async def test_a_call_made_as_the_last_coroutine_ends_is_made() -> None:
    caller = Caller()

    async def fail() -> None:
        asyncio.get_running_loop().call_soon(caller.calls.run, "a", [caller.plain("late")])
        raise ValueError("one")

    caller.calls.run("a", [Call(fail, (), "me", "one"), caller.plain("two")])
    async with asyncio.timeout(5):
        await caller.calls.finish()
    await asyncio.sleep(0)
    assert caller.told == ["two", "late"]
