"""One announce to many peers: streams joined in memory, without encryption.

python -m bench.wakeup_announce --n 1000 --rounds 50
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from statistics import median
from typing import cast

from bench.loops import loop_factory
from covey.net.connection import Connection
from covey.net.mux import Muxer
from covey.net.pipe import MessageConsumer, MessagePipe
from covey.wakeup import Wakeup, WakeupHandlers, WriterHead
from covey.wire.session import Buffer

CAPABILITY = b"\x63" * 32
HEAD = WriterHead(b"\x07" * 32, 1337)


class End:
    """One end of a stream in memory: a pipe for its muxer, and what a wakeup needs to know."""

    closed = False
    handshake_hash = bytes(64)
    drained = True
    unsent = 0

    def __init__(self, *, initiator: bool) -> None:
        self.initiator = initiator
        self.other: End
        self._call_soon = asyncio.get_running_loop().call_soon
        self.consumer: MessageConsumer
        self.mux = Muxer(cast("MessagePipe", self))

    def attach(self, consumer: MessageConsumer) -> None:
        self.consumer = consumer

    def write_messages(self, messages: list[Buffer]) -> bool:
        self._call_soon(self.other.consumer.messages_received, [bytes(each) for each in messages])
        return True

    def pause_reading(self) -> None:
        """Not needed: there is never much."""

    def resume_reading(self) -> None:
        """The same."""

    def on_close(self, callback: object) -> None:
        """Never called: nothing is closed here."""


def joined() -> tuple[Connection, Connection]:
    """The two ends of a stream, the initiator first."""
    ends = End(initiator=True), End(initiator=False)
    ends[0].other, ends[1].other = ends[1], ends[0]
    return cast("tuple[Connection, Connection]", ends)


async def announce(peers: int, rounds: int) -> tuple[float, float]:
    """Microseconds per peer until all have heard one announce, and until it has been sent."""
    heard = 0
    met = asyncio.Event()
    everybody = asyncio.Event()

    def on_announce(*_: object) -> None:
        nonlocal heard
        heard += 1
        if heard == peers:
            everybody.set()

    def on_peer_add(*_: object) -> None:
        nonlocal heard
        heard += 1
        if heard == peers:
            met.set()

    sessions = WakeupHandlers(on_announce=on_announce)
    async with Wakeup() as hub, Wakeup() as leaves:
        session = hub.session(CAPABILITY, WakeupHandlers(on_peer_add=on_peer_add))
        leaves.session(CAPABILITY, sessions)
        for _ in range(peers):
            ours, theirs = joined()
            hub.add_stream(ours)
            leaves.add_stream(theirs)
        await met.wait()
        sent, total = [], []
        for _ in range(rounds):
            heard = 0
            everybody.clear()
            start = time.perf_counter()
            session.broadcast_announce([HEAD])
            sent.append(time.perf_counter() - start)
            await everybody.wait()
            total.append(time.perf_counter() - start)
        return 1e6 * median(total) / peers, 1e6 * median(sent) / peers


def main() -> None:
    """Print one line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=50)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        total, sent = runner.run(announce(options.n, options.rounds))
    print(json.dumps({"usPerPeer": round(total, 2), "usPerSend": round(sent, 2)}), flush=True)


if __name__ == "__main__":
    main()
