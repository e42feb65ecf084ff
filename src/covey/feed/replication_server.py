"""Answering one peer: its requests and wants, no faster than its channel takes them.

`hypercore.md` sections 9, 10.2 and 10.4; hypercore 11.37.1, `lib/replicator.js` and
`lib/receiver-queue.js`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, TypeAlias

from covey.errors import StoreError
from covey.feed.messages import (
    INVALID_REQUEST,
    NOT_AVAILABLE,
    BitfieldWords,
    Data,
    NoData,
    Range,
    Request,
    Unwant,
    Want,
)
from covey.feed.proof import InvalidRequest as SenselessRequest
from covey.feed.proof import NotAvailable, build
from covey.feed.replication_choices import MAX_INVALID_REQUESTS, invalid_delay
from covey.feed.replication_events import (
    InvalidRequest,
    ReplicationError,
    Uploaded,
)
from covey.feed.replication_peer import BITFIELD, DATA, NO_DATA, RANGE, ReplicationPeer
from covey.feed.replication_wants import MAX_ANY_WANTS, MAX_WANTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from covey.feed.log import Log
    from covey.feed.replication_events import Event

MAX_QUEUED = 1024
"""Requests of one peer that wait for its channel: twice what the reference ever has under way."""
MAX_QUEUED_WANTS = MAX_WANTS + MAX_ANY_WANTS + 1
"""Wants of one peer that wait for its channel: all that it may have at once, and one of ours."""
BITFIELD_BLOCKS = 1 << 21
"""Blocks of one bitfield message at most."""

Tell: TypeAlias = "Callable[[Event], None]"


class RequestQueue:
    """What one peer asked that is not answered yet.

    Urgent requests go first, the latest of them before the others; then the rest in order. A
    second request of the same number replaces the first. Wants are answered before all of them.
    """

    __slots__ = ("_delayed", "_log", "_peer", "_plain", "_publish", "_urgent", "_wants")

    def __init__(self, log: Log, peer: ReplicationPeer, publish: Tell) -> None:
        self._log = log
        self._peer = peer
        self._publish = publish
        self._plain: dict[int, Request] = {}
        self._urgent: dict[int, Request] = {}
        self._wants: dict[Want, None] = {}
        self._delayed: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._plain) + len(self._urgent)

    @property
    def due(self) -> float | None:
        """When the next request without sense is answered; None: there is none."""
        return self._delayed[0][0] if self._delayed else None

    def add(self, request: Request, now: float) -> None:
        """Answer a request, now or when the channel is drained.

        `ReplicationError` when too many wait, and at the 64th that makes no sense.
        """
        if self._peer.writable and not self._plain and not self._urgent and not self._wants:
            self._answer(request, now)
            return
        self.cancel(request.id)
        if len(self) >= MAX_QUEUED:
            raise ReplicationError(f"more than {MAX_QUEUED} requests wait for their answers")
        (self._urgent if request.priority else self._plain)[request.id] = request

    def cancel(self, number: int) -> None:
        """Forget a request that waits."""
        self._plain.pop(number, None)
        self._urgent.pop(number, None)

    def want(self, want: Want, now: float) -> None:
        """Tell which of the wanted blocks are here, now or when the channel is drained."""
        if len(self._wants) >= MAX_QUEUED_WANTS:
            raise ReplicationError(f"{MAX_QUEUED_WANTS} wants wait for their answers")
        self._wants[want] = None
        if self._peer.writable and len(self._wants) == 1:
            self.serve(now)

    def answer_wants(self, wants: Iterable[Want], now: float) -> None:
        """Answer wants once more."""
        self._wants.update((want, None) for want in wants)
        self.serve(now)

    def unwant(self, unwant: Unwant) -> None:
        """Forget a want that waits."""
        self._wants.pop(Want(*unwant), None)

    def serve(self, now: float) -> None:
        """Answer what waits while the channel is drained."""
        peer = self._peer
        while peer.writable and peer.active:
            if self._wants:
                want = next(iter(self._wants))
                del self._wants[want]
                self._tell_held(want)
            elif self._urgent:
                self._answer(self._urgent.popitem()[1], now)
            elif self._plain:
                self._answer(self._plain.pop(next(iter(self._plain))), now)
            else:
                return

    def handle_timer(self, now: float) -> None:
        """Refuse the senseless requests whose time has come."""
        while self._delayed and self._delayed[0][0] <= now:
            number = self._delayed.popleft()[1]
            self._peer.tell(NO_DATA, NoData(number, INVALID_REQUEST))

    def _answer(self, request: Request, now: float) -> None:
        peer, log = self._peer, self._log
        if log.frozen:
            return
        block = request.block
        if block is not None and not self._may_have(block.index):
            if not request.manifest or log.manifest is None or log.authority.compat:
                peer.tell(NO_DATA, NoData(request.id, NOT_AVAILABLE))
                return
            manifest = log.manifest
            # The manifest is the same on every fork.
            peer.tell(DATA, Data(request.id, request.fork, None, None, None, None, manifest))
            return
        try:
            data = build(
                request,
                length=log.length,
                fork=log.fork,
                get_node=log.node,
                get_block=log.served_block,
                signature=log.signature,
                manifest=None if log.authority.compat else log.manifest,
            )
        except NotAvailable:
            peer.tell(NO_DATA, NoData(request.id, NOT_AVAILABLE))
        except SenselessRequest as error:
            self._refuse(request.id, error, now)
        except StoreError as error:
            peer.tell(NO_DATA, NoData(request.id, NOT_AVAILABLE))
            log.unreadable(error)
        else:
            peer.tell(DATA, data)
            if data.upgrade is not None:
                peer.pushed_length = max(peer.pushed_length, log.length)
            if data.block is not None:
                size = len(data.block.value)
                peer.blocks_up += 1
                peer.bytes_up += size
                self._publish(Uploaded(peer, data.block.index, size))

    def _may_have(self, index: int) -> bool:
        """Blocks that are staged are not given out, nor any to a peer that sent what was wrong."""
        return self._peer.paused is None and self._log.has(index)

    def _refuse(self, number: int, error: SenselessRequest, now: float) -> None:
        peer = self._peer
        peer.invalid_requests += 1
        self._publish(InvalidRequest(peer, error))
        if peer.invalid_requests >= MAX_INVALID_REQUESTS:
            raise ReplicationError(
                f"{MAX_INVALID_REQUESTS} requests made no sense", scope="connection"
            ) from error
        self._delayed.append((now + invalid_delay(peer.invalid_requests), number))

    def _tell_held(self, want: Want) -> None:
        peer, log = self._peer, self._log
        if peer.paused is not None or log.frozen:
            return
        start, length, any_ = want
        contiguous, end = log.contiguous_length, min(start + length, log.length)
        if start + length < contiguous or contiguous == log.length or (any_ and start < contiguous):
            if contiguous:
                peer.tell(RANGE, Range(False, 0, contiguous))
            return
        if any_:
            first = log.bitfield.first_set(start)
            if first is not None and first < end:
                peer.tell(RANGE, Range(False, first, 1))
            return
        start -= start % 32
        if start < end:
            stop = min(end, start + BITFIELD_BLOCKS)
            peer.tell(
                BITFIELD, BitfieldWords(start, log.bitfield.words(start, -((start - stop) // 32)))
            )
            if stop < end:
                self._wants[Want(stop, end - stop, False)] = None
