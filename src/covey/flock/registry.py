"""Who is connected: one connection per peer, and what happens when a second one arrives.

Pure: the shell offers connections that finished their handshake and obeys the decision.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from covey.flock.policy import Cause, Contender, resolve_duplicate

MAX_HELD = 2
"""Redundant connections kept open per peer; one is what an honest pair needs."""


class Outcome(Enum):
    """What becomes of an offered connection."""

    REGISTERED = "registered"
    REPLACED = "replaced"
    """The offered connection is registered in place of `Decision.other`, which must be closed."""
    REDUNDANT = "redundant"
    """The offered connection must be closed; `Decision.other` stays."""
    HELD = "held"
    """As REDUNDANT, but only when it is still held after `policy.HOLD` seconds."""
    SELF = "self"
    """The remote is this very node."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome, the other connection of the pair if there is one, and the rule that decided."""

    outcome: Outcome
    other: Contender | None = None
    cause: Cause | None = None


class Registry:
    """Registered and held links by peer; `resolve_duplicate` decides between two of one peer."""

    def __init__(self) -> None:
        self._links: dict[str, Contender] = {}
        self._held: dict[str, list[Contender]] = {}

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[Contender]:
        return iter(tuple(self._links.values()))

    def get(self, theirs: str) -> Contender | None:
        """The registered connection of a peer."""
        return self._links.get(theirs)

    def offer(self, link: Contender, *, now: float, silent: bool = False) -> Decision:
        """Decide on a connection that knows its remote; `silent`: the existing one seems dead."""
        if link.theirs == link.mine:
            return Decision(Outcome.SELF)
        existing = self._links.get(link.theirs)
        if existing is None:
            self._links[link.theirs] = link
            return Decision(Outcome.REGISTERED)
        verdict = resolve_duplicate(existing, link, now, silent)
        if verdict.dropped == "existing":
            self._links[link.theirs] = link
            return Decision(Outcome.REPLACED, existing, verdict.cause)
        held = self._held.get(link.theirs, [])
        if verdict.hold and len(held) < MAX_HELD:
            self._held[link.theirs] = [*held, link]
            return Decision(Outcome.HELD, existing, verdict.cause)
        return Decision(Outcome.REDUNDANT, existing, verdict.cause)

    def is_held(self, link: Contender) -> bool:
        """Whether `link` still waits behind a registered one."""
        return link in self._held.get(link.theirs, ())

    def holds(self, theirs: str) -> bool:
        """Whether another connection of a peer waits behind the registered one."""
        return bool(self._held.get(theirs))

    def is_registered(self, link: Contender) -> bool:
        """Whether `link` is the connection of its peer."""
        return self._links.get(link.theirs) is link

    def remove(self, link: Contender) -> Contender | None:
        """Forget a connection that ended; returns the held one that takes its place, if any."""
        held = self._held.get(link.theirs, [])
        if link in held:
            held.remove(link)
        if not self.is_registered(link):
            self._tidy(link.theirs)
            return None
        del self._links[link.theirs]
        successor = held.pop(0) if held else None
        if successor is not None:
            self._links[link.theirs] = successor
        self._tidy(link.theirs)
        return successor

    def _tidy(self, theirs: str) -> None:
        if not self._held.get(theirs):
            self._held.pop(theirs, None)
