"""How a command runs: one event loop, one place for errors, exit codes that mean something."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from enum import IntEnum
from typing import Any, TextIO, TypeVar

import click

from covey.cli.output import Output, printable
from covey.errors import CoveyError

logger = logging.getLogger("covey.cli")

Command = TypeVar("Command", bound=Callable[..., Any])
LAST_WORDS = 1.0
"""Seconds for which tellers may go on when everything is closed; they need one turn of the loop."""


class Exit(IntEnum):
    """Exit codes of every command (2 is click's own, for wrong usage)."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOBODY = 3
    """No peer came in the time given."""
    LOST = 4
    """The peer was lost, or gave up, before everything was confirmed."""
    INTERRUPTED = 130
    TERMINATED = 143


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


def run(
    work: Callable[[], Coroutine[Any, Any, Exit]],
    *,
    debug: bool = False,
    as_json: bool = False,
    events: TextIO | None = None,
) -> None:
    """Run a command to its end and leave the process with its exit code.

    What ends it too early is told on stderr, with `as_json` as an event of type `failed` on
    `events`, the stream of the command's other events (None: stderr).
    """
    _open_closed_descriptors()
    take_any_text()
    output = Output(as_json=as_json, stream=events if as_json else None)
    _set_up_logging(output, debug=debug)
    with asyncio.Runner(debug=False, loop_factory=_loop_factory()) as runner:
        code = _outcome(runner, work, output, debug=debug)
        _flush_or_forget()
        # The code stands. What is left, a name that is still looked up, is not worth a wait.
        _on(signal.SIGINT, lambda *_: os._exit(int(code)))
    for number in (signal.SIGINT, signal.SIGTERM):
        _on(number, signal.SIG_IGN)
    _flush_or_forget()
    sys.exit(int(code))


def _outcome(
    runner: asyncio.Runner,
    work: Callable[[], Coroutine[Any, Any, Exit]],
    output: Output,
    *,
    debug: bool,
) -> Exit:
    """Do the work and tell what ended it too early; gives the exit code."""
    try:
        code = runner.run(_until_terminated(work))
        if code is Exit.TERMINATED:
            _complain(output, code, "terminated")
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
        _complain(output, code, "interrupted")
    except (CoveyError, OSError) as error:
        if debug:
            raise
        code = getattr(error, "code", Exit.FAILED)
        code = code if isinstance(code, Exit) else Exit.FAILED
        _complain(output, code, _message(error), getattr(error, "hint", "") or _hint(error))
    except Exception as error:
        if debug:
            raise
        code = Exit.FAILED
        _complain(
            output,
            code,
            f"this should not happen: {type(error).__name__}: {error}",
            "a fault of covey: run again with --debug, and please report what it shows",
        )
    return code


def take_any_text() -> None:
    """Have letters that the encoding of an output lacks written as escapes, not fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _on(number: signal.Signals, handler: Any) -> None:
    """What a signal does from now on; nothing is changed outside the main thread."""
    with contextlib.suppress(ValueError):
        signal.signal(number, handler)


async def _until_terminated(work: Callable[[], Coroutine[Any, Any, Exit]]) -> Exit:
    """`work`, which SIGTERM ends as orderly as Ctrl-C does."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    terminated = False

    def terminate() -> None:
        nonlocal terminated
        terminated = True
        if task is not None:
            task.cancel()

    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGTERM, terminate)
    try:
        return await work()
    except asyncio.CancelledError:
        if terminated:
            return Exit.TERMINATED
        raise


def start_telling(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task that only tells what goes on; a fault that ends it is reported, not left to its owner.

    Whoever ends it need not look at how it ended.
    """
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_report_fault)
    return task


def _report_fault(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("%s ended", task.get_name(), exc_info=error)


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks and wait until they have ended, however they do."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def let_end(*tellers: asyncio.Task[Any]) -> None:
    """What they tell of is closed: give them the time to tell the last of it."""
    if tellers:
        await asyncio.wait(tellers, timeout=LAST_WORDS)
    await end_tasks(*tellers)


def _complain(output: Output, code: Exit, message: str, hint: str = "") -> None:
    output.say(printable(f"covey: {message}" + (f"\n  {hint}" if hint else "")))
    if not output.as_json:
        return
    output.event("failed", code=code, message=message, hint=hint)
    if output.failure is not None and output.stream is not sys.stderr:
        Output(as_json=True, start=output.start).event(
            "failed", code=code, message=message, hint=hint
        )


def _message(error: BaseException) -> str:
    """What went wrong, without the number that only the system's own tables explain."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error) or type(error).__name__
    place = "" if error.filename is None else f": {str(error.filename)!r}"
    return error.strerror + place


_HINTS = {
    errno.EPIPE: "whatever read our output went away",
    errno.ENOSPC: "make room, or write somewhere else",
    errno.EADDRINUSE: "another program listens there: choose another --port, or leave it out",
    errno.EADDRNOTAVAIL: "--host is an address of this machine; leave it out to listen on all",
    errno.EMFILE: "allow more open files: `ulimit -n 4096` before the command",
    errno.EACCES: "check the permissions of the file or port named above",
    errno.EBADF: "it was closed before covey was started",
}


def _hint(error: BaseException | None) -> str:
    """What to do about an error, going by the system's code where there is one."""
    seen: set[int] = set()  # nothing keeps causes from being a ring
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in _HINTS:
            return _HINTS[error.errno]
        if hint := getattr(error, "hint", ""):
            return str(hint)
        error = error.__cause__
    return ""


class _OneLine(logging.Handler):
    """Faults, those that nobody caught and those that were logged: one line each, no traceback."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.ERROR)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        """Print the line."""
        error = record.exc_info[1] if record.exc_info else None
        text = record.getMessage() + (f": {type(error).__name__}: {error}" if error else "")
        line = printable(" ".join(text.split("\n")))
        self._output.say(f"covey: this should not happen: {line}")
        if self._output.as_json:
            self._output.event("fault", message=text)


def _set_up_logging(output: Output, *, debug: bool) -> None:
    """With `debug` everything is shown; without, what there is to say is in our own lines."""
    if debug:
        logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
        return
    for name in ("covey", "asyncio"):
        faults = logging.getLogger(name)
        faults.addHandler(_OneLine(output))
        faults.propagate = False


def _open_closed_descriptors() -> None:
    """Give a process that was started without stdin, stdout or stderr something in their place.

    Otherwise the first socket would get the free number, and be taken for the standard stream.
    What stands in for an output cannot be written, so that nothing is lost in silence.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_WRONLY if name == "stderr" else os.O_RDONLY)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


def _flush_or_forget() -> None:
    """Write what is left, so that the interpreter does not fail at it on its way out."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            with contextlib.suppress(OSError):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream.fileno())
                os.close(nowhere)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """The event loop of uvloop where it is installed: the same behaviour, quicker sockets."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
