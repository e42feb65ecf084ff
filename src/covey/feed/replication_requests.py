"""Requests on their way to one peer, and the numbers they go by (`hypercore.md` section 10.1).

Source: hypercore 11.37.1, `lib/replicator.js` `InflightTracker` and `RoundtripQueue`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from covey.feed.messages import Data, Request

if TYPE_CHECKING:
    from covey.feed.replication_peer import ReplicationPeer

MAX_UNANSWERED = 512
"""Cancelled requests of one peer whose answers may still come; as many as the reference asks for at
once. A peer that lets so many lie does not answer at all."""


class Outstanding:
    """A request that was sent: to whom, when, and on whose behalf (`work`: a seek, a fork search).

    `tick` counts the cancellations on that peer before it was sent. `brings` are the nodes that its
    answer is expected to bring, and `hoped` the one on which the answer builds and that was not
    here, but expected of an earlier request (None: it was here). `early` is an answer that came
    before that node; then it is among the `waiting` of the request that brings it.
    """

    __slots__ = (
        "brings", "early", "hoped", "peer", "request", "sent", "tick", "waiting", "work",
    )  # fmt: skip

    def __init__(
        self, peer: ReplicationPeer, request: Request, sent: float, tick: int, work: object
    ) -> None:
        self.peer = peer
        self.request = request
        self.sent = sent
        self.tick = tick
        self.work = work
        self.brings: Sequence[int] = ()
        self.hoped: int | None = None
        self.early: Data | None = None
        self.waiting: list[Outstanding] = []

    @property
    def leaf(self) -> int:
        """The node from which the path leads up that was asked for; -1 where there is none."""
        request = self.request
        if request.block is not None:
            return 2 * request.block.index
        return -1 if request.hash is None else request.hash.index


class RequestTable:
    """The requests of one peer by number, oldest first; numbers start at 1, 0 is reserved.

    The number of a cancelled request is free again only when the peer answered it, or one that was
    sent later: its answer may be on the way.

    `expected` are the nodes that open requests will bring, by the request. Answers of one channel
    come in the order of the requests, more or less, so a later request need not ask for those
    again. `stranded` waited for one that was cancelled.
    """

    __slots__ = ("_free", "_highest", "_parked", "expected", "open", "stranded", "tick")

    def __init__(self) -> None:
        self.open: dict[int, Outstanding] = {}
        self.expected: dict[int, Outstanding] = {}
        self.stranded: list[Outstanding] = []
        self.tick = 0
        self._free: list[int] = []
        self._highest = 0
        self._parked: dict[int, tuple[int, Outstanding]] = {}

    @property
    def unanswered(self) -> int:
        """Cancelled requests whose numbers are not free yet; bounded by `MAX_UNANSWERED`."""
        return len(self._parked)

    def next_number(self) -> int:
        """A number that no request has; it is taken from now on."""
        if self._free:
            return self._free.pop()
        self._highest += 1
        return self._highest

    def answered(self, number: int) -> Outstanding | None:
        """Close the request of this number: its answer came. None when there is none."""
        outstanding = self.open.pop(number, None)
        if outstanding is None:
            return None
        self._free.append(number)
        if outstanding.brings:
            self._expect_no_more(outstanding)
        if self._parked:
            self._unpark(outstanding.tick)
        return outstanding

    def late(self, number: int) -> Outstanding | None:
        """The cancelled request that this is the answer to, its number is then free; or None."""
        parked = self._parked.pop(number, None)
        if parked is None:
            return None
        self._free.append(number)
        self._unpark(parked[1].tick)
        return parked[1]

    def cancel(self, number: int) -> Outstanding | None:
        """Close the request of this number without an answer; None when there is none."""
        outstanding = self.open.pop(number, None)
        if outstanding is not None:
            self.tick += 1
            self._parked[number] = self.tick, outstanding
            self._expect_no_more(outstanding)
            if outstanding.waiting:
                self.stranded += outstanding.waiting
            outstanding.early = None
        return outstanding

    def expect(self, outstanding: Outstanding, nodes: Sequence[int]) -> None:
        """The answer to this request will bring these nodes."""
        outstanding.brings = nodes
        expected = self.expected
        for node in nodes:
            expected[node] = outstanding

    def clear(self) -> list[Outstanding]:
        """Forget the open requests, none of them will be answered; gives them."""
        outstandings = list(self.open.values())
        self.open.clear()
        self.expected.clear()
        self.stranded.clear()
        return outstandings

    def oldest(self) -> Outstanding | None:
        """The open request that was sent first."""
        return next(iter(self.open.values()), None)

    def _expect_no_more(self, outstanding: Outstanding) -> None:
        expected = self.expected
        for node in outstanding.brings:
            if expected.get(node) is outstanding:
                del expected[node]

    def _unpark(self, tick: int) -> None:
        """Free what was cancelled before the request that was sent at `tick`."""
        freed = []
        for number, (cancelled, _) in self._parked.items():
            if cancelled > tick:
                break
            freed.append(number)
        for number in freed:
            del self._parked[number]
        self._free += freed
