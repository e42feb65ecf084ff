from __future__ import annotations

import asyncio
import gc
import inspect
import re
import weakref
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from covey.address import Address
from covey.conn.staging import Staged, Staging, StagingEvent, Unstaged
from covey.errors import AddressError, ClosedError
from covey.events import Lagged, LiveSubscription, Subscription
from covey.limits import Limits
from tests.vectors_path import load_vectors

SCRIPTS = load_vectors("ssb-conn-staging")["scripts"]
CALLS = {"liveEntries": "live_entries"}


class Clock:
    def __init__(self) -> None:
        self.now: float = 1_700_000_000_000

    def __call__(self) -> float:
        return self.now


def address(number: int, key: int | None = None) -> str:
    host = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
    if key is None:
        return f"net:{host}:8008~noise"
    return f"{Address.net(host, 8008, key=key.to_bytes(32, 'big'))}"


def snake(value: Any) -> Any:
    """The vectors' names in ours."""
    if isinstance(value, dict):
        return {
            re.sub("([A-Z])", r"_\1", name).lower(): snake(item) for name, item in value.items()
        }
    return [snake(item) for item in value] if isinstance(value, list) else value


def plain(value: Any) -> Any:
    """Our views as lists and dictionaries, to compare."""
    if isinstance(value, MappingProxyType):
        return dict(value)
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


async def ready(stream: Subscription[Any] | LiveSubscription[Any]) -> list[Any]:
    """What a stream gives without waiting; `end` when it is over."""
    found: list[Any] = []
    while True:
        step = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        if not step.done():
            step.cancel()
            await asyncio.gather(step, return_exceptions=True)
            return found
        if isinstance(step.exception(), StopAsyncIteration):
            return [*found, "end"]
        found.append(step.result())


def told(event: Any) -> Any:
    return {"type": "end"} if event == "end" else {"type": event.type, "address": event.address}


@pytest.mark.parametrize("script", SCRIPTS, ids=[script["description"] for script in SCRIPTS])
async def test_script(script: dict[str, Any]) -> None:
    clock = Clock()
    staging = Staging(wall_clock=clock)
    events, live = staging.listen(), staging.live_entries()
    assert await ready(live) == [()]
    for step in script["steps"]:
        if step["op"] == "tick":
            clock.now += step["ms"]
            continue
        clock.now = step["now"]
        call = getattr(staging, CALLS.get(step["op"], step["op"]))
        arguments = snake(step["args"])
        if "throws" in step:
            with pytest.raises((AddressError, ClosedError)) as caught:
                await _made(call, arguments)
            assert str(caught.value) == step["throws"]
        else:
            assert plain(await _made(call, arguments)) == snake(step["returns"])
        over = staging.closed and step["events"] == []
        assert [told(event) for event in await ready(events)] == (
            [{"type": "end"}] if over else step["events"]
        )
        shown = [item for item in await ready(live) if item != "end"]
        assert plain(shown) == snake(step["live"][-1:])


async def _made(call: Callable[..., Any], arguments: Any) -> Any:
    """What the call gives; `close` is the one that is awaited."""
    result = call(*arguments)
    return await result if inspect.isawaitable(result) else result


async def test_upstream_stage_list_unstage_list() -> None:
    staging = Staging()
    assert staging.stage(address(1)) is True
    assert [name for name, _ in staging.entries()] == [address(1)]
    assert staging.unstage(address(1)) is True
    assert staging.entries() == ()


async def test_upstream_stage_then_get() -> None:
    staging = Staging()
    staging.stage(address(1), {"mode": "internet"})
    data = staging.get(address(1))
    assert data is not None
    assert data["mode"] == "internet"


async def test_upstream_live_view_around_stage_and_unstage() -> None:
    staging = Staging()
    live = staging.live_entries()
    assert await ready(live) == [()]
    staging.stage(address(1))
    [[(name, data)]] = await ready(live)
    assert name == address(1)
    assert data["staging_birth"] > 1000
    staging.unstage(address(1))
    assert await ready(live) == [()]
    assert await ready(live) == []


async def test_upstream_stage_the_same_address_twice() -> None:
    staging = Staging()
    assert staging.stage(address(1)) is True
    assert staging.stage(address(1)) is False
    assert len(staging) == 1
    assert address(1) in staging


