"""What a change of the log means for its replication."""

from __future__ import annotations

from typing import TYPE_CHECKING

from covey.errors import StoreError
from covey.feed.log_events import (
    Appended,
    Cleared,
    Dropped,
    LogEvent,
    ManifestLearned,
    Stored,
    Truncated,
)
from covey.feed.replication_events import Downloaded

if TYPE_CHECKING:
    from covey.feed.replicator import Replicator


class LogWatch:
    """Hears every change of a log, once it is stored, and has peers and tickets follow."""

    def __init__(self, replicator: Replicator) -> None:
        self._replicator = replicator
        self._log = replicator.log
        self._downloads = replicator.downloads
        self._announcer = replicator.announcer

    def changed(self, event: LogEvent) -> None:
        """The log tells what is stored now."""
        match event:
            case Stored(blocks):
                self._on_stored(blocks)
            case Appended(length, _, start):
                self._announcer.appended(start, length)
                self._downloads.pool.held(start, length)
                self._downloads.pool.head_grew()
                self._head_changed()
                for peer in self._replicator.peers:
                    self._replicator.conversation.note_contiguous(peer)
            case Truncated(length, _, old_length):
                self._downloads.recall_all()
                self._downloads.pool.gone(length, old_length)
                if length < old_length:
                    self._announcer.dropped(length, old_length)
                self._head_changed()
            case Cleared(start, end, held, nodes):
                self._downloads.pool.let_go(held)
                if nodes:
                    self._downloads.recall_all(nodes)
                    self._announcer.nodes_went()
                self._announcer.dropped(start, end)
                self._replicator.stir()
            case Dropped(blocks):
                self._downloads.recall_all()
                self._downloads.pool.lost(blocks)
                self._announcer.nodes_went()
                self._replicator.stir()
            case ManifestLearned():
                self._announcer.sync_all()

    def _head_changed(self) -> None:
        self._announcer.head_changed()
        self._downloads.seeks.look_again()
        self._replicator.updates.head_changed()
        self._replicator.stir()

    def _read(self, index: int) -> bytes | StoreError | None:
        """A block for those who wait for it, or why it cannot be read."""
        try:
            return self._log.block(index)
        except StoreError as error:
            return error

    def _on_stored(self, blocks: list[int]) -> None:
        """Blocks are held: tell the peers, and who waits for them."""
        pool = self._downloads.pool
        self._announcer.stored(blocks)
        self._announcer.proves_more()
        listened = bool(self._replicator.on_event)
        for index in blocks:
            arrived = pool.arrived.pop(index, None)
            if arrived is None:
                pool.held(index, index + 1)
                pool.cancel(index)
            elif listened:
                self._replicator.publish(Downloaded(arrived[0], index, len(arrived[1])))
            if pool.works:
                work = pool.works.pop(index, None)
                if work is not None:
                    pool.awaited.discard(index)
                    value = self._read(index) if arrived is None else arrived[1]
                    for ticket in work.tickets:
                        ticket.finish(value)
        for wanted in pool.ranges_touched(blocks):
            self._replicator.settle_range(wanted)
        if len(self._downloads.seeks):
            self._downloads.seeks.look_again()
        if not self._replicator.active:
            self._replicator.stir()
