"""A store of logs: keys, names, views, sessions, one process per directory, the end."""

from __future__ import annotations

import gc
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from covey.errors import ClosedError, StoreError, UsageError, VerifyError
from covey.feed.manifest import Manifest, Prologue, Signer, default_manifest
from covey.keys import KeyPair, discovery_key
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.store.feed_events import FeedLeft, FeedOpened
from covey.store.memory_storage import MemoryStorage
from tests.store.meeting import blocks_of, numbered
from tests.store.turned_clock import Middle, TurnedClock
from tests.vectors_path import load_vectors
from tests.waiting import Belongings

PRIMARY = bytes(range(32))


# Keys and names


@pytest.mark.parametrize("case", load_vectors("corestore-keys")["cases"])
async def test_keys_are_those_of_corestore(case: dict[str, Any]) -> None:
    async with Basestore(primary_key=bytes.fromhex(case["primaryKey"])) as store:
        view = store
        for part in case["namespacePath"]:
            view = view.namespace(part)
        assert view.namespace_key.hex() == case["namespace"]
        assert view.create_key_pair(case["name"]).public_key.hex() == case["publicKey"]
        if case["name"]:
            feed = await view.get(case["name"])
            assert feed.key.hex() == case["coreKey"]
            assert case["discoveryKey"] in (None, feed.discovery_key.hex())


async def test_the_same_primary_key_gives_the_same_logs() -> None:
    keys = []
    for _ in range(2):
        async with Basestore(primary_key=PRIMARY) as store:
            view = store.namespace("app")
            keys.append([(await each.get("log")).key for each in (store, view)])
    assert keys[0] == keys[1]
    assert keys[0][0] != keys[0][1]


