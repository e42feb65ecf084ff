"""Streams that multiply before they have to: the same bytes, sooner; one stream a handshake."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from covey.errors import HandshakeError, UsageError
from covey.keys import KeyPair
from covey.wire import noise
from covey.wire.noise import HandshakeState
from covey.wire.secret_stream import SecretStream
from covey.wire.session import Opened, WorkLeft
from covey.wire.stream_opening import Ahead

PAIRS = {True: KeyPair.from_seed(b"i" * 32), False: KeyPair.from_seed(b"r" * 32)}
SEEDS = {True: b"1" * 32, False: b"2" * 32}
M1, M2, BEGINNING = 35, 99, 35


def fixed(size: int) -> bytes:
    return b"h" * size


def made(is_initiator: bool) -> HandshakeState:
    return HandshakeState(
        "XX",
        is_initiator=is_initiator,
        key_pair=PAIRS[is_initiator],
        ephemeral_seed=SEEDS[is_initiator],
    )


def stream(
    is_initiator: bool,
    *,
    ahead: bool = True,
    likely: bytes | None = None,
    idle: Callable[[], object] = lambda: None,
    pin: bytes | None = None,
) -> SecretStream:
    def seed(size: int) -> bytes:
        return SEEDS[is_initiator] if size == 32 else fixed(size)

    session = SecretStream(
        is_initiator=is_initiator,
        key_pair=PAIRS[is_initiator],
        now=0.0,
        random_bytes=seed,
        remote_public_key=pin,
        ahead=Ahead(made(is_initiator), idle) if ahead else None,
    )
    session.likely_key = session.likely_key or likely
    return session


def taken(session: SecretStream) -> bytes:
    return b"".join(session.data_to_send())


@pytest.fixture
def multiplied(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The points that were multiplied, in order."""
    points: list[bytes] = []
    real = noise.shared_secret

    def shared_secret(scalar: bytes, point: bytes) -> bytes:
        points.append(point)
        return real(scalar, point)

    monkeypatch.setattr(noise, "shared_secret", shared_secret)
    return points


def transcript(left: SecretStream, right: SecretStream) -> tuple[bytes, bytes]:
    """What both sides say until nobody has anything left, chunks as they leave."""
    said = {True: b"", False: b""}
    events = {True: left.take_events(), False: right.take_events()}
    moving = True
    while moving:
        moving = False
        for me, other in ((left, right), (right, left)):
            role = me.is_initiator
            if data := taken(me):
                said[role] += data
                events[not role] += other.receive_data(data, 0.0)
                moving = True
            if any(isinstance(event, WorkLeft) for event in events[role]):
                events[role] = me.work()
                moving = True
    return said[True], said[False]


@pytest.mark.parametrize(
    "likely", [None, PAIRS[False].public_key, PAIRS[True].public_key, b"x" * 32]
)
def test_the_bytes_are_the_same(likely: bytes | None) -> None:
    plain = transcript(stream(True, ahead=False), stream(False, ahead=False))
    left, right = stream(True, likely=likely), stream(False, likely=likely)
    assert transcript(left, right) == plain
    assert left.opened
    assert right.opened
    assert left.handshake_hash == right.handshake_hash
    assert transcript(stream(True), stream(False, ahead=False)) == plain
    assert transcript(stream(True, ahead=False), stream(False)) == plain


def test_the_ephemeral_key_leaves_before_anything_is_multiplied(multiplied: list[bytes]) -> None:
    right = stream(False)
    assert right.receive_data(taken(stream(True)), 0.0) == [WorkLeft()]
    assert len(taken(right)) == BEGINNING
    assert multiplied == []
    assert right.work() == [WorkLeft()]
    assert len(multiplied) == 2
    assert len(taken(right)) == M2 - BEGINNING


