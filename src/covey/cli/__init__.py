"""The `covey` command. Each command's module is imported when it is called, so help stays quick."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Mapping
from typing import Any, Final, NoReturn

import click

COMMANDS: Final = {
    "hello": ("covey.cli.hello", "Two peers in one process: the whole pipeline, narrated."),
    "id": ("covey.cli.identity", "Show your public key (made on first use)."),
    "join": ("covey.cli.join", "Join a topic and watch who is there."),
    "log": ("covey.cli.log", "Signed logs: make, append to, read and follow, verify."),
    "pipe": ("covey.cli.pipe", "Send stdin to a peer's stdout, both ways."),
    "seed": ("covey.cli.seed", "Keep logs available for others."),
}
EVENTS_ON_STDERR: Final = (["pipe"], ["log", "cat"])
"""Commands whose stdout carries data."""


class _Terminated(BaseException):
    """SIGTERM came before there was a loop."""


def _terminate(*_: object) -> NoReturn:
    raise _Terminated


def _end_early(message: str, code: int) -> NoReturn:
    """Tell what ended the command while it was loading, and leave.

    Nothing is imported here, for an import may be what was interrupted; nor is Python left in
    order: it would die by the signal where that fell into generated code.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # once is enough
    arguments = sys.argv[1:]
    stream, line = sys.stderr, f"covey: {message}"
    if "--json" in arguments:
        data = any(arguments[: len(words)] == words for words in EVENTS_ON_STDERR)
        stream = sys.stderr if data else sys.stdout
        line = f'{{"type":"failed","seconds":0.0,"code":{code},"message":"{message}","hint":""}}'
    try:
        stream.write(line + "\n")
        stream.flush()
    finally:
        os._exit(code)


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only when it is asked for.

    `commands_at`: for each name the module that has its `command`, and a line of help.
    """

    def __init__(
        self, *args: Any, commands_at: Mapping[str, tuple[str, str]] = COMMANDS, **extra: Any
    ) -> None:
        super().__init__(*args, **extra)
        self._commands_at = commands_at

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command that is named and leave the process, as click does.

        A signal ends with the same words and code while we still load as it does later.
        """
        standalone, extra["standalone_mode"] = extra.get("standalone_mode", True), False
        if not standalone:
            return super().main(*args, **extra)
        signal.signal(signal.SIGTERM, _terminate)  # until the loop has a handler of its own
        try:
            code = super().main(*args, **extra)
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except (click.Abort, KeyboardInterrupt):
            _end_early("interrupted", 130)
        except _Terminated:
            _end_early("terminated", 143)
        sys.exit(code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        del ctx
        return list(self._commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command and give its `command`."""
        del ctx
        if cmd_name not in self._commands_at:
            return None
        command: click.Command = importlib.import_module(self._commands_at[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._commands_at.items()])


HELP: Final = """Peer-to-peer connections: find peers by topic, connect, encrypt, multiplex.

Works on one machine, on a local network and without any server. Two terminals are enough:

\b
    covey pipe < FILE             prints a topic, waits
    covey pipe TOPIC > COPY       on the other side

Or publish a signed log, which any number of readers follow and pass on:

\b
    covey log new NAME            prints its key
    covey log append NAME --seed  lines of stdin; serves them
    covey log cat KEY --follow    on the other side
"""


@click.group(cls=LazyGroup, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="covey", message="covey %(version)s")
def main() -> None:
    """The command line; `HELP` is what it says of itself."""
