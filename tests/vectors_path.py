"""Where the test vectors lie: `tests/vectors`, or the folder named by `COVEY_VECTORS`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "vectors"


def load_vectors(name: str) -> dict[str, Any]:
    """The parsed vector file `name`; one of the same name in `$COVEY_VECTORS` goes first."""
    other = os.environ.get("COVEY_VECTORS")
    for folder in ([Path(other)] if other else []) + [HERE]:
        path = folder / f"{name}.json"
        if path.exists():
            vectors: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return vectors
    raise FileNotFoundError(f"no vectors named {name}")
