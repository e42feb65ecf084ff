"""One joined name, and how its first round of discovery went."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from covey.discovery.source import Wanted
from covey.errors import ClosedError, DiscoveryError


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
        self._left = False
        self._over = asyncio.Event()
        self._leave = leave
        self._look()

    def __repr__(self) -> str:
        announced = "lookup only" if self.port is None else f"port {self.port}"
        if self._left:
            state = "left"
        elif self._waiting:
            state = f"waiting for {', '.join(sorted(self._waiting))}"
        else:
            state = f"{len(self._succeeded)} answered, {len(self._failed)} failed"
        return f"<discovery.Membership {self.name!r}, {announced}, {state}>"

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

        Raises `DiscoveryError` when all of them failed, with what each of them said and the last
        error as its cause, `ClosedError` when the name was left before. May be awaited again and
        by many.
        """
        await self._over.wait()
        # Raised anew for each who waits: an error shared by them would grow with each traceback.
        if self._left:
            raise ClosedError(f"left {self.name!r} before its first round was over")
        if self._failed and not self._succeeded:
            said = "; ".join(f"{name}: {error}" for name, error in self._failed.items())
            raise DiscoveryError(f"every source failed: {said}") from self._last_error()
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

    def _ended(self) -> None:
        """The name was left."""
        if not self._over.is_set():
            self._left = True
            self._over.set()

    def _last_error(self) -> Exception:
        return next(reversed(self._failed.values()))

    def _look(self) -> None:
        if not self._waiting:
            self._over.set()
