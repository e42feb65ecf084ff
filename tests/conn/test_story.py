from __future__ import annotations

import asyncio
import gc
import itertools
import tracemalloc
import weakref
from typing import Any

import pytest

from covey.address import Address
from covey.conn.advice import advice_for
from covey.conn.hub import Hub
from covey.conn.story import MAX_TEXT, STRANGER_LINES, Failure, History
from covey.errors import (
    ConnectError,
    ConnectionAborted,
    ConnectTimeout,
    HandshakeError,
    HandshakeTimeout,
    Refused,
    SelfConnection,
)
from covey.limits import Limits
from tests.conn.scripted import ScriptedDialler, ScriptedLink, turns

KEY = bytes([7]) * 32


def history(**limits: Any) -> History:
    ticks = itertools.count(1_700_000_000_000, 1500)
    return History(wall_clock=lambda: next(ticks), limits=Limits(**limits))


def test_a_story_reads_in_order_with_times_and_advice() -> None:
    told = history()
    told.tell("net:h:1~noise", "found", "found on the LAN", source="lan")
    error = ConnectError("refused", code="ECONNREFUSED")
    told.tell("net:h:1~noise", "dial-failed", "failed", reason="ECONNREFUSED", error=error)
    story = told.story(Address.parse("net:h:1~noise"), next_step="try again in 5 s")
    assert [line.step for line in story.lines] == ["found", "dial-failed"]
    assert story.lines[0].fields["source"] == "lan"
    assert story.lines[1].reason == "ECONNREFUSED"
    assert str(story).splitlines() == [
        "net:h:1~noise: not connected",
        "  22:13:20.000 found on the LAN",
        "  22:13:21.500 failed",
        "  next: try again in 5 s",
        "  you can: start the other side, or correct the port: its host runs, nothing listens",
    ]


def test_asked_by_key_the_addresses_are_told_together_in_order() -> None:
    told = history()
    told.tell("net:a:1~noise", "dialling", "one", key=KEY)
    told.tell("net:b:1~noise", "dialling", "two", key=KEY)
    told.tell(KEY, "banned", "three")
    told.tell("net:a:1~noise", "connected", "four")
    told.tell("net:c:1~noise", "dialling", "of another", key=bytes(32))
    story = told.story(KEY)
    assert [line.text for line in story.lines] == ["one", "two", "three", "four"]
    assert story.addresses == ("net:a:1~noise", "net:b:1~noise")
    assert story.key == KEY
    assert told.story("net:b:1~noise").key == KEY


def test_nothing_is_known_of_a_stranger() -> None:
    story = history().story("net:h:1~noise")
    assert (story.lines, story.key, story.advice) == ((), None, None)
    assert "nothing is known" in str(story)


def test_lines_per_peer_are_bounded_and_the_rest_is_counted() -> None:
    told = history(history=3)
    for number in range(10):
        told.tell("aa", "step", f"line {number}")
    story = told.story("aa")
    assert [line.text for line in story.lines] == ["line 7", "line 8", "line 9"]
    assert story.forgotten == 7
    assert "7 earlier lines" in str(story)


def test_a_crowd_of_strangers_does_not_wash_out_the_peers_we_chose() -> None:
    told = history(max_stories=10)
    told.tell("mine", "dialling", "dialling", key=KEY)
    for number in range(1000):
        key = number.to_bytes(32, "big")
        told.tell(f"stranger{number}", "connected", "came", key=key, stranger=True)
    assert len(told) == 11
    assert len(told._by_key) == 11
    assert told.story("mine").lines
    for number in range(20):
        told.tell(f"chosen{number}", "dialling", "dialling")
    assert len(told) == 20
    assert not told.story("mine").lines
    assert not told.story(KEY).lines


def test_a_stranger_that_we_dial_is_one_of_ours() -> None:
    told = history(max_stories=2)
    told.tell("aa", "connected", "came", stranger=True)
    told.tell("aa", "dialling", "ours now")
    for number in range(5):
        told.tell(f"bb{number}", "connected", "came", stranger=True)
    assert [line.text for line in told.story("aa").lines] == ["came", "ours now"]


