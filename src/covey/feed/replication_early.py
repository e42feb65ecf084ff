"""Answers that came before the nodes on which they build (see `replication_paths`)."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING

from covey.feed.messages import Data
from covey.feed.replication_paths import MAX_EARLY, MISS
from covey.feed.replication_peer import ReplicationPeer
from covey.feed.replication_requests import Outstanding
from covey.feed.verify import matches

if TYPE_CHECKING:
    from covey.feed.log import Log


class EarlyAnswers:
    """The part of the downloads that keeps them until their time, and gives them up."""

    _log: Log

    @abstractmethod
    def unasked(self, peer: ReplicationPeer) -> None:
        """A peer answered what it was not asked."""

    @abstractmethod
    def _on_answer(self, peer: ReplicationPeer, outstanding: Outstanding, data: Data) -> None:
        """Check what came, and store what is true of it."""

    @abstractmethod
    def _return_block(self, outstanding: Outstanding) -> None:
        """An answer brought nothing: what it was for is asked again, of anybody."""

    def _keep(self, peer: ReplicationPeer, outstanding: Outstanding, data: Data) -> bool:
        """Keep an answer that overtook the one on which it builds; whether it was one."""
        block, asked, hoped = data.block, outstanding.request.block, outstanding.hoped
        if hoped is None or block is None or asked is None or self._log.has_node(hoped):
            return False
        before = peer.table.expected.get(hoped)
        if before is None or not matches(data, outstanding.request):
            return False
        if len(block.value) > MAX_EARLY or len(block.nodes) != asked.nodes:
            return False
        if outstanding.early is not None:
            self.unasked(peer)
            return True
        outstanding.early = data
        before.waiting.append(outstanding)
        return True

    def _take_up(self, peer: ReplicationPeer, outstanding: Outstanding) -> None:
        """The answer is in for which others waited, and perhaps others for those."""
        waiting = deque(outstanding.waiting)
        while waiting:
            other = waiting.popleft()
            data, other.early = other.early, None
            if data is None or peer.table.open.get(data.request) is not other:
                continue
            if not self._keep(peer, other, data):
                self._on_answer(peer, other, data)
                waiting += other.waiting

    def _give_up_stranded(self, peer: ReplicationPeer) -> None:
        """Answers wait for what was cancelled: they are of no use."""
        table = peer.table
        while table.stranded:
            outstanding = table.stranded.pop()
            number = outstanding.request.id
            if outstanding.early is not None and table.open.get(number) is outstanding:
                table.answered(number)
                table.stranded += outstanding.waiting
                self._miss(peer, outstanding)

    def _miss(self, peer: ReplicationPeer, outstanding: Outstanding) -> None:
        """The node does not come on which the answer builds: the block is asked for again.

        An honest peer may not have had the block that was to bring it. What is charged bounds how
        much a liar gains by it.
        """
        peer.doubt += MISS
        self._return_block(outstanding)
