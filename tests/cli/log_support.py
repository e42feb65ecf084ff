"""What the tests of the commands for logs share: commands that end, writers and readers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.cli.support import HOST, LOCAL, PIPE, Process, covey

ROOT = Path(__file__).parents[2]


class Store:
    """A folder for logs, and the commands that are run on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def option(self) -> tuple[str, str]:
        return "--store", str(self.folder)

    def run(self, *arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """A command to its end, with `data` on its stdin."""
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "covey.cli", *arguments, *self.option],
            input=data,
            capture_output=True,
            timeout=30,
            check=False,
            cwd=ROOT,
        )

    def good(self, *arguments: str, data: bytes = b"") -> bytes:
        """What a command that must succeed writes on stdout."""
        done = self.run(*arguments, data=data)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def told(self, *arguments: str, data: bytes = b"") -> list[dict[str, Any]]:
        """The JSON events of a command that must succeed (not of `cat`)."""
        return [
            json.loads(line) for line in self.good(*arguments, "--json", data=data).splitlines()
        ]

    def refused(self, *arguments: str, data: bytes = b"", code: int = 1) -> str:
        """What a command that must fail says on stderr."""
        done = self.run(*arguments, data=data)
        said = done.stderr.decode()
        assert done.returncode == code, said
        assert "Traceback" not in said
        return said

    def new(self, name: str = "diary", lines: int = 0) -> str:
        """Make a log of so many lines; gives its key."""
        key = self.good("log", "new", name).decode().strip()
        if lines:
            self.good("log", "append", name, data=numbered(lines))
        return key

    @asynccontextmanager
    async def writer(self, *options: str, name: str = "diary") -> AsyncIterator[Process]:
        """`log append NAME --seed --json`, whose stdin is open; listens on loopback."""
        command = ("log", "append", name, "--seed", "--json", *LOCAL, *options, *self.option)
        async with covey(*command, stdin=PIPE) as process:
            yield process

    @asynccontextmanager
    async def cat(self, key: str, *options: str, **streams: Any) -> AsyncIterator[Process]:
        """`log cat KEY --json`."""
        async with covey(
            "log", "cat", key, "--json", *LOCAL, *options, *self.option, **streams
        ) as p:
            yield p


def numbered(count: int, start: int = 0) -> bytes:
    """Lines with numbers."""
    return b"".join(b"line %d\n" % number for number in range(start, start + count))


async def seeding(process: Process) -> tuple[str, str]:
    """The option that names where a `--json` process serves; waits until it does."""
    await process.until_output(b'"type":"seeding"')
    (told,) = outputs(process, "seeding")
    return "--peer", f"{HOST}:{told['port']}"


def outputs(process: Process, *types: str) -> list[dict[str, Any]]:
    """The JSON events on stdout so far, of these types; a line that is still coming is left out."""
    lines = process.output.split(b"\n")[:-1]
    told = [json.loads(line) for line in lines]
    return [event for event in told if not types or event["type"] in types]
