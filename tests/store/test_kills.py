"""A store that exchanges logs with a peer is killed at any moment: what it has is whole."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from covey.store.basestore import Basestore
from covey.store.lmdb_storage import LmdbStorage
from tests.store import killed_stores
from tests.store.children import KILLS, Killed
from tests.store.killed_stores import CUT, SIZES, history, key_of, own_block
from tests.store.stored_logs import assert_intact


async def check(folder: Path, appended: int) -> dict[str, int]:
    """Every log against what it must say; how many blocks of each of the peer's are here."""
    held: dict[str, int] = {}
    async with Basestore(folder) as store:
        own = await store.get("own", active=False)
        assert own.length >= appended
        assert [block async for block in own.read()] == [own_block(i) for i in range(own.length)]
        for name in SIZES:
            reader = await store.get(key_of(name), active=False)
            assert not reader.frozen
            true = history(name, reader.fork)
            # A head that came before the rest of its history, or before a new history's blocks.
            assert reader.length <= len(true)
            for index in range(reader.length):
                if await reader.has(index):
                    assert await reader.get(index, wait=False) == true[index]
            held[name] = (await reader.verify()).held
            assert reader.progress.have == held[name]
    return held


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks and kills")
@pytest.mark.timeout(60 + 4 * KILLS)
def test_kill_9_of_a_store_while_it_downloads_loses_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    appended, seen = 0, set()
    with Killed(killed_stores.__name__, "live", folder, seed=3) as process:
        for number, lines in enumerate(process.rounds()):
            for word, length in lines:
                assert word == "did"
                appended = int(length)
            with LmdbStorage(folder) as storage:
                for core in range(1 + len(SIZES)):
                    assert_intact(storage, core)
            for name, count in asyncio.run(check(folder, appended)).items():
                if 0 < count < SIZES[name][0] - CUT:
                    seen.add((name, number))
            if number % 5 == 4:
                shutil.rmtree(folder)  # what was downloaded once takes few writes
                appended = 0
    assert seen, "some were killed with a part of a log"
