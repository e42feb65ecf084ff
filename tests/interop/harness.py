"""Runs the Node programs of `tests/interop/node`: one JSON object per line is one event.

async with NodePeer("secret-stream-echo.cjs", "--listen", 0) as peer:
    await peer.event("listening")
    ...connect to peer.port...
    closed = await peer.event("close")
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any, Self

NODE = Path(__file__).parent / "node"
PACKAGES = NODE / "node_modules"

STDERR_KEPT = 4000
LINE_LIMIT = 64 << 20  # an event may carry a whole message in hex

Event = dict[str, Any]


def missing() -> str | None:
    """Why the Node programs cannot run here, or None when they can."""
    if shutil.which("node") is None:
        return "Node is not installed: the interop tests need node and npm (Node 20 or later)"
    wanted = ("protomux", "corestore", "protomux-wakeup")
    if not all((PACKAGES / name / "package.json").exists() for name in wanted):
        return "the Node packages are not installed: run `make test`, or `make node-packages`"
    return None


def in_ci() -> bool:
    """Whether this is a CI run (`CI` is set and not false): there, missing Node is a failure."""
    return os.environ.get("CI", "").strip().lower() not in ("", "0", "false", "no")


class NodePeer:
    """One Node program, alive inside `async with`; its whole process group is killed at exit.

    `arguments` go to the program as text, then `--timeout`, so that a program whose parent dies
    ends by itself after `lifetime` seconds (`None`: the program has no such option). `program` is
    a file name in `tests/interop/node`, or an absolute path. With `stdin` the program can be told
    lines. `events` holds all events so far.
    """

    def __init__(
        self, program: str, *arguments: object, lifetime: float | None = 50, stdin: bool = False
    ) -> None:
        self.program = program
        self.events: list[Event] = []
        self.stderr = ""
        self._stdin = stdin
        self._arguments = [str(argument) for argument in arguments]
        if lifetime is not None:
            self._arguments += ["--timeout", f"{lifetime:g}"]
        self._unread: list[Event] = []
        self._ended = False
        self._changed = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            "node",
            str(NODE / self.program),
            *self._arguments,
            stdin=asyncio.subprocess.PIPE if self._stdin else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_LIMIT,
            start_new_session=True,
            env={**os.environ, "NODE_PATH": str(PACKAGES)},
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read_events(self._process.stdout), name="node.stdout"),
            asyncio.create_task(self._read_stderr(self._process.stderr), name="node.stderr"),
        ]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.kill()
        assert self._process is not None
        await self._process.wait()
        await asyncio.gather(*self._readers)
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # it may have ended before it had read everything
                await self._process.stdin.wait_closed()

    @property
    def pid(self) -> int:
        """The process id, which is also its process group."""
        assert self._process is not None
        return self._process.pid

    @property
    def port(self) -> int:
        """The port of the last `listening` event."""
        for event in reversed(self.events):
            if event["event"] == "listening":
                return int(event["port"] if "port" in event else event["ports"][0])
        raise AssertionError(self._report("no `listening` event yet"))

    @property
    def public_key(self) -> bytes:
        """The static key that the program told in its last event that has one."""
        for event in reversed(self.events):
            if "publicKey" in event:
                return bytes.fromhex(event["publicKey"])
        raise AssertionError(self._report("no event with a public key yet"))

    async def event(self, name: str, /, *, timeout: float = 20, **fields: object) -> Event:
        """The oldest event not yet handed out that is called `name` and has these `fields`.

        Fails with everything that the program said when it ends, or `timeout` seconds pass,
        without such an event.
        """
        wanted = {"event": name, **fields}
        try:
            async with asyncio.timeout(timeout):
                while True:
                    for event in self._unread:
                        if _has(event, wanted):
                            self._unread.remove(event)
                            return event
                    if self._ended:
                        break
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(self._report(f"no event {wanted} in {timeout:g} s")) from None
        raise AssertionError(self._report(f"ended without event {wanted}"))

    async def tell(self, line: str) -> None:
        """Write one line to the program, which must have been started with `stdin`."""
        assert self._process is not None
        assert self._process.stdin is not None, f"{self.program} was started without stdin"
        self._process.stdin.write(line.encode() + b"\n")
        await self._process.stdin.drain()

    async def exit_code(self, *, timeout: float = 20) -> int:
        """Wait until the program ends by itself; its exit code."""
        assert self._process is not None
        try:
            async with asyncio.timeout(timeout):
                return await self._process.wait()
        except TimeoutError:
            raise AssertionError(self._report(f"still running after {timeout:g} s")) from None

    def named(self, name: str) -> list[Event]:
        """All events called `name` so far, handed out or not."""
        return [event for event in self.events if event["event"] == name]

    def terminate(self) -> None:
        """Ask the program to end (SIGTERM)."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the whole process group now."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    async def _read_events(self, stdout: asyncio.StreamReader) -> None:
        try:
            async for line in stdout:
                if not line.endswith(b"\n"):
                    break  # killed in the middle of a line
                event = json.loads(line)
                event.setdefault("event", "")
                self.events.append(event)
                self._unread.append(event)
                self._changed.set()
        finally:
            self._ended = True
            self._changed.set()

    async def _read_stderr(self, stderr: asyncio.StreamReader) -> None:
        while data := await stderr.read(4096):
            self.stderr = (self.stderr + data.decode(errors="replace"))[-STDERR_KEPT:]

    def _report(self, problem: str) -> str:
        said = "\n".join(f"  {str(event)[:300]}" for event in self.events[-30:]) or "  (nothing)"
        command = " ".join([self.program, *self._arguments])
        return f"{command}: {problem}; it said:\n{said}\nstderr:\n{self.stderr or '  (nothing)'}"


def _has(event: Event, fields: Event) -> bool:
    return all(key in event and event[key] == value for key, value in fields.items())
