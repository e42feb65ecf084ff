"""Random scripts on two joined muxers: order is kept, and both ends agree in the end."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from covey.errors import ClosedError, UsageError
from covey.limits import Limits
from covey.net.mux import Channel, Muxer
from covey.wire.encoding import string, uint
from tests.net.mux_pipes import MemoryPipe, joined_pipes, settle

NAMES = ["a", "b", "c", "d"]


class Side:
    """One muxer driven at random, which remembers what each of its channels sent and saw."""

    def __init__(self, pipe: MemoryPipe, dice: random.Random, label: str) -> None:
        self.mux = Muxer(pipe, Limits(pair_timeout=1e6), auto_batch=dice.random() < 0.7)
        self.dice = dice
        self.label = label
        self.live: list[Channel] = []
        self.sent: dict[str, list[str]] = {}
        self.seen: list[tuple[str, str]] = []
        self.told: dict[Channel, list[str]] = {}
        self.corks = 0
        for name in NAMES:
            self.mux.pair(name, self.paired(name))

    def paired(self, name: str) -> Any:
        async def later(id: bytes | None) -> None:  # noqa: A002
            for _ in range(self.dice.randrange(4)):
                await asyncio.sleep(0)
            answer(id)

        def answer(id: bytes | None) -> None:  # noqa: A002
            if self.dice.random() < 0.8:
                self.create(name)

        return later if self.dice.random() < 0.5 else answer

    def create(self, name: str) -> None:
        told: list[str] = []
        try:
            channel = self.mux.create_channel(
                name,
                handshake=string,
                on_open=lambda *_: told.append("open"),
                on_close=lambda *_: told.append("close"),
                on_destroy=lambda *_: told.append("destroy"),
            )
        except (ClosedError, UsageError):
            return
        tag = f"{self.label}{len(self.told)}"
        self.told[channel] = told
        self.sent[tag] = []
        channel.user_data = tag

        async def slow(value: str) -> None:
            await asyncio.sleep(0)
            self.seen.append((channel.handshake, value))

        def received(value: str) -> Any:
            if self.dice.random() < 0.2:
                return slow(value)
            self.seen.append((channel.handshake, value))
            return None

        channel.add_message(string, received)
        channel.add_message(uint, lambda value: None)
        channel.open(tag)
        self.live.append(channel)

    def act(self) -> None:
        roll = self.dice.random()
        if roll < 0.15 or not self.live:
            self.create(self.dice.choice(NAMES))
        elif roll < 0.75:
            self.send(self.dice.choice(self.live))
        elif roll < 0.85:
            channel = self.live.pop(self.dice.randrange(len(self.live)))
            channel.close()
        elif roll < 0.92:
            self.mux.cork()
            self.corks += 1
        elif self.corks:
            self.mux.uncork()
            self.corks -= 1

    def send(self, channel: Channel) -> None:
        text, number = channel.messages[0], channel.messages[1]
        assert text is not None
        assert number is not None
        sent = self.sent[channel.user_data]
        for _ in range(self.dice.randrange(1, 5)):
            if self.dice.random() < 0.2:
                number.send(self.dice.randrange(1 << 30))
                continue
            value = f"{len(sent)}" + "x" * self.dice.choice([0, 3, 240, 300])
            if text.send(value):
                sent.append(value)

    def finish(self) -> None:
        while self.corks:
            self.mux.uncork()
            self.corks -= 1


def check(receiver: Side, sender: Side) -> None:
    """Every channel's messages arrived in order, without a gap, from the first on."""
    by_tag: dict[str, list[str]] = {}
    for tag, value in receiver.seen:
        by_tag.setdefault(tag, []).append(value)
    for tag, values in by_tag.items():
        assert values == sender.sent[tag][: len(values)]
    for told in receiver.told.values():
        assert told in ([], ["open"], ["close", "destroy"], ["open", "close", "destroy"])


@pytest.mark.parametrize("seed", range(60))
async def test_random_scripts_keep_order_and_end_alike(seed: int) -> None:
    dice = random.Random(seed)
    left_pipe, right_pipe = joined_pipes(automatic=False)
    left_pipe.group = right_pipe.group = lambda: dice.randrange(1, 5)
    left, right = Side(left_pipe, dice, "l"), Side(right_pipe, dice, "r")
    for _ in range(300):
        dice.choice([left, right]).act()
        if dice.random() < 0.5:
            dice.choice([left_pipe, right_pipe]).step()
        if dice.random() < 0.4:
            await asyncio.sleep(0)
    left.finish()
    right.finish()
    await run_dry(left_pipe, right_pipe)
    assert left_pipe.error is None
    assert right_pipe.error is None
    assert {c.protocol for c in left.mux if c.opened} == {c.protocol for c in right.mux if c.opened}
    for side in (left, right):
        for channel in side.told:
            channel.close()
    await run_dry(left_pipe, right_pipe)
    check(left, right)
    check(right, left)
    assert left.seen
    assert any("open" in told for told in right.told.values())
    for side in (left, right):
        assert side.mux.is_idle
        assert not side.mux.core._remote
        assert not side.mux.core._names
        assert not side.mux._channels
        assert not side.mux._tasks
        assert not side.mux.core._kept


async def run_dry(left: MemoryPipe, right: MemoryPipe) -> None:
    """Move everything until nothing moves any more."""
    quiet = 0
    while quiet < 3:
        moved = left.step() | right.step()
        await settle(30)
        quiet = 0 if moved else quiet + 1
