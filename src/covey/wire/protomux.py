"""Protomux: many message channels over one stream that keeps message boundaries. Sans-I/O.

Source: protomux 3.12.1; `protomux.md`, with the rules of its sections 8 and 9. Handshakes and
messages stay bytes here; the shell knows the codecs and the callbacks.
"""

# `id` and `type` are the names that protomux uses.
# ruff: noqa: A001, A002

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from covey.errors import ProtocolError, UsageError
from covey.limits import Limits
from covey.wire.codec import MAX_ONE_BYTE
from covey.wire.encoding import encode_uint, read_uint
from covey.wire.protomux_channel import (
    BatchBegun,
    ChannelClosed,
    ChannelCore,
    ChannelMessages,
    ChannelOpened,
    MoreLeft,
    MuxEvent,
    Name,
    NameStatus,
    PairRequested,
    PairTimedOut,
    RemoteOpen,
)
from covey.wire.protomux_frames import BATCH, CLOSE, OPEN, REJECT, SILENT, Holds, Outbox
from covey.wire.protomux_names import NameTable, NumberTable
from covey.wire.protomux_runs import QUIET_RUN, kept_run, read_bounded, read_run
from covey.wire.session import Buffer

KEPT_OVERHEAD = 512
"""What a kept message counts besides its payload, as in the reference."""
SMALL_HANDSHAKE = 4096
"""Handshake bytes of a waiting open that count nothing against the pairing backlog."""
OPEN_ROOM = 1024
"""What names and numbers of an open may take of a frame."""


