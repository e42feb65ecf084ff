"""`covey log`: signed logs on the command line; each command is in a module of its own."""

from __future__ import annotations

from typing import Final

import click

from covey.cli import LazyGroup

LOG_COMMANDS: Final = {
    "new": ("covey.cli.log_new", "Make a log of your own; prints its key."),
    "append": ("covey.cli.log_append", "Append lines of stdin, or a file in chunks."),
    "cat": ("covey.cli.log_cat", "Print a log: catch up with its peers, or follow it."),
    "ls": ("covey.cli.log_ls", "List the logs that are kept here."),
    "info": ("covey.cli.log_info", "Show what is known here of a log."),
    "verify": ("covey.cli.log_verify", "Rehash a whole log against its signature."),
}

HELP: Final = """Signed logs: one writer, any number of readers, every block verified.

A log is known by its key, 64 hexadecimal digits: whoever has the key can read the log from anybody
who keeps it, and nobody but the writer can add to it. Your own logs have names besides. What was
read is kept, so that every command goes on where an earlier one ended.

Every command takes --store DIR (where logs are kept), --json and --debug.
"""


@click.group(cls=LazyGroup, commands_at=LOG_COMMANDS, help=HELP)
def command() -> None:
    """The group; `HELP` is what it says of itself."""
