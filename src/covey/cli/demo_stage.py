"""The processes of the demonstration: each is a command as anybody would type it, and is heard."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import click

PATIENCE = 60.0
"""Seconds that one step may take."""
GLANCE = 0.02
"""Seconds between two looks at what a process has done."""
COMMAND = (sys.executable, "-m", "covey.cli")


class Failed(Exception):
    """A step of the demonstration did not come to what it should."""


def say(text: str, colour: str | None = None) -> None:
    """A line of the story."""
    click.secho(text, fg=colour)


def wait_until(what: str, happened: Callable[[], bool]) -> None:
    """Wait until `happened`; raises `Failed` when that takes too long."""
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            raise Failed(f"not within {PATIENCE:g} s: {what}")
        time.sleep(GLANCE)


class Actor:
    """A process whose lines are told with its name in front."""

    def __init__(self, who: str, colour: str, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._who = who
        self._colour = colour
        streams = [stream for stream in (process.stdout, process.stderr) if stream is not None]
        self._threads = [
            threading.Thread(target=self._tell, args=(stream,), name=f"demo.{who}", daemon=True)
            for stream in streams
        ]
        for thread in self._threads:
            thread.start()

    @property
    def ended(self) -> bool:
        """Whether the process is over."""
        return self.process.poll() is not None

    def until_said(self, pattern: str) -> re.Match[str]:
        """The first line that fits; raises `Failed` when the process ends without it."""
        found: list[re.Match[str]] = []

        def look() -> bool:
            ended = self.ended
            found.extend(match for line in tuple(self.lines) if (match := re.search(pattern, line)))
            return bool(found) or ended

        wait_until(f"{self._who} says {pattern!r}", look)
        if not found:
            raise Failed(f"{self._who} ended without {pattern!r}")
        return found[0]

    def write(self, data: bytes) -> None:
        """Type something in."""
        if self.process.stdin is not None:
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def stop(self) -> int:
        """Interrupt it as Ctrl-C does, and wait for its end; gives the exit code.

        Where interrupts are ignored, as in a background job of a shell, it inherited that: then it
        is terminated, which is as orderly.
        """
        if not self.ended:
            deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            self.process.send_signal(signal.SIGTERM if deaf else signal.SIGINT)
        return self.wait()

    def wait(self) -> int:
        """Wait for the end."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failed(f"{self._who} does not end") from None
        for thread in self._threads:
            thread.join(5)
        return code

    def kill(self) -> None:
        """End it whatever it does."""
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join(5)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _tell(self, stream: IO[bytes]) -> None:
        for line in stream:
            text = line.decode(errors="replace").rstrip()
            self.lines.append(text)
            if not text.startswith("{"):  # data is for us
                say(f"  {self._who:<8} │ {text}", self._colour)


class Stage:
    """A folder and a multicast port of its own, on this machine only; a context manager."""

    def __init__(self) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="covey-demo-")
        self.folder = Path(self._temporary.name)
        self._actors: list[Actor] = []
        self.network: tuple[str, ...] = ("--host", "127.0.0.1", "--interface", "127.0.0.1")
        self.network += ("--multicast-port", str(_free_udp_port()))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for actor in self._actors:
            actor.kill()
        self._temporary.cleanup()

    def run(self, store: str, *arguments: str) -> dict[str, Any]:
        """Run a command that ends by itself; gives the last thing it told, as data.

        Raises `Failed` with its words when it fails.
        """
        done = subprocess.run(  # noqa: S603 - our own command
            [*COMMAND, *arguments, "--store", str(self.folder / store), "--json"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        told = [json.loads(line) for line in done.stdout.splitlines()]
        if done.returncode or not told:
            why = told[-1].get("message") if told else done.stderr
            raise Failed(f"`covey {' '.join(arguments)}` failed: {why}")
        last: dict[str, Any] = told[-1]
        return last

    def start(
        self, who: str, colour: str, store: str, *arguments: str, stdout: Any = subprocess.PIPE
    ) -> Actor:
        """Start a command that goes on until it is interrupted; its stdin is ours to write."""
        command = [*COMMAND, *arguments, "--store", str(self.folder / store), *self.network]
        return self.launch(who, colour, command, stdout=stdout)

    def launch(
        self,
        who: str,
        colour: str,
        command: Sequence[str],
        *,
        stdin: Any = subprocess.PIPE,
        stdout: Any = subprocess.PIPE,
    ) -> Actor:
        """Start any program."""
        process = subprocess.Popen(  # noqa: S603 - our own command
            command, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE
        )
        actor = Actor(who, colour, process)
        self._actors.append(actor)
        return actor


def node_peer() -> tuple[list[str], str]:
    """The command of the Node peer that reads logs; or an empty one, and why there is none."""
    folder = Path(__file__).parents[3] / "tests" / "interop" / "node"
    script = folder / "corestore-peer.cjs"
    node = shutil.which("node")
    if not script.is_file():
        return [], "this is no checkout of covey, which has a Node peer to try"
    if node is None:
        return [], "there is no Node on this machine"
    if not (folder / "node_modules" / "corestore").is_dir():
        return [], "its packages are not installed: `make node-packages` does that"
    return [node, str(script)], ""


def _free_udp_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
