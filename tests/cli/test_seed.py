"""`covey seed`: it brings logs, follows them, serves them, and shows how they stand."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
from rich.console import Console

from covey.cli.log_network import LogNetwork
from covey.cli.seed_table import MOST_ROWS, Seeded, counts_text, table_of
from covey.keys import KeyPair
from covey.store.basestore import Basestore
from tests.cli.log_support import Store, numbered, outputs, seeding
from tests.cli.support import LOCAL, covey
from tests.cli.test_terminal import terminal


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store(tmp_path / "here")


@pytest.fixture
def there(tmp_path: Path) -> Store:
    return Store(tmp_path / "there")


async def test_a_seeder_brings_a_log_and_follows_it(here: Store, there: Store) -> None:
    key = here.new(lines=20)
    async with here.writer() as writer:
        command = ("seed", key, "--json", *LOCAL, *await seeding(writer), *there.option)
        async with covey(*command) as seeder:
            await seeder.until_output(b'"type":"complete"')
            writer.write(numbered(1, 20))
            await seeder.until_output(b'"length":21')
            seeder.process.send_signal(signal.SIGINT)
            assert await seeder.end() == 130
        (seeded,) = outputs(seeder, "seeding")
        assert seeded["logs"] == [key]
        (log,) = outputs(seeder, "status")[-1]["logs"]
        assert (log["log"], log["peers"], log["state"]) == (key, 1, "complete")
    assert there.good("log", "cat", key, "--offline") == numbered(21)


async def test_without_a_key_every_log_is_seeded(here: Store, there: Store) -> None:
    keys = [here.new(name, lines=count) for name, count in (("one", 1), ("two", 2))]
    async with covey("seed", "--json", *LOCAL, *here.option) as seeder:
        peer = await seeding(seeder)
        assert sorted(outputs(seeder, "seeding")[0]["logs"]) == sorted(keys)
        for key, count in zip(keys, (1, 2), strict=True):
            async with there.cat(key, *peer) as reader:
                assert await reader.end() == 0
                assert reader.output == numbered(count)


async def test_several_logs_come_over_one_connection(here: Store, there: Store) -> None:
    keys = [here.new(f"log {number}", lines=3) for number in range(5)]
    async with covey("seed", "--json", *LOCAL, *here.option) as seeder:
        peer = await seeding(seeder)
        async with covey("seed", *keys, "--json", *LOCAL, *peer, *there.option) as other:
            for key in keys:
                await other.until_output(f'"log":"{key}","length":3'.encode())
            assert len(outputs(other, "connection")) == 1
            assert {event["log"] for event in outputs(other, "peer-add")} == set(keys)


async def test_a_seeder_leaves_in_time_and_tells_each_second(there: Store) -> None:
    async with covey("seed", "ab" * 32, "--json", *LOCAL, "--for", "1.3", *there.option) as seeder:
        assert await seeder.end() == 0
    (status,) = outputs(seeder, "status")
    assert status["logs"][0]["state"] == "nobody has it yet"
    assert [event["type"] for event in outputs(seeder)][-2:] == ["close", "left"]


def test_a_quiet_seeder_tells_no_status(there: Store) -> None:
    told = there.told("seed", "ab" * 32, *LOCAL, "--for", "1.2", "--quiet")
    assert "status" not in [event["type"] for event in told]


def test_nothing_to_seed_is_told(there: Store) -> None:
    said = there.refused("seed", *LOCAL)
    assert "there is no log in" in said
    assert "covey seed KEY" in said


def test_a_name_that_is_not_here_is_told(there: Store) -> None:
    assert "there is no log called 'film'" in there.refused("seed", "film", *LOCAL)


def test_a_seeder_in_words(here: Store) -> None:
    key = here.new(lines=4)
    words = here.good("seed", key, *LOCAL, "--for", "1.2").decode()
    assert "seeding 1 log at port" in words
    assert "all 4 blocks of diary are here" in words
    assert "4 of 4 blocks, no peer, in 0 B/s, out 0 B/s" in words
    assert "stopped seeding 1 log" in words


async def test_the_table_on_a_terminal(here: Store) -> None:
    here.new(lines=4)
    async with terminal("seed", *LOCAL, *here.option) as screen:
        for text in ("port", "diary", "4 (100 %)", "complete"):
            await screen.until(text)
        screen.type("\x03")
        await screen.until("interrupted")
        assert await screen.process.wait() == 130


async def test_cat_draws_a_bar_on_a_terminal(there: Store, tmp_path: Path) -> None:
    with (tmp_path / "copy").open("wb") as copy:
        command = ("log", "cat", "ab" * 32, *LOCAL, *there.option)
        async with terminal(*command, stdout=copy) as screen:
            await screen.until("waiting for a peer")
            screen.type("\x03")
            await screen.until("interrupted")


class Nobody(LogNetwork):
    """A network in which nobody is."""

    def __init__(self) -> None:
        self.listening = ("127.0.0.1", 7)

    @property
    def peers(self) -> int:
        return 0


async def test_the_table_names_each_state() -> None:
    async with Basestore() as store:
        own = await store.get("[bold]own")
        await own.append([b"a", b"b"])
        empty = await store.get("empty")
        foreign = await store.get(KeyPair.generate().public_key)
        rows = [Seeded(own, "[bold]own"), Seeded(empty, ""), Seeded(foreign, "")]
        assert [row.state for row in rows] == ["complete", "empty", "nobody has it yet"]
        console = Console(width=120, file=io.StringIO())
        with console.capture() as shown:
            console.print(table_of(rows, Nobody()))
        text = shown.get()
        assert "[bold]own" in text
        assert foreign.key.hex()[:8] in text
        assert counts_text(rows, Nobody()).startswith("2 of 2 blocks, no peer, in 0 B/s")


async def test_a_table_of_many_logs_has_an_end() -> None:
    async with Basestore() as store:
        rows = [Seeded(await store.get(f"log {n}"), f"log {n}") for n in range(MOST_ROWS + 3)]
        table = table_of(rows, Nobody())
        assert table.row_count == MOST_ROWS
        assert table.caption == "and 3 more"
