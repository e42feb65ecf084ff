"""The flock's pure decisions, against the vectors of discovery-swarm and its hardened rules."""

from __future__ import annotations

from typing import Any

import pytest

from covey.flock import policy
from covey.flock import registry as registry_module
from covey.flock.policy import Cause, Contender, Verdict, resolve_duplicate
from covey.flock.registry import Outcome, Registry
from tests.vectors_path import load_vectors

VECTORS = load_vectors("discovery-swarm")
SMALL, LARGE = "01" * 32, "02" * 32


def _link(number: int, case: dict[str, Any], mine: str, theirs: str) -> Contender:
    return Contender(
        id=number, type=case["type"], initiator=case["initiator"], mine=mine, theirs=theirs
    )


def _events(registry: Registry, links: list[Contender]) -> list[str]:
    """What the reference would emit for these links, in its order and its numbering."""
    events: list[str] = []
    for link in links:
        decision = registry.offer(link, now=0.0)
        if decision.outcome is Outcome.REPLACED:
            assert decision.other is not None
            events.append(f"redundant-connection:{decision.other.id}")
        if decision.outcome is Outcome.REDUNDANT:
            events.append(f"redundant-connection:{link.id}")
        else:
            events.append(f"connection:{link.id}")
    return events


def _reference(monkeypatch: pytest.MonkeyPatch, *, keep_existing: bool = False) -> Registry:
    """A registry that decides as discovery-swarm 6.1.0 does, which no flock follows."""

    def rule(existing: Contender, new: Contender, _now: float, _silent: bool) -> Verdict:
        dropped = "new" if keep_existing else policy.dropped_by_reference(existing, new)
        return Verdict(dropped, Cause.SIMULTANEOUS)

    monkeypatch.setattr(registry_module, "resolve_duplicate", rule)
    return Registry()


