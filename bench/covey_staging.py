"""What one more candidate costs with a live view attached, as `node-staging.cjs` measures it."""

from __future__ import annotations

import asyncio
import json
import sys
import time

from covey.conn.staging import Staging
from covey.limits import Limits

KEY = "HEqy940T6uB+T+d9Jaa58aNfRzLx9eRWqkZljBmnkmk="
SIZES = (1_000, 10_000, 100_000)


async def microseconds_each(candidates: int) -> tuple[float, int]:
    """Mean time to stage one of `candidates`, and the size of the snapshot that came after."""
    limits = Limits(max_staged=2 * candidates, max_staged_per_key=2 * candidates)
    texts = [
        f"net:10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}:8008~shs:{KEY}" for n in range(candidates)
    ]
    async with Staging(limits=limits) as staging:
        view = staging.live_entries()
        assert not list(await anext(view))
        start = time.perf_counter()
        for text in texts:
            staging.stage(text, {"type": "lan", "key": "k"})
        seconds = time.perf_counter() - start
        rows = len(list(await anext(view)))
        view.close()
    return seconds / candidates * 1e6, rows


async def main() -> None:
    """Print one line per size."""
    for candidates in SIZES:
        micros, rows = await microseconds_each(candidates)
        assert rows == candidates
        line = {"what": "staging", "live": True, "n": candidates, "usPerStage": micros}
        sys.stdout.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    asyncio.run(main())
