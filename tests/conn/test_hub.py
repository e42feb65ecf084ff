from __future__ import annotations

import asyncio
import gc
import itertools
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from covey.address import Address
from covey.conn import hub_machine
from covey.conn.hub import Hub
from covey.conn.hub_entry import OTHER_TIMEOUT, TYPE_TIMEOUTS
from covey.conn.hub_events import (
    Connected,
    ConnectingFailed,
    Disconnected,
    DisconnectingFailed,
    HubEvent,
)
from covey.conn.sessions import keep_smaller_dialler
from covey.errors import (
    AddressError,
    ClosedError,
    ConnectError,
    ConnectionAborted,
    ConnectTimeout,
    HubClosed,
    Refused,
    SelfConnection,
    UsageError,
)
from covey.events import Lagged
from covey.keys import KeyPair
from covey.limits import Limits
from covey.net.close_reason import CloseReason
from tests.conn.scripted import ScriptedDialler, ScriptedLink, turns

OWN = KeyPair.from_seed(bytes([50]) * 32)


def peer(number: int, key: bytes | None = None) -> Address:
    return Address.net(f"10.1.0.{number}", 8008, "noise", key or bytes([number]) * 32)


def incoming(number: int, *, host: str = "10.9.9.9", port: int = 50_000) -> ScriptedLink:
    address = Address.net(host, port, "noise", bytes([number]) * 32)
    return ScriptedLink(address, initiator=False)


class Play:
    """A hub over a scripted dialler, with its events and live views written down."""

    def __init__(self, **options: Any) -> None:
        self.dialler: Any = options.pop("dialler", None) or ScriptedDialler()
        self.hub: Any = Hub(dialler=self.dialler, **{"key_pair": OWN, **options})
        self.events: list[HubEvent] = []
        self.hub.subscribe(self.events.append)

    @property
    def told(self) -> list[str]:
        return [event.type for event in self.events]

    async def start(self, address: Address, data: dict[str, Any] | None = None) -> Any:
        """A call of `connect` whose dial has reached the dialler."""
        call = asyncio.create_task(self.hub.connect(address, data))
        await turns()
        return call

    async def connected(self, address: Address) -> ScriptedLink:
        call = await self.start(address)
        link: Any = self.dialler.succeed(address)
        assert await call is link
        assert isinstance(link, ScriptedLink)
        return link

    async def failing(self, call: Any) -> Exception:
        async with asyncio.timeout(5):
            results: Any = await asyncio.gather(call, return_exceptions=True)
        error = results[0]
        assert isinstance(error, Exception)
        return error


@pytest.fixture(autouse=True)
async def nothing_is_left() -> Any:
    yield
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Upstream scenarios (section 7); those with a real socket are in test_hub_net.py


async def test_upstream_update_inside_the_connecting_event() -> None:
    play = Play()
    seen: list[Any] = []

    def listener(event: HubEvent) -> None:
        if event.type == "connecting":
            [(address, before)] = play.hub.entries()
            answer = play.hub.update(address, {"foo": 123})
            [(_, after)] = play.hub.entries()
            seen.append(("foo" in before, answer, after["foo"]))

    play.hub.subscribe(listener)
    await play.connected(peer(1))
    assert seen == [(False, True, 123)]
    assert dict(play.hub.entries())[str(peer(1))]["foo"] == 123
    await play.hub.close()


async def test_upstream_update_of_an_unknown_address() -> None:
    play = Play()
    assert play.hub.update(str(peer(1)), {"foo": 123}) is False
    assert play.events == []
    await play.hub.close()


async def test_upstream_live_view_of_a_failed_connect() -> None:
    play = Play()
    live = play.hub.live_entries()
    assert await anext(live) == ()
    call = await play.start(peer(1))
    [(address, data)] = await anext(live)
    assert (address, data["state"]) == (str(peer(1)), "connecting")
    play.dialler.fail(ConnectError("no"))
    assert await anext(live) == ()
    await play.failing(call)
    await play.hub.close()
    assert [snapshot async for snapshot in live] == []


async def test_upstream_disconnect_without_connection() -> None:
    play = Play()
    assert await play.hub.disconnect(peer(1)) is False
    assert play.events == []
    await play.hub.close()


async def test_upstream_after_close_every_method_says_so_and_close_is_silent() -> None:
    play = Play()
    await play.hub.close()
    await play.hub.close()
    await play.hub.reset()
    address = str(peer(1))
    calls: list[Any] = [
        play.hub.entries,
        play.hub.live_entries,
        play.hub.listen,
        lambda: play.hub.subscribe(print),
        lambda: play.hub.get_state(address),
        lambda: play.hub.update("nonsense~", {}),
        lambda: play.hub.accept(incoming(1)),
        lambda: play.hub.explain(address),
    ]
    for call in calls:
        with pytest.raises(ClosedError, match="This ConnHub instance is closed, create a new one"):
            call()
    for waiting in (
        play.hub.connect(address),
        play.hub.disconnect("nonsense~"),
        play.hub.listen_on(),
        play.hub.disconnect_session(object()),
    ):
        with pytest.raises(HubClosed, match="This ConnHub instance is closed"):
            await waiting


# Addresses and data


