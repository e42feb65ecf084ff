"""Files of LMDB that are whole, and such that came to harm in any place."""

from __future__ import annotations

import contextlib
import random
from pathlib import Path

import lmdb
import pytest

from covey.errors import StoreError
from covey.store import lmdb_check
from covey.store.lmdb_check import check_file
from covey.store.lmdb_environment import DATA_NAME
from covey.store.lmdb_storage import LmdbStorage
from covey.store.records import block_key, block_range, node_key
from tests.store.children import run

EVERYTHING = (b"", b"\xff")
PAGE = 4096


def make(folder: Path, batches: int = 4) -> Path:
    with LmdbStorage(folder, sync=False) as storage:
        for batch in range(batches):
            numbers = range(batch * 60, batch * 60 + 60)
            storage.write_batch(
                [
                    *((block_key(0, number), bytes(10 * number)) for number in numbers),
                    *((node_key(0, number), bytes(40)) for number in numbers),
                ]
            )
    return folder / DATA_NAME


def pages(data: Path) -> int:
    return data.stat().st_size // PAGE


def overwrite(data: Path, offset: int, value: bytes) -> None:
    with data.open("r+b") as file:
        file.seek(offset)
        file.write(value)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_was_written_the_file_is_whole(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with LmdbStorage(tmp_path, map_size=1 << 20, sync=False) as storage:
        check_file(tmp_path / DATA_NAME)
        for _ in range(60):
            top = chance.choice([3, 200, 5000])
            puts = [
                (
                    chance.choice((block_key, node_key))(
                        chance.randrange(3), chance.randrange(top)
                    ),
                    bytes(chance.choice([0, 40, 1024, 1500, 5000, 70_000])),
                )
                for _ in range(chance.choice([1, 10, 150]))
            ]
            low = chance.randrange(top)
            gone = block_range(chance.randrange(3), low, low + chance.randrange(top))
            storage.write_batch(puts, range_deletes=[gone] if chance.random() < 0.4 else [])
            if chance.random() < 0.05:
                storage.write_batch([], range_deletes=[EVERYTHING])
            check_file(tmp_path / DATA_NAME)


def test_a_store_with_nothing_in_it_is_whole(tmp_path: Path) -> None:
    LmdbStorage(tmp_path).close()
    check_file(tmp_path / DATA_NAME)
    with lmdb.open(str(tmp_path / "bare")):
        pass
    check_file(tmp_path / "bare" / DATA_NAME)


READ = """
import sys
from covey.errors import StoreError
from covey.store.lmdb_storage import LmdbStorage
from covey.store.records import block_key, node_key
from tests.store.test_lmdb_check import *
from pathlib import Path
data = make(Path(sys.argv[1]))
whole = data.read_bytes()
with LmdbStorage(sys.argv[1]) as storage:
    count = sum(1 for _ in storage.range(*EVERYTHING))
told = 0
for page in range(2, len(whole) // PAGE):
    for value in (bytes(PAGE), b"\\xff" * PAGE, whole[2 * PAGE : 3 * PAGE], b"\\x55" * 24):
        overwrite(data, page * PAGE, value)
        try:
            with LmdbStorage(sys.argv[1], sync=False) as storage:
                assert sum(1 for _ in storage.range(*EVERYTHING)) == count
                storage.write_batch([(block_key(1, 0), bytes(5000))], [block_key(0, 1)])
        except StoreError as error:
            assert "damaged" in str(error)
            told += 1
        data.write_bytes(whole)
print(told, len(whole) // PAGE)
"""


def test_a_page_that_is_lost_ends_no_process_and_hides_no_record(tmp_path: Path) -> None:
    told, total = map(int, run(READ, tmp_path).split())
    assert told > 2 * total


def test_a_flipped_bit_in_the_head_of_a_page_is_found(tmp_path: Path) -> None:
    data = make(tmp_path)
    whole = data.read_bytes()
    found = 0
    for page in range(2, pages(data)):
        for offset in (0, 7, 10, 12, 13):  # number, kind, end of the pointers
            overwrite(data, page * PAGE + offset, bytes([whole[page * PAGE + offset] ^ 2]))
            try:
                check_file(data)
            except StoreError:
                found += 1
            data.write_bytes(whole)
    assert found > 3 * pages(data)


@pytest.mark.parametrize("offset", [16, 20, 40, 88, 136, 144])
def test_harm_to_the_first_pages_is_found(tmp_path: Path, offset: int) -> None:
    data = make(tmp_path)
    newest = max((0, 1), key=lambda page: data.read_bytes()[page * PAGE + 144])
    for value in (b"\xee" * 7, bytes([0x5A]) * 7):
        whole = data.read_bytes()
        overwrite(data, newest * PAGE + offset, value)
        with pytest.raises(StoreError, match="damaged"):
            LmdbStorage(tmp_path)
        data.write_bytes(whole)
    LmdbStorage(tmp_path).close()


def test_any_cut_is_found_before_anything_is_read(tmp_path: Path) -> None:
    data = make(tmp_path)
    whole = data.read_bytes()
    for page in range(1, pages(data) - 4):
        data.write_bytes(whole[: page * PAGE])
        with pytest.raises(StoreError):
            LmdbStorage(tmp_path)


def test_random_bytes_after_the_first_pages_raise_nothing_else(tmp_path: Path) -> None:
    data = make(tmp_path)
    whole = data.read_bytes()
    for seed in range(150):
        chance = random.Random(seed)
        harmed = bytearray(whole)
        for _ in range(chance.choice([1, 3, 50])):
            start = chance.randrange(16, len(harmed) - 64)
            harmed[start : start + 8] = chance.randbytes(8)
        data.write_bytes(harmed)
        with contextlib.suppress(StoreError):
            check_file(data)


def test_the_look_has_an_end_in_a_large_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = make(tmp_path)
    looked: list[int] = []
    real = lmdb_check._Walk._check_page

    def count(self: lmdb_check._Walk, number: int, flags: int, name: str) -> int:
        looked.append(number)
        return real(self, number, flags, name)

    monkeypatch.setattr(lmdb_check._Walk, "_check_page", count)
    check_file(data)
    everything = len(looked)
    looked.clear()
    monkeypatch.setattr(lmdb_check, "MAX_PAGES", 10)
    check_file(data)
    assert len(looked) < everything // 2
