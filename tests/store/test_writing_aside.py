"""Large blocks are written in a thread: what is done meanwhile keeps its order and its safety."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from covey.errors import StoreError
from covey.feed.log import Log
from covey.feed.verify import Verified
from covey.store import log_writing
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.store.feed_events import FeedEvent
from covey.store.lmdb_storage import LmdbStorage
from covey.store.storage import KeyRange, Put
from tests.store.meeting import met
from tests.store.stored_logs import assert_intact
from tests.waiting import PATIENCE

SIZE = 64 << 10
COUNT = 40


class Gated(LmdbStorage):
    """Writes of a thread wait for `gate`, and fail where they are told to."""

    __slots__ = ("fails", "fault", "gate", "threaded", "waiting")

    def __init__(self, path: Path) -> None:
        super().__init__(path, sync=False)
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.threaded = 0
        self.fails: set[int] = set()
        self.fault: Exception | None = None

    def write_batch(
        self,
        puts: Iterable[Put],
        deletes: Iterable[bytes] = (),
        range_deletes: Iterable[KeyRange] = (),
    ) -> None:
        if threading.current_thread() is not threading.main_thread():
            self.threaded += 1
            self.waiting.set()
            assert self.gate.wait(PATIENCE)
            if self.fault is not None:
                raise self.fault
            if self.threaded in self.fails:
                raise StoreError("no space left on this disk")
        super().write_batch(puts, deletes, range_deletes)


def large(count: int = COUNT, start: int = 0) -> list[bytes]:
    return [b"%d;" % index * (SIZE // 8) for index in range(start, start + count)]


@pytest.fixture(autouse=True)
def any_size_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks have to be large still, however few there are."""
    monkeypatch.setattr(log_writing, "ASIDE_BYTES", 1)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110  what a thread or a remote does has no event
            await asyncio.sleep(0.001)


@asynccontextmanager
async def reading(path: Path) -> AsyncIterator[tuple[Gated, Basestore, Feed, Feed]]:
    """A reader whose first large writing stands still; its storage, its store, both feeds."""
    storage = Gated(path)
    async with Basestore() as first, Basestore(storage=storage) as second, met(first, second):
        writer = await first.get("log")
        await writer.append(large())
        reader = await second.get(writer.key)
        await reader.update(wait=True)
        storage.gate.clear()
        reader.download(0, COUNT)
        await until(storage.waiting.is_set)
        yield storage, second, writer, reader


def release_soon(storage: Gated) -> None:
    """Let the writing go on while the loop may be waiting for it."""
    threading.Timer(0.02, storage.gate.set).start()


async def test_the_loop_goes_on_and_shows_what_is_being_written(tmp_path: Path) -> None:
    async with reading(tmp_path) as (storage, _, _, reader):
        log = reader._log
        await until(lambda: reader.progress.verified == COUNT)
        assert log.writing_blocks
        assert reader.progress.have == 0
        assert not await reader.has(0)
        staged = next(index for index in range(COUNT) if log.is_staged(index))
        assert await reader.get(staged) == large()[staged]
        storage.gate.set()
        await until(lambda: reader.contiguous_length == COUNT)
        assert log.writing_blocks == 0
    with LmdbStorage(tmp_path) as again:
        assert list(assert_intact(again, 0).bitfield.ranges(0, COUNT)) == [(0, COUNT)]


async def clear_all(reader: Feed, _: Feed) -> None:
    await reader.clear(0, COUNT)
    assert reader.progress.have == 0


async def keep_data(reader: Feed, _: Feed) -> None:
    await reader.set_user_data("note", b"value")
    assert await reader.get_user_data("note") == b"value"


async def verify_all(reader: Feed, _: Feed) -> None:
    report = await reader.verify()
    assert report.held > 0


async def append_more(reader: Feed, writer: Feed) -> None:
    await writer.append(large(2, COUNT))
    await until(lambda: reader.length == COUNT + 2)


