"""The records of one log in plain dicts, whose commits can be made to fail."""

from __future__ import annotations

from covey.errors import StoreError
from covey.feed import flat_tree
from covey.feed.hashes import Node
from covey.feed.log import Log
from covey.feed.log_changes import LAST, Changes, Head, Hints, Span
from covey.feed.log_events import LogEvent
from covey.feed.manifest import Manifest, default_manifest
from covey.feed.tree import cut_nodes
from covey.keys import KeyPair
from tests.feed.plain_logs import PAIR


class MemoryRecords:
    """What a log committed, and the commits themselves.

    `failing`: the next commit raises this and does nothing.
    """

    def __init__(self) -> None:
        self.nodes: dict[int, Node] = {}
        self.blocks: dict[int, bytes] = {}
        self.pages: dict[int, bytes] = {}
        self.data: dict[str, bytes] = {}
        self.head: Head | None = None
        self.hints = Hints()
        self.manifest: Manifest | None = None
        self.frozen = False
        self.failing: BaseException | None = None
        self.commits: list[Changes] = []

    def node(self, index: int) -> Node | None:
        return self.nodes.get(index)

    def block(self, index: int) -> bytes | None:
        return self.blocks.get(index)

    def user_data(self, name: str) -> bytes | None:
        return self.data.get(name)

    def fail(self, error: BaseException | None = None) -> None:
        self.failing = error or StoreError("no space left")

    def commit(self, changes: Changes) -> None:
        failing, self.failing = self.failing, None
        if failing is not None:
            raise failing
        self.commits.append(changes)
        _delete(self.blocks, changes.deleted_blocks)
        _delete(self.nodes, changes.deleted_nodes)
        _delete(self.pages, changes.deleted_pages)
        self.blocks.update(changes.blocks)
        self.nodes.update((node.index, node) for node in changes.nodes)
        self.pages.update(changes.pages)
        self.head = changes.head or self.head
        self.hints = changes.hints or self.hints
        self.manifest = changes.manifest or self.manifest
        self.frozen = self.frozen if changes.frozen is None else changes.frozen
        for name, value in changes.user_data.items():
            if value is None:
                self.data.pop(name, None)
            else:
                self.data[name] = value

    def open(
        self, key: bytes, *, manifest: Manifest | None = None, key_pair: KeyPair | None = None
    ) -> Log:
        """The log as it is found after a restart."""
        return Log(
            self,
            key=key,
            manifest=self.manifest or manifest,
            key_pair=key_pair,
            head=self.head,
            pages=self.pages,
            frozen=self.frozen,
            hints=self.hints,
        )


def _delete(table: dict[int, bytes] | dict[int, Node], spans: list[Span]) -> None:
    for start, end in spans:
        assert 0 <= start <= end <= LAST
        for index in [index for index in table if start <= index < end]:
            del table[index]


def writer(*blocks: bytes, pair: KeyPair = PAIR) -> tuple[Log, MemoryRecords]:
    """A log with these blocks that `pair` signs."""
    records = MemoryRecords()
    manifest = default_manifest(pair.public_key)
    log = records.open(manifest.key, manifest=manifest, key_pair=pair)
    log.append(blocks)
    return log, records


def reader(of: Log) -> tuple[Log, MemoryRecords]:
    """A log with the key of another, of which nothing else is known yet."""
    records = MemoryRecords()
    return records.open(of.key), records


def reopened(log: Log, records: MemoryRecords) -> Log:
    """The same log from its records alone."""
    return records.open(log.key, manifest=log.manifest, key_pair=log.key_pair)


def numbered(count: int, start: int = 0) -> list[bytes]:
    return [b"block %d" % number for number in range(start, start + count)]


def heard(log: Log) -> list[LogEvent]:
    events: list[LogEvent] = []
    log.on_change.append(events.append)
    return events


def summary(log: Log) -> tuple[object, ...]:
    return (
        log.fork,
        log.length,
        log.byte_length,
        log.tree_hash,
        log.signature,
        list(log.roots),
        list(log.bitfield.ranges(0, 1 << 40)),
        log.contiguous_length,
        log.staged_blocks,
        log.frozen,
        log.manifest,
    )


def assert_sound(log: Log, records: MemoryRecords) -> None:
    """What is in memory is what is stored, all of it verifies, and nothing is beyond the head."""
    again = reopened(log, records)
    assert summary(again) == summary(log)
    list(again.verify_all())
    assert all(block < log.length and log.has(block) for block in records.blocks)
    assert all(block in records.blocks for block in range(log.length) if log.has(block))
    assert all(node < 2 * log.length for node in records.nodes)
    assert not set(cut_nodes(log.length)) & set(records.nodes)
    assert all(log.node(root) for root in flat_tree.full_roots(log.length))


def needed_nodes(log: Log) -> set[int]:
    """Roots, and for every held block the nodes from it up, with their siblings."""
    roots = set(flat_tree.full_roots(log.length))
    needed = set(roots)
    for block in range(log.length):
        node = 2 * block
        while log.has(block) and node not in roots:
            needed |= {node, flat_tree.sibling(node)}
            node = flat_tree.parent(node)
    return needed
