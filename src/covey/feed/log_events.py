"""What a log tells after a change: by then it is stored, and the log shows it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from covey.errors import CoveyError
from covey.feed.manifest import Manifest

_log = logging.getLogger("covey.feed.log")


class Appended(NamedTuple):
    """The log grew from `start` to `length` blocks, by us or by an upgrade."""

    length: int
    fork: int
    start: int


class Truncated(NamedTuple):
    """Blocks from `length` to `old_length` are no longer part of the log, `fork` is the new one."""

    length: int
    fork: int
    old_length: int


class Stored(NamedTuple):
    """These blocks are held now, in order of their numbers; they were not before."""

    blocks: list[int]


class Cleared(NamedTuple):
    """Blocks from `start` to before `end` are not held any more.

    `held` are the ranges of those that were, `nodes` those of the nodes that went with them.
    """

    start: int
    end: int
    held: Sequence[tuple[int, int]] = ()
    nodes: Sequence[tuple[int, int]] = ()


class Dropped(NamedTuple):
    """These blocks were accepted but could not be stored: they have to be fetched again."""

    blocks: list[int]
    error: CoveyError


class ManifestLearned(NamedTuple):
    """A peer told who may sign."""

    manifest: Manifest


class Frozen(NamedTuple):
    """Two signed trees of this length and fork exclude each other: the log takes no more writes."""

    length: int
    fork: int


LogEvent = Appended | Truncated | Stored | Cleared | Dropped | ManifestLearned | Frozen
Listener = Callable[[LogEvent], None]


class Teller:
    """Tells events to callbacks in the order in which they happened, one after the other.

    What a callback itself makes happen is told when all have heard what came before.
    """

    __slots__ = ("_busy", "_queue", "listeners")

    def __init__(self) -> None:
        self.listeners: list[Listener] = []
        self._queue: deque[LogEvent] = deque()
        self._busy = False

    def tell(self, *events: LogEvent) -> None:
        """Tell everybody. A callback that raises is logged: the change has happened."""
        self._queue.extend(events)
        if self._busy:
            return
        self._busy = True
        try:
            while self._queue:
                self._tell_one(self._queue.popleft())
        finally:
            self._busy = False

    def _tell_one(self, event: LogEvent) -> None:
        for listener in list(self.listeners):
            try:
                listener(event)
            except Exception:  # noqa: BLE001  the edge of a user callback
                _log.exception("a listener of a log failed on %s", type(event).__name__)
