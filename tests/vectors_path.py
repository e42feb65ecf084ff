"""Where the test vectors lie: `tests/vectors`, or the folder named by `COVEY_VECTORS`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "vectors"


def vector_file(name: str) -> Path:
    """The file `name`.json: in `$COVEY_VECTORS` where it has one, else our own.

    Raises `NotADirectoryError` when the variable names no folder with vectors: a mistyped folder
    must not pass for one whose vectors hold.
    """
    other = os.environ.get("COVEY_VECTORS")
    if other:
        names = {path.name for path in Path(other).glob("*.json")}
        if not names & {path.name for path in HERE.glob("*.json")}:
            raise NotADirectoryError(f"COVEY_VECTORS={other} holds none of the vector files")
        if f"{name}.json" in names:
            return Path(other) / f"{name}.json"
    return HERE / f"{name}.json"


def load_vectors(name: str) -> dict[str, Any]:
    """The parsed vector file `name`; see `vector_file`."""
    vectors: dict[str, Any] = json.loads(vector_file(name).read_text(encoding="utf-8"))
    return vectors