async def cut(reader: Feed, writer: Feed) -> None:
    await writer.truncate(7)
    await writer.append(b"another history")
    reader.download(0, -1)
    await until(lambda: (reader.fork, reader.length, reader.contiguous_length) == (1, 8, 8))


async def close_feed(reader: Feed, _: Feed) -> None:
    await reader.close()


@pytest.mark.parametrize("change", [clear_all, keep_data, verify_all, append_more, cut, close_feed])
async def test_a_change_meanwhile_waits_for_the_writing(
    tmp_path: Path, change: Callable[[Feed, Feed], Awaitable[None]]
) -> None:
    async with reading(tmp_path) as (storage, store, writer, reader):
        release_soon(storage)
        async with asyncio.timeout(PATIENCE):
            await change(reader, writer)
        state = (reader.length, reader.fork)
        await store.close()
    with LmdbStorage(tmp_path) as again:
        log = assert_intact(again, 0)
        assert (log.length, log.fork) == state


async def test_close_waits_for_the_writing_and_keeps_all_that_came(tmp_path: Path) -> None:
    async with reading(tmp_path) as (storage, store, _, reader):
        await until(lambda: reader.progress.verified == COUNT)
        release_soon(storage)
        await store.close()
        assert not any(thread.name.startswith("covey store") for thread in threading.enumerate())
    with LmdbStorage(tmp_path) as again:
        assert assert_intact(again, 0).contiguous_length == COUNT


@pytest.mark.parametrize("fails_at", [1, 2])
async def test_a_writing_that_fails_is_told_and_its_blocks_are_fetched_again(
    tmp_path: Path, fails_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writing, "FLUSH_BYTES", 1 << 20)
    monkeypatch.setattr(log_writing, "RETRY_STORE", 0.01)
    storage = Gated(tmp_path)
    async with Basestore() as first, Basestore(storage=storage) as second, met(first, second):
        writer = await first.get("log")
        await writer.append(large(120))
        reader = await second.get(writer.key)
        failures: list[FeedEvent] = []
        reader.subscribe(failures.append)
        await reader.update(wait=True)
        storage.fails = {fails_at}
        download = reader.download(0, 120)
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(StoreError, match="no space left"):
                await download.done()
            await download.done()
        assert [event.type for event in failures].count("store-error") == 1
        assert storage.threaded > fails_at
        assert reader._log.writing_blocks == reader._log.staged_blocks == 0
        assert (await reader.verify()).held == 120
    with LmdbStorage(tmp_path) as again:
        assert assert_intact(again, 0).contiguous_length == 120


async def test_a_disk_slower_than_the_peers_is_not_asked_for_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_writing, "FLUSH_BYTES", 1 << 19)
    monkeypatch.setattr(log_writing, "HOLD_BYTES", 1 << 20)
    storage = Gated(tmp_path)
    async with Basestore() as first, Basestore(storage=storage) as second, met(first, second):
        writer = await first.get("log")
        await writer.append(large(400))
        reader = await second.get(writer.key)
        await reader.update(wait=True)
        storage.gate.clear()
        done = reader.download(0, 400)
        pool = reader._opened.replicator.downloads
        await until(lambda: pool.suspended and not pool.pool.asked)
        most = reader._log.staged_bytes
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert reader._log.staged_bytes == most < 8 << 20  # what was asked for by then still came
        storage.gate.set()
        async with asyncio.timeout(PATIENCE):
            await done.done()
        assert not pool.suspended
        assert reader.contiguous_length == 400


