"""docs/reference.md says what the source says."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from covey import errors
from covey.limits import Limits

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def test_the_reference_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_reference.py", "--check"],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["", ".flock", ".discovery", ".conn", ".net", ".wire"])
def test_every_exported_name_is_told(package: str) -> None:
    names = importlib.import_module(f"covey{package}").__all__
    heard_of = {name for name in names if f"`{name}`" in TEXT or f"`{name}(" in TEXT}
    assert set(names) - heard_of <= {"__version__", "StreamShell"}


@pytest.mark.parametrize(
    "module",
    [
        "covey.legacy_address",
        "covey.wire.structs",
        "covey.wire.encoding",
        *(f"covey.wire.dns_{part}" for part in ("messages", "discovery", "answers")),
    ],
)
def test_every_name_of_a_module_that_is_public_by_itself_is_told(module: str) -> None:
    assert f"`{module}`" in TEXT or f"`from {module} import" in TEXT
    for name in importlib.import_module(module).__all__:
        assert f"`{name}`" in TEXT or f"`{name}(" in TEXT


def test_every_limit_and_error_has_its_line() -> None:
    for field in fields(Limits):
        assert f"| `{field.name}` | " in TEXT
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.CoveyError):
            assert f"`{name}` | " in TEXT


def test_a_change_of_the_source_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "src").symlink_to(ROOT / "src")
    script = tmp_path / "docs" / "make_reference.py"
    script.write_bytes((ROOT / "docs" / "make_reference.py").read_bytes())
    (tmp_path / "docs" / "reference.md").write_text(TEXT.replace("max_staged", "max_stagings"))
    done = subprocess.run(
        [sys.executable, script, "--check"], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 1
    assert "out of date" in done.stderr
