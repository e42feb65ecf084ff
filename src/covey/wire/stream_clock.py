"""The deadlines of a secret stream, without a clock of its own (secret-stream.md; 6.9.2)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from covey.limits import Limits

FRAME_RATE = 64 * 1024
"""Bytes a second at which a large frame has to go on: a slow line's pace, out of a trickle's reach.

At one byte a minute a frame that was never meant to end would keep its 16 MiB for ever.
"""

Due: TypeAlias = Literal["handshake", "idle", "frame", "keep-alive"]


class StreamClock:
    """What is due when. `now` is monotonic seconds everywhere.

    The handshake has a fixed budget. After it three things are watched:

    * silence: the idle timeout of `Limits` counts only once the remote has shown that it keeps
      alive (`keeps_alive`), since the reference sends nothing by default; one that `set_timeout`
      asked for counts always;
    * a frame that is not whole: `Limits.idle_timeout` from its first byte on, and a second more for
      each `FRAME_RATE` bytes that are there;
    * our own keep-alive.
    """

    __slots__ = (
        "_asked", "_frame_budget", "_idle_timeout", "_keep_alive", "_paused_at", "frame_at",
        "handshake_deadline", "keeps_alive", "opened", "read_at", "sent", "timed_out", "written_at",
    )  # fmt: skip

    def __init__(self, limits: Limits, now: float) -> None:
        self.handshake_deadline: float | None = now + limits.handshake_timeout
        self.opened = False
        """Whether frames can be sealed, so that a keep-alive can be sent."""
        self.keeps_alive = False
        """Whether the remote has sent an empty frame."""
        self.read_at = self.written_at = now
        self.sent = False
        """Whether something was written at a time that is not known, since the last keep-alive."""
        self.frame_at: float | None = None
        """When the first byte of the frame came that is not whole."""
        self.timed_out = False
        self._frame_budget = self._idle_timeout = limits.idle_timeout
        self._keep_alive = limits.keep_alive
        self._asked = False
        self._paused_at: float | None = None

    def set_keep_alive(self, seconds: float, now: float) -> None:
        """Say something after so long without a write; 0: never."""
        self._keep_alive = seconds
        self.written_at = now
        self.sent = False

    def set_timeout(self, seconds: float, now: float) -> None:
        """Take so long a silence, from `now` on, for the end, whatever the remote; 0: none."""
        self._idle_timeout = seconds
        self._asked = True
        self.read_at = now

    def set_reading(self, reading: bool, now: float) -> None:
        """Whether this side reads: the remote cannot be late while it does not."""
        if not reading:
            if self._paused_at is None:
                self._paused_at = now
        elif self._paused_at is not None:
            if self.frame_at is not None:
                self.frame_at += now - self._paused_at
            self._paused_at = None
            self.read_at = now

    def stop_reading(self) -> None:
        """Nothing more can come: no silence is a fault any more."""
        self.handshake_deadline = None
        self._idle_timeout = 0.0
        self.frame_at = None

    def next_timer(self, held: int) -> float | None:
        """When `due` wants to be asked; `held` bytes of the frame that is not whole are there."""
        times = []
        if self.handshake_deadline is not None:
            times.append(self.handshake_deadline)
        silent = self._silent_at()
        if silent is not None:
            times.append(silent)
        late = self._late_at(held)
        if late is not None:
            times.append(late)
        if self._keep_alive > 0 and self.opened:
            times.append(self.written_at + self._keep_alive)
        return min(times, default=None)

    def due(self, held: int, now: float) -> Due | None:
        """What is due at `now`, the fatal first; None before any of it is."""
        silent, late = self._silent_at(), self._late_at(held)
        if self.handshake_deadline is not None and now >= self.handshake_deadline:
            return "handshake"
        if silent is not None and now >= silent:
            return "idle"
        if late is not None and now >= late:
            return "frame"
        if self._keep_alive > 0 and now >= self.written_at + self._keep_alive:
            return "keep-alive"
        return None

    def _silent_at(self) -> float | None:
        counts = self._asked or self.keeps_alive
        if not counts or self._idle_timeout <= 0 or self._paused_at is not None:
            return None
        return self.read_at + self._idle_timeout

    def _late_at(self, held: int) -> float | None:
        if self.frame_at is None or self._frame_budget <= 0 or self._paused_at is not None:
            return None
        if self.handshake_deadline is not None:
            return None  # which bounds it
        return self.frame_at + self._frame_budget + held / FRAME_RATE
