"""Verified blocks that wait for the next commit, and the nodes that came with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from covey.feed.hashes import Node
from covey.feed.log_changes import Changes


class Staging:
    """Blocks and nodes that are true but not stored yet."""

    __slots__ = ("blocks", "nodes", "size")

    def __init__(self) -> None:
        self.blocks: dict[int, bytes] = {}
        self.nodes: dict[int, Node] = {}
        self.size = 0
        """Bytes of the blocks."""

    def add_block(self, index: int, data: bytes) -> None:
        """Put a block in; one that is in already is replaced."""
        before = self.blocks.get(index)
        if before is not None:
            self.size -= len(before)
        self.blocks[index] = data
        self.size += len(data)

    def add_nodes(self, nodes: Iterable[Node]) -> None:
        """Put nodes in."""
        known = self.nodes
        for node in nodes:
            known[node[0]] = node

    def __bool__(self) -> bool:
        return bool(self.blocks or self.nodes)


@dataclass(slots=True)
class Writing:
    """What a flush stores, and what memory shows once it is stored."""

    staged: Staging
    blocks: list[int]
    """Those that are new, in order."""
    changes: Changes
    contiguous: int
    settle: Callable[[], object] | None = None
    """Waits for it, where it goes on beside."""


class NodeCache:
    """The nodes looked up or made last, at most `2 * half` of them."""

    __slots__ = ("_half", "_new", "_old")

    def __init__(self, half: int) -> None:
        self._half = half
        self._new: dict[int, Node] = {}
        self._old: dict[int, Node] = {}

    def get(self, index: int) -> Node | None:
        """A node that is remembered."""
        found = self._new.get(index)
        return self._old.get(index) if found is None else found

    def add(self, nodes: Iterable[Node]) -> None:
        """Remember nodes; those added before the last half are forgotten."""
        new = self._new
        for node in nodes:
            new[node[0]] = node
        if len(new) >= self._half:
            self._old = new
            self._new = {}

    def clear(self) -> None:
        """Forget all."""
        self._new, self._old = {}, {}
