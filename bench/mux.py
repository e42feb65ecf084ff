"""Messages through two muxers joined in memory, without encryption: what the muxer itself costs.

python bench/mux.py [COUNT]
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.net.mux_pipes import joined_pipes

from covey.net.mux import Channel, Message, Muxer
from covey.wire.encoding import buffer, raw, string, uint

SIZE = 100


async def exchange(codec: Any, value: Any, count: int, cork: int) -> tuple[float, float]:
    """Seconds for sending, and for receiving, `count` messages of `value`."""
    left, right = joined_pipes()
    left.automatic = right.automatic = True
    sender, receiver = Muxer(left), Muxer(right)
    done = asyncio.Event()
    seen = 0

    def received(_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            done.set()

    first, second = sender.create_channel("bench"), receiver.create_channel("bench")
    message: Message[Any] = first.add_message(codec)
    second.add_message(codec, received)
    first.open()
    second.open()
    await first.fully_opened()
    start = time.perf_counter()
    send(first, message, value, count, cork)
    sender.flush()
    sent = time.perf_counter()
    await done.wait()
    return sent - start, time.perf_counter() - sent


def send(channel: Channel, message: Message[Any], value: Any, count: int, cork: int) -> None:
    """Send without corking, or corked by `cork`."""
    if cork == 1:
        for _ in range(count):
            message.send(value)
        return
    for _ in range(count // cork):
        channel.cork()
        for _ in range(cork):
            message.send(value)
        channel.uncork()


async def round_trips(count: int) -> float:
    """Seconds for `count` questions and answers, one at a time."""
    left, right = joined_pipes()
    asker, answerer = Muxer(left), Muxer(right)
    arrived: asyncio.Queue[bytes] = asyncio.Queue()
    first, second = asker.create_channel("bench"), answerer.create_channel("bench")
    ask = first.add_message(buffer, arrived.put_nowait)
    answer = second.add_message(buffer, lambda value: answer.send(value))  # noqa: PLW0108
    first.open()
    second.open()
    await first.fully_opened()
    start = time.perf_counter()
    for _ in range(count):
        ask.send(bytes(SIZE))
        await arrived.get()
    return time.perf_counter() - start


async def main(count: int) -> None:
    rows: list[tuple[str, Any, Any, int]] = [
        ("raw", raw, bytes(SIZE), 1),
        ("buffer", buffer, bytes(SIZE), 1),
        ("buffer corked by 64", buffer, bytes(SIZE), 64),
        ("string", string, "x" * SIZE, 1),
        ("uint", uint, 300, 1),
    ]
    report: Callable[[str], None] = print
    for name, codec, value, cork in rows:
        best = min([await exchange(codec, value, count, cork) for _ in range(3)], key=sum)
        send_us, receive_us = (1e6 * seconds / count for seconds in best)
        report(f"{name:22} send {send_us:.3f} us  receive {receive_us:.3f} us")
    trips = count // 20
    report(f"{'round trip':22} {1e6 * await round_trips(trips) / trips:.1f} us")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000))
