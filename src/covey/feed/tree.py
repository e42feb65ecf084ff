"""A log's tree as it grows, and what can be read from its nodes (`hypercore.md` sections 5, 10.1).

Nodes are looked up through `get_node`, which gives None for those that are not here: a peer that
fetched a few blocks only has a part of the tree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from covey.feed import flat_tree
from covey.feed.hashes import Node, leaf_node, parent_node, tree_hash
from covey.wire.session import Buffer

MAX_LENGTH: Final = 1 << 52
"""Blocks of a log at most: node numbers go up to twice as much, and those stay below 2^53."""

GetNode: TypeAlias = Callable[[int], Node | None]
"""Looks up a node by its index; None when it is not here."""


class Batch:
    """A head and the nodes that came into being since, by appending.

    `roots` go left to right, `nodes` are all new nodes in order: leaves and every parent, also
    those that are not roots. `length` counts blocks, `byte_length` the bytes in them. Nothing is
    checked against a signature.
    """

    __slots__ = ("byte_length", "fork", "length", "nodes", "roots")

    def __init__(self, roots: Iterable[Node] = (), length: int = 0, fork: int = 0) -> None:
        self.roots = list(roots)
        self.length = length
        self.fork = fork
        self.byte_length = sum(root.size for root in self.roots)
        self.nodes: list[Node] = []

    def append(self, data: Buffer) -> Node:
        """Add a block with these stored bytes; gives its leaf."""
        block = self.length
        leaf = node = leaf_node(block, data)
        roots = self.roots
        nodes = self.nodes
        nodes.append(node)
        # Every full tree that ends here gets its parent: one for each low bit set in the length.
        while block & 1:
            node = parent_node(roots.pop(), node)
            nodes.append(node)
            block >>= 1
        roots.append(node)
        self.length += 1
        self.byte_length += leaf.size
        return leaf

    def tree_hash(self) -> bytes:
        """What a signature over this head covers, 32 bytes."""
        return tree_hash(self.roots)


def missing_nodes(block: int, length: int, has_node: Callable[[int], bool]) -> int:
    """How many levels above `block` are not here: the `nodes` of a request for it.

    Counts from the leaf up to the first node that is here; 0 for a block from `length` on, whose
    place in the tree is not known yet (hypercore 11.37.1, lib/merkle-tree.js `missingNodes`).
    """
    if block >= length:
        return 0
    missing = 0
    node = 2 * block
    last = 2 * length - 2
    step = 1  # half the distance between nodes of this depth
    while node + step - 1 <= last and not has_node(node):
        missing += 1
        node = (node | step) & ~(step << 1)
        step <<= 1
    return missing


def roots_of(length: int, get_node: GetNode) -> list[Node] | None:
    """The roots of the first `length` blocks, left to right; None when one is not here."""
    roots = []
    for index in flat_tree.full_roots(length):
        node = get_node(index)
        if node is None:
            return None
        roots.append(node)
    return roots


def byte_offset(block: int, roots: Iterable[Node], get_node: GetNode) -> int | None:
    """Bytes before `block` in the log; None past its end, or when a node it takes is not here.

    The end of the log itself is a place too: `block` may equal the length.
    """
    leaf = 2 * block
    before = 0
    end = 0
    for root in roots:
        end = flat_tree.right_span(root.index) + 2
        if leaf >= end:
            before += root.size
            continue
        within = _offset_below(root.index, leaf, get_node)
        return None if within is None else before + within
    return before if leaf == end else None


def _offset_below(root: int, leaf: int, get_node: GetNode) -> int | None:
    before = 0
    node = root
    while (pair := flat_tree.children(node)) is not None:
        left, right = pair
        if leaf < node:
            node = left
            continue
        found = get_node(left)
        if found is None:
            return None
        before += found.size
        node = right
    return before


def byte_range(block: int, roots: Iterable[Node], get_node: GetNode) -> tuple[int, int] | None:
    """Bytes before `block` and bytes in it; None when the nodes that say so are not here."""
    leaf = get_node(2 * block)
    start = byte_offset(block, roots, get_node)
    return None if leaf is None or start is None else (start, leaf.size)


def seek(
    offset: int, roots: Iterable[Node], get_node: GetNode, *, padding: int = 0
) -> tuple[int, int] | None:
    """The block that holds byte `offset` of the log, and the bytes before it in that block.

    `padding` bytes of every block do not count (encrypted logs: 8). The very end is a place too:
    `(length, 0)`. None past the end, or when nodes are missing: then `seek_span` says where.
    """
    found = _seek_node(offset, roots, get_node, padding)
    if found is None or found[0] & 1:
        return None
    return found[0] >> 1, found[1]


def seek_span(
    offset: int, roots: Iterable[Node], get_node: GetNode, *, padding: int = 0
) -> tuple[int, int] | None:
    """The blocks `start` to `end`, end not included, among which `seek` would find its own.

    As narrow as the nodes here allow: one block when `seek` knows it, `(length, length)` for the
    end of the log. None past the end.
    """
    found = _seek_node(offset, roots, get_node, padding)
    if found is None:
        return None
    node = found[0]
    start = flat_tree.left_span(node) >> 1
    if not node & 1 and start >= _length_of(roots):
        return start, start
    return start, (flat_tree.right_span(node) >> 1) + 1


def _length_of(roots: Iterable[Node]) -> int:
    return sum(1 << flat_tree.depth(root.index) for root in roots)


def _seek_node(
    offset: int, roots: Iterable[Node], get_node: GetNode, padding: int
) -> tuple[int, int] | None:
    """The lowest node known to hold the offset, and what is left of the offset in it.

    A place between two blocks belongs to the later one (hypercore 11.37.1, lib/merkle-tree.js
    `ByteSeeker`).
    """
    if offset <= 0:
        return 0, 0
    for root in roots:
        size = unpadded_size(root, padding)
        if offset == size:
            return flat_tree.right_span(root.index) + 2, 0
        if offset < size:
            return _seek_below(root.index, offset, get_node, padding)
        offset -= size
    return None


def _seek_below(node: int, offset: int, get_node: GetNode, padding: int) -> tuple[int, int]:
    while (pair := flat_tree.children(node)) is not None:
        left = get_node(pair[0])
        if left is None:
            break
        size = unpadded_size(left, padding)
        if size == offset:
            return flat_tree.right_span(left.index) + 2, 0
        if size > offset:
            node = pair[0]
        else:
            offset -= size
            node = pair[1]
    return node, offset


def unpadded_size(node: Node, padding: int) -> int:
    """Bytes below `node` without `padding` bytes of each block; never negative."""
    if not padding:
        return node.size
    return max(node.size - (padding << flat_tree.depth(node.index)), 0)


def cut_nodes(length: int) -> list[int]:
    """The nodes left of the end of `length` blocks whose span goes beyond it.

    They and everything from node `2 * length` on belong to a longer log: truncation deletes them.
    """
    if length == 0:
        return []
    end = 2 * length
    cut = []
    node = flat_tree.parent(end - 2)
    # Up the left edge too: the parent of a full tree at the very left has its number below `end`.
    while node < end or flat_tree.left_span(node):
        if node < end <= flat_tree.right_span(node):
            cut.append(node)
        node = flat_tree.parent(node)
    return cut
