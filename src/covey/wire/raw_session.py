"""No protocol at all, in the form of a session: the bytes belong to who reads the connection."""

from __future__ import annotations

from covey.wire.session import Buffer, Ended, MessagesReceived, Opened, SessionEvent


class RawSession:
    """No handshake at all: open from the start, each chunk from the socket is a message."""

    __slots__ = ("_out", "_start", "opened")

    def __init__(self, *, now: float) -> None:
        self.opened = False
        self._start: float | None = now
        self._out: list[Buffer] = []

    def take_events(self) -> list[SessionEvent]:
        """`Opened`, the first time."""
        if self.opened:
            return []
        self.opened = True
        self._start = None
        return [Opened(remote_key=None, remote_id=None, handshake_hash=None)]

    def receive_data(self, data: Buffer, now: float) -> list[SessionEvent]:  # noqa: ARG002
        """One message of `data`."""
        return [*self.take_events(), MessagesReceived([bytes(data)])]

    def receive_eof(self, now: float) -> list[SessionEvent]:  # noqa: ARG002
        """The remote ended its half."""
        return [*self.take_events(), Ended(truncated=False)]

    def send_messages(self, messages: list[Buffer]) -> None:
        """Queue bytes as they are."""
        # copied: they may wait in the transport while the caller fills a bytearray anew
        self._out += [
            chunk if type(chunk) is bytes else bytes(memoryview(chunk)) for chunk in messages
        ]

    def data_to_send(self) -> list[Buffer]:
        """Take what is queued."""
        taken, self._out = self._out, []
        return taken

    def next_timer(self) -> float | None:
        """At once, to tell that it is open."""
        return self._start

    def handle_timer(self, now: float) -> list[SessionEvent]:  # noqa: ARG002
        """`Opened`, if nothing told it before."""
        return self.take_events()