async def test_logs_of_one_store_write_in_turns(tmp_path: Path) -> None:
    storage = Gated(tmp_path)
    async with Basestore() as first, Basestore(storage=storage) as second, met(first, second):
        writers = [await first.get(name) for name in ("a", "b", "c")]
        for index, writer in enumerate(writers):
            await writer.append(large() if index < 2 else [b"small"] * 20)
        readers = [await second.get(writer.key) for writer in writers]
        for reader in readers:
            await reader.update(wait=True)
        storage.gate.clear()
        downloads = [reader.download(0, reader.length) for reader in readers]
        await until(storage.waiting.is_set)
        await until(lambda: all(r.progress.verified == r.length for r in readers))
        assert sum(reader._log.writing_blocks > 0 for reader in readers) == 1
        storage.gate.set()
        async with asyncio.timeout(PATIENCE):
            for download in downloads:
                await download.done()
        assert [reader.contiguous_length for reader in readers] == [COUNT, COUNT, 20]


async def by_a_clear(reader: Feed) -> None:
    await reader.clear(0)


async def by_the_log(reader: Feed) -> None:
    """As `accept` does it when too much is staged."""
    reader._log.flush()
    reader._opened.touch()


@pytest.mark.parametrize("written", [by_a_clear, by_the_log])
async def test_a_log_that_was_held_back_goes_on_however_its_blocks_were_written(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: Callable[[Feed], Awaitable[None]],
) -> None:
    monkeypatch.setattr(log_writing, "HOLD_BYTES", 1 << 20)
    storage = Gated(tmp_path)
    async with Basestore() as first, Basestore(storage=storage) as second, met(first, second):
        other, writer = await first.get("other"), await first.get("log")
        await other.append(large())
        await writer.append(large(400))
        slow, reader = await second.get(other.key), await second.get(writer.key)
        await slow.update(wait=True)
        await reader.update(wait=True)
        storage.gate.clear()
        slow.download(0, COUNT)
        await until(storage.waiting.is_set)
        done = reader.download(0, 400)
        pool = reader._opened.replicator.downloads
        await until(lambda: pool.suspended and not pool.pool.asked)
        await written(reader)
        storage.gate.set()
        async with asyncio.timeout(PATIENCE):
            await done.done()
        assert not pool.suspended


async def test_a_writing_that_ends_in_a_fault_of_ours_leaves_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda _, context: faults.append(context.get("exception"))
    )
    async with reading(tmp_path) as (storage, _, _, reader):
        opened = reader._opened
        opened.writing._hold_back()
        monkeypatch.setattr(storage, "fault", RuntimeError("a fault of ours"))
        storage.gate.set()
        await until(lambda: bool(faults))
        assert not opened.writing.held_back
        assert "a fault of ours" in str(faults[0])
        with pytest.raises(StoreError, match="opened again"):
            await reader.set_user_data("note", b"value")


async def test_small_blocks_are_written_by_the_loop(tmp_path: Path) -> None:
    storage = Gated(tmp_path)
    async with Basestore() as first, Basestore(storage=storage) as second, met(first, second):
        writer = await first.get("log")
        await writer.append([b"%d" % index * 300 for index in range(3000)])
        reader = await second.get(writer.key)
        async with asyncio.timeout(PATIENCE):
            await reader.update(wait=True)
            await reader.download(0, 3000).done()
        assert storage.threaded == 0


async def test_nothing_is_written_between_the_check_of_an_answer_and_its_staging(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[bool] = []
    look, accept = log_writing.LogWriting.look, Log.accept
    async with Basestore() as first, Basestore() as second, met(first, second):
        writer = await first.get("log")
        await writer.append(large())
        reader = await second.get(writer.key)
        opened = reader._opened

        def spied_look(writing: log_writing.LogWriting, *, soon: bool) -> None:
            looks.append(opened.replicator.inside)
            look(writing, soon=soon)

        def disturbed(log: Log, verified: Verified) -> None:
            opened.touch()
            accept(log, verified)

        monkeypatch.setattr(log_writing.LogWriting, "look", spied_look)
        monkeypatch.setattr(Log, "accept", disturbed)
        async with asyncio.timeout(PATIENCE):
            await reader.download(0, COUNT).done()
    assert looks
    assert not any(looks)
