"""Two signed histories of one log: finding out, and proving it to others (section 11)."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from covey.errors import StoreError
from covey.feed.messages import Data, Request, UpgradeRequest
from covey.feed.proof import ProofError, build
from covey.feed.tree import roots_of
from covey.feed.verify import verify

if TYPE_CHECKING:
    from covey.feed.log import Log


class Verdict(Enum):
    """What a head of a peer, proven from the first block on, says about ours."""

    AGREES = "agrees"
    CONTRADICTS = "contradicts"
    UNRELATED = "unrelated"
    """Another fork, a longer log, or nodes are missing here: it says nothing."""


def is_history(data: Data) -> bool:
    """Whether this is a head proven from nothing, the answer to what was asked as number 0."""
    upgrade = data.upgrade
    return data.request == 0 and upgrade is not None and upgrade.start == 0


def compare(log: Log, data: Data) -> Verdict:
    """Hold a history against ours. Raises `VerifyError` when it is not signed."""
    upgrade = data.upgrade
    if upgrade is None or data.fork != log.fork or data.block or data.hash or data.seek:
        return Verdict.UNRELATED
    if not 0 < upgrade.length <= log.length:
        return Verdict.UNRELATED
    verify(
        data, roots=(), length=0, fork=data.fork, get_node=lambda _: None, authority=log.authority
    )
    ours = roots_of(upgrade.length, log.node)
    if ours is None:
        return Verdict.UNRELATED
    # The nodes of an upgrade from nothing are the roots of just that many blocks; what its
    # signature covers, and ours, goes on from there. Below that only hashes are proven: a parent
    # covers no more than the sum of two sizes, so anybody can move bytes from one to the other.
    if [node[::2] for node in ours] == [node[::2] for node in upgrade.nodes]:
        return Verdict.AGREES
    return Verdict.CONTRADICTS


def history(log: Log, length: int) -> Data | None:
    """Our history up to `length` blocks, as `compare` takes it; None when it cannot be told."""
    length = min(length, log.length)
    if not length:
        return None
    try:
        return build(
            Request(0, log.fork, upgrade=UpgradeRequest(0, length)),
            length=log.length,
            fork=log.fork,
            get_node=log.node,
            get_block=log.block,
            signature=log.signature,
            manifest=None,
        )
    except (ProofError, StoreError):
        return None
