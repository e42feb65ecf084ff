"""A chat by topic: everybody who joins the same topic hears everybody else.

    python examples/chat.py "our garden" ada

Type lines; end with Ctrl-D. Peers are found on the local network and on this machine. Where there
is no multicast, `--peer HOST:PORT` names one by hand (the port is printed at the start).
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
import threading

from covey import Connection, Flock
from covey.net import Message
from covey.wire.encoding import string

PROTOCOL = "example/chat"


class Room:
    """The people we are connected to, and what we say to them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.lines: dict[str, Message[str]] = {}

    async def welcome(self, connection: Connection) -> None:
        """Runs once for each connected peer; the connection is closed when it returns."""
        channel = connection.mux.create_channel(PROTOCOL, handshake=string)
        line = channel.add_message(string, lambda text: print(f"{channel.handshake}: {text}"))
        channel.open(self.name)  # our name is the handshake of the channel
        if not await channel.fully_opened():
            return  # the other side speaks other protocols
        key = connection.address.text
        self.lines[key] = line
        print(f"* {channel.handshake} is here")
        try:
            await channel.fully_closed()
        finally:
            del self.lines[key]
            print(f"* {channel.handshake} left")

    def say(self, text: str) -> None:
        """Send a line to everybody."""
        for line in self.lines.values():
            line.send(text)


def typed_lines() -> asyncio.Queue[str | None]:
    """What is typed, line by line; None at the end. A thread waits for it."""
    loop, lines = asyncio.get_running_loop(), asyncio.Queue[str | None]()

    def read() -> None:
        for text in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, text.rstrip("\n"))
        loop.call_soon_threadsafe(lines.put_nowait, None)

    threading.Thread(target=read, name="chat.stdin", daemon=True).start()
    return lines


async def chat(topic: str, name: str, peers: list[str], *, local: bool) -> None:
    """Join the topic and talk until the end of the input."""
    room = Room(name)
    host = "127.0.0.1" if local else None
    async with Flock(room.welcome, host=host, discovery=not local) as flock:
        await flock.join(topic)
        _, port = await flock.listen_on()
        print(f"* {name} is in {topic!r}, at port {port}")
        for peer in peers:
            there, _, number = peer.rpartition(":")
            flock.add_peer(topic, (there or "127.0.0.1", int(number)))
        lines = typed_lines()
        while (text := await lines.get()) is not None:
            room.say(text)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="A chat by topic.")
    parser.add_argument("topic", nargs="?", default="the covey tutorial")
    parser.add_argument("name", nargs="?", default=getpass.getuser())
    parser.add_argument("--peer", action="append", default=[], metavar="HOST:PORT")
    parser.add_argument("--local", action="store_true", help="this machine only, no multicast")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    asyncio.run(chat(options.topic, options.name, options.peer, local=options.local))


if __name__ == "__main__":
    main()