@pytest.mark.parametrize(
    ("error", "part"),
    [
        (ConnectError("x", code="ECONNREFUSED"), "port"),
        (ConnectError("x", code="ENETUNREACH"), "network"),
        (ConnectTimeout("x", code="ETIMEDOUT"), "firewall"),
        (HandshakeTimeout("x"), "another program"),
        (HandshakeError("x"), "check the key"),
        (SelfConnection("x"), "your own"),
        (Refused("x", reason="max_per_ip"), "raise the limit"),
    ],
)
def test_each_kind_of_failure_has_its_advice(error: Exception, part: str) -> None:
    assert part in (advice_for(error) or "")


def test_what_the_user_did_needs_no_advice() -> None:
    assert advice_for(ConnectionAborted("x")) is None
    assert advice_for(ValueError("x")) is None


async def test_the_hub_tells_every_failure_refusal_drop_and_close() -> None:
    dialler = ScriptedDialler()
    hub: Any = Hub(dialler=dialler, limits=Limits(max_per_key=1))
    address = Address.net("10.1.0.1", 8008, key=KEY)

    async def attempt() -> Any:
        call = asyncio.create_task(hub.connect(address))
        await turns()
        return call

    call = await attempt()
    dialler.fail(ConnectError("refused", code="ECONNREFUSED"))
    await asyncio.gather(call, return_exceptions=True)
    call = await attempt()
    assert hub.explain(address).state == "connecting"
    await hub.disconnect(address, "changed my mind")
    await asyncio.gather(call, return_exceptions=True)
    call = await attempt()
    link = dialler.succeed()
    await call
    story = hub.explain(address)
    assert (story.state, story.advice) == ("connected", None)
    second = ScriptedLink(Address.net("10.9.9.9", 5, key=KEY), initiator=False)
    assert hub.accept(second) is False
    link.end()
    steps = [line.step for line in hub.explain(address).lines]
    assert steps == [
        "dialling",
        "dial-failed",
        "dialling",
        "aborted",
        "dialling",
        "connected",
        "disconnected",
    ]
    by_key = hub.explain(KEY)
    assert [line.reason for line in by_key.lines if line.reason] == [
        "ECONNREFUSED",
        "changed my mind",
        "max_per_key",
        "remote-end",
    ]
    assert "refused: 1 connections to this key exist (max_per_key)" in str(by_key)
    await hub.close()


def test_an_error_is_remembered_by_what_it_said_and_not_kept_alive() -> None:
    class Session:
        pass

    def fail(session: Session) -> None:
        raise ConnectError(f"refused {type(session)}", code="ECONNREFUSED")

    def tell(told: History) -> weakref.ref[Session]:
        session = Session()
        with pytest.raises(ConnectError) as caught:
            fail(session)
        told.tell("aa", "failed", "refused", error=caught.value)
        assert told.has_told("aa", caught.value)
        assert not told.has_told("aa", ConnectError(str(caught.value), code="ECONNREFUSED"))
        return weakref.ref(session)

    told = history()
    session = tell(told)
    gc.collect()
    assert session() is None
    story = told.story("aa")
    remembered = story.lines[0].fields["error"]
    assert remembered == Failure("ConnectError", f"refused {Session}", "ECONNREFUSED")
    assert "port" in (story.advice or "")


def test_a_line_about_no_error_has_no_such_field() -> None:
    told = history()
    told.tell("aa", "found", "found on the LAN", source="lan")
    assert dict(told.story("aa").lines[0].fields) == {"source": "lan"}


def test_a_built_in_error_is_told_once_as_well() -> None:
    told = history()
    error = OSError("no")
    told.tell("aa", "failed", "no", error=error)
    assert told.has_told("aa", error)
    assert not told.has_told("aa", OSError("else"))


def test_of_a_stranger_a_few_lines_are_kept_and_of_the_same_chosen_peer_all() -> None:
    told = history()
    for number in range(100):
        told.tell("aa", "refused", f"line {number}", stranger=True)
    story = told.story("aa")
    assert (len(story.lines), story.forgotten) == (STRANGER_LINES, 100 - STRANGER_LINES)
    for number in range(40):
        told.tell("aa", "dialling", f"ours {number}")
    assert len(told.story("aa").lines) == STRANGER_LINES + 40


def test_the_bytes_of_a_line_are_bounded_whatever_the_error_says() -> None:
    told = history()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for peer in range(100):
            for number in range(STRANGER_LINES):
                error = HandshakeError(f"{number}" + "x" * 100_000)
                told.tell(f"aa{peer}", "failed", str(error), error=error, stranger=True)
        del error
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert grown < 100 * STRANGER_LINES * (2 * MAX_TEXT + 1500)
