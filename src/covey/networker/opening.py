"""Which connections are still opening, and who waits for those of one moment (rows 10 to 12). Pure.

The seed counts connections opened and connections processed, and compares. Sets say the same and
cannot go wrong by one: each connection counts once, whatever is told of it again.
"""

from __future__ import annotations

from collections.abc import Callable


class Barrier:
    """The connections that were opening at one moment; passed when each of them has settled."""

    __slots__ = ("_opening", "_passed", "waiting")

    def __init__(self, opening: Opening, waiting: set[int], passed: Callable[[], object]) -> None:
        self.waiting = waiting
        self._opening = opening
        self._passed = passed

    def settled(self, attempt: int) -> None:
        """That connection has finished or failed its handshake."""
        self.waiting.discard(attempt)
        if not self.waiting:
            self.cancel()
            self._passed()

    def cancel(self) -> None:
        """Wait no more. May be called again."""
        self._opening.forget(self)


class Opening:
    """The connections whose handshake is under way, by the number of their attempt."""

    __slots__ = ("_attempts", "_barriers")

    def __init__(self) -> None:
        self._attempts: set[int] = set()
        self._barriers: dict[Barrier, None] = {}

    def __len__(self) -> int:
        return len(self._attempts)

    def add(self, attempt: int) -> None:
        """A connection was opened; barriers that stand already do not wait for it."""
        self._attempts.add(attempt)

    def settle(self, attempt: int) -> bool:
        """Its handshake is done, or it was closed before. False when that was known."""
        if attempt not in self._attempts:
            return False
        self._attempts.discard(attempt)
        for barrier in [one for one in self._barriers if attempt in one.waiting]:
            barrier.settled(attempt)
        return True

    def barrier(self, passed: Callable[[], object]) -> Barrier:
        """Call `passed` once each connection that is opening now has settled; at once for none."""
        barrier = Barrier(self, set(self._attempts), passed)
        if barrier.waiting:
            self._barriers[barrier] = None
        else:
            passed()
        return barrier

    def forget(self, barrier: Barrier) -> None:
        """Nobody waits at `barrier` any more. For the barrier."""
        self._barriers.pop(barrier, None)
