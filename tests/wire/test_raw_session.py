from __future__ import annotations

from covey.wire.raw_session import RawSession
from covey.wire.session import Ended, MessagesReceived, Opened

OPENED = Opened(remote_key=None, remote_id=None, handshake_hash=None)


def test_a_raw_session_is_open_at_once_and_says_so_once() -> None:
    session = RawSession(now=5.0)
    assert session.next_timer() == 5.0
    assert session.handle_timer(5.0) == [OPENED]
    assert session.handle_timer(6.0) == []
    assert session.next_timer() is None


def test_every_chunk_is_a_message() -> None:
    session = RawSession(now=0.0)
    assert session.receive_data(b"one", 0.0) == [OPENED, MessagesReceived([b"one"])]
    assert session.receive_data(b"two", 0.0) == [MessagesReceived([b"two"])]


def test_the_end_of_the_remote_is_never_early() -> None:
    assert RawSession(now=0.0).receive_eof(0.0) == [OPENED, Ended(truncated=False)]


def test_bytes_leave_as_they_are_and_once() -> None:
    session = RawSession(now=0.0)
    session.send_messages([b"a", b"b"])
    assert session.data_to_send() == [b"a", b"b"]
    assert session.data_to_send() == []


def test_a_buffer_may_be_filled_anew_once_it_was_queued() -> None:
    session = RawSession(now=0.0)
    buffer = bytearray(b"one")
    session.send_messages([buffer, memoryview(buffer)[1:]])
    buffer[:] = b"two"
    assert session.data_to_send() == [b"one", b"ne"]
