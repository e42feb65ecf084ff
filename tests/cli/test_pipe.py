"""`covey pipe` as processes: files, streams, the reasons and codes of every end."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from covey.cli import progress
from covey.cli.pipe import ALPHABET, new_topic
from tests.cli.support import HOST, LOCAL, NULL, PIPE, CuttingProxy, connected_pipes, covey
from tests.discovery.fakes import free_udp_port

QUICK = ("--reconnect", "0.2")


def run_covey(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "covey.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
        cwd=Path(__file__).parents[2],
    )


async def test_a_file_arrives_and_both_sides_end_well(tmp_path: Path) -> None:
    data = random.Random(2).randbytes(3_000_000)
    (tmp_path / "file").write_bytes(data)
    with (tmp_path / "file").open("rb") as file:
        async with connected_pipes(stdin=file, stdout=NULL) as (receiver, sender):
            receiver.write(b"thanks", end=True)
            assert (await sender.end(), await receiver.end()) == (0, 0)
    assert receiver.output == data
    (done,) = sender.events("done")
    assert (done["sent"], done["received"]) == (len(data), 6)
    assert [event["type"] for event in receiver.events()][:2] == ["topic", "listening"]
    assert receiver.events("path")[0]["place"] == "this machine"


async def test_two_pairs_find_each_other_by_topic_over_multicast() -> None:
    options = ("--interface", HOST, "--multicast-port", str(free_udp_port()), "--json")
    async with (
        covey("pipe", "apples", *options, stdin=PIPE) as apples,
        covey("pipe", "pears", *options, stdin=PIPE) as pears,
        covey("pipe", "apples", *options, stdin=NULL) as for_apples,
        covey("pipe", "pears", *options, stdin=NULL) as for_pears,
    ):
        apples.write(b"apples", end=True)
        pears.write(b"pears", end=True)
        every = (apples, pears, for_apples, for_pears)
        assert [await each.end() for each in every] == [0, 0, 0, 0]
        assert (for_apples.output, for_pears.output) == (b"apples", b"pears")
        assert for_apples.events("peer")[0]["peer"]["source"] == "dns"


async def test_a_topic_is_made_and_the_line_for_the_other_side_is_told() -> None:
    async with covey("pipe", *LOCAL, stdin=PIPE) as process:
        line = (await process.until_said("covey pipe ")).strip()
        topic = line.removeprefix("covey pipe ")
        assert [len(part) for part in topic.split("-")] == [4, 4, 4, 4]
        assert set(topic) <= {*ALPHABET, "-"}
        await process.until_said("waiting for the other side to name this one with --peer")


def test_made_topics_differ() -> None:
    assert len({new_topic() for _ in range(100)}) == 100


async def test_nobody_there_is_code_3_with_advice_and_a_sign_of_life() -> None:
    async with covey("pipe", "alone", *LOCAL, "--timeout", "1.2") as process:
        assert await process.end() == 3
        said = "\n".join(process.said)
    assert "still waiting for the other side" in said
    assert "covey: no peer came within 1.2 s" in said
    assert "--peer HOST:PORT" in said
    assert "Traceback" not in said


async def test_another_topic_is_told_as_the_reason() -> None:
    async with covey("pipe", "roses", "--json", *LOCAL, stdin=PIPE) as here:
        peer = f"{HOST}:{await here.port()}"
        async with covey("pipe", "tulips", *LOCAL, "--peer", peer, "--timeout", "1") as there:
            assert await there.end() == 3
            said = "\n".join(there.said)
        assert here.events("refused")[0]["reason"] == "it does not know the topic"
    assert f"last: refused {peer}: it does not know the topic" in said
    assert "compare them letter by letter" in there.said[-1]


async def test_a_killed_peer_is_code_4_after_reconnect_seconds() -> None:
    async with connected_pipes(*QUICK, stdin=PIPE) as (here, there):
        here.write(b"something")
        await there.until_output(b"something")
        there.process.send_signal(signal.SIGKILL)
        assert await here.end() == 4
        assert here.events("lost")
        (failed,) = here.events("failed")
    assert failed["code"] == 4
    assert failed["message"].startswith("the peer was lost and did not return within 0.2 s; sent 9")
    assert "--reconnect" in failed["hint"]


async def killed_pipe(number: signal.Signals) -> tuple[int, int, str]:
    async with connected_pipes(stdin=PIPE) as (here, there):
        here.write(b"something")
        await there.until_output(b"something")
        there.process.send_signal(number)
        codes = await there.end(), await here.end()
        return *codes, "".join(here.said)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_an_interrupted_side_tells_the_other(number: signal.Signals, code: int) -> None:
    here, there, said = await killed_pipe(number)
    assert (here, there) == (code, 4)
    assert "the other side gave up: it was interrupted; sent 9 B" in said


async def test_a_cut_connection_is_resumed() -> None:
    data = random.Random(3).randbytes(12_000_000)
    common = ("pipe", "cut", "--json", *LOCAL)
    async with (
        covey(*common, stdin=NULL) as receiver,
        CuttingProxy(await receiver.port()) as proxy,
        covey(*common, "--peer", f"{HOST}:{proxy.port}", stdin=PIPE) as sender,
    ):
        sender.write(data[:6_000_000])
        await proxy.until_passed(4_000_000)
        proxy.cut(reset=True)
        sender.write(data[6_000_000:], end=True)
        assert (await sender.end(), await receiver.end()) == (0, 0)
        assert len(sender.events("resumed")) == 1
    assert receiver.output == data


async def test_a_reader_that_stops_early_is_told_on_both_sides() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        async with connected_pipes(stdin=NULL, stdout=write_end) as (here, there):
            here.write(b"x" * 100_000)
            assert (await there.end(), await here.end()) == (1, 4)
            assert "cannot write the output: Broken pipe" in "".join(there.said)
            assert "whatever read our output went away" in "".join(there.said)
            assert "gave up: cannot write the output: Broken pipe" in "".join(here.said)
    finally:
        os.close(write_end)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
async def test_a_full_disk_is_told_on_both_sides() -> None:
    with Path("/dev/full").open("wb") as full:  # noqa: ASYNC230 - nothing is read or written here
        async with connected_pipes(stdin=NULL, stdout=full) as (here, there):
            here.write(b"x")
            assert (await there.end(), await here.end()) == (1, 4)
            assert "No space left on device" in "".join(there.said)
            assert "make room" in "".join(there.said)


@pytest.mark.parametrize("number", [0, 1])
async def test_a_stream_closed_at_the_start_does_no_harm(number: int) -> None:
    """Without care a socket gets its number, and the data."""
    async with connected_pipes(stdin=NULL, preexec_fn=lambda: os.close(number)) as (here, there):
        if number == 0:
            here.write(b"hello", end=True)
            assert (await there.end(), await here.end()) == (0, 0)
        else:
            here.write(b"hello")
            assert (await there.end(), await here.end()) == (1, 4)
            assert "cannot write the output: Bad file descriptor" in "".join(there.said)


async def test_one_key_on_both_sides_is_explained(tmp_path: Path) -> None:
    key = ("--key", str(tmp_path / "key"))
    async with covey("pipe", "self", "--json", *LOCAL, *key, stdin=PIPE) as here:
        peer = f"{HOST}:{await here.port()}"
        async with covey("pipe", "self", *LOCAL, *key, "--peer", peer, "--timeout", "1") as there:
            assert await there.end() == 3
            assert f"last: {HOST} proves the very key of this side" in there.said[-2]
            assert "another --key" in there.said[-1]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("x", "--bogus"), 2, "No such option"),
        (("x", "--peer", "nonsense"), 2, "a peer is given as HOST:PORT"),
        (("x", "--peer", "host:70000"), 2, "a peer is given as HOST:PORT"),
        (("x", "--port", "99999"), 2, "not in the range"),
        (("x", "--timeout", "-1"), 2, "not in the range"),
        (("x", "--timeout", "nan"), 2, "'nan' is not a number of seconds"),
        (("x", "--reconnect", "inf"), 2, "'inf' is not a number of seconds"),
        (("\udcff",), 2, "is no valid UTF-8"),
        (("x", "--peer", "\udcff:5"), 2, "is no valid UTF-8"),
        (("x", "--host", "\udcff"), 2, "is no valid UTF-8"),
        (("x", "--interface", "\udcff"), 2, "is no valid UTF-8"),
        (("", *LOCAL), 2, "a topic needs at least one character"),
        (("x", "--host", "192.0.2.123", "--no-multicast"), 1, "--host is an address of this"),
        (("x", "--interface", "nowhere0"), 1, "no network interface nowhere0"),
    ],
)
def test_errors_say_what_and_what_to_do(arguments: tuple[str, ...], code: int, said: str) -> None:
    done = run_covey("pipe", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_missing_interface_is_told_and_named_peers_are_tried_all_the_same() -> None:
    async with covey("pipe", "x", "--json", *LOCAL, stdin=NULL) as here:
        options = (
            "--host",
            HOST,
            "--interface",
            "nowhere0",
            "--peer",
            f"{HOST}:{await here.port()}",
        )
        async with covey("pipe", "x", "--json", *options, stdin=NULL) as there:
            assert (await there.end(), await here.end()) == (0, 0)
            (event,) = there.events("discovery-failed")
    assert "no network interface nowhere0" in event["error"]


async def test_words_tell_each_step_from_the_candidate_to_the_open_channel() -> None:
    async with covey("pipe", "steps", "--json", *LOCAL, stdin=NULL) as here:
        peer = f"{HOST}:{await here.port()}"
        async with covey("pipe", "steps", *LOCAL, "--peer", peer, stdin=NULL) as there:
            assert (await there.end(), await here.end()) == (0, 0)
        assert here.events("channel-open")[0]["channel"] == "covey/pipe"
    said = "\n".join(there.said)
    steps = (f"connecting to {peer}", "noise with key", "channel 'covey/pipe' is open", "proved")
    places = [said.index(step) for step in (f"staged net:{peer}", *steps)]
    assert places == sorted(places)


async def test_each_second_of_a_wait_has_a_sign_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    async for _ in progress.ticks():
        if len(slept) == 100:
            break
    assert set(slept) == {1.0}


async def test_quiet_has_no_sign_of_life() -> None:
    async with covey("pipe", "x", "--json", *LOCAL, "--timeout", "1.2", "--quiet") as process:
        assert await process.end() == 3
        assert process.events("progress") == []


def test_a_port_in_use_is_explained() -> None:
    with socket.create_server((HOST, 0)) as taken:
        done = run_covey("pipe", "x", *LOCAL, "--port", str(taken.getsockname()[1]))
    assert done.returncode == 1
    assert "Address already in use" in done.stderr
    assert "choose another --port" in done.stderr


def test_a_key_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    key = tmp_path / "key"
    assert run_covey("id", "--key", str(key)).returncode == 0
    key.chmod(0o644)
    done = run_covey("pipe", "x", *LOCAL, "--key", str(key))
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


async def test_every_line_of_json_parses_and_names_its_type() -> None:
    async with connected_pipes(stdin=NULL) as (here, there):
        here.write(b"x", end=True)
        assert (await there.end(), await here.end()) == (0, 0)
        for process in (here, there):
            for line in filter(None, process.said):
                record = json.loads(line)
                assert isinstance(record["type"], str)
                assert record["seconds"] >= 0
            assert "done" in {event["type"] for event in process.events()}


async def test_a_peer_that_is_not_there_yet_is_tried_again() -> None:
    with socket.create_server((HOST, 0)) as place:
        port = place.getsockname()[1]
    peer = ("--peer", f"{HOST}:{port}")
    async with covey("pipe", "late", *LOCAL, *peer, stdin=NULL) as early:
        await early.until_said("no connection to")
        async with covey("pipe", "late", *LOCAL, "--port", str(port), stdin=NULL) as late:
            assert (await early.end(), await late.end()) == (0, 0)


async def test_the_events_of_a_pipe_go_up_to_the_close_of_its_flock() -> None:
    async with connected_pipes(stdin=NULL) as (here, there):
        here.write(b"x", end=True)
        assert (await there.end(), await here.end()) == (0, 0)
        for process in (here, there):
            assert [event["type"] for event in process.events()][-2:] == ["close", "done"]


async def test_a_terminated_pipe_says_so_last() -> None:
    async with covey("pipe", "x", "--json", *LOCAL) as process:
        await process.port()
        process.process.send_signal(signal.SIGTERM)
        assert await process.end() == 143
        last = process.events()[-1]
        assert (last["type"], last["code"], last["message"]) == ("failed", 143, "terminated")
