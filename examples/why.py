"""Three peers that do not connect, and what covey has to say about each.

    python examples/why.py

One listens nowhere, one has another key than its address says, one is not on the whitelist.
"""

from __future__ import annotations

import asyncio
import socket

from covey import Address, ConnectError, Endpoint, Flock, Hub, KeyPair


def unused_port() -> int:
    """A port of this machine at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def main() -> None:
    """Try all three."""
    async with Hub() as hub, Endpoint() as other:
        host, port = await other.listen_on("127.0.0.1")
        somebody_else = KeyPair.generate().public_key
        for address in (
            Address.net("127.0.0.1", unused_port()),
            Address.net(host, port, "noise", somebody_else),
        ):
            try:
                await hub.connect(address)
            except ConnectError as error:
                print(f"{type(error).__name__}\n{hub.explain(address)}\n")

    async with Flock(whitelist=["10.0.0.0/8"], host="127.0.0.1", discovery=False) as flock:
        events = flock.listen()
        flock.add_peer("a topic", ("192.0.2.1", 3282))
        print(await anext(events))
        print(flock.explain(("192.0.2.1", 3282)))


if __name__ == "__main__":
    asyncio.run(main())
