"""The harness itself: events are found, a silent program is told, no process outlives its test."""

from __future__ import annotations

import asyncio
import os

import pytest

from tests.interop import harness
from tests.interop.harness import NodePeer

pytestmark = pytest.mark.interop


async def test_a_server_tells_its_port_and_key() -> None:
    async with NodePeer("secret-stream-echo.cjs", "--listen", 0, "--seed", "11" * 32) as peer:
        listening = await peer.event("listening")
        assert peer.port == listening["port"] > 0
        assert peer.public_key.hex() == listening["publicKey"]


async def test_two_node_programs_talk_and_end_by_themselves() -> None:
    async with NodePeer("secret-stream-echo.cjs", "--listen", 0) as server:
        await server.event("listening")
        client = NodePeer(
            "secret-stream-echo.cjs", "--connect", server.port, "--send", "hi", "--end-after", 1
        )
        async with client:
            assert (await client.event("message"))["data"] == "hi"
            assert await client.exit_code() == 0
        assert await server.exit_code() == 0


async def test_events_are_matched_by_their_fields_and_handed_out_once() -> None:
    peer = NodePeer("protomux-echo.cjs")
    peer.events = [{"event": "message", "value": [n]} for n in range(3)]
    peer._unread = list(peer.events)
    peer._ended = True
    assert (await peer.event("message", value=[1]))["value"] == [1]
    assert (await peer.event("message"))["value"] == [0]
    assert (await peer.event("message"))["value"] == [2]
    assert len(peer.named("message")) == 3
    with pytest.raises(AssertionError, match="ended without event"):
        await peer.event("message")


async def test_a_missing_event_is_reported_with_what_the_program_said() -> None:
    async with NodePeer("protomux-echo.cjs", "--listen", 0) as peer:
        await peer.event("listening")
        with pytest.raises(AssertionError, match=r"no event .*nothing-like-it(?s:.*)publicKey"):
            await peer.event("nothing-like-it", timeout=0.05)


async def test_stderr_of_a_program_that_fails_is_in_the_message() -> None:
    async with NodePeer("protomux-echo.cjs", "--bogus", lifetime=None) as peer:
        with pytest.raises(AssertionError, match="needed"):
            await peer.event("listening")
        assert await peer.exit_code() == 2


async def test_the_process_is_gone_after_the_block() -> None:
    async with NodePeer("protomux-echo.cjs", "--listen", 0) as peer:
        await peer.event("listening")
        pid = peer.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint(
        {"node.stdout", "node.stderr"}
    )


@pytest.mark.parametrize(("value", "expected"), [("", False), ("false", False), ("true", True)])
def test_the_ci_variable_decides_whether_missing_node_fails(
    monkeypatch: pytest.MonkeyPatch, value: str, expected: bool
) -> None:
    monkeypatch.setenv("CI", value)
    assert harness.in_ci() is expected
