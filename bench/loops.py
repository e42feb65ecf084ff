"""Which event loop covey is measured on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable


def loop_factory(choice: str = "best") -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop when it is installed and not declined, else None: asyncio's own."""
    if choice == "best":
        with contextlib.suppress(ImportError):
            import uvloop

            return uvloop.new_event_loop
    return None
