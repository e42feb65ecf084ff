"""Where the commands keep logs, and how they find the one that is meant."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from covey.cli.output import Output
from covey.cli.runtime import CommandError
from covey.errors import StoreError

if TYPE_CHECKING:
    from covey.store.basestore import Basestore
    from covey.store.feed import Feed

Command = TypeVar("Command", bound=Callable[..., Any])
KEY: Final = re.compile(r"[0-9a-fA-F]{64}")
"""What is read as a key, and so is no name."""
MAX_NAME: Final = 255
"""Bytes of a name."""
BUSY_HINT: Final = (
    "one process at a time has a store: end that one, or name another folder with --store DIR. "
    "To append and serve in one process: `covey log append NAME --seed`"
)
BRING_HINT: Final = "`covey log cat KEY` and `covey seed KEY` bring it from its peers"
FROZEN: Final = "its writer signed two histories"
STORE_HINT: Final = "`--store DIR` names another folder"


def default_store() -> Path:
    """`$COVEY_HOME/store`, or `covey/store` in the folder where the user's programs keep data."""
    if home := os.environ.get("COVEY_HOME"):
        return Path(home) / "store"
    if os.name == "nt" or sys.platform == "darwin":
        return Path(click.get_app_dir("covey")) / "store"
    data = os.environ.get("XDG_DATA_HOME", "")
    base = Path(data) if os.path.isabs(data) else Path.home() / ".local" / "share"  # noqa: PTH117
    return base / "covey" / "store"


def store_option(command: Command) -> Command:
    """Add --store."""
    return click.option(
        "--store",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        metavar="DIR",
        help="Where logs are kept; default: $COVEY_HOME/store, or covey/store in the user's data "
        "folder.",
    )(command)


def log_name(ctx: click.Context, parameter: click.Parameter, name: str) -> str:
    """A name for a log as it was given; raises `click.BadParameter` for what can be none."""
    if KEY.fullmatch(name):
        raise click.BadParameter("64 hexadecimal digits are a key, not a name", ctx, parameter)
    if not name or not name.isprintable() or name != name.strip():
        raise click.BadParameter(
            f"{name!r} is no name: printable characters, no space at either end", ctx, parameter
        )
    if len(name.encode()) > MAX_NAME:
        raise click.BadParameter(f"a name has at most {MAX_NAME} bytes", ctx, parameter)
    return name


def log_named(ctx: click.Context, parameter: click.Parameter, which: str) -> str:
    """A key or a name as it was given; raises `click.BadParameter`."""
    return which if KEY.fullmatch(which) else log_name(ctx, parameter, which)


def key_or_name(function: Command) -> Command:
    """Add the argument KEY|NAME."""
    return click.argument("which", metavar="KEY|NAME", callback=log_named)(function)


@asynccontextmanager
async def open_store(
    folder: Path | None, *, active: bool = False, wanted: str | None = None
) -> AsyncIterator[Basestore]:
    """The store in `folder` (None: the default one), closed at the end; `active` as of a store.

    One that is missing is made, but not for a log that is `wanted` from it, by key or name.
    Raises `CommandError` for that, and when the store is in use, damaged or cannot be made.
    """
    from covey.store.basestore import Basestore

    path = folder or default_store()
    if wanted is not None and not is_store(path):
        raise _not_here(wanted, path, no_store=True)
    store = Basestore(path, active=active)
    try:
        await store.__aenter__()
    except StoreError as error:
        text = str(error)
        hint = BUSY_HINT if "in another process" in text else STORE_HINT
        raise CommandError(text, hint=hint) from error
    try:
        yield store
    finally:
        await store.close()


def is_store(path: Path) -> bool:
    """Whether a store was made in the folder; when that cannot be seen, opening it tells why."""
    from covey.store.lmdb_environment import DATA_NAME, FORMAT_NAME

    for name in (DATA_NAME, FORMAT_NAME):
        try:
            os.stat(path / name)  # noqa: PTH116 - `exists` takes a file on the way for nothing
        except FileNotFoundError:
            continue
        except OSError:
            pass
        return True
    return False


def _not_here(which: str, path: object, *, no_store: bool = False) -> CommandError:
    """That there is no such log, and what to do about it."""
    why = ": there is no store there" if no_store else ""
    if KEY.fullmatch(which):
        return CommandError(f"the log {which.lower()} is not in {path}{why}", hint=BRING_HINT)
    hint = STORE_HINT if no_store else "`covey log ls` lists what is there"
    return CommandError(
        f"there is no log called {which!r} in {path}{why}",
        hint=f"{hint}; `covey log new NAME` makes one",
    )


async def find_log(store: Basestore, which: str, *, fetch: bool = False) -> Feed:
    """A session of the log called `which`, or with that key.

    With `fetch` a key that is not here is taken in, to be brought by peers. Raises `CommandError`
    for a log that is not here.
    """
    if KEY.fullmatch(which):
        return await _find_by_key(store, bytes.fromhex(which), fetch=fetch)
    discovery_key = (await store.names()).get(which)
    if discovery_key is None:
        raise _not_here(which, store.path)
    return await store.get(discovery_key=discovery_key)


async def _find_by_key(store: Basestore, key: bytes, *, fetch: bool) -> Feed:
    from covey.keys import discovery_key

    wanted = discovery_key(key)
    if wanted in await store.list():
        return await store.get(discovery_key=wanted)
    if fetch:
        return await store.get(key)
    raise _not_here(key.hex(), store.path)


async def names_by_key(store: Basestore) -> dict[bytes, str]:
    """The names of the logs of one's own, by their discovery keys."""
    return {discovery_key: name for name, discovery_key in (await store.names()).items()}


def two_outputs(*, as_json: bool, quiet: bool = False) -> tuple[Output, Output]:
    """For what a command was asked for (stdout), and for what goes on meanwhile (stderr).

    With `as_json` both are one, on stdout.
    """
    result = Output(as_json=as_json, stream=sys.stdout, quiet=quiet)
    if as_json:
        return result, result
    return result, Output(as_json=False, quiet=quiet, start=result.start)
