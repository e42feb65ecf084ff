"""Ask a peer for files by name, one channel for each file.

    python examples/file_server.py serve FOLDER          prints its address
    python examples/file_server.py get ADDRESS NAME...   fetches files into this folder

The address carries the server's public key: the client talks to that key or to nobody.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
from pathlib import Path

from covey import Address, Connection, CoveyError, Endpoint, KeyPair
from covey.net import Channel
from covey.wire.encoding import raw, string, uint

PROTOCOL = "example/file"
CHUNK = 1 << 16


class Server:
    """Gives out the files directly in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()

    def accept(self, connection: Connection) -> None:
        """Answer every channel of our protocol that the client opens on this connection."""

        def paired(id: bytes | None) -> None:  # noqa: A002
            channel = connection.mux.create_channel(
                PROTOCOL, id=id, handshake=string, on_open=self.send_file
            )
            channel.add_message(uint)  # 0: size of the file
            channel.add_message(raw)  # 1: a part of it
            channel.add_message(string)  # 2: why there is none
            channel.open("")

        connection.mux.pair(PROTOCOL, paired)

    async def send_file(self, name: str, channel: Channel) -> None:
        """The client's handshake names the file."""
        size, part, refusal = (message for message in channel.messages if message is not None)
        path = (self.folder / name).resolve()
        if path.parent != self.folder or not path.is_file():
            refusal.send(f"there is no file {name!r}")
        else:
            with path.open("rb") as file:
                size.send(os.fstat(file.fileno()).st_size)
                while data := await asyncio.to_thread(file.read, CHUNK):
                    if not part.send(data):
                        await channel.drain()  # the client is slower than our disk
        channel.close()  # what was sent before still leaves


async def fetch(connection: Connection, name: str, target: Path) -> str:
    """Fetch one file and say what came of it."""
    over = asyncio.Event()
    # A random id lets many channels of one protocol be open at the same time.
    channel = connection.mux.create_channel(
        PROTOCOL, id=os.urandom(8), handshake=string, on_close=lambda *_: over.set()
    )
    sizes: list[int] = []
    problems: list[str] = []
    with target.open("wb") as file:
        channel.add_message(uint, sizes.append)
        channel.add_message(raw, file.write)
        channel.add_message(string, problems.append)
        channel.open(name)
        await over.wait()
        written = file.tell()
    if problems or sizes != [written]:
        await asyncio.to_thread(target.unlink)
        return f"{name}: {problems[0] if problems else 'cut off on the way'}"
    return f"{name}: {written} bytes"


async def serve(folder: Path) -> None:
    """Serve until interrupted."""
    server = Server(folder)
    key_pair = KeyPair.generate()  # a server that keeps its address loads it from a file
    async with Endpoint(key_pair=key_pair, on_connection=server.accept) as endpoint:
        host, port = await endpoint.listen_on("127.0.0.1")
        print(Address.net(host, port, "noise", key_pair.public_key))
        await asyncio.Event().wait()


async def get(address: str, names: list[str]) -> None:
    """Fetch files side by side over one connection."""
    async with Endpoint() as endpoint:
        connection = await endpoint.dial(Address.parse(address))
        jobs = (fetch(connection, name, Path(Path(name).name)) for name in names)
        for line in await asyncio.gather(*jobs):
            print(line)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Ask a peer for files by name.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve").add_argument("folder", type=Path)
    getter = commands.add_parser("get")
    getter.add_argument("address")
    getter.add_argument("names", nargs="+")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    serving = options.command == "serve"
    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(options.folder) if serving else get(options.address, options.names))
    except CoveyError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