async def test_wrong_addresses_are_told_by_the_call_and_change_nothing() -> None:
    play = Play()
    text = "The given address is not a valid multiserver-address"
    with pytest.raises(AddressError, match=text):
        await play.hub.connect("net:h:1~")
    with pytest.raises(AddressError, match=text):
        await play.hub.disconnect("x")
    with pytest.raises(AddressError, match=text):
        play.hub.get_state("")
    with pytest.raises(AddressError, match=text):
        play.hub.update("NET:h:1", {})
    wrong: Any = 5
    with pytest.raises(TypeError):
        await play.hub.connect(wrong)
    assert play.events == []
    await play.hub.close()


async def test_an_unsupported_transform_is_refused_before_any_change() -> None:
    play = Play()
    with pytest.raises(AddressError, match=r"unsupported transform.*gzip"):
        await play.hub.connect("net:10.1.0.1:8008~noise~gzip")
    assert (play.events, play.dialler.dialled) == ([], [])
    await play.hub.close()


async def test_fields_of_an_entry_over_its_life() -> None:
    now = itertools.count(1000)
    play = Play(wall_clock=lambda: next(now))
    caller = {"note": "x", "state": "bogus", "key": b"bogus", "hub_birth": 1, "inferred_type": "y"}
    call = await play.start(peer(1), caller)
    [(address, data)] = play.hub.entries()
    key = peer(1).key
    birth = data["hub_birth"]
    assert dict(data) == {
        "note": "x",
        "state": "connecting",
        "key": key,
        "hub_birth": birth,
        "hub_updated": birth,
    }
    play.dialler.succeed()
    await call
    [(_, data)] = play.hub.entries()
    assert (data["state"], data["inferred_type"], data["key"]) == ("connected", "lan", key)
    assert (data["hub_birth"], data["note"]) == (birth, "x")
    assert data["hub_updated"] > birth
    with pytest.raises(TypeError):
        data["note"] = 1
    assert play.hub.get_state(address) == "connected"
    await play.hub.close()


async def test_a_type_told_by_the_caller_is_not_inferred_and_live_sockets_count() -> None:
    play = Play()
    call = await play.start(peer(1), {"type": "room"})
    play.dialler.succeed()
    await call
    far = Address.parse("net:example.com:8008~noise")
    call = await play.start(far)
    play.dialler.succeed(far, host="192.168.1.7", remote_key=bytes(32))
    await call
    data = dict(play.hub.entries())
    assert "inferred_type" not in data[str(peer(1))]
    assert data[str(far)]["inferred_type"] == "lan"
    assert data[str(far)]["key"] == bytes(32)
    await play.hub.close()


@pytest.mark.parametrize("host", ["host.example", "127.0.0.1.example.com", "", "1:2:3"])
async def test_row_12_type_inference_never_raises(host: str) -> None:
    play = Play()
    address = Address.parse(f"net:{host}:8008~noise")
    call = await play.start(address)
    link = ScriptedLink(address, remote_key=bytes(32))
    link.remote_address = (host, 0)
    play.dialler.take()[1].set_result(link)
    assert await call is link
    await play.hub.close()


@pytest.mark.parametrize(
    "field", ["state", "key", "hub_birth", "hub_updated", "inferred_type", "disconnect"]
)
async def test_row_15_update_rejects_reserved_fields(field: str) -> None:
    play = Play()
    await play.connected(peer(1))
    before = play.hub.entries()
    with pytest.raises(UsageError, match=field):
        play.hub.update(peer(1), {field: "bogus", "note": 1})
    assert play.hub.entries() == before
    await play.hub.close()


# Section 5: what the recorded sequences must be with us


async def test_rows_1_and_2_exactly_one_disconnected_and_the_dial_is_cancelled() -> None:
    play = Play()
    call = await play.start(peer(1))
    assert await play.hub.disconnect(peer(1)) is True
    assert isinstance(await play.failing(call), ConnectionAborted)
    await turns()
    assert play.dialler.cancelled == 1
    assert play.told == ["connecting", "disconnecting", "disconnected"]
    assert play.hub.entries() == ()
    await play.hub.close()


async def test_row_3_all_callers_share_the_very_same_failure() -> None:
    play = Play()
    calls = [await play.start(peer(1)) for _ in range(3)]
    error = ConnectError("refused", code="ECONNREFUSED")
    play.dialler.fail(error)
    assert [await play.failing(call) for call in calls] == [error] * 3
    assert len(play.dialler.dialled) == 1
    await play.hub.close()


async def test_a_thousand_concurrent_connects_share_one_dial() -> None:
    play = Play()
    calls = [asyncio.create_task(play.hub.connect(peer(1))) for _ in range(1000)]
    await turns()
    link = play.dialler.succeed()
    assert all([await call is link for call in calls])
    assert play.dialler.dialled == [str(peer(1))]
    assert play.told == ["connecting", "connected"]
    await play.hub.close()


async def test_row_4_no_timer_is_left_after_a_dial(event_loop_timers: Any) -> None:
    play = Play()
    await play.connected(peer(1))
    call = await play.start(peer(2))
    play.dialler.fail(ConnectError("no"))
    await play.failing(call)
    assert event_loop_timers() == []
    await play.hub.close()


@pytest.fixture
async def event_loop_timers() -> Any:
    loop: Any = asyncio.get_running_loop()
    before = list(loop._scheduled)
    return lambda: [
        timer for timer in loop._scheduled if timer not in before and not timer.cancelled()
    ]


