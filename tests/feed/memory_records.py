"""The records of one log in plain dicts, whose commits can be made to fail."""

from __future__ import annotations

from covey.errors import StoreError
from covey.feed.hashes import Node
from covey.feed.log import Log
from covey.feed.log_changes import LAST, Changes, Head, Hints, Span
from covey.feed.manifest import Manifest, default_manifest
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
