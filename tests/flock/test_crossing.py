"""Two ends that dial each other: each tells its user of one connection, and both of the same.

The simulation has what decides on the wire: a dial is complete at the end that dialled only after
the other end answered the last message of the handshake. Delays are random, order within a
connection is kept, as TCP does.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from covey.flock import policy
from covey.flock.policy import Contender
from covey.flock.registry import Outcome, Registry

SMALL, LARGE = "01" * 32, "02" * 32
HANDSHAKE = ("syn", "ack", "first", "second", "third", "header")
"""Sent by turns, the first by who dials; `third` brings the initiator's header too."""


@dataclass
class _End:
    key: str
    registry: Registry = field(default_factory=Registry)
    dialling: set[int] = field(default_factory=set)
    settling: dict[int, bool] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)
    links: dict[int, Contender] = field(default_factory=dict)
    heard: dict[int, int] = field(default_factory=dict)
    announced: list[int] = field(default_factory=list)


class _World:
    """Both ends, and the network between them, in virtual time."""

    def __init__(self, seed: int, *, delay: float, sees_dials: bool = True) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.ends = {key: _End(key) for key in (SMALL, LARGE)}
        self._delay = delay
        self._sees_dials = sees_dials
        self._plan: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._last: dict[tuple[int, str], float] = {}

    def run(self) -> None:
        while self._plan:
            self.now, _, call = heapq.heappop(self._plan)
            call()

    def at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._plan, (when, next(self._order), call))

    def dial(self, number: int, initiator: str, at: float) -> None:
        def start() -> None:
            self.ends[initiator].dialling.add(number)
            self._send(number, initiator, "syn", initiator)

        self.at(at, start)

    def _send(self, number: int, sender: str, what: str, initiator: str) -> None:
        receiver = LARGE if sender == SMALL else SMALL
        soonest = self._last.get((number, receiver), 0.0)
        when = max(soonest, self.now + self.random.uniform(0.0005, self._delay))
        self._last[number, receiver] = when
        self.at(when, lambda: self._receive(number, self.ends[receiver], what, initiator))

    def _receive(self, number: int, end: _End, what: str, initiator: str) -> None:
        if what == "end":
            self._remote_ended(number, end, initiator)
        elif number in end.closed:
            return
        elif what == "data":
            end.heard[number] = end.heard.get(number, 0) + 1
        elif what in HANDSHAKE[:-1]:
            answer = HANDSHAKE[HANDSHAKE.index(what) + 1]
            self._send(number, end.key, answer, initiator)
            if answer == "header":
                self._complete(number, end, initiator)
        else:  # through the hub and its tasks: a few turns of the loop later
            later = self.now + self.random.uniform(0.0, 0.002)
            self.at(later, lambda: self._complete(number, end, initiator))

    # What the roster does

    def _complete(self, number: int, end: _End, initiator: str) -> None:
        if number in end.closed:
            return
        end.dialling.discard(number)
        link = Contender(
            id=number,
            type="tcp",
            initiator=end.key == initiator,
            mine=end.key,
            theirs=LARGE if end.key == SMALL else SMALL,
            opened_at=self.now,
            proven=True,
        )
        end.links[number] = link
        decision = end.registry.offer(link, now=self.now)
        assert decision.outcome is not Outcome.REPLACED, "nothing in use is ever replaced"
        if decision.outcome is Outcome.REGISTERED:
            if policy.may_be_replaced(link, dialling=self._is_dialling(end)):
                end.settling[number] = True
                self.at(self.now + policy.SETTLE, lambda: self._settle_late(number, end))
            else:
                self._announce(number, end)
        elif decision.outcome is Outcome.HELD:
            self.at(self.now + policy.HOLD, lambda: self._let_go(number, end))
        else:
            self._close(number, end, initiator)
        self._settle(end)

    def _is_dialling(self, end: _End) -> bool:
        return bool(end.dialling) and self._sees_dials

    def _settle_late(self, number: int, end: _End) -> None:
        if number in end.settling:
            end.settling[number] = False
            self._settle(end)

    def _settle(self, end: _End) -> None:
        for number, early in tuple(end.settling.items()):
            crossing = early and self._is_dialling(end)
            if not crossing and not end.registry.holds(end.links[number].theirs):
                self._announce(number, end)

    def _announce(self, number: int, end: _End) -> None:
        end.settling.pop(number, None)
        end.announced.append(number)
        self._send(number, end.key, "data", "")

    def _let_go(self, number: int, end: _End) -> None:
        if end.registry.is_held(end.links[number]):
            self._close(number, end, "")

    def _remote_ended(self, number: int, end: _End, initiator: str) -> None:
        if number in end.closed:
            return
        if number in end.settling and end.heard.get(number):
            self._announce(number, end)
        self._close(number, end, initiator)

    def _close(self, number: int, end: _End, initiator: str) -> None:
        end.closed.add(number)
        end.dialling.discard(number)
        end.settling.pop(number, None)
        self._send(number, end.key, "end", initiator)
        link = end.links.get(number)
        successor = end.registry.remove(link) if link is not None else None
        if successor is not None:
            self._announce(successor.id, end)
        self._settle(end)


