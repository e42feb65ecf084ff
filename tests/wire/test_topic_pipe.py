"""Two sides of a pipe in memory: credit, ends, confirmations, and every rule a peer can break."""

from __future__ import annotations

import hashlib
import random

import pytest

from covey.errors import DecodeError, ProtocolError, UsageError
from covey.wire import topic_pipe
from covey.wire.encoding import encode_uint
from covey.wire.topic_pipe import (
    BUSY,
    CREDIT,
    CREDIT_STEP,
    DATA,
    END,
    MAX_CHUNK,
    MAX_REASON,
    RECEIVED,
    SIZE,
    STOP,
    WINDOW,
    Busy,
    Confirmed,
    CreditReceived,
    DataReceived,
    Hello,
    RemoteEnded,
    SizeTold,
    Stopped,
    TopicPipe,
    size_message,
    stop_message,
)
from covey.wire.topic_proof import TopicSecret


def deliver(message: topic_pipe.Message, to: TopicPipe) -> topic_pipe.PipeEvent:
    return to.receive(message[0], bytes(message[1]))


def summary(data: bytes) -> bytes:
    return encode_uint(len(data)) + hashlib.sha256(data).digest()


@pytest.mark.parametrize("size", [None, 0, 1, 252, 2**40])
def test_hello_tells_proof_and_size(size: int | None) -> None:
    told = Hello(bytes(range(32)), size, 5, WINDOW + 3)
    assert Hello.decode(told.encode()) == told


def test_hello_of_two_sides_is_accepted() -> None:
    secret = TopicSecret.from_text("orchard")
    proof = secret.prove(bytes(64), is_initiator=True)
    there = Hello.decode(TopicPipe().hello(proof, size=7).encode())
    assert secret.accepts(there.proof, bytes(64), is_initiator=False)
    assert there.size == 7


