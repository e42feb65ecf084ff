"""The shell against a toy session and a toy transport: no sockets, no clock but the loop's."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from covey.errors import CoveyError, HandshakeError, HandshakeTimeout, ProtocolError
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from covey.net.stream_shell import StreamShell
from covey.wire.session import Buffer, Ended, MessagesReceived, Opened, SessionEvent, TimedOut

OPENED = Opened(b"k" * 32, None, b"h" * 64)


class ToySession:
    """Says what the test wrote down for each chunk; sends what it is told to."""

    def __init__(self, tell: list[object]) -> None:
        self.tell = tell
        self.script: dict[bytes, list[SessionEvent] | CoveyError] = {}
        self.out: list[Buffer] = []
        self.timer: float | None = None
        self.due: list[SessionEvent] = []
        self.is_open = False
        self.asked = 0
        self.left: list[SessionEvent] = []

    @property
    def opened(self) -> bool:
        return self.is_open

    def receive_data(self, data: Buffer, now: float) -> list[SessionEvent]:
        self.tell.append(("feed", bytes(data)))
        outcome = self.script[bytes(data)]
        if isinstance(outcome, CoveyError):
            raise outcome
        self.is_open = self.is_open or Opened in map(type, outcome)
        return outcome

    def receive_eof(self, now: float) -> list[SessionEvent]:
        return [Ended(truncated=False)]

    def take_events(self) -> list[SessionEvent]:
        events, self.left = self.left, []
        return events

    def send_messages(self, messages: list[Buffer]) -> None:
        self.out += messages

    def data_to_send(self) -> list[Buffer]:
        out, self.out = self.out, []
        return out

    def next_timer(self) -> float | None:
        self.asked += 1
        return self.timer

    def handle_timer(self, now: float) -> list[SessionEvent]:
        self.tell.append("timer")
        self.timer = None
        return self.due


class ToyTransport:
    """Writes down what is done with it."""

    def __init__(self, tell: list[object]) -> None:
        self.tell = tell
        self.waiting = 0
        self.marks: tuple[int, int | None] = (0, 0)

    def write(self, data: Buffer) -> None:
        self.tell.append(("write", bytes(data)))

    def set_write_buffer_limits(self, high: int, low: int | None = None) -> None:
        self.marks = (high, low)

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def get_extra_info(self, name: str) -> None:
        return None

    def pause_reading(self) -> None:
        self.tell.append("pause")

    def resume_reading(self) -> None:
        self.tell.append("resume")

    def write_eof(self) -> None:
        self.tell.append("write_eof")

    def close(self) -> None:
        self.tell.append("close")

    def abort(self) -> None:
        self.tell.append("abort")


class Owner:
    """Writes down what it is given."""

    def __init__(self, tell: list[object]) -> None:
        self.tell = tell

    def shell_started(self) -> None:
        self.tell.append("started")

    def shell_opened(self, opened: Opened) -> None:
        self.tell.append(opened)

    def messages_received(self, messages: list[bytes]) -> None:
        self.tell.append(messages)

    def shell_ended(self) -> None:
        self.tell.append("ended")

    def shell_writable(self) -> None:
        self.tell.append("writable")

    def shell_closed(self, reason: CloseReason, error: CoveyError | None) -> None:
        self.tell.append((reason, error))


class Stage:
    """A shell with its toys; `tell` is what happened, in order."""

    def __init__(self, **limits: Any) -> None:
        self.tell: list[object] = []
        self.session = ToySession(self.tell)
        self.transport = ToyTransport(self.tell)
        owner = Owner(self.tell)
        self.shell = StreamShell(self.session, owner, opening=owner, limits=Limits(**limits))

    def start(self, *, is_open: bool = False) -> None:
        self.session.is_open = is_open
        self.shell.connection_made(cast("asyncio.Transport", self.transport))
        self.taken()

    def feed(self, data: bytes) -> None:
        self.shell.get_buffer(-1)[: len(data)] = data
        self.shell.buffer_updated(len(data))

    def taken(self) -> list[object]:
        tell = list(self.tell)
        self.tell.clear()
        return tell

    def timers(self) -> list[asyncio.TimerHandle]:
        scheduled: list[asyncio.TimerHandle] = getattr(asyncio.get_running_loop(), "_scheduled", [])
        return [t for t in scheduled if not t.cancelled() and "StreamShell" in repr(t)]

    def lose(self, error: Exception | None = None) -> None:
        self.shell.connection_lost(error)


async def test_one_step_feeds_writes_and_then_delivers() -> None:
    stage = Stage()
    stage.start()
    stage.session.script[b"abc"] = [OPENED, MessagesReceived([b"one", b"two"])]
    stage.session.out = [b"reply"]
    stage.feed(b"abc")
    assert stage.taken() == [("feed", b"abc"), ("write", b"reply"), OPENED, [b"one", b"two"]]
    stage.lose()


async def test_all_shells_of_a_loop_share_one_receive_buffer() -> None:
    first, second = Stage(), Stage()
    assert first.shell.get_buffer(-1) is second.shell.get_buffer(-1)


async def test_the_write_buffer_has_the_bound_of_the_limits() -> None:
    stage = Stage(write_backlog=1000)
    stage.start()
    assert stage.transport.marks[0] == 0  # a handshake's bytes leave at once
    stage.session.script[b"open"] = [OPENED]
    stage.feed(b"open")
    stage.taken()
    assert stage.transport.marks == (1000, 500)
    stage.shell.pause_writing()
    assert stage.shell.write_paused
    stage.shell.resume_writing()
    assert not stage.shell.write_paused
    assert stage.taken() == ["writable"]
    stage.lose()


async def test_traffic_makes_no_new_timers() -> None:
    stage = Stage()
    loop = asyncio.get_running_loop()
    stage.session.timer = loop.time() + 100
    stage.start(is_open=True)
    (timer,) = stage.timers()
    stage.session.script[b"x"] = [MessagesReceived([b"x"])]
    asked = stage.session.asked
    for _ in range(1000):
        stage.session.timer = loop.time() + 200
        stage.feed(b"x")
        stage.shell.send([b"y"])
    assert stage.timers() == [timer]
    assert stage.session.asked == asked
    stage.lose()
    assert stage.timers() == []


async def test_a_timer_that_fires_early_is_armed_again_for_the_later_deadline() -> None:
    stage = Stage()
    loop = asyncio.get_running_loop()
    stage.session.timer = loop.time()
    stage.start(is_open=True)
    stage.session.timer = loop.time() + 100
    (early,) = stage.timers()
    early.cancel()
    stage.shell._on_timer()
    (later,) = stage.timers()
    assert later.when() == stage.session.timer
    assert "timer" not in stage.taken()
    stage.lose()


async def test_a_due_timer_is_one_step() -> None:
    stage = Stage()
    stage.start(is_open=True)
    stage.session.timer = asyncio.get_running_loop().time()
    stage.session.out = [b"keep-alive"]
    stage.shell._on_timer()
    assert stage.taken() == ["timer", ("write", b"keep-alive")]
    stage.lose()


@pytest.mark.parametrize(
    ("event", "reason", "kind"),
    [
        (TimedOut("handshake"), CloseReason.HANDSHAKE, HandshakeTimeout),
        (TimedOut("idle"), CloseReason.TIMEOUT, CoveyError),
    ],
)
async def test_a_time_out_cuts(event: TimedOut, reason: CloseReason, kind: type[Exception]) -> None:
    stage = Stage()
    stage.start()
    stage.session.due = [event]
    stage.session.timer = asyncio.get_running_loop().time()
    stage.shell._on_timer()
    assert stage.taken()[-1] == "abort"
    stage.lose()
    ((told, error),) = cast("list[tuple[CloseReason, CoveyError]]", stage.taken())
    assert told is reason
    assert isinstance(error, kind)


async def test_an_error_of_the_session_cuts_and_is_told_once() -> None:
    stage = Stage()
    stage.start(is_open=True)
    error = ProtocolError("bad frame")
    stage.session.left = [MessagesReceived([b"complete before it"])]
    stage.session.script[b"bad"] = error
    stage.feed(b"bad")
    stage.feed(b"bad")  # not fed to the session again
    assert stage.taken() == [("feed", b"bad"), [b"complete before it"], "abort"]
    stage.lose()
    stage.lose()
    assert stage.taken() == [(CloseReason.PROTOCOL, error)]


async def test_an_end_before_the_handshake_is_over_is_a_handshake_error() -> None:
    stage = Stage()
    stage.start()
    assert not stage.shell.eof_received()
    stage.lose()
    ((reason, error),) = cast(
        "list[tuple[CloseReason, CoveyError]]", [t for t in stage.taken() if t != "abort"]
    )
    assert reason is CloseReason.HANDSHAKE
    assert isinstance(error, HandshakeError)


async def test_an_end_leaves_our_half_open_until_we_end_it() -> None:
    stage = Stage()
    stage.start(is_open=True)
    assert stage.shell.eof_received()
    assert stage.taken() == ["ended"]
    stage.shell.end()
    assert stage.taken() == ["close"]
    stage.lose()
    assert stage.taken() == [(CloseReason.REMOTE_END, None)]


async def test_our_end_then_theirs_closes() -> None:
    stage = Stage()
    stage.start(is_open=True)
    stage.shell.end()
    stage.shell.end()
    assert stage.taken() == ["write_eof"]
    assert not stage.shell.eof_received()
    assert stage.taken() == ["ended", "close"]
    stage.lose()
    assert stage.taken() == [(CloseReason.LOCAL, None)]


async def test_nothing_is_delivered_after_the_owner_cut_the_connection() -> None:
    stage = Stage()
    stage.start(is_open=True)

    class Cutting(Owner):
        def messages_received(self, messages: list[bytes]) -> None:
            super().messages_received(messages)
            stage.shell.abort(None)

    stage.shell.owner = Cutting(stage.tell)
    stage.session.script[b"x"] = [MessagesReceived([b"1"]), MessagesReceived([b"2"])]
    stage.feed(b"x")
    assert stage.taken() == [("feed", b"x"), [b"1"], "abort"]
    stage.lose()


async def test_a_close_with_nothing_pending_closes_at_once() -> None:
    stage = Stage()
    stage.start(is_open=True)
    stage.shell.close(CloseReason.LOCAL)
    stage.shell.close(CloseReason.SHUTDOWN)
    assert stage.taken() == ["close"]
    stage.lose()
    assert stage.taken() == [(CloseReason.LOCAL, None)]
    assert stage.timers() == []


async def test_a_close_with_bytes_pending_waits_for_them_and_drops_what_arrives() -> None:
    stage = Stage()
    stage.start(is_open=True)
    stage.transport.waiting = 10
    stage.shell.close(CloseReason.LOCAL)
    assert stage.taken() == ["write_eof", "resume"]
    stage.feed(b"unread")
    assert stage.taken() == []
    stage.transport.waiting = 0
    stage.shell.resume_writing()
    assert stage.taken() == ["close"]
    stage.lose()
    assert stage.timers() == []


async def test_a_close_whose_bytes_never_leave_is_cut() -> None:
    stage = Stage(close_timeout=0)
    stage.start(is_open=True)
    stage.transport.waiting = 10
    stage.shell.close(CloseReason.LOCAL)
    for timer in stage.timers():
        timer.cancel()
    stage.shell._on_timer()
    assert stage.taken()[-1] == "abort"
    stage.lose()


async def test_an_abort_before_the_transport_exists_cuts_it_when_it_comes() -> None:
    stage = Stage()
    stage.shell.abort(ProtocolError("called off"))
    stage.shell.connection_made(cast("asyncio.Transport", stage.transport))
    assert stage.taken() == ["abort"]
    stage.lose()
    assert len(stage.taken()) == 1


async def test_a_reset_keeps_its_cause() -> None:
    stage = Stage()
    stage.start(is_open=True)
    cause = ConnectionResetError(104, "Connection reset by peer")
    stage.lose(cause)
    ((reason, error),) = cast("list[tuple[CloseReason, CoveyError]]", stage.taken())
    assert reason is CloseReason.RESET
    assert error.__cause__ is cause
