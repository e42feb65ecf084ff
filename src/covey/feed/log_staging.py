"""Verified blocks that wait for the next commit, and the nodes that came with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from covey.feed.hashes import Node
from covey.feed.log_changes import Changes

HALF_OF_NODES: Final = 16_384
"""With another such half some 5 MiB, for all logs of a store."""


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
    failure: BaseException | None = None
    """Why it could not be stored."""


class NodeMemory:
    """How many nodes the caches of several logs remember together: some `2 * half`, 3 at most.

    Those that were made or looked up longest ago are forgotten, of whichever log they are.
    """

    __slots__ = ("_caches", "_left", "half")

    def __init__(self, half: int = HALF_OF_NODES) -> None:
        self.half = self._left = half
        self._caches: dict[NodeCache, None] = {}

    def grew(self, cache: NodeCache, count: int) -> None:
        """So many more are in the new half of a cache."""
        self._caches[cache] = None
        self._left -= count
        if self._left <= 0:
            self._left = self.half
            for other in list(self._caches):
                if not other.turn():
                    self._caches.pop(other, None)


class NodeCache:
    """The nodes of one log that were looked up or made last, as many as `memory` has room for."""

    __slots__ = ("_memory", "_new", "_old")

    def __init__(self, memory: NodeMemory) -> None:
        self._memory = memory
        self._new: dict[int, Node] = {}
        self._old: dict[int, Node] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    def get(self, index: int) -> Node | None:
        """A node that is remembered."""
        found = self._new.get(index)
        return self._old.get(index) if found is None else found

    def add(self, nodes: Sequence[Node]) -> None:
        """Remember nodes; of more than there is room for the last ones."""
        new, half = self._new, self._memory.half
        before = len(new)
        for node in nodes if len(nodes) <= half else nodes[-half:]:
            new[node[0]] = node
        if len(new) > before:
            self._memory.grew(self, len(new) - before)

    def turn(self) -> bool:
        """Forget the older half; whether there is any other."""
        self._old = self._new
        self._new = {}
        return bool(self._old)

    def clear(self) -> None:
        """Forget all."""
        self._new, self._old = {}, {}
