"""What comes from the remote, a share of it in each turn of the loop; and what goes unread there.

A frame may hold millions of entries, and a remote may ask without ever reading an answer. Neither
may take more than its share of time or memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from covey.limits import Limits
from covey.net.pipe import MessagePipe
from covey.wire.protomux import Protomux
from covey.wire.protomux_channel import ChannelMessages, MoreLeft, MuxEvent

SHARE: Final = 0.004
"""Seconds that frames are handled without a pause; then everybody else has a turn."""
CHECK: Final = 256
"""Messages and events after which the clock is looked at."""

HIGH: Final = 4
"""Times `Limits.write_backlog` that go unread at the remote: then nothing of it is read, too."""
MOST: Final = 16
"""Times `Limits.write_backlog` of answers to what was read meanwhile: then it is not at all."""
PATIENCE: Final = 0.05
"""Seconds after which a remote that reads nothing is read a little: it may wait for just that."""


class IntakeHost(Protocol):
    """What the intake needs of its muxer."""

    core: Protomux
    destroyed: bool

    @property
    def held_up(self) -> bool:
        """Whether nothing should be read now."""

    def handle(self, event: MuxEvent) -> None:
        """Act on one event."""

    def frame_done(self) -> None:
        """All of a frame is handled."""


class Intake:
    """Hands the events of frames over, in order; `waiting` while some are left for later."""

    __slots__ = ("_clock", "_deadline", "_events", "_frames", "_host", "_later", "_left", "waiting")

    def __init__(self, host: IntakeHost) -> None:
        self._host = host
        self._clock = asyncio.get_running_loop().time
        self._frames: Iterator[bytes] = iter(())
        self._later: list[bytes] = []
        self._events: Iterator[MuxEvent] | None = None
        self._deadline = 0.0
        self._left = CHECK
        self.waiting = False

    def add(self, frames: Iterable[bytes]) -> None:
        """Handle `frames` after what waits."""
        if not self._host.destroyed:
            self._later.extend(frames)

    def receive(self, frames: list[bytes]) -> None:
        """Handle `frames`, or as many of them as fit this turn; nothing may be waiting."""
        self._frames = iter(frames)
        self.proceed()

    def proceed(self) -> None:
        """Go on for a turn."""
        now = self._clock()
        self._deadline = now + SHARE
        self._left = CHECK
        self.waiting = True  # also where an error leaves this
        host, core = self._host, self._host.core
        events = self._events
        if events is not None and not self._finish(events):
            return
        for frame in self._frames:
            if host.destroyed:
                return
            self._left -= 1
            if not self._finish(core.receive_frame(frame, now)):
                return
        if self._later:  # next turn
            self._frames, self._later = iter(self._later), []
        else:
            self.waiting = False

    def drop(self) -> None:
        """The stream is gone: forget everything."""
        self._frames = iter(())
        self._later = []
        self._events = None
        self.waiting = False

    def _finish(self, events: Iterator[MuxEvent]) -> bool:
        """Hand the events of one frame over. False: the turn is over, and some may be left."""
        host = self._host
        for event in events:
            if isinstance(event, ChannelMessages):
                self._left -= len(event.payloads)
                if not host.destroyed:
                    event.channel.owner.receive_messages(event.type, event.payloads)
            elif isinstance(event, MoreLeft):
                self._left = 0
            else:
                self._left -= 1
                host.handle(event)
            if self._left <= 0:
                if host.destroyed:
                    return False
                self._left = CHECK
                if host.held_up or self._clock() >= self._deadline:
                    self._events = events
                    return False
        self._events = None
        host.frame_done()
        return True


class Outflow:
    """Watches what the remote does not read; `held` while it should not be read in turn.

    Two sides that answer each other must not both stop to read for ever. So one that reads nothing
    is read a little from time to time, until the answers to that have reached `MOST`; from there on
    it is for the connection to find that it does not move.
    """

    __slots__ = (
        "_answers",
        "_changed",
        "_handling",
        "_last",
        "_loop",
        "_mark",
        "_pipe",
        "_timer",
        "_unit",
        "held",
    )

    def __init__(self, pipe: MessagePipe, limits: Limits, changed: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pipe = pipe
        self._unit = limits.write_backlog
        self._changed = changed
        self._timer: asyncio.TimerHandle | None = None
        self._last = 0
        self._mark = 0
        self._handling = False
        self._answers = 0
        self.held = False

    def handling(self) -> None:
        """What the remote sent is handled from now on."""
        self._handling = True
        self._account(self._pipe.unsent)

    def handled(self) -> None:
        """It is handled, and written what came of it."""
        if self._handling:
            self._handling = False
            unsent = self._pipe.unsent
            self._answers += max(0, unsent - self._mark)
            self._mark = unsent

    def full(self) -> None:
        """The pipe took what was written, and has too much now."""
        if not self.held and self._pipe.unsent > HIGH * self._unit:
            self._last = self._pipe.unsent
            self.held = True
            self._timer = self._loop.call_later(PATIENCE, self._look)
            self._changed()

    def drained(self) -> None:
        """The pipe takes more."""
        self._answers = 0
        if self.held:
            self.stop()
            self._changed()

    def stop(self) -> None:
        """Watch no longer."""
        self.held = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _account(self, unsent: int) -> None:
        """What has left makes up for answers."""
        self._answers -= min(self._answers, max(0, self._mark - unsent))
        self._mark = unsent

    def _look(self) -> None:
        unsent = self._pipe.unsent
        self._account(unsent)
        if unsent >= self._last and self._answers <= MOST * self._unit:
            self.stop()
            self._changed()
            return
        self._last = unsent
        self._timer = self._loop.call_later(PATIENCE, self._look)
