from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from typing import Any

import pytest

from covey.address import Address
from covey.conn.hub import Hub
from covey.conn.hub_events import HubEvent
from covey.conn.sessions import keep_smaller_dialler
from covey.errors import ConnectError, CoveyError
from covey.keys import KeyPair
from covey.limits import Limits
from tests.conn.scripted import ScriptedDialler, ScriptedLink, turns

# The contract per address, ssb-conn-hub section 6: state before, event, state after.
CONTRACT = {
    ("none", "connecting"): "connecting",
    ("none", "connected"): "connected",
    ("connecting", "connecting-failed"): "none",
    ("connecting", "connected"): "connected",
    ("connecting", "disconnecting"): "aborting",
    ("aborting", "disconnected"): "none",
    ("connected", "disconnecting"): "disconnecting",
    ("connected", "disconnected"): "none",
    ("disconnecting", "disconnecting-failed"): "connected",
    ("disconnecting", "disconnected"): "none",
}
SHOWN = {"none": None, "aborting": "disconnecting"}


class Automaton:
    """Checks every event against the contract, and the hub's own answer against both."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.states: defaultdict[str, str] = defaultdict(lambda: "none")
        self.visited: Counter[tuple[str, str]] = Counter()
        self.errors: list[str] = []
        hub.subscribe(self)

    def __call__(self, event: HubEvent) -> None:
        step = (self.states[event.address], event.type)
        self.visited[step] += 1
        if step not in CONTRACT:
            self.errors.append(f"{step} at {event.address}")
            return
        state = self.states[event.address] = CONTRACT[step]
        if self.hub.get_state(event.address) != SHOWN.get(state, state):
            self.errors.append(f"{event} told, {self.hub.get_state(event.address)} shown")


class Chaos:
    """Random calls, completions and ends on a few addresses."""

    def __init__(self, seed: int, connect: str = "connect", **options: Any) -> None:
        self.random = random.Random(seed)
        self.dialler = ScriptedDialler(stubborn=self.random.random() < 0.3)
        key_pair = KeyPair.from_seed(bytes([seed % 256]) * 32)
        self.hub = Hub(
            dialler=self.dialler,
            key_pair=key_pair,
            limits=Limits(close_timeout=0.01, max_per_key=4, max_connections=12),
            **options,
        )
        self.connect = connect
        self.automaton = Automaton(self.hub)
        self.addresses = [Address.net("10.1.0.1", 1 + n, key=bytes([n % 2]) * 32) for n in range(4)]
        self.links: list[ScriptedLink] = []
        self.calls: list[asyncio.Task[Any]] = []
        self.ports = iter(range(50_000, 60_000))

    def step(self) -> None:
        address = self.random.choice(self.addresses)
        held = [future for link in self.links for future in link.closes if not future.done()]
        dials = [target for target, future in self.dialler.pending if not future.done()]
        match self.random.randrange(12):
            case 0 | 1 | 2:
                self.call(getattr(self.hub, self.connect)(address))
            case 3 | 4:
                self.call(self.hub.disconnect(address))
            case 5 | 6 if dials:
                self.opened(self.dialler.succeed(self.random.choice(dials)))
            case 7 if dials:
                self.dialler.fail(ConnectError("no"), self.random.choice(dials))
            case 8 if live := [link for link in self.links if not link.closed]:
                self.random.choice(live).end()
            case 9:
                self.accept(address)
            case 10 if held:
                future = self.random.choice(held)
                if self.random.random() < 0.7:
                    future.set_result(None)
                else:
                    future.set_exception(ConnectError("close failed"))
            case 11:
                self.rare(address)

    def rare(self, address: Address) -> None:
        match self.random.randrange(4):
            case 0:
                self.call(self.hub.reset())
            case 1 if self.calls:
                self.random.choice(self.calls).cancel()
            case 2 if self.links:
                self.call(self.hub.disconnect_session(self.random.choice(self.links), "tired"))
            case 3:
                self.hub.update(address, {"note": self.random.random()})

    def accept(self, address: Address) -> None:
        if self.random.random() < 0.5:
            link = ScriptedLink(address)
        else:
            there = Address.net("10.9.9.9", next(self.ports), key=address.key)
            link = ScriptedLink(there, initiator=False)
        self.opened(link)
        self.hub.accept(link)

    def opened(self, link: ScriptedLink) -> None:
        link.hold = self.random.random() < 0.4
        self.links.append(link)

    def call(self, work: Any) -> None:
        self.calls.append(asyncio.create_task(work))

    async def end(self) -> None:
        """Close the hub; what dials are left answer too late."""
        closing = asyncio.create_task(self.hub.close())
        await turns()
        for _, future in tuple(self.dialler.pending):
            if not future.done():
                self.links.append(ScriptedLink(self.addresses[0]))
                future.set_result(self.links[-1])
        await closing
        for link in self.links:
            for held in link.closes:
                if not held.done():
                    held.set_result(None)
        async with asyncio.timeout(10):
            results = await asyncio.gather(*self.calls, return_exceptions=True)
        strange = [
            result
            for result in results
            if isinstance(result, BaseException)
            and not isinstance(result, (CoveyError, asyncio.CancelledError))
        ]
        assert strange == []


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize(
    "options",
    [{}, {"connect": "connect_or_false"}, {"tie_break": keep_smaller_dialler}],
    ids=["plain", "or-false", "tie-break"],
)
async def test_random_schedules_keep_the_contract(options: dict[str, Any], seed: int) -> None:
    chaos = Chaos(seed, **options)
    for _ in range(120):
        chaos.step()
        await turns(chaos.random.choice([0, 0, 1, 2, 8]))
        check_books(chaos.hub)
    await chaos.end()
    assert chaos.automaton.errors == []
    assert set(chaos.automaton.states.values()) <= {"none"}
    assert all(link.closed for link in chaos.links)
    await turns()
    assert asyncio.all_tasks() == {asyncio.current_task()}


def check_books(hub: Hub) -> None:
    """Entries and sessions must agree at every moment."""
    entries = hub._machine.table.all()
    filed = {session.id for entry in entries for session in entry.sessions.values()}
    assert filed == {session.id for session in hub.sessions}
    assert hub.dialling == sum(entry.dial is not None for entry in entries)
    for entry in entries:
        assert (entry.dial is not None) == (entry.state == "connecting")
        assert entry.dial is not None or entry.sessions


async def test_the_schedules_reach_every_transition() -> None:
    visited: Counter[tuple[str, str]] = Counter()
    for seed in range(40):
        chaos = Chaos(seed)
        for _ in range(120):
            chaos.step()
            await turns(chaos.random.choice([0, 1, 2, 8]))
        await chaos.end()
        visited += chaos.automaton.visited
    assert set(visited) == set(CONTRACT)
