"""What all connections of one endpoint hold of frames that are not whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

from covey.errors import LimitError

if TYPE_CHECKING:
    from covey.net.stream_shell import StreamShell


class PartialFrames:
    """Keeps the sum at most at `allowed` bytes: above it the connection with the most is cut.

    One frame may hold 16 MiB, whoever announces it, and a bound per connection would have to allow
    that to each.
    """

    __slots__ = ("_allowed", "_held", "_sum")

    def __init__(self, allowed: int) -> None:
        self._allowed = allowed
        self._held: dict[StreamShell, int] = {}
        self._sum = 0

    @property
    def held(self) -> int:
        """The bytes of all connections."""
        return self._sum

    def count(self, shell: StreamShell, size: int) -> None:
        """`shell` holds `size` bytes now; may abort it, or another one."""
        self._sum += size - self._held.pop(shell, 0)
        if size:
            self._held[shell] = size
        while self._sum > self._allowed:
            largest = max(self._held, key=self._held.__getitem__)
            self._sum -= self._held.pop(largest)
            largest.abort(
                LimitError(
                    f"more than {self._allowed} bytes of unfinished frames on all connections",
                    limit="partial_frames",
                    allowed=self._allowed,
                )
            )
