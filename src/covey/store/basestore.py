"""Many logs under one secret key, in one directory or in memory, exchanged with whoever connects.

Source: corestore 7.9.2, `index.js`; its names, in Python's spelling (`corestore.md` section 3).
"""

from __future__ import annotations

import asyncio
import builtins
import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Self

from covey.closing import Closing
from covey.errors import ClosedError, StoreError, UsageError
from covey.events import Subscription, check_callback
from covey.feed.manifest import MAX_VERSION, Manifest, check_manifest, default_manifest
from covey.keys import KEY_SIZE, KeyPair
from covey.limits import Limits
from covey.store.clock import Chance, Clock
from covey.store.derivation import ROOT_NAMESPACE, key_pair_of, namespace_of
from covey.store.feed import Feed
from covey.store.feed_events import FeedOpened, HeadChanged, StoredHead, StoreEvent
from covey.store.feed_session import FeedSession, Options, check_timeout
from covey.store.records import Alias
from covey.store.replication import Replicated, StoreStream
from covey.store.storage import Storage
from covey.store.store_root import Keys, Settings, StoreRoot

if TYPE_CHECKING:
    from types import TracebackType

    from covey.store.open_log import OpenLog

HEADS_AT_ONCE: Final = 512
"""Heads that are read in one turn of the event loop: some milliseconds."""


