"""The demonstration behind `make demo`: two processes find each other and pipe a real file.

`python -m covey.cli.demo [FILE]`; without a file a library of this environment is sent.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from pathlib import Path

import click

from covey.cli.output import bytes_text
from covey.cli.pipe import new_topic
from covey.cli.runtime import take_any_text

TIMEOUT = 60.0


def _say(text: str, colour: str | None = None) -> None:
    click.secho(text, fg=colour, err=False)


def _relay(who: str, colour: str, process: subprocess.Popen[bytes]) -> threading.Thread:
    """Print what a side says on stderr, with its name in front."""

    def relay() -> None:
        for line in process.stderr or ():
            _say(f"  {who:<9}│ {line.decode(errors='replace').rstrip()}", colour)

    thread = threading.Thread(target=relay, name=f"demo.{who}", daemon=True)
    thread.start()
    return thread


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def demonstrate(file: Path) -> int:
    """Pipe `file` from one process to another; returns the exit code."""
    size = file.stat().st_size
    topic = new_topic()
    _say(f"covey demo: {file.name}, {bytes_text(size)}, from one process to another", "cyan")
    _say(f"  sha256 {_digest(file)}")
    _say(f"\n  $ covey pipe {topic} < {file.name}          (sender)")
    _say(f"  $ covey pipe {topic} > copy < /dev/null     (receiver)\n")
    command = [sys.executable, "-m", "covey.cli", "pipe", topic, "--timeout", "30"]
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="covey-demo-") as folder:
        copy = Path(folder) / "copy"
        with file.open("rb") as source, copy.open("wb") as target:
            sides = {
                "sender": subprocess.Popen(  # noqa: S603 - our own command
                    command, stdin=source, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
                ),
                "receiver": subprocess.Popen(  # noqa: S603
                    command, stdin=subprocess.DEVNULL, stdout=target, stderr=subprocess.PIPE
                ),
            }
            colours = {"sender": "green", "receiver": "blue"}
            relays = [_relay(who, colours[who], side) for who, side in sides.items()]
            try:
                codes = {who: side.wait(TIMEOUT) for who, side in sides.items()}
            except subprocess.TimeoutExpired:
                _say(f"\nfailed: not finished within {TIMEOUT:g} s", "red")
                return 1
            finally:
                for side in sides.values():
                    side.kill()
                    side.wait()
                for thread in relays:
                    thread.join(5)
                for side in sides.values():
                    if side.stderr:
                        side.stderr.close()
        seconds = time.monotonic() - start
        same = copy.stat().st_size == size and _digest(copy) == _digest(file)
    if any(codes.values()) or not same:
        _say(f"\nfailed: exit codes {codes}, digests {'agree' if same else 'differ'}", "red")
        return 1
    _say(
        f"\nThe copy has the same sha256: {bytes_text(size)} in {seconds:.2f} s, starting two "
        "processes,\nfinding each other by topic, the encrypted handshake and the proof included.",
        "cyan",
    )
    _say("Next: `covey hello` narrates every step; `covey join TOPIC` shows who is there.")
    return 0


def _some_file() -> Path:
    """The largest library that is installed beside covey: a real file of some megabytes."""
    libraries = Path(sysconfig.get_paths()["platlib"]).rglob("*.so")
    return max(libraries, key=lambda path: path.stat().st_size, default=Path(sys.executable))


def main() -> None:
    """Run with the file named on the command line, or one that is there anyhow."""
    take_any_text()
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else _some_file()
    if not file.is_file():
        _say(f"covey demo: {file} is not a file", "red")
        sys.exit(2)
    sys.exit(demonstrate(file))


if __name__ == "__main__":
    main()
