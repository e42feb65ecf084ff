"""Who is there for a log: what is told, and when nobody is too long."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

from covey.cli.log_presence import Presence, line_of
from covey.cli.narrator import Brief
from covey.cli.output import Output
from covey.cli.runtime import CommandError, Exit
from covey.errors import StoreError, VerifyError
from covey.store import feed_events as told
from covey.store.feed import Feed
from covey.store.feed_events import FeedEvent
from covey.store.feed_peer import FeedPeer

KEY = bytes(range(32))
CONNECTION = SimpleNamespace(
    type="tcp",
    initiator=True,
    handshake="noise",
    remote_key=KEY,
    remote_address=("127.0.0.1", 5),
)
PEER = cast("FeedPeer", SimpleNamespace(remote_key=KEY, connection=CONNECTION))


class FakeFeed:
    """A feed whose peers and events are the test's."""

    key = KEY

    def __init__(self) -> None:
        self.peers: list[FeedPeer] = []
        self.progress = SimpleNamespace(have=2, total=5)
        self.callback: Callable[[FeedEvent], object] | None = None

    def subscribe(self, callback: Callable[[FeedEvent], object]) -> Callable[[], None]:
        self.callback = callback
        return lambda: setattr(self, "callback", None)

    def tell(self, event: FeedEvent) -> None:
        assert self.callback is not None
        self.callback(event)

    def come(self) -> None:
        self.peers.append(PEER)
        self.tell(told.PeerAdded(PEER))

    def go(self) -> None:
        self.peers.clear()
        self.tell(told.PeerRemoved(PEER))


def presence_of(feed: FakeFeed) -> tuple[Presence, Callable[[], list[dict[str, Any]]]]:
    stream = io.StringIO()
    presence = Presence(cast("Feed", feed), Output(as_json=True, stream=stream))
    return presence, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (told.Appended(5, 0, 3), ""),
        (told.Truncated(3, 1, 9), "its writer cut the log from 9 blocks to 3 blocks"),
        (told.PeerAdded(PEER), "path: tcp dialled 127.0.0.1:5 (this machine)"),
        (told.PeerRemoved(PEER), "peer 00010203… left"),
        (told.PeerRemoved(PEER, VerifyError("bad proof")), "peer 00010203… left: bad proof"),
        (told.VerificationFailed(PEER, VerifyError("bad")), "is not to be trusted: bad"),
        (told.RequestRefused(PEER, VerifyError("silly")), "is not to be trusted: silly"),
        (told.ConflictFound(7, 0, PEER), "its writer signed two histories of 7 blocks"),
        (told.StoreFailed(StoreError("disk full")), "cannot keep what comes: disk full"),
        (told.ReadFailed(StoreError("block 5")), "cannot read what is stored: block 5"),
    ],
)
def test_what_matters_is_told(event: FeedEvent, words: str) -> None:
    line = line_of(event)
    assert line is not None
    assert words in line[0]
    assert line[1]


def test_blocks_are_not_told_one_by_one() -> None:
    assert line_of(told.Downloaded(1, 2, PEER)) is None
    assert line_of(told.Uploaded(1, 2, PEER)) is None


async def test_nobody_in_time() -> None:
    presence, _ = presence_of(FakeFeed())
    with presence, pytest.raises(CommandError, match="2 of 5 blocks are here") as caught:
        await presence.keep(0.0, Brief())
    assert caught.value.code is Exit.NOBODY


async def test_a_peer_that_comes_back_in_time_is_no_loss() -> None:
    feed = FakeFeed()
    presence, events = presence_of(feed)
    with presence:
        feed.come()
        feed.go()
        feed.come()
        watching = asyncio.create_task(presence.keep(0.0, Brief()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not watching.done()
        feed.go()
        with pytest.raises(CommandError, match="none came back") as caught:
            await watching
    assert caught.value.code is Exit.LOST
    assert feed.callback is None
    assert [event["type"] for event in events()] == ["peer-add", "peer-remove"] * 2
    assert {event["log"] for event in events()} == {KEY.hex()}


async def test_a_store_that_keeps_failing_is_told_once() -> None:
    feed = FakeFeed()
    presence, events = presence_of(feed)
    with presence:
        feed.tell(told.StoreFailed(StoreError("disk full")))
        feed.tell(told.StoreFailed(StoreError("disk full")))
        with pytest.raises(CommandError, match="cannot keep what comes: disk full"):
            await presence.until_broken()
    assert [event["error"] for event in events()] == ["disk full"]
