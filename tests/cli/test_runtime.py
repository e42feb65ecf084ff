"""How a command ends and what it says of faults, each in a process of its own."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
import time

import pytest

from covey.cli.output import Output
from covey.cli.runtime import CommandError, Exit, _complain, _hint
from tests.cli.test_output import Broken


def run_work(body: str, *, as_json: bool = False, debug: bool = False) -> tuple[int, str]:
    """Exit code and stderr of a command that does `body`."""
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    program = (
        "import asyncio, errno, logging, os\n"
        "from covey.cli.runtime import CommandError, Exit, run\n"
        f"async def work():\n{lines}    return Exit.OK\n"
        f"run(work, as_json={as_json}, debug={debug})\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


FAILING_LISTENER = """
from covey.events import EventStream
stream = EventStream()
stream.subscribe(lambda event: 1 / 0)
stream.publish("x")
"""
FAILING_SOURCE = """
from covey.discovery.channel import Channel
from covey.discovery.static_peers import StaticPeers
from covey.errors import DiscoveryError
class Faulty(StaticPeers):
    async def round(self, wanted):
        raise ValueError("bad source")
async with Channel([Faulty([])]) as channel:
    member = channel.join(b"x", port=None, announce=False)
    try:
        await member.first_round()
    except DiscoveryError:
        pass
"""


def test_a_listener_that_fails_is_told_in_one_line() -> None:
    code, said = run_work(FAILING_LISTENER)
    assert code == 0
    (line,) = said.splitlines()
    assert line.startswith("covey: this should not happen: a listener failed on 'x'")
    assert "ZeroDivisionError" in line


def test_a_source_that_fails_is_told_in_one_line() -> None:
    code, said = run_work(FAILING_SOURCE)
    assert code == 0
    (line,) = said.splitlines()
    assert "source static failed: ValueError: bad source" in line


def test_a_fault_of_the_loop_is_told_in_one_line() -> None:
    body = (
        "loop = asyncio.get_running_loop()\nloop.call_soon(lambda: 1 / 0)\nawait asyncio.sleep(0)"
    )
    code, said = run_work(body)
    assert code == 0
    (line,) = said.splitlines()
    assert "ZeroDivisionError" in line


def test_a_fault_is_an_event_for_programs() -> None:
    _, said = run_work(FAILING_LISTENER, as_json=True)
    (event,) = map(json.loads, said.splitlines())
    assert event["type"] == "fault"
    assert "ZeroDivisionError" in event["message"]


@pytest.mark.parametrize("level", ["debug", "info", "warning"])
def test_what_is_no_fault_is_not_told(level: str) -> None:
    assert run_work(f"logging.getLogger('covey.net').{level}('a peer went away')") == (0, "")


def test_debug_shows_everything() -> None:
    _, said = run_work("logging.getLogger('covey.net').debug('a step')", debug=True)
    assert "a step" in said


def test_a_failed_socket_is_not_taken_for_the_output() -> None:
    code, said = run_work("raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))")
    assert code == Exit.FAILED
    assert said.startswith("covey: Too many open files\n")
    assert "ulimit" in said
    assert "output" not in said


def test_a_file_that_failed_is_named() -> None:
    code, said = run_work("open('/nowhere/at/all')")
    assert code == Exit.FAILED
    assert said.startswith("covey: No such file or directory: '/nowhere/at/all'\n")


def test_what_should_not_happen_says_so_without_a_traceback() -> None:
    code, said = run_work("raise ValueError('odd')")
    assert code == Exit.FAILED
    assert said.startswith("covey: this should not happen: ValueError: odd\n")
    assert "Traceback" not in said


def test_a_command_error_ends_with_its_hint_and_code() -> None:
    code, said = run_work("raise CommandError('nobody came', hint='wait', code=Exit.NOBODY)")
    assert (code, said) == (Exit.NOBODY, "covey: nobody came\n  wait\n")
    assert CommandError("x").code is Exit.FAILED


def test_the_hint_of_a_cause_is_told() -> None:
    body = f"raise CommandError('cannot listen') from OSError({errno.EADDRINUSE}, 'in use')"
    assert "choose another --port" in run_work(body)[1]


def test_causes_that_are_a_ring_have_an_end() -> None:
    first, second = ValueError("one"), ValueError("two")
    first.__cause__, second.__cause__ = second, first
    assert _hint(first) == ""


FAILING_TELLER = """
from covey.cli.runtime import end_tasks, start_telling
async def tell():
    raise TypeError("no such line")
teller = start_telling(tell(), "covey.test.tell")
await asyncio.sleep(0)
await end_tasks(teller)
"""


def test_a_teller_that_fails_is_told_once() -> None:
    code, said = run_work(FAILING_TELLER)
    assert code == 0
    (line,) = said.splitlines()
    assert "covey: this should not happen: covey.test.tell ended" in line
    assert "TypeError: no such line" in line


LATE = """
import atexit, signal
atexit.register(os.kill, os.getpid(), signal.SIGINT)
atexit.register(os.kill, os.getpid(), signal.SIGTERM)
"""
WHILE_CLOSING = """
import signal, time
def linger():
    while signal.getsignal(signal.SIGINT) in (ours, signal.default_int_handler):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)
ours = signal.getsignal(signal.SIGINT)
asyncio.get_running_loop().run_in_executor(None, linger)
"""


def test_a_signal_after_the_end_does_not_change_the_result() -> None:
    assert run_work(LATE) == (0, "")


@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("raise CommandError('no', code=Exit.LOST)", 4)]
)
def test_an_interrupt_while_closing_ends_at_once_with_the_result(end: str, code: int) -> None:
    assert run_work(WHILE_CLOSING + end) == (code, "covey: no\n" if code else "")


def test_a_failure_told_elsewhere_keeps_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Output(as_json=True, stream=Broken(), start=time.monotonic() - 1000)
    _complain(broken, Exit.FAILED, "no reader")
    told = json.loads(capsys.readouterr().err)
    assert told["message"] == "no reader"
    assert told["seconds"] >= 1000
