"""Starting is cheap because little is loaded; what is loaded is asserted, not how long it takes.

For the time itself: `python -X importtime -c "import covey"`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FACES = {"click", "rich", "aiohttp", "prometheus_client", "dns", "cryptography", "uvloop", "lmdb"}


def modules_after(code: str) -> set[str]:
    """The names in `sys.modules` of a fresh interpreter after `code`."""
    report = "\nimport json, sys; print('\\n' + json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code + report],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    names: list[str] = json.loads(done.stdout.splitlines()[-1])
    return set(names)


def test_importing_covey_loads_no_face_and_no_optional_package() -> None:
    loaded = modules_after("import covey")
    assert not loaded & FACES
    assert not {name for name in loaded if name.startswith(("covey.cli", "covey.web"))}


def test_help_loads_neither_the_network_nor_the_painter() -> None:
    loaded = modules_after(
        "import sys; sys.argv = ['covey', '--help']\n"
        "from covey.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert "click" in loaded
    assert not loaded & (FACES - {"click"})
    heavy = ("covey.net", "covey.wire", "covey.conn", "covey.flock", "covey.discovery", "nacl")
    assert not {name for name in loaded if name.startswith(heavy)}
