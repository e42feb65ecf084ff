"""Logs in plain dicts: one that writes and answers, and readers that hold a part of it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from covey.feed import flat_tree
from covey.feed.hashes import Node
from covey.feed.manifest import Manifest, default_manifest
from covey.feed.messages import (
    BlockRequest,
    Data,
    Request,
    SeekRequest,
    UpgradeRequest,
    data_codec,
)
from covey.feed.proof import build
from covey.feed.signatures import Authority
from covey.feed.tree import Batch, cut_nodes, missing_nodes
from covey.feed.verify import Verified, verify
from covey.keys import KeyPair
from covey.wire.encoding import decode, encode

PAIR = KeyPair.from_seed(b"\x11" * 32)


def ask(
    *,
    identity: int = 1,
    fork: int = 0,
    block: tuple[int, int] | None = None,
    hash_: tuple[int, int] | None = None,
    seek: tuple[int, int] | None = None,
    upgrade: tuple[int, int] | None = None,
    manifest: bool = False,
) -> Request:
    """A request out of plain numbers."""
    return Request(
        identity,
        fork,
        None if block is None else BlockRequest(*block),
        None if hash_ is None else BlockRequest(*hash_),
        None if seek is None else SeekRequest(*seek),
        None if upgrade is None else UpgradeRequest(*upgrade),
        manifest,
        0,
    )


def node_from(value: dict[str, Any]) -> Node:
    """A node as the vectors write it."""
    return Node(value["index"], value["size"], bytes.fromhex(value["hash"]))


class PlainLog:
    """The state of one side: blocks and nodes held, head, and who may sign."""

    def __init__(
        self, pair: KeyPair = PAIR, manifest: Manifest | None = None, *, compat: bool = False
    ) -> None:
        self.pair = pair
        self.manifest = manifest or default_manifest(pair.public_key)
        key = pair.public_key if compat else self.manifest.key
        self.authority = Authority(key, None if compat else self.manifest)
        self.nodes: dict[int, Node] = {}
        self.blocks: dict[int, bytes] = {}
        self.roots: list[Node] = []
        self.length = 0
        self.fork = 0
        self.signature: bytes | None = None

    @classmethod
    def of(cls, *blocks: bytes) -> PlainLog:
        """A writer with these blocks."""
        log = cls()
        log.append(*blocks)
        return log

    def append(self, *blocks: bytes) -> None:
        """Write and sign."""
        batch = Batch(self.roots, self.length, self.fork)
        for data in blocks:
            self.blocks[batch.length] = data
            batch.append(data)
        self.nodes.update((node.index, node) for node in batch.nodes)
        self.roots, self.length = batch.roots, batch.length
        self.sign()

    def sign(self) -> None:
        """Sign the present head; none inside a prologue has a signature."""
        prologue = self.authority.prologue
        if prologue is not None and self.length <= prologue.length:
            self.signature = None
            return
        self.signature = self.authority.sign(
            self.pair, roots=self.roots, length=self.length, fork=self.fork
        )

    def cut(self, length: int) -> None:
        """Forget everything from block `length` on."""
        self.blocks = {block: data for block, data in self.blocks.items() if block < length}
        for index in [index for index in self.nodes if index >= 2 * length]:
            del self.nodes[index]
        for index in cut_nodes(length):
            self.nodes.pop(index, None)

    def rewrite(self, length: int, *blocks: bytes) -> None:
        """Truncate to a new fork, then write others."""
        self.cut(length)
        self.length = length
        self.roots = [self.nodes[index] for index in flat_tree.full_roots(length)]
        self.fork += 1
        self.append(*blocks)

    def answer(self, request: Request) -> Data:
        """The answer, over the wire and back."""
        return decode(data_codec, encode(data_codec, self.build(request)))

    def build(self, request: Request) -> Data:
        """The answer."""
        return build(
            request,
            length=self.length,
            fork=self.fork,
            get_node=self.nodes.get,
            get_block=self.blocks.get,
            signature=self.signature,
            manifest=None if self.authority.compat else self.manifest,
        )

    def verify(self, data: Data) -> Verified:
        """What `data` proves to this reader."""
        return verify(
            data,
            roots=self.roots,
            length=self.length,
            fork=self.fork,
            get_node=self.nodes.get,
            authority=self.authority,
        )

    def take(self, data: Data) -> Verified:
        """Verify and store."""
        verified = self.verify(data)
        self.store(verified)
        return verified

    def store(self, verified: Verified) -> None:
        """Store what was verified, but no claims."""
        self.nodes.update((node.index, node) for node in verified.nodes)
        if verified.manifest is not None:
            self.authority = Authority(self.authority.key, verified.manifest)
        if verified.block is not None:
            self.blocks[verified.block[0]] = verified.block[1]
        if verified.upgrade is not None:
            self.length = verified.upgrade.length
            self.roots = verified.upgrade.roots
            self.signature = verified.upgrade.signature

    def missing(self, block: int) -> int:
        """The `nodes` of a request for `block`."""
        return missing_nodes(block, self.length, self.nodes.__contains__)

    def fetch(self, source: PlainLog, blocks: Iterable[int]) -> None:
        """Take single blocks of another log."""
        for block in blocks:
            request = ask(fork=self.fork, block=(block, self.missing(block)))
            self.take(source.answer(request))

    def catch_up(self, source: PlainLog, length: int | None = None) -> None:
        """Take the head of another log; additional nodes too when only `length` is asked for."""
        end = source.length if length is None else length
        request = ask(fork=self.fork, upgrade=(self.length, end - self.length))
        self.take(source.answer(request))