class Basestore:
    """A store of logs, or a view of one. An async context manager; opened when it is first used.

    Without `path` everything is in memory. `primary_key`, 32 secret bytes, is what all own logs
    come from: a new store makes one when none is given. `writable=False` gives out sessions that
    only read, `active=False` sessions that ask no peer for anything by themselves. `clock` and
    `chance` replace the event loop's time and `random` for tests.

    A directory belongs to one process at a time. Calls raise `StoreError` when it is in use,
    damaged, or has another primary key than the one given, and `ClosedError` after `close`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        primary_key: bytes | None = None,
        manifest_version: int = 1,
        writable: bool = True,
        active: bool = True,
        limits: Limits | None = None,
        storage: Storage | None = None,
        clock: Clock | None = None,
        chance: Chance | None = None,
    ) -> None:
        if manifest_version not in range(1, MAX_VERSION + 1):
            raise UsageError(f"new logs have manifests of version 1 to 3, not {manifest_version!r}")
        if path is not None and not isinstance(path, str | os.PathLike):
            raise UsageError(f"a store is in a directory, whose path is text, not {path!r}")
        if primary_key is not None and not _is_key(primary_key):
            raise UsageError(f"a primary key is {KEY_SIZE} bytes")
        if path is not None and storage is not None:
            raise UsageError("a store is in a directory or in a given storage, not in both")
        settings = Settings(path, primary_key, manifest_version, limits or Limits())
        root = StoreRoot(settings, storage=storage, clock=clock, chance=chance)
        self._init(root, ROOT_NAMESPACE, writable=writable, active=active, parent=None)

    def _init(
        self,
        root: StoreRoot,
        namespace: bytes,
        *,
        writable: bool,
        active: bool,
        parent: Basestore | None,
    ) -> None:
        self._root = root
        self._namespace = namespace
        self._writable = writable
        self._active = active
        self._parent = parent
        self._feeds: dict[FeedSession, None] = {}
        self._views: dict[Basestore, None] = {}
        self._closed = False
        self._closing = Closing()

    def __repr__(self) -> str:
        where = "memory" if self.path is None else os.fspath(self.path)
        state = "closed" if self.closed else f"{len(self._root.logs)} open"
        return f"<Basestore {where}, {state}>"

    # What it is

    @property
    def path(self) -> str | os.PathLike[str] | None:
        """The directory; None for memory."""
        return self._root.settings.path

    @property
    def primary_key(self) -> bytes:
        """The 32 secret bytes that all own logs come from: what to back up."""
        return self._root.head.primary_key

    @property
    def namespace_key(self) -> bytes:
        """The 32 bytes that names of this view are derived with."""
        return self._namespace

    @property
    def closed(self) -> bool:
        """Whether this view, or the whole store, is closed."""
        return self._closed or self._root.closed

    @property
    def streams(self) -> builtins.list[StoreStream]:
        """The connections over which the store is exchanged now."""
        return list(self._root.streams.values())

    # Logs

    async def get(
        self,
        name: str | bytes | None = None,
        *,
        key: bytes | None = None,
        key_pair: KeyPair | None = None,
        manifest: Manifest | None = None,
        discovery_key: bytes | None = None,
        writable: bool = True,
        active: bool | None = None,
        snapshot: bool = False,
        encryption_key: bytes | None = None,
        timeout: float | None = None,
        linger: bool = True,
    ) -> Feed:
        """A session of one log, which is made when it is not here.

        By `name` an own one, whose key comes from the primary key, this view's namespace and the
        name; a name that is known keeps its log. By `key` (also as the one positional argument)
        anybody's; by `key_pair` or `manifest` whatever follows from those. By `discovery_key` only
        one that is stored, else `StoreError`.

        `active`: have peers asked for it, as the store does when nothing is said. `snapshot`: one
        whose length stays. `encryption_key`: 32 secret bytes under which blocks are encrypted, kept
        with the log: of an own one for good, of another's until one is given again. `timeout`: of
        its reads, in seconds. `linger`: the log stays wanted for a while when this was its last
        session. Raises `UsageError` when the arguments do not fit together.
        """
        self._check_open()
        name, key = _name_or_key(name, key)
        _check_kinds(discovery_key, encryption_key, key_pair, manifest)
        check_timeout(timeout)
        given = key is not None or key_pair is not None or manifest is not None
        if bool(name) + given + (discovery_key is not None) > 1:
            raise UsageError("a log is got by its name, by its keys or by its discovery key")
        if discovery_key is not None:
            opened = self._find_stored(discovery_key, encryption_key)
        elif name:
            opened = self._find_named(name, encryption_key)
        else:
            opened = self._root.obtain(self._keys(key, key_pair, manifest, encryption_key))
        options = Options(
            writable=writable and self._writable,
            active=self._active if active is None else active,
            snapshot=snapshot,
            encryption_key=encryption_key or opened.auth.encryption_key,
            timeout=timeout,
            linger=linger,
        )
        return self.new_session(opened, options)

    def _find_stored(self, discovery_key: bytes, encryption_key: bytes | None) -> OpenLog:
        opened = self._root.find(discovery_key)
        if opened is None:
            raise StoreError(f"no log with discovery key {discovery_key.hex()} is stored here")
        if encryption_key is not None:
            self._root.obtain(Keys(opened.log.key, encryption_key=encryption_key))
        return opened

    def _find_named(self, name: str, encryption_key: bytes | None) -> OpenLog:
        alias = Alias(self._namespace, name)
        opened = self._root.find_named(alias)
        if opened is not None:
            return self._find_stored(opened.log.discovery_key, encryption_key)
        pair = self.create_key_pair(name)
        manifest = default_manifest(pair.public_key, version=self._root.settings.manifest_version)
        return self._root.obtain(Keys(manifest.key, manifest, pair, alias, encryption_key))

    def _keys(
        self,
        key: bytes | None,
        key_pair: KeyPair | None,
        manifest: Manifest | None,
        encryption_key: bytes | None,
    ) -> Keys:
        if key is not None and (not isinstance(key, bytes) or len(key) != KEY_SIZE):
            raise UsageError(f"the key of a log is {KEY_SIZE} bytes")
        if manifest is None and key_pair is not None:
            manifest = self._manifest_of(key_pair, key)
        signers = () if manifest is None else manifest.signers
        if key_pair is not None and key_pair.public_key not in {s.public_key for s in signers}:
            raise UsageError("this key pair is none of the signers in the manifest")
        if key is None:
            if manifest is None:
                raise UsageError("which log: a name, a key, a key pair, a manifest?")
            key = manifest.key
        elif manifest is not None:
            check_manifest(manifest, key)
        return Keys(key, manifest, key_pair, None, encryption_key)

    def _manifest_of(self, key_pair: KeyPair, key: bytes | None) -> Manifest:
        """The manifest by which `key_pair` alone signs the log `key`, if there is one."""
        version = self._root.settings.manifest_version
        made = default_manifest(key_pair.public_key, version=version)
        if key is None or key in (made.key, key_pair.public_key):
            return made
        for other in range(MAX_VERSION + 1):
            made = default_manifest(key_pair.public_key, version=other)
            if made.key == key:
                return made
        raise UsageError(
            f"this key pair does not sign the log {key.hex()} alone: give its manifest"
        )

    def create_key_pair(self, name: str) -> KeyPair:
        """The key pair that a log called `name` in this view has; no log is made."""
        self._check_open()
        return key_pair_of(self.primary_key, self._namespace, name)

    async def list(self, namespace: bytes | None = None) -> builtins.list[bytes]:
        """The discovery keys of all stored logs, or of those with a name in `namespace`."""
        self._check_open()
        return self._root.discovery_keys(namespace)

    async def names(self) -> dict[str, bytes]:
        """The logs that have a name in this view's namespace: their discovery keys by name."""
        self._check_open()
        found = {}
        for discovery_key in self._root.discovery_keys(self._namespace):
            record = self._root.record(discovery_key)
            if record is not None and record.alias is not None:
                found[record.alias.name] = discovery_key
        return found

    async def heads(self, keys: Iterable[bytes]) -> dict[bytes, StoredHead]:
        """Fork and length of the logs with these keys, and whether blocks of them are lacking.

        None is opened; one that is not here is empty. What was cleared is lacking too.

        `UsageError` for what is no key, `StoreError` where a record is damaged.
        """
        wanted = [*dict.fromkeys(keys)]
        if not all(map(_is_key, wanted)):
            raise UsageError(f"the key of a log is {KEY_SIZE} bytes")
        found: dict[bytes, StoredHead] = {}
        for start in range(0, len(wanted), HEADS_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            self._check_open()
            some = wanted[start : start + HEADS_AT_ONCE]
            found.update(zip(some, self._root.stored_heads(some), strict=True))
        return found

    def watch_heads(self, callback: Callable[[HeadChanged], object]) -> Callable[[], None]:
        """Call `callback` when a log that is open has another head; returns what stops that.

        By a write here or one that was replicated; it is stored by then.
        """
        self._check_open()
        return self._root.heads.subscribe(callback)

    # Views

    def namespace(self, name: str) -> Basestore:
        """A view of the same store in which names mean other logs; closed on its own."""
        return self._view(namespace_of(self._namespace, name))

    def session(self) -> Basestore:
        """A view with the same names; closed on its own."""
        return self._view(self._namespace)

    def _view(self, namespace: bytes) -> Basestore:
        self._check_open()
        view = Basestore.__new__(type(self))
        view._init(self._root, namespace, writable=self._writable, active=self._active, parent=self)
        self._views[view] = None
        return view

    # Exchange

    def replicate(self, connection: Replicated) -> StoreStream:
        """Exchange all logs of the store over `connection`, both ways, as long as it lives.

        Every log that is wanted here is asked for; what the remote asks for by its key is served,
        from disk too. Doing it again for the same connection gives the same stream. Raises
        `UsageError` for a connection without a proven handshake.
        """
        self._check_open()
        self._root.open()
        known = self._root.streams.get(connection)
        return known if known is not None else StoreStream(self._root, connection)

    # Events

    def watch(self, callback: Callable[[FeedOpened], object]) -> Callable[[], None]:
        """Call `callback` for every log that is opened from now on; returns what stops that."""
        self._check_open()
        check_callback(callback)

        def heard(event: StoreEvent) -> None:
            if isinstance(event, FeedOpened):
                callback(event)

        return self._root.events.subscribe(heard)

    def listen(self, *, backlog: int | None = None) -> Subscription[StoreEvent]:
        """Logs opened, closed and asked for in vain, from now on; ends with the store."""
        self._check_open()
        return self._root.events.listen(backlog=backlog)

    # Sessions and the end

    def new_session(self, opened: OpenLog, options: Options) -> Feed:
        """A session of an open log. For feeds."""
        self._check_open()
        if options.active and opened.log.frozen:
            options = replace(options, active=False)
        feed = Feed(opened, self, options)
        self._feeds[feed] = None
        return feed

    def session_closed(self, feed: FeedSession) -> None:
        """`feed` is closed. For feeds."""
        self._feeds.pop(feed, None)

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError("this store is closed")

    async def close(self) -> None:
        """Close the feeds that were got here and the views; the store itself, when this is it.

        Connections stay open, only the channels on them are closed. Twice is fine.
        """
        await self._closing.run(self._close, f"close {self!r}")

    async def _close(self) -> None:
        self._closed = True
        for view in tuple(self._views):
            await view.close()
        for feed in tuple(self._feeds):
            await feed.close()
        if self._parent is None:
            await self._root.close()
        else:
            self._parent._views.pop(self, None)

    async def __aenter__(self) -> Self:
        self._check_open()
        self._root.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _name_or_key(name: str | bytes | None, key: bytes | None) -> tuple[str | None, bytes | None]:
    """The name and the key, of which the key may stand in the place of the name."""
    if not isinstance(name, bytes):
        return name, key
    if key is not None:
        raise UsageError("one key at a time")
    return None, name


def _check_kinds(
    discovery_key: object, encryption_key: object, key_pair: object, manifest: object
) -> None:
    """`UsageError` for what can be none of these, before anything is made or looked for."""
    if discovery_key is not None and not _is_key(discovery_key):
        raise UsageError(f"a discovery key is {KEY_SIZE} bytes")
    if encryption_key is not None and not _is_key(encryption_key):
        raise UsageError(f"an encryption key is {KEY_SIZE} bytes")
    if key_pair is not None and not isinstance(key_pair, KeyPair):
        raise UsageError(f"a key pair is a KeyPair, not {type(key_pair).__name__}")
    if manifest is not None and not isinstance(manifest, Manifest):
        raise UsageError(f"a manifest is a Manifest, not {type(manifest).__name__}")


def _is_key(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == KEY_SIZE
