"""Messages of applications beside a log, over real connections."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

import pytest

from covey.errors import ClosedError, DecodeError, EncodeError, LimitError, UsageError
from covey.feed.messages import MAX_BLOCK, MAX_EXTENSION_NAME
from covey.limits import Limits
from covey.net.connection import Connection
from covey.store.basestore import Basestore
from covey.store.feed import Feed
from covey.store.feed_peer import FeedPeer
from tests.store.meeting import happened, met
from tests.waiting import PATIENCE, until

BACKLOG = 200_000


class Pair(NamedTuple):
    """Both ends of a log, connected."""

    ours: Feed
    theirs: Feed
    connection: Connection
    """Ours."""
    far: Connection

    @property
    def peer(self) -> FeedPeer:
        """The other end, as ours sees it."""
        (peer,) = self.ours.peers
        return peer


@asynccontextmanager
async def paired() -> AsyncIterator[Pair]:
    limits = Limits(extension_backlog=BACKLOG)
    async with Basestore(limits=limits) as first, Basestore(limits=limits) as second:
        ours = await first.get("log")
        await ours.append(b"block")
        theirs = await second.get(ours.key)
        async with met(first, second) as (here, there):
            await until(lambda: ours.peers and theirs.peers)
            yield Pair(ours, theirs, here.connections[0], there.connections[0])


# Sending


async def test_a_peer_that_does_not_read_is_told_to_the_sender_and_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with paired() as pair:
        heard: list[int] = []
        pair.theirs.register_extension("chat", on_message=lambda each, _: heard.append(len(each)))
        chat = pair.ours.register_extension("chat")
        peer = pair.peer
        assert chat.send(b"first", peer)
        await until(lambda: heard)
        pair.far.pause_reading()
        sent = 1
        while chat.send(bytes(100_000), peer):
            sent += 1
            assert sent < 1000, "the sender is told that it should wait"
            await asyncio.sleep(0)
        sent += 1
        for _ in range(BACKLOG // 100_000):
            assert not chat.send(bytes(100_000), peer)
            sent += 1
        with pytest.raises(LimitError) as caught:
            chat.send(b"x", peer)
        assert caught.value.limit == "extension_backlog"
        with caplog.at_level(logging.WARNING, "covey.store.extensions"):
            chat.broadcast(b"to all")
        assert "left out" in caplog.text
        pair.far.resume_reading()
        await until(lambda: len(heard) == sent)
        await until(lambda: peer.replication.writable)
        assert chat.send(b"last", peer), "what it has read counts no more"
        await until(lambda: heard[-1] == 4)


async def test_sending_to_a_peer_that_is_gone_or_after_the_end_is_an_error() -> None:
    async with paired() as pair:
        chat = pair.ours.register_extension("chat")
        peer = pair.peer
        other = pair.ours.register_extension("other")
        other.destroy()
        other.destroy()
        assert other.destroyed
        assert not chat.destroyed
        with pytest.raises(ClosedError, match="destroyed"):
            other.send(b"x", peer)
        other.broadcast(b"x")
        await pair.far.close()
        await until(lambda: not pair.ours.peers)
        with pytest.raises(ClosedError, match="not connected"):
            chat.send(b"x", peer)
        chat.broadcast(b"x")
        await pair.ours.close()
        assert chat.destroyed
        with pytest.raises(ClosedError):
            chat.send(b"x", peer)


async def test_sending_needs_a_peer_of_this_log() -> None:
    async with paired() as pair:
        chat = pair.ours.register_extension("chat")
        for nobody in (None, "peer", pair.peer.remote_key):
            with pytest.raises(UsageError, match="must be specified"):
                chat.send(b"x", nobody)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="another feed"):
            chat.send(b"x", pair.theirs.peers[0])


async def test_what_does_not_encode_or_is_too_long_is_an_error_and_nothing_is_sent() -> None:
    async with paired() as pair:
        heard: list[tuple[str, Any]] = []
        for name in ("one", "two"):
            add = partial(_note, heard, name)
            pair.theirs.register_extension(name, on_message=add)
        one, two = pair.ours.register_extension("one"), pair.ours.register_extension("two")
        one.broadcast(b"for one")
        for wrong in (7, bytes(MAX_BLOCK + 1)):
            with pytest.raises(EncodeError):
                two.broadcast(wrong)
            with pytest.raises(EncodeError):
                two.send(wrong, pair.peer)
        two.broadcast(b"for two")
        await until(lambda: len(heard) == 2)
        assert heard == [("one", b"for one"), ("two", b"for two")]


async def test_the_largest_message_arrives() -> None:
    async with paired() as pair:
        heard: list[int] = []
        name = "n" * MAX_EXTENSION_NAME
        pair.theirs.register_extension(name, on_message=lambda each, _: heard.append(len(each)))
        pair.ours.register_extension(name).broadcast(bytes(MAX_BLOCK))
        await until(lambda: heard == [MAX_BLOCK])


def _note(heard: list[tuple[str, Any]], name: str, message: Any, _peer: FeedPeer) -> None:
    heard.append((name, message))


# Receiving


async def test_messages_wait_for_a_coroutine_and_keep_their_order() -> None:
    order: list[str] = []
    gate = asyncio.Event()

    async def slow(message: str, peer: FeedPeer) -> None:
        order.append(f"begin {message}")
        await gate.wait()
        order.append(f"end {message}")

    async with paired() as pair:
        pair.theirs.register_extension("chat", encoding="utf-8", on_message=slow)
        pair.theirs.register_extension(
            "plain", encoding="utf-8", on_message=lambda each, _: order.append(each)
        )
        chat = pair.ours.register_extension("chat", encoding="utf-8")
        plain = pair.ours.register_extension("plain", encoding="utf-8")
        chat.broadcast("1")
        plain.broadcast("plain")
        chat.broadcast("2")
        await until(lambda: order)
        async with asyncio.timeout(PATIENCE):
            assert await pair.theirs.get(0) == b"block", "blocks do not wait for handlers"
        assert order == ["begin 1"]
        gate.set()
        await until(lambda: "end 2" in order)
        assert order == ["begin 1", "end 1", "plain", "begin 2", "end 2"]


async def test_a_flood_of_what_a_slow_handler_cannot_take_closes_the_channel() -> None:
    handled: list[int] = []
    ended = asyncio.Event()

    async def slow(message: bytes, peer: FeedPeer) -> None:
        handled.append(len(message))
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with paired() as pair:
        pair.theirs.register_extension("chat", on_message=slow)
        events = pair.theirs.listen()
        chat = pair.ours.register_extension("chat")
        chat.broadcast(b"first")
        await until(lambda: handled)
        for _ in range(5):
            chat.broadcast(bytes(BACKLOG // 4))
        removed: Any = await happened(events, "peer-remove")
        assert "too fast" in str(removed.error)
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert handled == [5], "what waited is dropped"
        assert not pair.far.closed


async def test_a_flood_of_empty_messages_is_bounded_too() -> None:
    async def slow(message: bytes, peer: FeedPeer) -> None:
        await asyncio.Event().wait()

    async with paired() as pair:
        pair.theirs.register_extension("chat", on_message=slow)
        events = pair.theirs.listen()
        chat = pair.ours.register_extension("chat")
        for _ in range(BACKLOG // 256 + 2):
            chat.broadcast(b"")
        removed: Any = await happened(events, "peer-remove")
        assert "too fast" in str(removed.error)


async def test_a_handler_ends_with_the_store() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def endless(message: bytes, peer: FeedPeer) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with paired() as pair:
        pair.theirs.register_extension("chat", on_message=endless)
        chat = pair.ours.register_extension("chat")
        chat.broadcast(b"1")
        chat.broadcast(b"2")
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
    assert ended.is_set()


async def test_what_does_not_decode_goes_to_on_error_and_the_channel_lives() -> None:
    async with paired() as pair:
        heard: list[Any] = []
        errors: list[Exception] = []
        theirs = pair.theirs.register_extension(
            "chat",
            encoding="json",
            on_message=lambda each, _: heard.append(each),
            on_error=errors.append,
        )
        raw = pair.ours.register_extension("chat")
        raw.broadcast(b"{")
        raw.broadcast(b"[1]")
        await until(lambda: heard)
        assert heard == [[1]]
        assert [type(error) for error in errors] == [DecodeError]
        theirs.on_error = lambda _: 1 / 0
        raw.broadcast(b"{")
        raw.broadcast(b"2")
        await until(lambda: len(heard) == 2)


# Registering


async def test_names_that_are_none_are_refused_with_words() -> None:
    async with Basestore() as store:
        feed = await store.get("log")
        for name in ("", "\udcff", "n" * (MAX_EXTENSION_NAME + 1), "é" * MAX_EXTENSION_NAME, 3):
            with pytest.raises(UsageError, match="name"):
                feed.register_extension(name)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="encoding"):
            feed.register_extension("chat", encoding="latin-1")
        feed.register_extension("chat")
