"""`covey id`: the public key of this user, made on first use."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

import click

from covey.cli.output import Output
from covey.cli.runtime import CommandError, Exit, common_options, run
from covey.errors import KeyFileError
from covey.keys import KeyPair

ANOTHER_FILE: Final = (
    "`--key FILE` names another file, COVEY_HOME=FOLDER another folder for the usual one"
)


def default_key_file() -> Path:
    """Where the key pair lies: `$COVEY_HOME/key`, or `key` in the user's settings folder."""
    home = os.environ.get("COVEY_HOME")
    return Path(home or click.get_app_dir("covey")) / "key"


def load_identity(path: Path | None) -> KeyPair:
    """The key pair at `path` (None: the default place), made if there is none.

    Raises `CommandError` that says which file it is and how another is chosen.
    """
    file = path or default_key_file()
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return KeyPair.load_or_create(file)
    except OSError as error:
        message = f"cannot make the folder {file.parent} for the key file: {error.strerror}"
        raise CommandError(message, hint=ANOTHER_FILE) from error
    except KeyFileError as error:
        raise CommandError(str(error), hint=ANOTHER_FILE) from error


@click.command("id")
@click.option(
    "--key",
    "key_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Key file; default: $COVEY_HOME/key or the user's settings folder.",
)
@common_options
def command(key_file: Path | None, as_json: bool, debug: bool) -> None:
    """Show your public key. The secret half stays in a file that only you can read."""

    async def show() -> Exit:
        pair = load_identity(key_file)
        file = key_file or default_key_file()
        output = Output(as_json=as_json, stream=sys.stdout)
        with output.needed():
            output.event("identity", public_key=pair.public_key, file=str(file))
            output.say(pair.public_key.hex())
        Output(as_json=as_json).say(f"key file: {file}")
        return Exit.OK

    run(show, debug=debug, as_json=as_json, events=sys.stdout)
