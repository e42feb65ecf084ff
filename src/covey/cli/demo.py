"""The demonstration behind `make demo`: a real file is piped, then published as a log and read.

`python -m covey.cli.demo [FILE]`; without a file a library of this environment is sent.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from covey.cli.demo_stage import COMMAND, Actor, Failed, Stage, node_peer, say, wait_until
from covey.cli.log_append import CHUNK
from covey.cli.output import bytes_text
from covey.cli.pipe import new_topic
from covey.cli.runtime import Exit, take_any_text

NEWS = (b"one more thing,\n", b"written while the reader follows,\n", b"and read at once.\n")
FIND = "10"
"""Seconds after which the reader is told where the writer is, if multicast did not."""


def demonstrate(file: Path) -> int:
    """Publish `file`, have it read by two others; returns the exit code."""
    say(f"covey demo: {file.name}, {bytes_text(file.stat().st_size)}", "cyan")
    start = time.monotonic()
    try:
        with Stage() as stage:
            Story(stage, file).tell()
    except Failed as error:
        say(f"\nfailed: {error}", "red")
        return 1
    say(f"\nAll of it took {time.monotonic() - start:.1f} s.", "cyan")
    say("Next: `covey log --help`; `covey hello` narrates how two peers connect.")
    return 0


class Story:
    """What happens, step by step; each raises `Failed` when it does not."""

    def __init__(self, stage: Stage, file: Path) -> None:
        self._stage = stage
        self._file = file
        self._key = ""
        self._copy = stage.folder / "copy"

    def tell(self) -> None:
        """All of it."""
        self._pipe()
        self._publish()
        writer = self._write_on()
        self._read_and_follow(writer)
        tree_hash = self._verify()
        self._pass_on(tree_hash)

    def _pipe(self) -> None:
        """From one process to another; they know a topic, prove it, and find each other by it."""
        stage, file, topic = self._stage, self._file, new_topic()
        say("\n1. A file goes from one process to another that knows the same topic.")
        say(f"  $ covey pipe {topic} < {file.name}          (sender)")
        say(f"  $ covey pipe {topic} > copy < /dev/null     (receiver)")
        start = time.monotonic()
        with file.open("rb") as source, self._copy.open("wb") as copy:
            command = [*COMMAND, "pipe", topic, "--timeout", "30", *stage.network]
            nothing = subprocess.DEVNULL
            sides = [
                stage.launch("sender", "green", command, stdin=source, stdout=nothing),
                stage.launch("receiver", "blue", command, stdin=nothing, stdout=copy),
            ]
            codes = [side.wait() for side in sides]
        seconds = time.monotonic() - start
        if any(codes) or _digest(self._copy) != _digest(file):
            raise Failed(f"the file was not piped: exit codes {codes}")
        size = bytes_text(file.stat().st_size)
        say(f"  Same sha256 on both sides: {size} in {seconds:.2f} s, start and search included")

    def _publish(self) -> None:
        stage, file = self._stage, self._file
        say("\n2. A log is made; whoever has its key can read it.")
        say("  $ covey log new film")
        self._key = stage.run("writer", "log", "new", "film")["key"]
        say(f"  {self._key}")
        say(f"\n3. The file is appended to it, in blocks of {CHUNK >> 10} KiB, and signed.")
        say(f"  $ covey log append film --file {file.name}")
        done = stage.run("writer", "log", "append", "film", "--file", str(file))
        say(f"  {done['blocks']} blocks, {bytes_text(done['bytes'])}")

    def _write_on(self) -> Actor:
        say("\n4. One process serves it, and will append more.")
        say("  $ covey log append film --seed")
        writer = self._stage.start("writer", "green", "writer", "log", "append", "film", "--seed")
        writer.until_said(r"at port \d+")
        return writer

    def _read_and_follow(self, writer: Actor) -> None:
        say("\n5. A second process, with an empty store, knows nothing but the key.")
        say(f"  $ covey log cat {self._key[:8]}… --follow > copy")
        size = self._file.stat().st_size
        reader = self._start_reader(writer)
        wait_until("the reader has the whole file", lambda: self._has(reader, size))
        say("  It has caught up. Now the writer appends, and the reader follows:")
        for line in NEWS:
            writer.write(line)
            size += len(line)
            wait_until("the reader follows", lambda size=size: self._has(reader, size))  # type: ignore[misc]
        reader.stop()
        writer.stop()
        expected = hashlib.sha256(self._file.read_bytes() + b"".join(NEWS)).hexdigest()
        if _digest(self._copy) != expected:
            raise Failed("the copy differs from what was published")
        say(f"  Same bytes on both sides, sha256 {expected}", "cyan")

    def _start_reader(self, writer: Actor) -> Actor:
        """By the key alone; where multicast does not reach, by key and address."""
        wanted = ("log", "cat", self._key, "--follow", "--timeout", FIND)
        reader, enough = self._reader(*wanted), min(1, self._file.stat().st_size)
        wait_until("the reader finds the writer", lambda: self._has(reader, enough) or reader.ended)
        if not reader.ended:
            return reader
        if reader.wait() != Exit.NOBODY:
            raise Failed("the reader ended too early")
        port = writer.until_said(r"at port (\d+)")[1]
        say(f"  Multicast does not work here: it is told the address, --peer 127.0.0.1:{port}")
        return self._reader(*wanted, "--peer", f"127.0.0.1:{port}")

    def _reader(self, *arguments: str) -> Actor:
        with self._copy.open("wb") as copy:
            return self._stage.start("reader", "blue", "reader", *arguments, stdout=copy)

    def _has(self, reader: Actor, size: int) -> bool:
        if self._copy.stat().st_size >= size:
            return True
        if reader.ended and reader.process.returncode != Exit.NOBODY:
            raise Failed("the reader ended too early")
        return False

    def _verify(self) -> str:
        say("\n6. The writer is gone. The reader's store is checked against the signature.")
        say(f"  $ covey log verify {self._key[:8]}…")
        report = self._stage.run("reader", "log", "verify", self._key)
        if report["held"] != report["length"]:
            raise Failed(f"only {report['held']} of {report['length']} blocks are there")
        say(f"  the signature holds, and so do all {report['length']} blocks")
        return str(report["tree_hash"])

    def _pass_on(self, tree_hash: str) -> None:
        command, why_not = node_peer()
        if not command:
            say(f"\n7. A third reader, Node's own corestore, is left out: {why_not}.")
            return
        say("\n7. Node's own corestore gets it from the reader, who never could write it.")
        say(f"  $ covey seed {self._key[:8]}…")
        seeder = self._stage.start("seeder", "blue", "reader", "seed", self._key)
        port = seeder.until_said(r"at port (\d+)")[1]
        say(f"  $ node corestore-peer.cjs --mode get --keys {self._key[:8]}… --connect {port}")
        wanted = ("--mode", "get", "--keys", self._key, "--connect", port, "--timeout", "50")
        node = self._stage.launch("node", "magenta", [*command, *wanted])
        if node.wait():
            raise Failed("Node did not get the log: " + " ".join(node.lines[-3:]))
        seeder.stop()
        told = [json.loads(line) for line in node.lines if line.startswith("{")]
        self._compare(told, tree_hash)

    def _compare(self, told: list[dict[str, object]], tree_hash: str) -> None:
        blocks = {event["index"]: event["blake2b"] for event in told if event["event"] == "block"}
        (done,) = [event for event in told if event["event"] == "core-done"]
        if blocks != dict(enumerate(self._block_digests())) or done["treeHash"] != tree_hash:
            raise Failed("Node has another log")
        say(
            f"  Node has all {len(blocks)} blocks, with the same digests, and the same tree hash",
            "cyan",
        )
        say(f"  {tree_hash}", "cyan")

    def _block_digests(self) -> list[str]:
        with self._file.open("rb") as file:
            blocks = list(iter(lambda: file.read(CHUNK), b""))
        return [hashlib.blake2b(block, digest_size=32).hexdigest() for block in (*blocks, *NEWS)]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _some_file() -> Path:
    """The largest library that is installed beside covey: a real file of some megabytes."""
    libraries = Path(sysconfig.get_paths()["platlib"]).rglob("*.so")
    return max(libraries, key=lambda path: path.stat().st_size, default=Path(sys.executable))


def main() -> None:
    """Run with the file named on the command line, or one that is there anyhow."""
    take_any_text()
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else _some_file()
    if not file.is_file():
        say(f"covey demo: {file} is not a file", "red")
        sys.exit(2)
    sys.exit(demonstrate(file))


if __name__ == "__main__":
    main()
