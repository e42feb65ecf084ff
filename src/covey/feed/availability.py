"""What one remote claims to hold of one log (`hypercore.md` section 9; hypercore 11.37.1).

Claims are hints: a false one costs a request that is answered by noData. So what is past the
bounds is not kept, and a `want` brings it back. Unlike the reference, whose claim from block 0 on
is one number beside its bits, a retracted or replaced part leaves the claims behind it standing.
"""

from __future__ import annotations

from collections.abc import Iterator

from covey.errors import ProtocolError
from covey.feed.bitfield import PAGE_BITS, WORD_BITS, BitPages
from covey.feed.messages import MAX_BITFIELD_WORDS
from covey.limits import Limits
from covey.wire.session import Buffer


class Claims(BitPages):
    """Bits of which the farthest can be forgotten."""

    __slots__ = ()

    def forget_beyond(self, pieces: int, near: int) -> None:
        """Clear whole pieces, the farthest from bit `near` first, until `pieces` are left."""
        here = near // PAGE_BITS
        while self.pieces > pieces:
            lowest, highest = self._some[0][0], self._some[-1][1] - 1
            if here - lowest > highest - here:
                full = self._full[0] if lowest in self._full else (lowest, lowest + 1)
            else:
                full = self._full[-1] if highest in self._full else (highest, highest + 1)
            self.set_range(full[0] * PAGE_BITS, full[1] * PAGE_BITS, False)


class Availability:
    """The blocks that a remote claims, by its range and bitfield messages.

    `known` is always the longer of the length the remote told and our own: claims up to
    `Limits.claims_ahead` past it are remembered, since a range comes before the sync that it
    belongs to, and the rest of a claim is left out. Memory is bounded by `Limits.max_claims`.
    """

    __slots__ = ("_claims", "_limits")

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._claims = Claims()

    def range(self, start: int, length: int, drop: bool, known: int) -> None:
        """Note a range message: `length` blocks from `start` on are held, or no longer (`drop`)."""
        end = start + length
        if drop:
            self._claims.set_range(start, end, False)
        else:
            self._claims.set_range(start, min(end, known + self._limits.claims_ahead), True)
        self._claims.forget_beyond(self._limits.max_claims, start)

    def bitfield(self, start: int, words: Buffer, known: int) -> None:
        """Note a bitfield message, the truth about its blocks whatever was claimed before.

        `ProtocolError` when `start` is not a multiple of 32 or there are more than 2^16 words.
        """
        if start % WORD_BITS:
            raise ProtocolError(f"a bitfield starts at a multiple of {WORD_BITS}, not at {start}")
        if len(words) > 4 * MAX_BITFIELD_WORDS or len(words) % 4:
            raise ProtocolError(f"a bitfield of {len(words)} bytes: not so many 32-bit words")
        end = start + 8 * len(words)
        last = known + self._limits.claims_ahead
        # Cleared to the very end: what is past `last` may stand from a time of greater lengths.
        self._claims.set_range(start, end, False)
        if start < last:
            self._claims.set_words(start, words)
            self._claims.set_range(last, end, False)
        self._claims.forget_beyond(self._limits.max_claims, start)

    def refute(self, block: int) -> None:
        """Take back the claim of one block: it was asked for and could not be had."""
        self._claims.set(block, False)

    def truncate(self, length: int) -> None:
        """Take back every claim from block `length` on."""
        self._claims.set_range(length, self._claims.end, False)

    def __contains__(self, block: int) -> bool:
        return self._claims.get(block)

    @property
    def contiguous(self) -> int:
        """How many blocks are claimed from block 0 on without a gap."""
        return self._claims.first_unset(0)

    @property
    def pieces(self) -> int:
        """What the claims take in memory, at most `Limits.max_claims`."""
        return self._claims.pieces

    def covers(self, start: int, end: int) -> bool:
        """Whether every block from `start` to before `end` is claimed."""
        return start >= end or self._claims.first_unset(start) >= end

    def count(self, start: int = 0, end: int | None = None) -> int:
        """How many blocks from `start` to before `end` are claimed."""
        return self._claims.count(start, end)

    def first_in(self, start: int, end: int, without: BitPages | None = None) -> int | None:
        """The first block from `start` to before `end` that is claimed and not in `without`.

        None when there is none. Takes time by pages of 4,096 blocks with holes, not by blocks.
        """
        if without is not None:
            return self._claims.first_without(start, end, without)
        found = self._claims.first_set(start)
        return found if found is not None and found < end else None

    def ranges(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The runs of claimed blocks between `start` and `end`, cut to them."""
        return self._claims.ranges(start, end)
