"""What `Flock.join` returns: one joined topic."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from covey.discovery.membership import FirstRound, Membership

if TYPE_CHECKING:
    from covey.flock.flock import Flock


class Topic:
    """A joined topic. `name` is what was joined, `hash` the up to 20 bytes announced for it.

    `announce` and `lookup` say how it is joined. `async with await flock.join(name)` leaves it at
    the end of the block.
    """

    def __init__(self, flock: Flock, name: bytes, hash: bytes) -> None:  # noqa: A002
        self.name = name
        self.hash = hash
        self.announce = False
        self.lookup = False
        self._flock = flock
        self._entered: asyncio.Future[Membership] = asyncio.get_running_loop().create_future()
        self._membership: Membership | None = None
        self._left = False

    def __repr__(self) -> str:
        return f"<Topic {self.name!r} {'left' if self._left else 'joined'}>"

    @property
    def left(self) -> bool:
        """Whether the topic was left: by this object, by name, or with the whole flock."""
        return self._left

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.leave()

    async def flushed(self) -> FirstRound:
        """Wait until the first round of discovery is over: every source answered or failed.

        May be awaited by many, and joining the same topic twice waits for the same round.
        Raises `DiscoveryError` when every source failed, `ClosedError` when the topic was left.
        """
        membership = await asyncio.shield(self._entered)
        return await membership.first_round()

    def leave(self) -> None:
        """Leave the topic; see `Flock.leave`. May be called again."""
        if not self._left:
            self._flock.leave(self.name)

    # What the flock calls

    def change(self, *, announce: bool, lookup: bool) -> bool:
        """Note how it is to be joined; True when the discovery channel has to be told."""
        fresh = self._membership is None and not (self.announce or self.lookup)
        changed = fresh or announce != self.announce
        self.announce, self.lookup = announce, lookup
        if changed and not fresh and self._entered.done():
            self._entered = asyncio.get_running_loop().create_future()
        return changed

    async def started(self) -> None:
        """Wait until the discovery channel was told."""
        await asyncio.shield(self._entered)

    def enter(self, membership: Membership) -> None:
        """The discovery channel was told; an earlier membership ends."""
        earlier, self._membership = self._membership, membership
        if earlier is not None and earlier is not membership:
            earlier.leave()
        if not self._entered.done():
            self._entered.set_result(membership)

    def end(self, error: Exception) -> None:
        """It is left, or could not be joined because of `error`."""
        self._left = True
        if not self._entered.done():
            self._entered.set_exception(error)
            self._entered.exception()  # perhaps nobody waits: then this is not a lost error
        if self._membership is not None:
            self._membership.leave()
