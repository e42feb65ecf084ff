"""Two secret streams in memory, and a clock-free way to carry bytes between them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from covey.keys import KeyPair
from covey.limits import Limits
from covey.wire.secret_stream import SecretStream
from covey.wire.session import Ended, MessagesReceived, Opened, Session, SessionEvent

NO_TIMERS = Limits(keep_alive=0, idle_timeout=0)

INITIATOR = KeyPair.from_seed(b"i" * 32)
RESPONDER = KeyPair.from_seed(b"r" * 32)


def seeded_bytes(seed: int) -> Callable[[int], bytes]:
    """Random bytes that are the same in every run."""
    return random.Random(seed).randbytes


def scripted_bytes(*values: bytes) -> Callable[[int], bytes]:
    """The values in order; fails when another size is asked for."""
    rest = list(values)

    def take(size: int) -> bytes:
        value = rest.pop(0)
        assert len(value) == size
        return value

    return take


def make_stream(*, is_initiator: bool, **options: Any) -> SecretStream:
    settings: dict[str, Any] = {
        "key_pair": INITIATOR if is_initiator else RESPONDER,
        "now": 0.0,
        "random_bytes": seeded_bytes(1 if is_initiator else 2),
        "limits": NO_TIMERS,
    }
    return SecretStream(is_initiator=is_initiator, **(settings | options))


def make_pair(
    *, receiving: Limits | None = None, **options: Any
) -> tuple[SecretStream, SecretStream]:
    """Both ends; `receiving` are limits of the right one alone."""
    left = make_stream(is_initiator=True, **options)
    if receiving is not None:
        options["limits"] = receiving
    return left, make_stream(is_initiator=False, **options)


def take(session: Session) -> bytes:
    return b"".join(session.data_to_send())


def carry(
    left: Session, right: Session, *, now: float = 0.0, chunk: int = 1 << 30
) -> tuple[list[SessionEvent], list[SessionEvent]]:
    """Carry bytes both ways until there are none; the events of the left and of the right."""
    events: tuple[list[SessionEvent], list[SessionEvent]] = ([], [])
    while True:
        rightward, leftward = take(left), take(right)
        if not rightward and not leftward:
            return events
        for start in range(0, len(rightward), chunk):
            events[1].extend(right.receive_data(rightward[start : start + chunk], now))
        for start in range(0, len(leftward), chunk):
            events[0].extend(left.receive_data(leftward[start : start + chunk], now))


def open_pair(**options: Any) -> tuple[SecretStream, SecretStream]:
    """A pair that is open, with both header frames exchanged."""
    left, right = make_pair(**options)
    carry(left, right)
    assert left.opened
    assert right.opened
    return left, right


def messages_of(events: list[SessionEvent]) -> list[bytes]:
    return [
        message
        for event in events
        if isinstance(event, MessagesReceived)
        for message in event.messages
    ]


def flat(events: list[SessionEvent]) -> list[object]:
    """Events with messages one by one, so that grouping does not matter."""
    out: list[object] = []
    for event in events:
        out.extend(event.messages if isinstance(event, MessagesReceived) else [event])
    return out


__all__ = [
    "INITIATOR", "NO_TIMERS", "RESPONDER", "Ended", "Opened", "carry", "flat", "make_pair",
    "make_stream", "messages_of", "open_pair", "scripted_bytes", "seeded_bytes", "take",
]  # fmt: skip
