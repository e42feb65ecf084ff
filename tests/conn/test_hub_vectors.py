from __future__ import annotations

import asyncio
from typing import Any

import pytest

from covey.address import Address
from covey.conn.hub import Hub
from covey.errors import ConnectError, ConnectionAborted, HubClosed
from covey.limits import Limits
from tests.conn.scripted import ScriptedDialler, ScriptedLink, turns
from tests.vectors_path import load_vectors

SCENARIOS = load_vectors("ssb-conn-hub")["scenarios"]


def address_of(peer: int) -> Address:
    return Address.net(f"10.1.0.{peer}", 8008, "shs", bytes([peer + 100]) * 32)


class Stage:
    """Plays one scenario: steps of a group one after another, `pace` turns between them."""

    def __init__(self, pace: int) -> None:
        self.pace = pace
        self.dialler = ScriptedDialler()
        self.hub = Hub(dialler=self.dialler, limits=Limits(close_timeout=0.01))
        self.links: list[ScriptedLink] = []
        self.hold = False
        self.calls: dict[str, asyncio.Task[Any]] = {}
        self.closing: list[asyncio.Task[None]] = []
        self.events: list[dict[str, Any]] = []
        self.group = 0
        self.hub.subscribe(
            lambda event: self.events.append(
                {"group": self.group, "type": event.type, "address": event.address}
            )
        )

    async def play(self, groups: list[list[dict[str, Any]]]) -> None:
        for self.group, steps in enumerate(groups):
            needs_dial = any(step["do"].startswith("dial_") for step in steps)
            for step in steps:
                self.step(step)
                await turns(max(self.pace, 4) if needs_dial else self.pace)
            await turns()
            async with asyncio.timeout(5):
                await asyncio.gather(*self.closing)

    def step(self, step: dict[str, Any]) -> None:
        address = address_of(step.get("peer", 1))
        match step["do"]:
            case "connect":
                self.calls[step["call"]] = asyncio.create_task(self.hub.connect(str(address)))
            case "disconnect":
                self.calls[step["call"]] = asyncio.create_task(self.hub.disconnect(str(address)))
            case "hub_close":
                self.closing.append(asyncio.create_task(self.hub.close()))
            case "hub_reset" | "reset":
                self.closing.append(asyncio.create_task(self.hub.reset()))
            case "dial_ok" | "dial_fail":
                self.complete(step, address if "peer" in step else None)
            case "incoming":
                self.incoming(address)
            case "remote_close":
                [*_, newest] = [link for link in self.links if not link.closed]
                newest.end()
            case "hold_close":
                self.hold = True
                for link in self.links:
                    link.hold = True
            case "close_ok" | "close_fail":
                self.release(step["do"] == "close_ok")
            case unknown:
                raise AssertionError(unknown)

    def complete(self, step: dict[str, Any], address: Address | None) -> None:
        try:
            if step["do"] == "dial_ok":
                self.opened(self.dialler.succeed(address))
            else:
                self.dialler.fail(ConnectError("dial failed"), address)
        except LookupError:
            pass  # the dial was called off

    def opened(self, link: ScriptedLink) -> None:
        link.hold = self.hold
        self.links.append(link)

    def incoming(self, peer: Address) -> None:
        address = Address.net("10.9.9.9", 50000, "shs", peer.key)
        link = ScriptedLink(address, initiator=False)
        self.opened(link)
        self.hub.accept(link)

    def release(self, well: bool) -> None:
        waiting = [future for link in self.links for future in link.closes if not future.done()]
        self.hold = False
        for link in self.links:
            link.hold = False
        for future in waiting[:1]:
            if well:
                future.set_result(None)
            else:
                future.set_exception(ConnectError("close failed"))

    async def outcome(self, call: asyncio.Task[Any]) -> Any:
        try:
            async with asyncio.timeout(5):
                result = await call
        except HubClosed:
            return "error: closed"
        except ConnectionAborted as error:
            return "error: reset" if str(error) == "reset" else "error: aborted"
        except ConnectError as error:
            return f"error: {error}"
        return "session" if isinstance(result, ScriptedLink) else result


@pytest.mark.parametrize("pace", [0, 1, 3, 20])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[one["description"] for one in SCENARIOS])
async def test_scenario(scenario: dict[str, Any], pace: int) -> None:
    stage = Stage(pace)
    await stage.play(scenario["groups"])
    expected = scenario["covey"]
    assert stage.events == expected["events"]
    done = {name: await stage.outcome(call) for name, call in stage.calls.items()}
    assert done == expected["calls"]
    assert sum(not link.closed for link in stage.links) == expected["open_sessions"]
    await stage.hub.close()
    assert all(link.closed for link in stage.links)
