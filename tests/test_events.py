"""The one event mechanism: order, loss that is told, snapshots per burst, readers that vanish."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref

import pytest

from covey.errors import UsageError
from covey.events import EventStream, Lagged, LiveSubscription, LiveView, Subscription


async def settle() -> None:
    """Let every ready task run until it waits."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_every_reader_gets_every_event_in_order() -> None:
    stream = EventStream[int]()
    first, second = stream.listen(), stream.listen()
    for number in range(5):
        stream.publish(number)
    late = stream.listen()
    stream.close()
    assert [event async for event in first] == list(range(5))
    assert [event async for event in second] == list(range(5))
    assert [event async for event in late] == []


async def test_a_waiting_reader_is_woken() -> None:
    stream = EventStream[str]()
    reader = stream.listen()
    task = asyncio.create_task(anext(reader))
    await settle()
    assert not task.done()
    stream.publish("a")
    stream.publish("b")
    async with asyncio.timeout(5):
        assert await task == "a"
        assert await anext(reader) == "b"


async def test_a_slow_reader_is_told_how_much_it_missed_and_where() -> None:
    stream = EventStream[int](backlog=3)
    slow, patient = stream.listen(), stream.listen(backlog=100)
    for number in range(10):
        stream.publish(number)
    assert [await anext(slow) for _ in range(2)] == [0, 1]
    stream.publish(10)  # there is room again, but it may not overtake what was missed
    assert await anext(slow) == 2
    assert await anext(slow) == Lagged(missed=8)
    stream.publish(11)
    assert await anext(slow) == 11
    stream.close()
    assert [event async for event in patient] == list(range(12))


async def test_what_was_missed_is_told_even_when_the_writer_closed_meanwhile() -> None:
    stream = EventStream[int](backlog=1)
    reader = stream.listen()
    stream.publish(1)
    stream.publish(2)
    stream.close()
    assert [event async for event in reader] == [1, Lagged(1)]
    assert Lagged(1).type == "lagged"


async def test_a_reader_that_never_reads_holds_no_more_than_its_backlog() -> None:
    stream = EventStream[int](backlog=4)
    reader = stream.listen()
    for number in range(100_000):
        stream.publish(number)
    assert len(reader._queue) == 4


@pytest.mark.parametrize("backlog", [0, -1])
def test_a_backlog_that_holds_nothing_is_refused(backlog: int) -> None:
    with pytest.raises(UsageError):
        EventStream[int](backlog=backlog)
    with pytest.raises(UsageError):
        EventStream[int]().listen(backlog=backlog)


async def test_a_cancelled_read_loses_no_event() -> None:
    stream = EventStream[int]()
    reader = stream.listen()
    waiting = asyncio.create_task(anext(reader))
    await settle()
    stream.publish(1)  # the reader is woken, but cancelled before it runs
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await anext(reader) == 1
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await anext(reader)
    stream.publish(2)
    assert await anext(reader) == 2


async def test_a_cancelled_read_of_a_view_loses_no_change() -> None:
    state = [0]
    view = LiveView(lambda: state[0])
    reader = view.listen()
    assert await anext(reader) == 0
    waiting = asyncio.create_task(anext(reader))
    await settle()
    state[0] = 1
    view.changed()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert await anext(reader) == 1


async def test_two_tasks_cannot_read_one_subscription() -> None:
    stream = EventStream[int]()
    reader = stream.listen()
    waiting = asyncio.create_task(anext(reader))
    await settle()
    with pytest.raises(UsageError, match="one reader"):
        await anext(reader)
    stream.publish(1)
    assert await waiting == 1


async def test_a_closed_reader_gets_nothing_new_and_ends() -> None:
    stream = EventStream[int]()
    async with stream.listen() as reader:
        stream.publish(1)
    stream.publish(2)
    assert [event async for event in reader] == [1]
    with stream.listen() as other:
        pass
    other.close()
    await other.aclose()
    assert len(stream._readers) == 0


async def test_closing_wakes_a_reader_that_waits() -> None:
    stream = EventStream[int]()
    view = LiveView(lambda: 0)
    reader, live = stream.listen(), view.listen()
    await anext(live)
    tasks = [asyncio.create_task(anext(reader, None)), asyncio.create_task(anext(live, None))]
    await settle()
    stream.close()
    view.close()
    async with asyncio.timeout(5):
        assert await asyncio.gather(*tasks) == [None, None]
    assert len(stream._readers) == len(view._readers) == 0
    assert not stream._readers.waiting
    stream.close()
    view.close()


async def test_nothing_is_given_out_after_close() -> None:
    stream = EventStream[int]()
    seen: list[int] = []
    stream.subscribe(seen.append)
    stream.close()
    stream.subscribe(seen.append)
    reader = stream.listen()
    stream.publish(1)
    assert seen == []
    assert [event async for event in reader] == []


def forget_readers() -> tuple[weakref.ref[Subscription[int]], weakref.ref[LiveSubscription[int]]]:
    stream, view = EventStream[int](), LiveView(lambda: 0)
    reader, live = stream.listen(), view.listen()
    references = weakref.ref(reader), weakref.ref(live)
    stream.publish(1)
    view.changed()
    del reader, live
    gc.collect()
    assert len(stream._readers) == len(view._readers) == 0
    stream.publish(2)
    view.changed()
    return references


def test_a_reader_dropped_without_close_disappears() -> None:
    assert [reference() for reference in forget_readers()] == [None, None]


