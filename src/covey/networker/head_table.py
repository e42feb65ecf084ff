"""The heads of a group's logs, in the order of their keys: what two sides compare. Pure.

Keys stand in one sorted list and lengths beside them in an array, so that a log costs its key and
16 bytes; forks are kept apart, as hardly any log has one.
"""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from covey.errors import UsageError
from covey.keys import KEY_SIZE

DIGEST_SIZE: Final = 18
"""Bytes of the digest of a range."""
_UNKNOWN: Final = (1 << 64) - 1
_item = struct.Struct(">32sQQ").pack


class Head(NamedTuple):
    """Where a log stands: how often its history was rewritten, and its blocks."""

    fork: int
    length: int


EMPTY: Final = Head(0, 0)
"""The head of a log of which nothing is here."""


@dataclass(frozen=True, slots=True)
class KeyRange:
    """All keys whose first `depth` nibbles are those of `prefix`, a number of 4 * `depth` bits."""

    depth: int
    prefix: int

    @property
    def first(self) -> bytes:
        """The smallest key in it."""
        return (self.prefix << (256 - 4 * self.depth)).to_bytes(KEY_SIZE, "big")

    @property
    def after(self) -> bytes | None:
        """The smallest key beyond it; None when there is none."""
        following = self.prefix + 1
        if following >> (4 * self.depth):
            return None
        return (following << (256 - 4 * self.depth)).to_bytes(KEY_SIZE, "big")

    def children(self) -> list[KeyRange]:
        """The 16 ranges that are one nibble longer."""
        return [KeyRange(self.depth + 1, self.prefix << 4 | nibble) for nibble in range(16)]

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, bytes):
            return False
        return int.from_bytes(key[:8], "big") >> (64 - 4 * self.depth) == self.prefix


ROOT: Final = KeyRange(0, 0)
"""All keys."""


@dataclass(frozen=True, slots=True)
class Summary:
    """A range of one side: how many logs with anything in them, and the digest of their heads."""

    count: int
    digest: bytes


def digest_of(items: Iterable[tuple[bytes, Head]]) -> Summary:
    """The summary of these logs, which are in the order of their keys; empty ones do not count."""
    packed = [_item(key, head.fork, head.length) for key, head in items if head.length]
    return Summary(len(packed), blake2b(b"".join(packed), digest_size=DIGEST_SIZE).digest())


class HeadTable:
    """The logs of one group and their heads; a head is unknown (None) until it was set.

    `revision` changes with every head that another side could see.
    """

    __slots__ = ("_forks", "_keys", "_lengths", "_root", "revision")

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._lengths = array("Q")
        self._forks: dict[bytes, int] = {}
        self._root: Summary | None = None
        self.revision = 0

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[bytes]:
        return iter(tuple(self._keys))

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self._find(key) is not None

    def add(self, keys: Iterable[bytes]) -> list[bytes]:
        """Take logs in whose heads are not known yet; gives those that are new, in order.

        `UsageError` for a key that is not 32 bytes; then none is taken in.
        """
        wanted = set(keys)
        for key in wanted:
            if not isinstance(key, bytes) or len(key) != KEY_SIZE:
                raise UsageError(f"the key of a log is {KEY_SIZE} bytes")
        fresh = sorted([key for key in wanted if self._find(key) is None])
        if len(fresh) < 64:
            for key in fresh:
                at = bisect_left(self._keys, key)
                self._keys.insert(at, key)
                self._lengths.insert(at, _UNKNOWN)
        else:
            self._merge(fresh)
        return fresh

    def discard(self, key: bytes) -> bool:
        """Leave a log out; False when it is not in."""
        at = self._find(key)
        if at is None:
            return False
        del self._keys[at]
        length = self._lengths.pop(at)
        if self._forks.pop(key, 0) or length not in (0, _UNKNOWN):
            self._changed()
        return True

    def get(self, key: bytes) -> Head | None:
        """The head of a log; None while it is unknown, and for one that is not in."""
        at = self._find(key)
        if at is None or self._lengths[at] == _UNKNOWN:
            return None
        return Head(self._forks.get(key, 0), self._lengths[at])

    def set(self, key: bytes, head: Head) -> bool:
        """Note the head of a log; whether it is another one than before. One not in is left out."""
        at = self._find(key)
        if at is None:
            return False
        before = self._lengths[at], self._forks.get(key, 0)
        if before == (head.length, head.fork):
            return False
        self._lengths[at] = head.length
        if head.fork:
            self._forks[key] = head.fork
        else:
            self._forks.pop(key, None)
        if before[0] != _UNKNOWN or head != EMPTY:
            self._changed()
        return before[0] != _UNKNOWN or head != EMPTY

    def count(self, where: KeyRange) -> int:
        """How many logs are in a range, also empty and unknown ones: what looking at it costs."""
        start, stop = self._span(where)
        return stop - start

    def items(self, where: KeyRange = ROOT) -> list[tuple[bytes, Head]]:
        """The logs of a range that are known and not empty, in the order of their keys."""
        start, stop = self._span(where)
        forks = self._forks
        pairs = zip(self._keys[start:stop], self._lengths[start:stop], strict=True)
        return [
            (key, Head(forks.get(key, 0) if forks else 0, length))
            for key, length in pairs
            if length not in (0, _UNKNOWN)
        ]

    def summary(self, where: KeyRange = ROOT) -> Summary:
        """Count and digest of a range; that of the whole is kept until a head changes."""
        if where != ROOT:
            return digest_of(self.items(where))
        if self._root is None:
            self._root = digest_of(self.items())
        return self._root

    def _changed(self) -> None:
        self._root = None
        self.revision += 1

    def _find(self, key: bytes) -> int | None:
        at = bisect_left(self._keys, key)
        return at if at < len(self._keys) and self._keys[at] == key else None

    def _span(self, where: KeyRange) -> tuple[int, int]:
        if where.depth == 0:
            return 0, len(self._keys)
        after = where.after
        stop = len(self._keys) if after is None else bisect_left(self._keys, after)
        return bisect_left(self._keys, where.first), stop

    def _merge(self, fresh: list[bytes]) -> None:
        known = dict(zip(self._keys, self._lengths, strict=True))
        known.update(dict.fromkeys(fresh, _UNKNOWN))
        self._keys = sorted(known)
        self._lengths = array("Q", [known[key] for key in self._keys])
