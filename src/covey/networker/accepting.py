"""Which logs that peers tell of are taken into a group, and because of whom."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

logger = logging.getLogger("covey.networker")


class Accepting:
    """Decides about logs that are not in the group, `most` of them in all, half for one giver.

    `failed` is told what the user's `accept` raises; that log is not taken in.
    """

    __slots__ = ("_accept", "_failed", "_givers", "_most", "_of")

    def __init__(
        self,
        accept: Callable[[bytes], bool] | bool,
        most: int,
        *,
        failed: Callable[[Exception], object] | None = None,
    ) -> None:
        self._accept = accept
        self._failed = failed
        self._most = most
        self._givers: dict[bytes, bytes] = {}
        self._of: Counter[bytes] = Counter()

    def __len__(self) -> int:
        return len(self._givers)

    def takes(self, key: bytes, giver: bytes) -> bool:
        """Whether a log is taken in because `giver` told of it; it has its place then."""
        if self._accept is False or len(self._givers) >= self._most:
            return False
        if 2 * self._of[giver] >= self._most:
            return False
        if not self._asked(key):
            return False
        self._givers[key] = giver
        self._of[giver] += 1
        return True

    def remove(self, key: bytes) -> None:
        """A log is not in the group any more: its place is free."""
        giver = self._givers.pop(key, None)
        if giver is not None:
            self._of[giver] -= 1
            if not self._of[giver]:
                del self._of[giver]

    def _asked(self, key: bytes) -> bool:
        if isinstance(self._accept, bool):
            return self._accept
        try:
            return bool(self._accept(key))
        except Exception as error:
            logger.exception("the accept of a group failed on %s", key.hex())
            if self._failed is not None:
                self._failed(error)
            return False