async def test_row_5_connect_during_a_disconnect_waits_then_shares_the_new_dial() -> None:
    play = Play()
    link = await play.connected(peer(1))
    link.hold = True
    closing = asyncio.create_task(play.hub.disconnect(peer(1)))
    calls = [await play.start(peer(1)) for _ in range(2)]
    assert play.hub.get_state(peer(1)) == "disconnecting"
    link.closes[0].set_result(None)
    assert await closing is True
    await turns()
    second = play.dialler.succeed()
    assert [await call for call in calls] == [second, second]
    assert play.told[2:] == ["disconnecting", "disconnected", "connecting", "connected"]
    await play.hub.close()


async def test_row_5_connect_during_a_disconnect_that_fails_gets_the_old_session() -> None:
    play = Play()
    link = await play.connected(peer(1))
    link.hold = True
    closing = asyncio.create_task(play.hub.disconnect(peer(1)))
    call = await play.start(peer(1))
    link.closes[0].set_exception(ConnectError("close failed"))
    assert str(await play.failing(closing)) == "close failed"
    assert await call is link
    assert isinstance(play.events[-1], DisconnectingFailed)
    assert play.hub.get_state(peer(1)) == "connected"
    link.hold = False
    await play.hub.close()


async def test_row_5_compatibility_answers_false_and_dials_later() -> None:
    play = Play()
    link = await play.connected(peer(1))
    link.hold = True
    closing = asyncio.create_task(play.hub.disconnect(peer(1)))
    await turns()
    answer: Any = await play.hub.connect_or_false(peer(1))
    assert answer is False
    link.closes[0].set_result(None)
    assert await closing is True
    await turns()
    play.dialler.fail(ConnectError("no"))
    await turns()
    gc.collect()  # an error that nobody fetched would be told now
    assert play.told[2:] == ["disconnecting", "disconnected", "connecting", "connecting-failed"]
    await play.hub.close()


class _NoLink(ScriptedLink):
    """What was enough for an earlier hub."""

    on_remote_end = None  # type: ignore[assignment]


async def test_a_connection_that_is_no_link_is_cut_and_its_callers_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    play = Play()
    call = await play.start(peer(1))
    link = _NoLink(peer(1))
    play.dialler.take()[1].set_result(link)
    async with asyncio.timeout(5):
        error = await play.failing(call)
    assert isinstance(error, ConnectError)
    assert isinstance(error.__cause__, TypeError)
    assert link.close_error is error
    assert play.told == ["connecting", "connecting-failed"]
    assert (play.hub.entries(), play.hub.sessions, play.hub.dialling) == ((), (), 0)
    assert "Traceback" in caplog.text
    await play.hub.close()


async def test_a_tie_break_that_fails_ends_the_dial_and_not_the_other_session() -> None:
    def broken(*_: Any) -> Any:
        raise LookupError("no choice")

    play = Play(tie_break=broken)
    key = bytes([1]) * 32
    kept = incoming(1)
    assert play.hub.accept(kept)
    call = await play.start(peer(1, key))
    link = play.dialler.succeed(peer(1, key))
    async with asyncio.timeout(5):
        error = await play.failing(call)
    assert isinstance(error.__cause__, LookupError)
    assert link.closed
    assert [session.connection for session in play.hub.sessions] == [kept]
    assert play.hub.dialling == 0
    await play.hub.close()


async def test_a_tie_break_that_fails_cuts_what_came_in(caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: Any) -> Any:
        raise LookupError("no choice")

    play = Play(tie_break=broken)
    first, second = incoming(1), incoming(1, port=50_001)
    play.hub._came_in(first)
    play.hub._came_in(second)
    assert (first.closed, second.closed) == (False, True)
    assert "no choice" in caplog.text
    await play.hub.close()


async def test_one_ipv6_network_counts_as_one_host() -> None:
    play = Play(limits=Limits(max_per_ip=2))
    links = [incoming(number, host=f"2001:db8:1:2::{number}") for number in (1, 2, 3)]
    assert [play.hub.accept(link) for link in links] == [True, True, False]
    assert play.hub.admit("2001:db8:1:2:ffff::9", 5) == "max_per_ip"
    assert play.hub.admit("2001:db8:1:3::9", 5) is None
    assert "2001:db8:1:2::/64" in str(links[2].close_error)
    for link in links:
        link.end()
    assert play.hub._machine.sessions._incoming_by_network == {}
    await play.hub.close()


async def test_one_ipv6_network_has_one_story_of_who_was_not_let_in() -> None:
    play = Play(limits=Limits(max_per_ip=0))
    for number in range(1, 500):
        assert play.hub.admit(f"2001:db8:1:2::{number:x}", 5) == "max_per_ip"
    assert len(play.hub.history) == 1
    await play.hub.close()


async def test_dials_to_what_was_found_do_not_wash_out_what_was_named() -> None:
    play = Play(limits=Limits(max_stories=5, max_connections=3))
    named = await play.start(peer(1))
    play.dialler.fail(ConnectError("no", code="ECONNREFUSED"))
    assert await play.failing(named)
    for number in range(2, 40):
        call = await play.start(peer(number), {"source": "dns"})
        if number % 2:
            play.dialler.fail(ConnectError("no"))
            await play.failing(call)
        else:
            play.dialler.succeed()
            await call
            await play.hub.disconnect(peer(number))
    calls = [await play.start(peer(number), {"source": "dns"}) for number in range(50, 70)]
    steps = [line.step for line in play.hub.explain(peer(1)).lines]
    assert steps == ["dialling", "dial-failed"]
    assert len(play.hub.history) == 6
    await play.hub.close()
    await asyncio.gather(*calls, return_exceptions=True)


