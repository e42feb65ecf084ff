"""`WakeupGroup`: many logs that peers keep alike, opened only where a hint says that one has news.

The wire is `protomux-wakeup`; what its lookups mean here is in `reconcile`, what is opened when in
`wakeup_policy`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

from covey.closing import Closing
from covey.errors import ClosedError, CoveyError, UsageError
from covey.events import EventStream, Subscription
from covey.keys import KEY_SIZE
from covey.limits import Limits
from covey.networker.accepting import Accepting
from covey.networker.group_events import (
    GroupEvent,
    GroupFailed,
    GroupPeerAdded,
    GroupPeerRemoved,
    Heard,
)
from covey.networker.group_peer import GroupPeer, GroupPeerOptions
from covey.networker.head_table import EMPTY, Head, HeadTable
from covey.networker.wakeup_policy import batches, is_news
from covey.networker.waking import FeedSource, Waker, WakerOptions
from covey.owned_tasks import OwnedTasks
from covey.store.feed_events import HeadChanged
from covey.wakeup import Lookup, Wakeup, WakeupHandlers, WakeupPeer, WakeupSession, WriterHead
from covey.wire.wakeup_messages import topic_id

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger("covey.networker")

ANNOUNCE_WINDOW: Final = 0.05
"""Seconds for which heads that change are collected, to be announced together."""
READ_PAUSE: Final = 5.0
"""Seconds until heads that could not be read are read again."""
SHOWN: Final = 64
"""Logs of one announce that an event carries."""
SLICE: Final = 512
"""Heads of an announce that are looked at in one go: some 3 ms."""


class GroupStore(FeedSource, Protocol):
    """What a group needs of the store: a `Basestore`."""

    def watch_heads(self, callback: Callable[[HeadChanged], object]) -> Callable[[], None]:
        """Call `callback` when an open log has another head."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupOptions:
    """What a group is made with; see `Networker.group`."""

    store: GroupStore
    wakeup: Wakeup
    limits: Limits
    accept: Callable[[bytes], bool] | bool
    linger: float
    download: bool
    discovery_key: bytes | None
    on_close: Callable[[bytes], object]


class GroupFeeds(Collection[bytes]):
    """The keys of a group's logs, in order, as they are at each moment."""

    __slots__ = ("_table",)

    def __init__(self, table: HeadTable) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._table)

    def __contains__(self, key: object) -> bool:
        return key in self._table

    def __repr__(self) -> str:
        return f"<GroupFeeds {len(self)}>"

    def head(self, key: bytes) -> Head | None:
        """Fork and length of a log here; None when it is not in the group, or not looked up yet."""
        return self._table.get(key)


