"""Entries of a batch, read many at a time: the receiving side's inner loop.

Source: protomux 3.12.1; `protomux.md` section 5.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Final

from covey.errors import DecodeError, ProtocolError
from covey.wire.encoding import encode_uint, read_uint
from covey.wire.protomux_channel import ChannelCore, ChannelMessages

RUN_LENGTH: Final = 1024
"""Messages in one event: bounds what a batch of tiny messages takes while it is delivered."""

QUIET_RUN: Final = 1024
"""Entries that are handled without an event; then comes `MoreLeft`."""


def read_run(
    channel: ChannelCore, frame: bytes, position: int, end: int
) -> Generator[ChannelMessages, None, int]:
    """Consecutive entries of one channel; returns where the next switch, or the end, is."""
    run_kind = -1
    payloads: list[bytes] = []
    try:
        while position < end:
            length = frame[position]
            start = position + 1
            if length > 252:
                length, start = read_uint(frame, position, end)
            if not length:
                break
            stop = start + length
            if stop > end:
                stop = end
                read_uint(frame, start, stop)
            kind = frame[start]
            start += 1
            if kind > 252:
                kind, start = read_uint(frame, start - 1, stop)
            if kind != run_kind or len(payloads) >= RUN_LENGTH:
                if payloads:
                    event, payloads = ChannelMessages(channel, run_kind, payloads), []
                    yield event
                    if channel.closed:
                        return position
                run_kind = kind
            payloads.append(frame[start:stop])
            position = stop
    except DecodeError:
        if payloads:  # what came before the damage counts
            yield ChannelMessages(channel, run_kind, payloads)
        raise
    if payloads:
        yield ChannelMessages(channel, run_kind, payloads)
    return position


def kept_run(frame: bytes, position: int, end: int) -> tuple[bytes, int, int, int]:
    """Consecutive entries of one channel, at most `QUIET_RUN`, not taken apart.

    Returns the entries, how many they are, their payload bytes, and where they end. The last one is
    written anew when it claims more bytes than there are.
    """
    first = position
    count = size = 0
    while position < end and count < QUIET_RUN:
        length, start = read_uint(frame, position, end)
        if not length:
            break
        count += 1
        if start + length > end:
            clamped = encode_uint(end - start) + frame[start:end]
            return frame[first:position] + clamped, count, size + end - start, end
        size += length - 1
        position = start + length
    return frame[first:position], count, size, position


def read_bounded(
    frame: bytes, position: int, end: int, *, limit: int, what: str
) -> tuple[bytes, int]:
    """Bytes behind their length, at most `limit`, and the position after them."""
    size, start = read_uint(frame, position, end)
    if size > limit:
        raise ProtocolError(f"a {what} of {size} bytes; {limit} are allowed")
    if start + size > end:
        raise DecodeError(f"out of bounds: {size} bytes wanted, {end - start} left")
    return frame[start : start + size], start + size