async def test_a_new_store_makes_a_primary_key_and_keeps_it(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        primary, pair = store.primary_key, store.create_key_pair("log")
        assert (await store.get("log")).key_pair == pair
    async with Basestore(tmp_path) as store:
        assert store.primary_key == primary
        assert primary.hex() not in repr(store)
    async with Basestore(tmp_path, primary_key=primary):
        pass
    with pytest.raises(StoreError, match="another store"):
        async with Basestore(tmp_path, primary_key=PRIMARY):
            pass
    async with Basestore(tmp_path):
        pass  # the refusal left nothing behind


async def test_a_primary_key_has_a_size() -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        async with Basestore(primary_key=b"short"):
            pass


async def test_a_name_that_is_known_keeps_its_log_when_the_default_changes(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        key = (await store.get("log")).key
    async with Basestore(tmp_path, manifest_version=2) as store:
        assert (await store.get("log")).key == key
        other = await store.get("other")
        assert other.manifest is not None
        assert other.manifest.version == 2
        assert (
            other.key == default_manifest(store.create_key_pair("other").public_key, version=2).key
        )


async def test_a_log_by_its_key_is_there_at_once_and_only_reads() -> None:
    async with Basestore() as store:
        key = KeyPair.generate().public_key
        feed = await store.get(key)
        assert (feed.key, feed.discovery_key, feed.length) == (key, discovery_key(key), 0)
        assert not feed.writable
        with pytest.raises(UsageError, match="secret key"):
            await feed.append(b"")
        assert (await store.get(key=key)).key == key


async def test_a_log_got_by_key_first_becomes_writable_by_its_name() -> None:
    async with Basestore(primary_key=PRIMARY) as store:
        pair = store.create_key_pair("log")
        key = default_manifest(pair.public_key).key
        reader = await store.get(key)
        assert reader.manifest is None
        writer = await store.get("log")
        assert writer.key == key
        await writer.append(b"x")
        assert await reader.get(0) == b"x"
        assert await store.names() == {"log": reader.discovery_key}


async def test_a_log_that_can_be_written_stays_so_by_its_key(tmp_path: Path) -> None:
    pair = KeyPair.generate()
    async with Basestore(tmp_path) as store:
        key = (await store.get(key_pair=pair)).key
    async with Basestore(tmp_path) as store:
        feed = await store.get(key)
        await feed.append(b"x")
        assert feed.key_pair == pair


async def test_a_log_by_key_pair_has_the_default_manifest_or_the_one_of_its_key() -> None:
    pair = KeyPair.generate()
    async with Basestore() as store:
        feed = await store.get(key_pair=pair)
        assert feed.key == default_manifest(pair.public_key).key
        later = default_manifest(pair.public_key, version=2)
        assert (await store.get(key=later.key, key_pair=pair)).manifest == later
        compat = await store.get(key=pair.public_key, key_pair=pair)
        assert compat.key == pair.public_key
        await compat.append(b"x")
        with pytest.raises(UsageError, match="alone"):
            await store.get(key=bytes(32), key_pair=pair)


async def test_a_log_by_its_manifest() -> None:
    pair = KeyPair.generate()
    manifest = Manifest(version=2, signers=(Signer(pair.public_key),), user_data=b"hi")
    async with Basestore() as store:
        feed = await store.get(manifest=manifest)
        assert (feed.key, feed.manifest, feed.writable) == (manifest.key, manifest, False)
        await (await store.get(manifest=manifest, key_pair=pair)).append(b"x")
        assert feed.length == 1
        with pytest.raises(VerifyError):
            await store.get(manifest=manifest, key=bytes(32))
        with pytest.raises(UsageError, match="none of the signers"):
            await store.get(manifest=manifest, key_pair=KeyPair.generate())
        assert (await store.get(manifest=manifest)).key_pair == pair, "it was not lost"


async def test_a_static_log_takes_its_prologue_and_nothing_else() -> None:
    async with Basestore() as store:
        source = await store.get("source")
        await source.append(numbered(4))
        manifest = Manifest(prologue=Prologue(await source.tree_hash(), 4))
        static = await store.get(manifest=manifest)
        with pytest.raises(VerifyError):
            await static.append(numbered(4, start=1))
        await static.append(numbered(4))
        assert await static.tree_hash() == await source.tree_hash()
        with pytest.raises(UsageError):
            await static.append(b"more")


async def test_a_log_by_its_discovery_key_must_be_here(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        found = (await store.get("log")).discovery_key
        with pytest.raises(StoreError, match="stored here"):
            await store.get(discovery_key=bytes(32))
    async with Basestore(tmp_path) as store:
        assert (await store.get(discovery_key=found)).discovery_key == found


@pytest.mark.parametrize(
    "wishes",
    [
        {},
        {"name": ""},
        {"name": "x", "key": bytes(32)},
        {"name": "x", "discovery_key": bytes(32)},
        {"key": bytes(32), "discovery_key": bytes(32)},
        {"key": bytes(31)},
        {"key": "text"},
        {"name": bytes(32), "key": bytes(32)},
        {"name": "x", "encryption_key": b"short"},
        {"name": "half a pair \ud800"},
        {"name": "x", "encryption_key": "a" * 32},
        {"discovery_key": "q"},
        {"discovery_key": bytes(31)},
        {"key_pair": 3},
        {"manifest": 3},
    ],
)
async def test_what_names_no_log_is_refused(wishes: dict[str, Any]) -> None:
    async with Basestore() as store:
        with pytest.raises(UsageError):
            await store.get(**wishes)
        assert await store.list() == []


async def test_manifest_versions_and_places_are_looked_at(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="version"):
        Basestore(manifest_version=4)
    with pytest.raises(UsageError, match="not in both"):
        Basestore(tmp_path, storage=MemoryStorage())


# Views and sessions


async def test_namespaces_have_names_of_their_own() -> None:
    async with Basestore(primary_key=PRIMARY) as store:
        one, two = store.namespace("one"), store.namespace("two")
        keys = {(await view.get("log")).key for view in (store, one, two, one.namespace("two"))}
        assert len(keys) == 4
        again = await store.namespace("one").get("log")
        assert again.key == (await one.get("log")).key
        assert set(await one.names()) == {"log"}
        assert await store.list(one.namespace_key) == [again.discovery_key]
        assert len(await store.list()) == 4


async def test_a_view_that_is_closed_closes_its_own_only() -> None:
    async with Basestore() as store:
        view = store.session()
        inner = view.namespace("inner")
        mine, theirs, inside = (
            await store.get("log"),
            await view.get("log"),
            await inner.get("log"),
        )
        await view.close()
        assert theirs.closed
        assert inside.closed
        assert view.closed
        assert inner.closed
        assert not store.closed
        await mine.append(b"x")
        with pytest.raises(ClosedError):
            await view.get("log")
        with pytest.raises(ClosedError):
            inner.create_key_pair("log")


async def test_a_store_that_only_reads_gives_out_readers() -> None:
    async with Basestore(writable=False) as store:
        feed = await store.get("log")
        with pytest.raises(UsageError, match="only reads"):
            await feed.append(b"")
        assert not (await store.namespace("x").get("log")).writable


async def test_closing_the_store_closes_everything_and_twice_is_fine() -> None:
    before = Belongings()
    store = Basestore()
    feed = await store.get("log")
    view = store.namespace("x")
    inner = await view.get("log")
    await store.close()
    await store.close()
    assert feed.closed
    assert inner.closed
    assert view.closed
    for call in (store.get("log"), store.list(), store.names()):
        with pytest.raises(ClosedError):
            await call
    with pytest.raises(ClosedError):
        _ = store.primary_key
    for use in (store.session, store.listen, view.listen):
        with pytest.raises(ClosedError):
            use()
    assert await before.left() == []


async def test_a_store_can_be_used_without_a_with_and_opens_when_used(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = Basestore(folder)
    assert not folder.exists()
    feed = await store.get("log")
    await feed.append(b"x")
    await store.close()
    assert folder.exists()


# The directory


async def test_a_directory_belongs_to_one_store_at_a_time(tmp_path: Path) -> None:
    async with Basestore(tmp_path) as store:
        await store.get("log")
        with pytest.raises(StoreError, match=str(tmp_path)):
            await Basestore(tmp_path).get("log")
    async with Basestore(tmp_path) as store:
        await store.get("log")


async def test_a_name_and_its_log_come_about_together() -> None:
    """A storage that fails at the k-th write leaves a log with its name, or nothing."""

    class Failing(MemoryStorage):
        left = 0

        def write_batch(self, *args: Any, **kwargs: Any) -> None:
            if Failing.left == 0:
                raise StoreError("no space left")
            Failing.left -= 1
            super().write_batch(*args, **kwargs)

    for allowed in range(3):
        storage = Failing()
        Failing.left = allowed
        store = Basestore(storage=storage, primary_key=PRIMARY)
        if allowed < 2:
            with pytest.raises(StoreError, match="no space"):
                await store.get("log")
            Failing.left = 10
            assert await store.list() == []
            feed = await store.get("log")
        else:
            feed = await store.get("log")
            with pytest.raises(StoreError, match="no space"):
                await feed.append(b"x")
            assert feed.length == 0
            Failing.left = 10
        assert await feed.append(b"x") == (1, 1)
        assert await store.list() == [feed.discovery_key]
        await store.close()


async def test_ten_thousand_logs_are_listed_without_being_opened() -> None:
    async with Basestore() as store:
        for index in range(300):
            feed = await store.get(f"log {index}")
            await feed.close()
        assert len(await store.list()) == len(await store.names()) == 300


# Watching


async def test_watchers_hear_of_every_log_that_is_opened(tmp_path: Path) -> None:
    heard: list[FeedOpened] = []
    async with Basestore(tmp_path) as store:
        stop = store.watch(heard.append)
        events = store.listen()
        feed = await store.get("log")
        await store.get("log")
        assert heard == [FeedOpened(feed.key, feed.discovery_key)]
        assert await anext(events) == heard[0]
        stop()
        await store.get("other")
        assert len(heard) == 1


async def test_a_log_nobody_uses_is_closed_and_opened_again_when_wanted() -> None:
    clock = TurnedClock()
    async with Basestore(clock=clock, chance=Middle()) as store:
        events = store.listen()
        feed = await store.get("log")
        await feed.append(numbered(3))
        key = feed.key
        await feed.close()
        await clock.advance(6.9)
        again = await store.get("log")
        await clock.advance(100)
        assert await blocks_of(again) == numbered(3), "a get in between keeps it"
        await again.close()
        await clock.advance(7.1)
        found = discovery_key(key)
        assert [await anext(events), await anext(events)] == [
            FeedOpened(key, found),
            FeedLeft(key, found),
        ]
        assert await blocks_of(await store.get("log")) == numbered(3)


async def test_logs_that_were_left_take_no_memory() -> None:
    clock = TurnedClock()
    async with Basestore(clock=clock, chance=Middle()) as store:
        for index in range(50):
            feed = await store.get(f"log {index}")
            await feed.append(b"x")
            await feed.close()
        await clock.advance(100)
        assert not store._root.logs
        assert not clock.planned
        del feed
        gc.collect()
        assert sys.getsizeof(store._root.logs) < 10_000


async def test_what_open_logs_remember_of_their_trees_has_one_bound() -> None:
    async with Basestore() as store:
        feeds = [await store.get(f"log {number}") for number in range(3)]
        memories = {id(feed._log._cache._memory) for feed in feeds}
        assert len(memories) == 1


Wrong = Callable[[Basestore, Feed], object]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda *_: Basestore(primary_key=5), "a primary key is 32 bytes"),  # type: ignore[arg-type]
        (lambda *_: Basestore(5), "path is text, not 5"),  # type: ignore[arg-type]
        (lambda store, _: store.get("other", timeout="x"), "timeout is seconds.* not 'x'"),
        (lambda store, _: store.replicate(None), "a connection, not None"),
        (lambda store, _: store.watch(None), "a function, not None"),
        (lambda store, _: store.listen(backlog="x"), "backlog .*, not 'x'"),
        (lambda _, feed: feed.get(9, timeout="x"), "timeout is seconds.* not 'x'"),
        (lambda _, feed: feed.get(9, timeout=float("nan")), "timeout is seconds.* not nan"),
        (lambda _, feed: feed.seek(9, timeout=b"1"), "timeout is seconds"),
        (lambda _, feed: feed.update(timeout="x"), "timeout is seconds"),
        (lambda _, feed: feed.session(timeout="x"), "timeout is seconds"),
        (lambda _, feed: feed.append(b"x", signature="x"), "a signature is bytes, not str"),
        (lambda _, feed: feed.truncate(0, signature=64), "a signature is bytes, not int"),
        (lambda _, feed: feed.subscribe(None), "a function, not None"),
    ],
)
async def test_arguments_that_make_no_sense_are_told_in_words(wrong: Wrong, words: str) -> None:
    async with Basestore() as store:
        feed = await store.get("log")

        async def call() -> None:
            result = wrong(store, feed)
            if isinstance(result, Awaitable):
                await result

        with pytest.raises(UsageError, match=words):
            await call()
        assert await store.names() == {"log": feed.discovery_key}
