"""Sets of numbers kept as ranges: what is wide costs no more than what is narrow."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator


class Intervals:
    """Whole numbers as sorted ranges that neither overlap nor touch; a range excludes its end.

    Every query takes the logarithm of the number of ranges, unless it says more. How many ranges
    there may be is the caller's to bound: `len` tells. A range whose end is not above its start is
    empty, and adding or removing it does nothing.
    """

    __slots__ = ("_bounds",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        # Start, end, start, end...: an odd place in this list is inside a range.
        self._bounds: list[int] = []
        for start, end in ranges:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Put in every number from `start` to before `end`."""
        if start >= end:
            return
        bounds = self._bounds
        left = bisect_left(bounds, start)
        right = bisect_right(bounds, end, left)
        ends = [] if left & 1 else [start]
        if not right & 1:
            ends.append(end)
        bounds[left:right] = ends

    def remove(self, start: int, end: int) -> None:
        """Take out every number from `start` to before `end`."""
        if start >= end:
            return
        bounds = self._bounds
        left = bisect_left(bounds, start)
        right = bisect_right(bounds, end, left)
        ends = [start] if left & 1 else []
        if right & 1:
            ends.append(end)
        bounds[left:right] = ends

    def clear(self) -> None:
        """Take out everything."""
        self._bounds.clear()

    def __contains__(self, number: int) -> bool:
        return bisect_right(self._bounds, number) & 1 == 1

    def covers(self, start: int, end: int) -> bool:
        """Whether every number from `start` to before `end` is in; true for an empty range."""
        if start >= end:
            return True
        place = bisect_right(self._bounds, start)
        return place & 1 == 1 and end <= self._bounds[place]

    def first_missing(self, start: int) -> int:
        """The first number from `start` on that is not in."""
        place = bisect_right(self._bounds, start)
        return self._bounds[place] if place & 1 else start

    def first_present(self, start: int) -> int | None:
        """The first number from `start` on that is in; None when there is none."""
        place = bisect_right(self._bounds, start)
        if place & 1:
            return start
        return self._bounds[place] if place < len(self._bounds) else None

    def count(self, start: int = 0, end: int | None = None) -> int:
        """How many numbers from `start` to before `end` are in; takes as long as it has ranges."""
        return sum(high - low for low, high in self.present(start, end))

    def present(self, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """The ranges between `start` and `end`, cut to them, from low to high."""
        bounds = self._bounds
        for place in range(bisect_right(bounds, start) & ~1, len(bounds), 2):
            low, high = max(bounds[place], start), bounds[place + 1]
            if end is not None:
                high = min(high, end)
            if low >= high:
                return
            yield low, high

    def missing(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """The gaps between `start` and `end`, cut to them, from low to high."""
        for low, high in self.present(start, end):
            if start < low:
                yield start, low
            start = high
        if start < end:
            yield start, end

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._bounds[::2], self._bounds[1::2], strict=True)

    def __len__(self) -> int:
        return len(self._bounds) >> 1

    def __getitem__(self, place: int) -> tuple[int, int]:
        """The range at `place`, from the end when negative; `IndexError` when there is none."""
        if place < 0:
            place += len(self)
        if not 0 <= place < len(self):
            raise IndexError(place)
        return self._bounds[2 * place], self._bounds[2 * place + 1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervals) and self._bounds == other._bounds

    __hash__ = None  # type: ignore[assignment] # it changes

    def __repr__(self) -> str:
        return f"Intervals({list(self)})"
