"""What the hash of a wakeup lookup means between two groups: which heads differ. Pure.

A lookup carries 32 bytes of the user's own. Here they summarise a range of keys, so that two sides
with the same heads say nothing more, and two sides that differ in a few find those by halving the
range sixteen ways: 10 of 10,000 logs cost some 300 lookups, a list of all would be 340 KB.

    offset  size  field
         0     4  tag: "cvy" and 1
         4     1  flags: 0, or one of 1 answer, 2 final, 4 anew
         5     1  depth: how many leading nibbles of the keys are fixed, 8 at most
         6     4  prefix: those nibbles, the rest of it zero
        10     4  count: logs in the range with anything in them, big endian
        14    18  digest: BLAKE2b over key (32), fork (8), length (8) of each, in order

What is announced of a range is followed by a lookup of it, so that its digest judges the announce,
which carries no forks: `answer` asks for the other side's heads of the range in return, `final` for
nothing more. Such a range is small enough to be remembered until then. `anew` asks like 0, later
than at the meeting: only of two lookups of everything that cross there one is enough.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from covey.networker.head_table import (
    DIGEST_SIZE,
    EMPTY,
    Head,
    HeadTable,
    KeyRange,
    Summary,
    digest_of,
)

TAG: Final = b"cvy\x01"
ANSWER, FINAL, ANEW = 1, 2, 4
MAX_DEPTH: Final = 8
"""Nibbles that a range can fix: there are 4 bytes for them."""
FEW: Final = 8
"""Logs of a range that are announced rather than looked through further."""
LOPSIDED: Final = 16
"""Sides whose counts differ by more than one part in so many do not look through the range."""
MOST_TOGETHER: Final = 512
"""Logs of one announce that a digest judges; a larger range is told in parts."""
_layout = struct.Struct(f">4sBBII{DIGEST_SIZE}s")


class Probe(NamedTuple):
    """A lookup of one range, with the sender's summary of it."""

    where: KeyRange
    summary: Summary
    flags: int = 0

    @property
    def is_root(self) -> bool:
        """Whether it asks for everything, at the meeting."""
        return self.where.depth == 0 and not self.flags

    @property
    def judges(self) -> bool:
        """Whether it is about what was announced just before."""
        return self.flags in (ANSWER, FINAL)

    def encode(self) -> bytes:
        """The hash of the lookup."""
        prefix = self.where.prefix << (4 * (MAX_DEPTH - self.where.depth))
        count = min(self.summary.count, (1 << 32) - 1)
        return _layout.pack(TAG, self.flags, self.where.depth, prefix, count, self.summary.digest)


def read_probe(given: bytes | None) -> Probe | None:
    """The range that a lookup means; None for a hash that is not of this kind, or none at all."""
    if given is None or len(given) != _layout.size or given[:4] != TAG:
        return None
    _, flags, depth, prefix, count, digest = _layout.unpack(given)
    if flags not in (0, ANSWER, FINAL, ANEW) or depth > MAX_DEPTH:
        return None
    spare = 4 * (MAX_DEPTH - depth)
    if prefix & ((1 << spare) - 1):
        return None
    return Probe(KeyRange(depth, prefix >> spare), Summary(count, digest), flags)


class Step(NamedTuple):
    """A lookup of a range to be sent, with the summary that it has by then."""

    where: KeyRange
    flags: int = 0

    @property
    def tells(self) -> bool:
        """Whether the heads of the range are announced first."""
        return self.flags in (ANSWER, FINAL)


def reply_to(probe: Probe, table: HeadTable) -> tuple[Step, ...]:
    """What a lookup asks of this side."""
    where, theirs = probe.where, probe.summary
    if probe.flags == FINAL:
        return ()
    mine = table.summary(where)
    if mine == theirs:
        return ()
    if not mine.count:
        return () if probe.flags == ANSWER else (Step(where, ANSWER),)
    if probe.flags == ANSWER:
        return tuple(_parts(where, table, FINAL))
    if mine.count <= FEW or where.depth == MAX_DEPTH or _lopsided(mine.count, theirs.count):
        return tuple(_parts(where, table, ANSWER if theirs.count else FINAL))
    return tuple([Step(child) for child in where.children()])


def _lopsided(mine: int, theirs: int) -> bool:
    return LOPSIDED * abs(mine - theirs) > max(mine, theirs)


def _parts(where: KeyRange, table: HeadTable, flags: int) -> list[Step]:
    """A range to be told, in parts that are judged each by itself; nothing is said of nothing."""
    count = table.count(where)
    if count == 0 and flags == FINAL:
        return []
    if count <= MOST_TOGETHER or where.depth == MAX_DEPTH:
        return [Step(where, flags)]
    return [part for child in where.children() for part in _parts(child, table, flags)]


def leaf_of(key: bytes) -> KeyRange:
    """The smallest range that a log is in: what is told and judged where it changed."""
    return KeyRange(MAX_DEPTH, int.from_bytes(key[:4], "big"))


def coarser(ranges: Iterable[KeyRange], most: int) -> list[KeyRange]:
    """At most `most` ranges with everything in them that is in `ranges`, in the order of those."""
    found = dict.fromkeys(ranges)
    while len(found) > max(1, most):
        deepest = max(where.depth for where in found)
        found = dict.fromkeys(
            KeyRange(where.depth - 1, where.prefix >> 4) if where.depth == deepest else where
            for where in found
        )
    return list(found)


class Judgement(NamedTuple):
    """What the digest after an announce gives away: logs to wake, and lookups to find more."""

    wake: tuple[bytes, ...] = ()
    steps: tuple[Step, ...] = ()


UNSUSPICIOUS: Final = Judgement()


def judge(probe: Probe, announced: Mapping[bytes, int], table: HeadTable) -> Judgement:
    """Whether the histories of a range may be others than ours, not only longer or shorter.

    `announced` are the lengths that came just before. They carry no forks: if with our forks they
    do not give the digest, then a fork differs, or some of them are not remembered. In a small
    range each of its logs may be the one; a larger one is looked through, part by part.
    """
    where, theirs = probe.where, probe.summary
    here = sorted([key for key in announced if key in where])
    told = [(key, Head((table.get(key) or EMPTY).fork, announced[key])) for key in here]
    if digest_of(told) == theirs:
        return UNSUSPICIOUS
    if where.depth == MAX_DEPTH or max(len(here), theirs.count) <= FEW:
        complete = len(here) == theirs.count
        return Judgement(tuple([key for key in here if key in table])) if complete else UNSUSPICIOUS
    if not table.summary(where).count:
        return UNSUSPICIOUS  # whatever it is, it is longer than what is here
    return Judgement((), tuple([Step(child) for child in where.children()]))