async def test_upstream_unstage_something_never_staged() -> None:
    staging = Staging()
    assert staging.unstage(address(1)) is False
    assert staging.entries() == ()


async def test_close_ends_both_kinds_of_stream() -> None:
    staging = Staging()
    events, live = staging.listen(), staging.live_entries()
    waiting = asyncio.gather(_all(events), _last(live))
    await asyncio.sleep(0)
    await staging.close()
    async with asyncio.timeout(5):
        assert await waiting == [[], ()]


async def _all(events: Subscription[Any]) -> list[Any]:
    return [event async for event in events]


async def _last(live: LiveSubscription[Any]) -> Any:
    return [snapshot async for snapshot in live][-1]


async def test_leaving_the_context_closes() -> None:
    async with Staging() as staging:
        staging.stage(address(1))
    with pytest.raises(ClosedError, match="This ConnStaging instance is closed"):
        staging.stage(address(1))


async def test_a_burst_costs_a_live_reader_one_snapshot() -> None:
    staging = Staging()
    live = staging.live_entries()
    await ready(live)
    for number in range(1000):
        staging.stage(address(number))
    [snapshot] = await ready(live)
    assert len(snapshot) == 1000


async def test_a_slow_event_reader_is_told_what_it_missed() -> None:
    staging = Staging(limits=Limits(event_backlog=4))
    events = staging.listen()
    for number in range(10):
        staging.stage(address(number))
    assert await ready(events) == [*(Staged(address(number)) for number in range(4)), Lagged(6)]


async def test_cancelling_a_subscription_frees_it() -> None:
    staging = Staging()
    with staging.listen() as events, staging.live_entries() as live:
        gone: list[weakref.ref[Any]] = [weakref.ref(events), weakref.ref(live)]
    del events, live
    gc.collect()
    staging.stage(address(1))
    assert [reference() for reference in gone] == [None, None]


async def test_a_listener_that_unstages_sees_staged_then_unstaged() -> None:
    staging = Staging()
    events = staging.listen()
    seen: list[StagingEvent] = []

    def undo(event: StagingEvent) -> None:
        seen.append(event)
        if event.type == "staged":
            staging.unstage(event.address)

    staging.subscribe(undo)
    assert staging.stage(address(1)) is True
    assert staging.entries() == ()
    expected = [Staged(address(1)), Unstaged(address(1))]
    assert seen == expected
    assert await ready(events) == expected


