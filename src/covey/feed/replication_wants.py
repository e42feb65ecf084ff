"""What one side asks the other to tell of the blocks it holds (`hypercore.md` section 9).

Source: hypercore 11.37.1, `lib/wants.js`.
"""

from __future__ import annotations

from collections.abc import Iterator

from covey.feed.messages import Unwant, Want

WANT_BATCH = 1 << 21
"""Blocks of one want that we send, aligned; the reference answers it with one bitfield."""
MAX_WANTS = 512
"""Wants of one side of a channel: the bitfields for them have 2^30 blocks."""
MAX_WANT_LENGTHS = 4
"""Distinct lengths among the wants of a remote: each costs a look-up per announcement."""
MAX_ANY_WANTS = 16
"""Wants for any one block that a remote may have at once."""
MIN_WANT = 32
"""Blocks of the smallest want: one word of a bitfield."""


class OwnWants:
    """The batches of 2^21 blocks that one peer was asked about, at most `MAX_WANTS`."""

    __slots__ = ("batches",)

    def __init__(self) -> None:
        self.batches: dict[int, None] = {}

    def __contains__(self, batch: object) -> bool:
        return batch in self.batches

    @property
    def full(self) -> bool:
        """Whether one must be taken back before another is sent."""
        return len(self.batches) >= MAX_WANTS

    def add(self, batch: int) -> Want:
        """Note one; gives the message to send."""
        self.batches[batch] = None
        return Want(batch * WANT_BATCH, WANT_BATCH, False)

    def remove(self, batch: int) -> Unwant:
        """Forget one; gives the message to send."""
        del self.batches[batch]
        return Unwant(batch * WANT_BATCH, WANT_BATCH, False)


class RemoteWants:
    """The blocks whose arrival a remote wants to hear of, beside those that it hears of anyway.

    What is beyond the bounds, or has a shape of its own, counts as wanting everything: that costs
    messages, never memory.
    """

    __slots__ = ("_any", "_count", "_starts", "everything")

    def __init__(self) -> None:
        self.everything = False
        self._starts: dict[int, set[int]] = {}
        self._any: dict[tuple[int, int], None] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count + len(self._any)

    def __iter__(self) -> Iterator[Want]:
        """Those that are noted; what a remote that wants everything wants is not known."""
        for length, starts in self._starts.items():
            yield from (Want(start, length, False) for start in starts)
        yield from (Want(start, length, True) for start, length in self._any)

    def add(self, want: Want) -> bool:
        """Note one; whether it is to be answered: not when it is longer than 2^21 blocks."""
        start, length, any_ = want
        if any_:
            if (start, length) not in self._any and len(self._any) >= MAX_ANY_WANTS:
                self._want_everything()
            if not self.everything:
                self._any[start, length] = None
            return length > 0
        if length > WANT_BATCH:
            return False
        if length < MIN_WANT or length & (length - 1) or start % length:
            self._want_everything()
        if not self.everything:
            self._insert(start, length)
        return length > 0

    def remove(self, unwant: Unwant) -> None:
        """Forget one; unknown ones are ignored."""
        start, length, any_ = unwant
        if any_:
            self._any.pop((start, length), None)
            return
        starts = self._starts.get(length)
        if starts is not None and start in starts:
            starts.remove(start)
            self._count -= 1
            if not starts:
                del self._starts[length]

    def touches(self, start: int, end: int) -> bool:
        """Whether any block from `start` to before `end` is wanted."""
        if self.everything:
            return True
        for length, starts in self._starts.items():
            first = start - start % length
            if (end - first) // length > len(starts):
                if any(begin < end and start < begin + length for begin in starts):
                    return True
            elif any(begin in starts for begin in range(first, end, length)):
                return True
        return any(begin < end and start < begin + length for begin, length in self._any)

    def _insert(self, start: int, length: int) -> None:
        starts = self._starts.get(length)
        if starts is None:
            if len(self._starts) >= MAX_WANT_LENGTHS:
                self._want_everything()
                return
            starts = self._starts[length] = set()
        if start not in starts:
            if self._count >= MAX_WANTS:
                self._want_everything()
                return
            starts.add(start)
            self._count += 1

    def _want_everything(self) -> None:
        self.everything = True
        self._starts.clear()
        self._any.clear()
        self._count = 0