async def test_a_session_says_when_it_was_opened_in_milliseconds_since_1970() -> None:
    play = Play(wall_clock=lambda: 1_700_000_000_000.0)
    await play.connected(peer(1))
    assert [session.opened_at for session in play.hub.sessions] == [1_700_000_000_000.0]
    await play.hub.disconnect(peer(1))
    ended: Any = play.events[-1].details
    assert ended.seconds < 60
    await play.hub.close()


async def test_no_time_at_all_is_a_timeout_too() -> None:
    play = Play(connect_timeout=30.0)
    call = asyncio.create_task(play.hub.connect(peer(1), timeout=0))
    await turns()
    assert play.dialler.options[0]["timeout"] == 0
    async with asyncio.timeout(5):
        assert isinstance(await play.failing(call), ConnectTimeout)
    await play.hub.close()


@pytest.mark.parametrize(
    ("options", "error", "named"),
    [
        ({"timeout": "3"}, TypeError, "timeout"),
        ({"timeout": True}, TypeError, "timeout"),
        ({"timeout": float("nan")}, UsageError, "timeout"),
        ({"timeout": float("inf")}, UsageError, "timeout"),
        ({"timeout": -1}, UsageError, "timeout"),
        ({"data": 5}, TypeError, "data"),
        ({"data": [("type", "lan")]}, TypeError, "data"),
    ],
)
async def test_what_is_no_time_or_no_data_is_refused_before_there_is_an_entry(
    options: dict[str, Any], error: type[Exception], named: str
) -> None:
    play = Play()
    for call in (play.hub.connect, play.hub.connect_or_false):
        with pytest.raises(error, match=named):
            await call(peer(1), **options)
    await turns()
    assert (play.told, play.dialler.dialled) == ([], [])
    assert (play.hub.get_state(peer(1)), play.hub.dialling) == (None, 0)
    await play.hub.close()


@pytest.mark.parametrize(
    ("seconds", "error"),
    [("x", TypeError), (float("nan"), UsageError), (float("inf"), UsageError), (-1, UsageError)],
)
def test_what_is_no_time_is_refused_when_a_hub_is_made(
    seconds: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="connect_timeout"):
        Hub(dialler=ScriptedDialler(), connect_timeout=seconds)


async def test_data_that_is_no_mapping_cannot_be_written() -> None:
    play = Play()
    with pytest.raises(TypeError, match="data"):
        play.hub.update(peer(1), 5)
    await play.hub.close()


async def test_a_dial_whose_time_the_loop_cannot_take_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def too_late(*_: Any) -> None:
        raise OverflowError("too late for a timer")

    play = Play()
    with monkeypatch.context() as broken:
        broken.setattr(asyncio.get_running_loop(), "call_later", too_late)
        with pytest.raises(OverflowError):
            await play.hub.connect(peer(1), timeout=1e300)
    assert play.told == ["connecting", "connecting-failed"]
    assert (play.hub.get_state(peer(1)), play.hub.dialling) == (None, 0)
    again = await play.start(peer(1))
    play.dialler.succeed()
    await again
    await play.hub.close()


async def test_what_breaks_after_the_session_is_filed_takes_it_out_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any) -> None:
        raise LookupError("no story")

    play = Play()
    monkeypatch.setattr(play.hub._story, "opened", broken)
    call = await play.start(peer(1))
    link = play.dialler.succeed(peer(1))
    async with asyncio.timeout(5):
        assert isinstance((await play.failing(call)).__cause__, LookupError)
    assert link.closed
    assert (play.hub.entries(), play.hub.sessions, play.hub.dialling) == ((), (), 0)
    assert play.hub.get_state(peer(1)) is None
    await play.hub.close()


class _Broken:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def dial(self, address: Address, **options: Any) -> ScriptedLink:
        raise self.error


@pytest.mark.parametrize("error", [TypeError("bad"), KeyError("x"), ConnectError("no")])
async def test_row_6_whatever_the_dialler_raises_is_a_failed_dial(error: Exception) -> None:
    play = Play(dialler=_Broken(error))
    assert await play.failing(play.hub.connect(peer(1))) is error
    assert play.told == ["connecting", "connecting-failed"]
    assert play.events[-1].details is error
    assert play.hub.entries() == ()
    await play.hub.close()


@pytest.mark.parametrize(
    ("error", "logged"), [(KeyError("x"), 1), (ConnectError("no"), 0), (OSError("no"), 0)]
)
async def test_a_bug_in_a_dialler_is_logged_with_its_traceback(
    error: Exception, logged: int, caplog: pytest.LogCaptureFixture
) -> None:
    play = Play(dialler=_Broken(error))
    await play.failing(play.hub.connect(peer(1)))
    await play.hub.close()
    told = [record.exc_info for record in caplog.records if record.levelname == "ERROR"]
    assert [info[1] for info in told if info] == [error] * logged


async def test_a_link_whose_abort_breaks_leaves_no_caller_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(error: Exception) -> None:
        raise LookupError("abort")

    play = Play()
    call = await play.start(peer(1))
    play.dialler.take()[1].set_result(SimpleNamespace(abort=broken, closed=False))
    async with asyncio.timeout(5):
        await play.failing(call)
    await play.hub.close()
    assert "abort" in caplog.text


