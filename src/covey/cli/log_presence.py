"""Who is there for one log, and what happens to it that its user should know."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from covey.cli.log_progress import blocks_text
from covey.cli.narrator import Brief, path_fields, path_of
from covey.cli.output import Output, key_text
from covey.cli.runtime import CommandError, Exit

if TYPE_CHECKING:
    from covey.errors import CoveyError
    from covey.store.feed import Feed
    from covey.store.feed_events import FeedEvent

NOBODY_HAS_IT = (
    "does anybody keep it, in the same network: `covey seed KEY`, or its writer with "
    "`covey log append NAME --seed`? `--peer HOST:PORT` reaches a peer where multicast does not"
)


ROOM = "make room, or keep logs in another folder with --store DIR; what is here is kept"


class Presence:
    """Whether a log has peers, and what else its users should know; a context manager."""

    def __init__(self, feed: Feed, output: Output, *, name: str = "") -> None:
        self.found = asyncio.Event()
        self._broken = asyncio.Event()
        self._store_error: CoveyError | None = None
        self._there = asyncio.Event()
        self._alone = asyncio.Event()
        self._feed = feed
        self._output = output
        self._name = f"{name}: " if name else ""
        self._stack = ExitStack()
        self._look()

    def __enter__(self) -> Self:
        self._stack.callback(self._feed.subscribe(self._hear))
        self._look()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    async def keep(self, limit: float | None, brief: Brief) -> None:
        """Raise `CommandError` when there is no peer for `limit` seconds; else wait for ever."""
        while True:
            try:
                async with asyncio.timeout(limit):
                    await self._there.wait()
            except TimeoutError:
                raise self._nobody(limit or 0.0, brief) from None
            await self._alone.wait()

    async def until_broken(self) -> None:
        """Raise `CommandError` when what comes cannot be kept; else wait for ever."""
        await self._broken.wait()
        raise CommandError(
            f"cannot keep what comes: {self._store_error}", hint=ROOM
        ) from self._store_error

    def _nobody(self, limit: float, brief: Brief) -> CommandError:
        had = self._feed.progress
        kept = f"{had.have} of {had.total} blocks are here" if had.total else "nothing is here yet"
        last = f"; last: {brief.trouble}" if brief.trouble else ""
        if not self.found.is_set():
            return CommandError(
                f"no peer that has the log came within {limit:g} s; {kept}{last}",
                hint=brief.advice or NOBODY_HAS_IT,
                code=Exit.NOBODY,
            )
        return CommandError(
            f"its peers were lost and none came back within {limit:g} s; {kept}{last}",
            hint="what is here is kept: the same command goes on from there",
            code=Exit.LOST,
        )

    def _look(self) -> None:
        there = bool(self._feed.peers)
        if there:
            self.found.set()
        for event, state in ((self._there, there), (self._alone, not there)):
            if state:
                event.set()
            else:
                event.clear()

    def _hear(self, event: FeedEvent) -> None:
        if event.type == "store-error":
            again = str(event.error) == str(self._store_error)
            self._store_error = event.error
            self._broken.set()
            if again:
                return  # it is tried again and again
        told = line_of(event)
        if told is not None:
            text, fields = told
            text = self._name + text if text else ""
            self._output.event(event.type, text, log=self._feed.key, **fields)
        if event.type in {"peer-add", "peer-remove"}:
            self._look()


def line_of(event: FeedEvent) -> tuple[str, dict[str, object]] | None:
    """An event of a log in words (none: only programs care) and as data; None: not worth telling.

    Blocks that come and go are counted, not told one by one.
    """
    match event.type:
        case "append":
            return "", {"length": event.length, "fork": event.fork, "start": event.start}
        case "truncate":
            text = (
                f"its writer cut the log from {blocks_text(event.old_length)} "
                f"to {blocks_text(event.length)}"
            )
            fields = {"length": event.length, "fork": event.fork, "old_length": event.old_length}
            return text, dict(fields)
        case "peer-add":
            return path_of(event.peer.connection), path_fields(event.peer.connection)
        case "peer-remove":
            why = f": {event.error}" if event.error is not None else ""
            text = f"peer {key_text(event.peer.remote_key)} left{why}"
            return text, {"key": event.peer.remote_key, "error": event.error}
        case "verification-error" | "invalid-request":
            text = f"peer {key_text(event.peer.remote_key)} is not to be trusted: {event.error}"
            return text, {"key": event.peer.remote_key, "error": event.error}
        case "conflict":
            text = f"its writer signed two histories of {blocks_text(event.length)}: it is frozen"
            return text, {"length": event.length, "fork": event.fork}
        case "store-error":
            return f"cannot keep what comes: {event.error}", {"error": event.error}
        case "read-error":
            return f"cannot read what is stored: {event.error}", {"error": event.error}
        case _:
            return None