@pytest.mark.parametrize("data", [b"", bytes(32), bytes(32) + b"\xfd\x00", bytes(32) + b"\xff"])
def test_a_short_hello_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Hello.decode(data)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_arrive_both_ways_and_are_confirmed(seed: int) -> None:
    rng = random.Random(seed)
    sides = TopicPipe(), TopicPipe()
    todo = [bytearray(rng.randbytes(rng.randrange(3 * WINDOW // 2))) for _ in sides]
    wanted = [bytes(data) for data in todo]
    got = [bytearray(), bytearray()]
    wires: list[list[topic_pipe.Message]] = [[], []]
    unwritten = [0, 0]
    while not all(side.done for side in sides):
        here = rng.randrange(2)
        side, there = sides[here], 1 - here
        if todo[here] and side.room:
            chunk = bytes(todo[here][: min(side.room, rng.randrange(1, MAX_CHUNK + 1))])
            del todo[here][: len(chunk)]
            wires[there].append(side.send_data(chunk))
        elif not todo[here] and not side.ended:
            wires[there].append(side.send_end())
        while wires[here] and rng.random() < 0.9:
            event = deliver(wires[here].pop(0), side)
            if isinstance(event, DataReceived):
                got[here] += event.data
                unwritten[here] += len(event.data)
        if unwritten[here] and rng.random() < 0.7:
            wires[there] += side.written(unwritten[here])
            unwritten[here] = 0
        wires[there] += side.confirm()
    assert [bytes(data) for data in got] == [wanted[1], wanted[0]]


def test_a_sender_stops_at_the_window_and_goes_on_with_credit() -> None:
    sender, receiver = TopicPipe(), TopicPipe()
    chunk = bytes(MAX_CHUNK)
    while sender.room > 0:
        deliver(sender.send_data(chunk), receiver)
    with pytest.raises(UsageError):
        sender.send_data(b"x")
    (credit,) = receiver.written(WINDOW)
    assert deliver(credit, sender) == CreditReceived()
    assert sender.room == WINDOW


def test_data_past_the_credit_is_the_remotes_fault() -> None:
    receiver = TopicPipe()
    for _ in range(WINDOW // MAX_CHUNK):
        receiver.receive(DATA, bytes(MAX_CHUNK))
    with pytest.raises(ProtocolError, match="credit"):
        receiver.receive(DATA, b"x")


def test_nothing_is_confirmed_before_it_is_written() -> None:
    receiver = TopicPipe()
    receiver.receive(DATA, b"abc")
    assert receiver.receive(END, summary(b"abc")) == RemoteEnded(3)
    assert list(receiver.confirm()) == []
    receiver.written(3)
    assert list(receiver.confirm()) == [(RECEIVED, summary(b"abc"))]
    assert list(receiver.confirm()) == []


def test_the_confirmation_ends_the_senders_half() -> None:
    sender = TopicPipe()
    sender.send_data(b"abc")
    sender.send_end()
    assert sender.receive(RECEIVED, summary(b"abc")) == Confirmed(3)
    assert sender.confirmed
    assert not sender.done


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (7, b""),
        (SIZE, b""),
        (STOP, bytes(MAX_REASON + 1)),
        (DATA, b""),
        (DATA, bytes(MAX_CHUNK + 1)),
        (CREDIT, b""),
        (CREDIT, encode_uint(WINDOW - 1)),
        (CREDIT, encode_uint(WINDOW + 1)),
        (END, b""),
        (END, summary(b"other")),
        (END, summary(b"")[:-1]),
        (RECEIVED, summary(b"")),
    ],
)
def test_a_broken_rule_is_a_protocol_error(kind: int, payload: bytes) -> None:
    with pytest.raises(ProtocolError):
        TopicPipe().receive(kind, payload)


def test_after_its_end_the_remote_may_not_go_on() -> None:
    receiver = TopicPipe()
    receiver.receive(END, summary(b""))
    for kind, payload in ((DATA, b"x"), (END, summary(b"x"))):
        with pytest.raises(ProtocolError):
            receiver.receive(kind, payload)


def test_a_confirmation_of_other_bytes_is_refused() -> None:
    sender = TopicPipe()
    sender.send_data(b"abc")
    sender.send_end()
    with pytest.raises(ProtocolError):
        sender.receive(RECEIVED, summary(b"abd"))


def test_garbage_raises_only_protocol_errors() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        side = TopicPipe()
        try:
            side.receive(rng.randrange(8), rng.randbytes(rng.randrange(50)))
        except ProtocolError:
            continue


def test_a_caller_cannot_send_after_its_end() -> None:
    side = TopicPipe()
    side.send_end()
    with pytest.raises(UsageError):
        side.send_data(b"x")
    with pytest.raises(UsageError):
        side.send_end()


@pytest.mark.parametrize("seed", range(30))
def test_a_lost_connection_goes_on_where_it_was(seed: int) -> None:
    rng = random.Random(seed)
    sides = TopicPipe(), TopicPipe()
    todo = [bytearray(rng.randbytes(rng.randrange(WINDOW))) for _ in sides]
    wanted = [bytes(data) for data in todo]
    got = [bytearray(), bytearray()]
    unwritten = [0, 0]
    wires: list[list[topic_pipe.Message]] = [[], []]
    while not all(side.done for side in sides):
        if rng.random() < 0.02:  # all that is under way is lost
            for _ in range(rng.randrange(3)):
                sides[rng.randrange(2)].hello(bytes(32))  # a connection that comes to nothing
            first, second = (side.hello(bytes(32)) for side in sides)
            wires = [list(sides[1].resume(first, second)), list(sides[0].resume(second, first))]
        here = rng.randrange(2)
        side, there = sides[here], 1 - here
        if todo[here] and side.room:
            chunk = bytes(todo[here][: min(side.room, rng.randrange(1, MAX_CHUNK + 1))])
            del todo[here][: len(chunk)]
            wires[there].append(side.send_data(chunk))
        elif not todo[here] and not side.ended:
            wires[there].append(side.send_end())
        if wires[here]:
            event = deliver(wires[here].pop(0), side)
            if isinstance(event, DataReceived):
                got[here] += event.data
                unwritten[here] += len(event.data)
        if unwritten[here] and rng.random() < 0.5:
            wires[there] += side.written(unwritten[here])
            unwritten[here] = 0
        wires[there] += side.confirm()
    assert [bytes(data) for data in got] == [wanted[1], wanted[0]]


@pytest.mark.parametrize("hello", [Hello(bytes(32), None, 1), Hello(bytes(32), None, 0, 0)])
def test_a_hello_that_does_not_fit_is_refused(hello: Hello) -> None:
    with pytest.raises(ProtocolError):
        TopicPipe().resume(hello, Hello(bytes(32)))


def test_what_is_written_out_is_not_kept() -> None:
    sender, receiver = TopicPipe(), TopicPipe()
    chunk = bytes(MAX_CHUNK)
    for _ in range(5 * WINDOW // MAX_CHUNK):
        deliver(sender.send_data(chunk), receiver)
        for message in receiver.written(MAX_CHUNK):
            deliver(message, sender)
    assert sum(map(len, sender._kept)) <= topic_pipe.CREDIT_STEP


def test_a_side_that_gives_up_says_why() -> None:
    assert deliver(stop_message("no space"), TopicPipe()) == Stopped("no space")
    assert deliver(stop_message("x" * 999), TopicPipe()) == Stopped("x" * MAX_REASON)


def test_a_reason_cannot_command_a_terminal() -> None:
    told = TopicPipe().receive(STOP, b"\x1b[2Jboo\n\xff")
    assert told == Stopped("?[2Jboo?\ufffd")


def test_a_busy_side_says_so() -> None:
    assert TopicPipe().receive(BUSY, b"") == Busy()


def test_what_is_written_between_hello_and_resume_is_credited() -> None:
    sender, receiver = TopicPipe(), TopicPipe()
    while sender.room > 0:
        deliver(sender.send_data(bytes(MAX_CHUNK)), receiver)
    hello, other = receiver.hello(bytes(32)), sender.hello(bytes(32))
    receiver.written(WINDOW)  # there is no link now: what it returns cannot be sent
    sender.resume(hello, other)
    assert sender.room == 0
    for message in receiver.resume(other, hello):
        deliver(message, sender)
    assert sender.room == WINDOW


def test_progress_is_what_both_sides_have_behind_them() -> None:
    sender, receiver = TopicPipe(), TopicPipe()
    message = sender.send_data(bytes(MAX_CHUNK))
    assert (sender.progress, sender.untouched) == (0, False)
    assert receiver.untouched
    deliver(message, receiver)
    assert (receiver.progress, receiver.untouched) == (MAX_CHUNK, False)
    for _ in range(CREDIT_STEP // MAX_CHUNK):
        deliver(sender.send_data(bytes(MAX_CHUNK)), receiver)
    for credit in receiver.written(receiver.received):
        deliver(credit, sender)
    assert sender.progress == sender.sent


def test_hellos_that_come_to_nothing_take_no_credit_away() -> None:
    sender, receiver = TopicPipe(), TopicPipe()
    for _ in range(4 * WINDOW // MAX_CHUNK):
        deliver(sender.send_data(bytes(MAX_CHUNK)), receiver)
        receiver.hello(bytes(32))
        for credit in receiver.written(MAX_CHUNK):
            deliver(credit, sender)
    assert sender.room > WINDOW - CREDIT_STEP


def test_a_hello_alone_does_not_raise_what_the_remote_may_send() -> None:
    receiver = TopicPipe()
    for _ in range(WINDOW // MAX_CHUNK):
        receiver.receive(DATA, bytes(MAX_CHUNK))
    receiver.written(CREDIT_STEP - 1)
    receiver.hello(bytes(32))
    with pytest.raises(ProtocolError, match="credit"):
        receiver.receive(DATA, b"x")


@pytest.mark.parametrize("size", [0, 1, 2**40])
def test_the_size_is_told_in_a_message_of_its_own(size: int) -> None:
    assert deliver(size_message(size), TopicPipe()) == SizeTold(size)