async def test_a_bug_in_a_closing_is_logged_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    play = Play()
    call = await play.start(peer(1))
    link = play.dialler.succeed()
    await call

    async def broken(reason: object = None) -> None:
        link.end()
        raise LookupError("a bug")

    link.close = broken
    assert await play.hub.disconnect(peer(1)) is True
    assert play.hub.entries() == ()
    await play.hub.close()
    assert "LookupError: a bug" in caplog.text


async def test_row_6_a_dialler_that_cancels_itself_is_a_failed_dial() -> None:
    play = Play(dialler=_Broken(asyncio.CancelledError()))
    assert isinstance(await play.failing(play.hub.connect(peer(1))), ConnectionAborted)
    assert play.told == ["connecting", "connecting-failed"]
    await play.hub.close()


async def test_row_6_a_dialler_that_gives_nonsense_is_a_failed_dial() -> None:
    play = Play()
    call = await play.start(peer(1))
    play.dialler.take()[1].set_result(None)
    assert isinstance((await play.failing(call)).__cause__, AttributeError)
    assert play.told == ["connecting", "connecting-failed"]
    await play.hub.close()


@pytest.mark.parametrize("stubborn", [False, True])
async def test_row_7_a_dialler_that_never_answers_runs_out_of_time(stubborn: bool) -> None:
    play = Play(dialler=ScriptedDialler(stubborn=stubborn), connect_timeout=0.01)
    error = await play.failing(play.hub.connect(peer(1)))
    assert isinstance(error, ConnectTimeout)
    assert error.code == "ETIMEDOUT"
    assert play.told == ["connecting", "connecting-failed"]
    if stubborn:
        await turns()
        assert play.dialler.succeed().closed is False
        await turns()
        assert play.dialler.links[0].closed
    await play.hub.close()


@pytest.mark.parametrize(
    ("text", "told", "seconds"),
    [
        ("net:192.168.1.9:8008~noise", None, TYPE_TIMEOUTS["lan"]),
        ("net:8.8.8.8:8008~noise", None, OTHER_TIMEOUT),
        ("bt:aabbccddeeff~noise", None, TYPE_TIMEOUTS["bt"]),
        ("dht:seed:key~noise", None, TYPE_TIMEOUTS["dht"]),
        ("net:8.8.8.8:8008~noise", "lan", TYPE_TIMEOUTS["lan"]),
        ("net:8.8.8.8:8008~noise", ["odd"], OTHER_TIMEOUT),
    ],
)
async def test_row_7_the_timeout_goes_by_type(text: str, told: Any, seconds: float) -> None:
    play = Play()
    call = await play.start(Address.parse(text), {"type": told} if told else None)
    assert play.dialler.options[0]["timeout"] == seconds
    await play.hub.close()
    assert isinstance(await play.failing(call), HubClosed)


async def test_row_8_a_slow_listener_is_told_and_a_cancelled_one_forgotten() -> None:
    play = Play(limits=Limits(event_backlog=2))
    slow, gone = play.hub.listen(), play.hub.listen()
    gone.close()
    reference = weakref.ref(gone)
    del gone
    gc.collect()
    assert reference() is None
    for _ in range(3):
        (await play.connected(peer(1))).end()
    assert [await anext(slow) for _ in range(3)][2] == Lagged(7)
    await play.hub.close()


async def test_row_9_closing_one_session_never_removes_anothers_entry() -> None:
    play = Play()
    ours = await play.connected(peer(1))
    theirs = incoming(1)
    assert play.hub.accept(theirs) is True
    assert len(play.hub.entries()) == 2
    theirs.end()
    assert [name for name, _ in play.hub.entries()] == [str(peer(1))]
    assert await play.hub.connect(peer(1)) is ours
    await play.hub.close()


async def test_row_9_disconnect_closes_every_session_of_the_address() -> None:
    play = Play()
    links = [await play.connected(peer(1))]
    for _ in range(2):
        links.append(ScriptedLink(peer(1)))
        assert play.hub.accept(links[-1]) is True
    assert len(play.hub.sessions) == 3
    assert await play.hub.disconnect(peer(1)) is True
    assert all(link.closed for link in links)
    assert play.told == ["connecting", "connected", "disconnecting", "disconnected"]
    await play.hub.close()


async def test_row_9_one_session_of_an_address_can_end_alone() -> None:
    play = Play()
    first = await play.connected(peer(1))
    second = ScriptedLink(peer(1))
    play.hub.accept(second)
    assert await play.hub.disconnect_session(first, "bored") is True
    assert (first.closed, second.closed) == (True, False)
    assert await play.hub.connect(peer(1)) is second
    assert play.told == ["connecting", "connected"]
    assert await play.hub.disconnect_session(first) is False
    assert await play.hub.disconnect_session(second, "banned") is True
    last = play.events[-1]
    assert isinstance(last, Disconnected)
    assert (last.details.reason, last.details.connection) == ("banned", second)
    await play.hub.close()


async def test_row_10_duplicates_are_visible() -> None:
    play = Play()
    await play.connected(peer(1))
    play.hub.accept(incoming(1))
    last = play.events[-1]
    assert isinstance(last, Connected)
    assert last.details.duplicates == (play.hub.sessions[0].id,)
    assert {session.key for session in play.hub.sessions} == {peer(1).key}
    assert len(play.hub.sessions) == 2
    await play.hub.close()


