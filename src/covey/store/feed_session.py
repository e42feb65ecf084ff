"""What every session of a log is and tells; what can be done with it is in `feed`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Any, Protocol, Self

from covey.closing import Closing
from covey.errors import BlockNotAvailable, ClosedError, CoveyError, FeedTimeout, UsageError
from covey.events import EventStream, Subscription
from covey.feed.encryption import PADDING, BlockCipher
from covey.feed.hashes import Node
from covey.feed.manifest import Manifest
from covey.feed.replication_tickets import Ticket
from covey.feed.signatures import Authority
from covey.keys import KeyPair
from covey.store import feed_events
from covey.store.downloads import Download
from covey.store.extensions import Extension
from covey.store.feed_events import FeedEvent
from covey.store.feed_peer import FeedPeer
from covey.store.progress import FeedProgress
from covey.store.verification import Verification

if TYPE_CHECKING:
    from types import TracebackType

    from covey.store.feed import Feed
    from covey.store.open_log import OpenLog


class SessionOwner(Protocol):
    """The store, or the part of it, that a session was got from."""

    def session_closed(self, feed: FeedSession) -> None:
        """`feed` is closed."""

    def new_session(self, opened: OpenLog, options: Options) -> Feed:
        """Another session of an open log."""


@dataclass(frozen=True, slots=True)
class Options:
    """What is a session's own. `snapshot`: its length, fork and byte length stay as they are."""

    writable: bool = True
    active: bool = True
    snapshot: bool = False
    encryption_key: bytes | None = None
    timeout: float | None = None
    linger: bool = True

    def __repr__(self) -> str:
        encrypted = self.encryption_key is not None
        return f"<Options writable={self.writable} active={self.active} encrypted={encrypted}>"


@dataclass(slots=True)
class Fixed:
    """The head that a snapshot keeps; blocks from `shared` on were replaced since."""

    fork: int
    length: int
    byte_length: int
    roots: Sequence[Node]
    shared: int


def check_timeout(timeout: float | None) -> float | None:
    """`timeout` itself; `UsageError` unless it is seconds, or None."""
    number = isinstance(timeout, int | float) and not isnan(timeout)
    if timeout is not None and not number:
        raise UsageError(f"a timeout is seconds, or None for no end, not {timeout!r}")
    return timeout


