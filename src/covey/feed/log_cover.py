"""Stretches of a log without a held block, and the nodes that stand for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from covey.feed import flat_tree
from covey.feed.bitfield import BitPages


def cover(start: int, end: int) -> Iterator[int]:
    """The fewest nodes, left to right, that together span blocks `start` to before `end`."""
    while start < end:
        low = start & -start if start else 1 << (end - start).bit_length()
        size = min(low, 1 << ((end - start).bit_length() - 1))
        yield 2 * start + size - 1
        start += size


def gap_around(bits: BitPages, start: int, end: int, length: int) -> tuple[int, int]:
    """The stretch between two held blocks, or the ends of the log, that has `start` to `end` in it.

    Nothing of `start` to before `end` counts as held.
    """
    return _after_last(bits, start), _next(bits, end, length)


def _next(bits: BitPages, start: int, length: int) -> int:
    found = bits.first_set(start)
    return length if found is None else min(found, length)


def _after_last(bits: BitPages, end: int) -> int:
    """One past the last set bit before `end`; 0 when there is none."""
    width = 1
    high = end
    while not bits.count(max(end - width, 0), high):
        high = max(end - width, 0)
        if not high:
            return 0
        width *= 2
    low = max(end - width, 0)
    # The last set bit is one of low to before high.
    while high - low > 1:
        middle = (low + high) >> 1
        if bits.count(middle, high):
            low = middle
        else:
            high = middle
    return high


def nodes_below(node: int) -> list[tuple[int, int]]:
    """The ranges of flat indexes that are the nodes strictly below `node`."""
    if not node & 1:
        return []
    return [(flat_tree.left_span(node), node), (node + 1, flat_tree.right_span(node) + 1)]


def idle_nodes(
    bits: BitPages, start: int, end: int, length: int, coming: Iterable[int] = ()
) -> list[tuple[int, int]]:
    """Nodes that no held block needs for its proof once `start` to before `end` are not held.

    The top of each empty subtree stays: a block beside it, or the head, is proven with its hash.
    Blocks that are `coming` count as held, unless they are among those from `start` to `end`.
    """
    low, high = gap_around(bits, start, end, length)
    for block in coming:
        if low <= block < start:
            low = block + 1
        elif end <= block < high:
            high = block
    return [span for node in cover(low, high) for span in nodes_below(node)]


def pieces(bits: BitPages, length: int) -> Iterator[tuple[int, bool]]:
    """The whole log left to right: leaves of held blocks (True), and tops of empty subtrees."""
    place = 0
    while place < length:
        held = _next(bits, place, length)
        for node in cover(place, held):
            yield node, False
        place = min(bits.first_unset(held), length) if held < length else length
        for block in range(held, place):
            yield 2 * block, True
