"""Answers to requests: the nodes from which the asker can check them (`hypercore.md` 10.2).

A proof leaves out whatever the asker has or can compute. What it has follows from its request: the
`nodes` of a block or hash says how far up the tree it lacks nodes, the `start` of an upgrade how
long its own head is. Source: hypercore 11.37.1, lib/merkle-tree.js `generateProof`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from covey.errors import CoveyError
from covey.feed import flat_tree
from covey.feed.growth import MAX_PATH
from covey.feed.hashes import Node
from covey.feed.manifest import Manifest
from covey.feed.messages import (
    BlockData,
    Data,
    HashData,
    Request,
    SeekData,
    SeekRequest,
    UpgradeData,
    UpgradeRequest,
)
from covey.feed.tree import GetNode, byte_offset, roots_of, unpadded_size


class ProofError(CoveyError):
    """A request gets no proof; `reason` is the number for the answer `noData`."""

    reason: ClassVar[int] = 0


class NotAvailable(ProofError):
    """The request may be right, but the block, the fork or a node of the tree is not here."""

    reason = 1


class InvalidRequest(ProofError):
    """The request makes no sense: it points outside the log, or its parts do not fit together."""

    reason = 2


def build(
    request: Request,
    *,
    length: int,
    fork: int,
    get_node: GetNode,
    get_block: Callable[[int], bytes | None],
    signature: bytes | None,
    manifest: Manifest | None,
) -> Data:
    """The answer to `request` from the head of `length` blocks on `fork`.

    `get_block` gives stored bytes. `signature` is that of this head; `manifest` is None for a
    compat log, whose readers need none. Raises `NotAvailable` and `InvalidRequest`. From an empty
    log the answer has no parts.
    """
    asked_manifest = manifest if request.manifest else None
    if request.fork != fork:
        raise NotAvailable(f"asked for fork {request.fork}, this is {fork}")
    value = None
    upgrade = request.upgrade
    if request.block is not None:
        index, levels = request.block
        value = get_block(index)
        if value is None:
            if asked_manifest is not None:
                return Data(request.id, fork, None, None, None, None, asked_manifest)
            raise NotAvailable(f"block {index} is not here")
        if upgrade is None and request.seek is None and length:
            # Nearly all requests are for a block and its path.
            path = _block_path(index, levels, length, get_node)
            part = BlockData(index, value, path)
            return Data(request.id, fork, part, None, None, None, asked_manifest)
    if length == 0:
        return Data(request.id, fork, None, None, None, None, asked_manifest)
    if upgrade is not None:
        upgrade = _past_prologue(upgrade, manifest)
    parts = _Parts(request, upgrade, length, get_node)
    parts.collect()
    return parts.data(value, signature, asked_manifest)


def _block_path(block: int, levels: int, length: int, get_node: GetNode) -> list[Node]:
    """The siblings from a block's leaf to the node so many levels above it."""
    if levels > MAX_PATH or ((block >> levels) + 1) << levels > length:
        raise InvalidRequest(f"{levels} levels above block {block} are not below the head")
    nodes = []
    node, step = 2 * block, 1
    for _ in range(levels):
        other = get_node(node ^ (step << 1))
        if other is None:
            raise NotAvailable(f"node {node ^ (step << 1)} is not here")
        nodes.append(other)
        node = (node | step) & ~(step << 1)
        step <<= 1
    return nodes


def _past_prologue(upgrade: UpgradeRequest, manifest: Manifest | None) -> UpgradeRequest:
    """Heads inside a prologue have no signature: an upgrade takes it whole, the rest is extra."""
    prologue = None if manifest is None else manifest.prologue
    if prologue is None or upgrade.start >= prologue.length:
        return upgrade
    return UpgradeRequest(0, prologue.length)


