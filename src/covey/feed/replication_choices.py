"""Who is asked for what next, and who is told what: pure decisions over plain data.

`hypercore.md` sections 8 to 10; hypercore 11.37.1, `lib/replicator.js`.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import NamedTuple

from covey.feed import flat_tree
from covey.feed.availability import Availability
from covey.feed.bitfield import BitPages
from covey.feed.replication_wants import WANT_BATCH

MIN_IN_FLIGHT, MAX_IN_FLIGHT = 16, 512
"""Requests under way to one peer, least and most."""
IN_FLIGHT = 48
"""Requests under way to one peer where the transport does not tell its round trip (TCP)."""
SCALE_ROUND_TRIP = 0.05
"""Seconds of round trip from which on more requests are put on the way."""
MAX_ASKED = 3
"""Peers asked for the same block at once."""
SWAP_AFTER = 1.0
"""Seconds after which a block is slow and an idle peer is asked for it too."""
LAST_BLOCKS = 256
"""The newest blocks of a log are announced to everybody, others to those who want them."""
REQUEST_TIMEOUT = 30.0
"""Seconds until a request is cancelled and another peer is asked."""
MAX_INVALID_REQUESTS = 64
"""Requests without sense after which a connection ends."""
MAX_BACKOFFS = 32
"""Answers without data in a row after which a peer is asked no more."""
_GAP_STEPS = 64
"""Gaps looked at for one peer and range when wants are chosen; more the next time."""


class RemoteHead(NamedTuple):
    """What a peer told of its head; `acked` is our length as it last heard it, 0 on other forks."""

    fork: int
    length: int
    can_upgrade: bool
    uploading: bool
    acked: int


def offers_upgrade(remote: RemoteHead, *, fork: int, length: int) -> bool:
    """Whether a peer can prove a longer head to us now (section 8, upgrade rule)."""
    return (
        remote.can_upgrade
        and remote.uploading
        and remote.length > length
        and remote.fork == fork
        and remote.acked == length
    )


def can_upgrade(
    remote: RemoteHead, *, fork: int, length: int, has_node: Callable[[int], bool]
) -> bool:
    """What our sync says: that we can prove our head to one who has the remote's (section 8)."""
    if remote.fork != fork:
        return False
    if remote.length == 0:
        return True
    return remote.length < length and all(map(has_node, flat_tree.full_roots(remote.length)))


def askable_end(
    remote: RemoteHead, *, fork: int, length: int, agreed: int, has_node: Callable[[int], bool]
) -> int:
    """The blocks below this number may be asked of the peer (section 10.1).

    The path up to a node of ours must lie in its tree: always so when its log is not shorter than
    ours, or when its roots are nodes of ours. `agreed` is the last length of which that was so.
    """
    if remote.fork != fork or not remote.uploading:
        return 0
    if remote.length >= length:
        return length
    if all(map(has_node, flat_tree.full_roots(remote.length))):
        return remote.length
    return min(agreed, remote.length)


def in_flight_limit(round_trip: float | None, peers: int) -> int:
    """Requests to have on the way to one peer; `round_trip` in seconds, None: not known (TCP)."""
    if round_trip is None:
        return IN_FLIGHT
    scale = 1.0
    if round_trip > SCALE_ROUND_TRIP:
        scale = round_trip / SCALE_ROUND_TRIP * min(1.0, 2 / max(peers, 1))
    return max(MIN_IN_FLIGHT, min(MAX_IN_FLIGHT, round(MIN_IN_FLIGHT * scale)))


def swap_limit(in_flight: int) -> int:
    """Up to so many requests a peer is given blocks that others were asked for already."""
    return max(MIN_IN_FLIGHT, in_flight // 2)


def invalid_delay(count: int) -> float:
    """Seconds until the `count`th request without sense is answered (section 10.4)."""
    if count <= 1:
        return 0.2
    if count <= 4:
        return 0.5
    return 1.0 if count <= 39 else 5.0


def announced(
    start: int, end: int, *, length: int, complete: bool, told: int, known: bool, wanted: bool
) -> tuple[int, int] | None:
    """The range to announce to one peer for blocks `start` to before `end`; None: nothing.

    `complete`: we hold all `length` blocks, and have told so before for `told` of them; `known`:
    the peer claims these blocks itself (section 9).
    """
    if complete:
        if told < length:
            return 0, length
        return None if known else (start, end)
    if known or (start + LAST_BLOCKS < length and not wanted):
        return None
    return start, end


def push_levels(block: int, remote_length: int) -> int:
    """The `nodes` of a push: levels from `block` to a root of the receiver's log, 0 beyond it."""
    if block >= remote_length:
        return 0
    for root in flat_tree.full_roots(remote_length):
        if flat_tree.contains(root, 2 * block):
            return flat_tree.depth(root)
    return 0


def wanted_batches(
    claims: Availability,
    held: BitPages,
    start: int,
    end: int,
    *,
    asked: Container[int],
    most: int,
) -> list[int]:
    """The batches of 2^21 blocks, `most` at most, with a block that is neither held nor claimed.

    Those in `asked` are left out.
    """
    batches: list[int] = []
    position = start
    for _ in range(_GAP_STEPS):
        if position >= end or len(batches) >= most:
            break
        gap = next(((low, high) for low, high in claims.ranges(position, end)), (end, end))
        # Up to the next claimed run everything is unknown; is a block of that missing here?
        missing = held.first_unset(position)
        if missing >= gap[0]:
            position = max(gap[1], missing)
            continue
        batch = missing // WANT_BATCH
        if batch not in asked:
            batches.append(batch)
        position = (batch + 1) * WANT_BATCH
    return batches
