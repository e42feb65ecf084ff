"""The frames of protomux as we write them: entries gathered into batches, or single frames.

Source: protomux 3.12.1; `protomux.md` sections 2 and 5.
"""

from __future__ import annotations

from typing import Final

from covey.errors import EncodeError, UsageError
from covey.wire.codec import MAX_ONE_BYTE
from covey.wire.encoding import encode_uint, read_uint
from covey.wire.session import Buffer

BATCH, OPEN, REJECT, CLOSE = range(4)
"""Control types; higher ones are ignored."""

NOBODY: Final = -1
"""No channel: what `Outbox.channel` is while the next entry needs a header first."""

SILENT: Final = -2
"""What a channel has for a number while it may not send; never what `Outbox.channel` is."""

GATHER_SIZE: Final = 256 * 1024
"""Bytes after which a batch that nobody corked leaves at once: larger ones gain nothing, and would
keep the remote waiting and push each other out of the processor's cache."""


ENTRY_ROOM: Final = 64
"""What the header of a batch and of an entry may take of a frame."""


class Outbox:
    """Collects entries, and turns them into frames when they may leave.

    With `gather`, entries stay in the batch until `flush`, and a batch of one entry leaves as a
    plain frame. Without, everything leaves as it comes unless corked, exactly as in the reference.

    `buffer`, `channel` and `limit` are open to senders that append entries themselves: when
    `channel` is not theirs they call `start`, then append `uint` length, `uint` type and payload to
    `buffer`, and call `full` when it has `limit` bytes. `accepting` is what a send returns.
    """

    __slots__ = (
        "_forced",
        "_frames",
        "_gather",
        "_max_batch",
        "_max_frame",
        "accepting",
        "buffer",
        "channel",
        "depth",
        "limit",
    )

    def __init__(self, *, gather: bool, max_batch: int, max_frame: int) -> None:
        self.buffer = bytearray()
        self.channel = NOBODY
        self.limit = min(GATHER_SIZE, max_batch) if gather else 0
        self.depth = 0
        self.accepting = True
        self._gather = gather
        self._max_batch = max_batch
        self._max_frame = max_frame
        self._forced = False
        self._frames: list[Buffer] = []

    def start(self, channel: int) -> None:
        """Begin entries of `channel`: the header of a batch, or the switch within one."""
        if len(self.buffer) >= self._max_batch:
            self._finish()
        if not self.buffer:
            self.buffer += b"\0\0"
        else:
            self.buffer.append(0)
        if channel <= MAX_ONE_BYTE:
            self.buffer.append(channel)
        else:
            self.buffer += encode_uint(channel)
        self.channel = channel

    def control(self, kind: int, body: bytes) -> None:
        """Add a control frame."""
        if self.channel != 0:
            self.start(0)
        self.buffer += encode_uint(len(body) + 1)
        self.buffer.append(kind)
        self.buffer += body
        if len(self.buffer) >= self.limit:
            self.full()

    def full(self) -> None:
        """The batch has reached `limit`: it leaves now, or, while corked, before the next entry."""
        if self.depth:
            self.channel = NOBODY
        else:
            self._finish()

    def cork(self) -> None:
        """Keep what follows together, up to `max_batch` bytes, until the last `uncork`."""
        self.depth += 1
        self.limit = self._max_batch
        if not self._gather:
            self._forced = True

    def uncork(self) -> None:
        """Undo one `cork`; `UsageError` without one."""
        if self.depth == 0:
            raise UsageError("uncork without cork")
        self.depth -= 1
        if self.depth == 0:
            self.limit = min(GATHER_SIZE, self._max_batch) if self._gather else 0
            if not self._gather:
                self._finish()
                self._forced = False

    def make_room(self, size: int) -> None:
        """Write the batch first when an entry of `size` more bytes would make it too long.

        `EncodeError` when no frame takes so many.
        """
        if size > self._max_frame - ENTRY_ROOM:
            raise EncodeError(f"{size} bytes do not fit a frame of {self._max_frame}")
        if len(self.buffer) + size > self._max_frame - ENTRY_ROOM:
            self.split()

    def split(self) -> None:
        """Let go of the batch although it is corked: splitting one is always right."""
        self._finish()

    def flush(self) -> list[Buffer]:
        """Take the frames that may leave: with the batch, unless that is corked."""
        if self.buffer and self.depth == 0:
            self._finish()
        frames, self._frames = self._frames, []
        return frames

    def clear(self) -> None:
        """Drop everything: nobody reads it any more."""
        self.buffer = bytearray()
        self.channel = NOBODY
        self._frames = []

    def _finish(self) -> None:
        buffer = self.buffer
        if not buffer:
            return
        self.buffer = bytearray()
        self.channel = NOBODY
        if not self._forced:
            if buffer[3] + 4 == len(buffer) <= MAX_ONE_BYTE + 4 and buffer[2] <= MAX_ONE_BYTE:
                buffer[3] = buffer[2]  # the common lone entry: no byte of it has to be moved
                del buffer[:3]
            else:
                _unwrap_single(buffer)
        self._frames.append(buffer)


class Holds:
    """Corks that end by themselves: replies to one received batch wait for each other a while."""

    __slots__ = ("_ends", "_next", "_outbox", "_seconds")

    def __init__(self, outbox: Outbox, seconds: float) -> None:
        self._outbox = outbox
        self._seconds = seconds
        self._ends: dict[int, float] = {}
        self._next = 0

    @property
    def any(self) -> bool:
        """Whether there are holds."""
        return bool(self._ends)

    @property
    def next_end(self) -> float | None:
        """When the oldest hold ends."""
        return next(iter(self._ends.values()), None)

    def begin(self, now: float) -> int:
        """Cork; returns a token for `end`."""
        self._next += 1
        self._ends[self._next] = now + self._seconds
        self._outbox.cork()
        return self._next

    def end(self, token: int) -> None:
        """Uncork, unless the time of that hold is over."""
        if self._ends.pop(token, None) is not None:
            self._outbox.uncork()

    def expire(self, now: float) -> None:
        """End holds whose time is over; younger ones do not keep back what those kept back."""
        overdue = [token for token, at in self._ends.items() if at <= now]
        for token in overdue:
            self.end(token)
        if overdue and self._outbox.depth == len(self._ends):
            self._outbox.split()

    def clear(self) -> None:
        """Forget all holds: the stream is gone."""
        self._ends.clear()


def _unwrap_single(batch: bytearray) -> None:
    """Turn a batch of one entry into the plain frame of that entry, in place."""
    channel, position = read_uint(batch, 2, len(batch))
    length, position = read_uint(batch, position, len(batch))
    if position + length == len(batch):
        prefix = encode_uint(channel)
        batch[:position] = prefix