async def test_a_listener_that_fails_changes_nothing() -> None:
    staging = Staging()
    staging.subscribe(lambda event: 1 // 0)
    assert staging.stage(address(1)) is True
    assert len(staging) == 1


async def test_a_listener_that_stages_while_the_pool_is_full_keeps_the_bound() -> None:
    staging = Staging(limits=Limits(max_staged=3))
    fresh = iter(range(100, 110))

    def refill(event: StagingEvent) -> None:
        if event.type == "unstaged" and (number := next(fresh, None)) is not None:
            staging.stage(address(number))

    staging.subscribe(refill)
    for number in range(6):
        staging.stage(address(number))
        assert len(staging) <= 3


@pytest.mark.parametrize("wrong", [None, 5, b"net:h:1~noise", ["net:h:1"]])
async def test_what_is_no_text_is_a_type_error(wrong: Any) -> None:
    staging = Staging()
    calls: list[Callable[[Any], Any]] = [staging.stage, staging.unstage, staging.get]
    for call in calls:
        with pytest.raises(TypeError):
            call(wrong)


async def test_closed_is_told_before_the_address_is_judged() -> None:
    staging = Staging()
    await staging.close()
    wrong: Any = None
    calls: list[Callable[[Any], Any]] = [staging.stage, staging.unstage, staging.get]
    for call in calls:
        with pytest.raises(ClosedError):
            call(wrong)


async def test_addresses_and_their_texts_name_the_same_entry_and_spellings_do_not() -> None:
    staging = Staging()
    assert staging.stage(Address.parse(address(1))) is True
    assert staging.stage(address(1)) is False
    assert staging.stage(address(1) + ";" + address(2)) is True
    assert staging.unstage(Address.parse(address(1))) is True
    assert [name for name, _ in staging.entries()] == [address(1) + ";" + address(2)]


async def test_views_are_read_only_and_keep_their_moment() -> None:
    staging = Staging()
    given = {"note": 1}
    staging.stage(address(1), given)
    given["note"] = 5
    before = staging.get(address(1))
    assert before is not None
    with pytest.raises(TypeError):
        before["note"] = 2  # type: ignore[index]
    staging.stage(address(1), {"note": 3})
    assert before["note"] == 1
    after = staging.get(address(1))
    assert after is not None
    assert after["note"] == 3


async def test_stamps_from_the_network_are_dropped() -> None:
    clock = Clock()
    staging = Staging(wall_clock=clock)
    lies = {"staging_birth": 1, "staging_updated": 9e15, "note": "kept"}
    staging.stage(address(1), lies, from_network=True)
    clock.now += 5
    staging.stage(address(1), lies, from_network=True)
    assert plain(staging.get(address(1))) == {
        "staging_birth": clock.now - 5,
        "staging_updated": clock.now,
        "note": "kept",
    }


async def test_the_pool_is_bounded_and_the_least_recently_updated_goes() -> None:
    clock = Clock()
    staging = Staging(wall_clock=clock, limits=Limits(max_staged=3))
    for number in range(3):
        clock.now += 1
        staging.stage(address(number))
    clock.now += 1
    staging.stage(address(0))
    events = staging.listen()
    clock.now += 1
    staging.stage(address(3))
    assert [name for name, _ in staging.entries()] == [address(0), address(2), address(3)]
    assert await ready(events) == [Unstaged(address(1), "pool-full"), Staged(address(3))]


async def test_the_applications_own_stamp_decides_who_is_oldest() -> None:
    staging = Staging(limits=Limits(max_staged=2))
    staging.stage(address(1))
    staging.stage(address(2), {"staging_updated": 5})
    staging.stage(address(3))
    assert [name for name, _ in staging.entries()] == [address(1), address(3)]


@pytest.mark.parametrize("stamp", [None, "soon", float("nan"), [1]])
async def test_a_stamp_that_is_no_number_counts_as_oldest(stamp: Any) -> None:
    staging = Staging(limits=Limits(max_staged=2))
    staging.stage(address(1))
    staging.stage(address(2), {"staging_updated": stamp})
    staging.stage(address(3))
    assert [name for name, _ in staging.entries()] == [address(1), address(3)]


async def test_ten_thousand_strangers_do_not_grow_the_pool_nor_its_books() -> None:
    staging = Staging(limits=Limits(max_staged=100))
    for number in range(10_000):
        staging.stage(address(number, key=number % 700), {}, source=str(number % 300))
        staging.stage(address(number, key=number % 700))
    assert len(staging.entries()) == 100
    assert staging.entries()[-1][0] == address(9_999, key=9_999 % 700)
    assert len(staging._groups) == 100
    assert len(staging._keys) <= 100
    assert len(staging._sources) <= 100
    assert len(staging._ages) <= 300


async def test_one_key_holds_a_few_addresses_and_only_its_own_are_pushed_out() -> None:
    staging = Staging(limits=Limits(max_staged_per_key=2))
    events = staging.listen()
    staging.stage(address(9, key=2))
    for number in (1, 2, 3):
        staging.stage(address(number, key=1))
    staging.stage(address(2, key=1))
    staging.stage(address(4, key=1))
    names = [address(9, key=2), address(2, key=1), address(4, key=1)]
    assert [name for name, _ in staging.entries()] == names
    gone = [event for event in await ready(events) if event.type == "unstaged"]
    assert gone == [Unstaged(address(n, key=1), "key-full") for n in (1, 3)]


async def test_an_escaped_key_and_a_told_key_count_too() -> None:
    staging = Staging(limits=Limits(max_staged_per_key=1))
    escaped = [address(number, key=1).replace("noise", "noi!se") for number in (1, 2)]
    if all(Address.check(name) for name in escaped):
        for name in escaped:
            staging.stage(name)
        assert len(staging) == 1
    staging.stage(address(3), {"key": "@told"})
    staging.stage(address(4), {"key": "@told"})
    assert address(3) not in staging


async def test_one_source_cannot_push_out_the_finds_of_another() -> None:
    staging = Staging(max_per_source=2)
    staging.stage(address(1), source="lan")
    for number in range(10, 20):
        staging.stage(address(number), source="10.0.0.66")
    names = [address(1), address(18), address(19)]
    assert [name for name, _ in staging.entries()] == names
