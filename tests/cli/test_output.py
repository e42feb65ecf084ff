"""What commands say: JSON of anything, nothing that a terminal obeys, no failure when unread."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any, get_args

import pytest

from covey.cli.narrator import _LINES, line_of, whereabouts
from covey.cli.output import Output, OutputError, bytes_text, key_text, printable
from covey.cli.stdio import size_of
from covey.errors import ProtocolError
from covey.flock.events import FlockClosed, FlockEvent, Listening, Peer, PeerConnecting, PeerDropped
from covey.flock.policy import Reason


class Broken(io.StringIO):
    """A stream whose reader is gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_an_event_is_one_line_of_json() -> None:
    stream = io.StringIO()
    Output(as_json=True, stream=stream).event(
        "x",
        "words",
        key=b"\1\2",
        error=ProtocolError("bad"),
        reason=Reason.BANNED,
        peer=Peer("::1", 5, b"\xff"),
        many=(1, None, {"a": 2.5}),
    )
    (line,) = stream.getvalue().splitlines()
    record: dict[str, Any] = json.loads(line)
    assert record.pop("seconds") >= 0
    assert record.pop("peer")["channel"] == "ff"
    assert record == {
        "type": "x",
        "key": "0102",
        "error": "bad",
        "reason": "banned",
        "many": [1, None, {"a": 2.5}],
    }


def test_an_event_without_words_is_for_programs_only() -> None:
    stream = io.StringIO()
    Output(as_json=False, stream=stream).event("x", a=1)
    assert stream.getvalue() == ""


def test_words_of_a_peer_cannot_command_the_terminal() -> None:
    stream = io.StringIO()
    Output(as_json=False, stream=stream).event("x", "a\x1b[2J\x07b\nc ü")
    assert stream.getvalue().endswith("s  a?[2J?b\nc ü\n")
    assert printable("plain") == "plain"


def test_a_stream_that_nobody_reads_is_silent() -> None:
    output = Output(as_json=False, stream=Broken())
    output.say("a")
    output.say("b")
    assert isinstance(output.failure, BrokenPipeError)


async def test_a_command_whose_output_is_needed_ends_with_it() -> None:
    output = Output(as_json=False, stream=Broken())
    loop = asyncio.get_running_loop()
    loop.call_soon(output.say, "a")
    with pytest.raises(OutputError, match="Broken pipe"), output.needed():
        await loop.create_future()
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_cancellation_from_outside_is_not_taken_for_a_failure() -> None:
    output = Output(as_json=False, stream=io.StringIO())
    entered = asyncio.Event()

    async def work() -> None:
        with output.needed():
            entered.set()
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1.5e9, "1.5 GB")]
)
def test_sizes_are_told_in_powers_of_ten(count: float, text: str) -> None:
    assert bytes_text(count) == text


def test_keys_are_told_short() -> None:
    assert key_text(bytes(32)) == "00000000…"
    assert key_text(None) == "nobody"


@pytest.mark.parametrize(
    ("host", "place"),
    [
        ("127.0.0.1", "this machine"),
        ("10.255.255.1", "local network"),
        ("fe80::1234", "local network"),
        ("8.8.8.8", "routed"),
        ("2001:4860:4860::8888", "routed"),
    ],
)
def test_the_path_says_where_the_other_side_is(host: str, place: str) -> None:
    assert whereabouts(host) == place


def test_sizes_are_known_of_files_and_of_nothing(tmp_path: Any) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    with (tmp_path / "file").open("rb", buffering=0) as file:
        file.read(2)
        assert size_of(file.fileno()) == 3
    with open("/dev/null", "rb") as nothing:  # noqa: PTH123
        assert size_of(nothing.fileno()) == 0
    with open("/dev/zero", "rb") as endless:  # noqa: PTH123
        assert size_of(endless.fileno()) is None


def test_every_event_of_a_flock_has_a_line() -> None:
    kinds = {kind.__dataclass_fields__["type"].default for kind in get_args(FlockEvent)}
    assert kinds == set(_LINES)


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (PeerConnecting(Peer("h", 1, b"x")), "connecting to h:1"),
        (PeerConnecting(Peer("h", 1, b"x", retries=2)), "connecting to h:1, attempt 3"),
        (PeerDropped(Peer("h", 1, b"x", retries=5)), "gave up h:1 after 5 attempts"),
        (Listening("::", 7), "listening on port 7"),
        (FlockClosed(), "closed"),
    ],
)
def test_an_event_is_told_in_words(event: FlockEvent, line: str) -> None:
    assert line_of(event) == line
