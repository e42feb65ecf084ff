"""What is told of a flock's events: every one of them, in words and as data."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any, get_args

import pytest

from covey.cli.narrator import narrate
from covey.cli.output import Output
from covey.errors import ProtocolError
from covey.events import EventStream
from covey.flock.events import ConnectionInfo, FlockEvent, Peer, PeerRejected
from covey.flock.policy import Reason

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
