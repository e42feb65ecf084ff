"""How a proof's nodes are put together to a tree: folding paths and growing heads.

`hypercore.md` section 10.3, steps 2 and 3. A parent's hash covers the *sum* of its children's
sizes, so a received node's size is proven only when that of its sibling is: when we computed the
sibling or had it before. Two received siblings prove each other's hash, but bytes could have been
moved from the size of one to the other; such pairs are kept apart as `claimed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from covey.errors import VerifyError
from covey.feed import flat_tree
from covey.feed.hashes import Node, leaf_node, parent_node
from covey.feed.messages import BlockData, HashData, SeekData, UpgradeData
from covey.feed.tree import MAX_LENGTH, GetNode
from covey.wire.codec import MAX_UINT

MAX_PATH: Final = 64
"""Nodes of one path at most: the largest tree has 53 levels."""
MAX_GROWTH: Final = 2 * MAX_PATH
"""Nodes of one upgrade at most: up to the root of the old head, then all other roots."""

_OWN, _COMPUTED, _RECEIVED = range(3)
"""Where a node is from: had before and proven, computed here, or sent with a mere claim."""


def fold_block(block: BlockData) -> list[Node]:
    """The nodes that a block and its path give, in order; the last is the top, to be vouched for.

    Raises `VerifyError` for a path that leads elsewhere.
    """
    index, value, path = block
    if index >= MAX_LENGTH:
        raise VerifyError(f"no log has a block {index}")
    if len(path) > MAX_PATH:
        raise VerifyError(f"a path of {len(path)} nodes")
    node = leaf_node(index, value)
    nodes = [node]
    for other in path:
        at = node[0]
        if other[0] != at ^ (((at + 1) & -(at + 1)) << 1):
            raise VerifyError(f"node {other[0]} is not the sibling of node {at}")
        node = parent_node(node, other)
        nodes.append(other)
        nodes.append(node)
    return nodes


class Fold:
    """The block, hash and seek parts of one answer, folded to the one node `top` (None: no part).

    `nodes` are below it and as true as it is, `claimed` pairs of siblings true but for their sizes.
    `computed` tells whether `top` is more than a node as it was received. Raises `VerifyError`.
    """

    __slots__ = ("claimed", "computed", "nodes", "top")

    def __init__(
        self, block: BlockData | None, hash_part: HashData | None, seek: SeekData | None
    ) -> None:
        self.nodes: list[Node] = []
        self.claimed: list[tuple[Node, Node]] = []
        self.top: Node | None = None
        self.computed = False
        if seek is not None and seek.nodes:
            _check_path(seek.nodes)
            self._climb(seek.nodes[0], _RECEIVED, seek.nodes[1:])
        if block is not None:
            if block.index >= MAX_LENGTH:
                raise VerifyError(f"no log has a block {block.index}")
            _check_path(block.nodes)
            self._climb(leaf_node(block.index, block.value), _COMPUTED, block.nodes)
        elif hash_part is not None:
            self._climb_hash(hash_part)

    def _climb_hash(self, part: HashData) -> None:
        path = part.nodes
        _check_path(path)
        top = self.top
        if top is not None and top.index == part.index:
            # The seek part ends in the very node that was asked for.
            self.top = None
            self._climb(top, _COMPUTED if self.computed else _RECEIVED, path)
            return
        if not path or path[0].index != part.index:
            raise VerifyError(f"node {part.index} is not in the answer")
        self._climb(path[0], _RECEIVED, path[1:])

    def _climb(self, node: Node, origin: int, path: Sequence[Node]) -> None:
        """Fold up the path; a top that is there already must be one of the siblings."""
        branch = self.top
        position = 0
        while position < len(path) or branch is not None:
            wanted = flat_tree.sibling(node.index)
            other_origin = _RECEIVED
            if branch is not None and branch.index == wanted:
                other = branch
                other_origin = _COMPUTED if self.computed else _RECEIVED
                branch = None
            elif position < len(path) and path[position].index == wanted:
                other = path[position]
                position += 1
            else:
                raise VerifyError(f"the sibling of node {node.index} is not next in the path")
            if origin == other_origin == _RECEIVED:
                self.claimed.append((node, other))
            else:
                self.nodes.append(node)
                self.nodes.append(other)
            node = parent_node(node, other)
            origin = _COMPUTED
        self.top = node
        self.computed = origin == _COMPUTED


def _check_path(path: Sequence[Node]) -> None:
    if len(path) > MAX_PATH:
        raise VerifyError(f"a path of {len(path)} nodes")


def proven_length(upgrade: UpgradeData) -> int:
    """Blocks of the head that an upgrade leads to, additional nodes and all.

    Raises `VerifyError` when no log can have so many, or when there are too many nodes.
    """
    if max(len(upgrade.nodes), len(upgrade.additional_nodes)) > MAX_GROWTH:
        raise VerifyError("an upgrade of too many nodes")
    length = upgrade.start + upgrade.length
    if upgrade.additional_nodes:
        last = upgrade.additional_nodes[-1].index
        length = max(length, (flat_tree.right_span(last) >> 1) + 1)
    if not 0 < length <= MAX_LENGTH or upgrade.length == 0:
        raise VerifyError(f"an upgrade by {upgrade.length} blocks to {length}")
    return length


class Growth:
    """A head that grows by the nodes of an upgrade; true only when the new head is signed.

    After `finish`, `nodes` are the new nodes and `claimed` pairs of siblings whose sizes are not
    proven. Everything raises `VerifyError`.
    """

    __slots__ = ("_own", "_top", "byte_length", "claimed", "fold", "length", "nodes", "roots")

    def __init__(self, roots: Sequence[Node], length: int, fold: Fold) -> None:
        self.roots = list(roots)
        self.length = length
        self.byte_length = sum(root.size for root in roots)
        self.nodes: list[Node] = []
        self.claimed: list[tuple[Node, Node]] = []
        self.fold = fold
        self._top = fold.top
        self._own = [_OWN] * len(self.roots)

    @property
    def used_fold(self) -> bool:
        """Whether the top of the fold became a part of the head."""
        return self._top is None

    def upgrade(self, upgrade: UpgradeData) -> None:
        """Take the nodes that lead to `start + length` blocks, all of them."""
        old = list(self.roots)
        nodes = iter(upgrade.nodes)
        kept = 0
        connected = not old
        for wanted in flat_tree.full_roots(upgrade.start + upgrade.length):
            if kept < len(old) and old[kept].index == wanted:
                kept += 1
                continue
            if not connected:
                connected = True
                if kept < len(old):
                    # The first root that differs has all that is left of the old ones below it.
                    while (last := self.roots[-1].index) != wanted:
                        self._take(flat_tree.sibling(last), nodes)
                    continue
            self._take(wanted, nodes)
        if next(nodes, None) is not None:
            raise VerifyError("the upgrade has nodes left over")

    def extend(self, additional: Sequence[Node]) -> None:
        """Take the nodes that lead from there to the head of the sender."""
        for node in additional:
            self._push(node, _RECEIVED)

    def finish(self) -> None:
        """The head is signed: its new roots are true, and so is what they were made of."""
        for root, origin in zip(self.roots, self._own, strict=True):
            if origin != _OWN:
                self.nodes.append(root)

    def _take(self, wanted: int, nodes: Iterator[Node]) -> None:
        top = self._top
        if top is not None and top.index == wanted:
            self._top = None
            self._push(top, _COMPUTED if self.fold.computed else _RECEIVED)
            return
        node = next(nodes, None)
        if node is None or node.index != wanted:
            raise VerifyError(f"node {wanted} is not next in the upgrade")
        self._push(node, _RECEIVED)

    def _push(self, node: Node, origin: int) -> None:
        """Add the next full tree on the right, and merge while there are two of a size."""
        if flat_tree.left_span(node.index) != 2 * self.length:
            raise VerifyError(f"node {node.index} does not follow {self.length} blocks")
        self.length += 1 << flat_tree.depth(node.index)
        self.byte_length += node.size
        if self.length > MAX_LENGTH or self.byte_length > MAX_UINT:
            raise VerifyError(f"a head of {self.length} blocks with {self.byte_length} bytes")
        while self.roots and self.roots[-1].index == flat_tree.sibling(node.index):
            left, left_origin = self.roots.pop(), self._own.pop()
            if left_origin == origin == _RECEIVED:
                self.claimed.append((left, node))
            else:
                if left_origin != _OWN:
                    self.nodes.append(left)
                self.nodes.append(node)
            node = parent_node(left, node)
            origin = _COMPUTED
        self.roots.append(node)
        self._own.append(origin)


def settle(pairs: Sequence[tuple[Node, Node]], get_node: GetNode) -> tuple[list[Node], list[Node]]:
    """Divide claimed pairs by what is here: nodes proven by it, and those that stay claims.

    A pair is proven when one of it is here with the same size. Raises `VerifyError` when a node is
    here with another size: then the pair was tampered with.
    """
    proven: list[Node] = []
    claimed: list[Node] = []
    for pair in pairs:
        known = False
        for node in pair:
            here = get_node(node.index)
            if here is not None and here.hash == node.hash:
                if here.size != node.size:
                    raise VerifyError(f"node {node.index} has {here.size} bytes, not {node.size}")
                known = True
        (proven if known else claimed).extend(pair)
    return proven, claimed
