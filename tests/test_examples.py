"""The programs of `examples/`, each run for real: processes, loopback, no multicast."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
DEADLINE = 30
TESTED = {"chat", "echo_plain", "file_server", "why"}

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends the programs with SIGINT")


@contextmanager
def running(name: str, *arguments: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """An example under way; interrupted at the end, after which it must have left cleanly."""
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", EXAMPLES / f"{name}.py", *arguments],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=DEADLINE)
        assert (complaints, process.returncode) == ("", 0)
    finally:
        process.kill()
        process.communicate()


def lines_of(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def say(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{text}\n")
    process.stdin.flush()


def end(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.stdin = None


def run(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-X", "dev", EXAMPLES / f"{name}.py", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )


def test_every_example_has_a_test() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == TESTED


def test_chat_carries_lines_both_ways_and_tells_who_came_and_left(tmp_path: Path) -> None:
    with running("chat", "nest", "ada", "--local", folder=tmp_path) as ada:
        port = lines_of(ada).readline().split()[-1]
        arguments = ("nest", "bob", "--local", "--peer", f"127.0.0.1:{port}")
        with running("chat", *arguments, folder=tmp_path) as bob:
            assert lines_of(bob).readline().startswith("* bob is in 'nest', at port ")
            assert lines_of(bob).readline() == "* ada is here\n"
            assert lines_of(ada).readline() == "* bob is here\n"
            say(ada, "good morning")
            assert lines_of(bob).readline() == "ada: good morning\n"
            say(bob, "grüß dich")
            assert lines_of(ada).readline() == "bob: grüß dich\n"
            end(bob)
            assert bob.wait(DEADLINE) == 0
        assert lines_of(ada).readline() == "* bob left\n"
        end(ada)
        assert ada.wait(DEADLINE) == 0


def test_file_server_gives_out_its_folder_and_nothing_else(tmp_path: Path) -> None:
    shelf, home = tmp_path / "shelf", tmp_path / "home"
    shelf.mkdir()
    home.mkdir()
    (tmp_path / "secret.txt").write_text("not yours")
    large = bytes(range(256)) * 20_000
    (shelf / "large.bin").write_bytes(large)
    (shelf / "empty").touch()
    with running("file_server", "serve", str(shelf), folder=tmp_path) as server:
        address = lines_of(server).readline().strip()
        wanted = ("large.bin", "empty", "none", "../secret.txt")
        done = run("file_server", "get", address, *wanted, folder=home)
        assert (done.stderr, done.returncode) == ("", 0)
        assert done.stdout.splitlines() == [
            f"large.bin: {len(large)} bytes",
            "empty: 0 bytes",
            "none: there is no file 'none'",
            "../secret.txt: there is no file '../secret.txt'",
        ]
        stranger = address.rpartition(":")[0] + ":" + "A" * 43 + "="
        refused = run("file_server", "get", stranger, "empty", folder=home)
        assert refused.returncode == 1
        assert refused.stderr.startswith("error: the remote has another key")
    assert (home / "large.bin").read_bytes() == large
    assert sorted(path.name for path in home.iterdir()) == ["empty", "large.bin"]


def test_echo_plain_answers_over_the_clear_text_handshake(tmp_path: Path) -> None:
    with running("echo_plain", "answer", folder=tmp_path) as answering:
        port = lines_of(answering).readline().split()[-1]
        done = run("echo_plain", "ask", port, "anybody there?", folder=tmp_path)
        assert (done.stdout, done.stderr) == ("anybody there?\n", "")
        assert lines_of(answering).readline().endswith(" is here\n")


def test_why_tells_three_stories_with_what_can_be_done(tmp_path: Path) -> None:
    done = run("why", folder=tmp_path)
    assert (done.stderr, done.returncode) == ("", 0)
    for part in (
        "failed at the dial",
        "you can: start the other side",
        "the remote has another key",
        "you can: check the key",
        "192.0.2.1 is not on the whitelist",
    ):
        assert part in done.stdout