class FeedSession:
    """One user's hold on a log: state, events, waiting, close."""

    def __init__(self, opened: OpenLog, owner: SessionOwner, options: Options) -> None:
        self._opened = opened
        self._log = opened.log
        self._owner = owner
        self._options = options
        self.active = options.active
        self.lingers = options.linger
        self._events: EventStream[FeedEvent] | None = None
        self._waiting: dict[Callable[[Any], None], int] = {}
        """What waits, and how many of the first blocks must stay what they are for it."""
        self._cuts: set[Callable[[int], None]] = set()
        self._downloads: set[Download] = set()
        self._verifications: set[Verification] = set()
        self._extensions: list[Extension] = []
        self._ended = False
        self._end_error: CoveyError | None = None
        self._closing = Closing()
        self._cipher: BlockCipher | None = None
        self._cipher_compat = False
        log = self._log
        self._fixed: Fixed | None = None
        if options.snapshot:
            self._fixed = Fixed(log.fork, log.length, log.byte_length, log.roots, log.length)
        opened.add_session(self)

    def __repr__(self) -> str:
        state = "closed" if self._ended else "writable" if self.writable else "readable"
        return f"<Feed {self.key.hex()[:16]} {state}, length {self.length}, fork {self.fork}>"

    # What the log is

    @property
    def key(self) -> bytes:
        """The 32 bytes by which readers know the log: whoever has them can read it."""
        return self._log.key

    @property
    def discovery_key(self) -> bytes:
        """The 32 bytes under which peers of the log find one another."""
        return self._log.discovery_key

    @property
    def manifest(self) -> Manifest | None:
        """Who may sign; None until a peer has told."""
        return self._log.manifest

    @property
    def authority(self) -> Authority:
        """Who may sign, and how several do it together."""
        return self._log.authority

    @property
    def key_pair(self) -> KeyPair | None:
        """The key pair that signs; None where the log can only be read."""
        return self._log.key_pair

    @property
    def fork(self) -> int:
        """How often the history was rewritten."""
        return self._log.fork if self._fixed is None else self._fixed.fork

    @property
    def length(self) -> int:
        """Blocks in the log, held here or not."""
        return self._log.length if self._fixed is None else self._fixed.length

    @property
    def byte_length(self) -> int:
        """Bytes in the blocks; of encrypted logs, in what was encrypted."""
        stored = self._log.byte_length if self._fixed is None else self._fixed.byte_length
        return max(stored - self._padding * self.length, 0)

    @property
    def contiguous_length(self) -> int:
        """So many blocks from the first on are held here without a gap."""
        fixed = self._fixed
        here = self._log.contiguous_length
        return here if fixed is None else min(here, fixed.length, fixed.shared)

    @property
    def writable(self) -> bool:
        """Whether `append` and `truncate` are possible."""
        return (
            self._log.writable
            and self._options.writable
            and self._fixed is None
            and not (self._ended or self._log.frozen)
        )

    @property
    def readable(self) -> bool:
        """Whether blocks can be read: until it is closed."""
        return not self._ended

    @property
    def frozen(self) -> bool:
        """Whether the writer signed two histories; nothing is added or exchanged any more."""
        return self._log.frozen

    @property
    def encryption_key(self) -> bytes | None:
        """The secret under which blocks are encrypted, if they are."""
        return self._options.encryption_key

    @property
    def is_snapshot(self) -> bool:
        """Whether length and fork stay as they were when it was made."""
        return self._fixed is not None

    @property
    def peers(self) -> list[FeedPeer]:
        """The remotes with which the log is exchanged at this moment."""
        return list(self._opened.peers.values())

    @property
    def progress(self) -> FeedProgress:
        """How far the log is here, and how fast blocks move, at this moment.

        In a snapshot what is counted is its own blocks; what moves is the log's.
        """
        whole, fixed = self._opened.progress, self._fixed
        if fixed is None:
            return whole
        have = self._log.bitfield.count(0, min(fixed.length, fixed.shared))
        return replace(
            whole,
            have=have,
            total=fixed.length,
            verified=have,
            contiguous=self.contiguous_length,
            byte_length=fixed.byte_length,
        )

    @property
    def opened(self) -> bool:
        """Whether it can be used."""
        return not self._ended

    @property
    def closed(self) -> bool:
        """Whether it is closed, by its owner or otherwise."""
        return self._ended

    @property
    def _padding(self) -> int:
        return PADDING if self._options.encryption_key is not None else 0

    # Events

    def listen(self, *, backlog: int | None = None) -> Subscription[FeedEvent]:
        """What happens to the log from now on; ends with the session."""
        self._check_open()
        return self._stream().listen(backlog=backlog)

    def subscribe(self, callback: Callable[[FeedEvent], object]) -> Callable[[], None]:
        """Call `callback` with each event as it happens; returns the function that stops that."""
        self._check_open()
        return self._stream().subscribe(callback)

    def publish(self, event: FeedEvent) -> None:
        """Tell who listens. For the open log."""
        if isinstance(event, feed_events.Truncated):
            if self._fixed is not None:
                self._fixed.shared = min(self._fixed.shared, event.length)
                self._give_up_replaced(self._fixed.shared)
            for cut in tuple(self._cuts):
                cut(event.length)
        elif isinstance(event, feed_events.StoreFailed):
            for settle in tuple(self._waiting):
                settle(event.error)
            for download in tuple(self._downloads):
                download.store_failed(event.error)
        if self._events is not None:
            self._events.publish(event)

    def _stream(self) -> EventStream[FeedEvent]:
        if self._events is None:
            self._events = EventStream(backlog=self._opened.host.limits.event_backlog)
        return self._events

    # Waiting

    def _give_up_replaced(self, shared: int) -> None:
        """What would come now for blocks from `shared` on is of another history."""
        for settle, length in tuple(self._waiting.items()):
            if length > shared:
                settle(self._replaced(shared))

    async def _ask(
        self,
        make: Callable[[Callable[[Any], None]], Ticket],
        what: str,
        timeout: float | None,
        *,
        keeps: int = 0,
    ) -> Any:
        """What a ticket brings; `make` gets the function that its `done` is to be.

        In a snapshot it is given up when one of the first `keeps` blocks is replaced.
        Raises what it brings when that is an error, `FeedTimeout`, `ClosedError` when the session
        is closed meanwhile, and `StoreError` while what comes cannot be kept.
        """
        self._opened.check_store()
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def settle(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        self._waiting[settle] = keeps
        ticket: Ticket | None = None
        try:
            ticket = make(settle)
            async with asyncio.timeout(timeout):
                result = await answer
        except TimeoutError as error:
            raise FeedTimeout(f"no peer brought {what} within {timeout:g} s") from error
        finally:
            self._waiting.pop(settle, None)
            if ticket is not None:
                ticket.cancel()
                self._opened.touch()
        if isinstance(result, CoveyError):
            raise result
        return result

    def _check_open(self) -> None:
        if self._ended:
            raise self._closed_error()

    def _closed_error(self) -> ClosedError:
        error = ClosedError("this feed is closed")
        error.__cause__ = self._end_error
        return error

    def _check_index(self, index: int) -> None:
        if not isinstance(index, int) or not 0 <= index < 1 << 52:
            raise UsageError(f"a block has a number from 0 on, not {index!r}")
        fixed = self._fixed
        if fixed is None:
            return
        if index >= fixed.length:
            raise BlockNotAvailable(f"this snapshot has {fixed.length} blocks, none number {index}")
        self._check_kept(index + 1)

    def _check_kept(self, length: int) -> None:
        """The first `length` blocks must still be those of this snapshot."""
        if self._fixed is not None and length > self._fixed.shared:
            raise self._replaced(self._fixed.shared)

    @staticmethod
    def _replaced(shared: int) -> BlockNotAvailable:
        return BlockNotAvailable(
            f"blocks from {shared} on were replaced after this snapshot was made"
        )

    def _own_cipher(self) -> BlockCipher | None:
        key = self._options.encryption_key
        if key is None:
            return None
        # Whether a log is a compat one is known for sure only with its manifest.
        compat = self._log.authority.compat
        if self._cipher is None or self._cipher_compat != compat:
            self._cipher = BlockCipher(self._log.key, key, compat=compat)
            self._cipher_compat = compat
        return self._cipher

    # The end

    async def close(self) -> None:
        """End this session, and what waits in it with `ClosedError`. Twice is fine."""
        await self._closing.run(self._close, f"close {self!r}")

    async def _close(self) -> None:
        verifications = tuple(self._verifications)
        self.end(None)
        for verification in verifications:
            await verification.aclose()

    def end(self, error: CoveyError | None) -> None:
        """End the session; `error` says why, when its owner did not want it. For the open log."""
        if self._ended:
            return
        self._ended = True
        self._end_error = error
        self._opened.remove_session(self)
        closed = self._closed_error()
        for settle in tuple(self._waiting):
            settle(closed)
        for download in tuple(self._downloads):
            download.end(closed)
        for verification in tuple(self._verifications):
            verification.end(closed)
        for extension in self._extensions:
            extension.destroy()
        if self._events is not None:
            self._events.publish(feed_events.FeedClosed(error))
            self._events.close()
        self._owner.session_closed(self)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()
