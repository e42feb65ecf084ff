"""A store's records and the logs that are open: shared by all views of the store.

`corestore.md` sections 1 to 5; corestore 7.9.2.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from covey.errors import ClosedError, StoreError, UsageError
from covey.events import EventStream
from covey.feed.log import Log
from covey.feed.log_events import Appended, LogEvent, Truncated
from covey.feed.log_staging import NodeMemory
from covey.feed.manifest import Manifest
from covey.feed.signatures import Authority
from covey.keys import KeyPair
from covey.keys import discovery_key as discovery_key_of
from covey.limits import Limits
from covey.owned_tasks import OwnedTasks
from covey.store.clock import Chance, Clock
from covey.store.derivation import PRIMARY_KEY_SIZE
from covey.store.feed_events import (
    FeedLeft,
    FeedMissed,
    FeedOpened,
    HeadChanged,
    StoredHead,
    StoreEvent,
)
from covey.store.lmdb_storage import LmdbStorage
from covey.store.log_records import open_log
from covey.store.memory_storage import MemoryStorage
from covey.store.open_log import OpenLog
from covey.store.records import (
    CORES,
    STORE_HEAD,
    Alias,
    Auth,
    CoreRecord,
    StoreHead,
    alias_key,
    alias_range,
    auth_key,
    core_by_discovery_key,
    core_number,
    fork_and_length,
    head_key,
    hints_key,
    is_lacking,
)
from covey.store.storage import Put, Storage
from covey.store.writer import Writer

if TYPE_CHECKING:
    from covey.store.replication import StoreStream

logger = logging.getLogger("covey.store")

UNOPENABLE: Final = 30.0
"""Seconds for which a log that could not be opened is not tried again when remotes ask for it."""
MAX_UNOPENABLE: Final = 1024
"""Logs of which that is remembered; the oldest is forgotten for a new one."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a store was made with."""

    path: str | os.PathLike[str] | None = None
    primary_key: bytes | None = None
    manifest_version: int = 1
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Keys:
    """What a caller knows of a log; its `key` always."""

    key: bytes
    manifest: Manifest | None = None
    key_pair: KeyPair | None = None
    alias: Alias | None = None
    encryption_key: bytes | None = None


