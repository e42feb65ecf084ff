"""How a command runs: one event loop, one place for errors, exit codes that mean something."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, TypeVar

import click

from covey.errors import CoveyError

Command = TypeVar("Command", bound=Callable[..., Any])


class Exit(IntEnum):
    """Exit codes of every command (2 is click's own, for wrong usage)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOBODY = 3
    """No peer came in the time given."""
    LOST = 4
    """The peer was lost before it confirmed everything."""
    INTERRUPTED = 130


class CommandError(CoveyError):
    """Ends a command with a message, what to do about it, and an exit code."""

    def __init__(self, message: str, *, hint: str = "", code: Exit = Exit.FAILED) -> None:
        super().__init__(message)
        self.hint = hint
        self.code = code


def common_options(command: Command) -> Command:
    """Options that every command has: --json, --debug."""
    command = click.option("--debug", is_flag=True, help="Log everything, show tracebacks.")(
        command
    )
    return click.option("--json", "as_json", is_flag=True, help="One JSON event a line.")(command)


def run(work: Callable[[], Coroutine[Any, Any, Exit]], *, debug: bool = False) -> None:
    """Run a command to its end and leave the process with its exit code."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
    try:
        with asyncio.Runner(debug=False, loop_factory=_loop_factory()) as runner:
            code = runner.run(work())
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except (CoveyError, OSError) as error:
        if debug:
            raise
        hint = getattr(error, "hint", "") or _hint(error)
        click.echo(f"covey: {error}" + (f"\n  {hint}" if hint else ""), err=True)
        code = getattr(error, "code", Exit.FAILED)
        code = code if isinstance(code, Exit) else Exit.FAILED
    sys.exit(int(code))


def _hint(error: BaseException) -> str:
    if isinstance(error, BrokenPipeError):
        return "whatever read our output went away"
    if isinstance(error, PermissionError):
        return "check the permissions of the file or port named above"
    return "run again with --debug for the whole story"


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of uvloop where it is installed: the same behaviour, quicker sockets."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
