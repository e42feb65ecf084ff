"""Answers are checked before anything of them is believed (`hypercore.md` 10.3).

Source: hypercore 11.37.1, lib/merkle-tree.js `verifyTree`, `verifyUpgrade`, and lib/core.js.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from covey.errors import VerifyError
from covey.feed import flat_tree
from covey.feed.growth import Fold, Growth, fold_block, proven_length, settle
from covey.feed.hashes import Node, tree_hash
from covey.feed.manifest import Manifest, Prologue
from covey.feed.messages import Data, Request, UpgradeData
from covey.feed.signatures import Authority
from covey.feed.tree import GetNode
from covey.wire.codec import MAX_UINT


class StaleProof(VerifyError):
    """The answer leads to a head that is not news any more, and nothing here vouches for the rest.

    An honest peer may send one, when our head moved on while it answered.
    """


class NewHead(NamedTuple):
    """A head that is signed: `roots` left to right, `signature` as it was received."""

    fork: int
    length: int
    byte_length: int
    roots: list[Node]
    signature: bytes | None


class Verified(NamedTuple):
    """What of an answer is true and may be stored, all of it in one transaction.

    `nodes` are new nodes of the tree. `block` is its number and stored bytes. `upgrade` is the new
    head, None when it is not longer than ours. `manifest` is new and belongs to the log.

    `claimed` nodes have the right hash, but bytes may have been moved from the size of one to that
    of its sibling: only hashes may be trusted in them. Storing them is not needed; who does must
    not take offsets from them.
    """

    nodes: list[Node]
    block: tuple[int, bytes] | None
    upgrade: NewHead | None
    manifest: Manifest | None
    claimed: Sequence[Node] = ()


def matches(data: Data, request: Request) -> bool:
    """Whether `data` has nothing in it that `request` did not ask for.

    Parts may be missing, and an upgrade may be another one than the one asked for: the sender
    may know that we have come further, and a prologue is sent whole.
    """
    if data.request != request.id or data.fork != request.fork:
        return False
    block, hash_part, seek = data.block, data.hash, data.seek
    if block is not None and (request.block is None or request.block.index != block.index):
        return False
    if hash_part is not None and (request.hash is None or request.hash.index != hash_part.index):
        return False
    if seek is not None and (request.seek is None or request.seek.bytes != seek.bytes):
        return False
    if data.upgrade is not None and request.upgrade is None:
        return False
    return data.manifest is None or request.manifest


def verify(
    data: Data,
    *,
    roots: Sequence[Node],
    length: int,
    fork: int,
    get_node: GetNode,
    authority: Authority,
    known_node: GetNode | None = None,
) -> Verified:
    """What `data` proves to somebody with this head.

    `get_node` gives the nodes that are stored, which are trusted; `known_node`, where given, those
    that are of use and without which it goes too. An empty head (no roots, length
    0, the fork of `data`) checks an answer on its own. Raises `VerifyError`: `StaleProof` when the
    head has moved on since the request. Nothing is changed.
    """
    block = data.block
    if data.fork != fork:
        raise VerifyError(f"an answer for fork {data.fork}, this is {fork}")
    if block is not None and data.upgrade is None and data.seek is None and data.manifest is None:
        # Nearly all answers are a block and the path from it to a node that is here.
        nodes = fold_block(block)
        _vouch(nodes, True, length, get_node)
        return Verified(nodes, (block.index, bytes(block.value)), None, None)
    manifest, authority = _check_manifest(data.manifest, authority)
    fold = Fold(block, data.hash, data.seek)
    nodes, claims = fold.nodes, fold.claimed
    upgrade = data.upgrade
    head = None
    if upgrade is not None and proven_length(upgrade) > length:
        growth = Growth(roots, length, fold)
        _grow(growth, upgrade, authority.prologue)
        authority.verify(
            roots=growth.roots, length=growth.length, fork=fork, signature=upgrade.signature
        )
        growth.finish()
        if fold.top is not None and not growth.used_fold:
            _vouch_fold(fold, length, get_node)
        nodes = nodes + growth.nodes
        claims = claims + growth.claimed
        head = NewHead(fork, growth.length, growth.byte_length, growth.roots, upgrade.signature)
    elif fold.top is not None:
        if upgrade is not None and get_node(fold.top.index) is None:
            raise StaleProof(f"an upgrade to {proven_length(upgrade)} blocks, these are {length}")
        _vouch_fold(fold, length, get_node)
    proven, claimed = settle(claims, known_node or get_node) if claims else ([], ())
    content = None if block is None else (block.index, bytes(block.value))
    return Verified(nodes + proven, content, head, manifest, claimed)


def _check_manifest(
    manifest: Manifest | None, authority: Authority
) -> tuple[Manifest | None, Authority]:
    """The manifest if it is news, and who may sign by it; `VerifyError` for a foreign one."""
    if manifest is None or authority.manifest is not None:
        return None, authority
    named = Authority(authority.key, manifest)
    # The manifest of a compat log says nothing that its key does not say.
    return (None if named.compat else manifest), named


def _grow(growth: Growth, upgrade: UpgradeData, prologue: Prologue | None) -> None:
    """Let the head grow as the upgrade says; it is not signed yet."""
    length = growth.length
    if upgrade.start > length:
        raise VerifyError(f"an upgrade from {upgrade.start} blocks, these are {length}")
    fixed = 0 if prologue is None else prologue.length
    if upgrade.start < fixed and (upgrade.start or upgrade.length < fixed):
        raise VerifyError(f"an upgrade that stops inside the prologue of {fixed} blocks")
    try:
        growth.upgrade(upgrade)
    except VerifyError as error:
        if upgrade.start < length:
            raise StaleProof(f"an upgrade from {upgrade.start} blocks, not {length}") from error
        raise
    ended = prologue is not None and growth.length == fixed != length
    if prologue is not None and ended and tree_hash(growth.roots) != prologue.hash:
        raise VerifyError(f"the first {fixed} blocks are not the prologue")
    growth.extend(upgrade.additional_nodes)


def _vouch_fold(fold: Fold, length: int, get_node: GetNode) -> None:
    if fold.top is not None:
        nodes = fold.nodes
        nodes.append(fold.top)
        _vouch(nodes, fold.computed, length, get_node)


def _vouch(nodes: list[Node], computed: bool, length: int, get_node: GetNode) -> None:
    """Check that the last of `nodes`, the top of a path, is here, and take it off the list.

    `VerifyError` when it is another one, or beyond the head.
    """
    top = nodes.pop()
    index, size, top_hash = top
    if index + ((index + 1) & -(index + 1)) - 1 > 2 * length - 2:
        raise VerifyError(f"node {index} is beyond the head of {length} blocks")
    here = get_node(index)
    if here is None:
        raise VerifyError(f"nothing here vouches for node {index}")
    if here[2] != top_hash or size > MAX_UINT:
        raise VerifyError(f"node {index} is another one here")
    if here[1] != size:
        if not computed:
            raise VerifyError(f"node {index} has {here[1]} bytes, not {size}")
        # The hash covers the size: it was stored from a claim, and so was that of its sibling.
        nodes.append(top)
        sibling, parent = get_node(flat_tree.sibling(index)), get_node(flat_tree.parent(index))
        if sibling is not None and parent is not None:
            nodes.append(sibling._replace(size=parent.size - size))