class StoreRoot:
    """One directory, or one memory, of logs; opened when it is first used."""

    def __init__(
        self,
        settings: Settings,
        *,
        storage: Storage | None,
        clock: Clock | None,
        chance: Chance | None,
    ) -> None:
        self.settings = settings
        self.limits = settings.limits
        self.chance: Chance = chance or random.Random()  # spreads load, keeps no secret
        self.logs: dict[bytes, OpenLog] = {}
        """The open logs by discovery key."""
        self.streams: dict[Any, StoreStream] = {}
        """By connection."""
        self.events: EventStream[StoreEvent] = EventStream(backlog=settings.limits.event_backlog)
        self.heads: EventStream[HeadChanged] = EventStream()
        """Heads of open logs that changed, for those who subscribe."""
        self.tasks = OwnedTasks(logger)
        self.writer = Writer()
        self._nodes = NodeMemory()
        self.closed = False
        self._storage = storage
        self._clock = clock
        self._head: StoreHead | None = None
        self._index: set[bytes] | None = None
        self._unopenable: dict[bytes, tuple[float, str]] = {}

    # The store itself

    @property
    def clock(self) -> Clock:
        """The time: the event loop's, unless another was given."""
        if self._clock is None:
            self._clock = asyncio.get_running_loop()
        return self._clock

    @property
    def storage(self) -> Storage:
        """Where the records are."""
        return self._opened()[0]

    @property
    def head(self) -> StoreHead:
        """The record of the store itself."""
        return self._opened()[1]

    def open(self) -> None:
        """Open the storage, and make a store in it when there is none. Twice is fine.

        Raises `StoreError`: in use, damaged, or another primary key; `ClosedError` after `close`.
        """
        self._opened()

    def _opened(self) -> tuple[Storage, StoreHead]:
        if self.closed:
            raise ClosedError("this store is closed")
        if self._storage is not None and self._head is not None:
            return self._storage, self._head
        storage = self._storage or self._new_storage()
        with ExitStack() as undo:
            if self._storage is None:
                undo.callback(storage.close)
            self._head = self._read_head(storage)
            undo.pop_all()
        self._storage = storage
        return storage, self._head

    def _new_storage(self) -> Storage:
        path = self.settings.path
        return MemoryStorage() if path is None else LmdbStorage(path)

    def _read_head(self, storage: Storage) -> StoreHead:
        wanted = self.settings.primary_key
        value = storage.get(STORE_HEAD)
        if value is None:
            head = StoreHead(0, wanted or os.urandom(PRIMARY_KEY_SIZE))
            storage.write_batch([(STORE_HEAD, head.encode())])
            return head
        head = StoreHead.decode(value)
        if wanted is not None and wanted != head.primary_key:
            raise StoreError("another store is stored here: its primary key is not the one given")
        return head

    async def close(self) -> None:
        """Close the logs, let go of the connections, which stay, and of the storage."""
        if self.closed:
            return
        for log in tuple(self.logs.values()):
            log.close()
        for stream in tuple(self.streams.values()):
            stream.detach()
        self.writer.close()
        self.closed = True
        await self.tasks.end()
        self.events.close()
        self.heads.close()
        if self._storage is not None:
            self._storage.close()

    # Finding and making logs

    def known(self, discovery_key: bytes) -> bool:
        """Whether this log is stored here: an answer from memory, whoever asks how often."""
        if self._index is None:
            self._index = {key[1:] for key, _ in self.storage.range(*CORES)}
        return discovery_key in self._index

    def discovery_keys(self, namespace: bytes | None = None) -> list[bytes]:
        """The stored logs; with `namespace` those that have a name in it."""
        if namespace is None:
            return [key[1:] for key, _ in self.storage.range(*CORES)]
        return [value for _, value in self.storage.range(*alias_range(namespace))]

    def record(self, discovery_key: bytes) -> CoreRecord | None:
        """What is stored of a log's place in the store."""
        value = self.storage.get(core_by_discovery_key(discovery_key))
        return None if value is None else CoreRecord.decode(value)

    def find(self, discovery_key: bytes) -> OpenLog | None:
        """A log that is open or stored; None when it is not here. Raises as `open_log`."""
        opened = self.logs.get(discovery_key)
        if opened is not None:
            return opened
        if not self.known(discovery_key):
            return None
        record = self.record(discovery_key)
        return None if record is None else self._open(record.core)

    def find_asked(self, discovery_key: bytes) -> OpenLog | None:
        """As `find`, for remotes, who may ask again and again for what cannot be opened."""
        now = self.clock.time()
        until, why = self._unopenable.get(discovery_key, (now, ""))
        if now < until and discovery_key not in self.logs:
            raise StoreError(why)
        self._unopenable.pop(discovery_key, None)
        try:
            return self.find(discovery_key)
        except StoreError as error:
            logger.warning("a log that was asked for cannot be opened: %s", error)
            if len(self._unopenable) >= MAX_UNOPENABLE:
                del self._unopenable[next(iter(self._unopenable))]
            self._unopenable[discovery_key] = now + UNOPENABLE, str(error)
            raise

    def stored_heads(self, keys: Sequence[bytes]) -> list[StoredHead]:
        """The heads of logs, in their order, without opening any; an empty one for one not here.

        Raises `StoreError` for a record that is damaged.
        """
        found = [discovery_key_of(key) for key in keys]
        storage = self.storage
        cores = storage.get_many([core_by_discovery_key(one) for one in found])
        numbers = [None if value is None else core_number(value) for value in cores]
        here = [one for one in numbers if one is not None]
        values = iter(storage.get_many([head_key(one) for one in here]))
        hints = iter(storage.get_many([hints_key(one) for one in here]))
        heads = []
        for discovery_key, number in zip(found, numbers, strict=True):
            value, hint = (None, None) if number is None else (next(values), next(hints))
            opened = self.logs.get(discovery_key)
            if opened is not None:
                log = opened.log
                heads.append(StoredHead(log.fork, log.length, log.contiguous_length < log.length))
            elif value is None:
                heads.append(StoredHead(0, 0))
            else:
                fork, length = fork_and_length(value)
                heads.append(StoredHead(fork, length, is_lacking(length, hint)))
        return heads

    def find_named(self, alias: Alias) -> OpenLog | None:
        """The log of that name; None when there is none yet."""
        found = self.storage.get(alias_key(alias.namespace, alias.name))
        if found is None:
            return None
        opened = self.find(found)
        if opened is None:
            raise StoreError(f"the store is damaged: the log called {alias.name!r} is missing")
        return opened

    def obtain(self, keys: Keys) -> OpenLog:
        """The log with these keys, made when it is not here; what is new of the keys is kept."""
        opened = self.find(discovery_key_of(keys.key))
        if opened is None:
            return self._create(keys)
        self._learn(opened, keys)
        return opened

    def _create(self, keys: Keys) -> OpenLog:
        """Record, name, keys and the counter of logs, all at once."""
        head = self.head
        found = discovery_key_of(keys.key)
        core = head.cores
        auth = Auth(
            keys.key,
            found,
            manifest=keys.manifest,
            seed=None if keys.key_pair is None else keys.key_pair.seed,
            encryption_key=keys.encryption_key,
        )
        grown = replace(head, cores=core + 1)
        puts: list[Put] = [
            (STORE_HEAD, grown.encode()),
            (core_by_discovery_key(found), CoreRecord(core, keys.alias).encode()),
            (auth_key(core), auth.encode()),
        ]
        if keys.alias is not None:
            puts.append((alias_key(*keys.alias), found))
        self.storage.write_batch(puts)
        self._head = grown
        if self._index is not None:
            self._index.add(found)
        return self._open(core)

    def _learn(self, opened: OpenLog, keys: Keys) -> None:
        """Keep what the caller knows of an existing log and the store did not."""
        log = opened.log
        auth = self._auth(opened.core)
        _check_secret(opened, auth, keys.encryption_key)
        learned = replace(
            auth,
            manifest=auth.manifest or keys.manifest,
            seed=keys.key_pair.seed if keys.key_pair is not None else auth.seed,
            encryption_key=keys.encryption_key or auth.encryption_key,
        )
        puts: list[Put] = []
        if learned != auth:
            puts.append((auth_key(opened.core), learned.encode()))
        if keys.alias is not None:
            puts.append((alias_key(*keys.alias), log.discovery_key))
            record = self.record(log.discovery_key)
            if record is not None and record.alias is None:
                puts.append(
                    (
                        core_by_discovery_key(log.discovery_key),
                        replace(record, alias=keys.alias).encode(),
                    )
                )
        if puts:
            self.storage.write_batch(puts)
        opened.auth = learned
        if keys.key_pair is not None:
            log.key_pair = keys.key_pair
        if log.manifest is None and learned.manifest is not None:
            log.authority = Authority(log.key, learned.manifest)

    def _auth(self, core: int) -> Auth:
        value = self.storage.get(auth_key(core))
        if value is None:
            raise StoreError(f"the store is damaged: log number {core} has no keys")
        return Auth.decode(value)

    def _open(self, core: int) -> OpenLog:
        auth = self._auth(core)
        opened = OpenLog(self, core, auth, open_log(self.storage, core, memory=self._nodes))
        opened.log.on_change.append(partial(self._head_changed, opened.log))
        self.logs[auth.discovery_key] = opened
        opened.look_idle()
        self.events.publish(FeedOpened(auth.key, auth.discovery_key))
        return opened

    # What logs and connections ask

    def attach(self, log: OpenLog, *, again: bool) -> None:
        """Open channels for `log` on every connection that has none.

        Where a remote rejected it only when `again`: it opens the log itself once it has it.
        """
        for stream in tuple(self.streams.values()):
            stream.attach(log, again=again)

    def forget(self, log: OpenLog) -> None:
        """`log` was closed."""
        if self.logs.get(log.log.discovery_key) is log:
            del self.logs[log.log.discovery_key]
            self.events.publish(FeedLeft(log.log.key, log.log.discovery_key))

    def _head_changed(self, log: Log, change: LogEvent) -> None:
        """`log` has another length or fork, which is stored; other changes are nobody's concern."""
        if isinstance(change, Appended | Truncated):
            lacking = log.contiguous_length < log.length
            self.heads.publish(HeadChanged(log.key, log.fork, log.length, lacking))

    def missed(self, discovery_key: bytes, remote_key: bytes | None) -> None:
        """A remote asked for what is not here."""
        self.events.publish(FeedMissed(discovery_key, remote_key))


def _check_secret(opened: OpenLog, auth: Auth, given: bytes | None) -> None:
    """What our own blocks are encrypted under is said once: another key would hide them for ever.

    Of others' logs ciphertext is kept: who gave a wrong key to them gives the right one.
    """
    log = opened.log
    own = auth.seed is not None or log.key_pair is not None
    if not own or given is None or given == auth.encryption_key:
        return
    if auth.encryption_key is not None:
        raise UsageError(f"the log {log.key.hex()} has another encryption key")
    if log.length or opened.sessions:
        raise UsageError(f"the log {log.key.hex()} is in use without an encryption key")
