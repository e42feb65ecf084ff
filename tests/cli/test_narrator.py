"""What is told of a flock's events: every one of them, in words and as data."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from covey.cli.narrator import Brief, line_of, narrate
from covey.cli.output import Output
from covey.errors import ProtocolError, SelfConnection
from covey.events import EventStream
from covey.flock.events import (
    ConnectionClosed,
    ConnectionInfo,
    FlockEvent,
    Peer,
    PeerBanned,
    PeerDropped,
    PeerRejected,
)
from covey.flock.policy import Reason
from covey.net.close_reason import CloseReason

CONNECTION = SimpleNamespace(
    id=7,
    remote_address=("127.0.0.1", 9),
    initiator=True,
    type="tcp",
    handshake="noise",
    remote_key=bytes(32),
)
VALUES: dict[str, object] = {
    "peer": Peer("127.0.0.1", 9, b"x"),
    "info": ConnectionInfo(1, "tcp", True, "127.0.0.1", 9),
    "connection": CONNECTION,
    "reason": Reason.UNDIALABLE,
    "text": "in words",
    "cause": "the first is kept",
    "timedout": False,
    "error": ProtocolError("bad"),
    "host": "127.0.0.1",
    "port": 9,
}
"""What an event may have in its fields, by name."""


def one_of_each() -> list[FlockEvent]:
    """An event of each kind, with every field that `VALUES` has something for."""
    return [
        kind(**{name: VALUES[name] for name in kind.__dataclass_fields__ if name in VALUES})
        for kind in get_args(FlockEvent)
    ]


async def told(events: list[FlockEvent], *, as_json: bool, who: str = "") -> list[str]:
    """The lines that `narrate` has for `events`, up to the end of their stream."""
    stream: EventStream[FlockEvent] = EventStream()
    heard, lines = stream.listen(), io.StringIO()
    for event in events:
        stream.publish(event)
    stream.close()
    await narrate(heard, Output(as_json=as_json, stream=lines), who=who)
    return lines.getvalue().splitlines()


@pytest.mark.parametrize("who", ["", "ada"])
async def test_every_event_of_a_flock_is_told_in_words(who: str) -> None:
    events = one_of_each()
    lines = await told(events, as_json=False, who=who)
    assert len(lines) == len(events)
    assert all(f"s  {who}" in line for line in lines)


@pytest.mark.parametrize("who", ["", "ada"])
async def test_every_event_of_a_flock_is_told_as_data(who: str) -> None:
    events = one_of_each()
    records: list[dict[str, Any]] = [
        json.loads(line) for line in await told(events, as_json=True, who=who)
    ]
    assert [record["type"] for record in records] == [event.type for event in events]
    for record, event in zip(records, events, strict=True):
        assert set(event.__dataclass_fields__) <= set(record)
        assert record.get("who", "") == who


async def test_a_rejected_peer_does_not_end_the_narration() -> None:
    rejected = PeerRejected(Peer("h", 1, b"x"), Reason.UNDIALABLE, "nothing is there")
    lines = await told([rejected, rejected], as_json=False)
    assert [line.partition("s  ")[2] for line in lines] == ["rejected h:1: nothing is there"] * 2
    first, _ = map(json.loads, await told([rejected, rejected], as_json=True))
    assert (first["reason"], first["text"]) == ("undialable", "nothing is there")


SELF = SelfConnection("this very node")
INFO = ConnectionInfo(1, "tcp", False, "10.0.0.5", 40123)


def test_one_key_on_both_sides_stays_the_trouble_whatever_follows() -> None:
    brief = Brief(own_key=True)
    told = brief.text(PeerBanned(Peer("10.0.0.5", 9, b"x"), Reason.DETECTED_SELF))
    assert told.startswith("10.0.0.5 proves the very key of this side: ")
    assert brief.text(ConnectionClosed(INFO, error=SELF)) == ""
    brief.text(ConnectionClosed(INFO, error=ProtocolError("bad")))
    assert brief.trouble == "10.0.0.5 proves the very key of this side"
    assert "--key" in brief.advice


def test_who_is_called_by_its_own_key_says_so_too() -> None:
    brief = Brief(own_key=True)
    assert "proves the very key" in brief.text(ConnectionClosed(INFO, error=SELF))
    assert "--key" in brief.advice


def test_who_meets_itself_under_a_fresh_key_says_nothing() -> None:
    brief = Brief()
    assert brief.text(PeerBanned(Peer("10.0.0.5", 9, b"x"), Reason.DETECTED_SELF)) == ""
    assert brief.text(ConnectionClosed(INFO, error=SELF)) == ""
    assert (brief.trouble, brief.advice) == ("", "")


@pytest.mark.parametrize(
    ("reason", "text", "error", "line"),
    [
        (CloseReason.LOCAL, "I am bored", None, "closed: I am bored"),
        (CloseReason.REMOTE_END, "remote-end", None, "closed: the other side ended it"),
        (CloseReason.PROTOCOL, "bad", ProtocolError("bad"), "closed: bad"),
        (None, "", ProtocolError("bad"), "closed: bad"),
        (None, "", None, "closed"),
    ],
)
def test_the_end_of_a_connection_says_why(
    reason: CloseReason | None, text: str, error: Exception | None, line: str
) -> None:
    event = ConnectionClosed(INFO, error=error, reason=reason, text=text)
    assert line_of(event) == f"connection with 10.0.0.5:40123 {line}"


@pytest.mark.parametrize("reason", CloseReason)
def test_no_reason_to_close_is_told_by_its_name_alone(reason: CloseReason) -> None:
    told = line_of(ConnectionClosed(INFO, reason=reason, text=str(reason)))
    assert told.partition(" closed: ")[2] not in ("", str(reason))


def test_a_peer_that_is_given_up_says_why() -> None:
    dropped = PeerDropped(Peer("h", 1, b"x", retries=5), ProtocolError("bad"))
    assert line_of(dropped) == "gave up h:1 after 5 attempts: bad"


async def test_programs_are_told_why_a_connection_ended() -> None:
    closed = ConnectionClosed(INFO, reason=CloseReason.LOCAL, text="I am bored")
    (line,) = await told([closed], as_json=True)
    record = json.loads(line)
    assert (record["reason"], record["text"]) == ("local", "I am bored")
