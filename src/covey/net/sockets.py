"""What the system is told and asked about one TCP socket."""

from __future__ import annotations

import asyncio
import math
import socket
import sys
from collections.abc import Mapping
from typing import Any, TypeAlias

from covey.limits import Limits

try:  # not on every system
    import fcntl
    import termios

    _OUTPUT_QUEUE: int | None = termios.TIOCOUTQ if sys.platform == "linux" else None
except ImportError:
    _OUTPUT_QUEUE = None

PROBES = 4
"""Unanswered probes of a quiet connection after which its host is dead."""

URGENT_TIMEOUT = 5.0
"""Seconds that bytes may stay unconfirmed while a connection is probed."""

Option: TypeAlias = tuple[int, int, int]


def liveness_options(limits: Limits) -> tuple[Option, ...]:
    """Have the system find dead hosts: after about `Limits.idle_timeout`, in whole seconds.

    Half of that time without a byte begins the probes; bytes that nobody confirms for that time
    (`TCP_USER_TIMEOUT`) are the end too. Nothing with an idle timeout of 0; what a system does not
    have is left out.
    """
    if limits.idle_timeout <= 0:
        return ()
    seconds = min(limits.idle_timeout, 32_767.0)  # the most that Linux takes
    wanted = {
        "TCP_KEEPIDLE": max(1, math.ceil(seconds / 2)),
        "TCP_KEEPALIVE": max(1, math.ceil(seconds / 2)),  # its name on macOS
        "TCP_KEEPINTVL": max(1, math.ceil(seconds / 2 / PROBES)),
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": 1000 * max(1, math.ceil(seconds)),
    }
    return _known_here(wanted)


def _known_here(wanted: Mapping[str, int]) -> tuple[Option, ...]:
    return (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        *(
            (socket.IPPROTO_TCP, getattr(socket, name), value)
            for name, value in wanted.items()
            if hasattr(socket, name)
        ),
    )


def probe(transport: asyncio.Transport, limits: Limits, *, urgent: bool) -> None:
    """Have the system find out now whether the remote's host is alive; not `urgent`: as usual.

    Where nothing is under way it asks once a second, and `PROBES` unanswered ones are the end; a
    time without a byte would be no measure then, for that began long ago. Where something is under
    way its confirmation may take `URGENT_TIMEOUT`, unless so much waits that the remote may only
    be slow to read. Nothing with an idle timeout of 0.
    """
    raw = transport.get_extra_info("socket")
    options = liveness_options(limits)
    if raw is None or not options:
        return
    if urgent and not unacknowledged(transport):
        wanted = {"TCP_KEEPINTVL": 1, "TCP_KEEPCNT": PROBES, "TCP_USER_TIMEOUT": 0}
        # The times until the first one come last: they take effect at once.
        options = _known_here({**wanted, "TCP_KEEPIDLE": 1, "TCP_KEEPALIVE": 1})
    elif urgent and not transport.get_write_buffer_size():
        seconds = min(URGENT_TIMEOUT, limits.idle_timeout)
        options = _known_here({"TCP_USER_TIMEOUT": math.ceil(1000 * seconds)})
    set_options(raw, options)


def set_options(opened: Any, options: tuple[Option, ...]) -> None:
    """Set what can be set: a connection without probes is better than none."""
    for option in options:
        try:
            opened.setsockopt(*option)
        except OSError:
            continue


def unacknowledged(transport: asyncio.Transport) -> int:
    """Bytes that the remote's system has not confirmed; 0 where this system does not tell."""
    raw = transport.get_extra_info("socket")
    if _OUTPUT_QUEUE is None or raw is None:
        return 0
    answer = bytearray(4)
    try:
        fcntl.ioctl(raw.fileno(), _OUTPUT_QUEUE, answer)
    except (OSError, ValueError):
        return 0
    return int.from_bytes(answer, sys.byteorder)


def failure_of(transport: asyncio.Transport) -> OSError | None:
    """The error that the system has for this socket and nobody has met yet, since nobody reads."""
    raw = transport.get_extra_info("socket")
    try:
        number = raw.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) if raw is not None else 0
    except OSError as error:
        return error
    return OSError(number, "") if number else None