async def test_leaving_the_loop_over_events_is_enough_to_stop_listening() -> None:
    stream = EventStream[int]()
    stream.publish(0)
    task = asyncio.create_task(_first(stream))
    await settle()
    stream.publish(1)
    assert await task == 1
    del task
    gc.collect()
    assert len(stream._readers) == 0


async def _first(stream: EventStream[int]) -> int | Lagged | None:
    async for event in stream.listen():
        return event
    return None


async def test_a_reader_that_waits_is_kept_with_its_task() -> None:
    stream = EventStream[int]()
    seen: list[int | Lagged] = []

    async def read() -> None:
        async for event in stream.listen():
            seen.append(event)

    reference = weakref.ref(asyncio.create_task(read()))
    await settle()
    gc.collect()
    assert reference() is not None
    stream.publish(1)
    await settle()
    gc.collect()
    stream.publish(2)
    await settle()
    assert seen == [1, 2]
    stream.close()
    await settle()
    gc.collect()
    assert reference() is None


def test_callbacks_run_at_once_and_in_order() -> None:
    stream = EventStream[int]()
    seen: list[tuple[str, int]] = []
    stream.subscribe(lambda event: seen.append(("a", event)))
    stop = stream.subscribe(lambda event: seen.append(("b", event)))
    stream.publish(1)
    stop()
    stop()
    stream.publish(2)
    assert seen == [("a", 1), ("b", 1), ("a", 2)]


def test_a_failing_callback_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stream = EventStream[str]()
    seen: list[str] = []

    def fail(event: str) -> None:
        raise RuntimeError("the listener is broken")

    stream.subscribe(fail)
    stream.subscribe(seen.append)
    with caplog.at_level(logging.ERROR, logger="covey.events"):
        stream.publish("a")
        stream.publish("b")
    assert seen == ["a", "b"]
    assert [record.name for record in caplog.records] == ["covey.events"] * 2
    assert "the listener is broken" in caplog.text


def test_cancellation_in_a_callback_is_not_eaten() -> None:
    stream = EventStream[int]()

    def cancel(event: int) -> None:
        raise asyncio.CancelledError

    stream.subscribe(cancel)
    with pytest.raises(asyncio.CancelledError):
        stream.publish(1)


def test_unsubscribing_in_a_callback_holds_at_once() -> None:
    stream = EventStream[int]()
    seen: list[str] = []

    def first(event: int) -> None:
        seen.append("first")
        for stop in stops[:2]:
            stop()

    stops = [
        stream.subscribe(first),
        stream.subscribe(lambda event: seen.append("second")),
        stream.subscribe(lambda event: seen.append("third")),
    ]
    stream.publish(1)
    stream.publish(2)
    assert seen == ["first", "third", "third"]


def test_a_callback_subscribed_twice_is_called_twice_and_stopped_one_by_one() -> None:
    stream = EventStream[int]()
    seen: list[int] = []
    stop, _ = stream.subscribe(seen.append), stream.subscribe(seen.append)
    stream.publish(1)
    stop()
    stop()
    stream.publish(2)
    assert seen == [1, 1, 2]


async def test_iterators_keep_the_order_when_a_callback_publishes_the_next_event() -> None:
    stream = EventStream[int]()
    reader = stream.listen()
    stream.subscribe(lambda event: stream.publish(event + 1) if event < 3 else None)
    stream.publish(1)
    stream.close()
    assert [event async for event in reader] == [1, 2, 3]


async def test_a_view_gives_a_snapshot_at_once_and_one_per_burst() -> None:
    state: list[int] = []
    taken: list[int] = []

    def snapshot() -> tuple[int, ...]:
        taken.append(len(state))
        return tuple(state)

    view = LiveView(snapshot)
    seen: list[tuple[int, ...]] = []

    async def read() -> None:
        async for entries in view.listen():
            seen.append(entries)

    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        group.create_task(read())
        await settle()
        assert seen == [()]
        for number in range(1000):
            state.append(number)
            view.changed()
        await settle()
        assert seen[1:] == [tuple(range(1000))]
        view.changed()
        await settle()
        assert len(seen) == 3
        view.close()
    assert taken == [0, 1000, 1000]


async def test_a_view_nobody_reads_takes_no_snapshots() -> None:
    taken: list[int] = []
    view = LiveView(lambda: taken.append(1))
    for _ in range(1000):
        view.changed()
    reader = view.listen()
    for _ in range(1000):
        view.changed()
    assert len(taken) == 1
    reader.close()


async def test_the_last_change_is_read_before_a_view_ends() -> None:
    state = [0]
    view = LiveView(lambda: state[0])
    reader = view.listen()
    state[0] = 1
    view.changed()
    view.close()
    assert [entries async for entries in reader] == [0, 1]
    assert [entries async for entries in view.listen()] == [1]


async def test_readers_show_what_waits_for_them() -> None:
    stream = EventStream[int](backlog=2)
    reader = stream.listen()
    for number in range(3):
        stream.publish(number)
    assert repr(reader) == "<Subscription listening, 2 waiting, 1 missed>"
    stream.close()
    assert repr(reader) == "<Subscription ended, 2 waiting, 1 missed>"
    view = LiveView(lambda: 1)
    live = view.listen()
    assert repr(live) == "<LiveSubscription listening, a change to read>"
    await anext(live)
    assert repr(live) == "<LiveSubscription listening, nothing to read>"
    view.close()
    assert repr(live) == "<LiveSubscription ended, nothing to read>"
