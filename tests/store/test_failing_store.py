"""A storage that fails at the k-th write, for every k: an error, nothing lost, and it goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

from covey.errors import StoreError
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.store.memory_storage import MemoryStorage
from covey.store.storage import KeyRange, Put
from tests.store.meeting import blocks_of, numbered, place, same
from tests.store.turned_clock import Middle, TurnedClock
from tests.waiting import PATIENCE

SECRET = bytes(range(32))


class Failing(MemoryStorage):
    """Fails at one write, the `fails_at`th from when that was set."""

    def __init__(self) -> None:
        super().__init__()
        self.fails_at: int | None = None
        self.writes = 0

    def write_batch(
        self,
        puts: Iterable[Put],
        deletes: Iterable[bytes] = (),
        range_deletes: Iterable[KeyRange] = (),
    ) -> None:
        """Fail in time."""
        self.writes += 1
        if self.fails_at is not None and self.writes == self.fails_at:
            raise StoreError("no space left on this disk")
        super().write_batch(puts, deletes, range_deletes)


async def written(feed: Feed, errors: list[StoreError]) -> None:
    """A scenario of a writer; what fails is done again."""

    async def insist(*steps: tuple[str, tuple[object, ...]]) -> None:
        for name, arguments in steps:
            try:
                await getattr(feed, name)(*arguments)
            except StoreError as error:
                before = (feed.length, feed.fork)
                errors.append(error)
                await getattr(feed, name)(*arguments)
                assert (feed.length, feed.fork) != before or name == "set_user_data"

    await insist(
        ("append", (numbered(10),)),
        ("append", (b"one",)),
        ("truncate", (7,)),
        ("append", (numbered(5, name="other"),)),
        ("set_user_data", ("name", b"value")),
        ("append", (b"last",)),
    )


async def test_a_writer_whose_store_fails_at_any_write_loses_nothing() -> None:
    failures = 0
    for fails_at in range(1, 50):
        storage = Failing()
        async with Basestore(storage=storage, primary_key=SECRET) as store:
            feed = await store.get("log", encryption_key=SECRET)
            storage.fails_at = storage.writes + fails_at
            errors: list[StoreError] = []
            await written(feed, errors)
            failures += len(errors)
            assert await blocks_of(feed) == [
                *numbered(7),
                *numbered(5, name="other"),
                b"last",
            ]
            assert (await feed.verify()).held == 13
            if not errors:
                break
    assert failures == 6


@pytest.mark.parametrize("fails_at", range(1, 12))
async def test_a_reader_whose_store_fails_at_any_write_has_everything_in_the_end(
    fails_at: int,
) -> None:
    storage = Failing()
    clock = TurnedClock()
    async with (
        Basestore() as first,
        Basestore(storage=storage, clock=clock, chance=Middle()) as second,
        place(first) as one,
        place(second) as two,
    ):
        writer = await first.get("log")
        await writer.append(numbered(300))
        reader = await second.get(writer.key)
        storage.fails_at = storage.writes + fails_at

        async def caught_up() -> None:
            while not await same(writer, reader) or reader.contiguous_length < writer.length:
                done = reader.download(0, writer.length)
                arrived = asyncio.ensure_future(done.done())
                while not (arrived.done() and await same(writer, reader)):
                    await clock.advance(6)
                await arrived

        await two.dial(one.port)
        async with asyncio.timeout(PATIENCE):
            await caught_up()
            await writer.truncate(150)
            await writer.append(numbered(100, start=150, name="other"))
            await caught_up()
        assert await blocks_of(reader) == await blocks_of(writer)
        assert (await reader.verify()).held == 250
