"""One log's records in a store, each commit of the log one batch of the storage.

`storage.md` sections 1 and 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from covey.errors import StoreError, VerifyError
from covey.feed.hashes import Node
from covey.feed.log import Log
from covey.feed.log_changes import LAST, Changes, Hints, Span
from covey.feed.log_changes import Head as LogHead
from covey.feed.log_staging import NodeMemory
from covey.keys import KeyPair
from covey.store.records import (
    Auth,
    Head,
    auth_key,
    bits_key,
    bits_range,
    block_key,
    block_range,
    check_bits,
    head_key,
    hints_key,
    index_of,
    node_key,
    node_range,
    node_value,
    read_node,
    user_data_key,
)
from covey.store.records import Hints as StoredHints
from covey.store.storage import KeyRange, Put, Storage
from covey.wall_clock import wall_clock


class StoredRecords:
    """The records of log number `core` in `storage`: a `LogRecords`.

    `clock` gives milliseconds since 1970, which heads are stamped with. Raises `StoreError` when
    the log has no keys in the store, or damaged ones.
    """

    __slots__ = ("_clock", "_core", "_storage", "auth")

    def __init__(
        self, storage: Storage, core: int, *, clock: Callable[[], int] = wall_clock
    ) -> None:
        self._storage = storage
        self._core = core
        self._clock = clock
        self.auth = self._read_auth()
        """Whose log it is, as it is stored now."""

    @property
    def core(self) -> int:
        """The number of the log in its store."""
        return self._core

    def node(self, index: int) -> Node | None:
        """See `LogRecords`."""
        value = self._storage.get(node_key(self._core, index))
        return None if value is None else read_node(index, value)

    def block(self, index: int) -> bytes | None:
        """See `LogRecords`."""
        return self._storage.get(block_key(self._core, index))

    def user_data(self, name: str) -> bytes | None:
        """See `LogRecords`."""
        return self._storage.get(user_data_key(self._core, name))

    def head(self) -> LogHead | None:
        """The stored head; None for a log that has none yet.

        Raises `StoreError` when it is damaged or lost: a writer that took such a log for an empty
        one would sign its first blocks in a second way.
        """
        value = self._storage.get(head_key(self._core))
        if value is None:
            for _ in self._storage.range(*node_range(self._core), limit=1):
                raise StoreError(f"the log {self.auth.key.hex()} is damaged: its head is missing")
            return None
        head = Head.decode(value)
        return LogHead(
            head.fork,
            head.length,
            head.byte_length,
            head.tree_hash,
            head.signature,
            head.timestamp,
        )

    def hints(self) -> Hints:
        """The stored hints, or those of a new log."""
        value = self._storage.get(hints_key(self._core))
        if value is None:
            return Hints()
        hints = StoredHints.decode(value)
        return Hints(hints.contiguous_length, hints.remote_contiguous_length)

    def pages(self) -> dict[int, bytes]:
        """All stored pages of availability bits."""
        pages = {}
        for key, value in self._storage.range(*bits_range(self._core)):
            number = index_of(key)
            pages[number] = check_bits(number, value)
        return pages

    def commit(self, changes: Changes) -> None:
        """See `LogRecords`."""
        auth = self._new_auth(changes)
        puts = list(self._puts(changes))
        if auth is not None:
            puts.append((auth_key(self._core), auth.encode()))
        core = self._core
        gone = [
            user_data_key(core, name) for name, value in changes.user_data.items() if value is None
        ]
        self._storage.write_batch(puts, gone, self._range_deletes(changes))
        if auth is not None:
            self.auth = auth

    def _read_auth(self) -> Auth:
        value = self._storage.get(auth_key(self._core))
        if value is None:
            raise StoreError(f"the store is damaged: log number {self._core} has no keys")
        return Auth.decode(value)

    def _new_auth(self, changes: Changes) -> Auth | None:
        if changes.manifest is None and changes.frozen is None:
            return None
        auth = self._read_auth()  # anew: the store may have learned keys of the log meanwhile
        if changes.manifest is not None:
            auth = replace(auth, manifest=changes.manifest)
        if changes.frozen is not None:
            auth = replace(auth, frozen=changes.frozen)
        return auth

    def _puts(self, changes: Changes) -> Iterator[Put]:
        core = self._core
        for index, data in changes.blocks:
            yield block_key(core, index), data
        for node in changes.nodes:
            yield node_key(core, node[0]), node_value(node)
        for number, page in changes.pages.items():
            yield bits_key(core, number), page
        head = changes.head
        if head is not None:
            stamped = Head(
                head.fork,
                head.length,
                head.byte_length,
                head.tree_hash,
                head.signature,
                head.timestamp or self._clock(),
            )
            yield head_key(core), stamped.encode()
        if changes.hints is not None:
            yield hints_key(core), StoredHints(*changes.hints).encode()
        for name, value in changes.user_data.items():
            if value is not None:
                yield user_data_key(core, name), value

    def _range_deletes(self, changes: Changes) -> list[KeyRange]:
        core = self._core
        return [
            *_ranges(block_range, core, changes.deleted_blocks),
            *_ranges(node_range, core, changes.deleted_nodes),
            *_ranges(bits_range, core, changes.deleted_pages),
        ]


def _ranges(
    make: Callable[[int, int, int | None], KeyRange], core: int, deleted: Iterable[Span]
) -> list[KeyRange]:
    return [make(core, start, None if end >= LAST else end) for start, end in deleted]


def open_log(
    storage: Storage,
    core: int,
    *,
    key_pair: KeyPair | None = None,
    clock: Callable[[], int] = wall_clock,
    memory: NodeMemory | None = None,
) -> Log:
    """The log number `core` of a store, whose `Auth` is there already.

    `key_pair` signs instead of the one that is stored with the log, if any; `memory` is that of all
    logs of the store. Raises `StoreError` for a log that is damaged.
    """
    records = StoredRecords(storage, core, clock=clock)
    auth = records.auth
    try:
        return Log(
            records,
            key=auth.key,
            manifest=auth.manifest,
            key_pair=key_pair or auth.key_pair,
            head=records.head(),
            pages=records.pages(),
            frozen=auth.frozen,
            hints=records.hints(),
            memory=memory,
        )
    except VerifyError as error:
        raise StoreError(f"the log {auth.key.hex()} is damaged: {error}") from error
