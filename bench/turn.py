"""One turn of a request and its answer, without the kernel: read, open, handle, seal, write.

    python -m bench.turn

Both ends are in this process and give each other their frames by hand. The time is the best of
many rounds; the calls are counted, and so the same on every machine.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import time
from types import FrameType
from typing import Any, cast

from bench.loops import loop_factory
from covey.address import Address
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.attempt import Attempt
from covey.net.close_reason import CloseReason
from covey.net.connection import Connection
from covey.net.mux import Message
from covey.net.stream_shell import StreamShell
from covey.wire.encoding import buffer
from covey.wire.secret_stream import SecretStream
from covey.wire.session import Opened

SIZE = 100
TURNS = 2_000
ROUNDS = 20
ADDRESS = Address.net("127.0.0.1", 1)


class Wire:
    """A transport that keeps what is written until the other end is given it."""

    def __init__(self) -> None:
        self.written: list[Any] = []
        self.write = self.written.append
        self.writelines = self.written.extend

    def set_write_buffer_limits(self, high: int, low: int | None = None) -> None:
        """Nothing is limited."""

    def abort(self) -> None:
        """Nothing is open."""


class Opening:
    """Owner of a shell until it is open."""

    opened: Opened

    def shell_started(self) -> None:
        """Not of interest."""

    def shell_opened(self, opened: Opened) -> None:
        """Keep what the handshake gave."""
        self.opened = opened

    def messages_received(self, messages: list[bytes]) -> None:
        """There are none yet."""

    def shell_ended(self) -> None:
        """Never."""

    def shell_writable(self) -> None:
        """Never."""

    def shell_closed(self, reason: CloseReason, error: Exception | None) -> None:
        """Never."""


class End:
    """One end: its shell, what it writes, and, once open, its channel."""

    def __init__(self, *, is_initiator: bool) -> None:
        self.initiator = is_initiator
        self.wire = Wire()
        self.opening = Opening()
        session = SecretStream(
            is_initiator=is_initiator,
            key_pair=KeyPair.generate(),
            now=asyncio.get_running_loop().time(),
            random_bytes=os.urandom,
        )
        self.shell = StreamShell(
            session, self.opening, opening=self.opening, limits=Limits(), quick=True
        )
        self.shell.connection_made(cast("asyncio.Transport", self.wire))

    def feed(self, data: bytes | bytearray) -> None:
        """What a loop does with bytes that came."""
        size = len(data)
        self.shell.get_buffer(-1)[:size] = data
        self.shell.buffer_updated(size)

    def open(self) -> Message[Any]:
        """A channel that sends back whatever comes."""
        attempt = Attempt(1, "tcp", self.initiator, "127.0.0.1", 1, ADDRESS, "noise")
        connection = Connection(
            self.shell,
            self.opening.opened,
            attempt=attempt,
            remote_address=("127.0.0.1", 1),
            limits=Limits(),
        )
        channel = connection.mux.create_channel("bench")
        message: Message[Any] = channel.add_message(buffer)

        def answer(value: bytes) -> None:
            message.send(value)

        message.on_message = answer
        channel.open()
        return message


def carry(left: End, right: End) -> None:
    """Give both ends what the other has written, until nobody writes."""
    while left.wire.written or right.wire.written:
        for here, there in ((left, right), (right, left)):
            while here.wire.written:
                there.feed(here.wire.written.pop(0))


def turns(left: End, right: End, count: int) -> None:
    """Carry the one frame that is under way to the other end and back."""
    for _ in range(count):
        right.feed(left.wire.written.pop())
        left.feed(right.wire.written.pop())


def calls(left: End, right: End) -> tuple[int, int]:
    """Calls of Python functions and of C functions in one turn of one end, as they are now."""
    counted = {"call": 0, "c_call": 0}

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        if event in counted:
            counted[event] += 1

    sys.setprofile(count)
    turns(left, right, 100)
    sys.setprofile(None)
    return counted["call"] // 200, counted["c_call"] // 200


async def main() -> None:
    """Measure and print."""
    left, right = End(is_initiator=True), End(is_initiator=False)
    carry(left, right)
    message = left.open()
    right.open()
    for _ in range(5):
        await asyncio.sleep(0)
        carry(left, right)
    message.send(bytes([1]) * SIZE)
    await asyncio.sleep(0)
    gc.disable()
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        turns(left, right, TURNS)
        best = min(best, time.perf_counter() - start)
    python, c = calls(left, right)
    sys.stdout.write(f"{best / TURNS / 2 * 1e6:.1f} us, {python} Python calls, {c} C calls\n")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
