"""`covey log` without a network: make, append, print, list, show, verify."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from covey.cli.log_resume import Mark
from covey.store.basestore import Basestore
from tests.cli.log_support import ROOT, Store, numbered, outputs
from tests.cli.support import LOCAL, PIPE, covey


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# new


def test_a_new_log_prints_its_key_alone(store: Store) -> None:
    done = store.run("log", "new", "my diary")
    assert done.returncode == 0
    assert len(bytes.fromhex(done.stdout.decode().strip())) == 32
    assert b"made the log 'my diary'" in done.stderr


def test_a_name_is_taken_once(store: Store) -> None:
    key = store.new()
    said = store.refused("log", "new", "diary")
    assert key in said
    assert "covey log append NAME" in said


def test_a_new_log_as_data(store: Store) -> None:
    (told,) = store.told("log", "new", "diary")
    assert (told["type"], told["name"]) == ("created", "diary")
    assert len(told["discovery_key"]) == len(told["key"]) == 64


# append and cat


@pytest.mark.parametrize("data", [b"", b"a\n", b"a\nb", b"\n\n", bytes(range(256)) * 50])
def test_what_was_appended_is_printed_as_it_was(data: bytes, store: Store) -> None:
    store.new()
    (told,) = store.told("log", "append", "diary", data=data)
    unfinished = bool(data) and not data.endswith(b"\n")
    assert (told["blocks"], told["bytes"]) == (data.count(b"\n") + unfinished, len(data))
    assert store.good("log", "cat", "diary") == data


def test_appends_follow_one_another(store: Store) -> None:
    store.new(lines=3)
    (told,) = store.told("log", "append", "diary", data=numbered(2, 3))
    assert (told["blocks"], told["length"]) == (2, 5)
    assert store.good("log", "cat", "diary") == numbered(5)


def test_cat_begins_where_it_is_told_to(store: Store) -> None:
    store.new(lines=5)
    assert store.good("log", "cat", "diary", "--from", "3") == numbered(2, 3)
    assert store.good("log", "cat", "diary", "--from", "9") == b""


def test_cat_from_beyond_the_end_says_how_long_the_log_is(store: Store) -> None:
    store.new(lines=5)
    done = store.run("log", "cat", "diary", "--from", "99", "--json")
    assert (done.returncode, done.stdout) == (0, b"")
    told = json.loads(done.stderr)
    assert (told["type"], told["start"], told["blocks"], told["length"]) == ("done", 99, 0, 5)
    words = store.run("log", "cat", "diary", "--from", "99").stderr.decode()
    assert "the log has only 5 blocks, none number 99" in words


def test_lines_get_a_newline_where_they_have_none(store: Store) -> None:
    store.new()
    store.good("log", "append", "diary", data=b"a\nb")
    store.good("log", "append", "diary", data=b"c")
    assert store.good("log", "cat", "diary") == b"a\nbc"
    assert store.good("log", "cat", "diary", "--lines") == b"a\nb\nc\n"


def test_the_events_of_cat_are_on_stderr(store: Store) -> None:
    key = store.new(lines=3)
    done = store.run("log", "cat", "diary", "--json")
    assert done.stdout == numbered(3)
    (told,) = [json.loads(line) for line in done.stderr.splitlines()]
    assert (told["type"], told["log"], told["blocks"]) == ("done", key, 3)


def test_a_file_is_appended_in_chunks(store: Store, tmp_path: Path) -> None:
    data = random.Random(3).randbytes(2_500_001)
    (tmp_path / "file").write_bytes(data)
    store.new()
    (told,) = store.told("log", "append", "diary", "--file", str(tmp_path / "file"))
    assert (told["blocks"], told["bytes"]) == (39, len(data))
    (told,) = store.told(
        *("log", "append", "diary", "--file", str(tmp_path / "file"), "--chunk", "1000000")
    )
    assert told["blocks"] == 3
    assert store.good("log", "cat", "diary") == data + data


@pytest.mark.parametrize("chunk", ["0", str((15 << 20) + 1), "many"])
def test_a_chunk_has_a_size_that_a_block_may_have(chunk: str, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    store.refused("log", "append", "diary", "--file", str(file), "--chunk", chunk, code=2)


def test_a_file_that_is_not_there_is_wrong_usage(store: Store) -> None:
    assert "does not exist" in store.refused("log", "append", "x", "--file", "/no/file", code=2)


def test_an_empty_file_is_no_block(store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store.new()
    (told,) = store.told("log", "append", "diary", "--file", str(tmp_path / "file"))
    assert (told["blocks"], told["length"]) == (0, 0)


def test_options_of_the_network_need_seed(store: Store) -> None:
    store.new()
    said = store.refused("log", "append", "diary", "--peer", "127.0.0.1:1", code=2)
    assert "go with --seed" in said


def test_offline_asks_nobody(store: Store) -> None:
    store.new()
    for option in (("--follow",), ("--peer", "127.0.0.1:1")):
        said = store.refused("log", "cat", "diary", "--offline", *option, code=2)
        assert "--offline asks nobody" in said


async def test_each_line_is_on_disk_when_it_was_told(store: Store) -> None:
    """Killed in the middle of its input, what it said it had appended is there."""
    store.new()
    async with covey("log", "append", "diary", "--json", *store.option, stdin=PIPE) as process:
        process.write(numbered(4) + b"unfinis")
        await process.until_output(b'"blocks":4')
        process.process.send_signal(signal.SIGKILL)
        await process.end()
    assert store.good("log", "cat", "diary") == numbered(4)
    store.good("log", "verify", "diary")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_append_that_is_ended_tells_what_was_appended(
    number: signal.Signals, code: int, store: Store
) -> None:
    store.new()
    async with covey("log", "append", "diary", "--json", *store.option, stdin=PIPE) as process:
        process.write(numbered(4))
        await process.until_output(b'"blocks":4')
        process.process.send_signal(number)
        assert await process.end() == code
    *_, appended, failed = outputs(process)
    assert (appended["type"], appended["blocks"]) == ("appended", 4)
    assert (failed["type"], failed["code"]) == ("failed", code)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [("ls",), ("info", "diary"), ("verify", "diary"), ("new", "x")])
def test_output_that_cannot_be_written_is_told(command: tuple[str, ...], store: Store) -> None:
    store.new(lines=1)
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "covey.cli", "log", *command, *store.option],
            stdout=full,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=30,
            check=False,
            cwd=ROOT,
        )
    assert done.returncode == 1
    assert "cannot write the output: No space left on device" in done.stderr


def test_cat_whose_reader_goes_away_says_so(store: Store) -> None:
    store.new()
    store.good("log", "append", "diary", data=b"x" * 900_000)
    command = [sys.executable, "-m", "covey.cli", "log", "cat", "diary", *store.option]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        said = process.stderr.read().decode()
        process.wait(30)
    assert process.returncode in {0, 1}
    assert "Traceback" not in said


# A log whose writer signed two histories


async def frozen(folder: Path, *, missing: int | None = None) -> None:
    """A store whose own log `diary` has five lines, of which one may be missing, and is frozen."""
    async with Basestore(folder) as store, await store.get("diary") as feed:
        await feed.append(numbered(5).splitlines(keepends=True))
        if missing is not None:
            await feed.clear(missing)
        feed._log.freeze(length=5, fork=0)


async def test_nothing_is_appended_to_a_frozen_log_and_the_reason_is_told(store: Store) -> None:
    await frozen(store.folder)
    said = store.refused("log", "append", "diary", data=b"more\n")
    assert "is frozen: its writer signed two histories" in said
    assert "secret key" not in said


async def test_cat_prints_what_is_here_of_a_frozen_log_and_fails(store: Store) -> None:
    await frozen(store.folder)
    for option in ((), ("--follow",)):
        done = store.run("log", "cat", "diary", *option)
        assert (done.returncode, done.stdout) == (1, numbered(5))
        assert b"is frozen: its writer signed two histories" in done.stderr
    assert store.good("log", "cat", "diary", "--offline") == numbered(5)


@pytest.mark.parametrize("option", [(), ("--follow",), ("--offline",)])
async def test_a_gap_in_a_frozen_log_ends_cat_and_advises_no_peers(
    option: tuple[str, ...], store: Store
) -> None:
    await frozen(store.folder, missing=2)
    done = store.run("log", "cat", "diary", *option)
    assert (done.returncode, done.stdout) == (1, numbered(2))
    assert b"block 2 is not here, and will not come: the log is frozen" in done.stderr
    assert b"without --offline" not in done.stderr


# Going on with a file


async def interrupted(folder: Path, file: Path, blocks: list[bytes], chunk: int) -> None:
    """A store whose log `film` has `blocks` of an append of `file` that was not completed."""
    async with Basestore(folder) as store, await store.get("film") as feed:
        with file.open("rb") as opened:
            await Mark(feed, file, chunk).resume(opened.fileno())
        await feed.append(blocks)


@pytest.mark.parametrize("blocks", [0, 1, 3, 10, 11])
async def test_an_interrupted_file_is_continued(blocks: int, store: Store, tmp_path: Path) -> None:
    data = random.Random(4).randbytes(1050)
    file = tmp_path / "file"
    file.write_bytes(data)
    chunks = [data[start : start + 100] for start in range(0, 1050, 100)]
    await interrupted(store.folder, file, chunks[:blocks], 100)
    told = store.told("log", "append", "film", "--file", str(file), "--chunk", "100")
    assert (told[-1]["blocks"], told[-1]["length"]) == (11 - blocks, 11)
    assert [event["bytes"] for event in told if event["type"] == "resumed"] == (
        [min(blocks * 100, 1050)] if blocks else []
    )
    assert store.good("log", "cat", "film") == data
    again = store.told("log", "append", "film", "--file", str(file), "--chunk", "100")
    assert again[-1]["length"] == 22  # it was complete: this is another one


@pytest.mark.parametrize("change", ["file", "log", "chunk", "name", "mark"])
async def test_what_does_not_continue_it_begins_anew(
    change: str, store: Store, tmp_path: Path
) -> None:
    file, chunk, data = tmp_path / "file", "100", bytes(range(250))
    file.write_bytes(data)
    await interrupted(store.folder, file, [data[:100]], 100)
    before = 1
    if change == "file":
        file.write_bytes(data := b"?" + data[1:])
    elif change == "log":
        store.good("log", "append", "film", data=b"something else\n")
        before = 2
    elif change == "chunk":
        chunk = "50"
    elif change == "name":
        file = file.rename(tmp_path / "other")
    else:
        async with Basestore(store.folder) as opened, await opened.get("film") as feed:
            await feed.set_user_data("covey/append", b'{"file": 3')
    told = store.told("log", "append", "film", "--file", str(file), "--chunk", chunk)
    assert [event["type"] for event in told] == ["appended"]
    assert store.good("log", "cat", "film", "--from", str(before)) == data


# ls, info, verify


def test_logs_are_listed_by_name(store: Store) -> None:
    keys = {name: store.new(name, lines=2) for name in ("beta", "alpha")}
    lines = store.good("log", "ls").decode().splitlines()
    assert [line.split() for line in lines] == [
        [keys[name], "2", "14", "B", name] for name in ("alpha", "beta")
    ]
    told = store.told("log", "ls")
    assert [(e["name"], e["length"], e["have"], e["writable"]) for e in told] == [
        ("alpha", 2, 2, True),
        ("beta", 2, 2, True),
    ]


def test_an_empty_store_says_how_to_begin(store: Store) -> None:
    done = store.run("log", "ls")
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"covey log new NAME" in done.stderr


@pytest.mark.parametrize("by", ["name", "key"])
def test_info_tells_what_is_known(by: str, store: Store) -> None:
    key = store.new(lines=3)
    which = "diary" if by == "name" else key.upper()
    (told,) = store.told("log", "info", which)
    wanted = {"key": key, "name": "diary", "length": 3, "have": 3, "fork": 0, "writable": True}
    assert wanted.items() <= told.items()
    assert told["manifest"]["version"] == 1
    words = store.good("log", "info", which).decode()
    for text in (key, told["discovery_key"], told["tree_hash"], "3 blocks, 21 B", "you, from this"):
        assert text in words


def test_verify_looks_at_every_block(store: Store) -> None:
    key = store.new(lines=5)
    (told,) = store.told("log", "verify", "diary")
    assert (told["log"], told["held"], told["bytes"]) == (key, 5, 35)
    assert "so do 5 blocks" in store.good("log", "verify", key).decode()


def test_verify_finds_a_changed_block(store: Store) -> None:
    store.new()
    store.good("log", "append", "diary", data=b"the truth and nothing but the truth\n")
    data = store.folder / "data.mdb"
    content = data.read_bytes()
    assert content.count(b"nothing but the truth") >= 1
    data.write_bytes(content.replace(b"nothing but the truth", b"something of the tale"))
    said = store.refused("log", "verify", "diary")
    assert "the log is damaged" in said
    assert "--store DIR" in said


def test_an_empty_log_verifies(store: Store) -> None:
    store.new()
    (told,) = store.told("log", "verify", "diary")
    assert (told["length"], told["held"]) == (0, 0)


# Failures among the other events


@pytest.mark.parametrize("command", ["info", "verify", "append", "ls", "new"])
def test_a_failure_is_told_among_the_events(command: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = Store(tmp_path / "file" / "inside")
    done = folder.run("log", command, *([] if command == "ls" else ["diary"]), "--json")
    assert (done.returncode, done.stderr) == (1, b"")
    failed = json.loads(done.stdout.splitlines()[-1])
    assert failed["type"] == "failed"
    assert failed["hint"]


def test_a_failure_of_cat_is_told_on_stderr(store: Store) -> None:
    done = store.run("log", "cat", "diary", "--json")
    assert (done.returncode, done.stdout) == (1, b"")
    assert json.loads(done.stderr)["type"] == "failed"


@pytest.mark.parametrize("command", ["new", "append", "cat", "ls", "info", "verify"])
def test_every_command_has_the_common_options(command: str, store: Store) -> None:
    words = store.run("log", command, "--help").stdout.decode()
    for option in ("--json", "--debug", "--store"):
        assert option in words


def test_a_time_that_is_none_is_wrong_usage(store: Store) -> None:
    for command in (("log", "cat", "x", "--timeout"), ("seed", "x", "--for")):
        assert "is not a number of seconds" in store.refused(*command, "nan", *LOCAL, code=2)
