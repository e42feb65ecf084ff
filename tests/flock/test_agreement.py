"""Two ends that decide alone must come to the same one connection, however events fall."""

from __future__ import annotations

import heapq
import itertools
import random

import pytest

from covey.flock import policy
from covey.flock.policy import Contender
from covey.flock.registry import Outcome, Registry

SMALL, LARGE = "01" * 32, "02" * 32


class _Pair:
    """Both registries of a pair and the network between them, in virtual time."""

    def __init__(self, seed: int, *, proven: bool) -> None:
        self._random = random.Random(seed)
        self._proven = proven
        self._plan: list[tuple[float, int, str, str, int]] = []
        self._order = itertools.count()
        self.ends = {SMALL: Registry(), LARGE: Registry()}
        self._known: dict[tuple[str, int], Contender] = {}
        self._closed: set[tuple[str, int]] = set()

    def connect(self, number: int, initiator: str, *, at: float) -> None:
        """Both ends complete the handshake of connection `number` soon after `at`."""
        for end in self.ends:
            self._add(at + self._random.uniform(0.0, 0.05), "offer", end, number)
            theirs = LARGE if end == SMALL else SMALL
            self._known[end, number] = Contender(
                id=number,
                type="tcp",
                initiator=end == initiator,
                mine=end,
                theirs=theirs,
                opened_at=at,
                proven=self._proven,
            )

    def run(self) -> None:
        while self._plan:
            now, _, what, end, number = heapq.heappop(self._plan)
            link = self._known[end, number]
            if what == "offer" and (end, number) not in self._closed:
                self._offer(now, end, link)
            elif what == "closed" or (what == "expire" and self.ends[end].is_held(link)):
                self._close(now, end, number)

    def survivors(self) -> list[list[int]]:
        return [[link.id for link in registry] for registry in self.ends.values()]

    def _offer(self, now: float, end: str, link: Contender) -> None:
        decision = self.ends[end].offer(link, now=now)
        if decision.outcome is Outcome.REPLACED:
            assert decision.other is not None
            self._close(now, end, decision.other.id)
        elif decision.outcome is Outcome.REDUNDANT:
            self._close(now, end, link.id)
        elif decision.outcome is Outcome.HELD:
            self._add(now + policy.HOLD, "expire", end, link.id)

    def _close(self, now: float, end: str, number: int) -> None:
        if (end, number) in self._closed:
            return
        self._closed.add((end, number))
        self.ends[end].remove(self._known[end, number])
        other = LARGE if end == SMALL else SMALL
        self._add(now + self._random.uniform(0.0, 0.05), "closed", other, number)

    def _add(self, at: float, what: str, end: str, number: int) -> None:
        heapq.heappush(self._plan, (at, next(self._order), what, end, number))


@pytest.mark.parametrize("proven", [True, False])
def test_crossing_connections_leave_one_and_the_same(proven: bool) -> None:
    for seed in range(500):
        pair = _Pair(seed, proven=proven)
        pair.connect(1, SMALL, at=0.0)
        pair.connect(2, LARGE, at=0.0)
        pair.run()
        first, second = pair.survivors()
        assert first == second, seed
        assert len(first) == 1, seed


@pytest.mark.parametrize("proven", [True, False])
@pytest.mark.parametrize("initiator", [SMALL, LARGE])
def test_a_second_connection_of_one_initiator_leaves_one(proven: bool, initiator: str) -> None:
    for seed in range(500):
        pair = _Pair(seed, proven=proven)
        pair.connect(1, initiator, at=0.0)
        pair.connect(2, initiator, at=0.0)
        pair.run()
        first, second = pair.survivors()
        assert first == second, seed
        assert len(first) == 1, seed


@pytest.mark.parametrize("initiator", [SMALL, LARGE])
def test_a_late_second_connection_never_displaces_an_established_one(initiator: str) -> None:
    for seed in range(200):
        pair = _Pair(seed, proven=True)
        pair.connect(1, LARGE, at=0.0)
        pair.connect(2, initiator, at=policy.SIMULTANEOUS + 1)
        pair.run()
        assert pair.survivors() == [[1], [1]], seed