def test_row_10_the_tie_break_is_the_same_from_both_ends() -> None:
    small, large = bytes(32), bytes([9]) * 32
    ours: Any = SimpleNamespace(id=1, via="dial")
    theirs: Any = SimpleNamespace(id=2, via="incoming")
    for order in ([ours, theirs], [theirs, ours]):
        assert keep_smaller_dialler(small, large, order) is ours
        assert keep_smaller_dialler(large, small, order) is theirs
    later: Any = SimpleNamespace(id=3, via="external")
    assert keep_smaller_dialler(small, large, [ours, later]) is ours
    assert keep_smaller_dialler(large, small, [ours, later]) is ours


async def test_row_10_the_loser_that_is_open_goes_and_the_loser_that_comes_is_refused() -> None:
    own = OWN.public_key
    smaller, larger = bytes(32), b"\xff" * 32
    assert smaller < own < larger
    play = Play(tie_break=keep_smaller_dialler)
    dialled = await play.connected(peer(1, smaller))
    came = ScriptedLink(Address.net("10.9.9.9", 5, key=smaller), initiator=False)
    assert play.hub.accept(came) is True
    await turns()
    assert (dialled.closed, came.closed) == (True, False)
    assert dialled.close_reason is CloseReason.REDUNDANT
    kept = await play.connected(peer(2, larger))
    came = ScriptedLink(Address.net("10.9.9.9", 6, key=larger), initiator=False)
    assert play.hub.accept(came) is False
    assert (kept.closed, came.closed) == (False, True)
    await play.hub.close()


async def test_row_11_the_own_key_is_refused_before_dialling() -> None:
    play = Play()
    with pytest.raises(SelfConnection):
        await play.hub.connect(peer(1, OWN.public_key))
    assert (play.events, play.dialler.dialled) == ([], [])
    assert "own key" in str(play.hub.explain(peer(1, OWN.public_key)))
    await play.hub.close()


async def test_row_11_the_own_key_behind_an_unkeyed_address_is_a_failed_dial() -> None:
    play = Play()
    address = Address.parse("net:10.1.0.1:1~noise")
    call = await play.start(address)
    link = play.dialler.succeed(remote_key=OWN.public_key)
    assert isinstance(await play.failing(call), SelfConnection)
    assert link.closed
    assert play.told == ["connecting", "connecting-failed"]
    await play.hub.close()


async def test_row_11_an_incoming_session_with_the_own_key_is_closed() -> None:
    play = Play()
    address = Address.net("10.9.9.9", 5, key=OWN.public_key)
    link = ScriptedLink(address, initiator=False)
    assert play.hub.accept(link) is False
    assert isinstance(link.close_error, SelfConnection)
    assert (play.events, play.hub.sessions) == ([], ())
    await play.hub.close()


async def test_row_13_reset_closes_all_sessions_also_two_of_one_key() -> None:
    play = Play()
    links = [await play.connected(peer(1)), incoming(1), incoming(2, port=50_001)]
    for link in links[1:]:
        play.hub.accept(link)
    await play.hub.reset()
    assert all(link.closed for link in links)
    assert play.told[-3:] == ["disconnected"] * 3
    assert "disconnecting" not in play.told
    assert play.hub.entries() == ()
    assert await play.connected(peer(1)) is not links[0]
    await play.hub.close()


async def test_row_14_a_session_that_comes_closed_is_a_failed_dial() -> None:
    play = Play()
    call = await play.start(peer(1))
    link = ScriptedLink(peer(1))
    link.end()
    play.dialler.take()[1].set_result(link)
    assert isinstance(await play.failing(call), ConnectError)
    assert play.told == ["connecting", "connecting-failed"]
    assert play.hub.accept(link) is False
    await play.hub.close()


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(max_incoming=2), "max_incoming"),
        (Limits(max_per_ip=2), "max_per_ip"),
        (Limits(max_connections=2), "max_connections"),
    ],
)
async def test_row_16_incoming_sessions_are_bounded(limits: Limits, reason: str) -> None:
    play = Play(limits=limits)
    links = [incoming(number, port=50_000 + number) for number in range(1, 5)]
    assert [play.hub.accept(link) for link in links] == [True, True, False, False]
    assert isinstance(links[2].close_error, Refused)
    assert links[2].close_error.reason == reason
    assert reason in str(play.hub.explain(links[2].address))
    assert play.hub.admit("10.9.9.9", 5) == reason
    links[0].end()
    assert play.hub.admit("10.9.9.9", 5) is None
    assert play.hub.accept(incoming(9, port=50_009)) is True
    await play.hub.close()
    assert play.hub._machine.sessions._incoming_by_network == {}


async def test_row_16_sessions_of_one_key_are_bounded_in_both_directions() -> None:
    play = Play(limits=Limits(max_per_key=2))
    await play.connected(peer(1))
    assert play.hub.accept(incoming(1)) is True
    assert play.hub.accept(incoming(1, port=50_001)) is False
    with pytest.raises(Refused) as refused:
        await play.hub.connect(Address.net("10.1.0.77", 5, key=peer(1).key))
    assert refused.value.reason == "max_per_key"
    unkeyed = Address.parse("net:10.1.0.1:1~noise")
    call = await play.start(unkeyed)
    link = play.dialler.succeed(remote_key=peer(1).key)
    assert isinstance(await play.failing(call), Refused)
    assert link.closed
    await play.hub.close()


async def test_dials_under_way_count_for_the_bound_of_connections() -> None:
    play = Play(limits=Limits(max_connections=2))
    calls = [await play.start(peer(number)) for number in (1, 2)]
    with pytest.raises(Refused) as refused:
        await play.hub.connect(peer(3))
    assert refused.value.reason == "max_connections"
    assert play.hub.accept(incoming(4)) is False
    assert play.hub.dialling == 2
    await play.hub.close()
    assert [type(await play.failing(call)) for call in calls] == [HubClosed] * 2


