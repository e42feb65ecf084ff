"""What `explain` says: each thing once, then what comes next and what the user can do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from covey.address import Address
from covey.conn.story import Story, StoryLine
from covey.flock.candidates import Candidate, CandidateState
from covey.flock.flock import Flock
from covey.flock.outlook import after_refusal, outlook
from covey.flock.policy import Reason
from covey.keys import KeyPair
from covey.limits import Limits
from tests.flock.support import (
    HOST,
    HandClock,
    Recorder,
    mute_listener,
    quiet_flock,
    refused_port,
    until,
)

# The table


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_next_step_and_all_but_a_duplicate_an_advice(reason: Reason) -> None:
    told = after_refusal(reason)
    assert told.next_step
    assert told.advice or reason is Reason.DUPLICATE
    assert "connect" not in (told.advice or "").split(), "a flock's user calls no connect"


def _story(
    step: str = "", reason: str | None = None, advice: str | None = None, **fields: Any
) -> Story:
    lines = (StoryLine(0, step, "text", "net:h:1~noise", reason, fields),) if step else ()
    return Story("net:h:1~noise", None, (), lines, advice=advice)


def _candidate(state: CandidateState, **fields: Any) -> Candidate:
    return Candidate(host="h", port=1, name=b"x", source="dns", state=state, **fields)


@pytest.mark.parametrize(
    ("story", "next_step", "advice"),
    [
        (_story(), "nothing, until it is found again", "join a topic"),
        (_story("rejected", "whitelist"), "neither dialled nor accepted", "to the whitelist"),
        (_story("banned", "application"), "is not dialled", "add_peer"),
        (_story("banned", "detected-self"), "does not connect to itself", "other peer"),
        (_story("rejected", "max-connections"), "may try again", "raise max_connections"),
        (_story("dropped", advice="start it"), "failed too often", "start it"),
        (_story("left"), "joined again", "join the topic"),
        (_story("disconnected", via="incoming"), "it dialled us", None),
        (_story("disconnected", via="dial"), "until it is found again", "join a topic"),
        (_story("refused", "max_per_ip", "raise it", via="incoming"), "may try again", "raise it"),
    ],
)
def test_what_follows_when_nothing_is_planned(
    story: Story, next_step: str, advice: str | None
) -> None:
    for known in ([], [_candidate(CandidateState.IDLE)]):
        told = outlook(story, known, 0.0)
        assert next_step in (told.next_step or "")
        assert (told.advice is None) if advice is None else (advice in (told.advice or ""))
        assert told.state == (str(known[0].state) if known else None)


@pytest.mark.parametrize(
    ("candidate", "full", "next_step", "advice"),
    [
        (
            _candidate(CandidateState.WAITING, retries=2, due=7.5),
            "",
            "attempt 3 in 7.5 s",
            "start it",
        ),
        (_candidate(CandidateState.QUEUED), "", "when its turn comes", "start it"),
        (
            _candidate(CandidateState.QUEUED),
            "max_connections",
            "a place is free",
            "raise max_connections",
        ),
        (_candidate(CandidateState.CONNECTING), "", "its handshake", None),
        (_candidate(CandidateState.CONNECTED), "", "by another address", None),
    ],
)
def test_what_is_planned_goes_before_what_happened(
    candidate: Candidate, full: str, next_step: str, advice: str | None
) -> None:
    known = [_candidate(CandidateState.IDLE), candidate]
    told = outlook(_story("rejected", "whitelist", "start it"), known, 0.0, full=full)
    assert next_step in (told.next_step or "")
    assert told.advice == advice
    assert told.state == str(candidate.state)


# The stories themselves


async def test_a_failed_dial_is_told_once() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("x", port)
        await events.seen("connect-failed")
        story = flock.explain(port)
        steps = ["found", "staged", "dialling", "dial-failed", "retry"]
        assert [line.step for line in story.lines] == steps
        assert story.next_step == "attempt 2 in 1.0 s"
        assert "start the other side" in (story.advice or "")
        clock.turn(1.0)
        await events.seen("connect-failed", 2)
        steps += ["dialling", "dial-failed", "retry"]
        assert [line.step for line in flock.explain(port).lines] == steps


async def test_a_failure_that_the_hub_did_not_see_is_told_by_the_flock() -> None:
    async def nobody(connection: Any, info: Any) -> None:
        raise AssertionError

    async with refused_port() as port, quiet_flock(stream=nobody, clock=HandClock()) as (flock, e):
        flock.add_peer("x", port)
        await e.seen("connect-failed")
        steps = [line.step for line in flock.explain(port).lines]
        assert steps == ["found", "staged", "failed", "retry"]


async def test_a_lost_connection_is_told_once() -> None:
    clock = HandClock()
    async with quiet_flock(clock=clock) as (flock, events):
        async with quiet_flock() as (there, _):
            place = await there.listen_on()
            flock.add_peer("x", place)
            await events.seen("connection")
        await until(lambda: clock.planned)
        steps = [line.step for line in flock.explain(place).lines]
        assert steps == [
            "found",
            "staged",
            "dialling",
            "handshaking",
            "connected",
            "disconnected",
            "staged",
            "retry",
        ]


async def test_a_peer_that_is_given_up_says_what_to_do() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("x", port)
        for attempt in range(5):
            await events.seen("connect-failed", attempt + 1)
            clock.turn(15.0)
        await events.seen("drop")
        story = flock.explain(port)
        assert story.lines[-1].step == "dropped"
        assert story.next_step == "nothing, until it is found again: it failed too often"
        assert "start the other side" in (story.advice or "")


@asynccontextmanager
async def _refusing(**options: Any) -> AsyncIterator[tuple[Flock, Recorder]]:
    async with quiet_flock(clock=HandClock(), **options) as (flock, events):
        yield flock, events


PLACE = ("192.0.2.1", 3282)


async def _own_place(flock: Flock) -> Any:
    return await flock.listen_on()


async def _ban(flock: Flock) -> Any:
    flock.remove_peer("x", PLACE)
    return PLACE


async def _crowd(flock: Flock) -> Any:
    flock.add_peer("x", (PLACE[0], 1))
    return PLACE


@pytest.mark.parametrize(
    ("options", "arrange", "place", "reason", "advice"),
    [
        ({"whitelist": ["10.0.0.0/8"]}, None, PLACE, "whitelist", "to the whitelist"),
        ({}, None, ("224.0.0.1", 1), "undialable", "correct the address"),
        ({}, _own_place, None, "own-address", "where this flock listens"),
        ({}, _ban, None, None, "lift the ban by naming the peer with add_peer"),
        (
            {"limits": Limits(max_ports_per_host=1, max_dials=0)},
            _crowd,
            None,
            "too-many-ports",
            "raise Limits.max_ports_per_host",
        ),
    ],
)
async def test_a_refused_peer_says_what_to_do(
    options: dict[str, Any],
    arrange: Callable[[Flock], Awaitable[Any]] | None,
    place: Any,
    reason: str | None,
    advice: str,
) -> None:
    async with _refusing(**options) as (flock, _):
        if arrange is not None:
            place = await arrange(flock)
        if reason is not None:
            assert not flock.add_peer("x", place)
            assert flock.explain(place).lines[-1].reason == reason
        story = flock.explain(place)
        assert advice in (story.advice or "")
        assert "call connect" not in (story.next_step or "nothing is said")


async def test_who_is_not_let_in_has_a_story_under_its_place_and_its_host() -> None:
    async with (
        quiet_flock(clock=HandClock()) as (there, _),
        _refusing(whitelist=["10.0.0.1"]) as (
            flock,
            events,
        ),
    ):
        there.add_peer("x", await flock.listen_on())
        rejected = await events.seen("peer-rejected")
        story = flock.explain(rejected.peer)
        assert [line.text for line in story.lines] == [
            f"not accepted: {HOST} is not on the whitelist"
        ]
        assert "whitelist" in (story.advice or "")
        await until(lambda: there.entries()[0].state is CandidateState.WAITING)
        theirs = there.explain(flock.addresses[0])
        assert "whether the other side lets this host in" in (theirs.advice or "")
        assert (theirs.next_step or "").startswith("attempt 2 in")


async def test_a_full_flock_says_which_limit_to_raise() -> None:
    async with AsyncExitStack() as stack:
        b, _ = await stack.enter_async_context(quiet_flock())
        c, _ = await stack.enter_async_context(quiet_flock(clock=HandClock()))
        a, events = await stack.enter_async_context(quiet_flock(max_connections=1))
        a.add_peer("x", await b.listen_on())
        await events.seen("connection")
        a.add_peer("x", place := await c.listen_on())
        queued = a.explain(place)
        assert (queued.state, queued.advice) == ("queued", "raise max_connections of the flock")
        c.add_peer("x", await a.listen_on())
        rejected = await events.seen("peer-rejected")
        assert "max_connections" in (a.explain(rejected.peer).advice or "")
        assert a.explain(b.addresses[0]).next_step == "nothing: 1 session open"


async def test_a_wrong_key_and_a_mute_peer_have_their_advice() -> None:
    clock = HandClock()
    async with (
        mute_listener() as mute,
        quiet_flock() as (there, _),
        quiet_flock(clock=clock, limits=Limits(handshake_timeout=0.05)) as (flock, _),
    ):
        host, port = await there.listen_on()
        wrong = Address.net(host, port, "noise", KeyPair.from_seed(b"\x09" * 32).public_key)
        flock.add_peer("x", wrong)
        flock.add_peer("x", mute)
        await until(lambda: len(clock.planned) == 2)
        for peer, step, advice in (
            (wrong, "handshake-failed", "check the key"),
            (mute, "handshake-failed", "check that covey, and not another program"),
        ):
            story = flock.explain(peer)
            assert [line.step for line in story.lines][-2:] == [step, "retry"]
            assert advice in (story.advice or "")
            assert story.next_step == "attempt 2 in 1.0 s"


async def test_who_fails_our_handshake_has_a_story_under_its_host() -> None:
    async with quiet_flock(clock=HandClock()) as (flock, events):
        from tests.flock.test_hostile import stranger

        _, port = await flock.listen_on()
        async with stranger(port, b"GET / HTTP/1.1\r\n\r\n" * 9):
            closed = await events.seen("connection-closed")
        story = flock.explain((closed.info.host, closed.info.port))
        assert [line.step for line in story.lines] == ["handshake-failed"]
        assert story.next_step == "nothing from this side: the peer may try again"
        assert story.lines[0].fields["error"].kind == "HandshakeError"


async def test_asked_by_key_the_flocks_plans_are_told_too() -> None:
    clock = HandClock()
    async with quiet_flock(clock=clock) as (flock, events):
        async with quiet_flock() as (there, _):
            key = there.hub.public_key or b""
            flock.add_peer("x", await there.listen_on())
            await events.seen("connection")
            assert flock.explain(key).state == "connected"
        await until(lambda: clock.planned)
        story = flock.explain(key)
        assert (story.state, story.next_step) == ("waiting", "attempt 2 in 1.0 s")


async def test_who_dialled_us_and_left_may_come_again() -> None:
    async with quiet_flock() as (flock, events):
        async with quiet_flock() as (there, _):
            there.add_peer("x", await flock.listen_on())
            came = await events.seen("connection")
        await events.seen("connection-closed")
        story = flock.explain(came.connection.remote_key)
        assert story.next_step == "nothing from this side: it dialled us, and may do so again"


async def test_a_peer_of_a_topic_that_was_left_says_so() -> None:
    clock = HandClock()
    async with refused_port() as port, quiet_flock(clock=clock) as (flock, events):
        flock.add_peer("x", port)
        await events.seen("connect-failed")
        flock.leave("x")
        story = flock.explain(port)
        assert (story.lines[-1].step, story.state) == ("left", None)
        assert story.next_step == "nothing, until its topic is joined again"
