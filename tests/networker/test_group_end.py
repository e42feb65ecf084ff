"""The end of a group, and groups that cannot be."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from covey.errors import ClosedError, StoreError, UsageError
from covey.store.basestore import Basestore
from covey.wakeup import Wakeup
from tests.networker.groups import (
    CAPABILITY,
    append,
    two,
    two_stores,
)
from tests.networker.support import FakeStore, quiet, until


async def test_close_ends_everything_and_may_be_called_again() -> None:
    async with two_stores(2) as (stores, keys), two(stores, keys, linger=60) as (first, second):
        await append(stores[0], keys[0], b"new")
        await until(lambda: second.group.woken)
        events = second.group.listen()
        await second.group.close()
        await second.group.close()
        assert second.group.closed
        assert second.group.woken == frozenset()
        assert second.networker.groups == []
        assert all(event.type != "idle-closed" for event in [one async for one in events])
        for call in (second.group.lookup, second.group.add, second.group.remove):
            with pytest.raises(ClosedError):
                call()
        with pytest.raises(ClosedError):
            second.group.listen()
        again = second.networker.group(CAPABILITY, keys)
        await again.ready()
        await until(lambda: again.peers)
        assert not first.group.closed


async def test_a_group_ends_with_its_networker() -> None:
    async with two_stores(1) as (stores, keys), two(stores, keys) as (first, second):
        await second.networker.close()
        assert second.group.closed
        assert second.networker.wakeup is not None
        assert second.networker.wakeup.closed
        await until(lambda: not first.group.peers)
        assert [event.type for event in first.events] == ["peer-add", "peer-remove"]


async def test_a_given_wakeup_stays_open() -> None:
    async with Basestore() as store, Wakeup() as wakeup:
        async with quiet(store, wakeup=wakeup) as (networker, _):
            assert networker.wakeup is wakeup
            await networker.group(CAPABILITY).ready()
            assert len(wakeup.topics) == 1
        assert not wakeup.closed


async def test_without_wakeup_there_are_no_groups() -> None:
    async with Basestore() as store, quiet(store, wakeup=False) as (networker, _):
        assert networker.wakeup is None
        with pytest.raises(UsageError, match="wakeup"):
            networker.group(CAPABILITY)


async def test_a_store_that_tells_no_heads_has_no_groups() -> None:
    async with quiet(FakeStore()) as (networker, _):
        with pytest.raises(UsageError, match="heads"):
            networker.group(CAPABILITY)


@pytest.mark.parametrize(
    "arguments",
    [
        {"capability": b"short"},
        {"linger": -1.0},
        {"feeds": [b"short"]},
        {"discovery_key": b"short"},
        {"discovery_key": "d" * 32},
    ],
)
async def test_what_makes_no_group_is_refused(arguments: dict[str, Any]) -> None:
    async with Basestore() as store, quiet(store) as (networker, _):
        with pytest.raises(UsageError):
            networker.group(**{"capability": CAPABILITY, **arguments})
        assert networker.groups == []


async def test_the_same_group_is_opened_once() -> None:
    async with Basestore() as store, quiet(store) as (networker, _):
        made = networker.group(CAPABILITY)
        with pytest.raises(UsageError, match="open already"):
            networker.group(CAPABILITY)
        assert networker.groups == [made]
        await made.close()
        assert repr(made) == "<WakeupGroup closed>"


async def test_a_group_of_a_wakeup_that_is_closed_is_refused() -> None:
    wakeup = Wakeup()
    async with Basestore() as store, quiet(store, wakeup=wakeup) as (networker, _):
        await wakeup.close()
        with pytest.raises(ClosedError, match="wakeup"):
            networker.group(CAPABILITY)
        assert networker.groups == []


async def test_a_discovery_key_is_of_one_capability() -> None:
    async with Basestore() as store, quiet(store) as (networker, _):
        first = networker.group(CAPABILITY, discovery_key=b"d" * 32)
        meanwhile = networker.group(b"2" * 32, discovery_key=b"d" * 32)
        await first.ready()
        with pytest.raises(UsageError, match="another capability"):
            await meanwhile.ready()
        with pytest.raises(UsageError, match="another capability"):
            networker.group(b"3" * 32, discovery_key=b"d" * 32)


async def test_whatever_fails_at_the_beginning_is_raised_by_ready(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with Basestore() as store, quiet(store) as (networker, _):

        async def fail(_keys: object) -> dict[bytes, tuple[int, int]]:
            raise RuntimeError("unforeseen")

        monkeypatch.setattr(store, "heads", fail)
        with caplog.at_level(logging.CRITICAL, "covey.networker"):
            group = networker.group(CAPABILITY)
            async with asyncio.timeout(5):
                with pytest.raises(RuntimeError, match="unforeseen"):
                    await group.ready()


async def test_heads_that_cannot_be_read_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Basestore() as store, quiet(store) as (networker, _):

        async def fail(_keys: object) -> dict[bytes, tuple[int, int]]:
            raise StoreError("damaged")

        monkeypatch.setattr(store, "heads", fail)
        group = networker.group(CAPABILITY)
        events = group.listen()
        with pytest.raises(StoreError):
            await group.ready()
        assert (await anext(events)).error.args == ("damaged",)  # type: ignore[union-attr]
