"""The one interface through which a store keeps its records: an ordered map from bytes to bytes.

Keys live in one space, ordered byte by byte; the first byte is the kind of the record. Which keys
and values there are is said in `covey.store.records`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from types import TracebackType
from typing import Final, Protocol, Self, TypeAlias, runtime_checkable

from covey.errors import UsageError
from covey.wire.session import Buffer

Put: TypeAlias = tuple[bytes, Buffer]
"""A key and the value it gets."""
Item: TypeAlias = tuple[bytes, bytes]
"""A key and its value."""
KeyRange: TypeAlias = tuple[bytes, bytes]
"""Every key from the first on and before the second."""


class Kind(IntEnum):
    """What a record is: the first byte of its key. Numbers are on disk: add, never change."""

    STORE = 0
    CORE = 1
    ALIAS = 2
    AUTH = 3
    HEAD = 4
    HINTS = 5
    BLOCK = 6
    NODE = 7
    BITS = 8
    USER_DATA = 9


MAX_KEY: Final = 512
"""Bytes of a key with its kind: LMDB takes 511 without."""


class Reader(Protocol):
    """What can be read, of a store or of a snapshot of it."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None. Raises as `Storage` says."""
        ...

    def get_many(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """The values of `keys` in their order, all of one state."""
        ...

    def range(
        self, start: bytes, end: bytes, *, reverse: bool = False, limit: int | None = None
    ) -> Iterator[Item]:
        """The items whose keys are `start` or after and before `end`, in order of their keys.

        `reverse`: the last one first. `limit`: so many at most. A store that is written to
        meanwhile shows items ahead as they are when the reading reaches them, each batch possibly
        in part; a snapshot does not change.
        """
        ...


@runtime_checkable
class Snapshot(Reader, Protocol):
    """One state of a store, whatever is written afterwards.

    It holds on to space of the store until it is closed. Where a store on disk has to grow its map,
    a snapshot of an earlier state than the present one ends: its reads then raise `StoreError`.
    """

    def close(self) -> None:
        """Let go of the state; twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class Storage(Reader, Protocol):
    """An ordered map with atomic batches. Calls may come from any thread of the process.

    All calls raise `ClosedError` after `close`; `StoreError` when the storage fails: it is full or
    damaged, or this is a forked child of the process that opened it; `UsageError` for a key that
    none can be: of no `Kind`, of less than 2 bytes or more than `MAX_KEY`.
    """

    def write_batch(
        self,
        puts: Iterable[Put],
        deletes: Iterable[bytes] = (),
        range_deletes: Iterable[KeyRange] = (),
    ) -> None:
        """Do all of it or, when this raises, nothing. It is durable when this returns.

        First the ranges go, then the single keys (one that is not there is fine), then the puts
        come; of two puts of one key the later one counts.
        """
        ...

    def snapshot(self) -> Snapshot:
        """The present state, to be closed by the caller."""
        ...

    def close(self) -> None:
        """End all use, of snapshots too; twice is fine."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def check_key(key: bytes) -> None:
    """`UsageError` unless `key` can be one."""
    if not isinstance(key, bytes):
        raise UsageError(f"a key is bytes, not {type(key).__name__}")
    if not 2 <= len(key) <= MAX_KEY:
        raise UsageError(f"a key has 2 to {MAX_KEY} bytes, not {len(key)}")
    if key[0] >= len(Kind):
        raise UsageError(f"a key starts with its kind, which is never {key[0]}")


def check_bounds(start: bytes, end: bytes, limit: int | None = None) -> None:
    """`UsageError` unless these can be the arguments of `range`."""
    if not isinstance(start, bytes) or not isinstance(end, bytes):
        raise UsageError("a range goes from bytes to bytes")
    if limit is not None and limit < 0:
        raise UsageError(f"a limit is 0 or more, not {limit}")


def spans(start: bytes, end: bytes) -> Sequence[tuple[int, bytes, bytes | None]]:
    """A range of keys as one span per kind: the kind, then the bounds without the kind's byte.

    An upper bound of None is the end of the kind.
    """
    found: list[tuple[int, bytes, bytes | None]] = []
    for kind in range(start[0] if start else 0, len(Kind)):
        prefix = bytes((kind,))
        if end <= prefix:
            break
        low = start[1:] if start[:1] == prefix else b""
        high = end[1:] if end[:1] == prefix else None
        if high is None or low < high:
            found.append((kind, low, high))
    return found
