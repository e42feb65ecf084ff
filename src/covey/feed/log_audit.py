"""Rehashing a whole log: every held block, up to the roots that are signed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from covey.errors import StoreError
from covey.feed import flat_tree
from covey.feed.bitfield import BitPages
from covey.feed.hashes import Node, leaf_node, parent_node
from covey.feed.log_cover import pieces
from covey.feed.tree import GetNode


class Progress(NamedTuple):
    """How far a check has come: blocks looked at, of the `length` of the log, and bytes hashed."""

    blocks: int
    length: int
    bytes: int


def rehash(
    bits: BitPages,
    roots: Sequence[Node],
    length: int,
    *,
    get_node: GetNode,
    get_block: Callable[[int], bytes | None],
) -> Iterator[Progress]:
    """Hash all held blocks up to `roots`, with a `Progress` after each block or empty stretch.

    Every node above a held block has to be kept, and to be what its children say: `StoreError`
    names the first one that is not, or the block that is missing. The log must not shrink
    meanwhile.
    """
    stack: list[Node] = []
    hashed = 0
    for index, held in pieces(bits, length):
        node, size = _take(index, held, get_node, get_block)
        hashed += size
        while stack and stack[-1].index == flat_tree.sibling(node.index):
            node = parent_node(stack.pop(), node)
            _compare(node, get_node(node.index))
        stack.append(node)
        yield Progress((flat_tree.right_span(index) >> 1) + 1, length, hashed)
    for node, root in zip(stack, roots, strict=True):
        _compare(node, root)


def _take(
    index: int, held: bool, get_node: GetNode, get_block: Callable[[int], bytes | None]
) -> tuple[Node, int]:
    """The node at `index`, made of its block where that is held; and the bytes hashed for it."""
    kept = get_node(index)
    if not held:
        if kept is None:
            raise StoreError(f"the log is damaged: node {index} is missing")
        return kept, 0
    data = get_block(index >> 1)
    if data is None:
        raise StoreError(f"the log is damaged: block {index >> 1} is missing")
    leaf = leaf_node(index >> 1, data)
    _compare(leaf, kept)
    return leaf, leaf.size


def _compare(node: Node, kept: Node | None) -> None:
    if kept is None:
        raise StoreError(f"the log is damaged: node {node.index} is missing")
    if kept != node:
        raise StoreError(f"the log is damaged: node {node.index} does not fit what is below it")
