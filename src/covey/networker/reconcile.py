"""What the hash of a wakeup lookup means between two groups: which heads differ. Pure.

A lookup carries 32 bytes of the user's own. Here they summarise a range of keys, so that two sides
with the same heads say nothing more, and two sides that differ in a few find those by halving the
range sixteen ways: 10 of 10,000 logs cost some 300 lookups, a list of all would be 340 KB.

    offset  size  field
         0     4  tag: "cvy" and 1
         4     1  flags: bit 0 answer, bit 1 final
         5     1  depth: how many leading nibbles of the keys are fixed, 8 at most
         6     4  prefix: those nibbles, the rest of it zero
        10     4  count: logs in the range with anything in them, big endian
        14    18  digest: BLAKE2b over key (32), fork (8), length (8) of each, in order

Whatever was announced of a range is followed by a lookup of it, so that its digest judges the
announce, which carries no forks: `answer` asks for the other side's heads of the range in return,
`final` for nothing more.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
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
ANSWER, FINAL = 1, 2
MAX_DEPTH: Final = 8
"""Nibbles that a range can fix: there are 4 bytes for them."""
FEW: Final = 8
"""Logs of a range that are announced rather than looked through further."""
LOPSIDED: Final = 16
"""Sides whose counts differ by more than one part in so many do not look through the range."""
_layout = struct.Struct(f">4sBBII{DIGEST_SIZE}s")


class Probe(NamedTuple):
    """A lookup of one range, with the sender's summary of it."""

    where: KeyRange
    summary: Summary
    flags: int = 0

    @property
    def is_root(self) -> bool:
        """Whether it asks for everything, to begin with."""
        return self.where.depth == 0 and not self.flags

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
    if flags not in (0, ANSWER, FINAL) or depth > MAX_DEPTH:
        return None
    spare = 4 * (MAX_DEPTH - depth)
    if prefix & ((1 << spare) - 1):
        return None
    return Probe(KeyRange(depth, prefix >> spare), Summary(count, digest), flags)


class Reply(NamedTuple):
    """What to do about a lookup: heads of a range to announce, then lookups to send."""

    announce: KeyRange | None = None
    probes: tuple[Probe, ...] = ()


NOTHING: Final = Reply()


def reply_to(probe: Probe, table: HeadTable) -> Reply:
    """What a lookup asks of this side."""
    where, theirs = probe.where, probe.summary
    if probe.flags == FINAL:
        return NOTHING
    mine = table.summary(where)
    if mine == theirs:
        return NOTHING
    if probe.flags == ANSWER:
        return Reply(where, (Probe(where, mine, FINAL),)) if mine.count else NOTHING
    if mine.count <= FEW or where.depth == MAX_DEPTH or _lopsided(mine.count, theirs.count):
        answer = (Probe(where, mine, ANSWER),) if theirs.count else ()
        return Reply(where if mine.count else None, answer)
    return Reply(None, tuple(Probe(child, table.summary(child)) for child in where.children()))


def _lopsided(mine: int, theirs: int) -> bool:
    return LOPSIDED * abs(mine - theirs) > max(mine, theirs)


def leaf_of(key: bytes, table: HeadTable) -> Probe:
    """What follows the announce of a log whose fork changed: its own small range, judged only."""
    where = KeyRange(MAX_DEPTH, int.from_bytes(key[:4], "big"))
    return Probe(where, table.summary(where), FINAL)


class Judgement(NamedTuple):
    """What the digest after an announce gives away: logs to wake, and lookups to find more."""

    wake: tuple[bytes, ...] = ()
    probes: tuple[Probe, ...] = ()


UNSUSPICIOUS: Final = Judgement()


def judge(probe: Probe, announced: Mapping[bytes, int], table: HeadTable) -> Judgement:
    """Whether the histories of a range may be others than ours, not only longer or shorter.

    `announced` are the lengths that came just before. They carry no forks: if with our forks they
    do not give the digest, then a fork differs. In a small range each of its logs may be the one;
    a larger one is looked through further, by the side that was to answer.
    """
    where, theirs = probe.where, probe.summary
    here = sorted([key for key in announced if key in where])
    if len(here) != theirs.count:
        return UNSUSPICIOUS  # some of it is not remembered any more: nothing follows
    told = [(key, Head((table.get(key) or EMPTY).fork, announced[key])) for key in here]
    if digest_of(told) == theirs:
        return UNSUSPICIOUS
    if len(here) <= FEW or where.depth == MAX_DEPTH:
        return Judgement(tuple([key for key in here if key in table][:FEW]))
    if probe.flags != ANSWER:
        return UNSUSPICIOUS
    return Judgement((), tuple(Probe(child, table.summary(child)) for child in where.children()))
