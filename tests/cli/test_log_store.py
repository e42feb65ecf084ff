"""Where logs are kept, what they may be called, and what is said when a store cannot be had."""

from __future__ import annotations

import stat
from pathlib import Path

import click
import pytest

from covey.cli import log_store
from covey.cli.log_store import default_store, is_store, log_name, log_named
from tests.cli.log_support import Store
from tests.cli.support import PIPE, covey

KEY = "ab" * 32


def test_the_default_is_the_data_folder_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_store.sys, "platform", "linux")  # type: ignore[attr-defined]
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("COVEY_HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert default_store() == Path("/home/ada/.local/share/covey/store")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert default_store() == Path("/data/covey/store")
    monkeypatch.setenv("XDG_DATA_HOME", "not/absolute")
    assert default_store() == Path("/home/ada/.local/share/covey/store")
    monkeypatch.setenv("COVEY_HOME", "/covey")
    assert default_store() == Path("/covey/store")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (KEY, "are a key"),
        (KEY.upper(), "are a key"),
        ("", "is no name"),
        (" a", "is no name"),
        ("a\nb", "is no name"),
        ("a\x1b[2J", "is no name"),
        ("\udcff", "is no name"),
        ("é" * 128, "at most 255 bytes"),
    ],
)
def test_what_can_be_no_name_is_refused(name: str, why: str) -> None:
    context, argument = click.Context(click.Command("x")), click.Argument(["name"])
    with pytest.raises(click.BadParameter, match=why):
        log_name(context, argument, name)


def test_a_key_or_a_name_is_meant() -> None:
    context, argument = click.Context(click.Command("x")), click.Argument(["which"])
    for which in (KEY, "my diary", "é" * 127):
        assert log_named(context, argument, which) == which


def test_a_store_is_for_its_owner_alone(tmp_path: Path) -> None:
    store = Store(tmp_path / "data" / "logs")
    store.new()
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in store.folder.iterdir()} == {0o600}


def test_the_store_of_the_environment_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COVEY_HOME", str(tmp_path / "home"))
    key = Store(tmp_path / "home" / "store").new()
    done = Store(tmp_path / "other").run("log", "info", key)
    assert done.returncode == 1
    monkeypatch.setenv("COVEY_HOME", str(tmp_path / "other"))
    assert key in Store(tmp_path / "home" / "store").good("log", "ls").decode()


async def test_a_store_in_use_is_named_with_what_to_do(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.new()
    async with covey("log", "append", "diary", *store.option, stdin=PIPE) as holder:
        holder.write(b"first\n")
        await holder.until_said("appended 6 B")
        said = store.refused("log", "ls")
        assert f"the store {tmp_path} is open in another process" in said
        assert str(holder.process.pid) in said
        assert "--store DIR" in said
        assert "append NAME --seed" in said


def test_a_store_that_is_a_file_is_explained(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = Store(file).run("log", "ls")
    assert done.returncode == 2
    assert b"is a file" in done.stderr
    inside = Store(file / "inside").refused("log", "ls")
    assert "covey: " in inside
    assert "--store DIR" in inside


def test_a_damaged_store_is_a_clear_error(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.new(lines=5)
    data = tmp_path / "data.mdb"
    data.write_bytes(b"\xff" * data.stat().st_size)
    said = store.refused("log", "cat", "diary")
    assert said.startswith("covey: ")
    assert f"the store {tmp_path} is damaged" in said


@pytest.mark.parametrize("command", ["info", "verify", "append"])
def test_a_name_that_is_not_here_is_told_with_what_to_do(command: str, tmp_path: Path) -> None:
    said = Store(tmp_path).refused("log", command, "diary")
    assert "there is no log called 'diary'" in said
    assert "covey log new NAME" in said


@pytest.mark.parametrize(
    "command",
    [
        ("log", "info", "diary"),
        ("log", "info", KEY),
        ("log", "verify", "diary"),
        ("log", "verify", KEY),
        ("log", "append", "diary"),
        ("log", "append", KEY),
        ("log", "cat", "diary"),
        ("log", "cat", KEY, "--offline"),
        ("seed", "diary"),
    ],
)
@pytest.mark.parametrize("there", [False, True])
def test_who_only_looks_makes_no_store(
    command: tuple[str, ...], there: bool, tmp_path: Path
) -> None:
    folder = tmp_path / "typo"
    if there:
        folder.mkdir()
    said = Store(folder).refused(*command)
    assert f"in {folder}: there is no store there" in said
    assert list(tmp_path.rglob("*")) == [folder] * there


def test_listing_makes_no_store(tmp_path: Path) -> None:
    folder = tmp_path / "typo"
    done = Store(folder).run("log", "ls")
    assert (done.returncode, done.stdout) == (0, b"")
    assert f"there is no store in {folder}" in done.stderr.decode()
    assert not folder.exists()


def test_seeding_all_logs_makes_no_store(tmp_path: Path) -> None:
    folder = tmp_path / "typo"
    assert f"there is no log in {folder}" in Store(folder).refused("seed")
    assert not folder.exists()


def test_a_store_that_lost_its_file_is_still_one(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not is_store(tmp_path)
    store.new()
    assert is_store(tmp_path)
    (tmp_path / "data.mdb").unlink()
    assert is_store(tmp_path)
    assert "is damaged" in store.refused("log", "ls")


@pytest.mark.parametrize("command", ["info", "verify"])
def test_a_key_that_is_not_here_is_told_and_not_taken_in(command: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    said = store.refused("log", command, KEY)
    assert f"the log {KEY} is not in" in said
    assert "covey seed KEY" in said
    assert store.good("log", "ls") == b""
