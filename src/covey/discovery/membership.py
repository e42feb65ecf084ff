"""One joined name, and how its first round of discovery went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from covey.discovery.source import Wanted
from covey.errors import CoveyError


@dataclass(frozen=True, slots=True)
class FirstRound:
    """How the first round went: the sources that could ask, and those that could not.

    Both are empty when no source is switched on: then nothing was asked, and nothing is found.
    """

    succeeded: tuple[str, ...] = ()
    failed: Mapping[str, Exception] = field(default_factory=dict)


class Membership:
    """A joined name; `port` is announced, None only looks up. Made by `Channel.join`."""

    def __init__(
        self, wanted: Wanted, asked: Iterable[str], leave: Callable[[Membership], None]
    ) -> None:
        self.wanted = wanted
        self._waiting = set(asked)
        self._succeeded: list[str] = []
        self._failed: dict[str, Exception] = {}
        self._error: CoveyError | None = None
        self._over = asyncio.Event()
        self._leave = leave
        self._look()

    @property
    def name(self) -> bytes:
        """The name as joined, in bytes."""
        return self.wanted.name

    @property
    def hash(self) -> bytes:
        """What the sources look for: up to 20 bytes."""
        return self.wanted.hash

    @property
    def port(self) -> int | None:
        """The announced port."""
        return self.wanted.port

    async def first_round(self) -> FirstRound:
        """Wait until every source switched on at the join has answered or failed once.

        Raises the last error when all of them failed, `ClosedError` when the name was left
        before. May be awaited again and by many.
        """
        await self._over.wait()
        if self._error is not None:
            raise self._error
        if self._failed and not self._succeeded:
            raise next(reversed(self._failed.values()))
        return FirstRound(tuple(self._succeeded), dict(self._failed))

    def leave(self) -> None:
        """Stop announcing and looking up this membership. May be called again."""
        self._leave(self)

    # Told by the channel

    def _settled(self, source: str, error: Exception | None) -> None:
        """`source` finished a round; only its first one counts."""
        if source not in self._waiting:
            return
        self._waiting.discard(source)
        if error is None:
            self._succeeded.append(source)
        else:
            self._failed[source] = error
        self._look()

    def _dropped(self, source: str) -> None:
        """`source` was switched off: nobody waits for it any more."""
        self._waiting.discard(source)
        self._look()

    def _ended(self, error: CoveyError) -> None:
        """The name was left."""
        if not self._over.is_set():
            self._error = error
            self._over.set()

    def _look(self) -> None:
        if not self._waiting:
            self._over.set()
