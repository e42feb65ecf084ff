from __future__ import annotations

from covey.flock.events import ConnectionClosed, ConnectionInfo, FlockEvent
from covey.flock.self_meetings import PATIENCE, SelfMeetings
from tests.flock.support import HandClock


def closed(*, initiator: bool) -> ConnectionClosed:
    info = ConnectionInfo(
        attempt=1, type="tcp", initiator=initiator, host="h", port=1, channel=None
    )
    return ConnectionClosed(info, None, None)


IN, OUT = closed(initiator=False), closed(initiator=True)


def meetings(*, dialling: int, accepting: int) -> tuple[SelfMeetings, list[FlockEvent], HandClock]:
    told: list[FlockEvent] = []
    clock = HandClock()
    selves = SelfMeetings(clock, told.append, dialling=range(dialling), accepting=range(accepting))
    return selves, told, clock


def test_whichever_end_notices_first_the_accepted_one_is_told_first() -> None:
    selves, told, clock = meetings(dialling=1, accepting=1)
    selves.dialled(OUT)
    selves.accepted(IN)
    selves.accepted(IN)
    selves.dialled(OUT)
    assert told == [IN, OUT, IN, OUT]
    assert clock.planned == []


def test_an_end_that_is_alone_is_told_at_once() -> None:
    selves, told, _ = meetings(dialling=0, accepting=0)
    selves.accepted(IN)
    selves.dialled(OUT)
    assert told == [IN, OUT]


def test_an_end_waits_for_the_other_only_so_long() -> None:
    selves, told, clock = meetings(dialling=1, accepting=1)
    selves.dialled(OUT)
    assert told == []
    clock.turn(PATIENCE)
    assert told == [OUT]


def test_what_waits_is_told_when_the_flock_ends() -> None:
    selves, told, clock = meetings(dialling=1, accepting=0)
    selves.accepted(IN)
    selves.flush()
    assert told == [IN]
    assert clock.planned == []
