"""`covey log cat` and `append --seed` find each other: catch up, follow, resume, give up."""

from __future__ import annotations

import json
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from covey.store.basestore import Basestore
from tests.cli.log_support import ROOT, Store, numbered, outputs, seeding
from tests.cli.support import HOST, LOCAL, PATIENCE, CuttingProxy, covey
from tests.discovery.fakes import free_udp_port
from tests.store.meeting import place
from tests.waiting import until


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Store:
    return Store(tmp_path / "there")


async def test_a_reader_that_has_the_key_catches_up_and_ends(here: Store, there: Store) -> None:
    key = here.new(lines=300)
    async with here.writer() as writer:
        async with there.cat(key, *await seeding(writer)) as reader:
            assert await reader.end() == 0
        assert reader.output == numbered(300)
        (done,) = reader.events("done")
        assert (done["blocks"], done["fetched"], done["log"]) == (300, 300, key)
        (path,) = reader.events("peer-add")
        assert (path["place"], path["log"]) == ("this machine", key)
    there.good("log", "verify", key)


async def test_both_find_each_other_by_the_key_over_multicast(here: Store, there: Store) -> None:
    key = here.new(lines=3)
    ways = ("--interface", HOST, "--multicast-port", str(free_udp_port()), "--json")
    async with (
        covey("log", "append", "diary", "--seed", *ways, *here.option),
        covey("log", "cat", key, *ways, *there.option) as reader,
    ):
        assert await reader.end() == 0
        assert reader.output == numbered(3)


async def test_a_follower_prints_what_is_appended_as_it_comes(here: Store, there: Store) -> None:
    key = here.new(lines=2)
    async with here.writer() as writer:
        async with there.cat(key, "--follow", *await seeding(writer)) as reader:
            await reader.until_output(numbered(2))
            for number in (2, 3, 4):
                writer.write(numbered(1, number))
                await reader.until_output(numbered(number + 1))
            reader.process.send_signal(signal.SIGINT)
            assert await reader.end() == 130
        assert reader.output == numbered(5)
        failed = reader.events()[-1]
        assert (failed["type"], failed["message"]) == ("failed", "interrupted")


@pytest.mark.parametrize("follow", [True, False])
async def test_a_reader_of_an_empty_log_waits_for_the_first_block(
    follow: bool, here: Store, there: Store
) -> None:
    key = here.new()
    options = ("--follow",) if follow else ()
    async with (
        here.writer() as writer,
        there.cat(key, *options, *await seeding(writer)) as reader,
    ):
        await reader.until_said('"type":"peer-add"')
        writer.write(b"the first\n")
        await reader.until_output(b"the first\n")
        if not follow:
            assert await reader.end() == 0