class Protomux:
    """The state of one muxer. `now` is monotonic seconds.

    `receive_frame`, `deliver` and `handle_timer` give their events one by one, and go on when the
    next is asked for: act on each before asking, then the rest of the frame sees what you did
    (a channel closed, another opened). Run each to its end; other work may be done in between, but
    no other frame. They raise `ProtocolError`, and nothing
    else, for what the remote must not send; then the stream is lost.
    """

    __slots__ = (
        "_deadlines", "_holds", "_kept", "_limits", "_local", "_names", "_next_remote_id",
        "_remote", "_unread_answers", "_waiting", "lingering", "outbox",
    )  # fmt: skip

    def __init__(self, *, limits: Limits | None = None, gather: bool = True) -> None:
        self._limits = limits or Limits()
        self.outbox = Outbox(
            gather=gather, max_batch=self._limits.max_batch, max_frame=self._limits.max_frame
        )
        self._local = NumberTable()
        self._waiting: dict[int, ChannelCore] = {}
        self._remote: dict[int, RemoteOpen] = {}
        self._next_remote_id = 1
        self._names = NameTable(max_name=self._limits.max_name)
        self._deadlines: dict[RemoteOpen, float] = {}
        self._holds = Holds(self.outbox, self._limits.auto_cork)
        self._kept = 0
        self._unread_answers = 0
        self.lingering = 0  # closed channels that the shell still works for: count as live

    # What we ask for

    @property
    def is_idle(self) -> bool:
        """Whether no channel has a number: none is open, opening, or closed but unanswered."""
        return not self._local

    @property
    def paused(self) -> bool:
        """Whether so much is kept for pairing channels that the stream should not be read."""
        return self._kept > self._limits.pairing_backlog

    @property
    def channels(self) -> list[ChannelCore]:
        """The channels that we opened and nobody closed, by number."""
        return [channel for channel in self._local.in_order() if not channel.closed]

    def opened(self, protocol: str, id: bytes | None = None) -> bool:
        """Whether we opened a channel of that name, answered or not."""
        status = self._names.get((protocol, id or b""))
        return status is not None and status.opened > 0

    def get_last_channel(self, protocol: str, id: bytes | None = None) -> ChannelCore | None:
        """The channel of that name which we opened last, while the name is in use."""
        status = self._names.get((protocol, id or b""))
        return None if status is None else status.last

    def pair(self, protocol: str, callback: Any, id: bytes | None = None) -> None:
        """Give `callback` out with opens of that name; without id, of the whole protocol."""
        self._names.pair(self._names.checked(protocol, id), callback)

    def unpair(self, protocol: str, id: bytes | None = None) -> None:
        """Forget the callback of that name."""
        self._names.unpair((protocol, id or b""))

    def paired(self, protocol: str, id: bytes | None = None) -> Any:
        """The callback of exactly that name, or None."""
        return self._names.paired((protocol, id or b""))

    def create_channel(
        self,
        protocol: str,
        *,
        id: bytes | None = None,
        aliases: tuple[str, ...] = (),
        unique: bool = True,
    ) -> ChannelCore | None:
        """A new channel, already the partner of the first remote open that waits for its name.

        None when `unique` and the name is open here, or when that remote open was withdrawn before
        it sent anything: there is nobody at the other end. `UsageError` for a name too long.
        """
        name = self._names.checked(protocol, id)
        for alias in aliases:
            self._names.checked(alias, id)
        channel = ChannelCore(protocol, None if id is None else bytes(id), aliases, unique=unique)
        status = self._names.get(name)
        if unique and status is not None and status.opened:
            return None
        return channel if self._take_incoming(channel) else None

    def open(self, channel: ChannelCore, handshake: Buffer = b"") -> bool:
        """Write the open. True: the remote had asked for it, call `deliver` in the next turn.

        `UsageError` when it was opened before.
        """
        if channel.local_id or channel.closed:
            raise UsageError(f"channel {channel.protocol!r} was opened before")
        if len(handshake) > self._limits.max_frame - OPEN_ROOM:
            raise UsageError(f"a handshake of {len(handshake)} bytes does not fit a frame")
        if channel.remote is None:
            self._take_incoming(channel)
        status = channel.status = self._names.use(channel.name, channel.aliases)
        status.opened += 1
        status.last = channel
        channel.local_id = channel.wire_id = self._local.take(channel)
        self.outbox.control(OPEN, channel.open_body() + handshake)
        if channel.remote is not None:
            self._deadlines.pop(channel.remote, None)
            return True
        status.outgoing.append(channel)
        self._waiting[channel.local_id] = channel
        return False

    def close(self, channel: ChannelCore) -> None:
        """Write the close; nothing of the remote is delivered any more. May be called again."""
        if channel.closed:
            return
        channel.closed = True
        remote = channel.remote
        if channel.local_id == 0:
            if remote is not None:
                self._reject(remote)
            return
        channel.wire_id = SILENT
        if remote is None:  # its number stays taken until the remote has answered
            self.outbox.control(CLOSE, encode_uint(channel.local_id))
            self._leave_name(channel)
            return
        if not remote.closed:
            self.outbox.control(CLOSE, encode_uint(channel.local_id))
            self._remote.pop(remote.remote_id, None)
        self._forget_kept(remote)
        self._local.free(channel.local_id)
        self._leave_name(channel)

    def pairing_done(self, request: RemoteOpen) -> None:
        """The callback of `request` has ended; what still waits for that name is rejected."""
        if not request.callback_runs:
            return
        request.callback_runs = False
        status = request.status
        status.pairing -= 1
        self._reject_unwanted(status)

    def deliver(self, channel: ChannelCore) -> Iterator[MuxEvent]:
        """What was kept for a channel made from a waiting open: its open, messages, and close."""
        remote = channel.remote
        if remote is None or remote.flowing or channel.closed or not channel.local_id:
            return
        channel.opened = True
        yield ChannelOpened(channel, remote.take_handshake())
        while remote.kept and not channel.closed:
            kept, remote.kept = bytes(remote.kept), bytearray()
            yield from read_run(channel, kept, 0, len(kept))
        remote.flowing = True
        self._forget_kept(remote)
        if remote.closed and not channel.closed:
            yield from self._closed_by_remote(channel, "closed by the remote")

    def end(self) -> list[ChannelCore]:
        """The stream is gone: drop everything. Returns the channels that were open, by number."""
        ended = self.channels
        for channel in ended:
            channel.closed = True
            channel.wire_id = SILENT
        for table in (self._local, self._waiting, self._remote, self._names, self._deadlines):
            table.clear()
        self._holds.clear()
        self._kept = 0
        self.outbox.clear()
        return ended

    # Batches, time and output

    def hold(self, now: float) -> int:
        """Cork for replies to a batch, for at most `Limits.auto_cork`. Returns a token."""
        return self._holds.begin(now)

    def release(self, token: int) -> None:
        """End a hold, unless its time ended it."""
        self._holds.end(token)

    def data_to_send(self) -> list[Buffer]:
        """Take the frames that may leave."""
        return self.outbox.flush()

    def answers_taken(self) -> None:
        """The remote reads what we write: answers that it forces on us may be counted anew."""
        self._unread_answers = 0

    @property
    def timed(self) -> bool:
        """Whether anything has a time limit, so that `next_timer` has something to tell."""
        return bool(self._deadlines) or self._holds.any

    def next_timer(self) -> float | None:
        """When `handle_timer` wants to be called, or None."""
        if not self._deadlines:
            return self._holds.next_end
        pairing = next(iter(self._deadlines.values()))
        held = self._holds.next_end
        return pairing if held is None else min(pairing, held)

    def handle_timer(self, now: float) -> Iterator[MuxEvent]:
        """End holds that lasted too long, and reject opens that nobody answered in time."""
        self._holds.expire(now)
        for request in [request for request, at in self._deadlines.items() if at <= now]:
            channel = request.channel
            self._reject(request)
            if channel is None:
                yield PairTimedOut(request)
            else:
                channel.closed = True
                yield ChannelClosed(channel, remote=False, reason="was not opened in time")

    # What the remote sends

    def lone(self, frame: bytes) -> ChannelCore | None:
        """The channel of `frame` when that is one message for an open channel: the common frame.

        Then the second byte is the message's type and the rest its payload, and `receive_frame`
        would say nothing else. None: ask `receive_frame`.
        """
        if len(frame) < 2 or frame[0] > MAX_ONE_BYTE or frame[1] > MAX_ONE_BYTE:
            return None
        remote = self._remote.get(frame[0])  # control frames are of channel 0, which is never there
        return remote.channel if remote is not None and remote.flowing else None

    def receive_frame(self, frame: bytes, now: float) -> Iterator[MuxEvent]:
        """The events of one frame; an empty frame is a keep-alive and has none."""
        end = len(frame)
        if not end:
            return
        remote_id, position = read_uint(frame, 0, end)
        if remote_id == 0:
            yield from self._receive_control(frame, position, end, now, in_batch=False)
            return
        kind, start = read_uint(frame, position, end)
        remote = self._remote.get(remote_id)
        if remote is None:
            return
        if remote.flowing and remote.channel is not None:
            yield ChannelMessages(remote.channel, kind, [frame[start:]])
        else:
            self._keep(remote, encode_uint(end - position) + frame[position:], 1, end - start)

    def _receive_control(
        self, frame: bytes, position: int, end: int, now: float, *, in_batch: bool
    ) -> Generator[MuxEvent, None, None]:
        kind, position = read_uint(frame, position, end)
        if kind == BATCH:
            if in_batch:
                raise ProtocolError("a batch within a batch")
            yield from self._receive_batch(frame, position, end, now)
        elif kind == OPEN:
            yield from self._receive_open(frame, position, end, now)
        elif kind == REJECT:
            yield from self._receive_reject(read_uint(frame, position, end)[0])
        elif kind == CLOSE:
            yield from self._receive_close(read_uint(frame, position, end)[0])

    def _receive_batch(
        self, frame: bytes, position: int, end: int, now: float
    ) -> Generator[MuxEvent, None, None]:
        remote_id, position = read_uint(frame, position, end)
        begun = False
        quiet = 0
        while position < end:
            quiet += 1  # entries that may have told nothing: many of them must not take a turn
            if quiet >= QUIET_RUN:
                quiet = 0
                yield MoreLeft()
            length, start = read_uint(frame, position, end)
            if not length:
                remote_id, position = read_uint(frame, start, end)
                continue
            stop = min(start + length, end)  # clamped, as in the reference
            if stop < end and not begun:
                begun = True
                yield BatchBegun()
            if remote_id == 0:
                yield from self._receive_control(frame, start, stop, now, in_batch=True)
                position = stop
                continue
            remote = self._remote.get(remote_id)
            if remote is None:
                read_uint(frame, start, stop)
                position = stop
            elif remote.flowing and remote.channel is not None:
                position = yield from read_run(remote.channel, frame, position, end)
            else:
                entries, count, size, position = kept_run(frame, position, end)
                self._keep(remote, entries, count, size)
                quiet += count

    def _receive_open(
        self, frame: bytes, position: int, end: int, now: float
    ) -> Generator[MuxEvent, None, None]:
        limit = self._limits.max_name
        remote_id, position = read_uint(frame, position, end)
        protocol, position = read_bounded(frame, position, end, limit=limit, what="protocol name")
        id, position = read_bounded(frame, position, end, limit=limit, what="channel id")
        if not 0 < remote_id <= self._next_remote_id or remote_id in self._remote:
            raise ProtocolError(f"invalid open message: channel {remote_id} is not free")
        if remote_id == self._next_remote_id:
            self._next_remote_id += 1
        name = (str(protocol, "utf-8", "replace"), id)
        status = self._names.get(name)
        if status is not None and status.outgoing:
            channel = status.outgoing.popleft()
            del self._waiting[channel.local_id]
            if channel.closed:
                self._close_again(channel, status)
                return
            remote = self._add_remote(remote_id, frame[position:end], status)
            remote.channel, channel.remote = channel, remote
            remote.flowing = channel.opened = True
            yield ChannelOpened(channel, remote.take_handshake())
        elif (
            len(self._deadlines) >= self._limits.max_pairing
            or len(self._remote) + self.lingering >= self._limits.max_channels
        ):
            self._answer(REJECT, remote_id)
        else:
            status = self._names.use(name)
            yield from self._request(
                name, self._add_remote(remote_id, frame[position:end], status), now
            )

    def _close_again(self, channel: ChannelCore, status: NameStatus) -> None:
        """A late answer to a channel that we closed: swallow it, and say again that it is closed.

        A peer whose pair callback still ran when our close came may have forgotten it (trap 1).
        """
        self._answer(CLOSE, channel.local_id)
        self._local.free(channel.local_id)
        self._names.drop_unused(status)

    def _request(
        self, name: Name, remote: RemoteOpen, now: float
    ) -> Generator[MuxEvent, None, None]:
        """Nobody waits for this open: ask the pair callback, or reject."""
        status = remote.status
        status.incoming.append(remote)
        self._deadlines[remote] = now + self._limits.pair_timeout
        if len(remote.handshake) > SMALL_HANDSHAKE:
            self._keep(remote, b"", 0, len(remote.handshake))
        protocol, id = name
        callback = self._names.callback_for(name)
        if callback is None:
            self._reject_unwanted(status)
            return
        status.pairing += 1
        remote.callback_runs = True
        yield PairRequested(protocol, id or None, remote, callback)

    def _receive_reject(self, local_id: int) -> Generator[MuxEvent, None, None]:
        channel = self._waiting.pop(local_id, None)
        if channel is None or channel.status is None:
            raise ProtocolError(f"invalid reject message: channel {local_id} does not wait")
        channel.status.outgoing.remove(channel)
        if channel.closed:
            self._local.free(local_id)
            self._names.drop_unused(channel.status)
        else:
            yield from self._closed_by_remote(channel, "rejected by the remote")

    def _receive_close(self, remote_id: int) -> Generator[MuxEvent, None, None]:
        remote = self._remote.pop(remote_id, None)
        if remote is None:
            return
        remote.closed = True
        if remote.flowing and remote.channel is not None:
            yield from self._closed_by_remote(remote.channel, "closed by the remote")

    def _closed_by_remote(
        self, channel: ChannelCore, reason: str
    ) -> Generator[MuxEvent, None, None]:
        channel.closed = True
        channel.wire_id = SILENT
        self._local.free(channel.local_id)
        self._leave_name(channel)
        yield ChannelClosed(channel, remote=True, reason=reason)

    # Waiting opens

    def _add_remote(self, remote_id: int, handshake: bytes, status: NameStatus) -> RemoteOpen:
        remote = self._remote[remote_id] = RemoteOpen(remote_id, handshake, status)
        return remote

    def _take_incoming(self, channel: ChannelCore) -> bool:
        """Make the first waiting open of the channel's names its partner, if there is one.

        False: that one was withdrawn before it sent anything.
        """
        for protocol in (channel.protocol, *channel.aliases):
            status = self._names.get((protocol, channel.name[1]))
            if status is None or not status.incoming:
                continue
            remote = status.incoming[0]
            if remote.closed and not remote.kept:
                self._reject(remote)
                return False
            status.incoming.popleft()
            remote.channel, channel.remote = channel, remote
            self._names.drop_unused(status)
            return True
        return True

    def _reject_unwanted(self, status: NameStatus) -> None:
        if status.pairing:
            return
        while status.incoming:
            self._reject(status.incoming[0])
        self._names.drop_unused(status)

    def _reject(self, remote: RemoteOpen) -> None:
        """Answer a waiting open with a reject, also a withdrawn one: its number waits for it."""
        if remote in remote.status.incoming:
            remote.status.incoming.remove(remote)
        self._deadlines.pop(remote, None)
        self._forget_kept(remote)
        if not remote.closed:
            self._remote.pop(remote.remote_id, None)
        self._answer(REJECT, remote.remote_id)
        self._names.drop_unused(remote.status)

    def _answer(self, kind: int, number: int) -> None:
        """Write what the remote forces us to; one that never reads must not make this grow."""
        self._unread_answers += 1
        if self._unread_answers > self._limits.max_channels:
            raise ProtocolError("floods opens and reads no answers")
        self.outbox.control(kind, encode_uint(number))

    def _keep(self, remote: RemoteOpen, entries: bytes, count: int, size: int) -> None:
        cost = KEPT_OVERHEAD * count + size
        remote.kept += entries
        remote.cost += cost
        self._kept += cost

    def _forget_kept(self, remote: RemoteOpen) -> None:
        self._kept -= remote.cost
        remote.cost = 0
        remote.kept = bytearray()

    def _leave_name(self, channel: ChannelCore) -> None:
        if channel.status is not None:
            channel.status.opened -= 1
            self._names.drop_unused(channel.status)
