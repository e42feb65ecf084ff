"""What is told when a dial led back to this very node: both ends of one connection are ours."""

from __future__ import annotations

from collections.abc import Callable, Sized

from covey.flock.clock import Clock, Timer
from covey.flock.events import ConnectionClosed, FlockEvent

PATIENCE = 1.0
"""Seconds for which the end of one side waits for that of the other."""


class SelfMeetings:
    """Tells `connection-closed` of the accepted end, then of the dialled one, as the original does.

    Which end notices first is the handshake's affair; `peer-banned` has been told before by the
    dialled end. An end that is alone is told at once: where nothing is `dialling` or `accepting`
    the other one is not ours to tell.
    """

    def __init__(
        self,
        clock: Clock,
        publish: Callable[[FlockEvent], object],
        *,
        dialling: Sized,
        accepting: Sized,
    ) -> None:
        self._dialling = dialling
        self._accepting = accepting
        self._clock = clock
        self._publish = publish
        self._accepted: list[ConnectionClosed] = []
        self._dialled: list[ConnectionClosed] = []
        self._timer: Timer | None = None

    def accepted(self, event: ConnectionClosed) -> None:
        """The accepted end is closed; the dialled one may not have noticed yet."""
        self._accepted.append(event)
        self._settle(wait=not self._dialled and len(self._dialling) > 0)

    def dialled(self, event: ConnectionClosed) -> None:
        """The dialled end is closed; the accepted one may not have noticed yet."""
        self._dialled.append(event)
        self._settle(wait=not self._accepted and len(self._accepting) > 0)

    def flush(self) -> None:
        """Tell all that is left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        events = [*self._accepted, *self._dialled]
        self._accepted, self._dialled = [], []
        for event in events:
            self._publish(event)

    def _settle(self, *, wait: bool) -> None:
        if not wait:
            self.flush()
        elif self._timer is None:
            self._timer = self._clock.call_at(self._clock.now() + PATIENCE, self.flush)
