from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from covey.flock.gate import DialGate
from covey.limits import Limits


def context_of(limits: Limits, planned: list[float]) -> Any:
    """As much of a flock's context as the gate asks for; the time stands still."""

    def call_at(when: float, _: object) -> Any:
        planned.append(when)
        return SimpleNamespace(cancel=lambda: None)

    clock = SimpleNamespace(now=lambda: 10.0, call_at=call_at)
    return SimpleNamespace(closing=False, limits=limits, max_connections=0, clock=clock)


def let_through(gate: DialGate, most: int) -> int:
    for passed in range(most):
        if not gate.open(busy=0, total=0):
            return passed
        gate.passed()
    return most


def test_dials_are_held_to_a_rate_after_a_burst_of_half_a_second() -> None:
    planned: list[float] = []
    gate = DialGate(context_of(Limits(dials_per_second=8.0), planned), lambda: None)
    assert let_through(gate, 100) == 4
    assert planned == [10.125]


def test_a_rate_of_zero_is_no_limit() -> None:
    planned: list[float] = []
    gate = DialGate(context_of(Limits(dials_per_second=0), planned), lambda: None)
    assert let_through(gate, 100) == 100
    assert planned == []
