"""Two stores and more over real connections: everything that both want ends up on both sides."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from covey.errors import BlockNotAvailable, ClosedError, FrozenError, StoreError, UsageError
from covey.feed.manifest import Manifest, Signer
from covey.keys import KeyPair
from covey.limits import Limits
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.store.feed_events import FeedClosed, FeedEvent
from covey.store.log_writing import FLUSH_BLOCKS
from covey.store.memory_storage import MemoryStorage
from tests.store.meeting import blocks_of, happened, met, numbered, place, same, take
from tests.store.turned_clock import Middle, TurnedClock
from tests.waiting import PATIENCE, Belongings, turns, until

SECRET = bytes(range(32))


async def pair_of_feeds(first: Basestore, second: Basestore, count: int) -> tuple[Feed, Feed]:
    """A log of the first store with so many blocks, and the same in the second, empty."""
    writer = await first.get("log")
    if count:
        await writer.append(numbered(count))
    return writer, await second.get(writer.key)


async def whole(feed: Feed, length: int) -> None:
    """Wait until all blocks of a log are here."""
    async with asyncio.timeout(PATIENCE):
        await feed.download(0, length).done()


# One log


async def test_neither_side_waits_for_the_other_to_finish_a_turn() -> None:
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 480)
        async with met(first, second) as (_, there):
            await reader.update(wait=True)
            (connection,) = there.connections
            before = connection.messages_written
            await whole(reader, 480)
            frames = connection.messages_written - before
            assert frames >= 30, "requests leave in parts of what is under way"
        assert await same(writer, reader)


async def test_a_whole_log_is_fetched_and_verified() -> None:
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 1000)
        async with met(first, second):
            await whole(reader, 1000)
            assert await same(writer, reader)
            assert await blocks_of(reader) == numbered(1000)
            assert (await reader.verify()).held == 1000
            progress = reader.progress
            assert (progress.have, progress.total, progress.verified) == (1000, 1000, 1000)
            assert progress.downloaded_blocks == 1000
            assert progress.download_rate > 0
            assert writer.progress.uploaded_bytes == progress.downloaded_bytes
            assert writer.progress.upload_rate > 0
            (there,), (here,) = writer.peers, reader.peers
            assert here.progress.verified == there.progress.uploaded_blocks == 1000
            assert here.progress.total == 1000
            assert here.remote_key != there.remote_key
            await until(lambda: there.progress.have == 1000)


async def test_only_what_is_asked_for_is_fetched() -> None:
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 500)
        async with met(first, second):
            async with asyncio.timeout(PATIENCE):
                assert await reader.get(250) == b"block 250"
                await reader.download(blocks=[1, 2, 400]).done()
            assert [at for at in range(500) if await reader.has(at)] == [1, 2, 250, 400]
            assert writer.progress.uploaded_blocks == 4


async def test_appends_arrive_while_connected_and_live_readers_go_on() -> None:
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 0)
        async with met(first, second):
            live = reader.live()
            for start in range(0, 30, 3):
                await writer.append(numbered(3, start=start))
                assert await take(live, 3) == numbered(3, start=start)
            assert await same(writer, reader)


async def test_events_tell_what_happens_on_both_sides() -> None:
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 2)
        gives, takes = writer.listen(), reader.listen()
        async with met(first, second):
            await happened(takes, "peer-add")
            await happened(takes, "manifest")
            await happened(takes, "append", length=2)
            async with asyncio.timeout(PATIENCE):
                await reader.get(1)
            await happened(takes, "download", index=1, size=7)
            await happened(gives, "peer-add")
            await happened(gives, "upload", index=1, size=7)
        await happened(takes, "peer-remove")
        await happened(gives, "peer-remove")
        assert reader.peers == writer.peers == []


async def test_news_and_byte_offsets_are_asked_for() -> None:
    async with Basestore() as first, Basestore() as second:
        _, reader = await pair_of_feeds(first, second, 100)
        async with met(first, second):
            async with asyncio.timeout(PATIENCE):
                assert await reader.update(wait=True)
                assert reader.length == 100
                assert await reader.seek(73) == (10, 3)
                assert not await reader.update()


async def test_a_truncation_and_another_history_are_taken_over() -> None:
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 50)
        async with met(first, second):
            await whole(reader, 50)
            events = reader.listen()
            await writer.truncate(20)
            await happened(events, "truncate", length=20, fork=1, old_length=50)
            await writer.append(numbered(40, start=20, name="other"))
            live = reader.live(20)
            assert await take(live, 40) == numbered(40, start=20, name="other")
            assert await same(writer, reader)
            assert await blocks_of(reader, 0, 20) == numbered(20)


async def test_the_fork_point_is_found_after_an_absence() -> None:
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 200)
        async with met(first, second):
            await whole(reader, 200)
        await writer.truncate(77)
        await writer.append(numbered(200, start=77, name="other"))
        events = reader.listen()
        async with met(first, second):
            assert await happened(events, "truncate", length=77, fork=1)
            await whole(reader, 277)
            assert await same(writer, reader)
            fetched = reader.progress.downloaded_blocks
        assert fetched == 400, "the 77 shared blocks were kept"


async def test_a_reader_that_has_half_serves_that_half() -> None:
    async with Basestore() as first, Basestore() as second, Basestore() as third:
        writer, reader = await pair_of_feeds(first, second, 100)
        async with met(first, second):
            await reader.update(wait=True)
            await whole(reader, 50)
        last = await third.get(writer.key)
        async with met(second, third):
            async with asyncio.timeout(PATIENCE):
                assert await last.get(30) == b"block 30"
                await last.download(0, 50).done()
            assert last.length == 100
            assert not await last.has(60)


async def test_blocks_come_from_several_peers() -> None:
    async with Basestore() as first, Basestore() as second, Basestore() as third:
        writer, reader = await pair_of_feeds(first, second, 2000)
        async with met(first, second):
            await whole(reader, 2000)
        last = await third.get(writer.key)
        async with place(first) as one, place(second) as two, place(third) as three:
            await three.dial(one.port)
            await three.dial(two.port)
            await until(lambda: len(last.peers) == 2)
            await whole(last, 2000)
            assert all(peer.progress.verified > 100 for peer in last.peers)
            assert last.progress.downloaded_blocks == 2000


async def test_encrypted_logs_pass_through_those_who_have_no_key() -> None:
    async with Basestore() as first, Basestore() as second, Basestore() as third:
        writer = await first.get("log", encryption_key=SECRET)
        await writer.append([b"secret", b"words"])
        blind = await second.get(writer.key)
        async with met(first, second):
            await whole(blind, 2)
            assert await blind.get(0) != b"secret"
        reader = await third.get(writer.key, encryption_key=SECRET)
        async with met(second, third):
            async with asyncio.timeout(PATIENCE):
                assert [await reader.get(at) for at in range(2)] == [b"secret", b"words"]
            assert reader.byte_length == 11


async def test_a_log_of_several_signers_is_exchanged() -> None:
    pairs = [KeyPair.generate() for _ in range(3)]
    manifest = Manifest(quorum=2, signers=tuple(Signer(pair.public_key) for pair in pairs))
    async with Basestore() as first, Basestore() as second:
        writer = await first.get(manifest=manifest, key_pair=pairs[0])
        batch = writer.plan(numbered(5))
        parts = [
            writer.authority.sign_part(pair, roots=batch.roots, length=5, fork=0)
            for pair in pairs[1:]
        ]
        signature = writer.authority.assemble(parts, length=5)
        await writer.append(numbered(5), signature=signature)
        reader = await second.get(writer.key)
        async with met(first, second):
            await whole(reader, 5)
            assert reader.manifest == manifest
            assert await same(writer, reader)


async def test_a_download_tells_its_progress() -> None:
    async with Basestore() as first, Basestore() as second:
        _, reader = await pair_of_feeds(first, second, 3000)
        download = reader.download(0, 3000)
        seen = []
        async with met(first, second), asyncio.timeout(PATIENCE):
            async for progress in download:
                seen.append((progress.have, progress.total))
        assert seen[0] == (0, 3000)
        assert seen[-1] == (3000, 3000)
        assert seen == sorted(seen)
        assert len(seen) > 5


# Many logs, many connections


async def test_three_logs_on_one_connection_and_one_that_only_one_side_has() -> None:
    async with Basestore() as first, Basestore() as second:
        writers = [await first.get(name) for name in "abc"]
        for writer in writers:
            await writer.append(numbered(20))
        alone = await second.get("alone")
        readers = [await second.get(writer.key) for writer in writers]
        async with met(first, second) as (one, _):
            for reader in readers:
                await whole(reader, 20)
            assert len(one.connections) == 1
            assert alone.peers == []
            assert first.streams[0].misses == 1


async def test_both_directions_at_once() -> None:
    async with Basestore() as first, Basestore() as second:
        mine, theirs = await pair_of_feeds(first, second, 100)
        yours, ours = await pair_of_feeds(second.namespace("x"), first, 100)
        async with met(first, second):
            await asyncio.gather(whole(theirs, 100), whole(ours, 100))
            assert await same(mine, theirs)
            assert await same(yours, ours)


async def test_a_log_that_is_opened_late_is_exchanged_at_once() -> None:
    async with Basestore() as first, Basestore() as second, met(first, second):
        writer = await first.get("late")
        reader = await second.get(writer.key)
        await writer.append(b"x")
        async with asyncio.timeout(PATIENCE):
            assert await reader.get(0) == b"x"
        other = await first.get("other", active=False)
        await other.append(b"y")
        async with asyncio.timeout(PATIENCE):
            assert await (await second.get(other.key)).get(0) == b"y"


async def test_a_restarted_store_serves_what_nobody_opened(tmp_path: Path) -> None:
    async with Basestore() as first:
        async with Basestore(tmp_path) as second:
            writer, reader = await pair_of_feeds(first, second, 100)
            async with met(first, second):
                await whole(reader, 100)
        async with Basestore(tmp_path, active=False) as middle, Basestore() as third:
            last = await third.get(writer.key)
            async with met(middle, third):
                await whole(last, 100)
                assert await same(writer, last)
            assert not middle._feeds


async def test_logs_that_nobody_wants_stay_silent() -> None:
    async with Basestore(active=False) as first, Basestore(active=False) as second:
        writer, reader = await pair_of_feeds(first, second, 3)
        async with met(first, second):
            other = await second.get("wanted", active=True)
            await other.append(b"x")
            await until(lambda: first.streams and first.streams[0].misses == 1)
            assert writer.peers == reader.peers == []
            assert first.streams[0].discovery_keys == []
            async with asyncio.timeout(PATIENCE):
                assert await reader.get(1) == b"block 1", "what is asked for is fetched"


async def test_two_hundred_logs_on_one_connection() -> None:
    async with Basestore() as first, Basestore() as second:
        readers = []
        for index in range(200):
            writer = await first.get(f"log {index}")
            await writer.append(numbered(3))
            readers.append(await second.get(writer.key))
        async with met(first, second):
            for reader in readers:
                await whole(reader, 3)
            assert len(second.streams[0].discovery_keys) == 200


async def test_reconnecting_in_the_middle_fetches_nothing_twice() -> None:
    fetched: list[int] = []

    def note(event: FeedEvent) -> None:
        if event.type == "download":
            fetched.append(event.index)

    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 3000)
        reader.subscribe(note)
        download = reader.download(0, 3000)
        async with met(first, second):
            await until(lambda: reader.progress.have >= 1000)
        assert not download.finished
        async with met(first, second), asyncio.timeout(PATIENCE):
            await download.done()
        assert sorted(fetched) == list(range(3000))
        assert writer.progress.uploaded_blocks <= 3000 + 2 * 48


async def test_a_log_goes_from_one_to_the_next_while_it_grows() -> None:
    async with Basestore() as first, Basestore() as second, Basestore() as third:
        writer, middle = await pair_of_feeds(first, second, 10)
        last = await third.get(writer.key)
        middle.download(0, -1)
        async with place(first) as one, place(second) as two, place(third) as three:
            await two.dial(one.port)
            await three.dial(two.port)
            live = last.live()
            assert await take(live, 10) == numbered(10)
            await writer.append(numbered(50, start=10))
            assert await take(live, 50) == numbered(50, start=10)
            assert await same(writer, last)


# Extensions


@pytest.mark.parametrize(
    ("encoding", "message"), [("binary", b"\0\1"), ("utf-8", "hé"), ("json", {"a": [1, None]})]
)
async def test_extension_messages_reach_the_peers(encoding: str, message: object) -> None:
    heard: list[object] = []
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 1)
        writer.register_extension(
            "x", encoding=encoding, on_message=lambda value, _: heard.append(value)
        )
        ours = reader.register_extension("x", encoding=encoding)
        reader.register_extension("unknown there").broadcast(b"")
        async with met(first, second):
            await until(lambda: reader.peers)
            ours.send(message, reader.peers[0])
            ours.broadcast(message)
            await until(lambda: len(heard) == 2)
            assert heard == [message, message]


async def test_extension_callbacks_that_fail_end_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_message: object, _peer: object) -> None:
        raise RuntimeError("a bug of the application")

    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 1)
        writer.register_extension("x", encoding="json", on_message=fail)
        async with met(first, second):
            await until(lambda: reader.peers)
            raw = reader.register_extension("x")
            raw.broadcast(b"not JSON")
            raw.broadcast(b"1")
            await until(lambda: "extension 'x' failed" in caplog.text)
            async with asyncio.timeout(PATIENCE):
                assert await reader.get(0) == b"block 0"


# The life of channels


async def test_a_log_lingers_after_its_last_session_and_opens_again() -> None:
    clock = TurnedClock()
    async with (
        Basestore(clock=clock, chance=Middle()) as first,
        Basestore(clock=clock, chance=Middle()) as second,
    ):
        writer, reader = await pair_of_feeds(first, second, 3)
        async with met(first, second):
            await whole(reader, 3)
            key = reader.key
            await reader.close()
            await writer.close()
            await clock.advance(29)
            assert first.streams[0].discovery_keys != []
            await clock.advance(2)
            await until(lambda: first.streams[0].discovery_keys == [])
            await until(lambda: second.streams[0].discovery_keys == [])
            again, more = await second.get(key), await first.get("log")
            await more.append(b"more")
            async with asyncio.timeout(PATIENCE):
                assert await again.get(3) == b"more"


async def test_a_store_that_closes_closes_its_channels_and_leaves_the_connection() -> None:
    async with Basestore() as second:
        first = Basestore()
        _, reader = await pair_of_feeds(first, second, 3)
        async with met(first, second) as (one, two):
            await whole(reader, 3)
            await first.close()
            await until(lambda: not reader.peers)
            assert not one.connections[0].closed
            assert not two.connections[0].closed
            channel = one.connections[0].mux.create_channel("other")
            channel.open()
            assert not channel.closed


async def test_a_connection_is_exchanged_over_once_and_can_be_let_go() -> None:
    async with Basestore() as first, Basestore() as second:
        _, reader = await pair_of_feeds(first, second, 3)
        async with met(first, second) as (one, _):
            await until(lambda: first.streams)
            stream = first.streams[0]
            assert first.replicate(one.connections[0]) is stream
            assert first.namespace("view").replicate(one.connections[0]) is stream
            await whole(reader, 3)
            stream.detach()
            stream.detach()
            await until(lambda: not reader.peers)
            assert first.streams == []
            assert not one.connections[0].closed
            first.replicate(one.connections[0])
            await until(lambda: reader.peers)


async def test_connections_without_a_proven_handshake_are_refused() -> None:
    class Plain:
        handshake_hash = None

    async with Basestore() as store:
        with pytest.raises(UsageError, match="noise"):
            store.replicate(Plain())  # type: ignore[arg-type]


async def test_nothing_is_left_after_stores_and_connections_are_closed() -> None:
    before = Belongings()
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 100)
        async with met(first, second):
            await whole(reader, 100)
            waiting = asyncio.ensure_future(reader.get(1000))
            await writer.append(b"x")
    with pytest.raises(ClosedError):
        await waiting
    assert await before.left() == []


# A store that fails


async def test_blocks_that_cannot_be_kept_are_fetched_again_when_they_can() -> None:
    class Full(MemoryStorage):
        full = False

        def write_batch(self, *args: object, **kwargs: object) -> None:
            if Full.full:
                raise StoreError("no space left on this disk")
            super().write_batch(*args, **kwargs)  # type: ignore[arg-type]

    clock = TurnedClock()
    async with (
        Basestore() as first,
        Basestore(storage=Full(), clock=clock, chance=Middle()) as second,
    ):
        _, reader = await pair_of_feeds(first, second, 100)
        events = reader.listen()
        async with met(first, second):
            async with asyncio.timeout(PATIENCE):
                await reader.get(7)
            Full.full = True
            download = reader.download(0, 100)
            await happened(events, "store-error")
            assert reader.progress.have == 1
            Full.full = False
            await clock.advance(6)
            async with asyncio.timeout(PATIENCE):
                await download.done()
            assert await blocks_of(reader) == numbered(100)


async def test_a_slow_reader_of_events_is_told_what_it_missed() -> None:
    limits = Limits(event_backlog=4)
    async with Basestore(limits=limits) as store:
        feed = await store.get("log")
        events = feed.listen()
        for _ in range(10):
            await feed.append(b"x")
        told = [await anext(events) for _ in range(5)]
        assert [event.type for event in told] == ["append"] * 4 + ["lagged"]


async def test_keys_that_were_learned_while_a_log_was_open_are_kept(tmp_path: Path) -> None:
    """A manifest that a peer tells is written beside them, not over them."""
    async with Basestore(primary_key=SECRET) as first:
        writer = await first.get("log", encryption_key=SECRET)
        await writer.append(b"secret")
        async with Basestore(tmp_path) as second:
            await second.get(writer.key)
            reader = await second.get(writer.key, encryption_key=SECRET)
            async with met(first, second), asyncio.timeout(PATIENCE):
                assert await reader.get(0) == b"secret"
    async with Basestore(tmp_path) as second:
        reader = await second.get(writer.key)
        assert reader.manifest is not None
        assert await reader.get(0) == b"secret"


async def test_received_blocks_are_written_many_at_once() -> None:
    class Counting(MemoryStorage):
        writes = 0

        def write_batch(self, *args: object, **kwargs: object) -> None:
            Counting.writes += 1
            super().write_batch(*args, **kwargs)  # type: ignore[arg-type]

    async with Basestore() as first, Basestore(storage=Counting()) as second:
        _, reader = await pair_of_feeds(first, second, FLUSH_BLOCKS * 12)
        async with met(first, second):
            async with asyncio.timeout(PATIENCE):
                await reader.update(wait=True)
            before = Counting.writes
            await whole(reader, FLUSH_BLOCKS * 12)
            assert 12 <= Counting.writes - before < FLUSH_BLOCKS * 6


# What ends an exchange


async def test_two_histories_of_one_writer_freeze_the_log_for_ever(tmp_path: Path) -> None:
    async with (
        Basestore(primary_key=SECRET) as honest,
        Basestore(primary_key=SECRET) as twin,
        Basestore(tmp_path) as store,
    ):
        one, two = await honest.get("log"), await twin.get("log")
        await one.append(numbered(6))
        await two.append([*numbered(3), *numbered(5, name="other")])
        reader = await store.get(one.key)
        other = reader.session()
        events, ends = reader.listen(), other.listen()
        async with place(honest) as first, place(twin) as second, place(store) as third:
            await third.dial(first.port)
            await whole(reader, 6)
            await third.dial(second.port)
            await happened(events, "conflict", fork=0)
            closing = await happened(ends, "close")
            assert isinstance(closing, FeedClosed)
            assert isinstance(closing.error, FrozenError)
        for feed in (reader, other):
            assert feed.closed
            with pytest.raises(ClosedError) as caught:
                await feed.get(0)
            assert isinstance(caught.value.__cause__, FrozenError)
        assert two.frozen, "it is told"
        with pytest.raises(ClosedError):
            await two.append(b"more")
    async with Basestore(tmp_path) as store, Basestore(primary_key=SECRET) as honest:
        one = await honest.get("log")
        await one.append(numbered(9))
        reader = await store.get(one.key)
        assert reader.frozen
        assert await blocks_of(reader) == numbered(6)
        async with met(honest, store):
            await until(lambda: honest.streams)
            await until(lambda: honest.streams[0].discovery_keys == [])
            assert reader.length == 6


async def test_a_snapshot_that_waited_for_a_peer_gets_nothing_of_another_history() -> None:
    async with Basestore() as first, Basestore() as second:
        writer, reader = await pair_of_feeds(first, second, 10)
        async with met(first, second), asyncio.timeout(PATIENCE):
            await reader.update(wait=True)
        snapshot = reader.snapshot()
        block, byte = (
            asyncio.ensure_future(snapshot.get(5)),
            asyncio.ensure_future(snapshot.seek(40)),
        )
        await turns(3)
        await writer.truncate(3)
        await writer.append(numbered(7, start=3, name="other"))
        async with met(first, second), asyncio.timeout(PATIENCE):
            assert await reader.get(5) == b"other 5"
            for waiting in (block, byte):
                with pytest.raises(BlockNotAvailable, match="replaced"):
                    await waiting


async def test_who_rejected_a_log_is_not_asked_again_for_each_block() -> None:
    async with Basestore() as first, Basestore() as second:
        alone = await second.get("alone", active=False)
        async with met(first, second):
            for index in range(3):
                waiting = asyncio.ensure_future(alone.get(index))
                await until(lambda: first.streams and first.streams[0].misses == 1)
                await until(lambda: second.streams[0].discovery_keys == [])
                waiting.cancel()
                await turns(3)
            wanted = await second.get("alone")
            await until(lambda: first.streams[0].misses == 2)
            await first.get(wanted.key)
            await until(lambda: wanted.peers)


async def test_downloads_outlive_nobody() -> None:
    async with Basestore() as first, Basestore() as second:
        _, reader = await pair_of_feeds(first, second, 10)
        download = reader.download(0, 20)
        async with met(first, second):
            await until(lambda: download.progress.have == 10)
            download.cancel()
            assert not reader._downloads
            other = reader.download(0, 20)
            await reader.close()
            assert other.finished
            with pytest.raises(ClosedError):
                await other.done()
