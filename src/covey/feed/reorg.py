"""How much a log that was rewritten still shares with ours (`hypercore.md` section 11).

The head of the higher fork is checked first, on its own. Its tree and ours then agree up to some
block; a search down the tree finds it, one hash request per step where the nodes are not known.
Source: hypercore 11.37.1, lib/merkle-tree.js `ReorgBatch`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from covey.errors import UsageError, VerifyError
from covey.feed import flat_tree
from covey.feed.growth import Fold, settle
from covey.feed.hashes import Node
from covey.feed.manifest import Manifest
from covey.feed.messages import BlockRequest, Data
from covey.feed.signatures import Authority
from covey.feed.tree import GetNode
from covey.feed.verify import NewHead, verify


class Wanted(NamedTuple):
    """A hash request that takes the search on: for the leaf of any block from `start` to `end`.

    `end` is not included, `nodes` is the number of levels to ask for.
    """

    start: int
    end: int
    nodes: int

    def request(self, block: int) -> BlockRequest:
        """The `hash` part of a request; `UsageError` for a block that does not serve."""
        if not self.start <= block < self.end:
            raise UsageError(f"block {block} is not one of {self.start} to {self.end}")
        return BlockRequest(2 * block, self.nodes)


class Reorg:
    """The search for the fork point, one for each fork that a peer offers.

    `head` is checked from the start, and `signed` unless it is all prologue: nobody signs the fork
    of one, so anybody may have made it up. While `wanted` is a request, send it to a peer of that
    fork and give the answer to `receive`. Then `shared` is the number of blocks that stay:
    everything from there on is to be deleted (`tree.cut_nodes` too), and `nodes` and `head` to be
    stored, at once.
    """

    __slots__ = (
        "_get_node", "_known", "_length", "_nodes", "_split",
        "head", "manifest", "shared", "signed",
    )  # fmt: skip

    def __init__(self, data: Data, *, length: int, get_node: GetNode, authority: Authority) -> None:
        """Start with the answer to an upgrade from 0 to the head of the fork.

        `length` and `get_node` are ours; what `get_node` gives may become more meanwhile, not less.
        Raises `VerifyError`.
        """
        verified = verify(
            data, roots=(), length=0, fork=data.fork, get_node=_nothing, authority=authority
        )
        if verified.upgrade is None:
            raise VerifyError("a fork is shown by the upgrade to its head")
        self.head: NewHead = verified.upgrade
        self.manifest: Manifest | None = verified.manifest
        prologue = (self.manifest or authority).prologue
        self.signed = prologue is None or self.head.length > prologue.length
        self.shared: int | None = None
        self._length = length
        self._get_node = get_node
        pairs = list(zip(verified.claimed[::2], verified.claimed[1::2], strict=True))
        proven, claimed = settle(pairs, get_node)  # one of a pair may be ours: so is its size
        self._nodes = {node.index: node for node in (*verified.nodes, *proven)}
        self._known: dict[int, Node] = {}
        self._split: Node | None = None
        self._learn((*verified.nodes, *proven, *claimed))
        for root in self.head.roots:
            if not self._is_ours(root):
                self._narrow(root)
                break
        else:
            self.shared = min(self.head.length, length)

    @property
    def nodes(self) -> list[Node]:
        """The nodes of the new tree that were proven so far, its roots among them."""
        return list(self._nodes.values())

    @property
    def wanted(self) -> Wanted | None:
        """What to ask next; None when the search is over."""
        split = self._split
        if split is None or self.shared is not None:
            return None
        start = flat_tree.left_span(split.index) >> 1
        end = (flat_tree.right_span(split.index) >> 1) + 1
        return Wanted(start, min(end, self._length), flat_tree.depth(split.index))

    def receive(self, data: Data) -> None:
        """Go on with an answer to `wanted`; one that comes when all is known changes nothing.

        Raises `VerifyError` and is as before when the answer does not fit.
        """
        split = self._split
        if split is None or self.shared is not None:
            return
        if data.fork != self.head.fork:
            raise VerifyError(f"an answer for fork {data.fork}, not {self.head.fork}")
        fold = Fold(data.block, data.hash, data.seek)
        top = fold.top
        # Of a node that was only claimed the size may be wrong, the hash is not.
        if top is None or not fold.computed or top[::2] != split[::2]:
            raise VerifyError(f"the answer does not lead from below to node {split.index}")
        proven, claimed = settle(fold.claimed, self._get_node)
        self._nodes.update((node.index, node) for node in (*self._pair(top), *fold.nodes, *proven))
        self._learn((*fold.nodes, *proven, *claimed))
        self._narrow(split)

    def _learn(self, nodes: Iterable[Node]) -> None:
        self._known.update((node.index, node) for node in nodes)

    def _pair(self, top: Node) -> list[Node]:
        """A node that is proven now, and its sibling: their parent was, so is what is left of it.

        Kept without the sibling, it would lead nowhere.
        """
        sibling = self._known.get(flat_tree.sibling(top.index))
        parent = self._nodes.get(flat_tree.parent(top.index))
        if sibling is None or parent is None or parent.size < top.size:
            return [top]
        return [top, sibling._replace(size=parent.size - top.size)]

    def _is_ours(self, node: Node) -> bool:
        """Whether our tree had the same node: then all blocks below are the same."""
        if flat_tree.right_span(node.index) >= 2 * self._length:
            return False
        ours = self._get_node(node.index)
        return ours is not None and ours.hash == node.hash

    def _narrow(self, split: Node) -> None:
        """Go down from `split`, which is not ours while all to its left is, as far as is known."""
        while flat_tree.left_span(split.index) >> 1 < self._length:
            pair = flat_tree.children(split.index)
            if pair is None:
                break
            left, right = self._known.get(pair[0]), self._known.get(pair[1])
            if left is None or right is None:
                self._split = split
                return
            split = right if self._is_ours(left) else left
        self._split = split
        self.shared = min(flat_tree.left_span(split.index) >> 1, self._length)


def _nothing(_index: int) -> None:
    return None