async def test_row_17_close_cancels_dials_and_closes_what_comes_too_late() -> None:
    play = Play(dialler=ScriptedDialler(stubborn=True), limits=Limits(close_timeout=5))
    events, live = play.hub.listen(), play.hub.live_entries()
    call = await play.start(peer(1))
    closing = asyncio.create_task(play.hub.close())
    await turns()
    assert isinstance(await play.failing(call), HubClosed)
    late = play.dialler.succeed()
    await closing
    assert late.closed
    assert [event.type async for event in events if not isinstance(event, Lagged)] == [
        "connecting",
        "connecting-failed",
    ]
    assert [snapshot async for snapshot in live][-1] == ()


async def test_row_17_reset_ends_dials_and_waiting_calls_with_that_word() -> None:
    play = Play()
    link = await play.connected(peer(2))
    link.hold = True
    dialling = await play.start(peer(1))
    closing = asyncio.create_task(play.hub.disconnect(peer(2)))
    waiting = await play.start(peer(2))
    resetting = asyncio.create_task(play.hub.reset())
    await turns()
    for call in (dialling, waiting):
        error = await play.failing(call)
        assert isinstance(error, ConnectionAborted)
        assert str(error) == "reset"
    assert await closing is True
    assert play.told[-2:] == ["connecting-failed", "disconnected"] or play.told[-2:] == [
        "disconnected",
        "connecting-failed",
    ]
    for future in link.closes:
        future.set_result(None)
    await resetting
    assert play.told.count("disconnected") == 1
    await play.hub.close()


async def test_close_gives_true_to_those_who_disconnect_and_cuts_what_does_not_close() -> None:
    play = Play(limits=Limits(close_timeout=0.01))
    link = await play.connected(peer(1))
    link.hold = True
    closing = asyncio.create_task(play.hub.disconnect(peer(1)))
    waiting = await play.start(peer(1))
    await play.hub.close()
    assert await closing is True
    assert isinstance(await play.failing(waiting), HubClosed)
    assert link.closed
    assert play.told == ["connecting", "connected", "disconnecting", "disconnected"]


async def test_row_18_sessions_of_others_are_adopted_at_once() -> None:
    play = Play()
    link = ScriptedLink(peer(1))
    assert play.hub.accept(link) is True
    assert play.hub.accept(link) is True
    [event] = play.events
    assert isinstance(event, Connected)
    assert (event.details.via, event.details.is_client) == ("external", True)
    assert event.details.connection.id == link.id
    assert await play.hub.connect(peer(1)) is link
    assert play.dialler.dialled == []
    await play.hub.close()


async def test_an_adopted_session_ends_the_dial_to_the_same_address() -> None:
    play = Play()
    call = await play.start(peer(1))
    link = ScriptedLink(peer(1))
    assert play.hub.accept(link) is True
    assert await call is link
    await turns()
    assert play.dialler.cancelled == 1
    assert play.told == ["connecting", "connected"]
    await play.hub.close()


async def test_a_listener_may_bring_the_session_inside_the_connecting_event() -> None:
    play = Play()
    link = ScriptedLink(peer(1))
    play.hub.subscribe(lambda event: event.type == "connecting" and play.hub.accept(link))
    assert await play.hub.connect(peer(1)) is link
    assert play.dialler.dialled == []
    await play.hub.close()


async def test_a_session_that_comes_during_a_disconnect_is_refused() -> None:
    play = Play()
    link = await play.connected(peer(1))
    link.hold = True
    closing = asyncio.create_task(play.hub.disconnect(peer(1)))
    await turns()
    assert play.hub.accept(ScriptedLink(peer(1))) is False
    link.closes[0].set_result(None)
    assert await closing is True
    await play.hub.close()


async def test_recorded_27_two_nodes_that_dial_each_other_keep_two_entries() -> None:
    play = Play()
    call = await play.start(peer(1))
    play.hub.accept(incoming(1))
    link = play.dialler.succeed()
    assert await call is link
    assert play.told == ["connecting", "connected", "connected"]
    assert len(play.hub.entries()) == 2
    await play.hub.close()


async def test_recorded_23_two_addresses_of_one_key_are_two_entries() -> None:
    play = Play()
    first, second = peer(1), Address.net("10.1.0.2", 8008, key=peer(1).key)
    one, two = await play.connected(first), await play.connected(second)
    assert await play.hub.disconnect(second) is True
    assert (one.closed, two.closed) == (False, True)
    assert [event.address for event in play.events[-2:]] == [str(second)] * 2
    await play.hub.close()


# Callers, listeners, tasks


async def test_a_cancelled_caller_harms_no_other() -> None:
    play = Play()
    first, second = await play.start(peer(1)), await play.start(peer(1))
    first.cancel()
    await turns()
    link = play.dialler.succeed()
    assert await second is link
    await play.hub.close()


async def test_when_the_last_caller_leaves_the_dial_is_called_off() -> None:
    play = Play()
    call = await play.start(peer(1))
    call.cancel()
    await turns()
    assert play.dialler.cancelled == 1
    assert play.told == ["connecting", "connecting-failed"]
    assert (play.hub.entries(), play.hub.dialling) == ((), 0)
    await play.hub.close()


