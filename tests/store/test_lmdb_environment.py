"""What the errors of LMDB and the system are told as."""

from __future__ import annotations

import errno
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import lmdb
import pytest

from covey.store.lmdb_environment import told


@pytest.mark.parametrize(("free", "meaning"), [(0, "no space left"), (1 << 30, "failed: .*output")])
def test_a_write_that_went_half_way_onto_a_full_disk_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, meaning: str
) -> None:
    error = lmdb.Error("mdb_txn_commit: Input/output error")
    setattr(error, "code", errno.EIO)  # noqa: B010  as LMDB does; final to others
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    assert re.search(meaning, str(told(error, tmp_path)))
