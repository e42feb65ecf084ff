"""Other processes of a test: each runs a script and tells its steps in lines.

`COVEY_KILLS` is the number of times that each loop is killed; `make kills` sets it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

KILLS = int(os.environ.get("COVEY_KILLS", "20"))


def run(script: str, *arguments: object) -> str:
    """What a script printed; it must end well."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


@contextmanager
def running(script: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A script under way, killed at the end of the block; its lines come from `stdout`."""
    process = subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stdin):
            assert stream is not None
            stream.close()


def line(process: subprocess.Popen[str]) -> str:
    """The next line of a child."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


class Killed:
    """A loop in another process that is killed at a random moment, again and again.

    `program` is a module that runs `fork_for_each_line`; `mode` and `folder` are its arguments.
    """

    def __init__(self, program: str, mode: str, folder: Path, seed: int) -> None:
        self.folder = folder
        self._chance = random.Random(seed)
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, "-m", program, mode, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=root,
        )

    def __enter__(self) -> Killed:
        return self

    def __exit__(self, *_: object) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()
        self._process.wait()

    def rounds(self) -> Iterator[list[list[str]]]:
        """For each round the lines that were told before the end, split."""
        assert self._process.stdin is not None
        for _ in range(KILLS):
            self._process.stdin.write(b"\n")
            self._process.stdin.flush()
            word, child = self._line()
            assert word == "pid"
            lines = [self._line() for _ in range(self._chance.choice([1, 3, 10, 40]))]
            assert ["end"] not in lines
            time.sleep(self._chance.random() * 0.004)  # any moment: nothing waits for it
            os.kill(int(child), signal.SIGKILL)
            while (line := self._line()) != ["end"]:
                lines.append(line)
            yield lines

    def _line(self) -> list[str]:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().split()


def fork_for_each_line(loop: Callable[[], object]) -> None:
    """For each line that comes in fork a child that runs `loop`; when it is gone, tell `end`."""
    for _ in sys.stdin:
        child = os.fork()
        if not child:
            try:
                tell("pid", os.getpid())
                loop()
            finally:
                os._exit(1)
        os.waitpid(child, 0)
        tell("end")


def tell(*words: object) -> None:
    """One line, whole or not at all."""
    os.write(1, (" ".join(map(str, words)) + "\n").encode())
