"""Who may import whom: the floors of the design, checked on the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.source_tree import imports_of, read_modules

BELOW: dict[str, set[str]] = {
    "ground": set(),
    "wire": {"ground"},
    "feed": {"ground", "wire"},
    "net": {"ground", "wire"},
    "store": {"ground", "wire", "feed", "net"},
    "discovery": {"ground", "wire", "net"},
    "conn": {"ground", "wire", "net"},
    "wakeup": {"ground", "wire", "net"},
    "flock": {"ground", "wire", "net", "conn", "discovery"},
    "networker": {
        *("ground", "wire", "feed", "net", "store"),
        *("discovery", "conn", "wakeup", "flock"),
    },
}
"""The floors below each floor; a module may import those and its own."""
FACES = {"cli", "web", "metrics"}
GROUND = {
    *("errors", "address", "peer_type", "legacy_address", "keys", "limits", "events"),
    *("owned_tasks", "closing", "wall_clock", "host_port"),
}
PURE = (
    "covey.wire",
    "covey.feed",
    "covey.flock.policy",
    "covey.networker.group_events",
    "covey.networker.head_table",
    "covey.networker.messages",
    "covey.networker.opening",
    "covey.networker.policy",
    "covey.networker.reconcile",
    "covey.networker.wakeup_policy",
    "covey.conn.query",
    "covey.conn.scheduler",
)
IMPURE = {
    *("asyncio", "socket", "time", "random", "os", "secrets", "select", "selectors", "threading"),
    *("subprocess", "ssl", "signal", "uuid", "nacl.utils", "tempfile", "multiprocessing"),
}
"""Clocks, randomness, sockets, files: what a sans-I/O module is given and never takes."""
MODULES = read_modules()


def floor_of(name: str) -> str:
    """The floor of a module by its dotted name; `root` for `covey` itself."""
    parts = name.split(".")
    if len(parts) == 1:
        return "root"
    return "ground" if parts[1] in GROUND or parts[1].startswith("_") else parts[1]


def upward_arrows(modules: Mapping[str, ast.Module]) -> list[str]:
    """Imports that go up or sideways, of types too; faces may import anything but one another."""
    found = []
    for name in modules:
        floor = floor_of(name)
        if floor == "root":
            continue
        for item in imports_of(name, modules):
            if item.target.split(".")[0] != "covey":
                continue
            target = floor_of(item.target)
            allowed = set(BELOW) if floor in FACES else BELOW.get(floor, set())
            if target != floor and target not in allowed:
                if floor in FACES and target == "root":
                    continue  # a face may use covey as its users do
                found.append(f"{name}:{item.line} imports {item.target}")
    return found


def impurities(modules: Mapping[str, ast.Module]) -> list[str]:
    """Imports of a clock, of randomness, a socket or a file in modules that are to be pure."""
    found = []
    for name in modules:
        if not name.startswith(PURE):
            continue
        for item in imports_of(name, modules):
            if any(item.target == bad or item.target.startswith(f"{bad}.") for bad in IMPURE):
                found.append(f"{name}:{item.line} imports {item.target}")
    return found


def find_cycle(modules: Mapping[str, ast.Module]) -> list[str] | None:
    """Modules that import one another at run time, lazily or not; None when there are none."""
    arrows = {
        name: sorted(
            {
                item.target
                for item in imports_of(name, modules)
                if item.target in modules and item.target != name and not item.typing_only
            }
        )
        for name in modules
    }
    finished: set[str] = set()
    path: list[str] = []

    def visit(name: str) -> list[str] | None:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in finished:
            return None
        path.append(name)
        for target in arrows[name]:
            if cycle := visit(target):
                return cycle
        path.pop()
        finished.add(name)
        return None

    for name in modules:
        if cycle := visit(name):
            return cycle
    return None


def test_every_folder_has_a_floor() -> None:
    floors = {floor_of(name) for name in MODULES}
    assert floors <= {"root", *BELOW, *FACES}
    assert {"ground", "wire", "net", "conn", "discovery", "flock", "cli"} <= floors


def test_nothing_imports_upward() -> None:
    assert upward_arrows(MODULES) == []


def test_no_modules_import_one_another() -> None:
    assert find_cycle(MODULES) is None


def test_protocols_and_policies_take_no_time_no_chance_and_no_sockets() -> None:
    assert impurities(MODULES) == []


def test_the_package_itself_imports_next_to_nothing() -> None:
    targets = {item.target for item in imports_of("covey", MODULES) if not item.typing_only}
    assert {target for target in targets if target.startswith("covey")} == {
        "covey._lazy",
        "covey._version",
    }


FACE_CHECK = """
import sys
import covey
loaded = set(sys.modules)
for name in covey.__all__:
    getattr(covey, name)
