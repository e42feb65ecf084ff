"""How what a wakeup began comes to its end: handlers that take long, are cancelled, or close it."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from typing import Any

import pytest

from covey.errors import CoveyError, EncodeError, UsageError
from covey.limits import Limits
from covey.wakeup import (
    TopicCollected,
    Wakeup,
    WakeupFailed,
    WakeupHandlers,
    WakeupSession,
)
from tests.test_wakeup_hostile import ANNOUNCE, INFO, LOOKUP, REJECT, TOPIC, Remote
from tests.wakeup_sides import CAPABILITY, KEY, OTHER, Recorder
from tests.wakeup_streams import recorded_stream, settle

SHORT = Limits(close_timeout=0.02)


def handlers(where: str, handler: Any, **options: Any) -> WakeupHandlers:
    """Handlers of which one is `handler`."""
    return WakeupHandlers(**{where: handler}, **options)


def cancelled_future() -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()
    return future


# A member that comes and goes


@pytest.mark.parametrize("where", ["on_peer_add", "on_peer_inactive", "on_peer_remove"])
async def test_a_member_that_comes_and_goes_runs_no_more_handlers_than_it_may_have_channels(
    where: str,
) -> None:
    running = most = 0
    gate = asyncio.Event()

    async def slow(*_: object) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1

    limits = Limits(max_channels=10)
    async with Wakeup(limits=limits) as wakeup:
        session = wakeup.session(CAPABILITY, handlers(where, slow, active=False))
        remote = Remote(wakeup, limits)
        for _ in range(100):
            channel = remote.open()
            await settle(4)
            remote.close(channel)
        await settle()
        assert most == running == len(wakeup._calls) == 10
        assert remote.answers(REJECT) == 90
        assert not remote.stream.closed
        gate.set()
        await settle()
        assert running == len(wakeup._calls) == 0
        remote.open()
        await settle()
        assert len(session.peers) == 1


async def test_handlers_that_have_no_time_left_are_warned_of_once_per_stream(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = 0
    all_ended = asyncio.Event()

    async def forever(*_: object) -> None:
        nonlocal ended
        try:
            await asyncio.Event().wait()
        finally:
            ended += 1
            if ended == 10:
                all_ended.set()

    async with Wakeup(limits=SHORT) as wakeup:
        wakeup.session(CAPABILITY, handlers("on_peer_remove", forever, active=False))
        remotes = [Remote(wakeup, SHORT) for _ in range(2)]
        for _ in range(5):
            channels = [remote.open() for remote in remotes]
            await settle(4)
            for remote, channel in zip(remotes, channels, strict=True):
                remote.close(channel)
        async with asyncio.timeout(5):
            await all_ended.wait()
        await settle()
    warned = [record for record in caplog.records if "its peer is gone" in record.getMessage()]
    assert [record.levelno for record in warned].count(logging.WARNING) == 2


# The end waits so long


@pytest.mark.parametrize("where", ["on_lookup", "on_peer_remove", "on_destroy", "on_wakeup"])
async def test_the_end_comes_although_a_handler_does_not_let_itself_be_cancelled(
    where: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("wakeup", "net.ordered_calls"):
        monkeypatch.setattr(f"covey.{module}.GRACE", 0.02)
    gate = asyncio.Event()

    async def stubborn(*_: object) -> None:
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                continue

    of_session = where != "on_wakeup"
    wakeup = Wakeup(None if of_session else stubborn, limits=SHORT)
    wakeup.session(CAPABILITY, handlers(where, stubborn) if of_session else None)
    remote = Remote(wakeup, SHORT)
    remote.say(remote.open(), 0, LOOKUP)
    remote.open(OTHER)
    await settle()
    async with asyncio.timeout(5):
        await wakeup.close()
    assert "does not end when cancelled" in caplog.text
    gate.set()
    await settle()


async def test_an_on_destroy_that_takes_too_long_is_not_told_as_that_of_a_peer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def forever(_session: WakeupSession) -> None:
        await asyncio.Event().wait()

    async with Wakeup(limits=SHORT) as wakeup:
        wakeup.session(CAPABILITY, WakeupHandlers(on_destroy=forever))
    assert "on_destroy was cancelled: it took too long" in caplog.text
    assert "peer is gone" not in caplog.text


@pytest.mark.parametrize("where", ["on_lookup", "on_wakeup"])
async def test_a_coroutine_that_destroys_the_wakeup_runs_on(where: str) -> None:
    told: list[str] = []

    async def destroy(*_: object) -> None:
        wakeup.destroy()
        await asyncio.sleep(0)
        told.append("runs on")

    wakeup = Wakeup(destroy if where == "on_wakeup" else None)
    async with wakeup:
        if where == "on_lookup":
            wakeup.session(CAPABILITY, WakeupHandlers(on_lookup=destroy))
        remote = Remote(wakeup)
        remote.say(remote.open(), 0, LOOKUP)
        await settle()
        assert told == ["runs on"]
        assert len(wakeup._answers) == len(wakeup._calls) == 0


async def test_an_on_wakeup_that_waits_for_its_turn_is_not_run_after_the_end() -> None:
    gate = asyncio.Event()
    begun: list[bytes] = []

    async def on_wakeup(key: bytes, _stream: object) -> None:
        begun.append(key)
        await gate.wait()

    wakeup = Wakeup(on_wakeup, limits=Limits(wakeup_callbacks=1))
    remote = Remote(wakeup)
    remote.open(KEY)
    remote.open(OTHER)
    await settle()
    wakeup.destroy()
    gate.set()
    await wakeup.close()
    assert begun == [KEY]


async def test_a_wakeup_that_is_closed_is_not_kept_by_its_connections() -> None:
    stream, _ = recorded_stream()
    kept = []
    for _ in range(3):
        wakeup = Wakeup()
        wakeup.add_stream(stream.connection)
        session = wakeup.session(CAPABILITY)
        await wakeup.close()
        assert not wakeup.has_stream(stream.connection)
        kept.append(weakref.ref(wakeup))
        del wakeup, session
    await settle()
    gc.collect()
    assert [reference() for reference in kept] == [None, None, None]


# Cancelled, but not by us


WHERE = (
    *("on_peer_add", "on_peer_active", "on_lookup", "on_announce", "on_peer_inactive"),
    *("on_peer_remove",),
)


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
@pytest.mark.parametrize("where", WHERE)
async def test_a_handler_that_lets_out_the_cancellation_of_something_else_has_failed(
    where: str, later: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(*_: object) -> None:
        cancelled_future().result()

    async def coroutine(*_: object) -> None:
        await cancelled_future()

    others = Recorder()
    async with Wakeup() as wakeup:
        events: list[Any] = []
        wakeup.subscribe(events.append)
        wakeup.session(CAPABILITY, others.handlers())
        session = wakeup.session(CAPABILITY, handlers(where, coroutine if later else plain))
        remote = Remote(wakeup)
        channel = remote.open()
        for kind, payload in enumerate((LOOKUP, ANNOUNCE, INFO[False])):
            await settle()
            if not remote.stream.closed:
                remote.say(channel, kind, payload)
        await settle()
        if not remote.stream.closed:
            remote.close(channel)
            await settle()
        assert remote.stream.closed
        [failure] = events
        assert isinstance(failure, WakeupFailed)
        assert (failure.where, failure.session) == (where, session)
        assert isinstance(failure.error, CoveyError)
        assert isinstance(failure.error.__cause__, asyncio.CancelledError)
        assert others.told[0] == ("peer-add",)
        assert others.told[-1] == ("peer-remove",)
        assert len(wakeup._calls) == 0
        assert f"{where} of a wakeup failed" in caplog.text


@pytest.mark.parametrize("later", [False, True], ids=["plain", "coroutine"])
async def test_an_on_wakeup_that_lets_out_the_cancellation_of_something_else_has_failed(
    later: bool,
) -> None:
    async def coroutine(_key: bytes, _stream: object) -> None:
        await cancelled_future()

    async with Wakeup(
        coroutine if later else lambda _key, _stream: cancelled_future().result()
    ) as wakeup:
        events: list[Any] = []
        wakeup.subscribe(events.append)
        remote, quiet = Remote(wakeup), Remote(wakeup)
        remote.open(OTHER)
        await settle()
        [failure] = events
        assert (failure.where, failure.stream) == ("on_wakeup", remote.stream)
        assert remote.stream.closed
        assert not quiet.stream.closed


# Collection


async def test_a_session_made_while_topics_are_collected_keeps_its_topic() -> None:
    told: list[WakeupSession] = []
    made: list[WakeupSession] = []
    async with Wakeup() as wakeup:

        def collected(event: object) -> None:
            assert isinstance(event, TopicCollected)
            if not made:
                other = OTHER if event.topic == TOPIC else CAPABILITY
                made.append(wakeup.session(other, WakeupHandlers(on_destroy=told.append)))

        wakeup.subscribe(collected)
        for capability in (CAPABILITY, OTHER):
            wakeup.session(capability).destroy()
        for _ in range(5):
            wakeup._machine.gc_step()
        assert not made[0].destroyed
        assert told == []
        assert list(wakeup.topics) == [made[0].topic.id]


# What is no input


@pytest.mark.parametrize("capability", [5, None, "x" * 32, [1] * 32])
@pytest.mark.parametrize("key", [None, KEY])
async def test_a_capability_that_is_no_bytes_is_refused(capability: Any, key: Any) -> None:
    async with Wakeup() as wakeup:
        with pytest.raises(TypeError, match="a capability is bytes"):
            wakeup.session(capability, WakeupHandlers(discovery_key=key))
        assert not wakeup.topics


async def test_a_capability_that_everybody_knows_is_refused() -> None:
    async with Wakeup() as wakeup:
        with pytest.raises(UsageError, match="secret"):
            wakeup.session(b"", WakeupHandlers(discovery_key=KEY))
        assert not wakeup.topics


@pytest.mark.parametrize("key", [5, "x" * 32, [1] * 32])
def test_a_discovery_key_that_is_no_bytes_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="a discovery_key is bytes"):
        WakeupHandlers(discovery_key=key)


async def test_handlers_that_are_none_are_refused() -> None:
    given: Any = {"active": True}
    async with Wakeup() as wakeup:
        with pytest.raises(TypeError, match="WakeupHandlers, not dict"):
            wakeup.session(CAPABILITY, given)


@pytest.mark.parametrize("hash", [b"short", bytes(33), "x" * 32, 5])
async def test_a_hash_of_another_size_is_refused_also_where_nobody_is_asked(hash: Any) -> None:  # noqa: A002
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY)
        stream, _ = recorded_stream()
        with pytest.raises(EncodeError):
            session.broadcast_lookup(hash)
        with pytest.raises(EncodeError):
            session.lookup_by_stream(stream, hash)
        wakeup.add_stream(stream.connection)
        [peer] = session.topic.pending_peers
        with pytest.raises(EncodeError):
            session.lookup(peer, hash)
        assert wakeup.stats.wire_lookup_tx == 0


async def test_what_is_no_peer_and_no_stream_is_refused() -> None:
    nothing: Any = None
    async with Wakeup() as wakeup:
        session = wakeup.session(CAPABILITY)
        with pytest.raises(TypeError, match="a peer is wanted"):
            session.lookup(nothing)
        with pytest.raises(TypeError, match="a peer is wanted"):
            session.announce(nothing, [])
        for add in (wakeup.add_stream, session.add_stream):
            with pytest.raises(TypeError, match="a connection is wanted"):
                add(nothing)
        assert not wakeup.has_stream(nothing)
