"""Runs the programs that are measured: JSON lines out, everything ended afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NODE_PROGRAMS = Path(__file__).parent / "node"
NODE_PACKAGES = ROOT / "tests" / "interop" / "node" / "node_modules"
DESCRIPTORS = 16_384
PATIENCE = 300.0
UNUSUAL = frozenset({"PYTHONDONTWRITEBYTECODE"})
"""What would have every module compiled again in each run, some of them while the clock runs."""

Line = dict[str, Any]


class BenchError(Exception):
    """A program that should be measured did not run to its end."""


def raise_descriptor_limit() -> None:
    """Let this process and its children open thousands of sockets, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_node() -> None:
    """Raise `BenchError` with what to do when the Node side cannot run."""
    if shutil.which("node") is None:
        raise BenchError("node was not found: the benchmarks compare with Node, install it first")
    if not (NODE_PACKAGES / "protomux").is_dir():
        raise BenchError("the Node packages are missing: run `make node-packages`")


def node(program: str, *arguments: str) -> list[str]:
    """The command of a program in `bench/node`; the garbage collector can be asked to run."""
    return ["node", "--expose-gc", str(NODE_PROGRAMS / program), *arguments]


def python(module: str, *arguments: str) -> list[str]:
    """The command of one of our modules."""
    return [sys.executable, "-m", module, *arguments]


def environment() -> dict[str, str]:
    """The environment of a program: the compiled form of our modules is kept, as is usual."""
    kept = {name: value for name, value in os.environ.items() if name not in UNUSUAL}
    return {**kept, "NODE_PATH": str(NODE_PACKAGES)}


class Program:
    """A running program whose output is JSON lines; killed with its children at the end."""

    def __init__(self, command: list[str], cpu: int | None = None) -> None:
        self._command = command
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        if cpu is not None:
            os.sched_setaffinity(self._process.pid, {cpu})
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._errors: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_errors, daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def _read_lines(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _read_errors(self) -> None:
        assert self._process.stderr is not None
        self._errors.extend(self._process.stderr)

    def lines(self) -> Iterator[Line]:
        """Every line until the program ends; `BenchError` when it stays silent for too long."""
        while True:
            try:
                line = self._lines.get(timeout=PATIENCE)
            except queue.Empty:
                raise BenchError(f"{self}: silent for {PATIENCE:g} s") from None
            if line is None:
                return
            yield json.loads(line)

    def line(self, field: str) -> Line:
        """The next line that has `field`."""
        for line in self.lines():
            if field in line:
                return line
        raise self.failure(f"ended without {field!r}")

    def failure(self, problem: str) -> BenchError:
        """An error that shows what the program complained about."""
        self._readers[1].join(1.0)
        return BenchError(f"{self}: {problem}\n{''.join(self._errors)[-3000:]}")

    def end(self) -> None:
        """Kill what still runs and wait for it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for reader in self._readers:
            reader.join(5.0)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def __str__(self) -> str:
        return " ".join(self._command)


@contextlib.contextmanager
def running(command: list[str], cpu: int | None = None) -> Iterator[Program]:
    """A program, for the length of the block; on that CPU alone when one is given."""
    program = Program(command, cpu)
    try:
        yield program
    finally:
        program.end()


def two_cpus() -> tuple[int, int] | tuple[None, None]:
    """Two different CPUs that we may use; None, None where there are no two or no say in it."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    mine = sorted(os.sched_getaffinity(0))
    return (mine[0], mine[1]) if len(mine) > 1 else (None, None)


def measure(
    server: list[str],
    client: list[str],
    field: str,
    *,
    on_server: bool = False,
    cpu_each: bool = False,
) -> float:
    """Start `server`, then `client` with its port; the figure that one of them prints.

    `cpu_each` gives each of the two a CPU of its own, which the scheduler otherwise does or does
    not as it likes: where every message wakes the other end, that alone decides about a factor of
    two.
    """
    here, there = two_cpus() if cpu_each else (None, None)
    with running(server, here) as listening:
        port = listening.line("port")["port"]
        flag = ["--port", str(port)] if client[0] == sys.executable else [f"--port={port}"]
        with running([*client, *flag], there) as calling:
            return float((listening if on_server else calling).line(field)[field])
