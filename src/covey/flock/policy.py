"""What the flock decides, as functions over data: retries, identities, duplicates.

Nothing here reads a clock, opens a socket or draws a random number; pursuit and roster ask
and obey. The numbers and the reference's rules are those of discovery-swarm 6.1.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypeAlias

CONNECTION_TIMEOUT = 3.0
"""Seconds an outgoing attempt may take until the raw connection is up."""
HANDSHAKE_TIMEOUT = 5.0
"""Seconds from the raw connection to the end of the id exchange."""
RETRY_WAITS = (1.0, 1.0, 5.0, 15.0)
"""Seconds before the second, third, fourth and fifth attempt; after one more failure: dropped."""
SIMULTANEOUS = 5.0
"""Two connections of one pair, both younger than this, were opened at the same moment."""
HOLD = 1.0
"""Seconds that a redundant connection is kept open in case the remote ends the other one."""
SETTLE = 1.0
"""Seconds for which a connection that a crossing one may replace is kept from its user at most."""
PROBED = 10.0
"""Seconds for which a connection is looked after when somebody else claims its peer's id."""
SILENCE = 18.0
"""Seconds without a byte after which a connection that sends keep-alives every 15 is dead."""

Kind: TypeAlias = Literal["tcp", "utp"]
Loser: TypeAlias = Literal["existing", "new"]


class Reason(StrEnum):
    """Why a peer was refused or banned, a connection dropped. Values are the original names."""

    WHITELIST = "whitelist"
    BANNED = "banned"
    DUPLICATE = "duplicate"
    APPLICATION = "application"
    DETECTED_SELF = "detected-self"
    OWN_ADDRESS = "own-address"
    UNDIALABLE = "undialable"
    PRIVATE_ADDRESS = "private-address"
    TOO_MANY_PORTS = "too-many-ports"
    TOO_MANY_CANDIDATES = "too-many-candidates"
    MAX_CONNECTIONS = "max-connections"
    LIMIT = "limit"
    """One of `Limits` is reached at the hub, whose story names it."""


def retry_wait(failures: int) -> float | None:
    """Seconds to wait after the `failures`-th failure in a row (1 = first); None: drop the peer."""
    if failures < 1:
        raise ValueError("the first failure is number 1")
    return RETRY_WAITS[failures - 1] if failures <= len(RETRY_WAITS) else None


def silent_after(keep_alive: float) -> float | None:
    """Seconds without a byte after which a peer is dead that sends keep-alives as often as we do.

    None where they are switched off (`keep_alive` 0), so that silence says nothing.
    """
    return SILENCE * max(1.0, keep_alive / 15) if keep_alive > 0 else None


def peer_key(id: bytes, topic: bytes | None = None) -> str:  # noqa: A002 - the original's word
    """What ids are compared by: hexadecimal text, and `@topic` where a stream names one."""
    return id.hex() if topic is None else f"{id.hex()}@{topic.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A connection whose remote told its id, as far as the rules need to know it.

    `mine` and `theirs` are `peer_key` texts: of public keys where the handshake proves them
    (`proven`), of claimed ids otherwise. `opened_at` is monotonic seconds.
    """

    id: int
    type: Kind
    initiator: bool
    mine: str
    theirs: str
    opened_at: float = 0.0
    proven: bool = False


def dropped_by_reference(existing: Contender, new: Contender) -> Loser:
    """Which of two connections of one pair discovery-swarm 6.1.0 drops.

    Among equal types the connection initiated by the smaller id survives, on both sides.
    """
    if existing.type != new.type:
        return "existing" if new.type == "tcp" else "new"
    if new.initiator:
        return "new" if new.theirs < new.mine else "existing"
    return "new" if new.theirs > new.mine else "existing"


class Cause(StrEnum):
    """Which rule decided between two connections of one pair."""

    UNPROVEN = "unproven"
    SILENT = "silent"
    ESTABLISHED = "established"
    SAME_INITIATOR = "same-initiator"
    SIMULTANEOUS = "simultaneous"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`dropped` goes; with `hold` the new one waits `HOLD` seconds first, in case the other ends.

    Holding is for decisions that the remote may take otherwise: dropping at once what the remote
    keeps would leave the pair without any connection.
    """

    dropped: Loser
    cause: Cause
    hold: bool = False


def resolve_duplicate(
    existing: Contender, new: Contender, now: float, silent: bool = False
) -> Verdict:
    """Which of two connections of one pair to drop, so that both sides choose alike.

    A claimed id never displaces a connection (it is held, and takes over only when the existing
    one ends). Proven keys: a `silent` connection gives way; an established one stays; of two young
    ones the one that was complete first at the end with the smaller key. That end knows at once;
    the other one waits for its choice.
    """
    by_id = dropped_by_reference(existing, new)
    alike = existing.type == new.type and existing.initiator == new.initiator
    if not (existing.proven and new.proven):
        # Of two by one initiator the initiator decides, of others whom the ids would favour.
        hold = not new.initiator if alike else by_id == "existing"
        return Verdict("new", Cause.UNPROVEN, hold=hold)
    if silent:
        return Verdict("existing", Cause.SILENT)
    if max(now - existing.opened_at, now - new.opened_at) >= SIMULTANEOUS:
        return Verdict("new", Cause.ESTABLISHED, hold=not new.initiator)
    if existing.type != new.type:
        return Verdict(by_id, Cause.SIMULTANEOUS)
    cause = Cause.SAME_INITIATOR if alike else Cause.SIMULTANEOUS
    return Verdict("new", cause, hold=not chooses(new))


def chooses(link: Contender) -> bool:
    """Whether this end takes the first of two young connections, and the other end obeys."""
    return link.mine < link.theirs


def may_be_replaced(link: Contender, *, dialling: bool) -> bool:
    """Whether the other end may still choose another connection than `link`, its first here.

    `dialling`: this end has a dial under way that may lead to the same peer. The end that chooses
    never waits. The other one need not where it dialled itself: a dial is complete only after the
    other end has answered it, so had that end chosen a connection of its own, this end would know
    that one already. It waits where it accepted: its own dial may have been complete there first.
    """
    return link.proven and not link.initiator and not chooses(link) and dialling
