"""The DNS messages of the vectors as our own objects."""

from __future__ import annotations

from typing import Any

from covey.wire.dns_messages import (
    TYPE_NAMES,
    Message,
    Question,
    Record,
    RecordData,
    Service,
)

TYPES = {name: number for number, name in TYPE_NAMES.items()}


def message_of(case: dict[str, Any]) -> Message:
    """The `message` of a vector."""
    return Message(
        id=case["id"],
        response=case["type"] == "response",
        flags=case["flags"],
        questions=tuple(Question(q["name"], TYPES[q["type"]]) for q in case["questions"]),
        answers=tuple(map(record_of, case["answers"])),
        authorities=tuple(map(record_of, case.get("authorities", []))),
        additionals=tuple(map(record_of, case["additionals"])),
    )


def record_of(case: dict[str, Any]) -> Record:
    """A record of a vector."""
    data: RecordData
    match case["type"], case["data"]:
        case "TXT", list(strings):
            data = tuple(text.encode() for text in strings)
        case "SRV", dict(service):
            data = Service(**service)
        case _, given:
            data = given
    return Record(case["name"], TYPES[case["type"]], data, case["ttl"])
