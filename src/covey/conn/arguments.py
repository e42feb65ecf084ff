"""What users of a hub give it, checked before anything changes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from covey.errors import UsageError


def check_seconds(name: str, seconds: float | None) -> None:
    """Raise for what is no time to wait: `TypeError` for no number, `UsageError` for a bad one.

    None is a time too: the default.
    """
    if seconds is None:
        return
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError(f"{name} is a number of seconds from 0 on, not {seconds}")


def check_data(data: Mapping[str, Any]) -> None:
    """Raise `TypeError` for fields of an entry that are no mapping."""
    if not isinstance(data, Mapping):
        raise TypeError(f"data is a mapping, not {type(data).__name__}")