class _Parts:
    """The node lists of one answer while they are collected; None: not part of it yet."""

    __slots__ = (
        "_asked",
        "_end",
        "_first",
        "_get_node",
        "_head",
        "_levels",
        "_request",
        "_start",
        "_upgrade",
        "additional",
        "nodes",
        "seek",
        "upgrade",
    )

    def __init__(
        self, request: Request, upgrade: UpgradeRequest | None, length: int, get_node: GetNode
    ) -> None:
        self.nodes: list[Node] | None = None
        self.seek: list[Node] | None = None
        self.upgrade: list[Node] | None = None
        self.additional: list[Node] = []
        self._request = request
        self._upgrade = upgrade
        self._get_node = get_node
        self._head = 2 * length
        self._start, self._end = 0, self._head
        if upgrade is not None:
            self._start = 2 * upgrade.start
            self._end = self._start + 2 * upgrade.length
            if not self._start < self._end <= self._head:
                raise InvalidRequest(
                    f"an upgrade of {upgrade.length} from {upgrade.start} in {length} blocks"
                )
        # The node that is asked for, whether a hash of it goes along, and the levels above it.
        self._asked: int | None = None
        self._first = False
        self._levels = 0
        if request.block is not None:
            self._asked, self._levels = 2 * request.block.index, request.block.nodes
        elif request.hash is not None:
            self._asked, self._levels = request.hash
            self._first = True

    def collect(self) -> None:
        """Find all nodes; raises `ProofError`."""
        asked, seek, upgrade = self._asked, self._request.seek, self._upgrade
        if asked is not None and seek is not None and upgrade is not None and asked >= self._start:
            raise InvalidRequest("a seek and a node beyond the asker's head in one upgrade")
        subtree: int | None = None
        if asked is not None and (upgrade is None or flat_tree.right_span(asked) < self._start):
            top = self._top(asked)
            target = None if seek is None else self._seek_within(top, seek)
            self._path(top, target)
        elif upgrade is not None:
            subtree = asked if seek is None else self._seek_from_head(seek)
        if upgrade is not None:
            self.upgrade = self._walk(self._start, self._end, subtree)
            if self._end < self._head:
                self.additional = self._walk(self._end, self._head, None)

    def nodes_asked(self) -> list[Node]:
        """The path of the block or hash; `InvalidRequest` when the upgrade does not reach it."""
        if self.nodes is None:
            raise InvalidRequest(f"node {self._asked} is not in what the upgrade covers")
        return self.nodes

    def seek_data(self) -> SeekData | None:
        """The seek part: absent when the other parts lead to the place anyway."""
        seek = self._request.seek
        return None if seek is None or self.seek is None else SeekData(seek.bytes, self.seek)

    def upgrade_data(self, signature: bytes | None) -> UpgradeData | None:
        """The upgrade part."""
        upgrade = self._upgrade
        if upgrade is None or self.upgrade is None:
            return None
        return UpgradeData(upgrade.start, upgrade.length, self.upgrade, self.additional, signature)

    def data(self, value: bytes | None, signature: bytes | None, manifest: Manifest | None) -> Data:
        """The answer, once all is collected; `value` is the block asked for."""
        request, block, hash_part = self._request, None, None
        if request.block is not None and value is not None:
            block = BlockData(request.block.index, value, self.nodes_asked())
        elif request.hash is not None:
            hash_part = HashData(request.hash.index, self.nodes_asked())
        seek, upgrade = self.seek_data(), self.upgrade_data(signature)
        return Data(request.id, request.fork, block, hash_part, seek, upgrade, manifest)

    def _node(self, index: int) -> Node:
        node = self._get_node(index)
        if node is None:
            raise NotAvailable(f"node {index} is not here")
        return node

    def _top(self, node: int) -> int:
        """The node that the asker says it has: as many levels up as it asked for."""
        levels = self._levels
        depth = flat_tree.depth(node)
        if levels <= MAX_PATH:
            top = flat_tree.index(depth + levels, flat_tree.offset(node) >> levels)
            if flat_tree.right_span(top) < self._end:
                return top
        raise InvalidRequest(f"{levels} levels above node {node} are not below the head")

    def _path(self, top: int, target: int | None) -> None:
        """The siblings from the node asked for up to `top`, with the seek where it belongs."""
        node = self._asked
        if node is None:
            if target is not None:
                self._seek_path(target, top)
            return
        if not flat_tree.contains(top, node):
            raise InvalidRequest(f"node {node} is not below node {top}")
        self.nodes = nodes = [self._node(node)] if self._first else []
        while node != top:
            other = flat_tree.sibling(node)
            if target is not None and target != other and flat_tree.contains(other, target):
                self._seek_path(target, other)
            else:
                nodes.append(self._node(other))
            node = flat_tree.parent(node)

    def _seek_path(self, target: int, top: int) -> None:
        if not flat_tree.contains(top, target):
            raise InvalidRequest(f"node {target} is not below node {top}")
        self.seek = nodes = [self._node(target)]
        while target != top:
            nodes.append(self._node(flat_tree.sibling(target)))
            target = flat_tree.parent(target)

    def _walk(self, start: int, end: int, subtree: int | None) -> list[Node]:
        """What leads from the head that ends at `start` to the one that ends at `end`.

        A subtree with a part of its own is left out: the asker computes it from that part.
        """
        found: list[Node] = []
        # Only the first root that is not whole in the old head can hold the old head's last leaf.
        last = start - 2
        for root in flat_tree.full_roots(end >> 1):
            if flat_tree.right_span(root) + 1 < start:
                continue
            if last >= 0 and flat_tree.contains(root, last):
                node = last
                while node != root:
                    other = flat_tree.sibling(node)
                    if other > node:
                        self._emit(other, subtree, found)
                    node = flat_tree.parent(node)
            else:
                self._emit(root, subtree, found)
        return found

    def _emit(self, index: int, subtree: int | None, found: list[Node]) -> None:
        if subtree is not None and flat_tree.contains(index, subtree):
            self._path(index, subtree)
        else:
            found.append(self._node(index))

    def _seek_from_head(self, seek: SeekRequest) -> int | None:
        """Where the seek leads in the head after the upgrade; None beyond its end."""
        roots = roots_of(self._end >> 1, self._get_node)
        if roots is None:
            raise NotAvailable("a root is not here")
        offset = seek.bytes
        for root in roots:
            size = unpadded_size(root, seek.padding)
            if offset == size:
                return root.index
            if offset < size:
                return self._descend(root.index, offset, seek.padding)
            offset -= size
        return None

    def _seek_within(self, top: int, seek: SeekRequest) -> int:
        """Where the seek leads below `top`; `InvalidRequest` when that is somewhere else."""
        first = flat_tree.left_span(top) >> 1
        roots = roots_of(self._head >> 1, self._get_node)
        start = None if roots is None else byte_offset(first, roots, self._get_node)
        if start is None:
            raise NotAvailable(f"the place of node {top} is not known here")
        offset = seek.bytes - (start - seek.padding * first)
        if offset == 0:
            return top
        if not 0 < offset < unpadded_size(self._node(top), seek.padding):
            raise InvalidRequest(f"byte {seek.bytes} is not below node {top}")
        return self._descend(top, offset, seek.padding)

    def _descend(self, node: int, offset: int, padding: int) -> int:
        """The lowest node that starts at the offset or holds it, as the asker will look for it.

        Not below nodes of which one is not here: there would be no path from there.
        """
        if offset == 0:
            return node
        while (pair := flat_tree.children(node)) is not None:
            left = self._get_node(pair[0])
            if left is None or self._get_node(pair[1]) is None:
                return node
            size = unpadded_size(left, padding)
            if size == offset:
                return left.index
            if size > offset:
                node = left.index
            else:
                offset -= size
                node = pair[1]
        return node
