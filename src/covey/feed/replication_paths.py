"""How far up the tree a request for a block has to reach (`hypercore.md` section 10.1).

The reference counts the levels that are not here. Of 48 requests for blocks in a row nearly all
would then bring the same nodes. Answers of one channel come in the order of the requests, so a
request may count on what the earlier ones to the same peer will bring: a block in a row costs one
node then. The reference answers what takes no reading first: such an answer waits for those before
it. Where what was counted on does not come, the block is asked for again (`Downloads`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from covey.feed.log import Log
    from covey.feed.replication_peer import ReplicationPeer
    from covey.feed.replication_requests import Outstanding

LARGE_BLOCK: Final = 1 << 14
"""Mean bytes of a block from which on nodes weigh nothing, but a block asked for twice does."""
MAX_EARLY: Final = 1 << 16
"""Bytes of a block at most that is kept when it comes before the nodes on which its path builds."""
MISS: Final = 16
"""What a peer is charged when a node did not come that was counted on; good answers pay 1 back."""
MAX_DOUBT: Final = 64 * MISS
"""With so much to pay back a peer is not counted on: what does not fit is its fault then."""
_MAX_BARE: Final = 4096
"""Nodes remembered below which nothing is here."""


class Path(NamedTuple):
    """What to ask with a block: the `levels` above its leaf, of which the nodes are `missing`.

    `hoped` is the node on top, when it is not here but expected.
    """

    levels: int
    missing: Sequence[int] = ()
    hoped: int | None = None


class Paths:
    """Chooses the `nodes` of requests for blocks."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._bare: dict[int, None] = {}

    def counts_on(self, peer: ReplicationPeer) -> bool:
        """Whether requests to this peer may build on what others are to bring."""
        log = self._log
        return peer.doubt < MAX_DOUBT and log.byte_length <= LARGE_BLOCK * log.length

    def choose(self, block: int, expected: Mapping[int, Outstanding] | None) -> Path:
        """The path to ask for, up to a node that is here or `expected`; none past our head."""
        log = self._log
        length = log.length
        if block >= length:
            return Path(0)
        node = 2 * block
        if expected and node in expected:
            return Path(0, (), node)
        levels = self._bare_levels(block, length)
        step = 1 << levels  # half the distance between nodes of this depth
        if levels:
            node = (node | (step - 1)) & ~step
        last = 2 * length - 2
        hoped = None
        has_node = log.has_node
        while node + step - 1 <= last:
            if expected and node in expected:
                hoped = node
                break
            if has_node(node):
                break
            levels += 1
            node = (node | step) & ~(step << 1)
            step <<= 1
        return Path(levels, self._below(block, levels) if levels else (), hoped)

    def forget(self) -> None:
        """Nodes went: nothing that was noted need be so any more."""
        self._bare.clear()

    def _bare_levels(self, block: int, length: int) -> int:
        """The levels below an ancestor under which nothing is here, as far as remembered; or 0.

        To ask for too many does no harm, and saves looking up in the store what is not there.
        """
        bare = self._bare
        if not bare:
            return 0
        node, step, levels = 2 * block, 1, 0
        last = 2 * length - 2
        while node + step - 1 <= last:
            if node in bare:
                del bare[node]
                return levels
            levels += 1
            node = (node | step) & ~(step << 1)
            step <<= 1
        return 0

    def _below(self, block: int, levels: int) -> list[int]:
        """The nodes of a path without its top, each with its sibling, which is bare from now on."""
        bare = self._bare
        if len(bare) > _MAX_BARE:
            bare.clear()
        node, step = 2 * block, 1
        nodes: list[int] = []
        for _ in range(levels):
            sibling = node ^ (step << 1)
            nodes += (node, sibling)
            if step > 1:
                bare[sibling] = None
            node = (node | step) & ~(step << 1)
            step <<= 1
        return nodes