@pytest.mark.parametrize("case", VECTORS["duplicates"])
def test_the_reference_rule_drops_what_discovery_swarm_drops(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = case["keep_existing"]
    existing = _link(0, case["existing"], case["mine"], case["theirs"])
    new = _link(1, case["new"], case["mine"], case["theirs"])
    registry = _reference(monkeypatch, keep_existing=keep)
    assert _events(registry, [existing, new]) == case["events"]
    assert keep or policy.dropped_by_reference(existing, new) == case["dropped"]
    assert registry.get(case["theirs"]) is (new if case["dropped"] == "existing" else existing)


@pytest.mark.parametrize("case", VECTORS["self"])
def test_an_own_id_is_recognised(case: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    mine = policy.peer_key(bytes.fromhex(case["id"]))
    link = Contender(id=0, type="tcp", initiator=case["initiator"], mine=mine, theirs=mine)
    registry = _reference(monkeypatch)
    assert (registry.offer(link, now=0.0).outcome is Outcome.SELF) == case["destroyed"]
    assert len(registry) == 0


@pytest.mark.parametrize("case", VECTORS["channels"])
def test_ids_with_a_channel_are_compared_per_channel(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    links = [
        Contender(
            id=number,
            type="tcp",
            initiator=case["both_outgoing"],
            mine=policy.peer_key(bytes.fromhex(case["mine"]), bytes.fromhex(case[field])),
            theirs=policy.peer_key(bytes.fromhex(case["theirs"]), bytes.fromhex(case[field])),
        )
        for number, field in enumerate(("first_key", "second_key"))
    ]
    registry = _reference(monkeypatch)
    assert _events(registry, links) == case["events"]
    alive = list(registry)
    assert [link not in alive for link in links] == case["destroyed"]


def test_the_constants_are_the_references() -> None:
    constants = VECTORS["constants"]
    assert constants["connection_timeout_ms"] == policy.CONNECTION_TIMEOUT * 1000
    assert constants["handshake_timeout_ms"] == policy.HANDSHAKE_TIMEOUT * 1000
    assert constants["attempts_before_drop"] == len(policy.RETRY_WAITS) + 1


def test_the_retry_schedule_is_the_references() -> None:
    waits = VECTORS["constants"]["retry_waits_ms"]
    drop = VECTORS["constants"]["attempts_before_drop"]
    assert [policy.retry_wait(failures) for failures in range(1, drop)] == [
        wait / 1000 for wait in waits
    ]
    assert policy.retry_wait(drop) is None
    with pytest.raises(ValueError, match="first failure"):
        policy.retry_wait(0)


def _pair(
    *, mine: str, existing: bool, new: bool, proven: bool = True, opened: float = 0.0
) -> tuple[Contender, Contender]:
    theirs = SMALL if mine == LARGE else LARGE
    return (
        Contender(
            id=1,
            type="tcp",
            initiator=existing,
            mine=mine,
            theirs=theirs,
            opened_at=opened,
            proven=proven,
        ),
        Contender(
            id=2, type="tcp", initiator=new, mine=mine, theirs=theirs, opened_at=0.0, proven=proven
        ),
    )


@pytest.mark.parametrize("outgoing_first", [True, False])
def test_the_smaller_key_takes_the_first_of_crossed_connections_and_the_larger_waits(
    outgoing_first: bool,
) -> None:
    for mine in (SMALL, LARGE):
        pair = _pair(mine=mine, existing=outgoing_first, new=not outgoing_first)
        verdict = resolve_duplicate(*pair, 0.1)
        assert (verdict.dropped, verdict.cause) == ("new", Cause.SIMULTANEOUS)
        assert verdict.hold is (mine == LARGE)


def test_only_the_larger_keys_accepted_connection_may_still_be_replaced() -> None:
    for mine in (SMALL, LARGE):
        for initiator in (True, False):
            for proven in (True, False):
                link, _ = _pair(mine=mine, existing=initiator, new=initiator, proven=proven)
                expected = mine == LARGE and not initiator and proven
                assert policy.may_be_replaced(link, dialling=True) is expected
                assert not policy.may_be_replaced(link, dialling=False)


def test_an_established_connection_is_not_displaced() -> None:
    existing, new = _pair(mine=LARGE, existing=True, new=False, opened=0.0)
    late = resolve_duplicate(existing, new, policy.SIMULTANEOUS)
    assert (late.dropped, late.cause, late.hold) == ("new", Cause.ESTABLISHED, True)


@pytest.mark.parametrize("initiator", [True, False])
def test_of_two_connections_by_one_initiator_the_smaller_key_takes_the_first(
    initiator: bool,
) -> None:
    for mine in (SMALL, LARGE):
        verdict = resolve_duplicate(*_pair(mine=mine, existing=initiator, new=initiator), 0.1)
        assert (verdict.dropped, verdict.cause) == ("new", Cause.SAME_INITIATOR)
        assert verdict.hold is (mine == LARGE)


def test_a_claimed_smaller_id_never_displaces_a_connection() -> None:
    existing, new = _pair(mine=LARGE, existing=True, new=False, proven=False)
    assert policy.dropped_by_reference(existing, new) == "existing"
    verdict = resolve_duplicate(existing, new, 0.1)
    assert (verdict.dropped, verdict.cause, verdict.hold) == ("new", Cause.UNPROVEN, True)


def test_one_unproven_connection_is_enough_to_keep_the_existing() -> None:
    existing, _ = _pair(mine=LARGE, existing=True, new=False)
    _, claimed = _pair(mine=LARGE, existing=True, new=False, proven=False)
    assert resolve_duplicate(existing, claimed, 0.1).dropped == "new"
    assert resolve_duplicate(claimed, existing, 0.1).dropped == "new"


def test_a_silent_connection_gives_way_to_a_proven_one_only() -> None:
    assert resolve_duplicate(*_pair(mine=SMALL, existing=True, new=True), 99.0, True) == Verdict(
        "existing", Cause.SILENT
    )
    claimed = _pair(mine=SMALL, existing=True, new=True, proven=False)
    assert resolve_duplicate(*claimed, 99.0, True).dropped == "new"


def test_tcp_goes_before_utp_whatever_the_keys() -> None:
    for mine in (SMALL, LARGE):
        theirs = LARGE if mine == SMALL else SMALL
        tcp = Contender(id=1, type="tcp", initiator=True, mine=mine, theirs=theirs, proven=True)
        utp = Contender(id=2, type="utp", initiator=False, mine=mine, theirs=theirs, proven=True)
        assert resolve_duplicate(tcp, utp, 0.1).dropped == "new"
        assert resolve_duplicate(utp, tcp, 0.1).dropped == "existing"


def test_a_peer_is_silent_after_more_than_its_keep_alive_and_never_without() -> None:
    assert [policy.silent_after(seconds) for seconds in (0.0, 1.0, 15.0, 30.0)] == [
        None,
        18.0,
        18.0,
        36.0,
    ]
