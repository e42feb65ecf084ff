from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from covey.errors import StoreError
from covey.store import directory_lock
from covey.store.directory_lock import LOCK_NAME, DirectoryLock
from tests.store.children import line, run, running

HOLD = """
import sys
from pathlib import Path
from covey.store.directory_lock import DirectoryLock
lock = DirectoryLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""
FORK = """
import os, sys
from pathlib import Path
from covey.store.directory_lock import DirectoryLock
folder = Path(sys.argv[1])
lock = DirectoryLock(folder)
ready, done = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    lock.forget()
    os.write(ready[1], b"1")
    os.read(done[0], 1)
    os._exit(0)
os.read(ready[0], 1)
try:
    DirectoryLock(folder)
except Exception as error:
    print(type(error).__name__)
lock.release()
DirectoryLock(folder).release()  # the child lives, and does not hold it
os.write(done[1], b"1")
print(os.waitpid(child, 0)[1])
"""
posix = pytest.mark.skipif(os.name != "posix", reason="modes and signals of POSIX")


def test_a_lock_makes_its_folder_and_holds_until_released(tmp_path: Path) -> None:
    folder = tmp_path / "one" / "two"
    lock = DirectoryLock(folder)
    assert lock.held
    with pytest.raises(StoreError, match="in this very process") as caught:
        DirectoryLock(folder)
    assert str(folder) in str(caught.value)
    lock.release()
    lock.release()
    assert not lock.held
    DirectoryLock(folder).release()


@posix
def test_folder_and_file_are_for_their_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        lock = DirectoryLock(tmp_path / "new")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "new" / LOCK_NAME).stat().st_mode) == 0o600
    lock.release()


def test_another_process_is_refused_with_our_number(tmp_path: Path) -> None:
    with running(HOLD, tmp_path) as child:
        assert line(child) == "held"
        with pytest.raises(StoreError, match=rf"another process, number {child.pid}$"):
            DirectoryLock(tmp_path)
        child.kill()
        child.wait()
        DirectoryLock(tmp_path).release()  # the system has let go of it


def test_a_holder_that_does_not_tell_its_number_is_respected_all_the_same(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    (tmp_path / LOCK_NAME).write_text("no number\n")
    with pytest.raises(StoreError, match=r"open in another process$"):
        DirectoryLock(tmp_path)
    lock.release()


def test_a_file_left_by_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).write_text("1\n")
    DirectoryLock(tmp_path).release()


@posix
def test_a_forked_child_does_not_keep_the_lock(tmp_path: Path) -> None:
    assert run(FORK, tmp_path).split() == ["StoreError", "0"]


@posix
def test_a_program_that_was_started_does_not_keep_the_lock(tmp_path: Path) -> None:
    lock = DirectoryLock(tmp_path)
    wait = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(wait, stdin=subprocess.PIPE, close_fds=False) as child:
        lock.release()
        DirectoryLock(tmp_path).release()
        child.kill()


def test_a_file_in_place_of_the_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="is none"):
        DirectoryLock(tmp_path / "file")
    with pytest.raises(StoreError, match="cannot make the folder"):
        DirectoryLock(tmp_path / "file" / "below")


def test_a_lock_file_that_cannot_be_opened_is_told(tmp_path: Path) -> None:
    (tmp_path / LOCK_NAME).mkdir()
    with pytest.raises(StoreError, match="cannot open"):
        DirectoryLock(tmp_path)


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(directory_lock, "_try_lock", refuse)
    with pytest.raises(StoreError, match="cannot lock") as caught:
        DirectoryLock(tmp_path)
    assert isinstance(caught.value.__cause__, OSError)
