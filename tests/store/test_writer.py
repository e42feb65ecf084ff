"""The thread of a store: one thing at a time, its end told on the loop or to who waits for it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from covey.store.writer import Writer
from tests.waiting import PATIENCE


def waits(gate: threading.Event) -> None:
    assert gate.wait(PATIENCE)


async def test_the_end_is_told_on_the_loop_with_what_was_raised() -> None:
    writer = Writer()
    loop = asyncio.get_running_loop()
    here = threading.get_ident()
    for failure in (None, ValueError("no"), SystemExit(1)):
        ended: asyncio.Future[tuple[int, BaseException | None]] = loop.create_future()
        ran: list[int] = []

        def work(failure: BaseException | None = failure, ran: list[int] = ran) -> None:
            ran.append(threading.get_ident())
            if failure is not None:
                raise failure

        def done(
            error: BaseException | None,
            ended: asyncio.Future[tuple[int, BaseException | None]] = ended,
        ) -> None:
            ended.set_result((threading.get_ident(), error))

        writer.write(work, done)
        assert writer.busy
        assert writer.writing
        async with asyncio.timeout(PATIENCE):
            assert await ended == (here, failure)
        assert ran != [here]
        assert not writer.busy
    writer.close()
    writer.close()


async def test_who_settles_is_told_at_once_and_nobody_twice() -> None:
    writer = Writer()
    told: list[BaseException | None] = []
    begun = threading.Event()
    writer.write(begun.set, told.append)
    writer.settle()
    assert begun.is_set()
    assert told == [None]
    writer.settle()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == [None]
    writer.close()


async def test_close_waits_and_leaves_no_thread() -> None:
    writer = Writer()
    gate = threading.Event()
    told: list[BaseException | None] = []
    writer.write(lambda: waits(gate), told.append)
    assert any(thread.name.startswith("covey store") for thread in threading.enumerate())
    gate.set()
    writer.close()
    assert told == [None]
    assert not any(thread.name.startswith("covey store") for thread in threading.enumerate())


async def test_those_that_wait_have_their_turns_in_order() -> None:
    writer = Writer()
    order: list[str] = []
    over = asyncio.Event()
    turns = {"a": 3, "b": 3, "c": 1}

    def turn(name: str) -> None:
        if writer.busy:
            writer.when_free(callbacks[name])
            return
        order.append(name)
        turns[name] -= 1
        if name == "c":  # writes by itself, and not again
            return
        writer.write(lambda: None, lambda _error: again(name))

    def again(name: str) -> None:
        assert writer.busy  # others wait: one that has just had its turn comes after them
        if turns[name]:
            callbacks[name]()
        elif not any(turns.values()):
            over.set()

    callbacks = {name: (lambda name=name: turn(name)) for name in turns}
    for name in turns:
        callbacks[name]()
    async with asyncio.timeout(PATIENCE):
        await over.wait()
    assert order == ["a", "b", "c", "a", "b", "a", "b"]
    writer.close()


async def test_a_turn_that_fails_does_not_end_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    writer = Writer()
    loop = asyncio.get_running_loop()
    failures: list[str] = []
    loop.set_exception_handler(lambda _loop, context: failures.append(str(context["exception"])))
    reached = asyncio.Event()

    def fails() -> None:
        raise RuntimeError("a turn failed")

    writer.write(lambda: None, lambda _error: None)
    writer.when_free(fails)
    writer.when_free(reached.set)
    async with asyncio.timeout(PATIENCE):
        await reached.wait()
    assert failures == ["a turn failed"]
    writer.close()


async def test_where_there_is_no_thread_to_be_had_it_is_done_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    writer = Writer()
    told: list[BaseException | None] = []
    ran: list[int] = []
    failure = ValueError("no")

    def fails() -> None:
        ran.append(threading.get_ident())
        raise failure

    writer.write(fails, told.append)
    writer.settle()
    assert told == [failure]
    monkeypatch.undo()
    writer.write(lambda: None, told.append)
    writer.settle()
    assert told == [failure, None]
    assert ran == [threading.get_ident()]  # and never again
    writer.close()


def test_a_loop_that_ended_meanwhile_is_not_told() -> None:
    writer = Writer()
    gate = threading.Event()
    told: list[BaseException | None] = []

    async def begin() -> None:
        writer.write(lambda: waits(gate), told.append)

    asyncio.run(begin())
    gate.set()
    writer.settle()
    assert told == [None]
    writer.close()


async def test_who_looks_is_told_at_once_when_it_has_ended_and_nobody_twice() -> None:
    writer = Writer()
    told: list[BaseException | None] = []
    gate, ended = threading.Event(), threading.Event()
    writer.write(lambda: waits(gate), told.append)
    writer.look()
    assert told == []
    assert writer.writing
    assert writer._future is not None
    writer._future.add_done_callback(lambda _future: ended.set())
    gate.set()
    waits(ended)
    writer.look()
    assert told == [None]
    assert not writer.writing
    writer.look()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told == [None]
    writer.close()
