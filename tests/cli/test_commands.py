"""`covey`, `hello`, `join` and `id`, as processes."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import covey
from covey.cli import COMMANDS
from tests.cli.support import HOST, LOCAL, PIPE
from tests.cli.support import covey as start
from tests.cli.test_pipe import run_covey
from tests.discovery.fakes import free_udp_port

STEPS = ["listening", "peer", "staged", "connecting", "handshaking", "connection", "channel-open"]


def multicast() -> tuple[str, ...]:
    return "--interface", HOST, "--multicast-port", str(free_udp_port())


def events_of(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_help_names_every_command() -> None:
    done = run_covey("--help")
    assert done.returncode == 0
    assert all(name in done.stdout for name in COMMANDS)
    assert "\\b" not in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_json_and_debug(name: str) -> None:
    done = run_covey(name, "--help")
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert "--debug" in done.stdout


def test_the_version_is_the_packages() -> None:
    assert run_covey("--version").stdout == f"covey {covey.__version__}\n"


def test_an_unknown_command_is_wrong_usage() -> None:
    done = run_covey("fly")
    assert done.returncode == 2
    assert "No such command" in done.stderr


@pytest.mark.parametrize("way", ["multicast", "no-multicast"])
def test_hello_goes_through_every_step(way: str) -> None:
    options = multicast() if way == "multicast" else LOCAL
    done = run_covey("hello", "--json", *options)
    assert (done.returncode, done.stderr) == (0, "")
    events = events_of(done)
    types = [event["type"] for event in events]
    assert set(STEPS) <= set(types)
    said = {(event["who"], event["said"]) for event in events if event["type"] == "message"}
    assert said == {("ada", "hello from bob"), ("bob", "hello from ada")}
    assert types[-1] == "done"


def test_hello_in_words_tells_the_same() -> None:
    done = run_covey("hello", *LOCAL)
    assert done.returncode == 0
    assert "heard 'hello from bob'" in done.stdout
    assert "(this machine), noise with key" in done.stdout
    assert "nothing left open" in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [("hello", *LOCAL), ("join", "x", *LOCAL), ("id",)])
def test_output_that_cannot_be_written_ends_a_command_at_once(
    command: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVEY_HOME", str(tmp_path))
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "covey.cli", *command],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert "cannot write the output: No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_hello_that_finds_nobody_says_so() -> None:
    options = ("--interface", "nowhere0", "--peer", f"{HOST}:1", "--timeout", "0.3")
    done = run_covey("hello", *options, "--host", HOST)
    assert done.returncode == 3
    assert "did not find each other within 0.3 s" in done.stderr


@pytest.mark.parametrize("command", [("hello",), ("join", "x")])
def test_a_missing_interface_ends_a_command_at_once_with_its_cause(command: tuple[str]) -> None:
    done = run_covey(*command, "--interface", "nowhere0")
    assert done.returncode == 1
    assert "covey: there is no network interface nowhere0" in done.stderr
    assert "firewall" not in done.stderr
    assert "lo" in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ("hello", "--interface", "no0"),
        ("join", "x", "--interface", "no0"),
        ("id", "--key", "/dev/null/key"),
    ],
)
def test_a_failure_is_told_among_the_other_events(command: tuple[str, ...]) -> None:
    done = run_covey(*command, "--json")
    assert (done.returncode, done.stderr) == (1, "")
    failed = events_of(done)[-1]
    assert (failed["type"], failed["code"]) == ("failed", 1)
    assert failed["hint"]


def test_join_wants_a_topic_of_at_least_one_character() -> None:
    done = run_covey("join", "", *LOCAL)
    assert done.returncode == 2
    assert "a topic needs at least one character" in done.stderr


@pytest.mark.parametrize("way", ["option", "environment"])
def test_a_place_where_no_key_can_be_is_explained(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setenv("COVEY_HOME", str(file))
    done = run_covey("id", *(("--key", str(file / "key")) if way == "option" else ()))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"cannot make the folder {file} for the key file" in done.stderr
    assert "--key FILE" in done.stderr
    assert "COVEY_HOME" in done.stderr


def test_id_makes_a_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    key = tmp_path / "home" / "key"
    first, second = (run_covey("id", "--key", str(key)) for _ in range(2))
    assert first.stdout == second.stdout
    assert len(bytes.fromhex(first.stdout.strip())) == 32
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    (event,) = events_of(run_covey("id", "--key", str(key), "--json"))
    assert event["public_key"] == first.stdout.strip()


def test_id_uses_the_folder_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVEY_HOME", str(tmp_path))
    assert run_covey("id").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


async def test_join_tells_who_comes_and_goes() -> None:
    async with start("join", "meadow", "--json", *LOCAL, stdout=PIPE) as here:
        await here.until_output(b'"type":"joined"')
        (joined,) = [e for e in map(json.loads, here.output.splitlines()) if e["type"] == "joined"]
        peer = f"{HOST}:{joined['port']}"
        async with start("join", "meadow", *LOCAL, "--peer", peer, "--for", "1.2") as there:
            await here.until_output(b'"type":"connection"')
            assert await there.end() == 0
            said = there.output.decode()
        await here.until_output(b'"type":"connection-closed"')
    assert f"staged net:{peer}~noise" in said
    assert "path: tcp dialled" in said
    assert "0 connecting, 1 connected" in said
    assert "left 'meadow'" in said


async def test_join_by_multicast_finds_the_other() -> None:
    options = ("join", "meadow", "--json", *multicast())
    async with start(*options) as here, start(*options) as there:
        for process in (here, there):
            await process.until_output(b'"type":"connection"')
        assert b'"type":"staged"' in here.output + there.output


@pytest.mark.parametrize("command", [("hello", *LOCAL), ("join", "über…", *LOCAL, "--for", "0.1")])
def test_an_output_that_lacks_our_letters_gets_escapes(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    done = run_covey(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2026" in done.stdout


@pytest.mark.parametrize("seconds", [("hello", "--timeout"), ("join", "x", "--for")])
def test_a_time_that_is_no_number_is_wrong_usage(seconds: tuple[str, ...]) -> None:
    done = run_covey(*seconds, "nan")
    assert done.returncode == 2
    assert "'nan' is not a number of seconds" in done.stderr


def test_join_tells_the_close_of_its_flock() -> None:
    done = run_covey("join", "x", "--json", *LOCAL, "--for", "0.1")
    assert [event["type"] for event in events_of(done)][-2:] == ["close", "left"]


async def test_a_terminated_join_says_so_last() -> None:
    async with start("join", "x", "--json", *LOCAL, stdout=PIPE) as process:
        await process.until_output(b'"type":"joined"')
        process.process.send_signal(signal.SIGTERM)
        assert await process.end() == 143
        *_, before, last = map(json.loads, process.output.splitlines())
    assert before["type"] == "close"
    assert (last["type"], last["code"], last["message"]) == ("failed", 143, "terminated")


EARLY = """
import os, signal, sys
from covey import cli
def load(self, ctx, name):
    os.kill(os.getpid(), signal.{number})
    exec("while True: pass")
cli.LazyGroup.get_command = load
sys.argv = ["covey", {arguments}]
cli.main()
"""
"""A signal while a command is being loaded, in code that is made as that of a dataclass is."""


@pytest.mark.parametrize(
    ("number", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")]
)
@pytest.mark.parametrize("command", ["pipe", "join", "seed", "log ls", "log cat"])
def test_a_signal_while_loading_ends_as_it_does_later(
    number: str, code: int, word: str, command: str
) -> None:
    for options in ("", "'--json'"):
        words = ", ".join(map(repr, command.split()))
        program = EARLY.format(number=number, arguments=f"{words}, {options}")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == code
        if not options:
            assert done.stderr.split() == ["covey:", word]
            continue
        (line,) = (done.stderr if command in {"pipe", "log cat"} else done.stdout).split()
        told = json.loads(line)
        assert (told["type"], told["code"], told["message"]) == ("failed", code, word)
