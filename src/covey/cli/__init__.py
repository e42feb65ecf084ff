"""The `covey` command. Each command's module is imported when it is called, so help stays quick."""

from __future__ import annotations

import importlib
from typing import Final

import click

COMMANDS: Final = {
    "hello": ("covey.cli.hello", "Two peers in one process: the whole pipeline, narrated."),
    "id": ("covey.cli.identity", "Show your public key (made on first use)."),
    "join": ("covey.cli.join", "Join a topic and watch who is there."),
    "pipe": ("covey.cli.pipe", "Send stdin to a peer's stdout, both ways."),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in alphabetical order."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of one command and give its `command`."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


HELP: Final = """Peer-to-peer connections: find peers by topic, connect, encrypt, multiplex.

Works on one machine, on a local network and without any server. Two terminals are enough:

\b
    covey pipe < FILE             prints a topic, waits
    covey pipe TOPIC > COPY       on the other side
"""


@click.group(cls=LazyGroup, help=HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="covey", message="covey %(version)s")
def main() -> None:
    """The command line; `HELP` is what it says of itself."""