def test_the_beginning_is_multiplied_while_the_rest_is_on_its_way(multiplied: list[bytes]) -> None:
    left, right = stream(True, likely=PAIRS[False].public_key), stream(False, ahead=False)
    left.work()
    assert multiplied == [PAIRS[False].public_key]
    right.receive_data(taken(left), 0.0)
    answer = taken(right)
    multiplied.clear()
    left.receive_data(answer[: BEGINNING - 1], 0.0)
    assert multiplied == []
    for size in range(BEGINNING, M2):
        left.receive_data(answer[size - 1 : size], 0.0)
    assert multiplied == [answer[3:BEGINNING]] * 2
    events = left.receive_data(answer[M2 - 1 :], 0.0)
    assert len(multiplied) == 2, "nothing is left to multiply"
    assert isinstance(events[0], Opened)


def test_who_answered_multiplies_by_the_likely_key_while_it_waits(multiplied: list[bytes]) -> None:
    left, right = stream(True, ahead=False), stream(False, likely=PAIRS[True].public_key)
    right.receive_data(taken(left), 0.0)
    right.work()
    left.receive_data(taken(right), 0.0)
    multiplied.clear()
    right.work()
    assert multiplied == [PAIRS[True].public_key]
    events = right.receive_data(taken(left), 0.0)
    assert len(multiplied) == 1, "nothing is left to multiply"
    assert isinstance(events[0], Opened)


@pytest.mark.parametrize("me", [True, False])
def test_a_wrong_guess_lets_nobody_else_in(me: bool) -> None:
    left, right = (stream(role, likely=PAIRS[me].public_key) for role in (True, False))
    transcript(left, right)
    assert left.remote_public_key == PAIRS[False].public_key
    assert right.remote_public_key == PAIRS[True].public_key


def test_the_pinned_key_counts_also_when_made_ahead() -> None:
    left, right = stream(True, pin=b"k" * 32), stream(False)
    with pytest.raises(HandshakeError, match="another key"):
        transcript(left, right)


def test_a_handshake_made_ahead_serves_one_stream() -> None:
    for is_initiator in (True, False):
        ahead = Ahead(made(is_initiator), lambda: None)
        for use in range(2):

            def begin(ahead: Ahead = ahead, role: bool = is_initiator) -> SecretStream:
                return SecretStream(
                    is_initiator=role,
                    key_pair=PAIRS[role],
                    now=0.0,
                    random_bytes=fixed,
                    ahead=ahead,
                )

            if use == 0:
                begin()
                continue
            with pytest.raises(UsageError, match="serves one stream"):
                begin()


def test_a_handshake_made_ahead_keeps_its_role() -> None:
    with pytest.raises(UsageError, match="role"):
        made(True).begin(is_initiator=False)


def test_idle_is_called_once_by_each_side_when_it_waits_for_the_last_time() -> None:
    calls: list[str] = []
    left = stream(True, idle=lambda: calls.append("initiator"))
    right = stream(False, idle=lambda: calls.append("responder"))
    left.work()
    assert calls == []
    transcript(left, right)
    for _ in range(4):
        left.work()
        right.work()
    assert calls == ["responder", "initiator"]


def test_what_follows_the_first_message_at_once_is_judged_as_the_third() -> None:
    right = stream(False)
    with pytest.raises(HandshakeError):
        right.receive_data(taken(stream(True)) + b"\x01\x00\x00", 0.0)
    assert len(taken(right)) == M2


def test_a_bad_point_is_found_by_the_work_that_was_put_off() -> None:
    right = stream(False)
    right.receive_data(b"\x20\x00\x00" + bytes(32), 0.0)
    with pytest.raises(HandshakeError, match="no valid public key"):
        right.work()
    with pytest.raises(HandshakeError, match="no valid public key"):
        right.receive_data(b"x", 0.0)
    assert right.work() is not None


def test_a_bad_point_at_the_beginning_ends_the_handshake() -> None:
    left = stream(True)
    with pytest.raises(HandshakeError, match="no valid public key"):
        left.receive_data(b"\x60\x00\x00" + bytes(32), 0.0)
