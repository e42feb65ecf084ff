"""The scripts of `protomux.json`, run on a muxer over a pipe double (`protomux.md` section 12)."""

# ruff: noqa: A001, A002

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from covey.errors import ClosedError, CoveyError, UsageError
from covey.net.mux import Channel, Muxer
from covey.wire import encoding
from tests.net.mux_pipes import RecordingPipe, settle
from tests.vectors_path import load_vectors

CASES = load_vectors("protomux")["cases"]
Step = dict[str, Any]
WAITING = {"wait", "echo_async", "reject_async"}


def codec(name: str | None) -> encoding.Codec[Any] | None:
    if name is None:
        return None
    name = re.sub("[A-Z]", lambda letter: "_" + letter[0].lower(), name)
    found = getattr(encoding, name, None) or getattr(encoding, name + "_")
    assert isinstance(found, encoding.Codec)
    return found


def from_vector(value: Any) -> Any:
    return bytes.fromhex(value["$hex"]) if isinstance(value, dict) and "$hex" in value else value


def to_vector(value: Any) -> Any:
    return {"$hex": bytes(value).hex()} if isinstance(value, bytes | bytearray) else value


def numbered(value: Any, number: int) -> Any:
    """`value` with `$i` replaced everywhere."""
    if isinstance(value, str):
        return value.replace("$i", str(number))
    if isinstance(value, dict):
        return {key: numbered(item, number) for key, item in value.items()}
    if isinstance(value, list):
        return [numbered(item, number) for item in value]
    return value


class Script:
    """One muxer, and what its callbacks saw."""

    def __init__(self, *, ordered: bool) -> None:
        self.events: list[list[Any]] = []
        self.pipe = RecordingPipe(self.tell)
        self.ordered = ordered
        self.waits = False
        self.mux = Muxer(self.pipe, auto_batch=False, on_warning=self.warn)
        self.channels: dict[str, Channel | None] = {}
        self.gates: dict[str, list[asyncio.Event]] = {}

    def tell(self, *event: Any) -> None:
        self.events.append(list(event))

    def warn(self, error: Exception) -> None:
        self.tell("warning", str(error))

    def run(self, step: Step) -> None:
        getattr(self, "do_" + step["op"])(step)

    def guarded(self, step: Step) -> None:
        try:
            self.run(step)
        except CoveyError as error:
            self.tell("raised", type(error).__name__, str(error))

    def create(self, step: Step) -> Channel | None:
        name = step["as"]

        def opened(handshake: Any, channel: Channel) -> None:
            self.tell("open", name, to_vector(handshake))
            if step.get("close_on_open"):
                channel.close()

        channel = self.made(
            step["protocol"],
            id=bytes.fromhex(step["id"]) if step.get("id") else None,
            aliases=step.get("aliases", ()),
            unique=step.get("unique", True),
            handshake=codec(step.get("handshake")),
            ordered=self.ordered,
            on_open=opened,
            on_close=lambda remote, _: self.tell("close", name, remote),
            on_destroy=lambda _: self.tell("destroy", name),
            on_drain=lambda _: self.tell("drain", name),
        )
        if channel is not None:
            for type, spec in enumerate(step.get("messages", ())):
                self.add_message(channel, name, type, spec)
        return channel

    def made(self, protocol: str, **options: Any) -> Channel | None:
        """As protomux says it: null where there is no channel to be had."""
        try:
            return self.mux.create_channel(protocol, **options)
        except (ClosedError, UsageError):
            return None

    def add_message(self, channel: Channel, name: str, type: int, spec: Any) -> None:
        if spec is None:
            channel.reserve_message()
            return
        if isinstance(spec, str):
            spec = {"type": spec}
        does = spec.get("does")
        self.waits = self.waits or does in WAITING

        async def later(value: Any) -> None:
            await asyncio.sleep(0)
            if does == "echo_async":
                message.send(value)
            elif does == "reject_async":
                raise RuntimeError("handler failed")

        def received(value: Any) -> Any:
            self.tell("message", name, type, to_vector(value))
            if does == "echo":
                message.send(value)
            elif does == "throw":
                raise RuntimeError("handler failed")
            elif does == "close":
                channel.close()
            elif does in WAITING:
                return later(value)
            return None

        found = codec(spec["type"])
        assert found is not None
        message = channel.add_message(found, received, auto_batch=spec.get("auto_batch", True))

    def do_create(self, step: Step) -> None:
        channel = self.channels[step["as"]] = self.create(step)
        self.tell("created", step["as"], channel is not None)

    def do_open(self, step: Step) -> None:
        channel = self.channels[step["ch"]]
        if channel is not None:
            channel.open(from_vector(step.get("handshake")))

    def do_send(self, step: Step) -> None:
        channel = self.channels[step["ch"]]
        message = None if channel is None else channel.messages[step["type"]]
        if message is not None and not message.send(from_vector(step["value"])):
            self.tell("send_returned_false", step["ch"])

    def do_close(self, step: Step) -> None:
        channel = self.channels[step["ch"]]
        if channel is not None:
            channel.close()

    def do_cork(self, step: Step) -> None:
        (self.channels[step["ch"]] if step.get("ch") else self.mux).cork()  # type: ignore[union-attr]

    def do_uncork(self, step: Step) -> None:
        (self.channels[step["ch"]] if step.get("ch") else self.mux).uncork()  # type: ignore[union-attr]

    def do_recv(self, step: Step) -> None:
        self.pipe.receive(bytes.fromhex(step["data"]))

    def do_pair(self, step: Step) -> None:
        def answer() -> None:
            for inner in step.get("then", ()):
                self.guarded(inner)

        async def answer_later(gate: asyncio.Event) -> None:
            await gate.wait()
            answer()

        def asked(id: bytes | None) -> Any:
            self.tell("pair", step["protocol"], None if id is None else id.hex())
            if step.get("gate"):
                gate = asyncio.Event()
                self.gates.setdefault(step["gate"], []).append(gate)
                return answer_later(gate)
            answer()
            return None

        id = bytes.fromhex(step["id"]) if step.get("id") else None
        self.mux.pair(step["protocol"], asked, id)

    def do_unpair(self, step: Step) -> None:
        self.mux.unpair(step["protocol"], bytes.fromhex(step["id"]) if step.get("id") else None)

    def do_release(self, step: Step) -> None:
        self.gates[step["gate"]].pop(0).set()

    def do_same_tick(self, step: Step) -> None:
        for inner in step["steps"]:
            self.guarded(inner)

    def do_repeat(self, step: Step) -> None:
        for number in range(step["times"]):
            for inner in step["steps"]:
                self.guarded(numbered(inner, number))

    def do_stream_full(self, step: Step) -> None:
        self.pipe.full = True

    def do_stream_drain(self, step: Step) -> None:
        self.pipe.full = False
        self.mux.writable()

    def do_stream_close(self, step: Step) -> None:
        self.pipe.close()

    def do_stream_end(self, step: Step) -> None:
        self.mux.pipe_ended()

    def do_state(self, step: Step) -> None:
        names = {channel: name for name, channel in self.channels.items()}
        opened = [
            self.mux.opened(each["protocol"], bytes.fromhex(each["id"]) if each.get("id") else None)
            for each in step.get("opened", ())
        ]
        state = {
            "idle": self.mux.is_idle,
            "drained": self.mux.drained,
            "channels": [names[channel] for channel in self.mux],
            "opened": opened,
        }
        self.tell("state", state)


