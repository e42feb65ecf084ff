"""`make demo`: a file is piped, published, read, followed, verified, and passed on to Node."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path

import pytest

from covey.cli import demo_stage
from covey.cli.demo import NEWS
from covey.cli.demo_stage import Failed, Stage, node_peer

ROOT = Path(__file__).parents[2]


def demonstrate(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "covey.cli.demo", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )


def test_the_demonstration_tells_its_story(tmp_path: Path) -> None:
    file = tmp_path / "story.bin"
    data = random.Random(1).randbytes(1_000_000)
    file.write_bytes(data)
    done = demonstrate(str(file))
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    published = hashlib.sha256(data + b"".join(NEWS)).hexdigest()
    assert f"Same bytes on both sides, sha256 {published}" in done.stdout
    assert "Same sha256 on both sides: 1.0 MB" in done.stdout
    assert "proved that it knows the topic" in done.stdout
    assert "so do all 19 blocks" in done.stdout
    for step in ("discovered 127.0.0.1:", "path: tcp", "(this machine), noise with key"):
        assert step in done.stdout
    command, why_not = node_peer()
    if command:
        assert "Node has all 19 blocks, with the same digests" in done.stdout
    else:
        assert why_not in done.stdout


def test_the_demonstration_wants_a_file() -> None:
    done = demonstrate("/nowhere/at/all")
    assert done.returncode == 2
    assert "is not a file" in done.stdout


def test_a_missing_node_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    command, why_not = node_peer()
    assert not command
    assert "no Node on this machine" in why_not
    monkeypatch.setattr(demo_stage, "__file__", str(tmp_path / "a" / "b" / "c" / "demo_stage.py"))
    assert "no checkout" in node_peer()[1]


def test_a_step_that_fails_says_which() -> None:
    with Stage() as stage, pytest.raises(Failed, match="`covey log info film` failed: there is no"):
        stage.run("writer", "log", "info", "film")


def test_an_actor_that_ends_without_its_line_is_noticed() -> None:
    with Stage() as stage:
        actor = stage.launch("nobody", "red", [sys.executable, "-c", "print('bye')"])
        with pytest.raises(Failed, match="nobody ended without 'hello'"):
            actor.until_said("hello")
        assert actor.until_said("b(.)e")[1] == "y"


@pytest.mark.skipif(sys.platform == "win32", reason="no background jobs of a shell")
def test_a_demonstration_in_the_background_where_interrupts_are_ignored_ends(
    tmp_path: Path,
) -> None:
    file = tmp_path / "story.bin"
    file.write_bytes(b"some bytes")
    script = 'trap \'\' INT; exec "$0" -m covey.cli.demo "$1"'
    done = subprocess.run(
        ["/bin/sh", "-c", script, sys.executable, str(file)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=ROOT,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert "so do all" in done.stdout
