"""Logs in memory and links between their replicators; every message is encoded on its way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import Random
from typing import Any

from covey.errors import ProtocolError, StoreError
from covey.feed.hashes import Node
from covey.feed.log import Log
from covey.feed.log_changes import Changes, Head, Hints
from covey.feed.manifest import Manifest, default_manifest
from covey.feed.messages import MESSAGE_CODECS, NoData
from covey.feed.replication_events import ChannelDone, ChannelWanted, Event
from covey.feed.replication_peer import NO_DATA, ReplicationPeer
from covey.feed.replicator import Replicator
from covey.keys import KeyPair
from covey.wire.encoding import decode, encode

PAIR = KeyPair.from_seed(b"\x11" * 32)


class DictRecords:
    """The records of one log in dicts; writes raise while it is `failing`, reads of `damaged`."""

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.blocks: dict[int, bytes] = {}
        self.head: Head | None = None
        self.pages: dict[int, bytes] = {}
        self.manifest: Manifest | None = None
        self.frozen = False
        self.hints: Hints | None = None
        self.commits = 0
        self.failing = False
        self.damaged: set[int] = set()
        """Nodes that cannot be read until they are written again."""

    def node(self, index: int) -> Node | None:
        """A node."""
        if index in self.damaged:
            raise StoreError(f"the store is damaged: node {index}")
        return self.nodes.get(index)

    def block(self, index: int) -> bytes | None:
        """A block."""
        return self.blocks.get(index)

    def user_data(self, name: str) -> bytes | None:
        """Nothing."""
        return None

    def commit(self, changes: Changes) -> None:
        """All or nothing."""
        if self.failing:
            raise StoreError("the disk is full")
        self.commits += 1
        for kept, spans in (
            (self.blocks, changes.deleted_blocks),
            (self.nodes, changes.deleted_nodes),
        ):
            for start, end in spans:
                store: dict[int, Any] = kept
                if end - start <= len(store):
                    for index in range(start, end):
                        store.pop(index, None)
                else:
                    for index in [index for index in store if start <= index < end]:
                        del store[index]
        self.blocks.update(changes.blocks)
        self.nodes.update((node.index, node) for node in changes.nodes)
        self.damaged.difference_update([node.index for node in changes.nodes])
        self.pages.update(changes.pages)
        self.head = changes.head or self.head
        self.hints = changes.hints or self.hints
        self.manifest = changes.manifest or self.manifest
        self.frozen = self.frozen if changes.frozen is None else changes.frozen


class Side:
    """One who has a log: its replicator, its open links, and everything that happened.

    What `write_beside` began ends as soon as the replicator has anybody look after it.
    """

    def __init__(
        self,
        *,
        writer: bool = False,
        pair: KeyPair = PAIR,
        compat: bool = False,
        seed: int = 0,
        downloading: bool = True,
        manifest: Manifest | None = None,
        **options: Any,
    ) -> None:
        manifest = manifest or default_manifest(PAIR.public_key)
        self.records = DictRecords()
        self.log = Log(
            self.records,
            key=PAIR.public_key if compat else manifest.key,
            manifest=None if compat or not writer else manifest,
            key_pair=pair if writer else None,
        )
        self.now = 0.0
        self.events: list[Event] = []
        self.links: dict[ReplicationPeer, Link] = {}
        self._beside: StoreError | bool = False
        options.setdefault("on_work", self.end_writing)
        self.replicator = Replicator(self.log, random=Random(seed), now=0.0, **options)
        self.replicator.on_event.append(self._heard)
        if downloading:
            self.replicator.set_downloading(True, 0.0)

    @classmethod
    def of(cls, *blocks: bytes, **options: Any) -> Side:
        """A writer with these blocks."""
        side = cls(writer=True, **options)
        side.log.append(list(blocks))
        return side

    def _heard(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, ChannelDone):
            self.links[event.peer].cut(remote=self)

    def told(self, kind: type) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if type(event) is kind]

    @property
    def blocks(self) -> dict[int, bytes]:
        """All blocks held."""
        return dict(self.records.blocks)

    def write_beside(self, *, hold_back: bool = False) -> None:
        """Have what is staged written as in a thread, whose end is heard of later.

        `hold_back`: until then nothing is asked for.
        """
        self.end_writing()
        work = self.log.begin_flush(self.end_writing)
        if work is None:
            return
        self._beside = True
        try:
            work()
        except StoreError as error:
            self._beside = error
        if hold_back:
            self.replicator.downloads.suspended = True

    def end_writing(self) -> None:
        """Hear of the end of what was written, and go on where that was waited for."""
        ended, self._beside = self._beside, False
        if isinstance(ended, StoreError):
            with suppress(StoreError):
                self.log.end_flush(ended)
            self.replicator.store_failed(ended)
        elif ended:
            self.log.end_flush(None)
            self.replicator.resume(self.now)

    def work(self) -> bool:
        """Do what is due now; whether anything was."""
        self.end_writing()
        staged = 0
        try:
            staged = self.log.flush() if self.log.staged_blocks else 0
        except StoreError as error:
            self.replicator.store_failed(error)
        due = self.replicator.next_timer()
        if due is not None and due <= self.now:
            self.replicator.handle_timer(self.now)
            return True
        return staged > 0

    def __repr__(self) -> str:
        return f"<{self.log.length} blocks, fork {self.log.fork}>"


class End:
    """One end of a link: what is on its way to this side."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.incoming: deque[tuple[int, bytes]] = deque()
        self.peer: ReplicationPeer | None = None
        self.full = False