def _told(world: _World) -> list[list[int]]:
    return [end.announced for end in world.ends.values()]


def _kept(world: _World) -> list[list[int]]:
    return [[link.id for link in end.registry] for end in world.ends.values()]


@pytest.mark.parametrize("delay", [0.002, 0.02, 0.1])
@pytest.mark.parametrize("apart", [0.0, 0.05, 0.3, 7.0])
def test_each_end_tells_its_user_of_one_connection_and_both_of_the_same(
    delay: float, apart: float
) -> None:
    """Also where one of them only learns of the other a while after that one had dialled it."""
    for seed in range(400):
        world = _World(seed, delay=delay)
        world.dial(1, SMALL, at=world.random.uniform(0.0, apart))
        world.dial(2, LARGE, at=world.random.uniform(0.0, apart))
        world.run()
        first, second = _told(world)
        assert first == second, seed
        assert len(first) == 1, seed
        assert _kept(world) == [first, second], seed
        for end in world.ends.values():
            assert end.heard.get(first[0]) == 1, "nothing that was said is lost"
            assert sum(end.heard.values()) == 1, "and nothing was said elsewhere"


@pytest.mark.parametrize("delay", [0.02, 0.1])
def test_several_dials_of_both_ends_leave_the_users_in_peace_too(delay: float) -> None:
    for seed in range(400):
        world = _World(seed, delay=delay)
        for number in range(1, 4):
            world.dial(number, (SMALL, LARGE)[(number + seed) % 2], at=world.random.uniform(0, 0.3))
        world.run()
        kept = _kept(world)
        assert kept[0] == kept[1], seed
        assert len(kept[0]) == 1, seed


def test_where_a_dial_cannot_be_told_to_lead_to_the_peer_both_ends_still_agree() -> None:
    """The peer is dialled at one of its addresses and comes from another."""
    for seed in range(1000):
        world = _World(seed, delay=0.05, sees_dials=False)
        world.dial(1, SMALL, at=world.random.uniform(0.0, 0.1))
        world.dial(2, LARGE, at=world.random.uniform(0.0, 0.1))
        world.run()
        first, second = _kept(world)
        assert first == second, seed
        assert len(first) == 1, seed
        of_small, of_large = _told(world)
        assert of_small == first, "the end that chooses is never of two minds"
        assert of_large[-1:] == first
        assert len(of_large) <= 2


def test_without_the_wait_some_would_be_told_twice() -> None:
    """The simulation reaches what the wait is for."""
    twice = 0
    for seed in range(400):
        world = _World(seed, delay=0.05, sees_dials=False)
        world.dial(1, SMALL, at=0.0)
        world.dial(2, LARGE, at=0.0)
        world.run()
        twice += any(len(told) > 1 for told in _told(world))
    assert twice > 0


@pytest.mark.parametrize("lost", [1, 2])
def test_a_dial_that_fails_delays_the_other_connection_only_for_a_while(lost: int) -> None:
    for seed in range(200):
        world = _World(seed, delay=0.02)
        initiator = (SMALL, LARGE)[lost - 1]
        world.dial(3 - lost, (LARGE, SMALL)[lost - 1], at=0.0)
        world.at(0.0, partial(world.ends[initiator].dialling.add, lost))
        world.run()
        assert _told(world) == [[3 - lost], [3 - lost]], seed
