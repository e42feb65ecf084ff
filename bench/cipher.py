"""What the secret stream costs without a socket: `python bench/cipher.py`.

Prints the rate of sealing and opening at several message sizes, with and without OpenSSL, and how
many full XX handshakes (both sides) one core does in a second.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from covey.keys import KeyPair
from covey.limits import Limits
from covey.wire import cipher
from covey.wire.bulk_cipher import BULK_SIZE
from covey.wire.secret_stream import SecretStream

SECONDS = 0.2
PAIRS = KeyPair.generate(), KeyPair.generate()


def make_pair() -> tuple[SecretStream, SecretStream]:
    left, right = (
        SecretStream(
            is_initiator=is_initiator,
            key_pair=PAIRS[is_initiator],
            now=0.0,
            random_bytes=os.urandom,
            limits=Limits(),
        )
        for is_initiator in (True, False)
    )
    for _ in range(3):
        for sender, receiver in ((left, right), (right, left)):
            for buffer in sender.data_to_send():
                receiver.receive_data(buffer, 0.0)
    return left, right


def rates(size: int, batch: int) -> tuple[float, float]:
    """Messages sealed and messages opened per second."""
    left, right = make_pair()
    messages: list[bytes | bytearray | memoryview] = [os.urandom(size)] * batch
    sealing = opening = 0.0
    count = 0
    while sealing + opening < SECONDS:
        start = time.perf_counter()
        left.send_messages(messages)
        buffers = left.data_to_send()
        middle = time.perf_counter()
        for buffer in buffers:
            right.receive_data(buffer, 0.0)
        opening += time.perf_counter() - middle
        sealing += middle - start
        count += batch
    return count / sealing, count / opening


def per_second(action: Callable[[], object]) -> float:
    """How often `action` can be done in a second."""
    count, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < SECONDS * 5:
        action()
        count += 1
    return count / elapsed


def main() -> None:
    """Print the table."""
    bulk_size = BULK_SIZE
    print(
        f"{'engine':10} {'message':>8} {'batch':>5} {'seal/s':>10} {'MB/s':>6} {'open/s':>10} MB/s"
    )
    for name, threshold in (("libsodium", 1 << 62), ("openssl", 0), ("chosen", bulk_size)):
        vars(cipher)["BULK_SIZE"] = threshold
        for size, batch in (
            (100, 1),
            (100, 1000),
            (4096, 16),
            (16384, 4),
            (65536, 1),
            (1 << 20, 1),
        ):
            sealed, opened = rates(size, batch)
            print(
                f"{name:10} {size:8} {batch:5} {sealed:10.0f} {sealed * size / 1e6:6.0f} "
                f"{opened:10.0f} {opened * size / 1e6:6.0f}"
            )
    print(f"XX handshakes, both sides: {per_second(make_pair):.0f} per second")


if __name__ == "__main__":
    main()