class WakeupGroup:
    """Logs that are kept alike with all peers who know `capability`; made by `Networker.group`.

    Peers tell each other which logs have news. Such a log is opened, brought up to date and closed
    again when nothing happened for a while; logs without news cost no channel. What a user opens
    himself is exchanged as without a group. An async context manager; it is closed with its
    networker. After `close` everything but `close` and `key in group` raises `ClosedError`.
    """

    def __init__(self, capability: bytes, feeds: Iterable[bytes], options: GroupOptions) -> None:
        self.capability = capability
        self._options = options
        self._table = HeadTable()
        self._peers: dict[WakeupPeer, GroupPeer] = {}
        self._events: EventStream[GroupEvent] = EventStream(backlog=options.limits.event_backlog)
        self._tasks = OwnedTasks(logger)
        self._closing = Closing()
        self._accepting = Accepting(
            options.accept,
            options.limits.accepted_logs,
            failed=lambda error: self._events.publish(GroupFailed(error)),
        )
        self._early: dict[bytes, dict[WakeupPeer, int]] = {}
        self._changed: dict[bytes, bool] = {}
        self._fresh: dict[bytes, None] = {}
        self._window: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._session: WakeupSession | None = None
        self._waker = Waker(
            WakerOptions(
                store=options.store,
                most=options.limits.woken_logs,
                linger=options.linger,
                download=options.download,
                publish=self._events.publish,
                head=self._table.get,
            )
        )
        self._peer_options = GroupPeerOptions(
            table=self._table,
            accepts=options.accept is not False,
            limits=options.limits,
            tasks=self._tasks,
            suspect=self._suspect,
        )
        self._table.add(feeds)
        self._check_topic()
        self._unwatch = options.store.watch_heads(self._head_changed)
        self._tasks.spawn(self._begin(), "covey wakeup group")

    def __repr__(self) -> str:
        if self.closed:
            return "<WakeupGroup closed>"
        return (
            f"<WakeupGroup {self.capability.hex()[:8]}, {len(self._table)} logs, "
            f"{len(self._peers)} peers>"
        )

    # What it is

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closing.begun

    @property
    def feeds(self) -> GroupFeeds:
        """The keys of its logs."""
        return GroupFeeds(self._table)

    @property
    def peers(self) -> list[WakeupPeer]:
        """The peers that proved to know the capability."""
        return list(self._peers)

    @property
    def woken(self) -> frozenset[bytes]:
        """The logs that are open because of a hint."""
        return self._waker.woken

    def __contains__(self, key: object) -> bool:
        return key in self._table

    async def ready(self) -> None:
        """Wait until the heads of the logs are known and peers are being met.

        Raises `StoreError` when they could not be read.
        """
        self._check_open()
        await asyncio.shield(self._ready)

    # What is in it

    def add(self, *keys: bytes) -> None:
        """Take logs in; those that are not here yet too. Known ones change nothing.

        The peers are told of what is here of them, and asked for what they have.

        `UsageError` for what is no key.
        """
        self._check_open()
        self._add(keys, asks=True)

    def _add(self, keys: Sequence[bytes], *, asks: bool) -> None:
        fresh = self._table.add(keys)
        if fresh:
            self._tasks.spawn(self._load(fresh, asks=asks), "covey wakeup heads")

    def remove(self, *keys: bytes) -> None:
        """Leave logs out: they are neither announced nor opened for hints any more.

        One that is open because of a hint is closed. The store keeps them.
        """
        self._check_open()
        for key in keys:
            self._table.discard(key)
            self._early.pop(key, None)
            self._changed.pop(key, None)
            self._fresh.pop(key, None)
            self._accepting.remove(key)
            self._waker.withdraw(key)

    def lookup(self) -> None:
        """Ask all peers what they have that is not here; they were asked when they came."""
        self._check_open()
        for peer in self._peers.values():
            peer.ask_anew()

    # Events

    def listen(self, *, backlog: int | None = None) -> Subscription[GroupEvent]:
        """Events from now on, bounded by `Limits.event_backlog`; they end with the group."""
        self._check_open()
        return self._events.listen(backlog=backlog)

    def subscribe(self, callback: Callable[[GroupEvent], object]) -> Callable[[], None]:
        """Call `callback` with each event as it happens; returns the function that stops it."""
        self._check_open()
        return self._events.subscribe(callback)

    # The heads here

    async def _begin(self) -> None:
        try:
            await self._read_heads([*self._table])
            self._check_topic()
            self._meet()
        except Exception as error:
            if not isinstance(error, CoveyError):
                logger.exception("a group cannot begin")
            self._failed(error)
            if not self._ready.done():
                self._ready.set_exception(error)
                self._ready.exception()  # nobody has to wait for it

    def _check_topic(self) -> None:
        """Whether the wakeup can have this group: one topic has one capability."""
        wakeup, id_ = self._options.wakeup, self._options.discovery_key
        if wakeup.closed:
            raise ClosedError("the wakeup of this networker is closed")
        if id_ is not None and (not isinstance(id_, bytes) or len(id_) != KEY_SIZE):
            raise UsageError(f"a discovery_key has {KEY_SIZE} bytes")
        topic = wakeup.topics.get(topic_id(self.capability) if id_ is None else id_)
        if topic is not None and topic.capability != self.capability:
            raise UsageError("another capability has this discovery_key")

    def _meet(self) -> None:
        options = self._options
        handlers = WakeupHandlers(
            on_peer_add=self._peer_added,
            on_peer_remove=self._peer_removed,
            on_announce=self._announced,
            on_lookup=self._looked_up,
            discovery_key=options.discovery_key,
        )
        session = self._session = options.wakeup.session(self.capability, handlers)
        for peer in session.peers:  # another session of this capability may have met them before
            self._peer_added(peer, session)
        self._ready.set_result(None)

    async def _load(self, keys: Sequence[bytes], *, asks: bool) -> None:
        """Look up the heads of logs that came later, and act on the hints that came meanwhile."""
        while True:
            try:
                changed = await self._read_heads(keys)
                break
            except ClosedError:
                return
            except CoveyError as error:
                self._failed(error)
            await asyncio.sleep(READ_PAUSE)
        if asks:
            self._fresh.update(dict.fromkeys([key for key in keys if key in self._table]))
            self._open_window()
        else:
            for key in changed:
                self._note_change(key, forked=False)
        hints: dict[WakeupPeer, list[WriterHead]] = {}
        for key in keys:
            for peer, length in self._early.pop(key, {}).items():
                if peer in self._peers:
                    hints.setdefault(peer, []).append(WriterHead(key, length))
        for peer, heads in hints.items():
            self._hear(heads, Heard(peer, SHOWN))

    async def _read_heads(self, keys: Sequence[bytes]) -> list[bytes]:
        """Note the heads of these logs; gives those with anything in them."""
        found = await self._options.store.heads(keys)
        changed = []
        for key, head in found.items():
            if self._table.get(key) is not None:
                continue  # what changed while it was read is known already, and newer
            self._waker.note(key, lacking=head.lacking)
            if self._table.set(key, Head(head.fork, head.length)):
                changed.append(key)
        return changed

    def _head_changed(self, event: HeadChanged) -> None:
        if event.key not in self._table:
            return
        before = self._table.get(event.key) or EMPTY
        self._waker.note(event.key, lacking=event.lacking)
        if self._table.set(event.key, Head(event.fork, event.length)):
            # One that was cut to nothing was not heard of: it is told with its first blocks.
            regrown = before.length == 0 and event.fork > 0
            self._note_change(event.key, forked=regrown or before.fork != event.fork)

    def _note_change(self, key: bytes, *, forked: bool) -> None:
        self._changed[key] = forked or self._changed.get(key, False)
        self._open_window()

    def _open_window(self) -> None:
        if self._window is None:
            self._window = self._loop.call_later(ANNOUNCE_WINDOW, self._tell_changes)

    def _tell_changes(self) -> None:
        """Announce what changed lately to everybody who did not say so himself."""
        self._window = None
        changed, self._changed = self._changed, {}
        fresh, self._fresh = [*self._fresh], {}
        hints = self._waker.queue.open
        for peer, told in self._peers.items():
            keys = []
            for key in changed.keys() - fresh:
                hint, head = hints.get(key), self._table.get(key)
                known = hint and not changed[key] and hint.knows(peer, head.length if head else 0)
                if head is not None and not known:
                    keys.append(key)
            told.tell(keys, [key for key in keys if changed[key]])
            if fresh:
                told.ask_anew(fresh)

    # What the peers tell

    def _peer_added(self, peer: WakeupPeer, session: WakeupSession) -> None:
        if peer in self._peers:
            return
        made = self._peers[peer] = GroupPeer(peer, session, self._peer_options)
        self._events.publish(GroupPeerAdded(peer))
        self._waker.met(peer)
        made.ask()

    def _peer_removed(self, peer: WakeupPeer, _session: WakeupSession) -> None:
        gone = self._peers.pop(peer, None)
        if gone is not None:
            gone.close()
            for hints in self._early.values():
                hints.pop(peer, None)
            if self._waker.gone(peer):
                for other in self._peers.values():
                    other.ask_anew()
            self._events.publish(GroupPeerRemoved(peer))

    def _looked_up(self, lookup: Lookup, peer: WakeupPeer, _session: WakeupSession) -> None:
        known = self._peers.get(peer)
        if known is not None:
            known.looked_up(lookup.hash)

    def _announced(
        self, heads: list[WriterHead], peer: WakeupPeer, _session: WakeupSession
    ) -> Coroutine[Any, Any, None] | None:
        known = self._peers.get(peer)
        if known is None or not known.may_tell(len(heads)):
            return None
        known.announced(heads)
        heard = Heard(peer, SHOWN)
        if len(heads) > SLICE:
            return self._hear_by_slices(heads, heard)
        self._hear(heads, heard)
        return None

    async def _hear_by_slices(self, heads: list[WriterHead], heard: Heard) -> None:
        """Others have their turn between; what the same peer says next waits."""
        for some in batches(heads, SLICE):
            if heard.peer not in self._peers:
                return
            self._hear(some, heard, publish=False)
            await asyncio.sleep(0)
        heard.publish(self._events)

    def _hear(self, heads: Sequence[WriterHead], heard: Heard, *, publish: bool = True) -> None:
        """Act on heads that a peer has, and tell of them."""
        peer = heard.peer
        taken: dict[bytes, None] = {}
        for head in heads:
            key, length = head
            if key not in self._table and key not in taken:
                if not self._accepting.takes(key, peer.stream.remote_key):
                    heard.unknown(head)
                    continue
                taken[key] = None
            here = self._table.get(key)
            if here is None:
                self._early.setdefault(key, {})[peer] = length
            elif is_news(here, length):
                heard.news(head)
                self._waker.hint(key, length, peer)
        self._add([*taken], asks=False)
        if publish:
            heard.publish(self._events)

    def _suspect(self, peer: WakeupPeer, heads: Sequence[tuple[bytes, int]]) -> None:
        for key, length in heads:
            self._waker.hint(key, length, peer, forked=True)

    def _failed(self, error: Exception) -> None:
        if not (self.closed or isinstance(error, ClosedError)):
            logger.warning("the heads of a group cannot be read: %s", error)
        self._events.publish(GroupFailed(error))

    # The end

    async def close(self) -> None:
        """Leave the group: nothing is announced or opened for it any more. Twice is fine.

        Logs that hints opened are closed; the store and the connections stay.
        """
        await self._closing.run(self._close, "covey wakeup group close")

    async def _close(self) -> None:
        self._unwatch()
        if self._window is not None:
            self._window.cancel()
        if self._session is not None:
            self._session.destroy()
        for peer in self._peers.values():
            peer.close()
        self._peers.clear()
        if not self._ready.done():
            self._ready.set_exception(ClosedError("this group is closed"))
            self._ready.exception()
        await self._tasks.end()
        await self._waker.end()
        self._early.clear()
        self._events.close()
        self._options.on_close(self.capability)

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("this group is closed")

    async def __aenter__(self) -> Self:
        self._check_open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def can_group(store: Any) -> bool:
    """Whether a store has what a group needs."""
    return all(hasattr(store, name) for name in ("get", "heads", "watch_heads"))
