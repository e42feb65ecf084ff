"""Names of a package that are imported when they are first used."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]], *, also: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of `package`, whose names live in the modules `homes`.

    `also` are public names that the package has already. A package that uses this imports the same
    names under `TYPE_CHECKING`, and hides `__getattr__` from type checkers, which would otherwise
    take every misspelt name.
    """
    home_of = {name: home for home, names in homes.items() for name in names}
    listed = sorted([*home_of, *also])

    def get(name: str) -> Any:
        if name not in home_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home_of[name]), name)
        setattr(sys.modules[package], name, value)  # asked for once
        return value

    def names() -> list[str]:
        return list(listed)

    return get, names