class Link:
    """A connection of two sides; messages wait in it until `step`."""

    def __init__(
        self,
        first: Side,
        second: Side,
        *,
        seeks: bool = True,
        keys: tuple[bytes, bytes] | None = None,
    ) -> None:
        self.ends = End(first), End(second)
        self.trace: list[tuple[Side, int, Any]] = []
        self.open = True
        self.errors: list[tuple[Side, ProtocolError]] = []
        self.drops: Callable[[Side, int, Any], Any] | None = None
        for number, end in enumerate(self.ends):
            other = self.ends[1 - number]
            end.peer = end.side.replicator.add_peer(
                self._sender(end.side, other),
                remote_key=keys[1 - number] if keys else None,
                seeks=seeks,
                now=end.side.now,
            )
            end.side.links[end.peer] = self

    def _sender(self, sender: Side, other: End) -> Callable[[int, Any], bool]:
        def send(kind: int, message: Any) -> bool:
            if self.open:
                self.trace.append((sender, kind, message))
                if self.drops is not None:
                    message = self.drops(sender, kind, message)
                if isinstance(message, NoData):
                    kind = NO_DATA
                if message is not None:
                    other.incoming.append((kind, encode(MESSAGE_CODECS[kind], message)))
            return not other.full

        return send

    def peer_of(self, side: Side) -> ReplicationPeer:
        """How `side` sees the other one."""
        end = self.ends[0] if self.ends[0].side is side else self.ends[1]
        assert end.peer is not None
        return end.peer

    def end_of(self, side: Side) -> End:
        """The end at `side`."""
        return self.ends[0] if self.ends[0].side is side else self.ends[1]

    def step(self) -> bool:
        """Deliver one message to each end that has one; whether there was any."""
        moved = False
        for end in self.ends:
            if self.open and end.incoming and end.peer is not None:
                kind, data = end.incoming.popleft()
                moved = True
                self.deliver(end, kind, data)
        return moved

    def deliver(self, end: End, kind: int, data: bytes) -> None:
        """Hand one message over."""
        assert end.peer is not None
        try:
            end.peer.receive(kind, decode(MESSAGE_CODECS[kind], data), end.side.now)
        except ProtocolError as error:
            self.errors.append((end.side, error))
            self.cut(remote=end.side)

    def inject(self, to: Side, kind: int, message: Any) -> None:
        """A message that the other side never meant."""
        self.deliver(self.end_of(to), kind, encode(MESSAGE_CODECS[kind], message))

    def drain(self, side: Side) -> None:
        """What `side` sends is taken again."""
        other = self.ends[1] if self.ends[0].side is side else self.ends[0]
        other.full = False
        self.peer_of(side).drained(side.now)

    def cut(self, *, remote: Side | None = None) -> None:
        """End it; `remote`: this side closed the channel."""
        if not self.open:
            return
        self.open = False
        for end in self.ends:
            assert end.peer is not None
            if end.side is remote or remote is None:
                end.incoming.clear()
            while end.incoming:
                self.deliver(end, *end.incoming.popleft())
            if end.side is not remote:
                end.peer.closed(end.side.now, remote=remote is not None)


def run(*links: Link, most: int = 200_000) -> None:
    """Deliver and work until nothing moves."""
    sides = {end.side: None for link in links for end in link.ends}
    for _ in range(most):
        moved = [link.step() for link in links]
        worked = [side.work() for side in sides]
        if not any(moved) and not any(worked):
            return
    raise AssertionError("it never comes to rest")


def pass_time(seconds: float, *links: Link) -> None:
    """Let time pass, with every timer at its time, and run."""
    sides = {end.side: None for link in links for end in link.ends}
    end = max(side.now for side in sides) + seconds
    while True:
        dues = [side.replicator.next_timer() for side in sides]
        due = min((at for at in dues if at is not None), default=end)
        now = min(max(due, *(side.now for side in sides)), end) if sides else end
        for side in sides:
            side.now = now
        run(*links)
        if now >= end:
            return
        if due > end:
            for side in sides:
                side.now = end
            run(*links)
            return


def reopened(link: Link) -> Link:
    """A new link for one that a `ChannelWanted` asks for."""
    first, second = (end.side for end in link.ends)
    assert any(side.told(ChannelWanted) for side in (first, second))
    return Link(first, second)
