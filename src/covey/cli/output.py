"""What a command says: lines for people on stderr, or one JSON event a line for programs."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from covey.errors import CoveyError


def plain(value: object) -> Any:
    """`value` as JSON can hold it: keys and hashes in hex, addresses and errors as text."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case enum.Enum():
            return value.value
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
        case _ if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields = dataclasses.fields(value)
            return {field.name: plain(getattr(value, field.name)) for field in fields if field.repr}
        case _:
            return str(value)


def printable(text: str) -> str:
    """`text` without what a terminal would obey: peers have a say in some of our lines."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


class OutputError(CoveyError):
    """What a command had to say could not be written; the cause is the system's `OSError`."""

    def __init__(self, failure: OSError) -> None:
        super().__init__(f"cannot write the output: {failure.strerror or failure}")
        self.__cause__ = failure


class Output:
    """Says what happens, with the seconds since the start in front.

    With `as_json` each call writes one JSON object; `stream` is stderr where stdout carries data.
    `quiet`: nobody wants the signs of life of a wait.
    When the stream cannot be written any more, `failure` says why and everything else is silent;
    a command whose output is its purpose runs inside `needed`.
    `start`: when the seconds begin, on the monotonic clock; default: now.
    """

    def __init__(
        self,
        *,
        as_json: bool,
        stream: TextIO | None = None,
        quiet: bool = False,
        start: float | None = None,
    ) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self.stream = stream if stream is not None else sys.stderr
        self.failure: OSError | None = None
        self._needed_by: asyncio.Task[Any] | None = None
        self.start = time.monotonic() if start is None else start

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.start

    @property
    def live(self) -> bool:
        """Whether it is a terminal for people, where lines can be redrawn."""
        return not self.as_json and self.stream.isatty()

    def event(self, type_: str, text: str = "", /, **fields: object) -> None:
        """One thing that happened: `text` for people, `type_` and `fields` for programs.

        The two are positional only: a field may be called `text`, or anything else.
        """
        if self.as_json:
            record = {"type": type_, "seconds": round(self.elapsed, 6), **plain(fields)}
            self._line(json.dumps(record, separators=(",", ":")))
        elif text:
            self._line(f"{self.elapsed:8.3f} s  {printable(text)}")

    def say(self, text: str) -> None:
        """A line for people only."""
        if not self.as_json:
            self._line(text)

    @contextmanager
    def needed(self) -> Iterator[None]:
        """End the block with `OutputError` as soon as the stream cannot be written."""
        task = self._needed_by = asyncio.current_task()
        try:
            yield
        except asyncio.CancelledError:
            if self.failure is None or task is None or task.uncancel():
                raise
        finally:
            self._needed_by = None
        if self.failure is not None:
            raise OutputError(self.failure)

    def _line(self, text: str) -> None:
        if self.failure is not None:
            return
        try:
            self.stream.write(text + "\n")
            self.stream.flush()
        except OSError as error:
            self.failure = error
            if self._needed_by is not None:
                self._needed_by.cancel()


def bytes_text(count: float) -> str:
    """`1234567` as `1.2 MB` (powers of ten, as networks count)."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def key_text(key: bytes | None) -> str:
    """A key short enough for a line: its first eight hex digits."""
    return "nobody" if key is None else key.hex()[:8] + "…"
