"""An echo for old discovery swarms: the `plain` handshake, which encrypts and proves nothing.

    python examples/echo_plain.py answer              listens and sends back what comes
    python examples/echo_plain.py ask PORT "a text"   connects to a port of this machine

Either side may be a Node program that uses discovery-swarm 6 with its default settings.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

from covey import Connection, Flock

TOPIC = "echo, echo"


async def echo(connection: Connection) -> None:
    """Send back every chunk. There are no messages here: chunks are cut as the network likes."""
    assert connection.remote_id is not None  # a claim; `remote_key` is None, nothing is proven
    print(f"{connection.remote_id.hex()[:8]} is here")
    async for chunk in connection:
        await connection.send(chunk)


async def answer() -> None:
    """Echo until interrupted."""
    async with Flock(echo, handshake="plain", host="127.0.0.1", discovery=False) as flock:
        await flock.join(TOPIC)
        _, port = await flock.listen_on()
        print(f"listening at port {port}")
        await asyncio.Event().wait()


async def ask(port: int, text: str) -> None:
    """Send `text`, end our half, and print what comes back until the other side ends too."""
    answers: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def talk(connection: Connection) -> None:
        await connection.send(text.encode())
        await connection.end()
        answers.set_result(b"".join([chunk async for chunk in connection]))

    async with Flock(talk, handshake="plain", host="127.0.0.1", discovery=False) as flock:
        flock.add_peer(TOPIC, port)
        async with asyncio.timeout(10):
            print((await answers).decode())


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="An echo for old discovery swarms.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("answer")
    asker = commands.add_parser("ask")
    asker.add_argument("port", type=int)
    asker.add_argument("text")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(answer() if options.command == "answer" else ask(options.port, options.text))


if __name__ == "__main__":
    main()
