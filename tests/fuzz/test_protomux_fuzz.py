"""Random and mutated frames: `ProtocolError` in the core, the end of one stream in the shell."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from covey.errors import ProtocolError
from covey.limits import Limits
from covey.net.mux import Channel, Muxer
from covey.wire.encoding import json, raw, string, uint
from covey.wire.protomux import Protomux
from covey.wire.protomux_channel import ChannelMessages, ChannelOpened, PairRequested
from tests.net.mux_pipes import RecordingPipe, settle
from tests.vectors_path import load_vectors

LIMITS = Limits(max_pairing=8, max_channels=64)


def seen_frames() -> list[bytes]:
    """Frames of the vectors: what mutation starts from."""
    found: set[str] = set()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            if value.get("op") == "recv":
                found.add(value["data"])
            found.update(value.get("expect", {}).get("wire", ()))
            for item in value.values():
                collect(item)
        elif isinstance(value, list):
            for item in value:
                collect(item)

    collect(load_vectors("protomux"))
    return [bytes.fromhex(frame) for frame in sorted(found) if len(frame) < 600]


FRAMES = seen_frames()


def mutated(dice: random.Random) -> bytes:
    frame = bytearray(dice.choice(FRAMES))
    for _ in range(dice.randrange(4)):
        if frame and dice.random() < 0.5:
            frame[dice.randrange(len(frame))] = dice.choice([0, 1, 2, 3, 252, 253, 254, 255])
        elif dice.random() < 0.5:
            frame[dice.randrange(len(frame) + 1) :] = dice.choice(FRAMES)
        else:
            del frame[dice.randrange(len(frame) + 1) :]
    return bytes(frame)


def feed(mux: Protomux, frame: bytes) -> None:
    for event in mux.receive_frame(frame, 0.0):
        if isinstance(event, PairRequested):
            channel = mux.create_channel(event.protocol, id=event.id)
            if channel is not None and mux.open(channel):
                for inner in mux.deliver(channel):
                    assert isinstance(inner, ChannelOpened | ChannelMessages)
            mux.pairing_done(event.request)
        elif isinstance(event, ChannelMessages):
            assert all(type(payload) is bytes for payload in event.payloads)


def core() -> Protomux:
    mux = Protomux(limits=LIMITS)
    mux.pair("bar", "callback")
    for _ in range(2):
        channel = mux.create_channel("foo", unique=False)
        assert channel is not None
        mux.open(channel)
    return mux


@given(st.lists(st.binary(max_size=80), max_size=8))
@settings(max_examples=300, deadline=None)
def test_random_frames_raise_only_protocol_errors(frames: list[bytes]) -> None:
    mux = core()
    try:
        for frame in frames:
            feed(mux, frame)
    except ProtocolError:
        mux.end()


@pytest.mark.parametrize("seed", range(40))
def test_mutated_frames_raise_only_protocol_errors(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(60):
        mux = core()
        try:
            for _ in range(20):
                feed(mux, mutated(dice))
                assert len(mux._remote) <= LIMITS.max_channels
        except ProtocolError:
            mux.end()
        mux.data_to_send()


@pytest.mark.parametrize("seed", range(30))
async def test_mutated_frames_cost_the_shell_only_its_stream(seed: int) -> None:
    dice = random.Random(seed)
    for _ in range(10):
        pipe = RecordingPipe()
        mux = Muxer(pipe, LIMITS, auto_batch=dice.random() < 0.5)

        def create(mux: Muxer = mux, **options: Any) -> Channel | None:
            async def later(value: Any) -> None:
                await asyncio.sleep(0)

            channel = mux.create_channel(
                dice.choice(["foo", "bar"]),
                messages=[string, (uint, len), (json, later)],
                **options,
            )
            if channel is not None:
                echo = channel.add_message(raw)
                echo.on_message = echo.send
                channel.open()
            return channel

        def paired(_: Any, create: Any = create) -> None:
            create(unique=False)

        mux.pair("foo", paired)
        create()
        for _ in range(20):
            if not pipe.closed:
                pipe.receive(mutated(dice), mutated(dice))
            if dice.random() < 0.3:
                await settle(2)
        await settle(10)
        pipe.close()
        await mux.wait_closed()
        assert not mux._channels
