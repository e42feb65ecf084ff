"""What comes next for a peer, and what its user can do about it: a table over what happened. Pure.

The hub knows what a dial or a session does next, and what helps against an error. Here is what only
the flock knows: why it does not dial, when it will, and which of its settings decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from covey.conn.story import Story, StoryLine
from covey.flock.candidates import Candidate, CandidateState
from covey.flock.policy import Reason


@dataclass(frozen=True, slots=True)
class Outlook:
    """`next_step` happens by itself, `advice` is for the user; None: nothing to say."""

    next_step: str | None
    advice: str | None = None
    state: str | None = None


IDLE: Final = Outlook(
    "nothing, until it is found again",
    "join a topic that it announces, or name it with add_peer",
)
CAME_TO_US: Final = Outlook("nothing from this side: it dialled us, and may do so again")
"""Nobody can dial the port that somebody came from."""
NOT_LET_IN: Final = "nothing from this side: the peer may try again"

_REFUSED: Final[Mapping[Reason, Outlook]] = MappingProxyType(
    {
        Reason.WHITELIST: Outlook(
            "nothing: it is neither dialled nor accepted",
            "add its host to the whitelist of the flock",
        ),
        Reason.BANNED: Outlook(
            "nothing: a banned address is not dialled",
            "lift the ban by naming the peer with add_peer",
        ),
        Reason.APPLICATION: Outlook(
            "nothing: a banned address is not dialled",
            "lift the ban by naming the peer with add_peer",
        ),
        Reason.DETECTED_SELF: Outlook(
            "nothing: a node does not connect to itself",
            "use the address of the other peer, or give that process a key pair of its own",
        ),
        Reason.OWN_ADDRESS: Outlook(
            "nothing: a node does not connect to itself",
            "use the address of the other peer: this one is where this flock listens",
        ),
        Reason.UNDIALABLE: Outlook("nothing: no connection can lead there", "correct the address"),
        Reason.PRIVATE_ADDRESS: Outlook(
            "nothing, unless a source on the local network finds it",
            "if it is a peer of your own network, name it with add_peer",
        ),
        Reason.TOO_MANY_PORTS: Outlook(
            "taken when it is found again and fewer ports of its host are known",
            "raise Limits.max_ports_per_host if so many peers run on that host",
        ),
        Reason.TOO_MANY_CANDIDATES: Outlook(
            "taken when it is found again and there is room",
            "raise Limits.max_candidates",
        ),
        Reason.MAX_CONNECTIONS: Outlook(NOT_LET_IN, "raise max_connections of the flock"),
        Reason.LIMIT: Outlook(NOT_LET_IN, "raise the limit that is named"),
        Reason.DUPLICATE: Outlook("nothing: its peer is connected already"),
    }
)


def after_refusal(reason: Reason) -> Outlook:
    """What follows a refusal or ban."""
    return _REFUSED[reason]


def outlook(story: Story, known: Sequence[Candidate], now: float, *, full: str = "") -> Outlook:
    """What follows for an address that the hub is not busy with.

    `known` are the candidates with that address, of all topics; `full` says which limit keeps all
    of them from being dialled now, if one does.
    """
    for candidate in known:
        if (planned := _planned(candidate, now, full, story.advice)) is not None:
            return planned
    told = _after(story.lines[-1], story.advice) if story.lines else IDLE
    return replace(told, state=str(known[0].state)) if known else told


def _planned(candidate: Candidate, now: float, full: str, advice: str | None) -> Outlook | None:
    """What is planned for a candidate; `advice` is about its last failure."""
    state = str(candidate.state)
    match candidate.state:
        case CandidateState.WAITING if candidate.due is not None:
            left = max(0.0, candidate.due - now)
            return Outlook(f"attempt {candidate.retries + 1} in {left:.1f} s", advice, state)
        case CandidateState.QUEUED if full:
            return Outlook(f"it is dialled when a place is free: {full}", f"raise {full}", state)
        case CandidateState.QUEUED:
            return Outlook("it is dialled when its turn comes", advice, state)
        case CandidateState.CONNECTING:
            return Outlook("its handshake succeeds, fails or runs out of time", None, state)
        case CandidateState.CONNECTED:
            return Outlook("nothing: its peer is connected, by another address", None, state)
        case _:
            return None


def _after(last: StoryLine, advice: str | None) -> Outlook:
    """What follows the last thing that happened, when nothing is planned."""
    if last.step in ("rejected", "banned") and last.reason in _REASONS:
        return after_refusal(Reason(last.reason))
    if last.step == "dropped":
        return Outlook("nothing, until it is found again: it failed too often", advice)
    if last.step == "left":
        return Outlook("nothing, until its topic is joined again", "join the topic again")
    if last.fields.get("via") == "incoming":
        return Outlook(CAME_TO_US.next_step if last.step == "disconnected" else NOT_LET_IN, advice)
    return Outlook(IDLE.next_step, advice or IDLE.advice)


_REASONS: Final = frozenset(str(reason) for reason in Reason)
