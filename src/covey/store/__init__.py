"""Logs kept on disk or in memory, and what is kept of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from covey._lazy import lazy_names

if TYPE_CHECKING:
    from covey.store.basestore import Basestore
    from covey.store.downloads import Download, DownloadProgress
    from covey.store.extensions import Extension
    from covey.store.feed import AppendResult, Feed
    from covey.store.feed_events import FeedEvent, StoreEvent
    from covey.store.feed_peer import FeedPeer
    from covey.store.lmdb_storage import LmdbStorage
    from covey.store.memory_storage import MemoryStorage
    from covey.store.progress import FeedProgress, PeerProgress
    from covey.store.replication import Replicated, StoreStream
    from covey.store.storage import Snapshot, Storage
    from covey.store.verification import Verification, VerifyReport

_HOMES: Final = {
    "covey.store.basestore": ("Basestore",),
    "covey.store.downloads": ("Download", "DownloadProgress"),
    "covey.store.extensions": ("Extension",),
    "covey.store.feed": ("AppendResult", "Feed"),
    "covey.store.feed_events": ("FeedEvent", "StoreEvent"),
    "covey.store.feed_peer": ("FeedPeer",),
    "covey.store.lmdb_storage": ("LmdbStorage",),
    "covey.store.memory_storage": ("MemoryStorage",),
    "covey.store.progress": ("FeedProgress", "PeerProgress"),
    "covey.store.replication": ("Replicated", "StoreStream"),
    "covey.store.storage": ("Snapshot", "Storage"),
    "covey.store.verification": ("Verification", "VerifyReport"),
}

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

__all__ = [
    "AppendResult",
    "Basestore",
    "Download",
    "DownloadProgress",
    "Extension",
    "Feed",
    "FeedEvent",
    "FeedPeer",
    "FeedProgress",
    "LmdbStorage",
    "MemoryStorage",
    "PeerProgress",
    "Replicated",
    "Snapshot",
    "Storage",
    "StoreEvent",
    "StoreStream",
    "Verification",
    "VerifyReport",
]
