"""A storage that fails at the k-th write, for every k: an error, nothing lost, and it goes on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from covey.errors import StoreError
from covey.feed.messages import BlockRequest, Request
from covey.feed.replication_peer import REQUEST
from covey.store.basestore import Basestore
from covey.store.downloads import Download
from covey.store.feed import Feed
from covey.store.feed_events import FeedEvent
from covey.store.log_writing import MAX_RETRY_STORE, RETRY_STORE, TRIED, TRY_EVERY
from covey.store.memory_storage import MemoryStorage
from covey.store.record_keys import STORE_TRIAL, block_key
from covey.store.storage import KeyRange, Put
from tests.store.meeting import blocks_of, happened, met, numbered, place, same, take
from tests.store.turned_clock import Middle, TurnedClock
from tests.waiting import PATIENCE, turns, until

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

        async def in_the_end(download: Download) -> None:
            while not download.finished:
                with contextlib.suppress(StoreError):
                    await download.done()
                # It goes on by itself when its time has come.
                await until(lambda: not reader._opened.replicator.downloads.suspended)

        async def caught_up() -> None:
            while not await same(writer, reader) or reader.contiguous_length < writer.length:
                done = reader.download(0, writer.length)
                arrived = asyncio.ensure_future(in_the_end(done))
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


class Small(MemoryStorage):
    """Has so much room for each batch as `room` says."""

    def __init__(self) -> None:
        super().__init__()
        self.room = 1 << 30
        self.trials = 0

    def write_batch(
        self,
        puts: Iterable[Put],
        deletes: Iterable[bytes] = (),
        range_deletes: Iterable[KeyRange] = (),
    ) -> None:
        """Fail where a batch is too large."""
        items = list(puts)
        self.trials += any(key == STORE_TRIAL for key, _ in items)
        if sum(len(value) for _, value in items) > self.room:
            raise StoreError("no space left on this disk")
        super().write_batch(items, deletes, range_deletes)


class Reading(NamedTuple):
    """A reader of a log whose store is full, with the clock that it goes by."""

    writer: Feed
    reader: Feed
    storage: Small
    clock: TurnedClock


@asynccontextmanager
async def reading(blocks: list[bytes]) -> AsyncIterator[Reading]:
    storage, clock = Small(), TurnedClock()
    async with (
        Basestore() as first,
        Basestore(storage=storage, clock=clock, chance=Middle()) as second,
        met(first, second),
    ):
        writer = await first.get("log")
        await writer.append(blocks)
        reader = await second.get(writer.key)
        await reader.update(wait=True)
        storage.room = 0
        yield Reading(writer, reader, storage, clock)


async def test_all_that_waits_for_a_full_store_is_told_and_can_be_asked_for_again() -> None:
    async with reading(numbered(30)) as (_, reader, storage, clock):
        waiting = [
            reader.get(0),
            blocks_of(reader),
            take(reader.live(), 1),
            reader.download(0, 5).done(),
            reader.get(40),
        ]
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(error) for error in results] == ["no space left on this disk"] * 5
        assert all(isinstance(error, StoreError) for error in results)
        with pytest.raises(StoreError, match="no space left"):
            await reader.download(0, 5).done()
        storage.room = 1 << 30
        await clock.advance(TRY_EVERY)
        async with asyncio.timeout(PATIENCE):
            assert await reader.get(0) == b"block 0"
            assert await blocks_of(reader) == numbered(30)


async def test_an_update_whose_head_cannot_be_kept_is_told() -> None:
    async with reading(numbered(3)) as (writer, reader, _, _):
        news = asyncio.ensure_future(reader.update(wait=True))
        await turns(1)
        await writer.append(b"more")
        waiting = asyncio.ensure_future(reader.get(3))
        with pytest.raises(StoreError, match="no space left"):
            await waiting
        with contextlib.suppress(StoreError):
            await news
        with pytest.raises(StoreError, match="no space left"):
            await reader.update()
        assert reader.length == 3


async def test_a_store_that_stays_full_is_tried_ever_less_and_no_peer_sends_again() -> None:
    async with reading([bytes([index]) * 50_000 for index in range(100)]) as made:
        writer, reader, storage, clock = made
        failures: list[FeedEvent] = []
        reader.subscribe(
            lambda event: failures.append(event) if event.type == "store-error" else None
        )
        download = reader.download(0, 100)
        with pytest.raises(StoreError):
            await download.done()
        await until(lambda: not reader._opened.replicator.downloads.pool.asked)
        sent = writer.progress.uploaded_bytes
        pauses, pause = [], RETRY_STORE
        while pause < MAX_RETRY_STORE:
            pauses.append(pause)
            pause = min(2 * pause, MAX_RETRY_STORE)
        for pause in [*pauses, MAX_RETRY_STORE, MAX_RETRY_STORE]:
            before = storage.trials
            await clock.advance(pause / 2)
            assert storage.trials == before
            await clock.advance(pause / 2 + 0.1)
            assert storage.trials == before + 1
        assert writer.progress.uploaded_bytes == sent
        assert len(failures) == 1
        storage.room = 1 << 30
        await clock.advance(MAX_RETRY_STORE)
        await until(lambda: download.finished)
        assert reader.contiguous_length == 100


async def test_users_who_ask_again_and_again_have_a_full_store_tried_once_a_second() -> None:
    async with reading(numbered(30)) as (_, reader, storage, clock):
        for _ in range(20):
            with pytest.raises(StoreError):
                await reader.get(0)
        assert storage.trials <= 1
        await clock.advance(TRY_EVERY)
        for _ in range(20):
            with pytest.raises(StoreError):
                await reader.get(0)
        assert storage.trials == 2


async def test_a_store_that_takes_what_it_is_tried_with_and_nothing_else_is_left_alone() -> None:
    async with reading([bytes([index]) * 700_000 for index in range(20)]) as made:
        _, reader, storage, clock = made
        storage.room = TRIED + 1
        failures: list[FeedEvent] = []
        reader.subscribe(
            lambda event: failures.append(event) if event.type == "store-error" else None
        )
        reader.download(0, 20)
        for count, pause in enumerate([RETRY_STORE, 2 * RETRY_STORE, 4 * RETRY_STORE], 1):
            await until(lambda count=count: len(failures) == count)  # type: ignore[misc]
            await clock.advance(pause / 2)
            assert len(failures) == count
            if count > 1:
                with pytest.raises(StoreError):
                    await reader.get(19)
                assert len(failures) == count
            await clock.advance(pause / 2 + 0.1)
        assert storage.trials == 3


async def test_a_remote_that_asks_for_a_damaged_block_ends_nothing_that_users_wait_for() -> None:
    class Damaged(MemoryStorage):
        damaged: bytes | None = None

        def get(self, key: bytes) -> bytes | None:
            return b"damaged" if key == self.damaged else super().get(key)

    storage, clock = Damaged(), TurnedClock()
    async with (
        Basestore() as first,
        Basestore(storage=storage, clock=clock, chance=Middle()) as second,
        Basestore() as third,
        place(first) as one,
        place(second) as two,
        place(third) as three,
    ):
        writer = await first.get("log")
        await writer.append(numbered(30))
        reader, asker = await second.get(writer.key), await third.get(writer.key)
        await two.dial(one.port)
        async with asyncio.timeout(PATIENCE):
            assert await reader.get(5) == b"block 5"
            storage.damaged = block_key(reader._opened.core, 5)
            events = reader.listen()
            waiting = asyncio.create_task(reader.get(30))
            download = reader.download(25, 31)
            await three.dial(two.port)
            asked = asyncio.create_task(asker.get(5))
            await until(lambda: bool(asker.peers))
            (peer,) = asker._opened.replicator.peers
            for number in range(900, 910):
                peer.tell(REQUEST, Request(number, 0, BlockRequest(5, 0)))
            told = await happened(events, "read-error")
            assert "block 5" in str(getattr(told, "error", None))
            for index in range(10, 20):
                assert await reader.get(index) == b"block %d" % index
            await writer.append([b"last"])
            assert await waiting == b"last"
            await download.done()
        asked.cancel()
        assert reader._opened.writing._failure is None
        with pytest.raises(StoreError, match="block 5"):
            await reader.get(5)
