"""A feed alone in its store: written, read, cut, verified, with nobody else there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Literal

import pytest

from covey.errors import (
    BlockNotAvailable,
    ClosedError,
    FeedTimeout,
    FrozenError,
    StoreError,
    UsageError,
)
from covey.feed.manifest import Manifest, Signer
from covey.feed.messages import MAX_BLOCK
from covey.keys import KeyPair
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.store.feed_events import Appended, Cleared, FeedClosed, Truncated
from covey.store.lmdb_storage import LmdbStorage
from covey.store.log_records import StoredRecords
from covey.store.records import block_key
from tests.store.meeting import blocks_of, happened, met, numbered, take
from tests.waiting import PATIENCE, turns, until

SECRET = bytes(range(32))


@pytest.fixture(params=["memory", "disk"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Basestore]:
    """A store, empty."""
    path = tmp_path / "store" if request.param == "disk" else None
    async with Basestore(path) as made:
        yield made


@pytest.fixture
async def feed(store: Basestore) -> Feed:
    """A log with ten blocks."""
    made = await store.get("log")
    await made.append(numbered(10))
    return made


# Writing and reading


async def test_an_append_tells_the_new_length_and_the_blocks_are_read_back(
    store: Basestore,
) -> None:
    feed = await store.get("log")
    assert (feed.length, feed.byte_length, feed.fork, feed.contiguous_length) == (0, 0, 0, 0)
    assert await feed.append(b"one") == (1, 3)
    result = await feed.append([b"two", bytearray(b"three"), memoryview(b"")])
    assert (result.length, result.byte_length) == (4, 11)
    assert await blocks_of(feed) == [b"one", b"two", b"three", b""]
    assert feed.contiguous_length == 4
    assert await feed.append([]) == (4, 11)


async def test_a_large_block_is_kept_and_one_that_is_too_large_is_refused(
    store: Basestore,
) -> None:
    feed = await store.get("log")
    await feed.append(bytes(1 << 20))
    assert await feed.get(0) == bytes(1 << 20)
    with pytest.raises(UsageError, match="at most"):
        await feed.append([b"fine", bytes(MAX_BLOCK + 1)])
    assert feed.length == 1, "all of it or nothing"


@pytest.mark.parametrize("block", ["text", 7, None, ["nested"]])
async def test_only_bytes_are_blocks(store: Basestore, block: object) -> None:
    feed = await store.get("log")
    with pytest.raises(UsageError, match="bytes"):
        await feed.append([block])  # type: ignore[list-item]
    assert feed.length == 0


async def test_a_log_is_the_same_after_a_restart(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        feed = await store.get("log")
        await feed.append(numbered(10))
        await feed.truncate(7)
        await feed.clear(2)
        key, tree = feed.key, await feed.tree_hash()
    async with Basestore(tmp_path) as store:
        feed = await store.get("log")
        assert (feed.key, feed.length, feed.fork) == (key, 7, 1)
        assert await feed.tree_hash() == tree
        assert feed.contiguous_length == 2
        assert not await feed.has(2)
        assert await feed.get(3) == b"block 3"
        assert await feed.append(b"more") == (8, 7 * 7 + 4)


async def test_a_block_that_is_not_here_is_not_waited_for_when_asked_so(feed: Feed) -> None:
    with pytest.raises(BlockNotAvailable, match="10"):
        await feed.get(10, wait=False)


async def test_a_block_that_does_not_come_in_time_is_a_timeout(feed: Feed) -> None:
    with pytest.raises(FeedTimeout, match="block 10"):
        await feed.get(10, timeout=0)
    patient = feed.session(timeout=0)
    with pytest.raises(FeedTimeout):
        await patient.get(10)


async def test_a_block_that_is_waited_for_comes_with_an_append(feed: Feed) -> None:
    waiting = asyncio.ensure_future(feed.get(10))
    await turns(3)
    assert not waiting.done()
    await feed.append(b"here")
    async with asyncio.timeout(PATIENCE):
        assert await waiting == b"here"


@pytest.mark.parametrize("index", [-1, 1 << 53, 1.5, "0"])
async def test_what_is_no_number_of_a_block_is_refused(feed: Feed, index: object) -> None:
    with pytest.raises(UsageError):
        await feed.get(index)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", ["a", 1.5, -1])
async def test_wrong_numbers_are_told_in_words(feed: Feed, wrong: Any) -> None:
    for call in (
        feed.has(wrong),
        feed.has(0, wrong),
        feed.clear(wrong),
        feed.truncate(wrong),
        feed.truncate(5, fork=wrong),
        feed.tree_hash(wrong),
    ):
        with pytest.raises(UsageError):
            await call
    for use in (
        lambda: feed.download(wrong),
        lambda: feed.download(blocks=[wrong]),
        lambda: feed.download(blocks=wrong),
        lambda: feed.read(wrong),
        lambda: feed.read(0, wrong, by="bytes"),
        lambda: feed.live(wrong),
    ):
        with pytest.raises(UsageError):
            use()
    assert (feed.length, feed.fork, feed.progress.have) == (10, 0, 10)


async def test_wrong_values_are_told_in_words(feed: Feed) -> None:
    wrong: Any
    for wrong in (None, 3, "text", [None]):
        with pytest.raises(UsageError, match="bytes, not"):
            await feed.append(wrong)
    for wrong in ("text", 3):
        with pytest.raises(UsageError, match="bytes, not"):
            await feed.set_user_data("title", wrong)
    assert feed.length == 10


async def test_has_tells_of_one_block_and_of_ranges(feed: Feed) -> None:
    await feed.clear(3, 5)
    assert await feed.has(2)
    assert not await feed.has(3)
    assert await feed.has(5, 10)
    assert not await feed.has(2, 4)
    assert await feed.has(4, 4), "nothing is missing of nothing"
    assert not await feed.has(9, 11)


async def test_byte_offsets_are_found(store: Basestore) -> None:
    feed = await store.get("log")
    await feed.append([b"abc", b"", b"defgh"])
    assert [await feed.seek(at) for at in (0, 2, 4, 7)] == [(0, 0), (0, 2), (2, 1), (2, 4)]
    assert await feed.seek(8) == (3, 0)
    with pytest.raises(UsageError, match="8 bytes"):
        await feed.seek(9)
    with pytest.raises(UsageError):
        await feed.seek(-1)


@pytest.mark.parametrize(("start", "end"), [(0, 8), (2, 5), (3, 3), (3, 8), (7, 8), (0, 3), (1, 2)])
async def test_a_range_of_bytes_is_exactly_that(store: Basestore, start: int, end: int) -> None:
    feed = await store.get("log")
    await feed.append([b"abc", b"", b"defgh"])
    pieces = [piece async for piece in feed.read(start, end, by="bytes")]
    assert b"".join(pieces) == b"abcdefgh"[start:end]
    assert b"" not in pieces


async def test_a_range_of_blocks_is_exactly_that(feed: Feed) -> None:
    assert await blocks_of(feed, 3, 6) == [b"block 3", b"block 4", b"block 5"]
    assert await blocks_of(feed, 6, 6) == []
    with pytest.raises(UsageError):
        await blocks_of(feed, 6, 3)
    with pytest.raises(UsageError, match="by blocks or by bytes"):
        feed.read(by="words")  # type: ignore[arg-type]


async def test_a_live_reader_gets_what_is_there_and_what_comes(feed: Feed) -> None:
    reader = feed.live(8)
    assert await take(reader, 2) == [b"block 8", b"block 9"]
    waiting = asyncio.ensure_future(take(reader, 2))
    await turns(3)
    await feed.append([b"x", b"y"])
    assert await waiting == [b"x", b"y"]


async def test_a_live_reader_goes_back_with_a_truncation(feed: Feed) -> None:
    reader = feed.live(3)
    assert await take(reader, 7) == numbered(7, start=3)
    waiting = asyncio.ensure_future(take(reader, 3))
    await turns(3)
    await feed.truncate(4)
    await feed.append([b"4", b"5", b"6"])
    assert await waiting == [b"4", b"5", b"6"]


@pytest.mark.parametrize("start", [8, 11])
async def test_a_live_reader_gets_nothing_before_its_start_after_a_cut(
    feed: Feed, start: int
) -> None:
    reader = feed.live(start)
    assert await take(reader, max(10 - start, 0)) == numbered(10)[start:]
    waiting = asyncio.ensure_future(take(reader, 2))
    await turns(3)
    await feed.truncate(4)
    await feed.append(numbered(9, start=4, name="other"))
    async with asyncio.timeout(PATIENCE):
        assert await waiting == numbered(2, start=start, name="other")


async def test_a_live_reader_of_a_snapshot_ends_with_it(feed: Feed) -> None:
    snapshot = feed.snapshot()
    await feed.append(b"later")
    async with asyncio.timeout(PATIENCE):
        assert [block async for block in snapshot.live(8)] == [b"block 8", b"block 9"]
        assert [block async for block in snapshot.live(20)] == []


@pytest.mark.parametrize("by", ["blocks", "bytes"])
@pytest.mark.parametrize(("cut", "again"), [(2, 8), (4, 6), (9, 1), (2, 0)])
async def test_a_range_is_of_one_history_or_ends_with_an_error(
    feed: Feed, cut: int, again: int, by: Literal["blocks", "bytes"]
) -> None:
    reader = feed.read(by=by)
    assert await take(reader, 3) == numbered(3)
    await feed.truncate(cut)
    await feed.append(numbered(again, start=cut, name="other"))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BlockNotAvailable, match=f"cut to {cut} blocks"):
            await anext(reader)


async def test_a_range_before_the_cut_is_read_on(feed: Feed) -> None:
    read = []
    async for block in feed.read(0, 6):
        read.append(block)
        if len(read) == 3:
            await feed.truncate(6)
    assert read == numbered(6)


async def test_a_range_that_waits_ends_when_the_log_is_cut(feed: Feed) -> None:
    waiting = asyncio.ensure_future(blocks_of(feed, 8, 12))
    await turns(3)
    assert not waiting.done()
    await feed.truncate(9)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BlockNotAvailable, match="cut to 9 blocks"):
            await waiting


async def test_a_range_that_was_cut_before_its_first_block_is_not_waited_for(feed: Feed) -> None:
    reader = feed.read()
    await feed.truncate(4)
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BlockNotAvailable, match="cut before"):
            await anext(reader)


async def test_a_range_has_the_patience_of_its_session(feed: Feed) -> None:
    with pytest.raises(FeedTimeout, match="block 10"):
        await blocks_of(feed.session(timeout=0), 9, 12)


async def test_a_live_reader_ends_with_its_session(feed: Feed) -> None:
    session = feed.session()
    reader = session.live(10)
    waiting = asyncio.ensure_future(anext(reader, None))
    await turns(3)
    await session.close()
    assert await waiting is None


# Cutting and clearing


async def test_a_truncation_raises_the_fork_and_other_blocks_may_follow(feed: Feed) -> None:
    events = feed.listen()
    await feed.truncate(4)
    assert (feed.length, feed.fork) == (4, 1)
    await feed.append(b"other")
    assert await feed.get(4) == b"other"
    await feed.truncate(2, fork=9)
    assert feed.fork == 9
    told = [await anext(events) for _ in range(3)]
    assert told == [Truncated(4, 1, 10), Appended(5, 1, 4), Truncated(2, 9, 5)]


@pytest.mark.parametrize(("length", "fork"), [(11, None), (-1, None), (5, 0)])
async def test_impossible_truncations_are_refused(
    feed: Feed, length: int, fork: int | None
) -> None:
    with pytest.raises(UsageError):
        await feed.truncate(length, fork=fork)
    assert (feed.length, feed.fork) == (10, 0)


async def test_what_is_cleared_is_gone_here_and_the_log_stays(feed: Feed) -> None:
    events = feed.listen()
    tree = await feed.tree_hash()
    await feed.clear(2, 4)
    await feed.clear(7)
    assert [await feed.has(index) for index in range(10)] == [
        index not in {2, 3, 7} for index in range(10)
    ]
    assert (feed.length, await feed.tree_hash()) == (10, tree)
    assert feed.progress.have == 7
    assert [await anext(events), await anext(events)] == [Cleared(2, 4), Cleared(7, 8)]
    with pytest.raises(UsageError):
        await feed.clear(5, 3)


async def test_the_tree_hash_of_an_earlier_length(feed: Feed, store: Basestore) -> None:
    hashes = [await feed.tree_hash(length) for length in range(11)]
    other = await store.get(key_pair=KeyPair.generate())
    for length, block in enumerate(numbered(10)):
        assert await other.tree_hash() == hashes[length]
        await other.append(block)
    with pytest.raises(UsageError):
        await feed.tree_hash(11)


# Verification


async def test_a_whole_log_is_verified_with_progress(feed: Feed) -> None:
    await feed.append([bytes(100)] * 300)
    await feed.clear(5)
    verification = feed.verify()
    seen = [report.checked async for report in verification]
    report = await verification
    assert (report.length, report.held, report.checked) == (310, 309, 310)
    assert report.bytes == 70 - 7 + 30_000
    assert seen == sorted(seen)
    assert len(seen) > 2


async def test_a_damaged_block_is_an_error_and_never_wrong_data(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        feed = await store.get("log")
        await feed.append(numbered(10))
        found = feed.discovery_key
    with LmdbStorage(tmp_path) as storage:
        core = 0
        assert StoredRecords(storage, core).auth.discovery_key == found
        storage.write_batch([(block_key(core, 4), b"BLOCK 4")])
    async with Basestore(tmp_path) as store:
        feed = await store.get("log")
        with pytest.raises(StoreError, match="block 4"):
            await feed.get(4)
        with pytest.raises(StoreError, match="damaged"):
            await feed.verify()
        assert await feed.get(5) == b"block 5"


async def test_closing_a_feed_ends_its_verification(feed: Feed) -> None:
    await feed.append([b""] * 1000)
    verification = feed.verify()
    await turns(1)
    await feed.close()
    with pytest.raises(ClosedError):
        await verification


async def test_a_verification_that_fails_unexpectedly_raises(
    feed: Feed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_records: object, _index: int) -> bytes:
        raise RuntimeError("a bug")

    monkeypatch.setattr(type(feed._log._records), "block", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        await feed.verify()
    assert "a bug" in caplog.text


async def test_a_snapshot_is_verified_as_far_as_it_goes(feed: Feed) -> None:
    snapshot = feed.snapshot()
    await feed.append([bytes(100)] * 300)
    await feed.truncate(200)
    verification = snapshot.verify()
    seen = [report.checked async for report in verification]
    report = await verification
    assert (report.length, report.fork, report.held) == (10, 0, 10)
    assert (report.checked, report.bytes) == (10, 70)
    assert max(seen) == 10
    await feed.truncate(9)
    with pytest.raises(BlockNotAvailable, match="replaced"):
        snapshot.verify()


# Frozen logs


@pytest.fixture
async def frozen(tmp_path: Path) -> AsyncIterator[Feed]:
    """A log of ten blocks, block 4 of which is not here, that was frozen before it was opened."""
    async with Basestore(tmp_path / "frozen") as store:
        feed = await store.get("log")
        await feed.append(numbered(10))
        await feed.clear(4)
        feed._log.freeze(length=10, fork=0)
    async with Basestore(tmp_path / "frozen") as store:
        yield await store.get("log")


async def test_a_frozen_log_gives_what_is_here_and_waits_for_nothing(frozen: Feed) -> None:
    async with asyncio.timeout(PATIENCE):
        assert await frozen.get(3) == b"block 3"
        assert await blocks_of(frozen, 5, 10) == numbered(5, start=5)
        await frozen.download(5, 10).done()
        assert await frozen.seek(30) == (4, 2)
        for call in (frozen.get(4), frozen.get(10)):
            with pytest.raises(FrozenError, match="frozen"):
                await call
        assert await frozen.update(wait=True) is False
        assert (await frozen.verify()).checked == 10


async def test_readers_of_a_frozen_log_end_after_what_is_here(frozen: Feed) -> None:
    async with asyncio.timeout(PATIENCE):
        for reader, count in ((frozen.read(2), 2), (frozen.live(2), 2), (frozen.live(5), 5)):
            assert len(await take(reader, count)) == count
            with pytest.raises(FrozenError, match="frozen"):
                await anext(reader)


async def test_downloads_of_a_frozen_log_end_at_once(frozen: Feed) -> None:
    for download in (
        frozen.download(),
        frozen.download(0, -1),
        frozen.download(8, 12),
        frozen.download(blocks=[1, 4]),
    ):
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(FrozenError, match="frozen"):
                await download.done()


# Sessions


async def test_sessions_share_a_log_and_are_closed_one_by_one(feed: Feed) -> None:
    other = feed.session()
    await feed.append(b"more")
    assert other.length == 11
    await feed.close()
    assert feed.closed
    assert await other.get(10) == b"more"
    await other.append(b"still")
    for call in (feed.get(0), feed.append(b""), feed.truncate(0), feed.has(0), feed.seek(0)):
        with pytest.raises(ClosedError):
            await call
    for use in (feed.read, feed.live, feed.verify, feed.download, feed.snapshot):
        with pytest.raises(ClosedError):
            use()


async def test_a_session_that_only_reads(feed: Feed) -> None:
    reader = feed.session(writable=False)
    assert not reader.writable
    with pytest.raises(UsageError, match="only reads"):
        await reader.append(b"")
    assert not reader.session(writable=True).writable, "nobody gives more than he has"


async def test_a_snapshot_keeps_its_length(feed: Feed) -> None:
    snapshot = feed.snapshot()
    tree = await feed.tree_hash()
    await feed.append(numbered(5, start=10))
    assert (snapshot.length, snapshot.byte_length, snapshot.fork) == (10, 70, 0)
    assert await snapshot.tree_hash() == tree
    assert await blocks_of(snapshot) == numbered(10)
    with pytest.raises(BlockNotAvailable, match="10 blocks"):
        await snapshot.get(12)
    with pytest.raises(UsageError, match="does not change"):
        await snapshot.append(b"")
    assert not await snapshot.update()
    assert await snapshot.seek(70) == (10, 0)


async def test_a_snapshot_never_gives_out_what_replaced_its_blocks(feed: Feed) -> None:
    snapshot = feed.snapshot()
    tree = await feed.tree_hash()
    await feed.truncate(6)
    await feed.append([b"other"] * 10)
    assert (snapshot.length, snapshot.fork) == (10, 0)
    assert await snapshot.get(5) == b"block 5"
    with pytest.raises(BlockNotAvailable, match="replaced"):
        await snapshot.get(6)
    assert await snapshot.tree_hash() == tree
    assert await snapshot.tree_hash(6) == await feed.tree_hash(6)
    with pytest.raises(BlockNotAvailable, match="replaced"):
        await snapshot.tree_hash(8)
    assert await snapshot.seek(36) == (5, 1)
    with pytest.raises(BlockNotAvailable, match="replaced"):
        await snapshot.seek(50)
    assert await snapshot.has(0, 6)
    assert not await snapshot.has(5, 8)
    progress = snapshot.progress
    assert (progress.have, progress.total, progress.verified) == (6, 10, 6)
    assert (progress.contiguous, progress.byte_length) == (6, 70)


async def test_nothing_is_cleared_through_a_snapshot(feed: Feed) -> None:
    snapshot = feed.snapshot()
    with pytest.raises(UsageError, match="snapshot"):
        await snapshot.clear(0, 3)
    assert await feed.has(0, 10)


async def test_a_snapshot_that_waits_never_gets_what_replaced_its_blocks(feed: Feed) -> None:
    await feed.clear(3)
    await feed.clear(8)
    snapshot = feed.snapshot()
    waiting = asyncio.ensure_future(snapshot.get(8))
    patient = asyncio.ensure_future(snapshot.get(3))
    await turns(3)
    await feed.truncate(6)
    await feed.append(numbered(4, start=6, name="other"))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(BlockNotAvailable, match="replaced"):
            await waiting
    await turns(3)
    assert not patient.done(), "this block is shared"
    await snapshot.close()
    with pytest.raises(ClosedError):
        await patient


async def test_events_end_with_the_session(feed: Feed) -> None:
    events = feed.listen()
    await feed.append(b"x")
    await feed.close()
    assert [event async for event in events] == [Appended(11, 0, 10), FeedClosed(None)]
    for use in (feed.listen, lambda: feed.subscribe(print)):
        with pytest.raises(ClosedError):
            use()


async def test_a_close_ends_what_waits(feed: Feed) -> None:
    waiting = [
        asyncio.ensure_future(feed.get(50)),
        asyncio.ensure_future(feed.download(50, 60).done()),
        asyncio.ensure_future(feed.update(wait=True)),
    ]
    await turns(3)
    await feed.close()
    await feed.close()
    for error in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(error, ClosedError)


# User data, downloads, updates without peers


async def test_user_data_is_kept_with_the_log(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        feed = await store.get("log")
        assert await feed.get_user_data("title") is None
        await feed.set_user_data("title", b"A log")
        await feed.set_user_data("gone", b"x")
        await feed.set_user_data("gone", None)
        other = await store.get("other")
        assert await other.get_user_data("title") is None
    async with Basestore(tmp_path) as store:
        feed = await store.get("log")
        assert await feed.get_user_data("title") == b"A log"
        assert await feed.get_user_data("gone") is None


async def test_a_download_of_what_is_here_is_done_at_once(feed: Feed) -> None:
    download = feed.download()
    await download.done()
    assert (download.progress.have, download.progress.total) == (10, 10)
    assert [progress.have async for progress in download] == [10] or download.finished
    nothing = feed.download(blocks=[])
    await nothing.done()


async def test_a_download_can_be_cancelled(feed: Feed) -> None:
    download = feed.download(0, 20)
    assert (download.progress.have, download.progress.total) == (10, 20)
    download.cancel()
    download.cancel()
    with pytest.raises(ClosedError, match="cancelled"):
        await download.done()
    with pytest.raises(UsageError):
        feed.download(5, 3)


async def test_a_download_is_done_when_what_it_lacks_is_appended(feed: Feed) -> None:
    download = feed.download(blocks=[3, 11, 10])
    seen = []

    async def watch() -> None:
        seen.extend([progress.have async for progress in download])

    watching = asyncio.ensure_future(watch())
    await turns(2)
    await feed.append(b"ten")
    await until(lambda: download.progress.have == 2)
    await feed.append(b"eleven")
    async with asyncio.timeout(PATIENCE):
        await download.done()
        await watching
    assert seen[0] == 1
    assert seen[-1] == 3


async def test_without_peers_there_is_no_news(feed: Feed) -> None:
    assert await feed.update() is False
    with pytest.raises(FeedTimeout, match="news"):
        await feed.update(wait=True, timeout=0)


async def test_news_are_waited_for_while_peers_are_looked_for(feed: Feed) -> None:
    done = [feed.finding_peers(), feed.finding_peers()]
    waiting = asyncio.ensure_future(feed.update())
    await turns(3)
    done[0]()
    done[0]()
    await turns(3)
    assert not waiting.done(), "one still looks"
    done[1]()
    async with asyncio.timeout(PATIENCE):
        assert await waiting is False


# Encryption


async def test_encrypted_blocks_read_back_and_are_not_plain_in_the_store(
    store: Basestore,
) -> None:
    feed = await store.get("log", encryption_key=SECRET)
    await feed.append([b"secret one", b""])
    assert await feed.append(b"two") == (3, 13)
    assert await blocks_of(feed) == [b"secret one", b"", b"two"]
    assert [await feed.seek(at) for at in (0, 9, 11, 13)] == [(0, 0), (0, 9), (2, 1), (3, 0)]
    assert [piece async for piece in feed.read(8, 12, by="bytes")] == [b"ne", b"tw"]
    plain = feed.session()
    assert plain.encryption_key == SECRET
    await feed.truncate(2)
    await feed.append(b"again")
    assert await feed.get(2) == b"again"
    with pytest.raises(UsageError, match=f"encrypted log has at most {MAX_BLOCK - 8} bytes"):
        await feed.append(bytes(MAX_BLOCK))
    stored = await _stored(store, feed, 0)
    assert len(stored) == 10 + 8
    assert b"secret" not in stored
    assert SECRET.hex() not in repr(feed)
    assert repr(SECRET) not in repr(feed._options)


async def test_the_encryption_key_is_kept_with_the_log(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        feed = await store.get("log", encryption_key=SECRET)
        await feed.append(b"secret")
    async with Basestore(tmp_path) as store:
        feed = await store.get("log")
        assert await feed.get(0) == b"secret"


async def test_a_wrong_encryption_key_is_refused_and_the_right_one_stays(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        feed = await store.get("log", encryption_key=SECRET)
        await feed.append(b"secret")
        for wish in ({"name": "log"}, {"key": feed.key}, {"discovery_key": feed.discovery_key}):
            with pytest.raises(UsageError, match="another encryption key"):
                await store.get(**wish, encryption_key=bytes(32))
    async with Basestore(tmp_path) as store:
        feed = await store.get("log")
        assert feed.encryption_key == SECRET
        assert await feed.get(0) == b"secret"
        assert (await store.get("log", encryption_key=SECRET)).encryption_key == SECRET


async def test_a_log_that_is_written_in_plain_takes_no_encryption_key(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        plain = await store.get("plain")
        with pytest.raises(UsageError, match="without an encryption key"):
            await store.get("plain", encryption_key=SECRET)
        await plain.append(b"for all")
        empty = await store.get("empty")
        await empty.close()
        assert (await store.get("empty", encryption_key=SECRET)).encryption_key == SECRET
    async with Basestore(tmp_path) as store:
        with pytest.raises(UsageError, match="without an encryption key"):
            await store.get("plain", encryption_key=SECRET)
        plain = await store.get("plain")
        assert plain.encryption_key is None
        assert await plain.get(0) == b"for all"


async def test_a_readers_log_takes_the_encryption_key_after_its_blocks() -> None:
    async with Basestore() as first, Basestore() as second:
        writer = await first.get("log", encryption_key=SECRET)
        await writer.append(b"secret")
        blind = await second.get(writer.key)
        async with met(first, second), asyncio.timeout(PATIENCE):
            assert await blind.get(0) != b"secret"
        reader = await second.get(writer.key, encryption_key=SECRET)
        assert await reader.get(0) == b"secret"


async def test_a_wrong_encryption_key_for_anothers_log_is_replaced_by_the_right_one(
    tmp_path: Path,
) -> None:
    async with Basestore() as first, Basestore(tmp_path) as second:
        writer = await first.get("log", encryption_key=SECRET)
        await writer.append(b"secret")
        mistaken = await second.get(writer.key, encryption_key=bytes(32))
        async with met(first, second), asyncio.timeout(PATIENCE):
            assert await mistaken.get(0) != b"secret"
        reader = await second.get(writer.key, encryption_key=SECRET)
        assert await reader.get(0) == b"secret"
    async with Basestore(tmp_path) as second:
        assert await (await second.get(writer.key)).get(0) == b"secret"


async def _stored(store: Basestore, feed: Feed, index: int) -> bytes:
    record = store._root.record(feed.discovery_key)
    assert record is not None
    value = store._root.storage.get(block_key(record.core, index))
    assert value is not None
    return value


# Several signers


async def test_a_log_of_two_signers_takes_their_joint_signature(store: Basestore) -> None:
    pairs = [KeyPair.generate(), KeyPair.generate()]
    manifest = Manifest(quorum=2, signers=tuple(Signer(pair.public_key) for pair in pairs))
    feed = await store.get(manifest=manifest, key_pair=pairs[0])
    with pytest.raises(UsageError):
        await feed.append(b"alone")
    assert feed.length == 0
    batch = feed.plan([b"together"])
    authority = feed.authority
    parts = [authority.sign_part(pair, roots=batch.roots, length=1, fork=0) for pair in pairs]
    signature = authority.assemble(parts, length=1)
    assert (await feed.append(b"together", signature=signature)).length == 1


# Extensions without peers


async def test_extensions_have_names_of_their_own(feed: Feed) -> None:
    chat = feed.register_extension("chat", encoding="json")
    chat.broadcast({"to": "nobody"})
    with pytest.raises(UsageError, match="registered already"):
        feed.register_extension("chat")
    chat.destroy()
    chat.destroy()
    feed.register_extension("chat")
    with pytest.raises(UsageError, match="encoding"):
        feed.register_extension("other", encoding="utf-16")
    with pytest.raises(UsageError, match="name"):
        feed.register_extension("")


async def test_closing_a_session_takes_its_extensions_away(feed: Feed) -> None:
    other = feed.session()
    other.register_extension("chat")
    await other.close()
    feed.register_extension("chat")


async def test_listeners_that_fail_harm_nobody(
    feed: Feed, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_event: object) -> None:
        raise RuntimeError("a bug of the application")

    stop = feed.subscribe(fail)
    await feed.append(b"x")
    assert feed.length == 11
    assert "listener failed" in caplog.text
    stop()


async def test_an_append_is_told_to_all_sessions(feed: Feed) -> None:
    events = feed.session().listen()
    await feed.append(b"x")
    await happened(events, "append", length=11)


async def test_a_session_of_a_snapshot_is_one_of_the_same_state(store: Basestore) -> None:
    feed = await store.get("log")
    await feed.append(numbered(3))
    snapshot = feed.snapshot()
    await feed.append(b"later")
    for made in (snapshot.snapshot(), snapshot.session(), snapshot.session().session()):
        assert made.is_snapshot
        assert (made.length, made.fork, made.byte_length) == (3, 0, snapshot.byte_length)
        assert await made.tree_hash() == await snapshot.tree_hash()
        assert not made.writable
        with pytest.raises(BlockNotAvailable):
            await made.get(3)
    await feed.truncate(1)
    late = snapshot.session()
    assert (late.length, late.contiguous_length) == (3, 1)
    with pytest.raises(BlockNotAvailable, match="replaced"):
        await late.get(1)
    await feed.truncate(0)
    assert (snapshot.contiguous_length, late.contiguous_length) == (0, 0)


async def test_a_writer_that_has_its_log_from_readers_downloads_what_a_cut_keeps() -> None:
    pair = KeyPair.generate()
    async with Basestore() as first, Basestore() as second, met(first, second):
        original = await first.get(key_pair=pair)
        await original.append(numbered(13))
        restored = await second.get(key_pair=pair)
        assert await restored.update(wait=True)
        with pytest.raises(BlockNotAvailable, match="first 6 blocks is not here: download them"):
            await restored.truncate(6)
        async with asyncio.timeout(PATIENCE):
            await restored.download(0, 6).done()
        await restored.truncate(6)
        assert (restored.length, restored.fork) == (6, 1)
        assert await restored.tree_hash() == await original.tree_hash(6)
