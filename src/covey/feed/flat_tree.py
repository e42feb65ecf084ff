"""Binary trees laid flat on the natural numbers (`hypercore.md` section 5; flat-tree 1.x).

Even numbers are leaves, block i is node 2i; a number that ends in d one bits is a node of depth d
and the `offset`-th of its depth from the left. Numbers are Python ints of any size, from 0 on;
nothing here checks that.
"""

from __future__ import annotations


def depth(node: int) -> int:
    """How many levels `node` is above the leaves."""
    above = node + 1
    return (above & -above).bit_length() - 1


def offset(node: int) -> int:
    """How many nodes of the same depth are to the left of `node`."""
    return node >> (depth(node) + 1)


def index(depth: int, offset: int) -> int:
    """The node at `depth` with `offset` nodes of that depth to its left."""
    return (offset << (depth + 1)) + (1 << depth) - 1


def parent(node: int) -> int:
    """The node one level up."""
    step = (node + 1) & -(node + 1)
    return (node | step) & ~(step << 1)


def sibling(node: int) -> int:
    """The other child of the parent of `node`."""
    return node ^ (((node + 1) & -(node + 1)) << 1)


def children(node: int) -> tuple[int, int] | None:
    """The nodes one level down, left and right; None for a leaf."""
    half = ((node + 1) & -(node + 1)) >> 1
    return (node - half, node + half) if half else None


def left_span(node: int) -> int:
    """The leftmost leaf below `node`, itself for a leaf."""
    return node & (node + 1)


def right_span(node: int) -> int:
    """The rightmost leaf below `node`, itself for a leaf."""
    return node + ((node + 1) & -(node + 1)) - 1


def contains(node: int, other: int) -> bool:
    """Whether `other` lies in the span of `node`, which it does for `node` itself."""
    reach = ((node + 1) & -(node + 1)) - 1
    return node - reach <= other <= node + reach


def full_roots(length: int) -> list[int]:
    """The roots, left to right, of the full trees that together cover `length` blocks."""
    roots = []
    start = 0
    while length:
        size = 1 << (length.bit_length() - 1)
        roots.append(start + size - 1)
        start += 2 * size
        length -= size
    return roots