async def test_a_cancelled_disconnect_goes_on() -> None:
    play = Play()
    link = await play.connected(peer(1))
    link.hold = True
    closing = asyncio.create_task(play.hub.disconnect(peer(1)))
    await turns()
    closing.cancel()
    await turns()
    link.closes[0].set_result(None)
    await turns()
    assert play.told[-1] == "disconnected"
    await play.hub.close()


async def test_a_cancelled_close_goes_on() -> None:
    play = Play()
    link = await play.connected(peer(1))
    link.hold = True
    closing = asyncio.create_task(play.hub.close())
    await turns()
    closing.cancel()
    await turns()
    link.closes[0].set_result(None)
    await play.hub.close()
    assert link.closed


async def test_a_listener_that_fails_never_reaches_the_state_machine() -> None:
    play = Play()
    play.hub.subscribe(lambda event: 1 // 0)
    link = await play.connected(peer(1))
    link.end()
    assert play.told == ["connecting", "connected", "disconnected"]
    await play.hub.close()


async def test_a_listener_that_ends_the_session_in_the_disconnecting_event() -> None:
    play = Play()
    link = await play.connected(peer(1))
    play.hub.subscribe(lambda event: link.end() if event.type == "disconnecting" else None)
    assert await play.hub.disconnect(peer(1)) is True
    assert play.told[-2:] == ["disconnecting", "disconnected"]
    await play.hub.close()


async def test_a_connection_that_its_user_is_closing_is_not_given_out_again() -> None:
    play = Play()
    link = await play.connected(peer(1))
    link.closed = True  # closing: its callbacks come later
    call = await play.start(peer(1))
    assert play.dialler.pending == []
    link.closed = False
    link.end()
    await turns()
    second = play.dialler.succeed()
    assert await call is second
    await play.hub.close()


async def test_a_closing_that_cancels_itself_is_a_failed_one() -> None:
    play = Play()
    link = await play.connected(peer(1))
    link.hold = True
    closing = asyncio.create_task(play.hub.disconnect(peer(1)))
    await turns()
    link.closes[0].cancel()
    assert isinstance(await play.failing(closing), ConnectionAborted)
    assert play.told[-1] == "disconnecting-failed"
    link.hold = False
    assert await play.hub.disconnect(peer(1)) is True
    await play.hub.close()


@pytest.mark.parametrize("unused", [True, False])
async def test_a_remote_end_is_the_end_of_what_nobody_uses(
    unused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_machine, "UNUSED", 0)
    play = Play()
    link = await play.connected(peer(1))
    link.unused = unused
    link.half_end()
    await turns()
    assert link.closed is unused
    assert play.told.count("disconnected") == unused
    await play.hub.close()


async def test_the_reason_of_a_disconnect_is_in_the_event() -> None:
    play = Play()
    await play.connected(peer(1))
    await play.hub.disconnect(peer(1), CloseReason.REFUSED)
    (await play.connected(peer(1))).end(CloseReason.RESET, "cut by the cat")
    call = await play.start(peer(1))
    await play.hub.disconnect(peer(1), "not wanted")
    await play.failing(call)
    ends = [event.details for event in play.events if isinstance(event, Disconnected)]
    assert [end.reason for end in ends] == [CloseReason.REFUSED, CloseReason.RESET, "not wanted"]
    assert ends[1].text == "cut by the cat"
    assert ends[2].connection is None
    await play.hub.close()


async def test_the_observer_of_a_call_reaches_the_dialler() -> None:
    play = Play()
    observer: Any = object()
    call = asyncio.create_task(play.hub.connect(peer(1), observer=observer, timeout=3))
    await turns()
    assert play.dialler.options == [{"observer": observer, "timeout": 3}]
    await play.hub.close()
    await play.failing(call)


async def test_a_key_that_the_connection_does_not_prove_is_not_told_as_connected() -> None:
    play = Play()
    call = await play.start(peer(1))
    target, future = play.dialler.take()
    link = ScriptedLink(target)
    link.remote_key = None
    future.set_result(link)
    assert await call is link
    assert [event.key for event in play.events] == [peer(1).key, None]
    assert play.hub.entries()[0][1]["key"] is None
    await play.hub.close()


async def test_a_hub_with_its_own_dialler_does_not_listen() -> None:
    async with Hub(dialler=ScriptedDialler()) as hub:
        assert (hub.addresses, hub.public_key) == ((), None)
        with pytest.raises(UsageError):
            await hub.listen_on()


@pytest.mark.parametrize(
    "options",
    [
        {"id": b"x"},
        {"handshake": "plain"},
        {"handshakes": {}},
        {"transports": {}},
        {"admit": lambda *_: None},
        {"observer": object()},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_only_an_endpoint_uses_is_refused_beside_a_dialler(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=rf"{next(iter(options))} .*dialler"):
        Hub(dialler=ScriptedDialler(), **options)


async def test_failures_of_connecting_carry_the_error_and_key() -> None:
    play = Play()
    call = await play.start(peer(1))
    error = ConnectError("refused", code="ECONNREFUSED")
    play.dialler.fail(error)
    await play.failing(call)
    assert play.events[-1] == ConnectingFailed(str(peer(1)), peer(1).key, error)
    await play.hub.close()


async def test_an_update_takes_fields_and_nothing_else() -> None:
    play = Play()
    wrong: Any
    for wrong in (None, 5, [("a", 1)]):
        with pytest.raises(TypeError, match="mapping"):
            play.hub.update(peer(1), wrong)
    await play.hub.close()