faces = ("click", "rich", "aiohttp", "prometheus_client", "covey.cli", "covey.web", "covey.metrics")
print(sorted(name for name in sys.modules if name.startswith(faces)))
print(sorted(name for name in loaded if name.startswith("covey.")))
"""


def test_importing_covey_and_all_its_names_pulls_in_no_face() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FACE_CHECK], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.stdout, done.stderr) == ("[]\n['covey._lazy', 'covey._version']\n", "")


def tree(folder: Path, files: Mapping[str, str]) -> dict[str, ast.Module]:
    package = folder / "covey"
    for name, source in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return read_modules(package)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("wire/a.py", "import covey.net.b"),
        ("wire/a.py", "from covey.net import b"),
        ("wire/a.py", "from ..net import b"),
        ("wire/a.py", "from .. import flock"),
        ("wire/a.py", "def call():\n    from covey.net.b import thing"),
        ("wire/a.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import covey.net"),
        ("conn/a.py", "from covey.discovery import b"),
        ("discovery/a.py", "from covey.conn import b"),
        ("store/a.py", "from covey.conn import b"),
        ("errors.py", "from covey.wire import b"),
        ("flock/a.py", "import covey.cli"),
        ("net/a.py", "from covey import Hub"),
        ("web/a.py", "import covey.cli"),
    ],
)
def test_an_upward_arrow_is_found(tmp_path: Path, file: str, source: str) -> None:
    modules = tree(tmp_path, {"__init__.py": "", "flock/__init__.py": "", file: source})
    assert len(upward_arrows(modules)) == 1


def test_downward_arrows_are_fine(tmp_path: Path) -> None:
    modules = tree(
        tmp_path,
        {
            "flock/a.py": "import covey.conn.b, covey.wire.c\nfrom ..errors import E",
            "cli/a.py": "import covey\nfrom covey.flock import a\nimport click",
        },
    )
    assert upward_arrows(modules) == impurities(modules) == []


@pytest.mark.parametrize(
    "source",
    ["import time", "from os import urandom", "import os.path", "from nacl.utils import r"],
)
@pytest.mark.parametrize("file", ["wire/a.py", "feed/a.py", "flock/policy.py", "conn/query.py"])
def test_a_clock_in_a_protocol_is_found(tmp_path: Path, file: str, source: str) -> None:
    assert len(impurities(tree(tmp_path, {file: source}))) == 1
    assert impurities(tree(tmp_path / "net", {"net/a.py": source})) == []


def test_a_cycle_is_found_and_one_of_types_alone_is_none(tmp_path: Path) -> None:
    first = {"net/a.py": "from covey.net import b", "net/b.py": "from covey.net.c import x"}
    closing = "def call():\n    import covey.net.a"
    typing = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from covey.net import a"
    cyclic = tree(tmp_path / "one", {**first, "net/c.py": closing})
    assert find_cycle(cyclic) == ["covey.net.a", "covey.net.b", "covey.net.c", "covey.net.a"]
    assert find_cycle(tree(tmp_path / "two", {**first, "net/c.py": typing})) is None