def comparable(events: list[list[Any]]) -> list[list[Any]]:
    """The events with the wording of errors left out: that is each implementation's own."""
    return [event[:1] if event[0] in {"stream_destroy", "raised"} else event for event in events]


def per_channel(events: list[list[Any]]) -> dict[Any, list[list[Any]]]:
    """The events of each channel by itself."""
    found: dict[Any, list[list[Any]]] = {}
    for event in events:
        found.setdefault(event[1] if len(event) > 1 else None, []).append(event)
    return found


def starts_with(event: list[Any], prefix: list[Any]) -> bool:
    return comparable([event])[0][: len(prefix)] == comparable([prefix])[0]


def check_loose(step: Step, wire: list[str], events: list[list[Any]]) -> None:
    """What holds of a step that the reference gets wrong."""
    expected = step["expect"]
    rest = iter(events)
    for prefix in step.get("must", ()):
        assert any(starts_with(event, prefix) for event in rest), (prefix, events)
    for prefix in step.get("must_not", ()):
        assert not any(starts_with(event, prefix) for event in events), (prefix, events)
    if "must_wire" in step:
        assert wire == step["must_wire"]
    if "also_wire" in step:
        assert wire in (expected["wire"], step["also_wire"])


def check(script: Script, step: Step, wire: list[str], events: list[list[Any]]) -> None:
    expected = step["expect"]
    if step.get("strict") is False:
        check_loose(step, wire, events)
        return
    assert wire == expected["wire"]
    seen, wanted = comparable(events), comparable(expected["events"])
    if script.ordered and script.waits:
        # One handler after the other on a channel: between channels the order may differ.
        assert per_channel(seen) == per_channel(wanted)
    else:
        assert seen == wanted


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "overlapping"])
@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
async def test_script(case: dict[str, Any], ordered: bool) -> None:
    script = Script(ordered=ordered)
    for step in case["steps"]:
        script.events.clear()
        script.guarded(step)
        await settle(30)
        check(script, step, [frame.hex() for frame in script.pipe.take()], script.events)
    script.pipe.close()
    async with asyncio.timeout(5):
        for gates in script.gates.values():
            for gate in gates:
                gate.set()
        await script.mux.wait_closed()