async def test_a_reader_that_was_killed_fetches_nothing_twice(here: Store, there: Store) -> None:
    data = random.Random(5).randbytes(6_000_000)
    key = here.new()
    here.good("log", "append", "diary", "--file", str(_file(here, data)))
    blocks = -(-len(data) // 65536)
    async with here.writer() as writer:
        _, peer = await seeding(writer)
        async with there.cat(key, "--peer", peer) as reader:
            await until(lambda: len(reader.output) > 500_000, PATIENCE)
            reader.process.kill()
            await reader.end()
        (had,) = there.told("log", "info", key)
        assert had["have"] > 0
        async with there.cat(key, "--peer", peer) as reader:
            assert await reader.end() == 0
            (done,) = reader.events("done")
        assert reader.output == data
        assert done["fetched"] == blocks - had["have"]


async def test_a_connection_that_is_cut_is_no_end(here: Store, there: Store) -> None:
    data = random.Random(6).randbytes(8_000_000)
    key = here.new()
    here.good("log", "append", "diary", "--file", str(_file(here, data)))
    async with here.writer() as writer:
        _, peer = await seeding(writer)
        async with (
            CuttingProxy(int(peer.rpartition(":")[2])) as proxy,
            there.cat(key, "--peer", f"{HOST}:{proxy.port}") as reader,
        ):
            await proxy.until_passed(1_000_000)
            proxy.cut(reset=True)
            assert await reader.end() == 0
            assert reader.output == data


@pytest.mark.parametrize("command", ["cat", "seed"])
async def test_a_writer_that_signed_two_histories_is_told(
    command: str, here: Store, there: Store, tmp_path: Path
) -> None:
    key = here.new(lines=3)
    twin = Store(tmp_path / "twin")
    shutil.copytree(here.folder, twin.folder)
    here.good("log", "append", "diary", data=numbered(1, 3))
    twin.good("log", "append", "diary", data=b"another\nstory\nand more\n")
    async with here.writer() as one, twin.writer() as other:
        async with there.cat(key, *await seeding(one)) as reader:
            assert await reader.end() == 0
        if command == "cat":
            async with there.cat(key, "--follow", *await seeding(other)) as reader:
                assert await reader.end() == 1
            assert [event["length"] for event in reader.events("conflict")] == [4]
            assert "two histories" in reader.events()[-1]["message"]
        else:
            options = ("--json", *LOCAL, *await seeding(other), "--for", "2.2", *there.option)
            async with covey("seed", key, *options) as seeder:
                assert await seeder.end() == 0
            assert len(outputs(seeder, "conflict")) == 1
            assert "frozen" in outputs(seeder, "status")[-1]["logs"][0]["state"]
    assert there.good("log", "cat", key, "--offline") == numbered(4)
    assert "frozen" in there.good("log", "info", key).decode()


async def test_an_append_to_a_log_that_froze_meanwhile_tells_why(
    here: Store, tmp_path: Path
) -> None:
    here.new(lines=3)
    twin = Store(tmp_path / "twin")
    shutil.copytree(here.folder, twin.folder)
    here.good("log", "append", "diary", data=numbered(1, 3))
    twin.good("log", "append", "diary", data=b"another\nstory\n")
    async with twin.writer() as other, here.writer(*await seeding(other)) as writer:
        await writer.until_output(b'"type":"conflict"')
        writer.write(b"more\n", end=True)
        assert await writer.end() == 1
    (failed,) = outputs(writer, "failed")
    assert "is frozen: its writer signed two histories" in failed["message"]
    (appended,) = outputs(writer, "appended")
    assert (appended["blocks"], appended["length"]) == (0, 4)


@pytest.mark.parametrize("length", [3, 5])
async def test_a_log_that_is_cut_while_it_is_printed_ends_cat(length: int, there: Store) -> None:
    """Five blocks are printed, the sixth is missing: what comes in its place is not printed."""
    async with Basestore() as store, await store.get("diary") as feed, place(store) as home:
        await feed.append(numbered(8).splitlines(keepends=True))
        await feed.clear(5)
        key = feed.key.hex()
        async with there.cat(key, "--peer", f"{HOST}:{home.port}") as reader:
            await reader.until_output(numbered(5))
            await feed.truncate(length)
            await feed.append([b"another story %d\n" % number for number in range(8)])
            assert await reader.end() == 1
        assert reader.output == numbered(5)
        assert [event["length"] for event in reader.events("truncate")] == [length]
        failed = reader.events()[-1]
        assert failed["type"] == "failed"
        assert f"cut the log from 8 blocks to {length} while it was printed" in failed["message"]
        assert "5 blocks, is of the log as it was" in failed["message"]
        assert "as it is now" in failed["hint"]


def small_files() -> None:
    """In a new process: no file grows beyond 4 MB, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000_000, 4_000_000))


async def test_a_full_disk_ends_a_reader_and_keeps_what_is_there(here: Store, there: Store) -> None:
    data = random.Random(8).randbytes(12_000_000)
    key = here.new()
    here.good("log", "append", "diary", "--file", str(_file(here, data)))
    async with here.writer() as writer:
        peer = await seeding(writer)
        async with there.cat(key, *peer, preexec_fn=small_files) as reader:
            assert await reader.end() == 1
        failed = reader.events()[-1]
        assert "cannot keep what comes" in failed["message"]
        assert "make room" in failed["hint"]
        there.good("log", "verify", key)
        async with covey(
            *("seed", key, "--json", *LOCAL, *peer, "--for", "2.5", *there.option),
            preexec_fn=small_files,
        ) as seeder:
            assert await seeder.end() == 0
        assert 1 <= len(outputs(seeder, "store-error")) <= 2
        async with there.cat(key, *peer) as reader:
            assert await reader.end() == 0
            assert reader.output == data


def test_a_full_disk_ends_an_append_and_tells_what_is_in_the_log(here: Store) -> None:
    here.new()
    file = _file(here, random.Random(9).randbytes(12_000_000))
    command = ("log", "append", "diary", "--file", str(file), "--json", *here.option)
    done = subprocess.run(
        [sys.executable, "-m", "covey.cli", *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=30,
        check=False,
        cwd=ROOT,
        preexec_fn=small_files,
    )
    assert done.returncode == 1
    appended, failed = map(json.loads, done.stdout.splitlines()[-2:])
    assert (appended["type"], failed["type"]) == ("appended", "failed")
    assert "make room" in failed["hint"]
    (verified,) = here.told("log", "verify", "diary")
    assert verified["held"] == appended["length"] > 0
    told = here.told("log", "append", "diary", "--file", str(file))
    assert [event["type"] for event in told] == ["resumed", "appended"]
    assert here.good("log", "cat", "diary") == file.read_bytes()


async def test_the_reader_passes_on_what_it_has(here: Store, there: Store, tmp_path: Path) -> None:
    key = here.new(lines=50)
    async with here.writer() as writer, there.cat(key, *await seeding(writer)) as reader:
        assert await reader.end() == 0
    third = Store(tmp_path / "third")
    async with (
        covey("seed", key, "--json", *LOCAL, *there.option) as seeder,
        third.cat(key, *await seeding(seeder)) as last,
    ):
        assert await last.end() == 0
        assert last.output == numbered(50)


def test_nobody_within_the_time_is_code_3(there: Store) -> None:
    key = "ab" * 32
    said = there.refused("log", "cat", key, *LOCAL, "--timeout", "0.3", code=3)
    assert "no peer that has the log came within 0.3 s; nothing is here yet" in said
    assert "covey seed KEY" in said


async def test_peers_that_are_lost_are_code_4(here: Store, there: Store) -> None:
    key = here.new(lines=3)
    async with here.writer() as writer:
        options = ("--follow", "--timeout", "0.5", *await seeding(writer))
        async with there.cat(key, *options) as reader:
            await reader.until_output(numbered(3))
            writer.process.kill()
            assert await reader.end() == 4
    failed = reader.events()[-1]
    assert failed["type"] == "failed"
    assert "3 of 3 blocks are here" in failed["message"]
    assert "goes on from there" in failed["hint"]


async def test_what_is_here_is_printed_when_nobody_comes(here: Store, there: Store) -> None:
    key = here.new(lines=4)
    async with here.writer() as writer, there.cat(key, *await seeding(writer)) as reader:
        assert await reader.end() == 0
    done = there.run("log", "cat", key, *LOCAL, "--json", "--timeout", "30")
    assert (done.returncode, done.stdout) == (0, numbered(4))
    told = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["length"] for event in told if event["type"] == "no-news"] == [4]
    assert len([event for event in told if event["type"] == "progress"]) >= 4
    assert there.good("log", "cat", key, "--offline") == numbered(4)


async def test_offline_says_which_block_is_missing(here: Store, there: Store) -> None:
    key = here.new(lines=9)
    async with (
        here.writer() as writer,
        there.cat(key, "--from", "6", *await seeding(writer)) as reader,
    ):
        assert await reader.end() == 0
        assert reader.output == numbered(3, 6)
    assert there.good("log", "cat", key, "--offline", "--from", "6") == numbered(3, 6)
    (had,) = there.told("log", "info", key)
    assert had["have"] == 3
    said = there.refused("log", "cat", key, "--offline")
    assert "block 0 is not here" in said
    assert "without --offline" in said


async def test_only_the_writer_appends(here: Store, there: Store) -> None:
    key = here.new(lines=1)
    async with here.writer() as writer, there.cat(key, *await seeding(writer)) as reader:
        assert await reader.end() == 0
    said = there.refused("log", "append", key, data=b"me too\n")
    assert "can only be read here" in said


async def test_who_has_the_key_of_another_log_gets_nothing(here: Store, there: Store) -> None:
    here.new(lines=3)
    async with here.writer() as writer:
        peer = await seeding(writer)
        async with there.cat("cd" * 32, *peer, "--timeout", "1.2") as reader:
            assert await reader.end() == 3
            assert reader.output == b""
            assert reader.events("connection")


async def test_the_writer_serves_on_after_its_input(here: Store, there: Store) -> None:
    key = here.new()
    async with here.writer() as writer:
        peer = await seeding(writer)
        writer.write(numbered(5), end=True)
        await writer.until_output(b'"type":"serving"')
        async with there.cat(key, *peer) as reader:
            assert await reader.end() == 0
            assert reader.output == numbered(5)
        writer.process.send_signal(signal.SIGTERM)
        assert await writer.end() == 143
        types = [event["type"] for event in outputs(writer)]
        assert types.index("appended") < types.index("serving") < types.index("peer-add")


def _file(store: Store, data: bytes) -> Path:
    file = store.folder.parent / "file"
    file.write_bytes(data)
    return file
